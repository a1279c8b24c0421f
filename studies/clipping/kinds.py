"""Four methods called clipping, applied to the same gradient.

The gradient of a batch with respect to the recurrent layer's weights theta = (W_h, W_i, b) is a sum of parts over steps i
(lecture, slide BPTT). Here each part is computed by itself, with a copy of theta for every step, in float64.

    norm       g <- c / ||g|| g where ||g|| >= c              Pascanu, Mikolov & Bengio 2013; lecture, Algorithm 1
    value      every element of g to [-c, c]                  char-rnn (Karpathy 2015), c = 5
    temporal   every element of every step's part to [-c, c]  Mikolov 2012, c = 15
    hidden     every element of dL/dh(t) to [-c, c], before   Graves 2013 (who clips at the hidden units' inputs)
               it goes on to h(t-1)

These values of c are for losses that are sums; gradients of a mean over the batch's tokens are smaller.
"""

import copy
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recurrent_lm import kernels, lm
from recurrent_lm.studies.engine.language_models import beginning
from recurrent_lm.studies.timing.work import distance

KINDS = ("norm", "value", "temporal", "hidden")
EXAMPLE = (10.0, -9.5, -0.4)  # parts of one weight's gradient
WEIGHTS = ("weight_hh_l0", "weight_ih_l0", "bias_ih_l0")  # theta; the other bias has the same gradient in an Elman cell


def by_norm(gradient: Tensor, threshold: float) -> Tensor:
    """Scale the gradient to ``threshold`` if its norm is larger (lecture, Algorithm 1)."""
    norm = kernels.total_norm_on_host([gradient])
    return gradient * (threshold / norm) if norm >= threshold else gradient


def by_value(gradient: Tensor, threshold: float) -> Tensor:
    """Clip every element to [-threshold, threshold]."""
    return gradient.clamp(-threshold, threshold)


def by_part(parts: Tensor, threshold: float) -> Tensor:
    """Clip every element of the parts [T, n] to [-threshold, threshold], then sum them to [n]."""
    return parts.clamp(-threshold, threshold).sum(dim=0)


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of the angle between two vectors; nan if one of them is 0."""
    lengths = kernels.vector_norm(a), kernels.vector_norm(b)
    if not all(length > 0 for length in lengths):
        return float("nan")
    product = lengths[0] * lengths[1]
    if not 0 < product < float("inf") or product < torch.finfo(product.dtype).tiny:  # of vectors of length 1 instead
        return float((a / lengths[0]) @ (b / lengths[1]))
    return float(a @ b / product)


@dataclass(frozen=True)
class Snapshot:
    """A training step before its update: the model in float64, the state at the beginning of the batch, and the batch."""

    step: int
    model: lm.LanguageModel
    state: Tensor | tuple[Tensor, Tensor]
    inputs: Tensor  # [k, L]
    targets: Tensor  # [k, L]


def trajectory(config: lm.RunConfig, every: int) -> Iterator[Snapshot]:
    """Train one layer without dropout by the trainer, and yield a snapshot every ``every`` steps."""
    with beginning(config) as training:
        for _ in range(config.training.epochs):
            training.state = training.model.zero_state(config.batches.rows)
            for batch in training.batches:
                if training.at.step % every == 0:
                    yield _snapshot(training, batch)
                training.update(batch)
                training.at.step += 1


def _snapshot(training: lm.Training, batch: Any) -> Snapshot:
    state = training.state[0]
    wide = tuple(s.detach().double() for s in (state if isinstance(state, tuple) else (state,)))
    model = copy.deepcopy(training.model).double()
    inputs, targets = torch.from_numpy(batch.inputs).long(), torch.from_numpy(batch.targets).long()
    return Snapshot(training.at.step, model, wide if len(wide) > 1 else wide[0], inputs, targets)


@dataclass(frozen=True)
class Parts:
    """``parts`` [T, n], dL/dtheta at each step; ``hidden``, the largest |element| of any dL/dh(t)."""

    parts: Tensor
    hidden: float


def parts_of(snapshot: Snapshot) -> Parts:
    """Compute the batch's gradient with respect to theta, step by step."""
    model, steps = snapshot.model, snapshot.inputs.shape[1]
    (layer,) = model.layers
    of = dict(layer.named_parameters())
    copies = {name: of[name].detach().expand(steps, *of[name].shape).clone().requires_grad_() for name in WEIGHTS}
    state = tuple(s[0] for s in (snapshot.state if isinstance(snapshot.state, tuple) else (snapshot.state,)))
    x = model.embedding(snapshot.inputs.t()).detach()
    hidden = []
    for token, w_h, w_i, b in zip(x, *(copies[name].unbind() for name in WEIGHTS), strict=True):
        state = kernels.step(model.config.cell, F.linear(token, w_i, b), state, w_h, of["bias_hh_l0"].detach())
        hidden.append(state[0])
    gradients = torch.autograd.grad(_loss(model, torch.stack(hidden), snapshot.targets), [*copies.values(), *hidden])
    of_hidden = gradients[len(copies) :]
    largest = float(torch.stack([g.abs().max() for g in of_hidden]).max())  # of nan it is nan
    return Parts(torch.cat([g.flatten(1) for g in gradients[: len(copies)]], dim=1), largest)


