"""What all studies share: their names, their parameters from text, their tables on disk."""

import json
from dataclasses import asdict, fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm import InputError

if TYPE_CHECKING:
    import pandas as pd

STUDIES = {
    "gradient_lag": "how far back the gradient of a trained model's loss reaches (a run)",
    "training_step": "what one training step costs against a plain torch.nn loop, in time and memory",
}
CLAIM_COLUMNS = ("claim", "source", "setting", "threshold", "measured", "verdict")


def module_of(name: str) -> Any:
    """The module of a study; it holds ``Study`` and ``verdicts``."""
    if name not in STUDIES:
        raise InputError(f"there is no study {name!r}; there are {', '.join(STUDIES)}")
    return import_module(f"studies.{name}")


def make(name: str, settings: dict[str, str]) -> Any:
    """A study with parameters given as text."""
    study = module_of(name).Study
    known = {f.name: f for f in fields(study)}
    values: dict[str, Any] = {}
    for key, text in settings.items():
        if key not in known:
            raise InputError(f"{name} has no parameter {key!r}; it has {', '.join(known)}")
        kind: Any = type(known[key].default)
        try:
            values[key] = kind(text)
        except ValueError:
            raise InputError(f"{key} must be a {'whole number' if kind is int else kind.__name__}, not {text!r}") from None
    return study(**values)


def save(table: "pd.DataFrame", path: Path, name: str, study: Any) -> None:
    """Store a table as Parquet together with the study's name, its parameters and the machine."""
    import lm

    table.attrs = {"study": name, "parameters": asdict(study), "machine": lm.describe_machine()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(path)
    except OSError as error:
        raise InputError(f"the table {path} cannot be written: {error.strerror or error}; choose another --out") from None


def load(path: Path) -> "pd.DataFrame":
    """A stored table; its ``attrs`` say which study made it, with which parameters, where."""
    import pandas as pd

    if not path.is_file():
        raise InputError(f"there is no table {path}; studies run NAME --out {path} makes one")
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is no table of a study ({error})") from None
    if table.attrs.get("study") not in STUDIES:
        raise InputError(f"{path} does not say which study made it; studies run NAME --out {path} makes a table that does")
    return table


def verdicts(table: "pd.DataFrame") -> "pd.DataFrame":
    """The claims that a table decides: one row each, columns ``CLAIM_COLUMNS``."""
    return module_of(table.attrs["study"]).verdicts(table)
