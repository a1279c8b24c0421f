"""Measured slopes beside the predictions of theory; the effects of gates and eigenvalues."""

import math
from typing import TYPE_CHECKING

from recurrent_lm.studies.engine.claims import select
from recurrent_lm.studies.engine.statistics import exp
from recurrent_lm.studies.gradient_flow.figures.selection import NAMES, draw_band, need, pick, verdict_of
from recurrent_lm.studies.plotting.plots import Plot
from recurrent_lm.studies.plotting.style import DASHES, INK, MUTED, PALETTE, Size, canvas, legend, plain, tall

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

THEORY = {
    "log_singular": "largest singular value, log σ$_{max}$",
    "log_radius": "spectral radius, log ρ",
    "half_log_chi": "mean field, (log χ)/2",
    "exponent": "Lyapunov exponent (QR)",
}
ALLOWED = 0.02  # between exponent and (log χ)/2


def title(table: "pd.DataFrame") -> str:
    return plain("What sets the slope: a tanh network and four lines of theory")


def shown_scale(rows: "pd.DataFrame") -> float:
    """The g of the left panel: the smallest with a spectral radius above 1, where the lines differ most."""
    radius = rows[rows["quantity"] == "log_radius"].groupby("scale")["value"].median()
    above = radius[radius > 0.1]
    return float(above.index.min() if len(above) else radius.index.max())


