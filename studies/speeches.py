"""Models of speeches: each corpus with each cell, every model on every corpus, and what the models write.

Slide "Generating text": a model of one speaker, fed its own words back. Bits per byte compare across vocabularies: a word model
pays for the spelling of what it does not know.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import lm
from studies.models import Trained, check_names, trained
from studies.parameters import choice, choices, real, whole
from studies.statistics import median
from studies.study import Cell, Sweep

if TYPE_CHECKING:
    import pandas as pd

NOT = "not measured"
CELLS = ("rnn-tanh", "rnn-relu", "rnn-sigmoid", "lstm", "gru")
PROMPTS = ("Jobs", "make the country", "the students opened their")  # of the lecture's slides
LIKELY, DRAWN = 0.0, 0.8  # temperatures of the samples
REPEATED = 4  # words in a row that count as said again
RATES = {"rnn-tanh": 0.002, "rnn-relu": 0.001}  # others take the study's


@dataclass(frozen=True)
class Study(Sweep):
    """A model of each cell on each of ``corpora``, ``seeds`` times, in one kind of ``tokens``."""

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
        Samples: one a prompt and temperature, with its ``longest`` overlap with the training text in words, the shares of
        its 5-grams that are ``novel`` and of its 4-grams that are ``repeated``."""
        made = trained(self._config(cell["corpus"], cell["cell"]).replace(seed=cell["seed"]))
        if made.diverged:
            raise lm.InputError(f"{made.diverged}; take a smaller lr")
        about = {"corpus": made.data.corpus.name, "cell": cell["cell"], "seed": cell["seed"]}
        return [NOTHING | about | row for row in (*self._scores(made, cell["corpus"]), *self._samples(made, cell["seed"]))]

    def _scores(self, made: Trained, corpus: str) -> list[dict[str, Any]]:
        rows = []
        for text in self._corpora:
            own = text == corpus
            how = lm.How(split="test", ngram=self.ngram, interpolate=own)
            found = lm.compare(made.run, how, None if own else lm.other_corpus(made.run, text, "utf-8"), lambda line: None)
            for name, (said, score) in zip(("network", "n-gram", "mixture"), found.scores, strict=False):
                weight = float(said.split()[0]) if name == "mixture" else math.nan  # as "0.65 model + 0.35 5-gram" says
                of = {"part": "score", "way": name, "text": found.corpus, "weight": weight, "tokens": score.tokens}
                rows.append(of | {"perplexity": score.perplexity, "bits_per_byte": score.bits_per_byte})
        return rows

    def _samples(self, made: Trained, seed: int) -> list[dict[str, Any]]:
        training = lm.TrainingText([piece.text for piece in made.data.corpus.splits()["train"]])
        rows = []
        for prompt in PROMPTS:
            for temperature in (DRAWN, LIKELY):
                draws = lm.Draws(length=self.length, temperature=temperature, seed=seed)
                text = lm.generate_batch(made.run, prompt, 1, draws)[0].text
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
    """The share of a text's 4-grams of words that stand in it before; nan of fewer than four words."""
    words = text.split()
    grams = Counter(zip(*(words[i:] for i in range(REPEATED)), strict=False))
    total = sum(grams.values())
    return 1 - len(grams) / total if total else math.nan


def complaint(study: Study, table: "pd.DataFrame") -> str:
    """What keeps a table from being one of this study; nothing if it is one."""
    if not table["part"].isin(["score", "sample"]).all() or not table["cell"].isin(list(study.cell)).all():
        return "holds a part or a cell that its parameters do not"
    if not table["way"].isin(["", "network", "n-gram", "mixture"]).all():
        return "holds a way to score that the study does not have"
    keys = ["part", "corpus", "cell", "seed", "way", "text", "prompt", "temperature"]
    return "holds a measurement twice" if table.duplicated(keys).any() else ""


Claim = tuple[str, str, str, str, str, str]


def verdicts(table: "pd.DataFrame") -> "pd.DataFrame":
    """Own texts are known best; gates help; counting and networks know different things; what is written is new, or not."""
    import pandas as pd

    scores, samples = table[table["bits_per_byte"].notna()], table[table["part"] == "sample"]
    tokens = table.attrs["parameters"]["tokens"]
    rows: list[Claim] = [_own(scores), *_gates(scores, tokens), *_counting(scores, tokens)]
    rows += [_repeats(samples), _novel(samples)]
    return pd.DataFrame(rows, columns=["claim", "source", "setting", "threshold", "measured", "verdict"])


