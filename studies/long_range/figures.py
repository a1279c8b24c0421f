"""Figures of long range: success by lag T, and how much of its past a language model uses."""

import math
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from recurrent_lm.lm import InputError
from recurrent_lm.studies.engine.claims import select
from recurrent_lm.studies.long_range.claims import FAR, summary
from recurrent_lm.studies.plotting.plots import Listing, Plot
from recurrent_lm.studies.plotting.style import DASHES, MUTED, PALETTE, Size, canvas, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METHODS = {
    "plain": ("plain gradient", PALETTE[3], "o"),
    "clipped": ("clipped", PALETTE[0], "s"),
    "regularised": ("clipped, with Ω", PALETTE[2], "D"),
}
CELLS = {
    "rnn-tanh": ("tanh", PALETTE[0], DASHES[0], "o"),
    "lstm": ("LSTM", PALETTE[3], DASHES[1], "s"),
    "gru": ("GRU", PALETTE[2], DASHES[2], "D"),
}
TICKS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)  # tokens on the axis of history
FLOOR = 1e-12  # nats: a KL below is rounding


def _part(table: "pd.DataFrame", name: str, subject: str) -> "pd.DataFrame":
    """The rows of a part.

    Raises:
        InputError: when there are none.
    """
    rows = table[table["part"] == name]
    if rows.empty:
        raise InputError(f"there is nothing to draw: the table holds no {subject}")
    return rows


def _together(tables: "list[pd.DataFrame]") -> "pd.DataFrame":
    """Several tables' temporal order as one; for a T in two tables the first counts."""

    kept: list[pd.DataFrame] = []
    budgets: dict[int, int] = {}
    for table in tables:
        rows = table[(table["part"] == "clipping") & ~table["steps"].isin(list(budgets))]
        kept.append(rows)
        budgets |= dict.fromkeys(map(int, rows["steps"].unique()), table.attrs["parameters"]["updates"])
    joined = pd.concat(kept, ignore_index=True)
    joined.attrs = tables[0].attrs | {"budgets": budgets}
    return joined


