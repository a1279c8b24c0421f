"""Two models mixed token by token: P(x) = w P_1(x) + (1 - w) P_2(x), computed from log probabilities."""

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import bisect

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

TOLERANCE = 1e-9  # distance of the fitted weight from the best one


def mix(log_p: "ArrayLike", log_q: "ArrayLike", w: float) -> "NDArray[np.float64]":
    """log(w P + (1 - w) Q), elementwise, also where P and Q are too small for a float; -inf is a probability of 0.

    Raises:
        ValueError: for arrays that do not belong together, NaN, or a weight outside [0, 1].
    """
    p, q = _checked(log_p, log_q)
    if not 0 <= w <= 1:
        raise ValueError(f"a weight lies between 0 and 1; {w} does not")
    if w in (0, 1):
        return (p if w else q).copy()
    return np.logaddexp(np.log(w) + p, np.log1p(-w) + q)


def fit_weight(log_p: "ArrayLike", log_q: "ArrayLike") -> float:
    """The w in [0, 1] with the greatest mean of log(w P + (1 - w) Q), within ``TOLERANCE``.

    The mean is concave in w, so its slope falls: the best weight is where the slope is 0, found by bisection, or
    exactly 0 or 1 where the slope has one sign. Models that agree on every token give 0, the second model alone.

    Args:
        log_p, log_q: what two models give the same tokens [T] of a validation split, T >= 1, in nats.

    Raises:
        ValueError: for arrays that do not belong together, NaN, or a token that is impossible under both models.
    """

    p, q = _checked(log_p, log_q)
    if not p.size:
        raise ValueError("there is no token to fit a weight to")
    if bool((np.isneginf(p) & np.isneginf(q)).any()):
        raise ValueError("a token is impossible under both models, whatever the weight")
    first = p >= q
    ratio = np.exp(-np.abs(p - q))  # the smaller probability over the greater, so that nothing overflows

    def slope(w: float) -> float:
        """Mean of (P - Q) / (w P + (1 - w) Q); infinite where w gives a token no probability."""
        share = np.where(first, w, 1 - w)  # of the greater probability
        with np.errstate(divide="ignore"):
            return float((np.where(first, 1 - ratio, ratio - 1) / (share + (1 - share) * ratio)).mean())

    if slope(0.0) <= 0:
        return 0.0
    if slope(1.0) >= 0:
        return 1.0
    return float(bisect(slope, 0.0, 1.0, xtol=TOLERANCE))


def _checked(log_p: "ArrayLike", log_q: "ArrayLike") -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    p, q = np.asarray(log_p, dtype=np.float64), np.asarray(log_q, dtype=np.float64)
    if p.shape != q.shape:
        raise ValueError(f"the two models scored arrays of shapes {p.shape} and {q.shape}; they must be alike")
    if bool(np.isnan(p).any() or np.isnan(q).any()):
        raise ValueError("a log probability is NaN")
    return p, q
