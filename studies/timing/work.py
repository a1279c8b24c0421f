"""A computation and its contestants: all get the same numbers, return the same tensors, and are compared with one reference."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]
SLACK = 4.0  # allowed error in units of the textbook's in the same dtype, for sums in another order

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DIRECTIONS = ("forward", "forward+backward")


class Unavailable(Exception):
    """This contestant cannot do this work here; the message says why."""


@dataclass(frozen=True)
class Peer:
    """One way to do a work.

    Args:
        call: what is timed.
        result: runs once and gives what is checked; ``call`` itself where that returns it.
    """

    call: Callable[[], object]
    result: Callable[[], Tensors]


@dataclass(frozen=True)
class Work:
    """A computation with its reference.

    Args:
        peers: what makes each peer; it raises ``Unavailable`` where there is none.
        reference: the results of a peer in float64, from the numbers that all peers get.
        allowed: the relative error up to which a peer agrees with the reference.
        flops: multiplications and additions of the products, two for each pair.
        bytes: each input read once, each result written once: no implementation can move fewer.
    """

    peers: Mapping[str, Callable[[], Peer]]
    reference: Callable[[str], Tensors]
    allowed: float
    flops: float
    bytes: float


def differentiable(forward: Callable[[], Tensor], leaves: Tensors, grad: Tensor | None, direction: str) -> Peer:
    """Make a contestant from its forward pass: without gradients, or with those of ``leaves`` for the output's gradient
    ``grad``.
    """

    def inference() -> Tensors:
        with torch.no_grad():
            return (forward(),)

    def training() -> Tensors:
        output = forward()
        return (output.detach(), *torch.autograd.grad(output, leaves, grad))

    call = inference if direction == "forward" else training
    return Peer(call, call)


def relative_error(results: Tensors, reference: Tensors) -> float:
    """The largest distance of an element from its reference, in units of that tensor's largest; inf for what is no number.

    A distance of single elements, not of norms: one wrong element of a million must show.
    """
    if [tuple(t.shape) for t in results] != [tuple(t.shape) for t in reference]:
        return float("inf")
    worst = 0.0
    for result, truth in zip(results, reference, strict=True):
        largest = float(truth.abs().max()) or 1.0
        error = float((result.detach().to(truth.device, torch.float64) - truth).abs().max()) / largest
        if not error < float("inf"):  # nan too
            return float("inf")
        worst = max(worst, error)
    return worst


def distance(result: Tensor, truth: Tensor) -> float:
    """||result - truth|| / ||truth||; 0 or inf if the truth is zero, inf instead of nan, which ``max`` would pass over."""
    off, norm = float((result - truth).norm()), float(truth.norm())
    relative = off / norm if norm else off and float("inf")
    return relative if relative < float("inf") else float("inf")


def tolerance(textbook: Tensors, reference: Tensors, dtype: torch.dtype) -> float:
    """The allowed error: ``SLACK`` times that of the textbook in the same dtype, and at least one rounding."""
    return SLACK * max(relative_error(textbook, reference), torch.finfo(dtype).eps)


def numel_bytes(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