def draw_clipping(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """The share of seeds that succeed with Wilson's interval, over T, a method a colour, counts beside the marks."""
    about = summary(_part(table, "clipping", "temporal order"))
    lengths = sorted(set(about["steps"]))
    figure, (axes,) = canvas(size)
    shown = [method for method in METHODS if method in set(about["method"])]
    apart = 0.19
    for k, method in enumerate(shown):
        label, colour, marker = METHODS[method]
        rows = about[about["method"] == method].sort_values("steps")
        x = [lengths.index(t) + apart * (k - (len(shown) - 1) / 2) for t in rows["steps"]]
        reach = [rows["share"] - rows["low"], rows["high"] - rows["share"]]
        style: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": "-", "capsize": 4, "markersize": 9}
        axes.errorbar(x, rows["share"], yerr=[part.clip(lower=0) for part in reach], label=label, **style)
        for place, row in zip(x, _rows(rows), strict=True):
            text = {"color": colour, "fontsize": 7 if size.narrow else 13, "textcoords": "offset points"}
            aside = {"xytext": (-7, -3), "ha": "right", "va": "top"}  # a falling line passes above
            above, under = ({"xytext": (0, y), "ha": "center", "va": va} for y, va in ((9, "bottom"), (-9, "top")))
            where = above if row.share == 1 else under if row.share == 0 else aside
            axes.annotate(f"{row.solved}/{row.seeds}", (place, row.share), **where, **text)
    budget = table.attrs.get("budgets", {})
    usual = table.attrs["parameters"].get("updates", 0)
    below = [f"{t}\n{budget.get(t, usual):,} updates" if len(lengths) < 6 and not size.narrow else str(t) for t in lengths]
    axes.set_xticks(range(len(lengths)), below)
    axes.set_xlim(-0.5, len(lengths) - 0.5)
    axes.set_ylim(-0.1, 1.1)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(False, axis="x")
    axes.set_xlabel("length of the sequence $T$ (steps)")
    axes.set_ylabel("seeds that learn it (95% interval)")
    legend(figure)
    return figure


def draw_gates(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """Updates until success over T, a panel a task: the medians as a line, each seed a mark, those without success on top."""
    rows = _part(table, "gates", "comparison of cells")
    tasks, lags = list(dict.fromkeys(rows["task"])), sorted(set(rows["steps"]))
    budget = table.attrs["parameters"]["adam_updates"]
    figure, panels = canvas(size, len(tasks))
    top = 1.25 * budget
    for axes, task in zip(panels, tasks, strict=True):
        here = rows[rows["task"] == task]
        cells = [cell for cell in CELLS if cell in set(here["cell"])]
        for k, cell in enumerate(cells):
            label, colour, dashes, marker = CELLS[cell]
            of = here[here["cell"] == cell]
            height = of["updates"].where(of["solved"] == 1, top)
            middle = height.groupby(of["steps"]).median()
            shift = 0.16 * (k - (len(cells) - 1) / 2)
            x = [lags.index(t) + shift for t in middle.index]
            axes.plot(x, middle, color=colour, linestyle=dashes, marker=marker, label=label)
            at = [lags.index(t) + shift for t in of["steps"]]
            axes.plot(at, height, marker, color=colour, alpha=0.4, label="_")
        axes.axhline(budget, color=MUTED, linestyle=":", linewidth=1)
        axes.set_xticks(range(len(lags)), [str(t) for t in lags])
        axes.set_xlim(-0.5, len(lags) - 0.5)
        axes.set_ylim(0, 1.35 * budget)
        kept = [tick for tick in axes.get_yticks() if tick <= 0.95 * budget]
        axes.set_yticks([*kept, top], [*(f"{tick:,.0f}" for tick in kept), "never"])
        axes.grid(False, axis="x")
        axes.set_title(task.replace("_", " "))
        if axes is panels[-1] or not size.narrow:
            axes.set_xlabel("lag $T$ (steps)")
    panels[0].set_ylabel("updates until learned")
    legend(figure)
    return figure


def draw_history(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """Perplexity over the tokens that are kept, a panel a corpus, a cell a colour; dropped in full lines, shuffled in dots."""
    about = summary(_part(table, "history", "language model"))
    figure, panels = _by_corpus(about, size)
    for axes, (_, rows) in zip(panels, about.groupby("task", sort=False), strict=True):
        for cell, (label, colour, _, marker) in CELLS.items():
            mine = rows[rows["cell"] == cell]
            dropped = mine[mine["method"].isin(["dropped", "all"])].sort_values("steps")
            mixed = mine[mine["method"] == "shuffled"].sort_values("steps")
            if dropped.empty:
                continue
            axes.plot(*_curve(dropped), color=colour, linestyle="-", marker=marker, label=f"{label}, rest dropped")
            axes.plot(*_curve(mixed), color=colour, linestyle=":", marker=marker, mfc="white", label=f"{label}, rest shuffled")
        ticks = [n for n in TICKS if n <= rows["steps"].max()]
        axes.set_xticks([math.log1p(n) for n in ticks], [str(n) for n in ticks])
        axes.set_yscale("log")
        _plain_ticks(axes)
        if axes is panels[-1] or not size.narrow:
            axes.set_xlabel("tokens kept $n$")
    panels[0].set_ylabel("perplexity")
    legend(figure)
    return figure


def draw_influence(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """KL of the prediction over the lag of the changed token, log scale, a panel a corpus, a cell a colour; band over seeds."""
    rows = _part(table, "influence", "language model")
    rows = rows.assign(nats=rows["nats"].where(rows["nats"] > FLOOR))
    if rows["nats"].isna().all():
        raise InputError("there is nothing to draw: no changed token changes a prediction")
    figure, panels = _by_corpus(rows, size)
    for axes, (_, of_corpus) in zip(panels, rows.groupby("task", sort=False), strict=True):
        for cell, (label, colour, dashes, marker) in CELLS.items():
            values = of_corpus[of_corpus["cell"] == cell].groupby("steps")["nats"]
            if not len(values):
                continue
            mean, low, high = values.mean(), values.min(), values.max()
            axes.plot(mean.index, mean, color=colour, linestyle=dashes, marker=marker, label=label)
            axes.fill_between(mean.index, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.set_yscale("log")
        locator: Any = axes.xaxis.get_major_locator()
        locator.set_params(integer=True)
        if axes is panels[-1] or not size.narrow:
            axes.set_xlabel("lag $l$ of the changed token")
    short = size.narrow and len(panels) > 1
    panels[0].set_ylabel("change (KL, nats)" if short else "change of the prediction (KL, nats)")
    legend(figure)
    return figure


def _by_corpus(rows: "pd.DataFrame", size: Size) -> "tuple[Figure, list[Axes]]":
    corpora = list(dict.fromkeys(rows["task"]))
    figure, panels = canvas(size, len(corpora))
    for axes, corpus in zip(panels, corpora, strict=True):
        if len(corpora) > 1:
            axes.set_title(corpus if len(corpus) <= 24 else f"…{corpus[-23:]}", parse_math=False)
    return figure, list(panels)


def _curve(rows: "pd.DataFrame") -> tuple[list[float], list[float]]:
    return [math.log1p(n) for n in rows["steps"]], [math.exp(min(nats, 700)) for nats in rows["nats"]]


def _plain_ticks(axes: "Axes") -> None:
    """Numbers as they are read on a log axis that may hold less than a decade."""

    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 2.5, 3, 4, 5, 7) if high < 10 * low else (1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _rows(rows: "pd.DataFrame") -> list[Any]:
    return list(rows.itertuples())


def _measured(claims: "pd.DataFrame", key: str) -> "pd.DataFrame":
    rows = select(claims, key)
    return rows[rows["verdict"] != "not measured"]


def _told(claims: "pd.DataFrame", key: str) -> str:
    """The claims of a key, with what was measured, a sentence each."""
    rows = _rows(_measured(claims, key))
    return " ".join(f"{row.claim[0].upper()}{row.claim[1:]} ({row.setting}): {row.measured}, {row.verdict}." for row in rows)


def _short(claims: "pd.DataFrame", key: str) -> str:
    """The same claim in several settings, with each verdict."""
    rows = _measured(claims, key)
    if rows.empty:
        return ""
    told = "; ".join(f"{row.facts['of']} {row.verdict}" for row in _rows(rows))
    claim = rows["claim"].iloc[0]
    return f"{claim[0].upper()}{claim[1:]}: {told}."


def caption_clipping(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """Counts of each T and method, and the claim on Omega."""
    about = summary(_part(table, "clipping", "temporal order"))
    parts = []
    for steps, rows in about.groupby("steps"):
        told = [f"{METHODS[r.method][0]} {r.solved} of {r.seeds}" for r in _rows(rows)]
        parts.append(f"T = {steps}: {', '.join(told)}")
    told = [f"Seeds that learn temporal order, {'; '.join(parts)}.", _told(claims, "clipping_raises"), _told(claims, "omega")]
    if budgets := table.attrs.get("budgets"):
        each = ", ".join(f"{updates:,} at T = {steps}" for steps, updates in sorted(budgets.items()))
        told.append(f"Updates at the most: {each}.")
    return " ".join(filter(None, told))


def subject(table: "pd.DataFrame") -> str:
    """What was measured: the tasks with their lengths, and the texts."""
    about, parts = table.attrs["parameters"], set(table["part"])
    lengths = ", ".join(str(t) for t in sorted(set(table.loc[table["part"] == "clipping", "steps"])))
    subjects = [f"temporal order over T = {lengths} ({about['updates']:,} updates)"] if lengths else []
    subjects += [" and ".join(str(t).replace("_", " ") for t in dict.fromkeys(table.loc[table["part"] == "gates", "task"]))]
    subjects += [f"language models on {' and '.join(dict.fromkeys(table.loc[table['part'] == 'history', 'task']))}"] * (
        "history" in parts
    )
    return "; ".join(filter(None, subjects))


def listings(table: "pd.DataFrame") -> list[Listing]:
    """Which networks learned which task, and the tokens that give a language model 90% of its history's gain."""
    about = summary(table)
    lines = [
        [
            str(r.task).replace("_", " "),
            CELLS[r.cell][0],
            METHODS[r.method][0] if r.part == "clipping" else "",
            str(r.steps),
            f"{r.solved} of {r.seeds}",
            "" if math.isnan(r.updates) else f"{r.updates:,.0f}",
        ]
        for r in _rows(about[about["part"].isin(["clipping", "gates"])].sort_values(["task", "steps"], kind="stable"))
    ]
    columns = ["task", "cell", "gradient", "T", "seeds that learn it", "updates until learned (median)"]
    models = []
    history = about[about["part"] == "history"]
    for (task, cell), rows in history.groupby(["task", "cell"], sort=False):
        nats = rows[rows["method"].isin(["dropped", "all"])].set_index("steps")["nats"]
        models.append([f"{task}, {CELLS[str(cell)][0]}", *(f"{math.exp(min(v, 700)):.1f}" for v in nats.sort_index())])
        kept = [f"last {n}" if n else "none" for n in sorted(nats.index)]
    return [
        Listing("Who learns what lies T steps back", columns, lines),
        Listing("Perplexity by the tokens that are kept of the history", ["model", *kept], models)
        if models
        else Listing("", [], []),
    ]


def caption_gates(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """How many trainings succeed at the longest lag, of each task and cell."""
    about = summary(_part(table, "gates", "comparison of cells"))
    parts = []
    for task in dict.fromkeys(about["task"]):
        rows = about[about["task"] == task]
        far = rows[rows["steps"] == rows["steps"].max()]
        told = ", ".join(f"{CELLS[r.cell][0]} {r.solved} of {r.seeds}" for r in _rows(far))
        parts.append(f"{task.replace('_', ' ')} at T = {far['steps'].iloc[0]}: {told}")
    return f"Seeds that learn {'; '.join(parts)}. {_short(claims, 'gates_learn')}".strip()


def caption_history(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """After how many tokens 90% of the gain is reached, as the claims have it."""
    rows = _measured(claims, "recent.history")
    told = "; ".join(f"{row.setting} {row.measured}" for row in _rows(rows))
    return f"90% of what the history gains over word frequencies is there after: {told or 'not measured'}."


def caption_influence(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """How much is left far back, and whether gates keep more."""
    rows = _measured(claims, "recent.influence")
    told = "; ".join(f"{row.setting} {row.measured} ({row.verdict})" for row in _rows(rows))
    far = f"at lag {FAR} and further" if len(rows) else "far back"
    return f"KL {far}, in parts of that at lag 0: {told or 'not measured'}. {_short(claims, 'gates_keep')}".strip()


PLOTS = (
    Plot(
        "clipping",
        lambda table: "Temporal order: who learns what came first",
        draw_clipping,
        caption_clipping,
        "A sequence of T symbols holds two markers, near its beginning and in its middle; the network must say at the end "
        "which came first and which second (Pascanu et al. 2013, section 4.1). Each point is the share of seeds that err on "
        "less than 1% of 10,000 fresh sequences; the bar is Wilson's 95% interval. The same seeds, and so the same first "
        "weights and sequences, stand behind all colours (lecture, slides Gradient clipping and Why it matters). Clipping "
        "guards against steps that are too large; Ω asks that gradients keep their size on the way back.",
        slides=("Gradient clipping", "Why it matters"),
        papers="Pascanu, Mikolov & Bengio 2013, section 4.1, figure 7, equations 9 and 10",
        joined=_together,
    ),
    Plot(
        "gates",
        lambda table: "How long it takes to learn what lies T steps back",
        draw_gates,
        caption_gates,
        "Adding: two marked values among T are to be averaged at the end. Copy: three symbols are to be said again T steps "
        "later (Hochreiter & Schmidhuber 1997). Each mark is one training, lower is faster; marks at the top did not learn it "
        "in the updates they had (dotted line). The LSTM and the GRU begin with gates that keep their state (lecture, slide "
        "Why it matters: gates help).",
        slides=("Why it matters",),
        papers="Hochreiter & Schmidhuber 1997",
    ),
    Plot(
        "history",
        lambda table: "How much of the past a language model uses",
        draw_history,
        caption_history,
        "The model predicts a token from the last n tokens only. Full lines: what lay before was never read. Dotted lines: it "
        "was read, but in random order. Where a line is flat, more history no longer helps; at n = 0 the model is replaced by "
        "the frequencies of words. In theory any history (lecture, slide Summary of RNNs); in practice the last few tokens.",
        slides=("Recurrent neural network", "Summary of RNNs"),
    ),
    Plot(
        "influence",
        lambda table: "What one changed token does to the prediction",
        draw_influence,
        caption_influence,
        "One token l steps back is replaced by another of the same language, and the prediction of the next token is compared "
        "with the one before, as KL divergence; lag 0 is the token read last. A straight fall on this scale is forgetting by "
        "the same factor at every step: biased toward recent inputs (lecture, slides Summary of RNNs and Problem with the "
        "vanilla RNN). Bands show the smallest and the largest of the seeds.",
        slides=("Problem with the vanilla RNN", "Summary of RNNs"),
    ),
)
