"""One style for all figures: 16:9, colour-blind palette, type that can be read when projected."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def canvas() -> "tuple[Figure, Axes]":
    """An empty figure of 1280 x 720 points at 100 dpi, drawn without a display."""
    import matplotlib
    import seaborn

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    seaborn.set_theme(context="talk", style="whitegrid", palette="colorblind")
    return plt.subplots(figsize=(12.8, 7.2), dpi=100, layout="constrained")
