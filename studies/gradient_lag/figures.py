"""The norm of the gradient against the time lag."""

import math
from typing import TYPE_CHECKING

import numpy as np

from recurrent_lm.lm import InputError
from recurrent_lm.studies.engine.claims import NOT, select
from recurrent_lm.studies.engine.statistics import UNDEFINED, by_lag
from recurrent_lm.studies.gradient_lag.claims import weight
from recurrent_lm.studies.plotting.plots import Plot
from recurrent_lm.studies.plotting.style import MUTED, Size, canvas, legend, plain

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

BAR = 40  # characters of the longest bar in a terminal
SHOWN = (0, 1, 2, 3, 5, 8, 12, 18, 26, 36, 48, 59, 80, 100, 150, 200)  # lags in a terminal
DRAWN = (1e-200, 1e200)  # norms beyond are left out: the ticks of a log scale run out of float64


def title(table: "pd.DataFrame") -> str:
    """What is shown, and of which corpus and model where the table says so."""
    subject = table.attrs.get("subject")
    return plain(f"Where the gradient comes from: {subject}" if subject else "Where the gradient comes from")


def draw(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """Median over windows as a line, quartiles as a band, a layer a colour, log scale.

    Raises:
        InputError: when there is no median that a log scale can show.
    """
    curves = _curves(table)
    if curves["median"].isna().all():
        raise InputError(f"there is nothing to draw: no median norm of the table is within {DRAWN[0]:g} and {DRAWN[1]:g}")
    figure, (axes,) = canvas(size)
    layers, windows = curves["layer"].nunique(), table["window"].nunique()
    for layer, curve in curves.groupby("layer"):
        of = f"layer {layer}: " if layers > 1 else ""
        (line,) = axes.plot(curve["lag"], curve["median"], label=f"{of}median of {windows} window{'s' * (windows != 1)}")
        band = {"alpha": 0.25, "color": line.get_color(), "linewidth": 0}
        axes.fill_between(curve["lag"], curve["low"], curve["high"], label=f"{of}quartiles", **band)
    tenth = curves.query("layer == layer.max() and lag == 0")["median"].item() / 10
    if DRAWN[0] <= tenth <= DRAWN[1]:
        whose = f"layer {layer}'s" if layers > 1 else "the"
        axes.axhline(tenth, color=MUTED, linestyle=":", label=f"a tenth of {whose} median at lag 0")
    axes.set_yscale("log")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("lag $l = t - i$ (tokens back from the loss)")
    axes.set_ylabel(f"‖ part of $dL(t)/d{weight(table)}$ at step $i$ ‖ (nats)")
    axes.margins(x=0.01)
    legend(figure)
    return figure


def caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """What the figure shows, in two or three sentences; of several layers the last."""
    certificate, fall = select(claims, "sums").iloc[0], select(claims, "fall").iloc[-1]
    layer = int(table["layer"].max())
    where = f" in layer {layer}" if layer else ""
    factor = fall["facts"]["factor"]
    pace = f"per step back it is multiplied by {factor:.3f} on average"
    if fall["verdict"] == NOT:
        pace = "how it changes per step back was not measured"
    elif not 0 < factor < math.inf:
        pace = f"how it changes per step back is {UNDEFINED}"
    return (
        f"The median norm of a step's part{where} {_reach(table)}; {pace}. The claim that the parts sum to autograd's "
        f"gradient: {certificate['verdict']}"
        + ("." if certificate["verdict"] == NOT else f" (relative error {certificate['measured']}).")
    )


def lines(table: "pd.DataFrame") -> list[str]:
    """The last layer's curve as bars under a heading; each character less of a bar is an equal factor."""

    curve = _curves(table).query("layer == layer.max() and lag in @SHOWN")
    logs = np.log10(curve["median"])
    low = logs.min() - 0.1
    lengths = ((logs - low) / (logs.max() - low) * BAR).round().fillna(0).astype(int)
    layer = int(table["layer"].max())
    heading = [title(table), f"median ‖ part of dL(t)/d{weight(table)} at step t - lag ‖, layer {layer}; bars on a log scale"]
    shown = by_lag(table).loc[curve.index, "median"]
    rows = zip(curve["lag"], shown, lengths, strict=True)
    return [*heading, *(f"lag {lag:3d}  {value:8.2e}  {'█' * length}" for lag, value, length in rows)]


def _curves(table: "pd.DataFrame") -> "pd.DataFrame":
    """``by_lag`` with nan for what a log scale cannot show."""
    curves = by_lag(table)
    for column in ("low", "median", "high"):
        curves[column] = curves[column].where(curves[column].between(*DRAWN))
    return curves


def _reach(table: "pd.DataFrame") -> str:
    """Where the last layer's median falls below a tenth of its value at lag 0, and whether it stays there."""
    curve = by_lag(table).query("layer == layer.max()")
    near = curve.loc[curve["lag"] == 0, "median"].item()
    if not 0 < near < float("inf"):
        return f"is {near:g} at lag 0"
    large = curve.loc[~(curve["median"] < near / 10), "lag"].max()
    last = curve["lag"].max()
    if large < last:
        return f"falls below a tenth of its value at lag 0 from lag {large + 1} on"
    small = curve.loc[curve["median"] < near / 10, "lag"]
    if small.empty:
        return f"stays above a tenth of its value at lag 0 up to lag {last}"
    return f"first falls below a tenth of its value at lag 0 at lag {small.min()}, and does not stay there"


PLOTS = (
    Plot(
        "norms",
        title,
        draw,
        caption,
        "The loss at one position t is traced back to every step i before it (lecture, slides BPTT and Vanishing, exploding). "
        "Each step adds a part to the gradient of W_h (of minGRU, which has none, of its gate's W_z); "
        "the height is the size of that part, on a scale where each mark is ten "
        "times the one below. A straight fall is a fall by the same factor at every step: learning hears such steps "
        "exponentially less. A line that rises would be an exploding gradient.",
        lines,
        slides=("BPTT", "Vanishing, exploding"),
    ),
)
