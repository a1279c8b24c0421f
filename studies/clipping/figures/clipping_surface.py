"""The cliff in perspective, as in Fig. 6 of Pascanu et al. 2013: a wall across the error surface, and two descents."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from recurrent_lm.lm import InputError
from recurrent_lm.studies.clipping.figures.clipping_cliff import PATHS, WINDOW, WORDS, descents, grid
from recurrent_lm.studies.engine.claims import select
from recurrent_lm.studies.plotting.style import Size, canvas, legend

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

VIEW = {"elev": 30, "azim": 52}  # degrees: from the valley, the wall across
TOP = 0.45  # of the vertical axis
SHADES, EDGE = ("#f6f7f9", "#8d97a4"), "#aeb6c0"  # of facets, lowest and steepest; light on light and on dark pages
RIDGE = "#9a5bc4"  # seen on the surface and, in the legend, on light and on dark pages
STEEP = 2.0  # |dE/db| from which a facet belongs to the wall
FACETS = 22  # from the ridge to either edge, closer together near it
NAMES = {"plain": "without clipping: thrown off", "clipped": "clipped: stays at the foot"}


def title(table: "pd.DataFrame") -> str:
    """What is shown."""
    return "The cliff: a wall in the error surface, and what clipping does there"


def draw(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """E over (w, b), the exact ridge line, both descents on the surface.

    Raises:
        InputError: when the table holds no surface.
    """
    part = table[table["part"] == "cliff"]
    if part.empty:
        raise InputError("there is nothing to draw: the table holds no surface; --set parts=cliff measures it")
    figure, _ = canvas(size)
    figure.clear()
    figure.set_layout_engine("none")  # which would make room for all of a cube that is zoomed into
    place = (0.12, 0.2, 0.86, 0.8) if size.narrow else (0.02, 0.13, 0.96, 0.82)
    axes: Any = figure.add_axes(place, projection="3d", computed_zorder=False)
    w, b, error, middle = facets(part)
    _surface(axes, w, b, error)
    seen = (middle >= WINDOW[1][0]) & (middle <= WINDOW[1][1])
    at_ridge = error[:, FACETS]
    look: dict[str, Any] = {"color": RIDGE, "linestyle": ":", "linewidth": 1.5 if size.narrow else 2.5}
    axes.plot(w[seen, 0], middle[seen], at_ridge[seen], zorder=5, label="ridge $b^* = 0.5 - s(0.5)\\,w$", **look)
    for kind in PATHS:
        _path(axes, part[part["kind"] == kind], kind, size)
    axes.set(xlim=WINDOW[0], ylim=WINDOW[1], zlim=(0, TOP))
    axes.view_init(**VIEW)
    axes.set_box_aspect((1.5, 1.2, 0.75), zoom=0.9 if size.narrow else 1.25)
    small, near = (8, (9, 9, 3)) if size.narrow else (14, (26, 30, 10))
    for axis, name, pad in zip("xyz", ("weight $w$ (no unit)", "bias $b$ (no unit)", "error $E$ (no unit)"), near, strict=True):
        ruler = getattr(axes, f"{axis}axis")
        ruler.set_rotate_label(False)  # level, so that no number is in its way
        getattr(axes, f"set_{axis}label")(name, fontsize=small + 1, labelpad=pad, rotation=90 if axis == "z" else 0)
        ruler.set_pane_color((0, 0, 0, 0))
        ruler.get_major_locator().set_params(nbins=4)
    axes.tick_params(labelsize=small, pad=-1 if size.narrow else 3)
    axes.tick_params(axis="z", pad=5 if size.narrow else 6)
    legend(figure)
    return figure


def facets(part: "pd.DataFrame") -> "tuple[np.ndarray[Any, Any], ...]":
    """w, b and E [weights, 2 FACETS + 1] from edge to edge of the window, the ridge in the middle column; and b* [weights]."""

    w, b, error = grid(part)
    inside = (w[:, 0] >= WINDOW[0][0] - 1e-9) & (w[:, 0] <= WINDOW[0][1] + 1e-9)
    w, b, error = (values[inside] for values in (w, b, error))
    middle = b[:, b.shape[1] // 2]
    away = np.sinh(np.linspace(0, 1, FACETS + 1)[1:] * 7) / np.sinh(7)
    below, above = (np.abs(edge - middle)[:, None] for edge in WINDOW[1])
    offsets = np.hstack([-below * away[::-1], np.zeros((len(w), 1)), above * away])
    at = middle[:, None] + offsets
    heights = np.stack([np.interp(x, row, e) for x, row, e in zip(at, b, error, strict=True)])
    return np.broadcast_to(w[:, :1], at.shape), at, heights, middle


def _surface(axes: Any, w: "np.ndarray[Any, Any]", b: "np.ndarray[Any, Any]", error: "np.ndarray[Any, Any]") -> None:
    """Facets in shades of E, the steep ones darker, as if lit from above."""

    shades = LinearSegmentedColormap.from_list("shades", SHADES)
    middle = (error[:-1, :-1] + error[1:, 1:] + error[1:, :-1] + error[:-1, 1:]) / 4
    steep = np.abs(np.diff(error, axis=1)) / np.abs(np.diff(b, axis=1)).clip(1e-12)
    steep = np.minimum(steep[:-1], steep[1:]) > STEEP
    look: dict[str, Any] = {"facecolors": shades(0.55 * middle / TOP + 0.45 * steep), "edgecolor": EDGE, "linewidth": 0.25}
    axes.plot_surface(w, b, error, rstride=1, cstride=1, shade=False, zorder=1, clip_on=False, rasterized=True, **look)


def _path(axes: Any, part: "pd.DataFrame", kind: str, size: Size) -> None:
    """The descent on the surface; where a step leaves the window, an arrow to its edge that says where it ends."""
    colour, name = PATHS[kind], NAMES[kind]
    path = part[part["quantity"] == "error"].sort_values("step")[["w", "b", "value"]].to_numpy()
    inside = [all(low <= x <= high for x, (low, high) in zip(point, WINDOW, strict=False)) for point in path]
    last = inside.index(False) if False in inside else len(path)
    seen = path[:last]
    wide = {"markersize": 2.0, "linewidth": 1.0} if size.narrow else {"markersize": 4.0, "linewidth": 2.0}
    axes.plot(*seen.T, "o-", color=colour, zorder=6, label=name, clip_on=False, **wide)
    if 0 < last < len(path):
        start, step = path[last - 1], path[last] - path[last - 1]
        to_edge = min(((high if s > 0 else low) - x) / s for x, s, (low, high) in zip(start, step, WINDOW, strict=False) if s)
        end = start + to_edge * step
        axes.plot(*zip(start, end, strict=True), "-", color=colour, zorder=6, **wide)
        where = f"thrown off to\n$w = {path[-1][0]:.1f}$, $b = {path[-1][1]:.1f}$"
        ground = {"facecolor": SHADES[0], "edgecolor": "none", "alpha": 0.9, "pad": 1.5}
        small = 8 if size.narrow else 14
        axes.text(*end, where, color=WORDS[kind], fontsize=small, ha="left", va="top", zorder=7, weight="bold", bbox=ground)


def caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """Where the two descents end, and how steep the wall is."""
    part = table[table["part"] == "cliff"]
    if part.empty:
        return "The cliff was not measured."
    wall = select(claims, "cliff").iloc[0]
    return f"{descents(part)} At w = {wall['facts']['w']:g} on the ridge: {wall['measured']} ({wall['verdict']})."
