"""The lecture's "recurrent computation is slow": the same multiplications as one product and as sequential steps."""

from typing import TYPE_CHECKING

from recurrent_lm.studies.engine.claims import select
from recurrent_lm.studies.plotting.plots import Plot
from recurrent_lm.studies.plotting.style import MUTED, Size, canvas, legend, plain, tall
from recurrent_lm.studies.throughput.comparison import summary
from recurrent_lm.studies.throughput.figures.shared import NAMES, along, curve, log_values, nothing, over_sizes, shown, sizes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PART = "sequential"


def title(table: "pd.DataFrame") -> str:
    """What is compared."""
    rows = shown(table, PART)
    return plain("The same multiplications, waiting or not" + ("" if rows.empty else f": {rows['dtype'].iloc[0]}"))


def draw(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """Left, time against T; right, the rate of arithmetic against B with this machine's measured peak.

    Raises:
        InputError: when neither was timed.
    """
    rows = shown(table, PART)
    if rows.empty:
        raise nothing("products that were timed")
    figure, (left, right) = canvas(tall(size, 2), panels=2)
    for axes, letter, value, scale in ((left, "T", "seconds", 1e3), (right, "B", "tflops", 1e3)):
        column, line = along(table, rows, letter)
        for variant in ("product", "steps"):
            curve(axes, line[line["variant"] == variant], column, value, scale, bars=value == "seconds")
        over_sizes(axes, line[column], NAMES[letter], 0.1)
    peaks = summary(table)
    peaks = peaks[(peaks["part"] == "peak") & (peaks["variant"] == "product") & (peaks["dtype"] == rows["dtype"].iloc[0])]
    if peaks["tflops"].max() > 0:
        right.axhline(peaks["tflops"].max() * 1e3, color=MUTED, linestyle=":", label="the fastest product measured")
    log_values(left, "time of all (ms)")
    log_values(right, "arithmetic done (GFLOP/s)")
    legend(figure)
    return figure


def caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """The ratio of sequential steps to one product, at the first sizes and over all, and the claim's verdict."""
    rows = shown(table, PART)
    steps = rows[(rows["variant"] == "steps") & (rows["speed"] > 0)]
    if steps.empty:
        return "How much longer steps take than one product was not measured."
    row = steps.iloc[0]
    interval = f" [{1 / row['speed_high']:.2f}, {1 / row['speed_low']:.2f}]" if row["speed_low"] > 0 else ""
    costs = 1 / steps["speed"]
    worst = steps.sort_values("speed").iloc[0]
    claim = select(claims, "waiting")
    claim = claim[[facts.get("dtype") == row["dtype"] for facts in claim["facts"]]]
    return (
        f"At {sizes(row)} the multiplications take {1 / row['speed']:.2f}{interval} times as long as steps that wait for each "
        f"other as in one product; over all {len(steps)} sizes between {costs.min():.2f} and {costs.max():.2f} times, most at "
        f"{sizes(worst)}. That waiting costs time: {claim['verdict'].iloc[0] if len(claim) else 'not measured'}."
    )


PLOT = Plot(
    "waiting",
    title,
    draw,
    caption,
    "Both lines do the very same multiplications (lecture, slide Summary of RNNs: recurrent computation is slow). The product "
    "gets all T steps' rows at once and may share them out over the whole machine; the steps are a recurrence without anything "
    "else, h(t) = h(t-1) W, where each has to wait for the one before. Left, lower is faster, and each mark is a fixed factor. "
    "Right, higher is better: more rows in a batch give a waiting step more to do at once, which is why training reads many "
    "rows side by side. The bars on the left are 95% intervals of the median; where none is seen, it is smaller than the mark.",
    slides=("Summary of RNNs", "Mini batches, data preparation"),
)
