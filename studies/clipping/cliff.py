"""The cliff of Pascanu, Mikolov & Bengio 2013, Fig. 6: one sigmoid unit over fifty steps, and the place where its gradient
explodes.

    x_t = w s(x_{t-1}) + b,    x_0 = 0.5,    E = (s(x_50) - 0.7)^2

x_0 is a fixed point on the line b* = 0.5 - s(0.5) w. Where a = s'(0.5) w > 1 it is unstable, trajectories on the two sides of
the line separate, and E is a wall with dE/db = E'(0.5) (1 + a + .. + a^49). Everything is in float64, and once in decimals.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

START, STEPS, TARGET = 0.5, 50, 0.7
PROBED = (4.5, 5.0, 5.5, 6.0)  # w at which the slope on the ridge is computed in several ways
SPAN, BELOW, ABOVE = (4.0, 6.0), 1.3, 1.6  # of w on the surface; of b below and above the ridge
REACH = 9.0  # the surface's smallest step is about e^-9 of BELOW and ABOVE
BESIDE = 1e-4  # distance from a bifurcation at which fixed points are counted
DIGITS = 60  # of the decimals


class Slopes(NamedTuple):
    """E and its derivatives, arrays of the same shape or numbers."""

    error: Any
    by_w: Any
    by_b: Any


def sigmoid(x: Any) -> Any:
    """s(x), without overflow far out."""
    return (1 + np.tanh(np.asarray(x) / 2)) / 2


UNSTABLE = 1 / (sigmoid(START) * (1 - sigmoid(START)))  # the w above which x_0 is an unstable fixed point: 4.255


def ridge(w: Any) -> Any:
    """b*(w), the line on which x_0 is a fixed point."""
    return START - sigmoid(START) * w


def slopes(w: Any, b: Any, steps: int = STEPS) -> Slopes:
    """E at (w, b) with dE/dw and dE/db, by forward mode.

    Args:
        w, b: numbers, or arrays of one shape.
        steps: how often the unit is applied.

    Returns:
        E and its two derivatives, of that shape.
    """
    w, b = np.broadcast_arrays(np.asarray(w, dtype=np.float64), np.asarray(b, dtype=np.float64))
    x, x_w, x_b = np.full(w.shape, START), np.zeros(w.shape), np.zeros(w.shape)
    for _ in range(steps):
        s = sigmoid(x)
        growth = w * s * (1 - s)
        x, x_w, x_b = w * s + b, s + growth * x_w, 1 + growth * x_b
    s = sigmoid(x)
    outer = 2 * (s - TARGET) * s * (1 - s)
    return Slopes((s - TARGET) ** 2, outer * x_w, outer * x_b)


def formula(w: float, steps: int = STEPS) -> float:
    """dE/db on the ridge: E'(0.5) (a^n - 1) / (a - 1), a = s'(0.5) w; with n = 50, -0.03644 (a^50 - 1) / (a - 1)."""
    s = sigmoid(START)
    a = s * (1 - s) * w
    return float(2 * (s - TARGET) * s * (1 - s) * (a**steps - 1) / (a - 1))


def decimal_slope(w: float, steps: int = STEPS) -> float:
    """dE/db on the ridge in 60 decimal digits, so that rounding plays no part."""
    with localcontext() as context:
        context.prec = DIGITS
        one, weight, start, target = Decimal(1), Decimal(w), Decimal(START), Decimal(str(TARGET))

        def s_of(x: Decimal) -> Decimal:
            return one / (one + (-x).exp())

        b = start - s_of(start) * weight
        x, slope = start, Decimal(0)
        for _ in range(steps):
            s = s_of(x)
            x, slope = weight * s + b, one + weight * s * (one - s) * slope
        s = s_of(x)
        return float(2 * (s - target) * s * (one - s) * slope)


def steepest(w: float) -> tuple[float, float]:
    """(b, dE/db) at the largest |dE/db| of a scan within 1.5 of the ridge, denser towards it."""
    near = np.geomspace(1e-14, 1.5, 20_000)
    b = ridge(w) + np.concatenate([-near[::-1], [0.0], near])
    derivatives = slopes(w, b).by_b
    i = int(np.abs(derivatives).argmax())
    return float(b[i]), float(derivatives[i])


def bifurcations(w: float) -> tuple[float, float]:
    """The two values of b, in order, where a pair of fixed points appears or vanishes (Fig. 3): w s'(x) = 1 at x = w s(x) +
    b.
    """
    if w <= 4:
        return float("nan"), float("nan")
    s = (1 + np.array([1, -1]) * np.sqrt(1 - 4 / w)) / 2
    b = np.log(s / (1 - s)) - w * s
    return float(b[0]), float(b[1])


def fixed_points(w: float, b: float) -> int:
    """Number of solutions of x = w s(x) + b, by changes of sign on a dense scan."""
    x = np.linspace(b - 1, b + w + 1, 200_001)  # all of them lie between b and b + w
    above = w * sigmoid(x) + b - x > 0
    return int((above[1:] != above[:-1]).sum())


def surface(weights: int, offsets: int) -> Iterator[tuple[float, float, float]]:
    """(w, b, E) on a grid that follows the ridge: ``offsets`` values of b - b*, closer together near it, at each w."""
    away = np.sinh(np.linspace(-1, 1, offsets) * REACH) / np.sinh(REACH)
    for w in np.linspace(*SPAN, weights):
        b = ridge(w) + np.where(away < 0, BELOW, ABOVE) * away
        yield from zip(np.full(offsets, w).tolist(), b.tolist(), slopes(w, b).error.tolist(), strict=True)


@dataclass(frozen=True)
class Point:
    """A position of a descent, with error and gradient norm there."""

    w: float
    b: float
    error: float
    norm: float


def descent(w: float, b: float, rate: float, threshold: float, steps: int) -> "Iterator[Point]":
    """Gradient descent from (w, b) with Algorithm 1; a threshold of infinity clips nothing."""
    place: NDArray[np.float64] = np.array([w, b])
    for _ in range(steps + 1):
        error, by_w, by_b = slopes(*place)
        gradient = np.array([by_w, by_b])
        norm = float(np.linalg.norm(gradient))
        yield Point(float(place[0]), float(place[1]), float(error), norm)
        place = place - rate * gradient * (threshold / norm if norm >= threshold else 1)


def rows(grid: int, start: tuple[float, float], rate: float, threshold: float, steps: int) -> Iterator[dict[str, Any]]:
    """Rows of the surface, two descents, the slope on the ridge in several ways, and the bifurcations at w = 5."""
    for w, b, error in surface(grid, grid):
        yield {"kind": "surface", "quantity": "error", "w": w, "b": b, "value": error}
    for kind, limit in (("plain", float("inf")), ("clipped", threshold)):
        for step, at in enumerate(descent(*start, rate, limit, steps)):
            about = {"kind": kind, "rate": rate, "threshold": limit, "step": step, "w": at.w, "b": at.b}
            yield about | {"quantity": "error", "value": at.error}
            yield about | {"quantity": "norm", "value": at.norm}
    for w in PROBED:
        b = float(ridge(w))
        probes = {"ridge": (b, slopes(w, b).by_b), "four digits": (round(b, 4), slopes(w, round(b, 4)).by_b)}
        probes |= {"formula": (b, formula(w)), "decimals": (b, decimal_slope(w)), "steepest": steepest(w)}
        for kind, (place, slope) in probes.items():
            yield {"kind": kind, "quantity": "dE/db", "w": w, "b": place, "value": float(slope)}
    for kind, b in zip(("lower", "upper"), bifurcations(5.0), strict=True):
        for place in (b - BESIDE, b + BESIDE):
            yield {"kind": kind, "quantity": "fixed points", "w": 5.0, "b": place, "value": float(fixed_points(5.0, place))}
