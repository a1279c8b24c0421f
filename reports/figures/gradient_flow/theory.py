"""Measured slopes and what theory says of them; what gates and eigenvalues do."""

import math
from typing import TYPE_CHECKING

from reports.drawing import Plot
from reports.figures.gradient_flow.rows import NAMES, draw_band, need, pick, verdict_of
from reports.figures.style import DASHES, INK, MUTED, PALETTE, Size, canvas, legend, plain

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

THEORY = {
    "log_singular": "log σ$_{max}$",
    "log_radius": "log ρ",
    "half_log_chi": "(log χ)/2",
    "exponent": "Lyapunov exponent",
}


def title(table: "pd.DataFrame") -> str:
    return plain("What sets the slope: a tanh network and four lines of theory")


def shown_scale(rows: "pd.DataFrame") -> float:
    """The g that the left panel shows: the least with a spectral radius above 1, where the lines differ most."""
    radius = rows[rows["quantity"] == "log_radius"].groupby("scale")["value"].median()
    above = radius[radius > 0.1]
    return float(above.index.min() if len(above) else radius.index.max())


def draw(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """Left, norm against lag at one g with lines of each slope; right, all slopes against g."""
    rows = pick(table, "curves", cell="rnn-tanh")
    need(rows[rows["quantity"] == "log_radius"], "curves of the tanh network")
    figure, (left, right) = canvas(size, 2)
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
    right.set_title("every g")
    right.set_xlabel("scale $g$ of $W_h$")
    right.set_ylabel("log growth" if size.narrow else "log growth per step (above 0: explodes)")
    legend(figure)
    return figure


def caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    return (
        f"Slope equal to the Lyapunov exponent within 0.01: {verdict_of(claims, 'is the largest Lyapunov')}; exponent within "
        f"0.02 of log(chi)/2: {verdict_of(claims, 'is about log(chi)/2')}; slope below log of the largest singular value: "
        f"{verdict_of(claims, 'never above')}; a spectral radius above 1 that does not explode, and one that does: "
        f"{verdict_of(claims, 'rho > 1')}.{_why(claims)}"
    )


def _why(claims: "pd.DataFrame") -> str:
    """The likely reason where log(chi)/2 is missed."""
    chi = claims[claims["claim"].str.contains("is about log(chi)/2", regex=False)]
    missed = chi[chi["verdict"].isin(["fails", "ambiguous"])]
    if missed.empty:
        return ""
    where = ", ".join(setting.split("g = ")[1].split(",")[0] for setting in missed["setting"])
    return (
        f" It is missed at g = {where}: where tanh is almost linear, one matrix is multiplied again and again, and its "
        "largest eigenvalue shows, which at finite n lies beyond g; chi takes each step for independent of those before."
    )


def gates_title(table: "pd.DataFrame") -> str:
    return plain("What a longer memory takes, and what it costs")


def draw_gates(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """Left, LSTM and GRU of almost no recurrent weights, by bias; right, E[(dh/dlambda)^2] of a linear unit."""
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
    return (
        f"Slopes of LSTM and GRU within 1e-3 of log s(b): {verdict_of(claims, 'gates set the decay')}. The curse of memory, "
        f"exact and sampled: {verdict_of(claims, 'curse of memory')}."
    )


PLOT = Plot(
    "theory",
    title,
    draw,
    caption,
    "A tanh network with random weights, and what four theories say of its gradient (Pascanu, Mikolov & Bengio 2013; "
    "lecture, slide Why). For a linear network the spectral radius ρ of W_h decides. With tanh it does not: ρ may be above "
    "1 while the gradient still vanishes, because tanh' is below 1. The largest singular value bounds the growth from "
    "above, far off. What the gradient really follows is the largest Lyapunov exponent, and χ = g² E[tanh'²] estimates it "
    "from the states alone. Left at one g, on a log scale; right the slopes at every g: above 0 the gradient explodes, "
    "below it vanishes.",
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
)
