"""Models of speeches: each cell on each corpus, every model on every corpus, and samples of their text.

Lecture, slide Generating text. Bits per byte compare across vocabularies, because a word model pays for the spelling of unknown
words.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from recurrent_lm import lm
from recurrent_lm.studies.engine.claims import NOT, Claim
from recurrent_lm.studies.engine.language_models import Trained, check_names, trained
from recurrent_lm.studies.engine.parameters import choice, choices, real, whole
from recurrent_lm.studies.engine.statistics import (
    NO_INTERVAL,
    UNDEFINED,
    Interval,
    decided,
    exp,
    mean,
    median,
    paired_ratio,
    share,
)
from recurrent_lm.studies.engine.study import Cell, Sweep

FEWER = "fewer bits per byte of its test text, by a 95% interval over seeds"
ONE = "one seed shows no spread, so nothing says which would be ahead with another; --set seeds=5"
FEW = "the interval reaches across the limit: the seeds, or the texts, do not agree"
CELLS = ("rnn-tanh", "rnn-relu", "rnn-sigmoid", "lstm", "gru")
PROMPTS = ("Jobs", "make the country", "the students opened their")  # of the lecture's slides
LIKELY, DRAWN = 0.0, 0.8  # temperatures of the samples
REPEATED = 4  # words in a row that count as said again
RATES = {"rnn-tanh": 0.002, "rnn-relu": 0.001}  # others take the study's


@dataclass(frozen=True)
class Study(Sweep):
    """A model of each cell on each of ``corpora``, with ``seeds`` seeds, in one kind of ``tokens``."""

    corpora: str = "obama,trump"
    cell: tuple[str, ...] = choices(*CELLS, names=CELLS)
    tokens: str = choice("word", "word", "bpe", "char")
    hidden: int = whole(256, 1, 10_000)
    epochs: int = whole(10, 1, 1_000)
    rows: int = whole(10, 1, 10_000)
    bptt: int = whole(35, 1, 10_000)
    dropout: float = real(0.5, 0.0, 0.99)
    lr: float = real(0.003, 1e-6, 10.0)
    ngram: int = whole(5, 1, 10)
    length: int = whole(60, 1, 10_000)
    seeds: int = whole(1, 1, 1_000)

    SAMPLES: ClassVar = (("corpus", "cell", "way", "text"), "bits_per_byte")
    NAME: ClassVar[str] = "speeches"
    COLUMNS: ClassVar = {
        "part": str, "corpus": str, "cell": str, "seed": int, "way": str, "text": str, "tokens": int, "perplexity": float,
        "bits_per_byte": float, "weight": float, "prompt": str, "temperature": float, "sample": str, "words": int,
        "longest": int, "novel": float, "repeated": float,
    }  # fmt: skip

    def prepare(self) -> None:
        check_names(self._config(corpus, self.cell[0]) for corpus in self._corpora)

    def cells(self) -> list[Cell]:
        seeds = range(1, self.seeds + 1)
        return [{"corpus": c, "cell": cell, "seed": seed} for seed in seeds for c in self._corpora for cell in self.cell]

    def measure(self, cell: Cell) -> list[dict[str, Any]]:
        """Scores: the network, the n-gram model of its training text, and their mixture, on the test text of each corpus.

        Samples: one for each prompt and temperature, with its ``longest`` overlap with the training text in words, the share of
        5-grams that are ``novel``, and the share of 4-grams that are ``repeated``.
        """
        training = trained(self._config(cell["corpus"], cell["cell"]).replace(seed=cell["seed"]))
        if training.diverged:
            raise lm.InputError(f"{training.diverged}; take a smaller lr")
        about = {"corpus": training.data.corpus.name, "cell": cell["cell"], "seed": cell["seed"]}
        return [
            NOTHING | about | row for row in (*self._scores(training, cell["corpus"]), *self._samples(training, cell["seed"]))
        ]

    def _scores(self, training: Trained, corpus: str) -> list[dict[str, Any]]:
        rows = []
        for text in self._corpora:
            own = text == corpus
            how = lm.How(split="test", ngram=self.ngram, interpolate=own)
            compared = lm.compare(
                training.run, how, None if own else lm.other_corpus(training.run, text, "utf-8"), lambda line: None
            )
            for name, (title, score) in zip(("network", "n-gram", "mixture"), compared.scores, strict=False):
                weight = float(title.split()[0]) if name == "mixture" else math.nan  # as "0.65 model + 0.35 5-gram" says
                of = {"part": "score", "way": name, "text": compared.corpus, "weight": weight, "tokens": score.tokens}
                rows.append(of | {"perplexity": score.perplexity, "bits_per_byte": score.bits_per_byte})
        return rows

    def _samples(self, trained_model: Trained, seed: int) -> list[dict[str, Any]]:
        training = lm.TrainingText([piece.text for piece in trained_model.data.corpus.splits()["train"]])
        rows = []
        for prompt in PROMPTS:
            for temperature in (DRAWN, LIKELY):
                draws = lm.Draws(length=self.length, temperature=temperature, seed=seed)
                text = lm.generate_batch(trained_model.run, prompt, 1, draws)[0].text
                copied = training.compare(text, prompt)
                novel = copied.novel / copied.ngrams if copied.ngrams else math.nan
                of = {"part": "sample", "prompt": prompt, "temperature": temperature, "sample": text}
                rows.append(
                    of | {"longest": copied.longest, "novel": novel, "words": len(text.split()), "repeated": repeated(text)}
                )
        return rows

    @property
    def _corpora(self) -> list[str]:
        return [name.strip() for name in self.corpora.split(",")]

    def _config(self, corpus: str, cell: str) -> lm.RunConfig:
        sizes = {"hidden_size": self.hidden, "rows": self.rows, "bptt": self.bptt, "kind": self.tokens}
        if self.tokens == "bpe":
            sizes["vocab_size"] = 2000
        training = {"epochs": self.epochs, "patience": 0, "dropout": self.dropout, "lr": min(self.lr, RATES.get(cell, self.lr))}
        return lm.RunConfig().replace(source=corpus, cell=cell, **sizes, **training)


NOTHING: dict[str, Any] = {
    "way": "", "text": "", "tokens": 0, "perplexity": math.nan, "bits_per_byte": math.nan, "weight": math.nan, "prompt": "",
    "temperature": math.nan, "sample": "", "words": 0, "longest": 0, "novel": math.nan, "repeated": math.nan,
}  # fmt: skip
PRESETS = {
    "smoke": Study(cell=("rnn-tanh", "lstm"), corpora="trump", hidden=16, epochs=1, length=20),
    "cpu": Study(),
    "cpu-long": Study(epochs=14, seeds=3, corpora="obama,trump,sotu"),
}


def repeated(text: str) -> float:
    """Share of a text's 4-grams of words that occurred in it before; nan for fewer than four words."""
    words = text.split()
    grams = Counter(zip(*(words[i:] for i in range(REPEATED)), strict=False))
    total = sum(grams.values())
    return 1 - len(grams) / total if total else math.nan


