"""The decoder's loss: time and peak memory against the size of the vocabulary."""

from typing import TYPE_CHECKING

from recurrent_lm.studies.engine.claims import select
from recurrent_lm.studies.plotting.plots import Plot
from recurrent_lm.studies.plotting.style import Size, canvas, legend, plain, tall
from recurrent_lm.studies.throughput.figures.shared import (  # fmt: skip
    LOOKS,
    NAMES,
    along,
    base,
    curve,
    growth,
    log_values,
    nothing,
    ours,
    over_sizes,
    shown,
    sizes,
    speed,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PART = "cross_entropy"


def title(table: "pd.DataFrame") -> str:
    """Direction, dtype and the sizes that stay."""
    rows = shown(table, PART)
    if rows.empty:
        return "What the loss costs"
    p, row = table.attrs["parameters"], rows.iloc[0]
    return plain(f"What the loss costs: {row['direction']}, {row['dtype']}, N = {p['tokens'][0]:,}, d = {p['width'][0]:,}")


def draw(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """Left, time against V; right, peak memory against V; a line a variant.

    Raises:
        InputError: when no loss was timed.
    """
    rows = shown(table, PART)
    if rows.empty:
        raise nothing("loss that was timed")
    figure, (left, right) = canvas(tall(size, 2), panels=2)
    column, line = along(table, rows, "V")
    for variant in (name for name in LOOKS if name in set(line["variant"])):
        curve(left, line[line["variant"] == variant], column, "seconds", 1e3, bars=True)
        curve(right, line[line["variant"] == variant], column, "peak_bytes", 1e-6)
    for axes in (left, right):
        over_sizes(axes, line[column], NAMES["V"], 0.1)
    log_values(left, "time of a call (ms)")
    log_values(right, "peak memory of tensors (MB)")
    legend(figure)
    return figure


def caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """Ours beside torch.nn at the first sizes, the memory claim, and how time grows."""
    rows = shown(table, PART)
    at = base(table, rows)
    mine = ours(at.index)
    if not mine:
        return "No loss of this project was timed."
    row = at.loc[mine]
    parts = [f"At {sizes(row)} {mine} takes {row['seconds'] * 1e3:.3g} ms, {speed(row)}"]
    memory = select(claims, f"memory.{mine}")
    of = {"direction": row["direction"], "dtype": row["dtype"]}
    memory = memory[[of.items() <= facts.items() for facts in memory["facts"]]]
    if len(memory):
        claim = memory.iloc[0]
        facts = claim["facts"]
        held = f"{facts['share']:.2f}" if facts["share"] > 0 else "undefined:"
        parts.append(
            f"where logits are most ({facts['sizes']}) it holds {held} of torch.nn's peak "
            f"(aim {claim['threshold']}: {claim['verdict']})"
        )
    if powers := growth(table, rows, mine):
        parts.append(f"its time grows as {powers}, while the other sizes stay (95% intervals)")
    return f"{'; '.join(parts)}."


PLOT = Plot(
    "loss",
    title,
    draw,
    caption,
    "The loss of N tokens begins with a product of hidden states [N, d] and the decoder's weights [V, d], which gives N x V "
    "logits; most of a language model's arithmetic is here. torch.nn (nn.Linear, then F.cross_entropy) holds all logits and "
    "their gradients at once, so its memory grows with V; others make them piece by piece and forget them. Left, lower is "
    "faster; right, lower is less memory beyond what the inputs take. With gradients, all hold at least those of the weights.",
)
