"""What all studies share: their names, their parameters, their claims."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lm import InputError
from studies.parameters import from_text

if TYPE_CHECKING:
    import pandas as pd

STUDIES = {
    "gradient_lag": "how far back the gradient of a trained model's loss reaches (a run)",
    "training_step": "what one training step costs against a plain torch.nn loop, in time and memory",
}
CLAIM_COLUMNS = ("claim", "source", "setting", "threshold", "measured", "verdict")


def module_of(name: str) -> Any:
    """The module of a study. It holds ``Study``, the ``COLUMNS`` of its table with their types, ``grid`` and ``verdicts``."""
    if name not in STUDIES:
        raise InputError(f"there is no study {name!r}; there are {', '.join(STUDIES)}")
    return import_module(f"studies.{name}")


def make(name: str, settings: dict[str, str]) -> Any:
    """A study with parameters given as text."""
    return from_text(module_of(name).Study, settings)


def verdicts(table: "pd.DataFrame") -> "pd.DataFrame":
    """The claims that a table decides: one row each, columns ``CLAIM_COLUMNS``."""
    return module_of(table.attrs["study"]).verdicts(table)
