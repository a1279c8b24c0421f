"""Models of speeches: each cell on each corpus, every model on every corpus, and samples of their text.

Lecture, slide Generating text. Bits per byte compare across vocabularies, because a word model pays for the spelling of unknown
words.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from recurrent_lm import lm
from recurrent_lm.studies.engine.language_models import Trained, check_names, converged, names_in
from recurrent_lm.studies.engine.parameters import choice, choices, real, whole
from recurrent_lm.studies.engine.study import Cell, Sweep
from recurrent_lm.studies.speeches.claims import claims
from recurrent_lm.studies.speeches.samples import samples

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PRESETS", "Study", "claims", "complaint"]

CELLS = ("rnn-tanh", "rnn-relu", "rnn-sigmoid", "lstm", "gru")
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
        training = converged(self._config(cell["corpus"], cell["cell"]).replace(seed=cell["seed"]))
        about = {"corpus": training.data.corpus.name, "cell": cell["cell"], "seed": cell["seed"]}
        return [
            NOTHING | about | row
            for row in (*self._scores(training, cell["corpus"]), *samples(training, self.length, cell["seed"]))
        ]

    def _scores(self, training: Trained, corpus: str) -> list[dict[str, Any]]:
        rows = []
        for text in self._corpora:
            own = text == corpus
            how = lm.How(split="test", ngram=self.ngram, interpolate=own)
            compared = lm.compare(
                training.run, how, None if own else lm.other_corpus(training.run, text, "utf-8"), lambda line: None
            )
            for name, (_, score) in zip(("network", "n-gram", "mixture"), compared.scores, strict=False):
                weight = round(compared.weight, 2) if name == "mixture" else math.nan
                of = {"part": "score", "way": name, "text": compared.corpus, "weight": weight, "tokens": score.tokens}
                rows.append(of | {"perplexity": score.perplexity, "bits_per_byte": score.bits_per_byte})
        return rows

    @property
    def _corpora(self) -> list[str]:
        return names_in(self.corpora)

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


def complaint(study: Study, table: "pd.DataFrame") -> str:
    """Why a table is not one of this study; empty if it is one."""
    if not table["part"].isin(["score", "sample"]).all() or not table["cell"].isin(list(study.cell)).all():
        return "holds a part or a cell that its parameters do not"
    if not table["way"].isin(["", "network", "n-gram", "mixture"]).all():
        return "holds a way to score that the study does not have"
    keys = ["part", "corpus", "cell", "seed", "way", "text", "prompt", "temperature"]
    return "holds a measurement twice" if table.duplicated(keys).any() else ""
