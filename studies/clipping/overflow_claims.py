"""Claims of the part overflow: which norm Algorithm 1 needs, and its effect on a training."""

import math
from typing import TYPE_CHECKING

from recurrent_lm.studies.clipping.overflow import BPTT, HIDDEN, NEAR, WIDTH
from recurrent_lm.studies.clipping.table import ONE, SLIDE
from recurrent_lm.studies.engine.claims import Claim
from recurrent_lm.studies.engine.statistics import UNDEFINED, decided, mean

if TYPE_CHECKING:
    import pandas as pd

CLOSE = 1e-5  # relative, of a float32 norm
LEARNT = 0.5  # nats a token, of about 16; single batches differ by 0.3
LEAST = 9  # updates of which the first five and the last four are apart
STANDS = "naive_norm", "with the naive float32 norm of such a gradient, Algorithm 1 takes steps of length 0"
GOES_ON = "scaled_norm", "with the norm of the scaled gradient, Algorithm 1 takes steps of the threshold's length"
LEARNS = "scaled_learns", "clipped by that norm, the training learns"
SOURCE = f"{SLIDE} (Algorithm 1); Blue 1978"


def overflow(part: "pd.DataFrame") -> list[Claim]:
    """Claims on gradients that fit float32 while their naively computed norm does not."""
    keys = ["corpus", "seed", "kind", "step"]
    wide = part.pivot(index=keys, columns="quantity", values="value").reindex(columns=["loss", "norm", "true norm", "left"])
    setting = (
        f"tanh {HIDDEN}, initial width {WIDTH:g}, BPTT {BPTT}, {len(part[['corpus', 'seed']].drop_duplicates())} trainings"
    )
    return [_stands(_of(wide, "naive"), setting), _goes_on(_of(wide, "scaled"), setting), _learns(wide["loss"], setting)]


def _of(wide: "pd.DataFrame", kind: str) -> "pd.DataFrame":
    return wide[wide.index.get_level_values("kind") == kind]


def _stands(steps: "pd.DataFrame", setting: str) -> Claim:
    threshold = "where float32's norm is infinite and float64's is not, nothing of the gradient is left"
    known = steps[steps["true norm"] < math.inf]
    lost = known[known["norm"] == math.inf]
    measured, holds = "", None
    if len(steps):
        measured = f"{len(lost)} of {len(steps)} steps have such a norm"
        if len(lost):
            measured += f", of {lost['true norm'].min():.2g} to {lost['true norm'].max():.2g}; left is {lost['left'].max():g}"
            holds = bool((lost["left"] == 0).all())
    why = "no norm was too large for float32: the text is too short for so many steps back" if holds is None else ""
    return Claim(*STANDS, SOURCE, setting, threshold, measured, holds, why)


def _goes_on(steps: "pd.DataFrame", setting: str) -> Claim:
    threshold = f"norm and step within {CLOSE:g} of float64's norm and of the threshold, in every step"
    if steps.empty:
        return Claim(*GOES_ON, SOURCE, setting, threshold)
    true, left = steps["true norm"], steps["left"]
    if not ((true > 0) & (true < math.inf)).all():
        return Claim(*GOES_ON, SOURCE, setting, threshold, UNDEFINED)
    off = (steps["norm"] / true - 1).abs().max(skipna=False)
    missed = (left / true.clip(upper=1.0) - 1).abs().max(skipna=False)  # the threshold is 1
    measured = f"norms off by {off:.1e}, steps by {missed:.1e} at the most of {len(steps)}"
    return Claim(*GOES_ON, SOURCE, setting, threshold, measured, bool(off <= CLOSE and missed <= CLOSE))


def _learns(loss: "pd.Series[float]", setting: str) -> Claim:
    """By how far the loss falls from updates 2 to 5 (the first begins with a state of zeros) to the last four, beside how far
    it does where windows are short."""
    threshold = f"its loss falls by more than {LEARNT:g} nats, by a 95% interval over corpora and seeds"
    falls = {kind: _falls(loss, kind) for kind in ("scaled", "near")}
    if any(len(values) == 0 for values in falls.values()):
        return Claim(*LEARNS, SOURCE, setting, threshold)
    middle, near = mean(falls["scaled"]), mean(falls["near"])
    if math.isnan(middle.value + near.value):
        return Claim(*LEARNS, SOURCE, setting, threshold, UNDEFINED)
    seeds = middle.told(".2f") if len(falls["scaled"]) > 1 else f"{middle.value:.2f}, one seed"
    many = int(loss.index.get_level_values("step").max())
    measured = f"falls by {seeds} in {many} updates; the same weights, learning from {NEAR} steps back, by {near.value:.2f}"
    useless = (
        "a step keeps the gradient's direction, and that is the one in which it explodes: divided by a norm of 1e28, what "
        "the decoder would learn from is nothing beside it. Clipping bounds the step and does not make the gradient "
        "useful; the same weights learn where windows are short"
    )
    why = ONE if len(falls["scaled"]) == 1 else useless
    return Claim(*LEARNS, SOURCE, setting, threshold, measured, decided(middle, low=LEARNT), why)


def _falls(loss: "pd.Series[float]", kind: str) -> list[float]:
    """One value a training that has enough updates."""
    of = loss[loss.index.get_level_values("kind") == kind].dropna().sort_index()
    curves = [group.to_numpy() for _, group in of.groupby(["corpus", "seed"])]
    return [float(values[1:5].mean()) - float(values[-4:].mean()) for values in curves if len(values) >= LEAST]
