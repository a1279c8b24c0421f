"""One style for all figures: 16:9, colour-blind palette, type that can be read when projected."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def canvas() -> "tuple[Figure, Axes]":
    """An empty figure of 1280 x 720 points at 100 dpi, drawn without a display."""
    import seaborn
    from matplotlib.figure import Figure

    seaborn.set_theme(context="talk", style="whitegrid", palette="colorblind")
    figure = Figure(figsize=(12.8, 7.2), dpi=100, layout="constrained")  # not by pyplot, which keeps what it makes
    return figure, figure.subplots()


def plain(text: str) -> str:
    """A line that any font and any encoding can take, cut to the width of a title."""
    line = "".join(c if c.isprintable() else "�" for c in text)
    return line if len(line) <= 80 else line[:79] + "…"
