"""A gradient whose norm exceeds float32: Algorithm 1 with the naive norm, and with the norm of the scaled gradient.

The square of an element above 1.8e19 is infinite in float32, and so is the norm, although float32 can represent the gradient
and would represent the norm. Algorithm 1 then divides by infinity. The norm of the gradient over its largest element, times
that element, does not overflow (Blue 1978; BLAS's ``nrm2``).
"""

from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor

from recurrent_lm import lm
from recurrent_lm.studies.engine.language_models import beginning

THRESHOLD = 1.0
HIDDEN, WIDTH, BPTT = 256, 0.5, 150  # weights as wide as these multiply a gradient by about 1.5 at every step back
NEAR = 5  # steps back over which that gradient is of no unusual size
AN_EPOCH = 4  # updates for each of the study's epochs
STANDING = 3  # updates that show that weights stand still
# name: (steps back, the norm that Algorithm 1 divides by)
KINDS = {"naive": (BPTT, "naive"), "scaled": (BPTT, "scaled"), "near": (NEAR, "scaled")}


def naive(gradients: list[Tensor]) -> float:
    """Square root of the sum of squares, in the gradients' dtype."""
    return float(torch.linalg.vector_norm(torch.cat([g.flatten() for g in gradients])))


def scaled(gradients: list[Tensor]) -> float:
    """Norm of the gradients over their largest element, times that element; 0 for zeros."""
    flat = torch.cat([g.flatten() for g in gradients])
    largest = flat.abs().max()
    return float(largest * torch.linalg.vector_norm(flat / largest)) if largest > 0 else float(largest)


def true(gradients: list[Tensor]) -> float:
    """The norm in float64."""
    return float(torch.linalg.vector_norm(torch.cat([g.double().flatten() for g in gradients])))


NORMS = {"naive": naive, "scaled": scaled}


def config(corpus: str, seed: int) -> lm.RunConfig:
    """A tanh network with wide weights and long windows: ``lm train CORPUS --cell rnn-tanh --hidden-size 256 --init-width 0.5
    --dropout 0 --bptt 150 --clip norm:1``.
    """
    return lm.RunConfig().replace(
        source=corpus, cell="rnn-tanh", hidden_size=HIDDEN, init_width=WIDTH, dropout=0.0, bptt=BPTT, clip=f"norm:{THRESHOLD}",
        seed=seed, device="cpu", precision="float32", backend="torch", threads=torch.get_num_threads(), checkpoint_every=10**9,
    )  # fmt: skip


def rows(config: lm.RunConfig, updates: int) -> Iterator[dict[str, Any]]:
    """Train from the same weights with the naive norm (a few updates), with the scaled norm (``updates``), and with short
    windows.

    Yields:
        For each update the ``loss`` before it, the ``norm`` that Algorithm 1 uses, the ``true norm``, and ``left``, the true
        norm of the clipped gradient.
    """
    for kind, (steps, norm) in KINDS.items():
        many = min(updates, STANDING) if kind == "naive" else updates
        for step, quantities in enumerate(_updates(config.replace(bptt=steps), norm, many), start=1):
            about = {"kind": kind, "threshold": THRESHOLD, "step": step}
            yield from (about | {"quantity": quantity, "value": value} for quantity, value in quantities.items())


def _updates(config: lm.RunConfig, norm: str, updates: int) -> Iterator[dict[str, float]]:
    """The trainer's updates with the paper's Algorithm 1 instead of the trainer's clipping."""
    with beginning(config) as training:
        training.model.train()
        for number, batch in enumerate(islice(cycle(training.batches), updates)):
            if number % len(training.batches) == 0:
                state: Any = training.model.zero_state(config.batches.rows)
            training.step.optimizer.zero_grad()
            inputs, targets = torch.from_numpy(batch.inputs).long(), torch.from_numpy(batch.targets).long()
            loss, state = training.step.loss(inputs, targets, None, [s.detach() for s in state])
            loss.backward()
            gradients = [p.grad for p in training.model.parameters() if p.grad is not None]
            before, used = true(gradients), NORMS[norm](gradients)
            if used >= THRESHOLD:
                for gradient in gradients:
                    gradient.mul_(THRESHOLD / used)
            training.step.optimizer.step()
            yield {"loss": float(loss.detach()), "norm": used, "true norm": before, "left": true(gradients)}
