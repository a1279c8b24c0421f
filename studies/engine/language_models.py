"""Language models that a study trains with the trainer, in a temporary folder."""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from recurrent_lm import lm


@dataclass(frozen=True)
class Trained:
    """The result of a training.

    ``run`` is the model of the best epoch, on the CPU and in evaluation mode. ``epochs`` and ``steps`` are the trainer's logs,
    one row for each epoch and update. ``scores`` maps "valid" and "test" to ``lm.evaluate``'s results. ``diverged`` is the
    reason if the training diverged; then ``scores`` is empty and ``run`` is the last good model.
    """

    run: lm.Run
    data: lm.Data
    epochs: "pd.DataFrame"
    steps: "pd.DataFrame"
    scores: dict[str, Any]
    diverged: str = ""


def names_in(corpora: str) -> list[str]:
    """The corpora of a parameter: names or paths with commas between."""
    return [name.strip() for name in corpora.split(",")]


@contextmanager
def beginning(config: lm.RunConfig) -> Iterator[lm.Training]:
    """A training before its first update, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="studies-") as folder:
        training = lm.new_training(config, Path(folder) / "run")
        try:
            yield training
        finally:
            if training.lock:
                training.lock.release()


def converged(config: lm.RunConfig) -> Trained:
    """``trained``, for a study that has no use for a training that exploded.

    Raises:
        InputError: also where it diverges.
    """
    training = trained(config)
    if training.diverged:
        raise lm.InputError(f"{training.diverged}; take a smaller lr")
    return training


def trained(config: lm.RunConfig, watch: Callable[[lm.Training], None] | None = None) -> Trained:
    """Train a model as ``lm train`` does.

    Args:
        config: all settings. A device of "auto" is the CPU, 0 threads are torch's present number, and a precision of "auto" is
            float32, so that no trial of speed decides the table.
        watch: called with the training before its first update and after each epoch. It must not change the model, its state or
            torch's random numbers.

    Returns:
        The best model with its logs and scores.

    Raises:
        InputError: for settings or a corpus that cannot be trained on.
    """

    threads = config.machine.threads or torch.get_num_threads()
    precision = "bf16" if config.machine.precision == "bf16" else "float32"
    device = "cpu" if config.machine.device == "auto" else config.machine.device
    config = config.replace(device=device, threads=threads, precision=precision)
    stopped = 0
    with beginning(config) as training:
        scores, diverged = {}, ""
        try:
            scores = training.run(quiet=True, each_epoch=watch)
        except lm.Diverged as error:
            diverged = str(error)
        except lm.Stopped as error:
            stopped = error.signum
        if not stopped:
            path = training.path
            run = lm.load(path, "last" if diverged else "best", device="cpu")
            return Trained(run, training.data, _log(path / "epochs.jsonl"), _log(path / "steps.jsonl"), scores, diverged)
    os.kill(os.getpid(), stopped)  # after the folder is removed, the signal takes its usual effect
    raise lm.InputError(f"the training was stopped by signal {stopped}")


def check_names(configs: Iterable[lm.RunConfig]) -> None:
    """Read the corpus of each configuration, because tables know corpora by name only.

    Raises:
        InputError: for a corpus that cannot be read, and for two with the same name.
    """
    names = [lm.prepare(config).corpus.name for config in configs]
    if len(set(names)) < len(names):
        raise lm.InputError(f"corpora must have different names, not {', '.join(names)}; rename a file or folder")


def _log(path: Path) -> "pd.DataFrame":
    return pd.DataFrame([json.loads(line) for line in path.read_text().splitlines()])
