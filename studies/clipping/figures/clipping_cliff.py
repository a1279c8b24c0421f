"""The cliff: the error surface of one unit over fifty steps, two descents on it, and a cut through it."""

from typing import TYPE_CHECKING, Any

import numpy as np

from recurrent_lm.lm import InputError
from recurrent_lm.studies.engine.claims import select
from recurrent_lm.studies.plotting.style import INK, MUTED, Size, canvas

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PATHS = {"plain": "#d45e00", "clipped": "#0072b1"}  # the palette's, but the same on light and on dark pages, as the surface is
SMALL = {False: 14.5, True: 8}  # type inside a panel, wide and narrow
DARK = "#101418"  # type on the surface, which is light on light and on dark pages alike
GREYS = ("#fdfdfd", "#e9ebee", "#d5d9de", "#c2c8cf", "#a9b0b9", "#949ca6")
LEVELS = (0, 0.01, 0.03, 0.06, 0.12, 0.36, 0.5)  # of E: a valley, a plain, the wall between 0.1 and 0.4, and a plateau
WORDS = {"plain": "#a84300", "clipped": "#00558a"}  # dark enough to be read on the surface
WINDOW = ((4.2, 5.1), (-2.75, -1.9))  # of w and b
CUT, SHOWN = 5.0, (-2.85, -2.15)  # w of the cut, and its b


def title(table: "pd.DataFrame") -> str:
    """What is shown."""
    return "The cliff from above, and a cut through it"


def draw(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """The surface from above with the ridge line and both descents; beside it E along b at w = 5.

    Raises:
        InputError: when the table holds no surface.
    """
    part = table[table["part"] == "cliff"]
    if part.empty:
        raise InputError("there is nothing to draw: the table holds no surface; --set parts=cliff measures it")
    figure, (left, right) = canvas(size, panels=2)
    _surface(left, part, size)
    _cut(right, part, size)
    return figure


def _surface(axes: "Axes", part: "pd.DataFrame", size: Size) -> None:
    w, b, error = grid(part)
    heights = axes.contourf(w, b, error, levels=LEVELS, colors=GREYS)
    where: dict[str, Any] = {"orientation": "horizontal", "location": "top", "shrink": 0.9, "aspect": 30, "spacing": "uniform"}
    bar = axes.figure.colorbar(heights, ax=axes, **where)
    bar.set_label("error $E$ (no unit)", fontsize=SMALL[size.narrow])
    bar.ax.tick_params(labelsize=SMALL[size.narrow])
    axes.grid(False)
    (w0, w1), (b0, b1) = WINDOW
    line = part[part["kind"] == "ridge"].sort_values("w")
    slope, at = np.polyfit(line["w"], line["b"], 1) if len(line) > 1 else (0.0, np.nan)
    axes.plot([w0, w1], [slope * w0 + at, slope * w1 + at], color=DARK, linestyle=":", linewidth=1.5)
    for kind in PATHS:
        _path(axes, part[part["kind"] == kind], kind)
    axes.set_xlim(w0, w1)
    axes.set_ylim(b0, b1)
    axes.set_xlabel("recurrent weight $w$ (no unit)")
    axes.set_ylabel("bias $b$ (no unit)")
    say: dict[str, Any] = {"color": DARK, "fontsize": SMALL[size.narrow], "ha": "center", "va": "center"}
    axes.text(4.47, -2.5, "beyond the wall\n$E$ up to 0.4", **say)
    axes.text(4.86, -2.66, "ridge $b^*$", **say)
    axes.text(4.88, -2.02, "a gentle slope\ndown to the wall", **say)
    plain = part[(part["kind"] == "plain") & (part["quantity"] == "error")].sort_values("step")
    if not plain["w"].between(w0, w1).all():
        end = plain.iloc[-1]
        far = f"thrown off to\n$w = {end['w']:.1f}$, $b = {end['b']:.1f}$"
        axes.text(4.355, -1.98, far, **say | {"color": WORDS["plain"], "weight": "bold"})
    axes.text(4.77, -2.25, "clipped: stays\nat the foot", **say | {"color": WORDS["clipped"], "weight": "bold"})


def _path(axes: "Axes", part: "pd.DataFrame", kind: str) -> None:
    """The descent up to the point where it leaves the window, if it does."""
    path = part[part["quantity"] == "error"].sort_values("step")
    inside = (path["w"].between(*WINDOW[0]) & path["b"].between(*WINDOW[1])).to_numpy()
    seen = path.iloc[: len(path) if inside.all() else inside.argmin() + 1]
    axes.plot(seen["w"], seen["b"], "o-", color=PATHS[kind], markersize=3, linewidth=1.2)


def _cut(axes: "Axes", part: "pd.DataFrame", size: Size) -> None:
    w, b, error = grid(part)
    row = abs(w[:, 0] - CUT).argmin()
    axes.plot(b[row], error[row], color=INK, linewidth=3)
    axes.set_xlim(*SHOWN)
    axes.set_ylim(0, 0.5)
    axes.set_xlabel(f"bias $b$ at $w = {CUT:g}$ (no unit)")
    axes.set_ylabel("error $E$ (no unit)")
    small: dict[str, Any] = {"fontsize": SMALL[size.narrow]}
    probe = part[(part["kind"] == "ridge") & (part["w"] == CUT)]
    if len(probe):
        at = probe["b"].iloc[0]
        axes.text(at + 0.02, 0.2, f"$b^* = {at:.4f}$\n$dE/db = {probe['value'].iloc[0]:.1f}$", **small)
    forks = part[part["quantity"] == "fixed points"].groupby("kind")["b"].mean()
    for place in forks:
        axes.axvline(place, color=MUTED, linestyle=":", linewidth=1.5)
    if len(forks) == 2:
        axes.annotate("", (forks["lower"], 0.44), (forks["upper"], 0.44), arrowprops={"arrowstyle": "<->", "color": MUTED})
        axes.text(forks.mean(), 0.45, "three fixed points", color=MUTED, ha="center", va="bottom", **small)


def grid(part: "pd.DataFrame") -> "tuple[np.ndarray[Any, Any], ...]":
    """w, b and E of the surface, each [weights, offsets]."""
    surface = part[part["kind"] == "surface"]
    rows = surface["w"].nunique()
    return tuple(surface[name].to_numpy().reshape(rows, -1) for name in ("w", "b", "value"))


def caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """Slope and place of the cliff, and where the two descents end."""
    part = table[table["part"] == "cliff"]
    if part.empty:
        return "The cliff was not measured."
    wall = select(claims, "cliff")
    rows = zip(wall["facts"], wall["measured"], wall["verdict"], strict=True)
    told = "; ".join(f"w = {facts['w']:g}: {measured} ({verdict})" for facts, measured, verdict in rows)
    return f"The wall stands on the line b* = 0.5 - s(0.5) w; {told}. {descents(part)}"


def descents(part: "pd.DataFrame") -> str:
    """A sentence on where the two descents of the part cliff end."""
    ends = []
    for kind, name in (("plain", "without clipping"), ("clipped", "clipped")):
        path = part[(part["kind"] == kind)].sort_values("step")
        norm, error = (path[path["quantity"] == quantity] for quantity in ("norm", "error"))
        top, end = norm["value"].max(), error.iloc[-1]
        ends.append(
            f"{name} the descent meets a gradient of norm {top:.3g} and ends at w = {end['w']:.2f}, b = {end['b']:.2f} with "
            f"E = {end['value']:.2g}"
        )
    return f"From one start at the same rate, {' and '.join(ends)}."
