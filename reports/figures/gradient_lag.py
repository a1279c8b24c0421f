"""The norm of the gradient against the time lag."""

from typing import TYPE_CHECKING

from reports.figures.style import canvas
from studies import by_lag

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

BAR = 40  # characters of the longest bar in a terminal
SHOWN = (0, 1, 2, 3, 5, 8, 12, 18, 26, 36, 48, 59, 80, 100, 150, 200)  # lags in a terminal


def draw(table: "pd.DataFrame") -> "Figure":
    """Median over windows as a line, quartiles as a band, a layer a colour, log scale."""
    figure, axes = canvas()
    curves = by_lag(table)
    for layer, curve in curves.groupby("layer"):
        (line,) = axes.plot(curve["lag"], curve["median"], label=f"layer {layer}")
        axes.fill_between(curve["lag"], curve["low"], curve["high"], alpha=0.25, color=line.get_color(), linewidth=0)
    axes.set_yscale("log")
    axes.set_xlabel("lag l = t − i (tokens back from the loss)")
    axes.set_ylabel("‖ part of dL(t)/dW_h at step i ‖")
    axes.set_title(f"Where the gradient comes from: {table.attrs['parameters']['run']}")
    axes.margins(x=0.01)
    if curves["layer"].nunique() > 1:
        axes.legend(loc="upper right")
    return figure


def caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """What the figure shows, in one or two sentences."""
    last = by_lag(table).query("layer == layer.max()")
    near = last.loc[last["lag"] == 0, "median"].item()
    tenth = last.loc[last["median"] < near / 10, "lag"]
    reach = f"falls below a tenth of its value at lag 0 from lag {tenth.iloc[0]} on" if len(tenth) else "stays above a tenth"
    certificate = claims.iloc[0]
    return (
        f"The median norm of a step's part {reach}; per step back it is multiplied by "
        f"{claims.iloc[-1]['measured'].removesuffix(' times per step')} on average. The parts sum to autograd's gradient: "
        f"{certificate['verdict']} ({certificate['measured']})."
    )


def lines(table: "pd.DataFrame") -> list[str]:
    """The last layer's curve as bars; each eighth less of the bar is an equal factor, as on a log scale."""
    import numpy as np

    curve = by_lag(table).query("layer == layer.max() and lag in @SHOWN")
    logs = np.log10(curve["median"].clip(lower=1e-300))
    low = logs.min() - 0.1
    lengths = np.round((logs - low) / max(logs.max() - low, 1e-9) * BAR).astype(int)
    rows = zip(curve["lag"], curve["median"], lengths, strict=True)
    return [f"lag {lag:3d}  {value:8.2e}  {'█' * length}" for lag, value, length in rows]
