"""Shared parts of the throughput figures: row selection, looks of variants, axes of sizes."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import LogLocator

from recurrent_lm.lm import InputError
from recurrent_lm.studies.plotting.style import INK, PALETTE
from recurrent_lm.studies.throughput.comparison import AXES, exponents, summary

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# Each variant has its colour and marker in every figure; the baseline is black. No part holds two that look alike.
LOOKS = {
    "torch.nn": (INK, "s", "-"),
    "kernels:torch": (PALETTE[0], "o", "-"),
    "kernels:triton": (PALETTE[3], "D", "-"),
    "kernels:triton-graph": (PALETTE[2], "^", "-."),
    "kernels:eager": (PALETTE[4], "v", ":"),
    "linear_cross_entropy": (PALETTE[4], "v", ":"),
    "linear_cross_entropy-chunked": (PALETTE[4], "<", "--"),
    "loop": (PALETTE[2], "^", "-."),
    "liger-kernel": (PALETTE[2], "^", "-."),
    "torch.compile": (PALETTE[5], "P", "--"),
    "FlashRNN": (PALETTE[1], "X", "--"),
    "cut-cross-entropy": (PALETTE[1], "X", "--"),
    "product": (PALETTE[0], "s", "-"),
    "steps": (PALETTE[3], "o", "--"),
}
LABELS = {"product": "one product", "steps": "steps that wait"}
# The first that was timed is the one that captions speak of.
OURS = ("kernels:triton-graph", "kernels:triton", "kernels:torch", "kernels:eager")
NAMES = {"T": "steps $T$ (tokens)", "H": "hidden units $H$ (number)", "B": "batch $B$ (rows)", "V": "vocabulary $V$ (words)"}


def shown(table: "pd.DataFrame", part: str) -> "pd.DataFrame":
    """The rows of a summary that a part's figure shows: of each of these columns the first value that was timed, of directions
    the one with gradients; ``cell`` is kept.
    """
    rows = summary(table)
    rows = rows[(rows["part"] == part) & (rows["seconds"] > 0)]
    if "forward+backward" in set(rows["direction"]):
        rows = rows[rows["direction"] == "forward+backward"]
    for column in ("dtype", "mode", "cache"):
        rows = rows[rows[column] == first(rows, column, table.attrs["parameters"][column])]
    return rows


def first(rows: "pd.DataFrame", column: str, wanted: Any) -> Any:
    """The first of the wanted values that occurs in a column."""
    present = set(rows[column])
    return next((value for value in wanted if value in present), None)


def along(table: "pd.DataFrame", rows: "pd.DataFrame", letter: str) -> "tuple[str, pd.DataFrame]":
    """The column of a size, and the rows in which every other size has its first value."""
    parameters = table.attrs["parameters"]
    axes = AXES[rows["part"].iloc[0]]
    for column, other, parameter in axes:
        if other != letter:
            rows = rows[rows[column] == parameters[parameter][0]]
    return next(column for column, other, _ in axes if other == letter), rows


def base(table: "pd.DataFrame", rows: "pd.DataFrame") -> "pd.DataFrame":
    """The rows in which every size has its first value, by variant."""
    if rows.empty:
        return rows.set_index("variant")
    for column, _, parameter in AXES[rows["part"].iloc[0]]:
        rows = rows[rows[column] == table.attrs["parameters"][parameter][0]]
    return rows.drop_duplicates("variant").set_index("variant")


def sizes(row: Any) -> str:
    """The sizes of a row: "B = 16, H = 256, T = 64"."""
    return ", ".join(f"{letter} = {row[column]:,}" for column, letter, _ in AXES[row["part"]])


def ours(variants: Any) -> str:
    """This project's variant that captions describe; empty if there is none."""
    return next((name for name in OURS if name in set(variants)), "")


def between(row: Any, column: str) -> str:
    """A number with its interval, where there is one."""
    low, high = row[f"{column}_low"], row[f"{column}_high"]
    return f"{row[column]:.2f}" + ("" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]")


def speed(row: Any) -> str:
    """A row's speed relative to its comparison, and the verdict."""
    if math.isnan(row["speed"]):
        return f"with no comparison to {row['against']}"
    return f"{between(row, 'speed')} times as fast as {row['against']} ({row['compared']})"


def growth(table: "pd.DataFrame", rows: "pd.DataFrame", variant: str) -> str:
    """The fitted exponents of a variant's time: "T^0.98 [0.95, 1.01], H^1.62 [..]"."""
    mine = rows[rows["variant"] == variant].copy()
    mine.attrs = table.attrs
    fits = exponents(mine).dropna(subset="exponent").rename(columns={"low": "exponent_low", "high": "exponent_high"})
    return ", ".join(f"{fit['over']}^{between(fit, 'exponent')}" for _, fit in fits.iterrows())


def nothing(subject: str) -> InputError:
    """The error of ``draw`` for a table without rows to show."""
    return InputError(f"there is nothing to draw: the table holds no {subject}")


def curve(axes: "Axes", rows: "pd.DataFrame", x: str, y: str, scale: float = 1.0, bars: bool = False) -> None:
    """A line of one variant, over sizes in order; with ``bars`` the 95% intervals of its medians of seconds."""
    rows = rows[rows[y] > 0].sort_values(x)
    if rows.empty:
        return
    colour, marker, dashes = LOOKS[rows["variant"].iloc[0]]
    values = rows[y] * scale
    name = rows["variant"].iloc[0]
    axes.plot(rows[x], values, color=colour, marker=marker, linestyle=dashes, label=LABELS.get(name, name))
    if bars and rows["low"].notna().any():
        reach = [values - rows["low"] * scale, rows["high"] * scale - values]
        axes.errorbar(rows[x], values, yerr=reach, fmt="none", ecolor=colour, capsize=4, linewidth=2)


def over_sizes(axes: "Axes", values: Any, name: str, room: float) -> None:
    """A log axis x whose ticks are the sizes that were measured, but for those closer than ``room`` of its length."""

    axes.set_xscale("log")
    sizes = sorted(set(values))
    length = max(math.log(sizes[-1] / sizes[0]), 1e-9)
    kept: list[float] = []
    for value in sizes:
        if not kept or math.log(value / kept[-1]) >= room * length:
            kept.append(value)
    axes.set_xticks(kept, [f"{value:g}" if value < 10_000 else f"{value / 1000:g}k" for value in kept])
    axes.set_xticks([], minor=True)
    if len(sizes) == 1:
        axes.set_xlim(np.array([0.5, 2.0]) * sizes[0])
    axes.set_xlabel(name)


def log_values(axes: "Axes", name: str) -> None:
    """A log axis y with a label wherever there is room for one."""

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.set_ylabel(name)
