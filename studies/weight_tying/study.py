"""Weight tying: the lecture's table of parameters, and perplexity tied and not.

Slides Parameters and Weight tying: E is |V| x d, U is h x |V|, W_i is d x h, W_h is h x h. A tied decoder uses E, which saves
U; if d and h differ it needs a linear map from h to d. (Press & Wolf 2017; Inan, Khosravi & Socher 2017.)
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from recurrent_lm import lm
from recurrent_lm.studies.engine.language_models import check_names, converged, names_in
from recurrent_lm.studies.engine.parameters import choice, real, whole, wholes
from recurrent_lm.studies.engine.study import Cell, Sweep
from recurrent_lm.studies.weight_tying.claims import claims
from recurrent_lm.studies.weight_tying.sizes import MATRICES, SMALLER, VARIANTS, count, largest_within, lecture, matrices

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PRESETS", "Study", "claims", "complaint"]

CELLS = ("rnn-tanh", "lstm", "gru")
# name: (d is narrower than h, tied). The last has the sizes at which an untied model is no larger than a tied one.


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
        training = converged(config.replace(hidden_size=h, embedding_size=d, tie=tie, seed=cell["seed"]))
        name, test = training.data.corpus.name, training.scores["test"]
        best = int(training.epochs["valid_loss"].to_numpy().argmin()) + 1
        sizes = {"vocabulary": vocabulary, "d": d, "h": h, "matrix": "all"}
        scores = {"perplexity": test.perplexity, "bits_per_byte": test.bits_per_byte, "best_epoch": best}
        return [cell | nothing | sizes | scores | {"corpus": name, "parameters": count(vocabulary, d, h, tie, self.cell)}]

    @property
    def _corpora(self) -> list[str]:
        return names_in(self.corpora)

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
                    counts = matrices(vocabulary, d, h, tie, "rnn-tanh")
                    of = lecture(vocabulary, d, h, tie)
                    sizes = {"variant": variant, "vocabulary": vocabulary, "d": d, "h": h}
                    rows += [sizes | {"matrix": m, "parameters": counts[m], "formula": of.get(m, counts[m])} for m in MATRICES]
        return rows


PRESETS = {
    "smoke": Study(corpora="trump", hidden=16, epochs=1, seeds=1, min_count=20),
    "cpu": Study(),
    "cpu-long": Study(hidden=256, epochs=12, seeds=5, min_count=2),
}


def complaint(study: Study, table: "pd.DataFrame") -> str:
    """Why a table is not one of this study; empty if it is one."""
    if not table["part"].isin(["counts", "model"]).all() or not table["matrix"].isin([*MATRICES, "all"]).all():
        return "holds a part or a matrix that the study does not have"
    if not table["variant"].isin(list(VARIANTS)).all():
        return f"holds a variant that is none of {'; '.join(VARIANTS)}"
    keys = ["part", "corpus", "variant", "seed", "matrix", "vocabulary", "h"]
    return "holds a measurement twice" if table.duplicated(keys).any() else ""
