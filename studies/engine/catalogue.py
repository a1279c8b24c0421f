"""The list of studies, without imports, so that commands list them quickly. A new study is a folder and a line here."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from recurrent_lm.lm import InputError

STUDIES = {
    "reading": "which word does a language model expect next, and what does it remember from the batch before?",
    "gradient_lag": "how many words back does the gradient of a trained run reach?",
    "gradient_flow": "which earlier words does the gradient of W_h come from, and when does it vanish or explode?",
    "parallel": "in how many iterations does Newton's method solve all time steps at once, and what do gradients decide of it?",
    "long_range": "which networks learn what lies many steps back, and how much of its past does a language model use?",
    "training_step": "how much time and memory does a training step take, beside a plain torch.nn loop?",
    "speeches": "which network predicts a speaker best, and is what it writes new or copied?",
    "weight_tying": "what is gained and what is lost when the decoder uses the embedding's weights?",
    "throughput": "how fast are the recurrences, losses and training steps, beside what else one would use?",
    "clipping": "what does clipping do to a gradient at the cliff, to its direction, and to a training?",
    "backends": "do all backends train the same model, and how fast is each?",
    "exchange": "how long does a step take on a GPU whose programs only exchange their state?",
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
