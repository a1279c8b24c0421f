"""Newton's iterations: against the exponent, against T, and of models of text while they train; and the cost on paper."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from recurrent_lm.lm import InputError
from recurrent_lm.studies.engine.claims import select
from recurrent_lm.studies.gradient_flow.figures.selection import NAMES
from recurrent_lm.studies.parallel.claims import LINEAR, LOOK, costs, first_cell, iterations_of, longest, needed, trained
from recurrent_lm.studies.plotting.plots import Listing, Plot
from recurrent_lm.studies.plotting.style import INK, MUTED, PALETTE, Size, canvas, legend, tall

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKS = {"rnn-tanh": "o", "rnn-relu": "^", "rnn-sigmoid": "v", "rnn-identity": "P", "lstm": "s", "gru": "D"}
COLOURS = dict(zip(MARKS, PALETTE, strict=False))
ABOVE = 3  # times the largest number of iterations: the height of what was not solved
WIDEST = 2.0  # nats a step: exponents beyond are drawn at the edge


def drawable(table: "pd.DataFrame") -> "pd.DataFrame":
    """Known iterations by full Jacobians in float64.

    Raises:
        InputError: when there are none.
    """
    rows = iterations_of(table)
    rows = rows[rows["known"]]
    if not np.isfinite(rows["iterations"]).any():
        raise InputError("there is nothing to draw: the table holds no iterations")
    return rows


def _heights(axes: "Axes", rows: "pd.DataFrame") -> "pd.Series[float]":
    """Iterations, with what was not solved above all others; the scale is set for both."""
    top = float(rows["iterations"].replace(math.inf, np.nan).max())
    never = np.isinf(rows["iterations"])
    axes.set_yscale("log")
    ticks: list[float] = [tick for tick in (1, 3, 10, 30, 100, 300, 1_000, 3_000) if tick <= top]
    names = [f"{tick:,}" for tick in ticks]
    if never.any():
        ticks, names = [*ticks, ABOVE * top], [*names, "not\nsolved"]
    axes.set_yticks(ticks, names)
    axes.minorticks_off()
    axes.set_ylim(0.8, top * (ABOVE * 1.6 if never.any() else 1.5))
    return rows["iterations"].where(~never, ABOVE * top)


def exponent_title(table: "pd.DataFrame") -> str:
    steps = max(table.attrs["parameters"]["lengths"])
    return f"Parallel iterations for {steps:,} steps against the Lyapunov exponent"


def draw_exponent(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """A point a network: iterations at the largest T against the exponent; trained models of text with a dark rim.

    Raises:
        InputError: when the table holds no iterations.
    """
    rows = longest(drawable(table))
    rows = rows[(rows["cell"] != LINEAR) & ((rows["part"] == "random") | rows.index.isin(trained(rows).index))]
    figure, (axes,) = canvas(size)
    heights, x = _heights(axes, rows), rows["exponent"].clip(-WIDEST, WIDEST)
    for part, style in (("random", {"alpha": 0.8, "s": 60}), ("language", {"edgecolor": INK, "linewidth": 2, "s": 110})):
        for cell, mark in MARKS.items():
            at = (rows["part"] == part) & (rows["cell"] == cell)
            if at.any():
                name = NAMES[cell] if part == "random" else "dark rim: trained on speeches" if at.any() else ""
                axes.scatter(x[at], heights[at], marker=mark, color=COLOURS[cell], label=name, zorder=3, **style)
    axes.axvline(0, color=MUTED, linewidth=1.5, linestyle="-", zorder=1)
    low, high = axes.get_xlim()
    axes.set_xlim(low, max(high, 0.25 * (high - low)))
    top = axes.get_ylim()[1]
    axes.set_ylim(0.8, top * 1.8)
    for points, text, side in ((-8, "← gradients vanish", "right"), (8, "explode →", "left")):
        place = {"xytext": (points, 0), "textcoords": "offset points"}
        axes.annotate(text, (0, top * 1.2), **place, ha=side, va="center", color=INK, weight="bold")
    axes.set_xlabel("largest Lyapunov exponent (nats a step)")
    axes.set_ylabel("parallel iterations")
    legend(figure)
    return figure


def exponent_caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    rank, flat = (select(claims, key) for key in ("rank.random", "flat"))
    holding = int((flat["verdict"] == "holds").sum())
    worst = select(claims, "stopping.exploding").iloc[0]
    return (
        f"Spearman's rank correlation of exponent and iterations over random networks: {rank.iloc[0]['measured']} "
        f"({rank.iloc[0]['verdict']}). Iterations hardly grow with T where gradients vanish: this holds for {holding} of "
        f"{len(flat)} kinds of cells. Where gradients explode, a solution whose residuals are tiny may be far from the truth: "
        f"{worst['measured']}."
    )


def draw_lengths(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """A line a tanh network, g at its end: iterations against T.

    Raises:
        InputError: when the table holds no random networks.
    """
    rows = drawable(table)
    rows = rows[(rows["part"] == "random") & (rows["seed"] == rows.loc[rows["part"] == "random", "seed"].min())]
    if not first_cell(rows) or not np.isfinite(rows["iterations"]).any():
        raise InputError("there is nothing to draw: the table holds no iterations of random networks")
    rows = rows[rows["cell"] == first_cell(rows)]
    figure, (axes,) = canvas(size)
    heights = _heights(axes, rows)
    taken: dict[float, list[str]] = {}
    for i, (scale, line) in enumerate(rows.groupby("scale")):
        line = line.sort_values("steps")
        height = heights[line.index]
        axes.plot(line["steps"], height, "o-", color=PALETTE[i % len(PALETTE)], markersize=8)
        taken.setdefault(round(math.log(height.iloc[-1]), 1), []).append(f"{scale:g}")
    end = rows["steps"].max()
    for place, names in taken.items():
        axes.annotate(
            f"g = {', '.join(names)}", (end, math.exp(place)), (10, 0), textcoords="offset points", va="center", color=INK
        )
    axes.set_xscale("log")
    axes.set_xticks(sorted(rows["steps"].unique()), [f"{steps:,}" for steps in sorted(rows["steps"].unique())])
    axes.set_xlim(rows["steps"].min() * 0.85, end * (4 if size.narrow else 2.2))
    axes.minorticks_off()
    axes.set_xlabel("time steps T")
    axes.set_ylabel("parallel iterations")
    return figure


def lengths_title(table: "pd.DataFrame") -> str:
    cell = first_cell(iterations_of(table))
    return f"Parallel iterations against T: {NAMES.get(cell, 'random')} networks with W_h of scale g"


def lengths_caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    lines = [
        f"{row['setting']}: {row['measured']} ({row['verdict']})" for key in ("flat", "grows") for _, row in _first(claims, key)
    ]
    return f"{'; '.join(lines)}." if lines else "No random network was measured."


def _first(claims: "pd.DataFrame", key: str) -> Any:
    """The claim on tanh networks, else the first."""
    rows = select(claims, key)
    tanh = rows[[facts.get("cell") == "rnn-tanh" for facts in rows["facts"]]]
    return (tanh if len(tanh) else rows).head(1).iterrows()


def draw_training(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """A panel a corpus, a line a model from its initialisation (hollow) to its end: iterations against what a step back
    multiplies the gradient by.

    Raises:
        InputError: when the table holds no language models.
    """
    rows = longest(drawable(table))
    rows = rows[(rows["part"] == "language") & rows["decay"].between(-20, 20)]
    if not np.isfinite(rows["iterations"]).any():
        raise InputError("there is nothing to draw: the table holds no iterations of language models")
    corpora = list(dict.fromkeys(rows["corpus"]))
    looks = rows.groupby(LOOK)[["iterations", "decay"]].median().reset_index()
    figure, panels = canvas(tall(size, len(corpora)), panels=len(corpora))
    for axes, corpus in zip(panels, corpora, strict=True):
        heights = _heights(axes, looks)
        here = looks[looks["corpus"] == corpus]
        for (cell, _, layer), line in here.groupby(["cell", "seed", "layer"]):
            line = line.sort_values("epoch")
            x, y = np.exp(line["decay"]), heights[line.index]
            name = NAMES[str(cell)] if layer == 0 else None
            axes.plot(x, y, "-", marker=MARKS[str(cell)], color=COLOURS[str(cell)], label=name, markersize=9)
            start = {"markerfacecolor": "white", "markeredgewidth": 2, "linestyle": "none", "zorder": 4}
            axes.plot(x.iloc[:1], y.iloc[:1], marker=MARKS[str(cell)], color=COLOURS[str(cell)], markersize=9, **start)
        axes.set_title(corpus, color=INK)
        axes.set_xlabel("factor of ‖$dL/dh(i)$‖ per step back")
        axes.margins(x=0.1)
    panels[0].set_ylabel("parallel iterations")
    legend(figure)
    return figure


def training_title(table: "pd.DataFrame") -> str:
    return f"Models of text while they train: iterations for {max(table.attrs['parameters']['text_lengths']):,} steps"


def training_caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    gradient, models = select(claims, "gradient").iloc[0], select(claims, "trained")
    ranges = "; ".join(f"{row['facts']['cell']} {row['measured']}" for _, row in models.iterrows() if row["facts"])
    rank = f"{gradient['measured']} ({gradient['verdict']})"
    return f"Rank correlation of iterations and the gradient's decay: {rank}. Trained: {ranges or 'no model'}."


def listings(table: "pd.DataFrame") -> list[Listing]:
    """The cost on paper: microseconds, and the iterations with which Newton and the fused recurrence take as long."""
    wide = costs(table)
    counted = ", ".join(
        f"{needed(table, way):.0f} with {name}" for way, name in _WAYS.items() if math.isfinite(needed(table, way))
    )
    title = "Cost on an H100 on paper, unmeasured on a GPU: forward and backward, at best"
    title += f" (a trained LSTM needs {counted})" if counted else ""
    columns = [
        "cell",
        "n",
        "B",
        "T",
        "fused (µs)",
        "an iteration, full J (µs)",
        "as long with",
        "diagonal J (µs)",
        "as long with",
    ]
    rows = []
    for _, at in wide.iterrows():
        entries = [_number(at["fused"])]
        for way in _WAYS:
            entries += [_number(at[way]), f"{at[f'{way}_even']:,.1f}" if at[f"{way}_even"] > 0 else "never"]
        rows.append([NAMES.get(at["cell"], at["cell"]), f"{at['hidden']:,}", f"{at['batch']:,}", f"{at['steps']:,}", *entries])
    return [Listing(title, columns, rows)]


_WAYS = {"full": "full Jacobians", "diagonal": "diagonals"}


def _number(value: float) -> str:
    return "no memory" if value == math.inf else f"{value:,.0f}" if math.isfinite(value) else "-"


PLOTS = (
    Plot(
        "exponent",
        exponent_title,
        draw_exponent,
        exponent_caption,
        "A recurrence takes one step after the other (lecture, slide Summary of RNNs: slow, since it does not use a GPU's "
        "parallelism). Newton's method guesses the states of all steps, solves the linear recurrence around the guess in "
        "parallel, and repeats. A point is a network, its height the number of repetitions until every state is right to "
        "1e-6. The exponent says by how much a small change of the state grows per step: below 0 changes fade and gradients "
        "vanish, above 0 both explode.",
        slides=("Summary of RNNs", "Vanishing, exploding"),
        papers="Gonzalez et al. 2025; Lim et al. 2024",
    ),
    Plot(
        "lengths",
        lengths_title,
        draw_lengths,
        lengths_caption,
        "The entries of $W_h$ have the standard deviation $g / \\sqrt{n}$: the larger g, the longer a change of the state "
        "lives. A flat line means that a longer text costs no more parallel iterations. A line that rises as fast as T "
        "gains nothing over one step after the other.",
        slides=("Summary of RNNs",),
        papers="Gonzalez et al. 2025",
    ),
    Plot(
        "training",
        training_title,
        draw_training,
        training_caption,
        "Each line is a model, from its initialisation (hollow) to the end of its training. Further to the right, more of a "
        "loss's gradient is left at the step before (lecture, slide Vanishing, exploding), so the model learns from words "
        "further back. A line that also rises pays for this with iterations.",
        slides=("Vanishing, exploding", "Summary of RNNs"),
    ),
)