def complaint(study: Study, table: "pd.DataFrame") -> str:
    """Why a table is not one of this study; empty if it is one."""
    if not table["part"].isin(["score", "sample"]).all() or not table["cell"].isin(list(study.cell)).all():
        return "holds a part or a cell that its parameters do not"
    if not table["way"].isin(["", "network", "n-gram", "mixture"]).all():
        return "holds a way to score that the study does not have"
    keys = ["part", "corpus", "cell", "seed", "way", "text", "prompt", "temperature"]
    return "holds a measurement twice" if table.duplicated(keys).any() else ""


def claims(table: "pd.DataFrame") -> list[Claim]:
    """Own texts are known best; gates help; counting and networks know different things; what is written is new, or not."""
    scores, samples = table[table["bits_per_byte"].notna()], table[table["part"] == "sample"]
    tokens = table.attrs["parameters"]["tokens"]
    return [_own(scores), *_gates(scores, tokens), *_counting(scores, tokens), _repeats(samples), _novel(samples)]


def _own(scores: "pd.DataFrame") -> Claim:
    text = "a text is predicted best by the model of its own speaker"
    claim = "own", text, "lecture, slide Generating text"
    of = scores[scores["way"] == "network"].pivot_table(
        index=["cell", "seed", "text"], columns="corpus", values="bits_per_byte", aggfunc="first"
    )
    texts: list[Any] = list(of.index.get_level_values("text"))
    rows: list[tuple[Any, Any]] = list(zip(texts, of.to_dict("records"), strict=True))
    pairs = [(row[at], min(x for name, x in row.items() if name != at)) for at, row in rows if at in row and len(row) > 1]
    threshold = "fewer bits per byte, for every cell, seed and text; the median ratio's 95% interval above 1"
    if not pairs:
        return Claim(*claim, "all", threshold, NOT, NOT)
    own, other = (pd.Series(values) for values in zip(*pairs, strict=True))
    ratio = paired_ratio(other, own)
    if math.isnan(ratio.value):
        return Claim(*claim, "all cells", threshold, UNDEFINED, "ambiguous")
    right = int((own < other).sum())
    measured = f"{right} of {len(pairs)}; another speaker's model needs {(other / own).min():.2f} times as many bits, or more"
    measured += f", median {ratio}"
    verdict = decided(ratio, low=1)
    verdict = "ambiguous" if verdict == "holds" and right < len(pairs) else verdict
    return Claim(*claim, "all cells", threshold, measured, verdict, _why(verdict))


def _why(verdict: str, seeds: int = 0) -> str:
    """Why two numbers do not decide."""
    return "" if verdict != "ambiguous" else ONE if seeds == 1 else FEW


