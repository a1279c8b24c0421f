"""What a run's folder tells of its training, while it goes on and afterwards."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.base.storage import in_use, unseal
from recurrent_lm.lm.config import RunConfig, from_toml
from recurrent_lm.lm.runs import logs
from recurrent_lm.lm.runs.folder import is_run, only_run
from recurrent_lm.lm.training.journal import DIVERGED
from recurrent_lm.lm.training.rollback import RECORD

Records = list[dict[str, Any]]


@dataclass(frozen=True)
class History:
    """Settings, what about.json says, and the logs: a record an update, an epoch, a text, a rollback.

    ``result`` and ``diverged`` are None where the training has not ended so; ``running`` is whether it goes on at this moment.
    """

    path: Path
    config: RunConfig
    about: dict[str, Any]
    steps: Records
    epochs: Records
    samples: Records
    rollbacks: Records
    result: dict[str, Any] | None
    diverged: dict[str, Any] | None
    running: bool

    @cached_property
    def best(self) -> dict[str, Any] | None:
        """The record of the epoch that validated best."""
        return min(self.epochs, key=lambda record: record["valid_loss"], default=None)


def history(path: str | Path) -> History:
    """Read a run's logs and settings.

    Args:
        path: the run folder.

    Returns:
        The history of the run.

    Raises:
        InputError: if there is no such run, or one of its files is damaged.
    """
    path = only_run(Path(path))
    if not path.is_dir():
        raise InputError(f"there is no run {path}; lm runs lists the runs, lm train makes one")
    if not is_run(path):
        raise InputError(f"{path} is not a run folder; lm runs lists the runs")
    names = ("steps.jsonl", "epochs.jsonl", "samples.jsonl", RECORD)
    steps, epochs, samples, rollbacks = (list(logs.read(path / name)) for name in names)
    running = in_use(path)  # before the result is read, which a training writes before it lets go
    about, result, diverged = (_object(path / name) for name in ("about.json", "result.json", DIVERGED))
    config = from_toml(path / "config.toml")
    return History(path, config, about or {}, steps, epochs, samples, rollbacks, result, diverged, running)


def _object(file: Path) -> dict[str, Any] | None:
    if not file.exists():
        return None
    try:
        return unseal(file.read_bytes())
    except (ValueError, OSError) as error:
        raise InputError(f"{file} {error}; restore it from a copy") from None
