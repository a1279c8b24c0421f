"""Trains replicas on a task until they succeed: fewer than 1% errors on 10,000 fresh sequences."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recurrent_lm import kernels
from recurrent_lm.studies.long_range.replicas import Weights, answers, gradients, initial
from recurrent_lm.studies.long_range.tasks import TASKS, Task

SUCCESS, TESTED = 0.01, 10_000  # share of errors, and fresh sequences of the full test (Pascanu et al. 2013)
SCREEN, HOPEFUL = 1_000, 0.02  # sequences of a check, and the errors up to which a replica is tested fully
CHUNK = 20  # batches that are drawn at once
FINITE = 1e10  # gradient norm that ends a training without clipping
CLIPPED = 1e37  # and one with clipping: 1 / norm must be a normal number


@dataclass(frozen=True)
class Recipe:
    """Training settings. ``clip`` is the threshold of the joint norm (Algorithm 1 of Pascanu et al. 2013), inf for no
    clipping.
    """

    cell: str
    hidden: int
    std: float
    optimizer: str  # sgd or adam
    lr: float
    clip: float
    omega: float = 0.0
    rows: int = 20
    updates: int = 30_000
    every: int = 500  # updates between checks


def train(task: str, steps: int, recipe: Recipe, seeds: list[int]) -> list[dict[str, Any]]:
    """Train one replica a seed.

    A seed determines the initial weights and all sequences whatever the clipping, so trainings of one seed are pairs.

    Args:
        task: a key of ``TASKS``.
        steps: T.
        recipe: optimizer, rate, clipping.
        seeds: one for each replica.

    Returns:
        One row a seed: ``updates`` until it succeeded, diverged or reached the limit; ``solved``, 0 or 1; ``error``, the share
        of wrong answers at the last check.
    """
    about = TASKS[task]
    randoms = [torch.Generator().manual_seed(seed) for seed in seeds]
    fresh = [torch.Generator().manual_seed(10**6 + seed) for seed in seeds]  # for checks, whose number differs between recipes
    weights = initial(recipe.cell, about, recipe.hidden, recipe.std, randoms)
    rows = {seed: {"seed": seed, "updates": recipe.updates, "solved": 0, "error": 1.0} for seed in seeds}
    left = torch.arange(len(seeds))
    moments = _Adam(weights) if recipe.optimizer == "adam" else None
    with flushed():
        for update in range(recipe.updates):
            if update % CHUNK == 0:
                drawn = _draw(about, [randoms[i] for i in left], steps, CHUNK, recipe.rows)
            x, target = (part[update % CHUNK] for part in drawn)
            _, grads, _ = gradients(recipe.cell, about, weights, x, target, recipe.omega)
            alive = descend(weights, grads, recipe, moments)
            done = ~alive
            last = update + 1 == recipe.updates
            if (update + 1) % recipe.every == 0 or last:
                here = [fresh[i] for i in left]
                errors = check(recipe.cell, about, weights, steps, here)
                done = done | (errors < SUCCESS)
                for i, error in zip(left.tolist(), errors.tolist(), strict=True):
                    rows[seeds[i]]["error"] = error
                    rows[seeds[i]]["solved"] = int(error < SUCCESS)
            if done.any():
                for i in left[done].tolist():
                    rows[seeds[i]]["updates"] = update + 1
                kept = (~done).nonzero()[:, 0]
                left, weights = left[kept], weights.of(kept)
                drawn = drawn[0][:, :, kept].contiguous(), drawn[1][:, :, kept].contiguous()
                if moments:
                    moments.keep(kept)
            if not len(left):
                break
    return list(rows.values())


def descend(weights: Weights, grads: Weights, recipe: Recipe, moments: "_Adam | None" = None) -> Tensor:
    """Update the weights in place, with each replica's joint norm clipped.

    Returns:
        Bool [R], False for replicas whose gradient was too large or not finite; their weights stay.
    """
    norm = joint_norm(grads)
    alive = norm < (FINITE if math.isinf(recipe.clip) else CLIPPED)  # nan is not
    scale = (recipe.clip / norm).clamp(max=1.0).where(alive, 0.0)[:, None, None]
    steps = [g.nan_to_num(0.0) * scale for g in grads.tensors()]
    if moments:
        steps = moments(steps)
    for w, step in zip(weights.tensors(), steps, strict=True):
        w.sub_(step, alpha=recipe.lr)
    return alive


def joint_norm(grads: Weights) -> Tensor:
    """||g|| of each replica, [R], also where squares overflow or underflow."""
    norm: Tensor = sum(g.square().sum(dim=(1, 2)) for g in grads.tensors()).sqrt()  # type: ignore[union-attr]
    if bool(((norm > 1e-15) & norm.isfinite()).all()):
        return norm
    parts = torch.stack([kernels.vector_norm(g, dim=(1, 2)) for g in grads.tensors()])
    return torch.where((norm > 1e-15) & norm.isfinite(), norm, kernels.vector_norm(parts, dim=0))


def check(cell: str, task: Task, weights: Weights, steps: int, fresh: list[torch.Generator]) -> Tensor:
    """Share of wrong answers on fresh sequences, [R]: on 1,000, and on 10,000 others where those were few."""
    errors = _errors(cell, task, weights, steps, fresh, 1)
    hopeful = (errors <= HOPEFUL).nonzero()[:, 0]
    if len(hopeful):
        tested = [fresh[i] for i in hopeful]
        errors[hopeful] = _errors(cell, task, weights.of(hopeful), steps, tested, TESTED // SCREEN)
    return errors


def _errors(cell: str, task: Task, weights: Weights, steps: int, fresh: list[torch.Generator], parts: int) -> Tensor:
    wrong = torch.zeros(len(fresh), dtype=torch.float64)
    for _ in range(parts):
        (x,), (target,) = _draw(task, fresh, steps, 1, SCREEN)
        wrong += task.wrong(answers(cell, weights, x, len(target)), target).sum(dim=1)
    return wrong / (parts * SCREEN)


def _draw(task: Task, randoms: list[torch.Generator], steps: int, batches: int, rows: int) -> tuple[Tensor, Tensor]:
    """Inputs [batches, T, R, rows, channels] and targets [batches, S, R, rows], each replica's from its own generator."""
    drawn = [task.generate(random, steps, batches * rows) for random in randoms]
    x = torch.stack([d[0].unflatten(1, (batches, rows)) for d in drawn])  # [R, T, batches, rows, channels]
    target = torch.stack([d[1].unflatten(1, (batches, rows)) for d in drawn])
    return x.permute(2, 1, 0, 3, 4).contiguous(), target.permute(2, 1, 0, 3).contiguous()


class _Adam:
    """Kingma & Ba 2015, all replicas at once."""

    def __init__(self, weights: Weights) -> None:
        self.mean = [torch.zeros_like(w) for w in weights.tensors()]
        self.square = [torch.zeros_like(w) for w in weights.tensors()]
        self.count = 0

    def __call__(self, grads: list[Tensor]) -> list[Tensor]:
        self.count += 1
        first, second = 1 - 0.9**self.count, math.sqrt(1 - 0.999**self.count)
        steps = []
        for g, m, v in zip(grads, self.mean, self.square, strict=True):
            m.lerp_(g, 0.1)
            v.mul_(0.999).addcmul_(g, g, value=0.001)
            steps.append(m / first / (v.sqrt() / second + 1e-8))
        return steps

    def keep(self, replicas: Tensor) -> None:
        self.mean, self.square = ([t[replicas] for t in part] for part in (self.mean, self.square))


@contextmanager
def flushed() -> Iterator[None]:
    """Flush subnormal numbers to 0 in the block: vanished gradients would make the processor a hundred times slower."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
