"""How a language model reads: the next word, the cut of a text into [k, L], and what the carried state saves."""

from typing import TYPE_CHECKING, Any

from matplotlib.patches import Rectangle

from recurrent_lm.lm import InputError
from recurrent_lm.studies.engine.claims import select
from recurrent_lm.studies.plotting.plots import Plot
from recurrent_lm.studies.plotting.style import INK, MUTED, PALETTE, RULE, Size, canvas, plain, printable
from recurrent_lm.studies.reading.claims import gains

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def _part(table: "pd.DataFrame", part: str) -> "pd.DataFrame":
    rows = table[table["part"] == part]
    if rows.empty or rows["value"].isna().all():
        raise InputError(f"there is nothing to draw: the table holds no part {part}")
    return rows


def likeliest(table: "pd.DataFrame") -> "pd.DataFrame":
    """The next words of the first model, the likeliest first.

    Raises:
        InputError: when the table has none.
    """
    rows = _part(table, "next")
    return rows[rows["seed"] == rows["seed"].min()].sort_values("place")


def unknown(table: "pd.DataFrame") -> float:
    """P of a word that the vocabulary lacks, whichever it is, in the first model; nan where it was not measured."""
    values = table[(table["part"] == "whole") & (table["way"] == "unknown")].sort_values("seed")["value"]
    return float(values.iloc[0]) if len(values) else float("nan")


def next_title(table: "pd.DataFrame") -> str:
    return plain(f"P(v | “{table.attrs['parameters']['prompt']}”)")


def draw_next(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """A bar a word, its probability beside it."""
    likely = likeliest(table)
    figure, (axes,) = canvas(size)
    places = range(len(likely))
    axes.barh(places, likely["value"], color=PALETTE[0], height=0.66)
    axes.set_yticks(list(places), [printable(str(token)) for token in likely["token"]])
    for place, value in zip(places, likely["value"], strict=True):
        axes.annotate(f"{value:.1%}", (value, place), (6, 0), textcoords="offset points", va="center", color=MUTED)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.margins(x=0.12)
    axes.set_xlabel("P(next word) (share)")
    return figure


def next_caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    try:
        words = likeliest(table)
    except InputError as error:  # the page says so in its own words
        return f"{error}."
    return (
        f"The {len(words)} likeliest next words hold {words['value'].sum():.0%} of the probability; words that the vocabulary "
        f"lacks together hold {unknown(table):.0%} and are not drawn. The model is that of the first seed."
        if len(words) > 1
        else f"The likeliest next word has probability {words['value'].sum():.1%}."
    )


def cut_title(table: "pd.DataFrame") -> str:
    sizes = table.attrs["parameters"]
    return f"The cut [k, L] of a text: k = {sizes['cut_rows']}, L = {sizes['cut_bptt']}, τ = {sizes['cut_tau']}"


def draw_cut(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """Rows of words as the trainer reads them, a frame a pass; below each word its place in the text."""
    pieces, sizes = _part(table, "cut"), table.attrs["parameters"]
    rows, tau, length = sizes["cut_rows"], sizes["cut_tau"], sizes["cut_bptt"]
    figure, (axes,) = canvas(size)
    axes.set_xlim(-0.1, tau + 0.1)
    axes.set_ylim(rows + 0.35, -0.75)
    axes.axis("off")
    small = size.narrow
    for s in range(-(-tau // length)):
        left, right = s * length, min((s + 1) * length, tau)
        colour = PALETTE[s % len(PALETTE)]
        axes.text((left + right) / 2, -0.3, f"pass {s + 1}", color=colour, ha="center", va="center", weight="bold")
        for row in range(rows):
            box = Rectangle(
                (left + 0.04, row + 0.08), right - left - 0.08, 0.84, facecolor=colour, alpha=0.14, edgecolor="none"
            )
            axes.add_patch(box)
            if right < tau:
                arrow = {"arrowstyle": "-|>", "color": MUTED, "linewidth": 1.5}
                axes.annotate("", (right + 0.3, row + 0.86), (right - 0.3, row + 0.86), arrowprops=arrow)
    for _, at in pieces.iterrows():
        x = (int(str(at["way"]).removeprefix("pass ")) - 1) * length + at["column"] - 0.5
        y = at["row"] - 0.5
        word: dict[str, Any] = {"rotation": 90 if small else 45, "fontsize": 9 if small else 13, "ha": "center", "va": "center"}
        axes.text(x, y - 0.08, printable(str(at["token"])), color=INK, **word)
        axes.text(x, y + 0.36, f"{at['place']}", color=MUTED, ha="center", va="center", fontsize=8 if small else 11)
    foot = "numbers: places in the text; arrows: the state goes on"
    axes.text(tau / 2, rows + 0.2, foot, color=MUTED, ha="center", va="center", fontsize=9 if small else 13)
    for row in range(1, rows):
        axes.plot([0, tau], [row, row], color=RULE, linewidth=1, linestyle="-")
    return figure


def cut_caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    cut = select(claims, "cut").iloc[0]
    return (
        f"The first {table.attrs['parameters']['cut_rows'] * table.attrs['parameters']['cut_tau']} tokens of "
        f"{table.attrs['parameters']['corpus']}'s training text, cut by the trainer itself: {cut['measured']} are where the "
        f"lecture has them ({cut['verdict']})."
    )


def draw_state(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """What carrying saves at each position, mean over seeds, the seeds' range as a band."""
    _part(table, "state")
    saved = gains(table).dropna()
    if saved.empty:
        raise InputError("there is nothing to draw: the table does not hold both ways to begin a pass")
    figure, (axes,) = canvas(size)
    by: Any = saved.groupby("column")["value"]
    middle, low, high = by.mean(), by.min(), by.max()
    axes.fill_between(middle.index, low, high, color=PALETTE[0], alpha=0.22, linewidth=0)
    axes.plot(middle.index, middle, "o-", color=PALETTE[0], label="mean of the seeds")
    axes.axhline(0, color=MUTED, linewidth=1, linestyle="-")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("position in a pass (words since h(0))")
    axes.set_ylabel("saved by the carried state (nats a word)")
    return figure


def state_title(table: "pd.DataFrame") -> str:
    return "h(0): the state carried from the pass before, against zeros"


def state_caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    claim = select(claims, "carried").iloc[0]
    return f"Over {claim['setting']}: {claim['measured']} ({claim['verdict']}). The same models, validation text and words."


PLOTS = (
    Plot(
        "next",
        next_title,
        draw_next,
        next_caption,
        "The model has read the words of the prompt from $h(0) = 0$ and is asked for the next: a probability for every word of "
        "its vocabulary, of which the bars are the largest (lecture, slide Language modeling). All of them sum to 1. Where no "
        "bar is long, many words fit.",
        slides=("Language modeling", "RNN language model"),
    ),
    Plot(
        "cut",
        cut_title,
        draw_cut,
        cut_caption,
        "The text of $T$ words is cut into $k$ rows of $\\tau = T/k$ words, which are read side by side (lecture, slide Mini "
        "batches, data preparation). A pass is a tensor $[k, L]$: the next $L$ words of every row. Row $j$ of a pass begins "
        "where row $j$ of the pass before ended, so its state can go on.",
        slides=("Mini batches, data preparation", "h(0)"),
    ),
    Plot(
        "state",
        state_title,
        draw_state,
        state_caption,
        "A pass begins with the state that the pass before left, or with zeros (lecture, slide h(0)). The height is how "
        "many nats the next word costs less with the carried state, position by position. Near the beginning of a pass the "
        "zeros know nothing of the words before; later both have read the same words.",
        slides=("h(0)",),
    ),
)
