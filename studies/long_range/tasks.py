"""Three tasks with a distant answer (Hochreiter & Schmidhuber 1997): temporal order, adding, copy.

Inputs are [T, count, channels] in float32: one-hot symbols or values, and a last channel of ones for the bias. Targets are
[S, count], the answers at the last S steps.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

COPIED, ALPHABET = 3, 4  # copy: symbols to keep, and how many kinds there are
NEAR = 0.04  # adding: an answer as near as this is right
ORDER = ("AA", "BA", "AB", "BB")  # temporal order: class = first + 2 * second, of A = 0 and B = 1


@dataclass(frozen=True)
class Task:
    """A task.

    Args:
        channels: of the input, the constant one included.
        outputs: classes, or 1 for a value.
        length: steps of a sequence from the lag T.
        generate: (random numbers, T, count) -> inputs, targets (int64 classes or float32 values).
    """

    name: str
    channels: int
    outputs: int
    length: Callable[[int], int]
    generate: Callable[[torch.Generator, int, int], tuple[Tensor, Tensor]]

    @property
    def classes(self) -> bool:
        return self.outputs > 1

    def loss(self, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss over asked steps and sequences, cross-entropy in nats or squared error.

        Args:
            y: [S, R, B, outputs].
            target: [S, R, B].

        Returns:
            The loss of each replica, [R], and its gradient with respect to y.
        """
        share = 1 / (y.shape[0] * y.shape[2])
        if self.classes:
            logs = y.log_softmax(dim=-1)
            dy = (logs.exp() - F.one_hot(target, self.outputs)) * share
            return -logs.gather(-1, target[..., None])[..., 0].sum(dim=(0, 2)) * share, dy
        off = y[..., 0] - target
        return off.square().sum(dim=(0, 2)) * share, 2 * share * off[..., None]

    def wrong(self, y: Tensor, target: Tensor) -> Tensor:
        """Whether an answer is wrong at any asked step, bool [R, B]; an output that is not finite is wrong."""
        right = (y.argmax(dim=-1) == target) if self.classes else (y[..., 0] - target).abs() <= NEAR
        return ~(right & y.isfinite().all(dim=-1)).all(dim=0)


def temporal_order(random: torch.Generator, steps: int, count: int) -> tuple[Tensor, Tensor]:
    """Which of A and B came first and second: the first marker at [0.1 T, 0.2 T), the second at [0.5 T, 0.6 T), noise
    elsewhere.

    Pascanu et al. 2013, section 4.1: 6 symbols, 4 classes, one answer at the last step.
    """
    symbols = torch.randint(2, 6, (steps, count), generator=random)
    tenth, columns = steps // 10, torch.arange(count)
    first, second = torch.randint(2, (2, count), generator=random)
    places = torch.randint(tenth, (2, count), generator=random)
    symbols[steps // 10 + places[0], columns] = first
    symbols[steps // 2 + places[1], columns] = second
    return with_one(F.one_hot(symbols, 6)), (first + 2 * second)[None]


def adding(random: torch.Generator, steps: int, count: int) -> tuple[Tensor, Tensor]:
    """Mean of two marked values among T uniform ones, one in the first tenth, the other in the rest of the first half."""
    values = torch.rand(steps, count, generator=random)
    marks, columns = torch.zeros(steps, count), torch.arange(count)
    tenth, half = steps // 10, steps // 2
    places = torch.randint(tenth, (count,), generator=random), torch.randint(tenth, half, (count,), generator=random)
    for place in places:
        marks[place, columns] = 1
    target = (values[places[0], columns] + values[places[1], columns]) / 2
    return with_one(torch.stack([values, marks], dim=-1)), target[None]


def copy(random: torch.Generator, steps: int, count: int) -> tuple[Tensor, Tensor]:
    """``COPIED`` symbols, then blanks, then a signal; the symbols must be repeated, each T steps after it was read."""
    symbols = torch.full((steps + COPIED, count), ALPHABET)
    kept = torch.randint(ALPHABET, (COPIED, count), generator=random)
    symbols[:COPIED] = kept
    symbols[steps] = ALPHABET + 1
    return with_one(F.one_hot(symbols, ALPHABET + 2)), kept


def with_one(x: Tensor) -> Tensor:
    """Inputs in float32 with a last channel of ones."""
    return F.pad(x.float(), (0, 1), value=1.0)


TASKS = {
    "temporal_order": Task("temporal_order", 7, 4, lambda steps: steps, temporal_order),
    "adding": Task("adding", 3, 1, lambda steps: steps, adding),
    "copy": Task("copy", ALPHABET + 3, ALPHABET, lambda steps: steps + COPIED, copy),
}