def _gates(scores: "pd.DataFrame", tokens: str) -> list[Claim]:
    """An LSTM and a GRU against the best Elman network, corpus by corpus."""
    source, threshold = "lecture, slides Why it matters and Problem with the vanilla RNN", FEWER
    own = scores[(scores["way"] == "network") & (scores["corpus"] == scores["text"])]
    rows: list[Claim] = []
    for corpus, group in own.groupby("corpus", sort=False):
        middle = group.groupby("cell")["bits_per_byte"].median()
        plain = middle[[cell for cell in middle.index if cell.startswith("rnn-")]]
        for cell in ("lstm", "gru"):
            if cell in middle.index and len(plain):
                best = group[group["cell"].isin(plain.index)].groupby("seed")["bits_per_byte"].min()
                ratio, *decision = _fewer(group[group["cell"] == cell].set_index("seed")["bits_per_byte"], best)
                measured = f"{middle[cell]:.3f} against {plain.min():.3f} ({plain.idxmin()}); {ratio}"
                text = f"gates help: a {cell} predicts better than the best Elman network"
                rows.append(Claim(f"gates.{cell}", text, source, f"{corpus}, {tokens} tokens", threshold, measured, *decision))
    return rows


def _counting(scores: "pd.DataFrame", tokens: str) -> list[Claim]:
    own = scores[scores["corpus"] == scores["text"]]
    rows: list[Claim] = []
    for corpus, group in own.groupby("corpus", sort=False):
        middle = group.groupby(["way", "cell"])["bits_per_byte"].median()
        best = {way: middle[way].min() for way in ("network", "n-gram", "mixture") if way in middle.index}
        if len(best) < 3:
            continue
        setting = f"{corpus}, {tokens} tokens, the best of all cells"
        source = "Chen & Goodman 1998; Mikolov et al. 2010"
        by_seed = group.groupby(["seed", "way"])["bits_per_byte"].min().unstack()
        text = "a network predicts better than an n-gram model"
        ratio, *decision = _fewer(by_seed["network"], by_seed["n-gram"])
        measured = f"{best['network']:.3f} against {best['n-gram']:.3f}; {ratio}"
        rows.append(Claim("network", text, source, setting, FEWER, measured, *decision))
        text, alone = "a mixture of both predicts better than either", by_seed[["network", "n-gram"]].min(axis=1)
        ratio, *decision = _fewer(by_seed["mixture"], alone)
        measured = f"{best['mixture']:.3f} against {min(best['network'], best['n-gram']):.3f}; {ratio}"
        rows.append(Claim("mixture", text, source, setting, FEWER, measured, *decision))
    return rows


def _fewer(own: "pd.Series[float]", other: "pd.Series[float]") -> tuple[str, str, str]:
    """The geometric mean of own / other over seeds that have both, with Student's interval; the verdict on its being < 1, and
    why it is ambiguous."""

    both = pd.concat([own, other], axis=1).dropna().to_numpy()
    if not (np.isfinite(both) & (both > 0)).all():
        return f"ratio {UNDEFINED}", "ambiguous", ""
    logs = mean(np.log(both[:, 0]) - np.log(both[:, 1]))
    many = f"{len(both)} seeds" if len(both) != 1 else "one seed"
    verdict = decided(logs, high=0)
    return f"ratio {Interval(*map(exp, logs)).told('.3f')}, {many}", verdict, _why(verdict, len(both))


def _repeats(samples: "pd.DataFrame") -> Claim:
    text = "taking the likeliest word each time repeats itself more than drawing words"
    claim = "repeats", text, "lecture, slide Generating text (the Trump sample)"
    wide = samples.pivot_table(index=["corpus", "cell", "seed", "prompt"], columns="temperature", values="repeated")
    threshold = "median share of repeated 4-grams is larger"
    pairs = wide.dropna()
    if pairs.empty or not {LIKELY, DRAWN} <= set(pairs.columns):
        return Claim(*claim, "all", threshold, NOT, NOT)
    likely, drawn = pairs[LIKELY], pairs[DRAWN]
    gap = median(likely - drawn)
    measured = f"{likely.median():.0%} against {drawn.median():.0%}, {len(pairs)} pairs"
    if math.isnan(gap.low):
        measured = f"{measured}, {NO_INTERVAL}" if math.isfinite(gap.value) else UNDEFINED
    verdict = decided(gap, low=0)
    return Claim(*claim, "all models and prompts", threshold, measured, verdict, _why(verdict))


def _novel(samples: "pd.DataFrame") -> Claim:
    text = "what is drawn is not copied: most of its 5-grams are not in the training text"
    drawn = samples[(samples["temperature"] == DRAWN) & samples["novel"].notna()]
    claim = "novel", text, "lecture, slide Generating text", f"temperature {DRAWN}"
    threshold = "> 50% new in every model's samples, and in most samples (Wilson's 95% interval)"
    if drawn.empty:
        return Claim(*claim, threshold, NOT, NOT)
    if not drawn["novel"].between(0, 1).all():
        return Claim(*claim, threshold, UNDEFINED, "ambiguous")
    novel = drawn.groupby(["corpus", "cell"])["novel"].mean()
    most = share(int((drawn["novel"] > 0.5).sum()), len(drawn))
    measured = f"{novel.min():.0%} to {novel.max():.0%} new; the longest overlap is {int(drawn['longest'].max())} words; "
    measured += f"mostly new are {most.told('.0%')} of {len(drawn)} samples"
    verdict = decided(most, low=0.5)
    verdict = "ambiguous" if verdict == "holds" and novel.min() <= 0.5 else verdict
    return Claim(*claim, threshold, measured, verdict, _why(verdict))
