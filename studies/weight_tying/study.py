"""Weight tying: the lecture's table of parameters, and perplexity tied and not.

Slides Parameters and Weight tying: E is |V| x d, U is h x |V|, W_i is d x h, W_h is h x h. A tied decoder uses E, which saves
U; if d and h differ it needs a linear map from h to d. (Press & Wolf 2017; Inan, Khosravi & Socher 2017.)
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from recurrent_lm import lm
from recurrent_lm.studies.engine.claims import NOT, Claim
from recurrent_lm.studies.engine.language_models import check_names, trained
from recurrent_lm.studies.engine.parameters import choice, real, whole, wholes
from recurrent_lm.studies.engine.statistics import UNDEFINED, Interval, decided, paired_ratio
from recurrent_lm.studies.engine.study import Cell, Sweep

if TYPE_CHECKING:
    import pandas as pd

CELLS = ("rnn-tanh", "lstm", "gru")
MATRICES = ("E", "W_i", "W_h", "projection", "U", "biases")
# name: (d is narrower than h, tied). The last has the sizes at which an untied model is no larger than a tied one.
VARIANTS = {
    "untied, d = h": (False, False),
    "tied, d = h": (False, True),
    "untied, d < h": (True, False),
    "tied by a projection": (True, True),
    "untied, as large as tied": (False, False),
}
SMALLER = "untied, as large as tied"
PAIRS = {  # key: claim, tied, untied
    "tied.same_width": ("a tied model predicts better than an untied one of the same d and h", "tied, d = h", "untied, d = h"),
    "tied.same_count": ("a tied model predicts better than an untied one with as many parameters", "tied, d = h", SMALLER),
    "tied.projection": (
        "where d < h, tying through a projection predicts better than not tying",
        "tied by a projection",
        "untied, d < h",
    ),
}


@dataclass(frozen=True)
class Study(Sweep):
    """Counts for ``vocabulary`` |V|, ``sizes`` d = h, and d = h / ``narrower``; models of ``hidden`` units on ``corpora``."""

    vocabulary: tuple[int, ...] = wholes(1_000, 10_000, 100_000, low=2, high=1_000_000)
    sizes: tuple[int, ...] = wholes(256, 512, 1_024, low=2, high=10_000)
    narrower: int = whole(2, 2, 100)
    corpora: str = "obama,trump"
    cell: str = choice("lstm", *CELLS)
    hidden: int = whole(128, 2, 10_000)
    min_count: int = whole(3, 1, 1_000)
    epochs: int = whole(8, 1, 1_000)
    rows: int = whole(10, 1, 10_000)
    dropout: float = real(0.4, 0.0, 0.99)
    lr: float = real(0.005, 1e-6, 10.0)
    seeds: int = whole(3, 1, 1_000)

    SAMPLES: ClassVar = (("corpus", "variant", "vocabulary", "d", "h", "matrix"), "perplexity")
    NAME: ClassVar[str] = "weight_tying"
    COLUMNS: ClassVar = {
        "part": str, "corpus": str, "variant": str, "seed": int, "vocabulary": int, "d": int, "h": int, "matrix": str,
        "parameters": int, "formula": int, "perplexity": float, "bits_per_byte": float, "best_epoch": int,
    }  # fmt: skip

    def prepare(self) -> None:
        if self.hidden < self.narrower or min(self.sizes) < self.narrower:
            raise lm.InputError(
                f"hidden and sizes must be at least narrower, which is {self.narrower}, so that d = h / narrower is 1 or more"
            )
        check_names(self._config(corpus) for corpus in self._corpora)

    def cells(self) -> list[Cell]:
        """One cell for all counts, and one for each model."""
        counts = {"part": "counts", "corpus": "", "variant": "", "seed": 0}
        models = [
            {"part": "model", "corpus": corpus, "variant": variant, "seed": seed}
            for seed in range(1, self.seeds + 1)
            for corpus in self._corpora
            for variant in VARIANTS
        ]
        return [counts, *models]

    def measure(self, cell: Cell) -> list[dict[str, Any]]:
        """Counts: ``parameters`` of each matrix in the model, beside the lecture's ``formula``. Models: the total
        ``parameters``, and ``perplexity`` and ``bits_per_byte`` of the test text.
        """
        nothing = {"perplexity": float("nan"), "bits_per_byte": float("nan"), "best_epoch": 0, "formula": 0}
        if cell["part"] == "counts":
            return [cell | nothing | row for row in self._counts()]
        corpus, variant = cell["corpus"], cell["variant"]
        config = self._config(corpus)
        vocabulary = lm.prepare(config).tokenizer.size
        d, h, tie = self._shape(variant, vocabulary)
        training = trained(config.replace(hidden_size=h, embedding_size=d, tie=tie, seed=cell["seed"]))
        if training.diverged:
            raise lm.InputError(f"{training.diverged}; take a smaller lr")
        name, test = training.data.corpus.name, training.scores["test"]
        best = int(training.epochs["valid_loss"].to_numpy().argmin()) + 1
        sizes = {"vocabulary": vocabulary, "d": d, "h": h, "matrix": "all"}
        scores = {"perplexity": test.perplexity, "bits_per_byte": test.bits_per_byte, "best_epoch": best}
        return [cell | nothing | sizes | scores | {"corpus": name, "parameters": count(vocabulary, d, h, tie, self.cell)}]

    @property
    def _corpora(self) -> list[str]:
        return [name.strip() for name in self.corpora.split(",")]

    def _config(self, corpus: str) -> lm.RunConfig:
        training = {"epochs": self.epochs, "patience": 0, "lr": self.lr, "rows": self.rows, "dropout": self.dropout}
        return lm.RunConfig().replace(source=corpus, cell=self.cell, min_count=self.min_count, **training)

    def _shape(self, variant: str, vocabulary: int) -> tuple[int, int, bool]:
        """(d, h, tied) of a variant."""
        narrow, tie = VARIANTS[variant]
        h = self.hidden
        if variant == SMALLER:
            h = largest_within(count(vocabulary, h, h, True, self.cell), vocabulary, self.cell)
        return h // self.narrower if narrow else h, h, tie

    def _counts(self) -> list[dict[str, Any]]:
        """The lecture's table: an Elman network, tied and not, d = h and narrower, for each |V| and h."""
        rows = []
        for vocabulary in self.vocabulary:
            for h in self.sizes:
                for variant, (narrow, tie) in VARIANTS.items():
                    if variant == SMALLER:
                        continue
                    d = h // self.narrower if narrow else h
                    counts = _matrices(vocabulary, d, h, tie, "rnn-tanh")
                    of = lecture(vocabulary, d, h, tie)
                    sizes = {"variant": variant, "vocabulary": vocabulary, "d": d, "h": h}
                    rows += [sizes | {"matrix": m, "parameters": counts[m], "formula": of.get(m, counts[m])} for m in MATRICES]
        return rows