def draw(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """Norm by lag at one g with a line for each predicted slope; all slopes by g; distances of the two predictions that fit."""
    rows = pick(table, "curves", cell="rnn-tanh")
    need(rows[rows["quantity"] == "log_radius"], "curves of the tanh network")
    figure, (left, right, near) = canvas(tall(size, 3), 3)
    scale = shown_scale(rows)
    own = rows[rows["scale"] == scale]
    lags = own[own["lag"] >= 0]
    draw_band(left, lags, "measured", color=INK, linestyle="-")
    longest = float(lags["lag"].max())
    middles = rows.groupby(["quantity", "scale"])["value"].median()
    for number, (name, label) in enumerate(THEORY.items()):
        style = {"color": PALETTE[number], "linestyle": DASHES[number]}
        slope = float(middles[name, scale])
        left.plot([0, longest], [1, math.exp(min(slope * longest, 300))], label=label, **style)
        curve = middles[name]
        right.plot(curve.index, curve, label=label, **style)
    median = lags[lags["quantity"] == "median"]["value"]
    left.set_yscale("log")
    left.set_ylim(max(float(median.min()) / 1e3, 1e-60), max(float(median.max()), 1) * 1e8)
    left.set_title(f"g = {scale:g}")
    left.set_xlabel("lag $l = t - i$")
    left.set_ylabel("norm, 1 at lag 0" if size.narrow else "‖$dL(t)/dh(i)$‖ / ‖$dL(t)/dh(t)$‖")
    slopes = rows[rows["quantity"] == "slope"].groupby("scale")["value"].agg(["min", "median", "max"])
    reach = [slopes["median"] - slopes["min"], slopes["max"] - slopes["median"]]
    right.errorbar(slopes.index, slopes["median"], yerr=reach, fmt="o", color=INK, label="measured, range of seeds", zorder=5)
    right.axhline(0, color=MUTED, linewidth=1, linestyle="-")
    right.set_title("every g; above 0 explodes")
    right.set_ylabel("slope (log per step)")
    _gaps(near, rows)
    for axes in (right, near):
        axes.set_xlabel("scale $g$ of $W_h$")
    legend(figure)
    return figure


def _gaps(axes: "Axes", rows: "pd.DataFrame") -> None:
    """(log χ)/2 minus the exponent for each seed, and the allowed distance."""
    wide = rows[rows["quantity"].isin(["half_log_chi", "exponent"])]
    wide = wide.pivot_table(index=["scale", "seed"], columns="quantity", values="value")
    gap = (wide["half_log_chi"] - wide["exponent"]).dropna()
    number = list(THEORY).index("half_log_chi")
    axes.axhspan(-ALLOWED, ALLOWED, color=MUTED, alpha=0.18, linewidth=0, label=f"within {ALLOWED:g}")
    axes.plot(gap.index.get_level_values("scale"), gap, "D", color=PALETTE[number], alpha=0.7, label="(log χ)/2, each seed")
    axes.set_title("(log χ)/2 − exponent")
    most = max(float(gap.abs().max()) if len(gap) else 0.0, ALLOWED) * 1.3
    axes.set_ylim(-most, most)


def caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    rows = pick(table, "curves", cell="rnn-tanh")
    told = ""
    if (rows["quantity"] == "log_radius").any():
        scale = shown_scale(rows)
        at = rows[rows["scale"] == scale].groupby("quantity")["value"].median()
        told = (
            f"At g = {scale:g} the spectral radius is {exp(at['log_radius']):.2f}, and the log norm changes by "
            f"{at['slope']:+.3f} per step, as the Lyapunov exponent says ({at['exponent']:+.3f}). "
        )
    return (
        f"{told}Slope equal to the Lyapunov exponent within 0.01: {verdict_of(claims, 'lyapunov')}; exponent "
        f"within 0.02 of log(chi)/2: {verdict_of(claims, 'chi')}; slope below log of the largest singular "
        f"value: {verdict_of(claims, 'bound')}; a spectral radius above 1 that does not explode, and one that does: "
        f"{verdict_of(claims, 'radius')}.{_why(claims)}"
    )


def _why(claims: "pd.DataFrame") -> str:
    """The likely reason where log(chi)/2 is missed, as the study gives it."""
    chi = select(claims, "chi")
    missed = chi[chi["verdict"].isin(["fails", "ambiguous"])]
    sentences = []
    for reason, group in missed.groupby("reason"):
        where = ", ".join(f"{facts['g']:g}" for facts in group["facts"])
        sentences.append(f" It is missed at g = {where}{': ' if reason else ''}{reason}.")
    return "".join(sentences)


def gates_title(table: "pd.DataFrame") -> str:
    return plain("What a longer memory takes, and what it costs")


def draw_gates(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """Left, LSTM and GRU with recurrent weights near 0, by bias; right, E[(dh/dlambda)^2] of a linear unit."""
    rows = pick(table, "gates")
    need(rows, "gates")
    figure, (left, right) = canvas(size, 2)
    longest = min(60.0, float(rows["lag"].max()))
    for number, bias in enumerate(sorted(rows["bias"].unique())):
        for cell, colour, style, width in (("lstm", PALETTE[number], "-", 5.0), ("gru", INK, ":", 2.0)):
            own = rows[(rows["bias"] == bias) & (rows["cell"] == cell) & (rows["lag"] >= 0)]
            if len(own):
                label = NAMES[cell] if bias == rows["bias"].max() else "_"
                draw_band(left, own, label, color=colour, linestyle=style, linewidth=width * (0.6 if size.narrow else 1.0))
        slope = -math.log1p(math.exp(-bias))
        far = min((0.25, 0.45, 0.7)[number % 3] * longest, math.log(1e-8) / slope)  # apart, whatever the slopes
        left.text(far + 1.5, math.exp(slope * far) * 1.5, f"b = {bias:g}", color=PALETTE[number], va="bottom")
    left.set_yscale("log")
    left.set_ylim(1e-10, 20)
    left.set_xlim(0, longest)
    left.set_xlabel("lag $l = t - i$")
    left.set_ylabel("norm, 1 at lag 0" if size.narrow else "‖$dL(t)/dc(i)$‖, GRU: ‖$dL(t)/dh(i)$‖")
    left.set_title("gates: the slope is log s(b)")
    memory = pick(table, "memory").pivot_table(index="scale", columns="quantity", values="value")
    if len(memory):
        x = 1 / (1 - memory.index.to_numpy())
        right.plot(
            x, (1 + memory.index**2) / (1 - memory.index**2) ** 3, color=PALETTE[3], linestyle="-", label="$(1+λ^2)/(1-λ^2)^3$"
        )
        right.plot(x, memory["sampled"], "o", color=PALETTE[3], label="E[$(dh/dλ)^2$]")
        right.plot(x, memory["state"], "s", color=PALETTE[4], linestyle="--", label="E[$h^2$]")
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_xlabel("memory $1/(1-λ)$ (steps)")
    right.set_ylabel("mean square")
    right.set_title("a linear unit, white input")
    legend(figure)
    return figure


def gates_caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    slopes = pick(table, "gates", "slope").groupby("bias")["value"].median()
    told = ", ".join(f"{exp(slope):.2f} at b = {bias:g}" for bias, slope in slopes.items())
    first = f"Per step back a gate's bias b alone multiplies the gradient by s(b): {told}. " if told else ""
    return (
        f"{first}Slopes of LSTM and GRU within 1e-3 of log s(b): {verdict_of(claims, 'gates_decay')}. The curse of "
        f"memory, exact and sampled: {verdict_of(claims, 'memory')}."
    )


PLOT = Plot(
    "theory",
    title,
    draw,
    caption,
    "A tanh network with random weights, and what four theories say of its gradient (Pascanu, Mikolov & Bengio 2013; "
    "lecture, slide Why). For a linear network the spectral radius ρ of W_h decides. With tanh it does not: ρ may be above "
    "1 while the gradient still vanishes, because tanh' is below 1. The largest singular value bounds the growth from "
    "above, far off. What the gradient really follows is the largest Lyapunov exponent, and $\\chi = g^2 E[\\tanh'^2]$ "
    "estimates it from the states alone. First, one g on a log scale; then the slopes at every g, of which those above 0 "
    "explode and those below vanish; last, how far the estimate is from the exponent, with the band that the claim allows.",
    slides=("Why",),
    papers="Pascanu, Mikolov & Bengio 2013, section 2.1; Poole et al. 2016; Benettin et al. 1980",
)
GATES = Plot(
    "gates",
    gates_title,
    draw_gates,
    gates_caption,
    "Left: why gates help (lecture, slide Why it matters). With recurrent weights near 0, an LSTM's forget gate and a GRU's "
    "update gate alone decide how the gradient falls: by the factor s(b) a step, b the gate's bias. Lags count from the "
    "first step through the gate. Right: the curse of memory (Zucchet & Orvieto 2024). A linear unit of eigenvalue λ "
    "remembers about 1/(1-λ) steps. As that grows, the state grows a little, and the gradient with respect to λ far more, "
    "without exploding.",
    slides=("Why it matters",),
    papers="Gers et al. 2000; Cho et al. 2014; Zucchet & Orvieto 2024",
)
