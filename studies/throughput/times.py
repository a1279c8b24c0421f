"""The times of a throughput table as text: sizes as rows, variants as columns."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from recurrent_lm.studies.engine.statistics import Interval
from recurrent_lm.studies.throughput.comparison import AGAINST, AXES, summary

if TYPE_CHECKING:
    import pandas as pd

BLOCK = ["part", "cell", "direction", "dtype", "mode", "cache"]  # what one block of the listing has in common
NAMES = {
    "sequential": "product and steps", "recurrence": "recurrence", "cross_entropy": "loss", "training": "training step",
    "trace": "backward pass",
}  # fmt: skip
UNITS = {
    "sequential": "a step", "recurrence": "a step", "cross_entropy": "a call", "training": "an update", "trace": "a step",
}  # fmt: skip
SKIPPED = ("skipped", "disagrees", "failed")


def listing(table: "pd.DataFrame") -> str:
    """Blocks of microseconds, with a star at the fastest of a row; below each time the speed relative to ``against`` with its
    95% interval. The last line has the geometric mean of a variant's speeds. Variants that were not timed follow with the
    reason.
    """
    about = summary(table)
    about = about[about["part"].isin(AGAINST)]
    blocks = [_block(dict(zip(BLOCK, key, strict=True)), rows) for key, rows in about.groupby(BLOCK, sort=False)]
    return "\n\n".join(blocks)


def _block(at: dict[str, Any], rows: "pd.DataFrame") -> str:
    part, against = at["part"], AGAINST[at["part"]]
    axes = AXES[part]
    timed = rows[rows["seconds"] > 0]
    variants = list(dict.fromkeys(timed["variant"]))
    lines = [[letter for _, letter, _ in axes] + variants]
    for size, group in timed.groupby([column for column, _, _ in axes], sort=False):
        sizes = [str(value) for value in (size if isinstance(size, tuple) else (size,))]
        best = group["seconds"].min()
        here = {row.variant: row for row in group.itertuples()}
        lines.append(sizes + [_time(here.get(name), best) for name in variants])
        lines.append([""] * len(sizes) + [_ratio(here.get(name)) for name in variants])
    lines.append(["mean", *[""] * (len(axes) - 1), *(_mean(timed[timed["variant"] == name]) for name in variants)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    setting = ", ".join(word for word in (at["cell"], at["direction"], at["dtype"], at["mode"], f"{at['cache']} cache") if word)
    title = f"{NAMES[part]}, {setting}: microseconds {UNITS[part]} (* the fastest), times as fast as {against} [95% interval]"
    printed = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([title, *(printed if variants else []), *_missing(rows)])


def _time(row: Any, best: float) -> str:
    if row is None:
        return "-"
    us = row.seconds * 1e6 if math.isnan(row.us_per_step) else row.us_per_step
    return format(us, ",.0f" if us >= 1000 else ".4g") + ("*" if row.seconds == best else " ")


def _ratio(row: Any) -> str:
    return (
        ""
        if row is None or not row.compared or math.isnan(row.speed)
        else str(Interval(row.speed, row.speed_low, row.speed_high))
    )


def _mean(rows: "pd.DataFrame") -> str:
    """The geometric mean of speeds over sizes; empty for the variant that others are compared with."""
    speeds = rows["speed"].where(rows["compared"] != "").dropna()
    return format(math.exp(speeds.map(math.log).mean()), ".2f") if len(speeds) else ""


def _missing(rows: "pd.DataFrame") -> Iterator[str]:
    """A line a variant and reason for which it was not timed."""
    untimed = rows[rows["status"].isin(SKIPPED)].drop_duplicates(["variant", "status"])
    for row in untimed.itertuples():
        yield f"{row.variant} {row.status}: {row.note}"
