"""Weight tying: sizes of the matrices, and perplexity by number of parameters."""

from typing import TYPE_CHECKING

from recurrent_lm.lm import InputError
from recurrent_lm.studies.engine.claims import select
from recurrent_lm.studies.engine.statistics import ratio
from recurrent_lm.studies.plotting.plots import Listing, Plot
from recurrent_lm.studies.plotting.style import INK, MUTED, PALETTE, Size, canvas, legend

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

CELLS = {"rnn-tanh": "tanh", "lstm": "LSTM", "gru": "GRU"}
MATRICES = ("E", "U", "W_i", "W_h", "projection")  # biases are too few to be seen
SHOWN = ("untied, d = h", "tied, d = h", "untied, d < h", "tied by a projection")
PAIRS = {"untied, d = h": "tied, d = h", "untied, d < h": "tied by a projection"}
MARKS = {
    "untied, d = h": ("o", "none"),
    "tied, d = h": ("o", "full"),
    "untied, d < h": ("s", "none"),
    "tied by a projection": ("s", "full"),
    "untied, as large as tied": ("^", "none"),
}


def _counts(table: "pd.DataFrame") -> "pd.DataFrame":
    """Parameters [variant, matrix] at the middle of the table's vocabularies and sizes."""
    counts = table[table["part"] == "counts"]
    if counts.empty:
        raise InputError("there is nothing to draw: the table holds no counts")
    v, h = (sorted(counts[column].unique()) for column in ("vocabulary", "h"))
    middle = counts[(counts["vocabulary"] == v[len(v) // 2]) & (counts["h"] == h[len(h) // 2])]
    pivoted = middle.pivot(index="variant", columns="matrix", values="parameters").reindex(list(SHOWN)).dropna(how="all")
    pivoted.attrs = {"vocabulary": int(v[len(v) // 2]), "h": int(h[len(h) // 2]), "d": int(middle["d"].min())}
    return pivoted


def counts_title(table: "pd.DataFrame") -> str:
    """What is shown, at which sizes."""
    try:
        at = _counts(table).attrs
    except InputError:
        return "What the parameters of an RNN language model are"
    return f"The parameters of an RNN language model: |V| = {at['vocabulary']:,}, h = {at['h']}, d = h or {at['d']}"


def draw_counts(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """A bar a variant, a colour a matrix.

    Raises:
        InputError: when the table holds no counts.
    """
    counts = _counts(table) / 1e6
    figure, (axes,) = canvas(size)
    left = counts["E"] * 0
    for matrix, colour in zip(MATRICES, PALETTE, strict=False):
        axes.barh(range(len(counts)), counts[matrix], left=left, color=colour, label=_symbol(matrix), height=0.62)
        left = left + counts[matrix]
    for row, total in enumerate(left):
        axes.text(total, row, f" {total:.1f}", va="center", ha="left")
    axes.set_yticks(range(len(counts)), [_broken(name) if size.narrow else name for name in counts.index])
    axes.set_ylim(len(counts) - 0.5, -0.5)
    axes.set_xlim(0, left.max() * (1.16 if size.narrow else 1.09))
    axes.grid(False, axis="y")
    axes.set_xlabel("parameters (millions)")
    legend(figure)
    return figure


def _symbol(matrix: str) -> str:
    return {"W_i": "$W_i$", "W_h": "$W_h$", "projection": "projection $h$ to $d$"}.get(matrix, f"${matrix}$")


def _broken(name: str) -> str:
    """A name on two lines, for narrow figures."""
    return name.replace(", ", ",\n").replace(" by ", "\nby ")


def counts_caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """Totals and shares at that size, and whether the lecture's formulas hold."""
    try:
        counts = _counts(table)
    except InputError:
        return "No counts were made."
    total, at = counts.sum(axis=1), counts.attrs
    formula = select(claims, "formula").iloc[0]
    sentence = f"Of an Elman network with |V| = {at['vocabulary']:,} and h = {at['h']}, "
    if {"untied, d = h", "tied, d = h"} <= set(counts.index):
        untied, tied = total["untied, d = h"], total["tied, d = h"]
        both, left = ratio(counts.loc["untied, d = h", ["E", "U"]].to_numpy().sum(), untied), ratio(tied, untied)
        sentence = (
            "" if both != both else f"{sentence}E and U hold {both:.0%} of the untied model; tying saves {1 - left:.0%} of it. "
        )
    else:
        sentence = ""
    return f"{sentence}The lecture's formulas: {formula['measured']} ({formula['verdict']})."


def perplexity_title(table: "pd.DataFrame") -> str:
    """What is shown, with the cell and the size."""
    p = table.attrs["parameters"]
    return f"Perplexity tied and not: {CELLS[p['cell']]}, h = {p['hidden']}"


def draw_perplexity(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """A panel a corpus: test perplexity against parameters, seeds as dots, the median of each variant as a mark.

    Raises:
        InputError: when no model was trained.
    """
    models = table[table["part"] == "model"]
    models = models[models["perplexity"].between(1, 1e6)]
    if models.empty:
        raise InputError("there is nothing to draw: no model was trained")
    names = sorted(models["corpus"].unique())
    figure, panels = canvas(size, panels=len(names))
    for axes, name in zip(panels, names, strict=True):
        of_corpus = models[models["corpus"] == name]
        middle = of_corpus.groupby("variant")[["parameters", "perplexity"]].median()
        for untied, tied in PAIRS.items():
            if {untied, tied} <= set(middle.index):
                ends = middle.loc[[untied, tied]]
                axes.plot(ends["parameters"] / 1e6, ends["perplexity"], color=MUTED, linestyle="-", linewidth=1.5, zorder=1)
        for i, (variant, (mark, fill)) in enumerate(MARKS.items()):
            seen = of_corpus[of_corpus["variant"] == variant]
            if seen.empty:
                continue
            colour = PALETTE[i]
            axes.plot(seen["parameters"] / 1e6, seen["perplexity"], ".", color=colour, alpha=0.6)
            face = colour if fill == "full" else "white"
            style = {"color": colour, "markerfacecolor": face, "markeredgewidth": 2.5, "markersize": 12, "linestyle": "none"}
            axes.plot(middle.loc[variant, "parameters"] / 1e6, middle.loc[variant, "perplexity"], mark, label=variant, **style)
        axes.set_title(name, color=INK)
        axes.set_xlabel("parameters (millions)")
        axes.margins(0.15)
    panels[0].set_ylabel("perplexity of the test text")
    if size.narrow:
        for axes in panels:
            axes.set_ylabel("test perplexity")
    legend(figure)
    return figure


def perplexity_caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """The three ratios with their verdicts."""
    pairs = select(claims, "tied")
    words = ("at the same d and h", "with as many parameters", "through a projection where d < h")
    parts = [f"{where} {row['measured']} ({row['verdict']})" for where, (_, row) in zip(words, pairs.iterrows(), strict=True)]
    return f"Perplexity of the tied model over that of the untied one, median of pairs: {'; '.join(parts)}."


def subject(table: "pd.DataFrame") -> str:
    """The models that were trained."""
    about = table.attrs["parameters"]
    names = " and ".join(dict.fromkeys(table.loc[table["part"] == "model", "corpus"]))
    return f"{names}, {CELLS[about['cell']]}, h = {about['hidden']}" if names else ""


def listings(table: "pd.DataFrame") -> list[Listing]:
    """The lecture's table of parameters at every size, and the perplexities."""
    counts = table[table["part"] == "counts"]
    sizes = sorted(counts["h"].unique())
    counts = counts[(counts["d"] == counts["h"]) | (counts["h"] == sizes[len(sizes) // 2])] if sizes else counts
    lines = []
    for (vocabulary, h, variant), of in counts.groupby(["vocabulary", "h", "variant"], sort=False):
        held = of.set_index("matrix")["parameters"]
        cells = [f"{held[m]:,}" if held.get(m, 0) else "" for m in MATRICES]
        share = ratio(held.get("E", 0) + held.get("U", 0), held.sum())
        lines.append(
            [
                f"{vocabulary:,}",
                str(h),
                str(of["d"].iloc[0]),
                str(variant),
                *cells,
                f"{held.sum():,}",
                "" if share != share else f"{share:.0%}",
            ]
        )
    columns = ["|V|", "h", "d", "variant", "E: |V| x d", "U: h x |V|", "W_i: d x h", "W_h: h x h", "projection: h x d"]
    columns += ["all, biases too", "share of E, U"]
    models = table[table["part"] == "model"].groupby(["corpus", "variant"], sort=False)
    rows = [
        [
            str(corpus),
            str(variant),
            f"{of['parameters'].median():,.0f}",
            f"{of['perplexity'].median():.1f}",
            f"{of['perplexity'].min():.1f} to {of['perplexity'].max():.1f}",
        ]
        for (corpus, variant), of in models
    ]
    return [
        Listing("Parameters of an Elman network (an LSTM has four times the W_i and W_h, a GRU three times)", columns, lines),
        Listing("Perplexity of the test text", ["speaker", "variant", "parameters", "median of seeds", "from and to"], rows),
    ]


PLOTS = (
    Plot(
        "counts",
        counts_title,
        draw_counts,
        counts_caption,
        "The lecture's table (slides Parameters and Weight tying) as lengths: E is |V| x d, U is h x |V|, W_i is d x h and W_h"
        " is h x h. The two long pieces grow with the vocabulary; the recurrence itself, W_i and W_h, is thin beside them. "
        "Where the decoder uses E, U is gone; where d is less than h, a small projection from h to d comes instead.",
        slides=("Parameters", "Weight tying"),
    ),
    Plot(
        "perplexity",
        perplexity_title,
        draw_perplexity,
        perplexity_caption,
        "Lower is better, further left is smaller. A line joins a model to its tied twin of the same d and h: if it falls to "
        "the left, tying made the model smaller and better at once. The triangle is an untied model made so narrow that it is "
        "no larger than the tied one (full circle): compare these two to ask what a budget of parameters is best spent on. "
        "Small dots are single seeds.",
        slides=("Weight tying",),
        papers="Press & Wolf 2017; Inan et al. 2017",
    ),
)
