"""The style of all figures and pages: 16:9, a colour-blind palette, type that is readable when projected."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import seaborn
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Size:
    """Width and height of a figure in hundreds of pixels, and the size of its type by seaborn's name."""

    width: float
    height: float
    context: str

    @property
    def narrow(self) -> bool:
        """Whether panels are placed below each other rather than side by side."""
        return self.width < self.height


def tall(size: Size, panels: int) -> Size:
    """A size for several panels, taller if they are placed below each other."""
    return replace(size, height=max(size.height, 1.6 + 2.6 * panels)) if size.narrow else size


WIDE = Size(12.8, 7.2, "talk")
NARROW = Size(4.8, 5.6, "notebook")  # for telephones, where the type of a wide figure would shrink to dots

# Each colour by its name on a page, on light and on dark ground. Figures are drawn in the light ones; the c are Okabe and
# Ito's colours for all kinds of colour vision, as seaborn's palette "colorblind" has them, brighter on dark ground.
COLOURS = {
    "paper": ("#ffffff", "#14181d"),
    "ink": ("#1f2328", "#e8ebee"),
    "muted": ("#57606a", "#a3adb8"),
    "rule": ("#d0d7de", "#3a424c"),
    "c0": ("#0173b2", "#4fb0ee"),
    "c1": ("#de8f05", "#f2a93b"),
    "c2": ("#029e73", "#2fc79b"),
    "c3": ("#d55e00", "#f58549"),
    "c4": ("#cc78bc", "#dd9bd2"),
    "c5": ("#ca9161", "#dcb08a"),
}
# Type in the palette's colours: dark enough on light ground for a contrast of 4.5 (WCAG 2.1), which lines need not have.
LETTERS = {
    "c0": ("#0173b2", "#4fb0ee"),
    "c1": ("#8a5800", "#f2a93b"),
    "c2": ("#017353", "#2fc79b"),
    "c3": ("#b34e00", "#f58549"),
    "c4": ("#99468a", "#dd9bd2"),
    "c5": ("#855a32", "#dcb08a"),
}
INK, MUTED, RULE, PAPER = (COLOURS[name][0] for name in ("ink", "muted", "rule", "paper"))
PALETTE = [light for name, (light, _) in COLOURS.items() if name[1:].isdigit()]
DASHES = ("-", "--", "-.", ":", (0, (6, 2, 1, 2, 1, 2)), (0, (1, 1)))  # a second sign beside the colour
ROOM = 0.97  # of a figure's width for a line of type


def canvas(size: Size = WIDE, panels: int = 1) -> "tuple[Figure, np.ndarray[Any, Any]]":
    """An empty figure, drawn without a display, and its axes [panels], side by side or below each other."""

    ink = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
    lines = {"axes.edgecolor": RULE, "grid.color": RULE, "axes.spines.top": False, "axes.spines.right": False}
    repeatable = {"svg.hashsalt": "figure"}  # the names inside an SVG are not drawn by lot
    cycle = cycler(color=PALETTE) + cycler(linestyle=DASHES)
    seaborn.set_theme(size.context, "whitegrid", font="DejaVu Sans", rc=ink | lines | repeatable | {"axes.prop_cycle": cycle})
    # not by pyplot, which keeps what it makes
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)  # inches; type at the very edge looks cut off
    figure = Figure(figsize=(size.width, size.height), dpi=100, layout=layout, facecolor=PAPER)
    grid = (panels, 1) if size.narrow else (1, panels)
    return figure, figure.subplots(*grid, squeeze=False).ravel()


def legend(figure: "Figure") -> None:
    """One legend for all panels below them, never over data; equal entries are merged."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    handles, labels = list(entries.values()), list(entries)
    for columns in range(len(entries), 0, -1):
        placed = figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
        with boxes_for_glyphs():
            if columns == 1 or placed.get_window_extent().width <= ROOM * figure.bbox.width:
                return
        placed.remove()


def headline(figure: "Figure", text: str) -> None:
    """Give a figure that stands alone a title, in smaller type where it would be cut off.

    Args:
        figure: the figure to change.
        text: the title.
    """
    title = figure.suptitle(plain(text), parse_math=False)
    with boxes_for_glyphs():
        room = ROOM * figure.bbox.width
        while (needed := title.get_window_extent().width) > room:  # widths are whole pixels a letter: once is not enough
            title.set_fontsize(float(title.get_fontsize()) * min(0.95, room / needed))


@contextmanager
def boxes_for_glyphs() -> Iterator[None]:
    """Draw a box for characters that the font lacks, without matplotlib's warning.

    Yields:
        Nothing; the warning is back at the end.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        yield


def plain(text: str) -> str:
    """A line in characters that any font and encoding has, cut to the width of a title."""
    line = printable(text)
    return line if len(line) <= 80 else line[:79] + "…"


def printable(text: str) -> str:
    """Remove characters that are invisible or that would reverse the text after them.

    Args:
        text: any text, such as a corpus's name.

    Returns:
        The text without them.
    """
    return "".join(c if c.isprintable() else "�" for c in text)
