"""Models of speeches: cells beside each other and an n-gram model, and every model on every text."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from recurrent_lm.lm import InputError
from recurrent_lm.studies.engine.claims import select
from recurrent_lm.studies.plotting.plots import Listing, Passage, Plot
from recurrent_lm.studies.plotting.style import INK, MUTED, PALETTE, PAPER, Size, canvas, legend

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

NAMES = {"rnn-tanh": "tanh", "rnn-relu": "ReLU", "rnn-sigmoid": "sigmoid", "lstm": "LSTM", "gru": "GRU"}
WAYS = {
    "network": ("o", 0, "network"),
    "mixture": ("D", 2, "network and n-gram mixed"),
    "n-gram": ("|", 1, "n-gram model alone"),
}
ON_PALE = "#20242a"  # type on fields that are pale on dark pages too
SHOWN = ("lstm", "gru", "rnn-tanh", "rnn-relu", "rnn-sigmoid")  # whose texts a page shows: the first that there is


def _scores(table: "pd.DataFrame", way: str = "") -> "pd.DataFrame":
    scores = table[(table["part"] == "score") & table["bits_per_byte"].between(1e-6, 1e6)]
    return scores[scores["way"] == way] if way else scores


def cells_title(table: "pd.DataFrame") -> str:
    """What is shown, in which tokens."""
    return f"How well each cell models each speaker ({table.attrs['parameters']['tokens']} tokens)"


def draw_cells(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """A panel a corpus, a row a cell: bits per byte of the network, the n-gram model and their mixture.

    Raises:
        InputError: when no model was scored.
    """
    scores = _scores(table)
    own = scores[scores["corpus"] == scores["text"]]
    if own.empty:
        raise InputError("there is nothing to draw: no model was scored on its own text")
    names = list(dict.fromkeys(own["corpus"]))
    figure, panels = canvas(size, panels=len(names))
    for axes, name in zip(panels, names, strict=True):
        of = own[own["corpus"] == name]
        cells = [cell for cell in NAMES if cell in set(of["cell"])]
        for way, (mark, colour, label) in WAYS.items():
            values = of[of["way"] == way].groupby("cell")["bits_per_byte"].median().reindex(cells)
            if way == "n-gram":
                axes.axvline(values.median(), color=PALETTE[colour], linestyle="--", linewidth=2, label=label, zorder=1)
                continue
            style = {"color": PALETTE[colour], "linestyle": "none", "markersize": 11, "label": label}
            axes.plot(values, range(len(cells)), mark, **style)
        axes.set_yticks(range(len(cells)), [NAMES[cell] for cell in cells])
        axes.set_ylim(len(cells) - 0.5, -0.5)
        axes.set_title(name, color=INK)
        axes.margins(x=0.08)
        low, high = axes.get_xlim()
        axes.set_xlim(low, high + 0.04 * (high - low))  # a line at the edge would look like the frame
        axes.set_xlabel("bits per byte of the test text")
        axes.xaxis.get_major_locator().set_params(nbins=4 if size.narrow or len(names) > 2 else 5)
    legend(figure)
    return figure


def cells_caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """The best network of each corpus, and the claims on gates and mixing."""
    scores = _scores(table)
    own = scores[scores["corpus"] == scores["text"]]
    lines = []
    for name, of in own.groupby("corpus", sort=False):
        best = of.groupby(["way", "cell"])["bits_per_byte"].median()
        if "network" not in best.index:
            continue
        network = best["network"]
        line = f"{name}: the best network is {NAMES[network.idxmin()]} with {network.min():.3f}"
        if "n-gram" in best.index:
            line += f", the {table.attrs['parameters']['ngram']}-gram model has {best['n-gram'].min():.3f}"
        if "mixture" in best.index:
            line += f", the best mixture {best['mixture'].min():.3f}"
        lines.append(line)
    gates = select(claims, "gates")["verdict"]
    open_ = f"; {undecided} are ambiguous" if (undecided := int((gates == "ambiguous").sum())) else ""
    verdict = (
        f"Gates help in {(gates == 'holds').sum()} of {len(gates)} comparisons with the best Elman network{open_}. "
        if len(gates)
        else ""
    )
    return f"{verdict}Bits per byte, {'; '.join(lines)}."


def subject(table: "pd.DataFrame") -> str:
    """Speakers, tokens and the networks' size."""
    about = table.attrs["parameters"]
    many = (
        f"{len(about['cell'])} kinds of network of {about['hidden']} units"
        if not isinstance(about["cell"], str)
        else about["cell"]
    )
    return f"{' and '.join(dict.fromkeys(table['corpus']))}, {about['tokens']} tokens, {many}"