PRESETS = {
    "smoke": Study(corpora="trump", hidden=16, epochs=1, seeds=1, min_count=20),
    "cpu": Study(),
    "cpu-long": Study(hidden=256, epochs=12, seeds=5, min_count=2),
}


def lecture(vocabulary: int, d: int, h: int, tie: bool) -> dict[str, int]:
    """The slide's formulas for an Elman network, without biases as on the slide."""
    projection = h * d if tie and d != h else 0
    return {"E": vocabulary * d, "W_i": d * h, "W_h": h * h, "projection": projection, "U": 0 if tie else h * vocabulary}


def count(vocabulary: int, d: int, h: int, tie: bool, cell: str) -> int:
    """All parameters of a model with biases, counted without allocating them."""
    return sum(_matrices(vocabulary, d, h, tie, cell).values())


def largest_within(budget: int, vocabulary: int, cell: str) -> int:
    """The largest d = h at which an untied model has at most ``budget`` parameters; at least 1."""
    low, high = 1, 2
    while count(vocabulary, high, high, False, cell) <= budget:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(vocabulary, middle, middle, False, cell) <= budget else (low, middle)
    return low


def _matrices(vocabulary: int, d: int, h: int, tie: bool, cell: str) -> dict[str, int]:
    config = lm.ModelConfig(cell=cell, hidden_size=h, embedding_size=d, tie=tie)
    with torch.device("meta"):
        model = lm.LanguageModel(vocabulary, config)
    counts = dict.fromkeys(MATRICES, 0)
    for name, parameter in model.named_parameters():  # a shared one once
        counts[_name(name)] += parameter.numel()
    return counts


def _name(parameter: str) -> str:
    """The lecture's name of a parameter of the model."""
    if "bias" in parameter:
        return "biases"
    names = {"embedding": "E", "decoder": "U", "projection": "projection"}
    first = parameter.partition(".")[0]
    return names.get(first) or ("W_h" if "weight_hh" in parameter else "W_i")


def complaint(study: Study, table: "pd.DataFrame") -> str:
    """Why a table is not one of this study; empty if it is one."""
    if not table["part"].isin(["counts", "model"]).all() or not table["matrix"].isin([*MATRICES, "all"]).all():
        return "holds a part or a matrix that the study does not have"
    if not table["variant"].isin(list(VARIANTS)).all():
        return f"holds a variant that is none of {'; '.join(VARIANTS)}"
    keys = ["part", "corpus", "variant", "seed", "matrix", "vocabulary", "h"]
    return "holds a measurement twice" if table.duplicated(keys).any() else ""