def through_recurrence(snapshot: Snapshot, threshold: float = float("inf"), backend: str = "torch") -> Tensor:
    """The same gradient [n] from ``kernels.recurrence``, with dL/dh(t) clipped inside the backward pass to a finite
    threshold.
    """
    model = snapshot.model
    (layer,) = model.layers
    of = {name: p.detach().clone() for name, p in layer.named_parameters()}
    leaves = [of[name].requires_grad_() for name in WEIGHTS]
    state = tuple(s[0] for s in (snapshot.state if isinstance(snapshot.state, tuple) else (snapshot.state,)))
    weights = (of["weight_ih_l0"], of["weight_hh_l0"], of["bias_ih_l0"], of["bias_hh_l0"])
    clip = None if threshold == float("inf") else ("value", threshold)
    x = model.embedding(snapshot.inputs.t()).detach()
    output, _ = kernels.recurrence(model.config.cell, x, state, *weights, clip_recurrent=clip, backend=backend)
    gradients = torch.autograd.grad(_loss(model, output, snapshot.targets), leaves)
    return torch.cat([g.flatten() for g in gradients])


def _loss(model: lm.LanguageModel, hidden: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(model.logits(hidden).flatten(0, 1), targets.t().flatten())


def sizes(gradient: Parts) -> dict[str, float]:
    """The quantity that each method compares with its threshold; it changes the gradient where this is larger."""
    total = gradient.parts.sum(dim=0)
    return {
        "norm": kernels.total_norm_on_host([total]),
        "value": float(total.abs().max()),
        "temporal": float(gradient.parts.abs().max()),
        "hidden": gradient.hidden,
    }


def clipped(snapshot: Snapshot, parts: Tensor, kind: str, threshold: float) -> Tensor:
    """The gradient [n] after one method of clipping."""
    if kind == "hidden":
        return through_recurrence(snapshot, threshold)
    if kind == "temporal":
        return by_part(parts, threshold)
    return (by_norm if kind == "norm" else by_value)(parts.sum(dim=0), threshold)


def rows(config: lm.RunConfig, every: int, tightness: tuple[float, ...]) -> Iterator[dict[str, Any]]:
    """Measure the four methods along one training.

    Args:
        config: the training's settings.
        every: steps between snapshots.
        tightness: thresholds, as multiples of the median of each method's ``sizes`` over the snapshots.

    Yields:
        For each snapshot the distance of the parts' sum from the gradient of ``kernels.recurrence``, and the cosine to it after
        each method; then the share of snapshots that each method changed.
    """
    snapshots = list(trajectory(config, every))
    held: list[dict[str, float]] = []
    for snapshot in snapshots:
        gradient, true = parts_of(snapshot), through_recurrence(snapshot)
        held.append(sizes(gradient))
        yield {"quantity": "sum error", "step": snapshot.step, "value": distance(gradient.parts.sum(dim=0), true)}
    median = {kind: statistics.median(size[kind] for size in held) for kind in KINDS}
    for snapshot, size in zip(snapshots, held, strict=True):
        parts = parts_of(snapshot).parts
        true = parts.sum(dim=0)
        for kind, factor in product(KINDS, tightness):
            threshold = factor * median[kind]
            left = clipped(snapshot, parts, kind, threshold) if size[kind] > threshold else true
            about = {"kind": kind, "multiple": factor, "threshold": threshold, "step": snapshot.step}
            yield about | {"quantity": "cosine", "value": cosine(left, true)}
    for kind, factor in product(KINDS, tightness):
        threshold = factor * median[kind]
        touched = sum(size[kind] > threshold for size in held) / len(held)
        yield {"kind": kind, "multiple": factor, "threshold": threshold, "quantity": "touched", "value": touched}


def example() -> Iterator[dict[str, Any]]:
    """Three steps' parts of one weight's gradient: their sum, and what clipping each at 1 makes of it."""
    parts = torch.tensor(EXAMPLE, dtype=torch.float64)[:, None]
    yield {"kind": "example", "quantity": "sum", "value": float(parts.sum())}
    yield {"kind": "example", "quantity": "temporal", "threshold": 1.0, "value": float(by_part(parts, 1.0))}
    for kind, clip in (("norm", by_norm), ("value", by_value)):
        yield {"kind": "example", "quantity": kind, "threshold": 1.0, "value": float(clip(parts.sum(dim=0), 1.0))}
