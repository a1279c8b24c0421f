"""A language model's training under clipping: final loss, divergences, and norms of the steps."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import LogLocator

from recurrent_lm.lm import InputError
from recurrent_lm.studies.clipping.table import norm_edges, trainings
from recurrent_lm.studies.engine.claims import select
from recurrent_lm.studies.engine.statistics import exp, share
from recurrent_lm.studies.plotting.plots import Listing
from recurrent_lm.studies.plotting.style import DASHES, INK, PALETTE, Size, canvas, legend, plain, tall

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKS = "osD^vPX"
INSIDE = (0.5, 10.0)  # the thresholds that are said to train, in mean norms
NONE = "none"


def title(table: "pd.DataFrame") -> str:
    """What is shown, and of which corpora and model."""
    subject = table.attrs.get("subject")
    return plain(f"Thresholds and learning rates: {subject}" if subject else "Thresholds and learning rates")


def draw(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """Over the threshold, a line a learning rate: final validation perplexity, steps clipped, and trainings that diverged.

    Raises:
        InputError: when the table holds no training that ended with a perplexity.
    """
    runs = trainings(table)
    if runs.empty or runs["diverged"].all():
        raise InputError("there is nothing to draw: no training of the table ended; --set parts=training makes some")
    figure, panels = canvas(tall(size, 3), panels=3)
    left, middle, right = panels
    places = {multiple: i for i, multiple in enumerate(sorted(runs["multiple"].unique()))}
    for i, (rate, group) in enumerate(runs.groupby("rate")):
        look: dict[str, Any] = {"color": PALETTE[i % len(PALETTE)], "marker": MARKS[i % len(MARKS)]}
        look["markersize"] = 5 if size.narrow else 8
        aside = (i - (runs["rate"].nunique() - 1) / 2) * 0.18
        line = {**look, "linestyle": DASHES[i % len(DASHES)]}
        _perplexity(left, group, places, line, f"learning rate {rate:g}")
        held = group[group["multiple"] < math.inf].groupby("multiple")["clipped"].mean()
        middle.plot([places[m] for m in held.index], 100 * held, **line)
        _diverged(right, group, places, look, aside)
    for axes in panels:
        axes.set_xticks(list(places.values()), [NONE if math.isinf(m) else f"{m:g}" for m in places])
        axes.tick_params(axis="x", labelsize="small")
        axes.set_xlim(-0.5, len(places) - 0.5)
        axes.grid(False, axis="x")
        if axes is right or not size.narrow:
            axes.set_xlabel("threshold (mean norms)")
    left.set_ylabel("perplexity (token)" if size.narrow else "validation perplexity (per token)")
    middle.set_ylabel("clipped (%)" if size.narrow else "steps that are clipped (%)")
    right.set_ylabel("diverged (%)" if size.narrow else "trainings that diverged (%)")
    for axes in (middle, right):
        axes.set_ylim(-6, 106)
    legend(figure)
    return figure


def _perplexity(axes: "Axes", group: "pd.DataFrame", places: dict[float, int], look: dict[str, Any], label: str) -> None:
    """The geometric mean over corpora and seeds, where none diverged; faint marks are single trainings."""

    known = group.groupby("multiple").filter(lambda g: not g["diverged"].any())
    if known.empty:
        return
    means = np.exp(known.groupby("multiple")["loss"].mean())
    axes.plot([places[m] for m in means.index], means, label=label, **look)
    single = {"color": look["color"], "markersize": 0.5 * look["markersize"], "alpha": 0.35, "label": "_", "linestyle": "none"}
    axes.plot([places[m] for m in known["multiple"]], np.exp(known["loss"]), look["marker"], **single)


def _diverged(axes: "Axes", group: "pd.DataFrame", places: dict[float, int], look: dict[str, Any], aside: float) -> None:
    multiple: Any
    for multiple, same in group.groupby("multiple"):
        value, low, high = (100 * x for x in share(int(same["diverged"].sum()), len(same)))
        reach = [[max(value - low, 0)], [max(high - value, 0)]]
        axes.errorbar(places[multiple] + aside, value, yerr=reach, linewidth=2, linestyle="none", **look)


def caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """The spread over the range of thresholds at each rate, as the claims state it, and trainings without clipping."""
    runs = trainings(table)
    if runs.empty:
        return "No training was measured."
    about = select(claims, "range")
    rows = zip(about["facts"], about["verdict"], strict=True)
    ranges = "; ".join(f"{facts['of']}: {verdict} ({facts['range']})" for facts, verdict in rows)
    free = runs[runs["multiple"] == math.inf]
    lost = "; ".join(f"{g['diverged'].sum()} of {len(g)} at rate {rate:g}" for rate, g in free.groupby("rate"))
    corpora = " and ".join(sorted({str(name) for name in runs["corpus"]}))
    many = f"{runs['seed'].nunique()} seed{'s' * (runs['seed'].nunique() > 1)}"
    safe = runs[runs["multiple"] < math.inf].groupby("multiple")["diverged"].sum()
    kept = " or ".join(f"{m:g}" for m in safe[safe == 0].index)
    never = f", and of those clipped at {kept} mean norms none" if kept else ""
    return (
        f"Of the trainings without clipping diverged {lost}{never}. Texts: {corpora}; {many}, the same initial weights at "
        f"every threshold. {_idle(runs)}"
        f"Validation losses at thresholds from {INSIDE[0]:g} to {INSIDE[1]:g} mean norms are within 2%: {ranges}. "
        "A low threshold shortens nearly all steps, so that training is slower and may not be at its end yet; at a rate at "
        "which training without clipping diverges, a high threshold does not hold it."
    )


def _idle(runs: "pd.DataFrame") -> str:
    """Thresholds that clip nothing at the smallest rate, where the range is wide for that reason."""
    first = runs[(runs["rate"] == runs["rate"].min()) & (runs["multiple"] < math.inf)]
    clipped = first.groupby("multiple")["clipped"].max()
    idle = clipped[clipped == 0].index
    if not len(idle):
        return ""
    return f"At rate {first['rate'].iloc[0]:g} thresholds from {min(idle):g} mean norms on clip no step at all. "


def listings(table: "pd.DataFrame") -> list[Listing]:
    """The final loss of each corpus, rate and threshold."""
    runs = trainings(table)
    if runs.empty:
        return []
    multiples = sorted(runs["multiple"].unique())
    rows = []
    for (corpus, rate), group in runs.groupby(["corpus", "rate"], sort=False):
        cells = []
        for multiple in multiples:
            of = group[group["multiple"] == multiple]
            lost = int(of["diverged"].sum())
            ended = exp(of.loc[of["diverged"] == 0, "loss"].mean()) if lost < len(of) else math.nan
            cells.append(
                "diverged" if lost == len(of) else f"{ended:.1f}" + (f" ({lost} of {len(of)} diverged)" if lost else "")
            )
        rows.append([str(corpus), f"{rate:g}", *cells])
    columns = ["speaker", "learning rate", *("no clipping" if math.isinf(m) else f"{m:g} mean norms" for m in multiples)]
    return [Listing("Validation perplexity by learning rate and threshold (geometric mean over seeds)", columns, rows)]


def norms_title(table: "pd.DataFrame") -> str:
    """What is shown."""
    return plain("Gradient norms before and after clipping at their mean")


def norms_draw(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """Histograms of all steps' norms at the lowest and the highest rate, clipped at the multiple nearest to 1.

    Raises:
        InputError: when the table holds no norms.
    """
    part = table[(table["part"] == "norms") & (table["multiple"] < math.inf)]
    if not (part["value"] > 0).any():
        raise InputError("there is nothing to draw: the table holds no norms of clipped trainings; --set parts=training")
    chosen = _nearest(part)
    rates = sorted({part["rate"].min(), part["rate"].max()})
    figure, panels = canvas(size, panels=len(rates))
    for axes, rate in zip(panels, rates, strict=True):
        here = part[(part["rate"] == rate) & (part["multiple"] == chosen)]
        _histogram(axes, here)
        clipped = trainings(table).query("rate == @rate and multiple == @chosen")["clipped"].mean()
        axes.set_title(f"learning rate {rate:g}: {100 * clipped:.0f}% clipped", fontsize="medium")
    panels[0].set_ylabel("share of steps (%)")
    legend(figure)
    return figure


def _nearest(part: "pd.DataFrame") -> float:
    """The multiple nearest to 1."""
    return float(min(part["multiple"].unique(), key=lambda m: abs(math.log(m))))


def _histogram(axes: "Axes", part: "pd.DataFrame") -> None:
    edges = norm_edges()
    looks: dict[str, dict[str, Any]] = {
        "before": {"fill": True, "color": PALETTE[1], "alpha": 0.6},
        "after": {"fill": False, "color": PALETTE[0], "linewidth": 3},
    }
    for quantity, look in looks.items():
        counts = part[part["quantity"] == quantity].groupby("bin")["value"].sum().reindex(range(len(edges) - 1), fill_value=0)
        axes.stairs(100 * counts / max(counts.sum(), 1), edges, label=f"{quantity} clipping", **look)
    filled = np.flatnonzero(part.groupby("bin")["value"].sum().reindex(range(len(edges) - 1), fill_value=0))
    filled = filled if len(filled) else np.array([0, len(edges) - 2])
    axes.set_xscale("log")
    axes.set_xlim(edges[max(filled[0] - 2, 0)], edges[min(filled[-1] + 3, len(edges) - 1)])
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if edges[filled[-1]] < 50 * edges[filled[0]] else (1,)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.axvline(part["threshold"].mean(), color=INK, linestyle=":", label="threshold")
    axes.set_xlabel("gradient norm (nats)")


def norms_caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """How many steps are clipped at each rate."""
    runs = trainings(table)
    clipped = runs[runs["multiple"] < math.inf] if len(runs) else runs
    clipped = clipped.dropna(subset="clipped")
    if clipped.empty:
        return "No norm was measured."
    chosen = _nearest(clipped)
    shares = clipped[clipped["multiple"] == chosen].groupby("rate")["clipped"].mean()
    told = ", ".join(f"{100 * value:.0f}% at rate {rate:g}" for rate, value in shares.items())
    return f"At a threshold of {chosen:g} times the mean norm clipping shortens so many of the steps: {told}."