def claims(table: "pd.DataFrame") -> list[Claim]:
    """The slide's counts, which are exact, and what tying does to perplexity, pair by pair of corpus and seed."""
    counts, models = table[table["part"] == "counts"], table[table["part"] == "model"]
    rows = [_formula(counts), _saving(counts), *_most(counts)]
    source, p = "Press & Wolf 2017, Inan et al. 2017; lecture, slide Weight tying", table.attrs["parameters"]
    for key, (text, tied, untied) in PAIRS.items():
        pairs = _pairs(models, tied, untied)
        ratio, many = paired_ratio(pairs[tied], pairs[untied]), len(pairs)
        setting = f"{p['cell']}, h = {p['hidden']}, {many} pair{'s' * (many > 1)} of corpus and seed"
        measured = NOT if not many else UNDEFINED if ratio.value != ratio.value else ratio.told(".3f")
        verdict = decided(ratio, high=1) if many else NOT
        why = _why(pairs) if verdict == "ambiguous" else ""
        rows.append(Claim(key, text, source, setting, "perplexity ratio < 1", measured, verdict, why))
    return rows


def _why(pairs: "pd.DataFrame") -> str:
    """Why a ratio is not decided: what each corpus says alone."""
    each = (pairs.iloc[:, 0] / pairs.iloc[:, 1]).groupby("corpus").median()
    if each.min() < 1 < each.max():
        return f"the corpora do not agree: {', '.join(f'{name} {value:.3f}' for name, value in each.items())}"
    return f"{len(pairs)} pairs are few for a difference as small as this"


def ratio_of(models: "pd.DataFrame", tied: str, untied: str) -> Interval:
    """Median of the tied model's perplexity over the untied one's, pair by pair of corpus and seed."""
    pairs = _pairs(models, tied, untied)
    return paired_ratio(pairs[tied], pairs[untied])


def _pairs(models: "pd.DataFrame", *variants: str) -> "pd.DataFrame":
    wide = models.pivot(index=["corpus", "seed"], columns="variant", values="perplexity")
    return wide.reindex(columns=list(variants)).dropna()


def _formula(counts: "pd.DataFrame") -> Claim:
    text, source = "every matrix has as many parameters as the lecture says", "lecture, slide Parameters"
    seen = counts[counts["matrix"] != "biases"]
    wrong = int((seen["parameters"] != seen["formula"]).sum())
    measured = f"{len(seen) - wrong} of {len(seen)} counts are equal" if len(seen) else NOT
    verdict = NOT if seen.empty else "fails" if wrong else "holds"
    return Claim("formula", text, source, _sizes(counts), "equal", measured, verdict)


def _saving(counts: "pd.DataFrame") -> Claim:
    about = "saving", "where d = h, tying saves |V| x h parameters", "lecture, slide Weight tying"
    total = counts.groupby(["vocabulary", "h", "variant"])["parameters"].sum().unstack()
    total = total.reindex(columns=["tied, d = h", "untied, d = h"]).dropna()
    if total.empty:
        return Claim(*about, "", "equal", NOT, NOT)
    if not (total > 0).all(axis=None):
        return Claim(*about, _sizes(counts), "equal", UNDEFINED, "ambiguous")
    saved = (total["untied, d = h"] - total["tied, d = h"]).reset_index(name="saved")
    right = int((saved["saved"] == saved["vocabulary"] * saved["h"]).sum())
    share = (total["untied, d = h"] - total["tied, d = h"]) / total["untied, d = h"]
    measured = f"{right} of {len(saved)} are equal; {share.min():.0%} to {share.max():.0%} of all parameters"
    return Claim(*about, _sizes(counts), "equal", measured, "holds" if right == len(saved) else "fails")


def _most(counts: "pd.DataFrame") -> list[Claim]:
    """One row a vocabulary: it is true where |V| exceeds h, and not of every vocabulary."""
    about = "most", "E and U hold most of an untied model's parameters", "lecture, slide Parameters"
    why = "E and U are 2 |V| h numbers and W_i and W_h are 2 h^2, so they hold most of them only where |V| is larger than h"
    rows = []
    for vocabulary, group in counts[counts["variant"] == "untied, d = h"].groupby("vocabulary"):
        wide = group.pivot(index="h", columns="matrix", values="parameters").reindex(columns=list(MATRICES)).dropna()
        if wide.empty:
            continue
        measured, verdict = UNDEFINED, "ambiguous"
        if (wide >= 0).all(axis=None) and (wide.sum(axis=1) > 0).all():
            share = (wide["E"] + wide["U"]) / wide.sum(axis=1)
            measured = f"{share.min():.1%} at h = {share.idxmin()} to {share.max():.1%} at h = {share.idxmax()}"
            verdict = "holds" if share.min() > 0.5 else "fails"
        setting = f"|V| = {vocabulary:,}, an Elman network"
        rows.append(Claim(*about, setting, "> 50% at every size", measured, verdict, why))
    return rows or [Claim(*about, "", "> 50% at every size", NOT, NOT)]


def _sizes(counts: "pd.DataFrame") -> str:
    if counts.empty:
        return ""
    v, h = sorted(counts["vocabulary"].unique()), sorted(counts["h"].unique())
    return f"an Elman network, |V| = {', '.join(f'{x:,}' for x in v)}, h = {', '.join(map(str, h))}"