def _own(scores: "pd.DataFrame") -> Claim:
    claim = "a text is predicted best by the model of its own speaker"
    of = scores[scores["way"] == "network"].pivot_table(
        index=["cell", "seed", "text"], columns="corpus", values="bits_per_byte", aggfunc="first"
    )
    texts: list[Any] = list(of.index.get_level_values("text"))
    rows: list[tuple[Any, Any]] = list(zip(texts, of.to_dict("records"), strict=True))
    pairs = [
        (row[text], min(x for name, x in row.items() if name != text)) for text, row in rows if text in row and len(row) > 1
    ]
    source, threshold = "lecture, slide Generating text", "fewer bits per byte, for every cell, seed and text"
    if not pairs:
        return claim, source, "all", threshold, NOT, NOT
    right = sum(own < other for own, other in pairs)
    least = min(other / own for own, other in pairs)
    measured = f"{right} of {len(pairs)}; another speaker's model needs {least:.2f} times as many bits, or more"
    return claim, source, "all cells", threshold, measured, "holds" if right == len(pairs) else "fails"


def _gates(scores: "pd.DataFrame", tokens: str) -> list[Claim]:
    """An LSTM and a GRU against the best Elman network, corpus by corpus."""
    source, threshold = (
        "lecture, slides Why it matters and Problem with the vanilla RNN",
        "fewer bits per byte on its test text",
    )
    own = scores[(scores["way"] == "network") & (scores["corpus"] == scores["text"])]
    rows: list[Claim] = []
    for corpus, group in own.groupby("corpus", sort=False):
        middle = group.groupby("cell")["bits_per_byte"].median()
        plain = middle[[cell for cell in middle.index if cell.startswith("rnn-")]]
        for cell in ("lstm", "gru"):
            if cell in middle.index and len(plain):
                measured = f"{middle[cell]:.3f} against {plain.min():.3f} ({plain.idxmin()})"
                verdict = "holds" if middle[cell] < plain.min() else "fails"
                claim = f"gates help: a {cell} predicts better than the best Elman network"
                rows.append((claim, source, f"{corpus}, {tokens} tokens", threshold, measured, verdict))
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
        against = f"{best['network']:.3f} against {best['n-gram']:.3f}"
        claim = "a network predicts better than an n-gram model"
        verdict = "holds" if best["network"] < best["n-gram"] else "fails"
        rows.append((claim, source, setting, "fewer bits per byte", against, verdict))
        alone = min(best["network"], best["n-gram"])
        claim = "a mixture of both predicts better than either"
        verdict = "holds" if best["mixture"] < alone else "fails"
        rows.append((claim, source, setting, "fewer bits per byte", f"{best['mixture']:.3f} against {alone:.3f}", verdict))
    return rows


def _repeats(samples: "pd.DataFrame") -> Claim:
    claim = "taking the likeliest word each time repeats itself more than drawing words"
    wide = samples.pivot_table(index=["corpus", "cell", "seed", "prompt"], columns="temperature", values="repeated")
    source, threshold = "lecture, slide Generating text (the Trump sample)", "median share of repeated 4-grams is larger"
    pairs = wide.dropna()
    if pairs.empty or not {LIKELY, DRAWN} <= set(pairs.columns):
        return claim, source, "all", threshold, NOT, NOT
    likely, drawn = pairs[LIKELY], pairs[DRAWN]
    gap = median(likely - drawn)
    measured = f"{likely.median():.0%} against {drawn.median():.0%}, {len(pairs)} pairs"
    if gap.low != gap.low:
        return claim, source, "all models and prompts", threshold, measured, "ambiguous"
    verdict = "holds" if gap.low > 0 else "fails" if gap.high < 0 else "ambiguous"
    return claim, source, "all models and prompts", threshold, measured, verdict


def _novel(samples: "pd.DataFrame") -> Claim:
    claim = "what is drawn is not copied: most of its 5-grams are not in the training text"
    drawn = samples[(samples["temperature"] == DRAWN) & samples["novel"].notna()]
    source, setting, threshold = "lecture, slide Generating text", f"temperature {DRAWN}", "> 50% new in every model's samples"
    if drawn.empty:
        return claim, source, setting, threshold, NOT, NOT
    novel = drawn.groupby(["corpus", "cell"])["novel"].mean()
    measured = f"{novel.min():.0%} to {novel.max():.0%} new; the longest overlap is {int(drawn['longest'].max())} words"
    return claim, source, setting, threshold, measured, "holds" if novel.min() > 0.5 else "fails"
