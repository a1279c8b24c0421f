"""The list of studies, without imports, so that commands list them quickly. A new study is a folder and a line here."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from recurrent_lm.lm import InputError

STUDIES = {
    "reading": "how a language model reads: the next word it expects, the rows of its batches, and the state it carries on",
    "gradient_lag": "how far back the gradient of a trained model's loss reaches (a run)",
    "gradient_flow": "where the gradient of W_h comes from, step by step: networks of the textbook and language models",
    "parallel": "in how many iterations Newton's method solves all time steps at once, and what that has to do with gradients",
    "long_range": "whether networks learn what lies many steps back, and how much of its past a language model uses",
    "training_step": "what one training step costs against a plain torch.nn loop, in time and memory",
    "speeches": "how well each cell models each speaker, and what the models write",
    "weight_tying": "what it saves, and what it costs, to let the decoder use the embedding",
    "throughput": "how fast recurrences, losses and training steps are beside what else one would use",
    "clipping": "what clipping does to gradients: at the cliff, in training, and to their direction",
    "backends": "whether all backends teach a model the same, and how fast",
    "exchange": "what a step costs programs that only exchange their state, on a GPU: the floor of a recurrence",
}


def module_of(name: str) -> Any:
    """Import the module of a study.

    Args:
        name: a key of ``STUDIES``.

    Returns:
        The module, with ``Study``, ``PRESETS``, ``claims(table)``, and ``grid`` or ``complaint`` to check its tables.

    Raises:
        InputError: for an unknown name.
    """
    if name not in STUDIES:
        raise InputError(f"there is no study {name!r}; there are {', '.join(STUDIES)}")
    return import_module(f"recurrent_lm.studies.{name}.study")


def part_of(study: str, name: str) -> Any:
    """Import a module or folder, such as ``figures``, of the folder of a study; None where there is none."""
    folder = f"recurrent_lm.studies.{study}"
    return import_module(f"{folder}.{name}") if find_spec(folder) and find_spec(f"{folder}.{name}") else None
