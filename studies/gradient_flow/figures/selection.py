"""Row selection, and names of cells and claims, for the figures of gradient_flow."""

from typing import TYPE_CHECKING, Any

from recurrent_lm.lm import InputError
from recurrent_lm.studies.engine.claims import select

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DRAWN = (1e-60, 1e60)  # norms beyond are left out of log scales
NAMES = {
    "rnn-tanh": "tanh",
    "rnn-relu": "relu",
    "rnn-sigmoid": "sigmoid",
    "rnn-identity": "identity",
    "lstm": "LSTM",
    "gru": "GRU",
}


def pick(table: "pd.DataFrame", part: str, quantity: str = "", **where: Any) -> "pd.DataFrame":
    """The rows of a part, of one quantity if it is named, where columns have these values."""
    rows = table[table["part"] == part]
    if quantity:
        rows = rows[rows["quantity"] == quantity]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows


def last_epoch(rows: "pd.DataFrame") -> "pd.DataFrame":
    """The rows after each model's last epoch."""
    return rows[rows["epoch"] == rows.groupby(["corpus", "cell", "seed"])["epoch"].transform("max")]


def band(rows: "pd.DataFrame", by: str = "lag") -> "pd.DataFrame":
    """Columns low, median, high by lag; over several models the medians of each. nan for what a log scale cannot show."""
    wide = rows.pivot_table(index=by, columns="quantity", values="value", aggfunc="median")
    wide = wide.reindex(columns=["low", "median", "high"])
    return wide.where((wide >= DRAWN[0]) & (wide <= DRAWN[1]))


def draw_band(axes: "Axes", rows: "pd.DataFrame", label: str, **style: Any) -> None:
    """Median as a line, quartiles as a band."""
    curve = band(rows)
    (line,) = axes.plot(curve.index, curve["median"], label=label, **style)
    axes.fill_between(curve.index, curve["low"], curve["high"], alpha=0.22, color=line.get_color(), linewidth=0)


def grid(figure: "Figure", rows: int, columns: int) -> "list[Axes]":
    """Panels in rows and columns with shared axes, in the place of those of a canvas."""
    figure.clear()
    return list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel())


def below(figure: "Figure", text: str) -> None:
    """A label for the horizontal axis under the lowest panel of each column."""
    for axes in figure.axes:
        place = axes.get_subplotspec()
        if place is not None and place.is_last_row():
            axes.set_xlabel(text)


def need(rows: "pd.DataFrame", subject: str) -> None:
    """Refuse to draw an empty figure.

    Raises:
        InputError: if there is no number to draw.
    """
    if rows.empty or rows["value"].isna().all():
        raise InputError(f"there is nothing to draw: the table holds no {subject}")


def verdict_of(claims: "pd.DataFrame", key: str) -> str:
    """The number of claims of a key by verdict: "5 hold, 1 fails"."""
    counts = select(claims, key)["verdict"].value_counts(sort=False)
    words = {"holds": ("holds", "hold"), "fails": ("fails", "fail")}
    parts = [f"{n} {words.get(str(v), (str(v), str(v)))[n > 1]}" for v, n in counts.items()]
    return ", ".join(parts) or "not measured"
