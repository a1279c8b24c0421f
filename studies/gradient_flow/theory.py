"""Claims of gradient_flow about random networks: 4 to 8, from theory."""

import math
from typing import TYPE_CHECKING, Any

from recurrent_lm.studies.engine.claims import NOT, Claim
from recurrent_lm.studies.engine.statistics import exp
from recurrent_lm.studies.gradient_flow.textbook import NOISE, window
from recurrent_lm.studies.gradient_flow.verdicts import EXACT, each, of

if TYPE_CHECKING:
    import pandas as pd

PASCANU = "Pascanu, Mikolov & Bengio 2013"
FIELD = "mean-field theory of random networks (Poole et al. 2016), Lyapunov exponents (Benettin et al. 1980)"
LARGE = 400  # units that the claims about random tanh networks are made for
# key, claim, whose slope or exponent, compared with what, tolerance, and that in words
GROWTH = (
    (
        "lyapunov",
        "the slope of the log gradient norm is the largest Lyapunov exponent",
        "slope",
        "exponent",
        0.01,
        "the exponent",
    ),
    (
        "chi",
        "the largest Lyapunov exponent is about log(chi)/2, chi = s_w^2 E[tanh'^2]",
        "exponent",
        "half_log_chi",
        0.02,
        "log(chi)/2",
    ),
)


def theory(table: "pd.DataFrame", study: dict[str, Any]) -> list[Claim]:
    """Claims 4 to 8."""
    return _linear(table, study) + _tanh(table, study) + _gates(table) + _memory(table)


def _linear(table: "pd.DataFrame", study: dict[str, Any]) -> list[Claim]:
    """Claim 4."""
    text = "linear RNN: the log gradient norm changes by log(rho) per lag, rho the spectral radius of W_h"
    claim = "linear", text, f"lecture, slide Why; {PASCANU}, section 2.1"
    exact = _differences(of(table, "linear", "slope"), of(table, "linear", "log_radius"))
    setting = "orthogonal times rho"
    rows = [Claim(*claim, setting, f"exact: within {EXACT:g}", _far(exact, ".1e"), each(exact, EXACT))]
    random = of(table, "curves", "slope", cell="rnn-identity")
    radius = of(table, "curves", "log_radius", cell="rnn-identity")
    errors = _differences(random, radius) if study["lags"] >= 150 and study["others"] >= 64 else []
    early = _differences(of(table, "curves", "early_slope", cell="rnn-identity"), radius)
    measured = _far(errors, ".4f")
    if measured != NOT:
        measured += f"; lags 1 to 50, the non-normal transient: {_far(early, '.3f')}"
    setting = "Gaussian, n = 64, lags 50 to 150"
    return [*rows, Claim(*claim, setting, "slope within 0.01 of log(rho)", measured, each(errors, 0.01))]


def _tanh(table: "pd.DataFrame", study: dict[str, Any]) -> list[Claim]:
    """Claims 5 and 6."""
    large = study["units"] >= LARGE and study["lags"] >= window("rnn-tanh", 160)[1]
    parts = {
        q: of(table, "curves", q, cell="rnn-tanh") for q in ("slope", "exponent", "half_log_chi", "log_singular", "log_radius")
    }
    if not large:
        parts = {name: rows.head(0) for name, rows in parts.items()}
    rows: list[Claim] = []
    network = f"tanh RNN, n = {study['units']}, input std {NOISE:g}"
    for scale in sorted(s for s in study["scales"] if 0.7 <= s <= 2.0) if "curves" in study["parts"] else []:
        at = {name: rows_[rows_["scale"] == scale] for name, rows_ in parts.items()}
        setting = f"{network}, g = {scale:g}, lags 40 to 160"
        for key, text, a, b, tolerance, of_what in GROWTH:
            errors = _differences(at[a], at[b])
            far, threshold = _far(errors, ".4f"), f"within {tolerance:g} of {of_what}"
            if far != NOT:
                far = f"{a} {at[a]['value'].median():+.4f}, {of_what} {at[b]['value'].median():+.4f}; {far}"
            why = _linear_still(at) if key == "chi" and scale <= 1 and far != NOT else ""
            rows.append(Claim(key, text, FIELD, setting, threshold, far, each(errors, tolerance), why, {"g": scale}))
    room = [-gap for gap in _differences(parts["slope"], parts["log_singular"])]
    bound = "the slope of the log gradient norm is never above log(sigma_max)"
    known = bool(room) and not any(map(math.isnan, room))
    measured = f"{min(room):.3f} below at the least, {len(room)} networks" if known else ""
    source, threshold = f"{PASCANU}, section 2.1, gamma = 1", "slope <= log(sigma_max)"
    rows.append(Claim("bound", bound, source, f"{network}, every g", threshold, measured, known and min(room) >= 0))
    claim = "radius", "rho > 1 does not imply explosion", f"{PASCANU}, section 2.1"
    for scale, sign in ((1.2, -1), (1.5, 1)):
        at = {name: rows_[rows_["scale"] == scale]["value"] for name, rows_ in parts.items()}
        right = bool(((at["slope"] * sign > 0).all()) and (at["log_radius"] > 0).all())
        seen = len(at["slope"]) > 0 and not any(at[name].isna().any() for name in ("slope", "log_radius", "log_singular"))
        measured = NOT if not seen else (
            f"rho = {exp(at['log_radius'].median()):.2f}, sigma_max = {exp(at['log_singular'].median()):.2f}, "
            f"slope {at['slope'].median():+.3f} ({at['slope'].min():+.3f} to {at['slope'].max():+.3f})"
        )  # fmt: skip
        expected = "rho > 1 and yet a slope below 0" if sign < 0 else "rho > 1, and here the slope is above 0"
        rows.append(Claim(*claim, f"{network}, g = {scale:g}", f"{expected}, every seed", measured, right))
    return rows


