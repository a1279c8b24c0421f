"""Cost of a training step: speed and memory beside a plain torch.nn loop."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import LogLocator

from recurrent_lm.lm import InputError
from recurrent_lm.studies.engine.claims import NOT, select
from recurrent_lm.studies.engine.statistics import paired_ratio
from recurrent_lm.studies.plotting.plots import Plot
from recurrent_lm.studies.plotting.style import INK, MUTED, PALETTE, Size, canvas, legend

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLAIN = "torch.nn loop"
OURS = ("lm float32", "lm bf16")
DRAWN = (1e-3, 1e3)  # ratios beyond are no speeds but clocks that stood still
SPREAD = 0.24  # of a row's height: rounds from first to last, downwards


def title(table: "pd.DataFrame") -> str:
    """What is shown, with the sizes that matter."""
    p = table.attrs["parameters"]
    cell = p.get("cell", "lstm").upper()
    return f"A training step against a {PLAIN}: {cell} {p['layers']} x {p['hidden']}, |V| = {p['vocabulary']:,}"


def draw(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """Two panels: the paired ratios of times with median, interval and aim; the peaks of memory with the aim.

    Raises:
        InputError: when no ratio of times can be shown.
    """
    ratios = _ratios(table)
    if not any(ratio.between(*DRAWN).any() for ratio in ratios.values()):
        raise InputError("there is nothing to draw: no two times of a round have a ratio")
    figure, (left, right) = canvas(size, panels=2)
    _speed(left, table, claims, ratios)
    _memory(right, table)
    legend(figure)
    return figure


def _speed(axes: "Axes", table: "pd.DataFrame", claims: "pd.DataFrame", ratios: "dict[str, pd.Series[float]]") -> None:
    seconds = table.pivot(index="round", columns="variant", values="seconds")
    axes.axvline(1, color=MUTED, linestyle=":", label=f"the {PLAIN}")
    for row, (variant, ratio) in enumerate(ratios.items()):
        seen = ratio[ratio.between(*DRAWN)]
        heights = row + np.linspace(-SPREAD, SPREAD, len(ratio))[ratio.between(*DRAWN)]
        axes.plot(seen, heights, "o", color=PALETTE[0], alpha=0.5, markeredgewidth=0, label="one round")
        median, low, high = paired_ratio(seconds[PLAIN], seconds[variant])
        if DRAWN[0] <= median <= DRAWN[1]:
            reach = [[median - low], [high - median]] if low > 0 else None
            axes.errorbar(median, row, xerr=reach, fmt="D", color=INK, linewidth=4, zorder=4, label="median, 95% interval")
        wanted = select(claims, f"speed.{variant}")["facts"].iloc[0]["aim"]
        axes.vlines(wanted, row - 0.42, row + 0.42, color=PALETTE[3], linewidth=4, label="aim")
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    _rows(axes, list(ratios))
    axes.set_xlabel(f"speed (times the {PLAIN}'s)")


def _memory(axes: "Axes", table: "pd.DataFrame") -> None:
    peaks = table.groupby("variant")["peak_bytes"].first().div(1e6)
    names = (*OURS, PLAIN)
    axes.barh(range(len(names)), [peaks[name] for name in names], height=0.6, color=PALETTE[0])
    axes.vlines(peaks[PLAIN] / 2, -0.42, len(OURS) - 0.58, zorder=3, color=PALETTE[3], linewidth=4, label="aim")
    _rows(axes, [f"{name}\n{peaks[name]:.1f} MB" for name in names])
    axes.set_xlabel("peak memory of tensors (MB)")


def _rows(axes: "Axes", names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(False, axis="y")


def _ratios(table: "pd.DataFrame") -> "dict[str, pd.Series[float]]":
    """Time of the plain loop over that of each variant, one value a round."""
    seconds = table.pivot(index="round", columns="variant", values="seconds").sort_index()
    return {variant: seconds[PLAIN] / seconds[variant] for variant in OURS}


def caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """Speed and memory of each variant with its aim, as the claims have them."""
    parts = []
    for variant in OURS:
        speed, memory = (select(claims, f"{kind}.{variant}").iloc[0] for kind in ("speed", "memory"))
        times, share = speed["facts"]["speed"], memory["facts"]["share"]
        fast = f"{times.value:.2f} times as fast {times.between('.2f')}" if times.value > 0 else f"fast {_missing(speed)}"
        small = f"{share:.2f} of the memory ({memory['facts']['held']})" if share > 0 else f"memory {_missing(memory)}"
        parts.append(
            f"{variant}: {fast} (aim {speed['threshold']}: {speed['verdict']}), "
            f"{small} (aim {memory['threshold']}: {memory['verdict']})"
        )
    rounds = table["round"].nunique()
    return f"Against a {PLAIN}, median over {rounds} round{'s' * (rounds != 1)}. {'; '.join(parts)}."


def _missing(claim: "pd.Series[str]") -> str:
    return NOT if claim["verdict"] == NOT else "undefined"


PLOTS = (
    Plot(
        "cost",
        title,
        draw,
        caption,
        "Left, each dot is one round: all take a step one after another, and the dot says how many times faster ours was "
        "than its neighbour in time, so that what else the machine did hits both. Right of 1 is faster. The diamond is the "
        "median of the rounds, its bar the interval that would hold the true median 95 times in 100. Right, the memory that "
        "a step needs at its worst moment beyond parameters and gradients: shorter is better. The upright marks are the aims.",
    ),
)
