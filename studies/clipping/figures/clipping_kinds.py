"""The direction that four kinds of clipping leave of one and the same gradient."""

from typing import TYPE_CHECKING, Any

import numpy as np

from recurrent_lm.lm import InputError
from recurrent_lm.studies.engine.claims import select
from recurrent_lm.studies.plotting.style import INK, MUTED, PALETTE, Size, canvas, legend

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

NAMES = {
    "norm": "norm\n(Algorithm 1)",
    "value": "elements of\nthe gradient",
    "temporal": "elements of\neach step's part",
    "hidden": "elements of\ndL/dh(t)",
}
MANY = 500  # points: above it they are an image, where each would be an element of the page
SPREAD = 0.3  # of a kind's place


def title(table: "pd.DataFrame") -> str:
    """What is shown."""
    return "Four things called clipping: the direction that is left of the gradient"


def draw(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """Each step's cosine between the clipped and the true gradient, a panel's column a kind and threshold.

    Raises:
        InputError: when the table holds no step.
    """

    part = _cosines(table)
    if part.empty:
        raise InputError("there is nothing to draw: the table holds no step of the four kinds; --set parts=kinds measures it")
    figure, (axes,) = canvas(size)
    factors = sorted(part["multiple"].unique(), reverse=True)
    width = 2 * SPREAD / len(factors)
    for place, kind in enumerate(NAMES):
        for i, factor in enumerate(factors):
            values = part[(part["kind"] == kind) & (part["multiple"] == factor)]["value"].to_numpy()
            if not len(values):
                continue
            x = place - SPREAD + (i + 0.5) * width
            jitter = np.linspace(-0.35, 0.35, len(values)) * width
            look: dict[str, Any] = {"color": PALETTE[i % len(PALETTE)], "markeredgewidth": 0, "alpha": 0.6}
            axes.plot(x + jitter, values, "o", markersize=5 if size.narrow else 7, rasterized=len(part) > MANY, **look)
            axes.plot([x - 0.4 * width, x + 0.4 * width], [np.median(values)] * 2, "-", color=INK, linewidth=3)
    axes.axhline(0, color=MUTED, linestyle=":")
    low = min(-0.18, float(part["value"].min()) - 0.05)
    axes.set_ylim(low, 1.05)
    axes.text(-0.45, low / 2, "uphill", color=MUTED, ha="left", va="center")
    axes.set_xlim(-0.5, len(NAMES) - 0.5)
    axes.set_xticks(range(len(NAMES)), list(NAMES.values()), fontsize=8 if size.narrow else None)
    axes.grid(False, axis="x")
    axes.set_ylabel("cosine to the gradient (no unit)")
    for i, factor in enumerate(factors):
        axes.plot([], [], "o", color=PALETTE[i % len(PALETTE)], label=_named(factor))
    legend(figure)
    return figure


def _named(factor: float) -> str:
    return "touches half of the steps" if factor == 1 else f"{factor:g} of that threshold"


def _cosines(table: "pd.DataFrame") -> "pd.DataFrame":
    return table[(table["part"] == "kinds") & (table["quantity"] == "cosine")]


def caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """Median cosine and share of uphill steps of each kind at its lowest threshold."""
    part = _cosines(table)
    if part.empty:
        return "No step was measured."
    least = part["multiple"].min()
    told = []
    for kind, name in NAMES.items():
        values = part[(part["kind"] == kind) & (part["multiple"] == least)]["value"]
        told.append(f"{' '.join(name.split())} {values.median():.2f} ({int((values < 0).sum())} of {len(values)} uphill)")
    touched = table[(table["part"] == "kinds") & (table["quantity"] == "touched") & (table["multiple"] == least)]["value"]
    share = "a share that was not measured" if touched.isna().all() else f"{100 * touched.min():.0f}%"
    example = select(claims, "example").iloc[0]
    turned = (part[part["kind"] == "temporal"]["value"] < 0).any()
    here = "" if turned else "; on this text the parts of a batch's many rows and steps never cancelled as closely"
    return (
        f"Median cosine at the lowest threshold, which touches {share} of the steps: {'; '.join(told)}. "
        f"Parts of {example['setting']} show that clipping each step's part can turn a gradient around ({example['measured']}: "
        f"{example['verdict']}){here}."
    )