def _linear_still(at: "dict[str, pd.DataFrame]") -> str:
    """Why log(chi)/2 is missed at a small g."""
    radius, exponent, half = (at[q].set_index("seed")["value"] for q in ("log_radius", "exponent", "half_log_chi"))
    if radius.empty:
        return ""
    off = (exponent - half).abs().reindex(radius.index)
    by_radius = sorted(zip(radius, off, strict=True))
    (least, at_least), (most, at_most) = by_radius[0], by_radius[-1]
    return (
        "where tanh is almost linear, one matrix is multiplied again and again, and its largest eigenvalue shows, which at "
        "finite n may lie beyond g; chi takes each step for independent of those before. The network with the smallest "
        f"spectral radius ({exp(least):.2f}) is off by {at_least:.3f}, that with the largest ({exp(most):.2f}) by "
        f"{at_most:.3f}"
    )


def _gates(table: "pd.DataFrame") -> list[Claim]:
    """Claim 7."""
    rows: list[Claim] = []
    for cell, derivative, paper in (("lstm", "dc(t)/dc(i)", "Gers et al. 2000"), ("gru", "dh(t)/dh(i)", "Cho et al. 2014")):
        for bias in (0.0, 1.0, 3.0):
            truth = -math.log1p(math.exp(-bias))
            errors = (of(table, "gates", "slope", cell=cell, bias=bias)["value"] - truth).tolist()
            text = "gates set the decay: as the recurrent weights go to 0, the slope is log s(b)"
            measured = NOT if _far(errors, "g") == NOT else f"{truth + max(errors, key=abs):.6f} at the farthest"
            setting, threshold = f"{cell}, {derivative}, b = {bias:g}", f"within 1e-3 of {truth:.4f}"
            source = f"lecture, slide Why it matters; {paper}"
            rows.append(Claim("gates_decay", text, source, setting, threshold, measured, each(errors, 1e-3)))
    return rows


def _memory(table: "pd.DataFrame") -> list[Claim]:
    """Claim 8."""
    rows: list[Claim] = []
    for value, formula in ((0.9, "263.887"), (0.99, "2.5126e5")):
        truth = (1 + value**2) / (1 - value**2) ** 3
        text = "curse of memory: E[(dh/dlambda)^2] = (1 + lambda^2) / (1 - lambda^2)^3"
        claim = "memory", text, "Zucchet & Orvieto 2024"
        exact, low, high = (
            of(table, "memory", q, scale=value)["value"].tolist() for q in ("exact", "sampled_low", "sampled_high")
        )
        error = abs(exact[0] / truth - 1) if exact else math.nan
        setting = f"linear unit, white input, lambda = {value:g}"
        measured, threshold = NOT if math.isnan(error) else f"{exact[0]:.8g}", f"{formula}: relative error <= 1e-6"
        rows.append(Claim(*claim, f"{setting}, by impulses", threshold, measured, error <= 1e-6))
        if low and high and not math.isnan(low[0] + high[0]):
            measured, right = f"[{low[0]:.4g}, {high[0]:.4g}]", low[0] <= truth <= high[0]
        else:
            measured, right = "", None
        threshold = f"99% interval of the mean holds {formula}"
        rows.append(Claim(*claim, f"{setting}, random sequences", threshold, measured, right))
    return rows


def _differences(a: "pd.DataFrame", b: "pd.DataFrame") -> list[float]:
    """a - b for each seed."""
    keys = ["cell", "scale", "seed"]
    both = a[[*keys, "value"]].merge(b[[*keys, "value"]], on=keys)
    return (both["value_x"] - both["value_y"]).tolist()


def _far(differences: list[float], spec: str) -> str:
    if not differences or any(map(math.isnan, differences)):
        return NOT
    return f"off by {max(map(abs, differences)):{spec}} at the most of {len(differences)}"