def listings(table: "pd.DataFrame") -> list[Listing]:
    """Perplexity and bits per byte of each network on its speaker's test text, alone and mixed."""
    scores = _scores(table)
    own = scores[scores["corpus"] == scores["text"]]
    rows = []
    for (corpus, cell), of in own.groupby(["corpus", "cell"], sort=False):
        best = of.groupby("way")[["perplexity", "bits_per_byte"]].median().reindex(list(WAYS))
        told = [
            f"{row['perplexity']:.1f} ({row['bits_per_byte']:.3f})" if row.notna().all() else "" for _, row in best.iterrows()
        ]
        rows.append([str(corpus), NAMES[str(cell)], *told])
    columns = ["speaker", "cell", "network", "network and n-gram mixed", "n-gram alone"]
    return [Listing("Perplexity per token of the test text (bits per byte)", columns, rows)]


def matrix_title(table: "pd.DataFrame") -> str:
    """What is shown."""
    return "Every model on every speaker"


def draw_matrix(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """A row a model, a column a text, bits per byte in the field; a darker field is a worse one.

    Raises:
        InputError: when no model was scored.
    """

    scores = _matrix(table)
    figure, (axes,) = canvas(size)
    shades = LinearSegmentedColormap.from_list("shades", [PAPER, PALETTE[0]])
    low, high = scores.min().min(), scores.max().max()
    reach = {"vmin": low - 0.05 * (high - low), "vmax": high + 0.9 * (high - low)}
    columns, rows = range(len(scores.columns)), range(len(scores))
    axes.pcolormesh(columns, rows, scores, cmap=shades, edgecolors=PAPER, linewidth=2, **reach)  # fields, not an image
    axes.invert_yaxis()
    for row, (corpus, cell) in enumerate(scores.index):
        for column, text in enumerate(scores.columns):
            own = corpus == text
            value = scores.loc[(corpus, cell), text]
            word = {"ha": "center", "va": "center", "fontweight": "bold" if own else "normal", "color": ON_PALE}
            axes.text(column, row, f"{value:.2f}", **word)
    axes.set_xticks(columns, [f"test text of\n{name}" for name in scores.columns])
    axes.set_yticks(rows, [f"{corpus}: {NAMES[cell]}" for corpus, cell in scores.index])
    axes.grid(False)
    axes.tick_params(length=0)
    axes.set_xlabel("bits per byte; bold: own speaker" if size.narrow else "bits per byte; bold: the model's own speaker")
    for spine in axes.spines.values():
        spine.set_color(MUTED)
    return figure


def _matrix(table: "pd.DataFrame") -> "pd.DataFrame":
    network = _scores(table, "network")
    if network.empty:
        raise InputError("there is nothing to draw: no model was scored")
    rows = network.groupby(["corpus", "cell", "text"], sort=False)["bits_per_byte"].median()
    return rows.unstack(sort=False)


def matrix_caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """Whether every text is predicted best by its own speaker's models."""
    own = select(claims, "own").iloc[0]
    if own["verdict"] == "not measured":
        return "Whether a text is predicted best by its own speaker's model was not measured: there is one corpus."
    return f"A text is predicted best by its own speaker's model: {own['measured']} ({own['verdict']})."


def copying_title(table: "pd.DataFrame") -> str:
    """What is shown."""
    return "How much of what the models write is new"


def draw_copying(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """A row a cell, a mark a text, a colour a temperature; left the share of 4-grams that are said again, right that of 5-grams
    that are new.

    Raises:
        InputError: when no sample is long enough.
    """

    samples = table[(table["part"] == "sample") & table["novel"].notna() & table["repeated"].notna()]
    if samples.empty:
        raise InputError("there is nothing to draw: no sample is long enough to have 5-grams")
    temperatures = sorted(samples["temperature"].unique(), reverse=True)
    cells = [cell for cell in NAMES if cell in set(samples["cell"])]
    figure, panels = canvas(size, panels=2)
    measures = (("repeated", "4-grams said before (%)"), ("novel", "5-grams not in the training text (%)"))
    for axes, (measure, words) in zip(panels, measures, strict=True):
        for i, temperature in enumerate(temperatures):
            word = "the likeliest word" if temperature == 0 else "words drawn"
            style = {
                "color": PALETTE[i % len(PALETTE)],
                "linestyle": "none",
                "markersize": 5 if size.narrow else 9,
                "alpha": 0.7,
            }
            for row, cell in enumerate(cells):
                seen = 100 * samples[(samples["cell"] == cell) & (samples["temperature"] == temperature)][measure]
                apart = (i - (len(temperatures) - 1) / 2) * 0.36 + np.linspace(-0.12, 0.12, len(seen))  # equal values are seen
                label = f"{word}, temperature {temperature:g}" if not row else "_"
                axes.plot(seen, row + apart, "osD^v"[i % 5], label=label, **style)
        axes.set_yticks(range(len(cells)), [NAMES[cell] for cell in cells])
        axes.set_ylim(len(cells) - 0.5, -0.5)
        axes.set_xlim(-4, 104)
        axes.grid(False, axis="y")
        axes.set_xlabel(words)
    legend(figure)
    return figure


def copying_caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """The shares of copied and repeated text."""
    novel, repeats = (select(claims, key).iloc[0] for key in ("novel", "repeats"))
    sentence = (
        f"Drawn texts: {novel['measured']} (mostly new: {novel['verdict']}). Repeated 4-grams where the likeliest word is "
    )
    return f"{sentence}taken, and where words are drawn: {repeats['measured']} ({repeats['verdict']})."


def passages(table: "pd.DataFrame") -> list[Passage]:
    """The texts of each corpus by the same cell: an LSTM if there is one."""
    samples = table[(table["part"] == "sample") & (table["seed"] == 1)]
    cell = next((c for c in SHOWN if c in set(samples["cell"])), "")
    of = samples[samples["cell"] == cell]
    return [
        Passage(
            f"{row['corpus']}, {NAMES[cell]}, temperature {row['temperature']:g}: “{row['prompt']}”",
            f"{row['prompt']}{row['sample']}",
        )
        for _, row in of.iterrows()
    ]


PLOTS = (
    Plot(
        "cells",
        cells_title,
        draw_cells,
        cells_caption,
        "Further left is better: fewer bits to predict each byte of a text that no model has seen. Each row is a recurrent "
        "cell (lecture, slides Standard (Elman) RNN and Why it matters). The dashed line is a model that only counts how often "
        "words follow each other. The diamond mixes both, with a weight chosen on other text: where it lies left of circle and "
        "line, network and counts know different things.",
        slides=("Standard (Elman) RNN", "Why it matters"),
        papers="Chen & Goodman 1998; Mikolov et al. 2010",
    ),
    Plot(
        "matrix",
        matrix_title,
        draw_matrix,
        matrix_caption,
        "Each row is a model of one speaker, each column a text by one speaker. Bits per byte count the spelling of words that"
        " a model does not know, so that models with different vocabularies compare. Pale is good. If models learn a speaker "
        "and not just English, the bold fields are the palest of their column.",
        slides=("RNN language model",),
    ),
    Plot(
        "copying",
        copying_title,
        draw_copying,
        copying_caption,
        "Each mark is one text behind one of the lecture's prompts (slide Generating text), a row a kind of network. Left, how "
        "many of its runs of four words came before in the same text: further right it goes round in circles, as the lecture's "
        "Trump sample does. Right, how many of its runs of five words are nowhere in the training text: further right it is "
        "less of a recital. Circles are texts whose words were drawn, squares those that took the likeliest word each time.",
        slides=("Generating text",),
    ),
)
