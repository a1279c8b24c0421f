"""Language models trained by SGD with several learning rates and clipping thresholds."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from recurrent_lm import lm
from recurrent_lm.studies.clipping.table import BINS, bin_of
from recurrent_lm.studies.engine.language_models import Trained, trained

NEVER = float("inf")  # the threshold, and its multiple, of a training without clipping


def rows(config: lm.RunConfig, rates: tuple[float, ...], multiples: tuple[float, ...]) -> Iterator[dict[str, Any]]:
    """Train once for each rate and threshold, from the same initial weights and batches.

    Thresholds are ``multiples`` of the mean gradient norm of the training without clipping at the smallest rate, which must not
    diverge. If no norm of the training without clipping reaches a threshold, that training stands for the clipped one, since
    every update would be equal.

    Yields:
        The measurements of each training.
    """
    mean = float("nan")
    for rate in sorted(rates):
        free = trained(config.replace(lr=rate, clip="none"))
        if not np.isfinite(mean):
            if free.diverged:
                raise lm.InputError(f"at the smallest rate, {rate:g}, training without clipping diverged; take a smaller one")
            mean = float(free.steps["grad_norm"].mean())
        for multiple in (*multiples, NEVER):
            threshold = multiple * mean
            same = multiple == NEVER or (not free.diverged and free.steps["grad_norm"].max() < threshold)
            training = free if same else trained(config.replace(lr=rate, clip=f"norm:{threshold!r}"))
            about = {"rate": rate, "multiple": multiple, "threshold": threshold}
            yield from (about | row for row in _of(training, threshold))


def _of(training: Trained, threshold: float) -> Iterator[dict[str, Any]]:
    steps = training.steps
    norms = np.asarray(steps["grad_norm"] if len(steps) else [], dtype=np.float64)
    yield {
        "part": "training",
        "quantity": "loss",
        "value": NEVER if training.diverged else training.epochs["valid_loss"].iloc[-1],
    }
    yield {"part": "training", "quantity": "clipped", "value": float(steps["clipped"].mean()) if len(steps) else 0.0}
    yield {"part": "training", "quantity": "mean norm", "value": float(norms.mean()) if len(norms) else NEVER}
    yield {"part": "training", "quantity": "frequencies", "value": frequencies_loss(training.data)}
    for quantity, values in (("before", norms), ("after", np.minimum(norms, threshold))):
        counts = np.bincount(bin_of(values), minlength=BINS)
        for place in counts.nonzero()[0].tolist():
            yield {"part": "norms", "quantity": quantity, "bin": place, "value": float(counts[place])}


def frequencies_loss(data: lm.Data) -> float:
    """Nats a token of the validation text under the training text's word frequencies, 1 added to each: the trainer's initial
    loss.
    """
    counts = np.bincount(data.train.ids, minlength=data.tokenizer.size) + 1.0
    return float(-np.log(counts / counts.sum())[data.valid.ids].mean())
