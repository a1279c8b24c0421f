"""Gradient clipping: the cliff that it is for, what it does to a language model's training, and what else bears its name.

Slides "Gradient clipping" (Algorithm 1) and "Why it matters"; Pascanu, Mikolov & Bengio, On the difficulty of training
recurrent neural networks, 2013. The parts are ``clipping_cliff``, ``clipping_model``, ``clipping_kinds`` and
``clipping_overflow``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from recurrent_lm import kernels, lm
from recurrent_lm.studies.clipping import cliff as cliff
from recurrent_lm.studies.clipping import kinds as kinds
from recurrent_lm.studies.clipping import overflow as overflow
from recurrent_lm.studies.clipping import trainings as model
from recurrent_lm.studies.clipping.claims import claims
from recurrent_lm.studies.engine.language_models import names_in
from recurrent_lm.studies.engine.memory import check_memory
from recurrent_lm.studies.engine.parameters import choice, choices, real, reals, whole
from recurrent_lm.studies.engine.study import Cell, Sweep

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PRESETS", "Study", "claims", "complaint"]

PARTS = ("cliff", "training", "kinds", "overflow")
KEYS = ("part", "corpus", "kind", "quantity", "rate", "multiple", "seed", "step", "bin", "w", "b")
VALID_ROWS = 10  # a text that is read in so many rows costs each row its history, which is little here


@dataclass(frozen=True)
class Study(Sweep):
    """Clipping in four parts.

    cliff: the error surface on a ``grid`` x ``grid``, and two descents of ``descent_steps`` from (``w``, ``b``) at
    ``descent_rate``, one clipped at ``descent_threshold``. training: for each of ``corpora`` and each seed, a language model at
    each of ``rates`` and ``multiples`` of the mean norm, and without clipping. kinds: every ``every`` steps of one training
    without clipping at ``kinds_rate``, four methods of clipping, with thresholds of ``tightness`` times the median of the
    quantity that each method clips; at 1 each method changes half of the steps. overflow: for each of ``corpora`` and each
    seed, four updates for each of ``epochs`` of a training whose gradient norm exceeds float32, at sizes of its own.
    """

    parts: tuple[str, ...] = choices(*PARTS, names=PARTS)
    corpora: str = "obama,trump"
    seeds: int = whole(3, 1, 1_000)
    grid: int = whole(61, 3, 120)
    w: float = real(4.7, 4.3, 6.0)
    b: float = real(-2.1, -3.0, -1.8)
    descent_steps: int = whole(60, 1, 1_000)
    descent_rate: float = real(0.2, 1e-6, 1e3)
    descent_threshold: float = real(0.1, 1e-6, 1e6)
    cell: str = choice("rnn-tanh", *kernels.CELLS)
    hidden: int = whole(64, 1, 4_096)
    vocabulary: int = whole(600, 10, 100_000)
    rows: int = whole(20, 1, 10_000)
    bptt: int = whole(35, 1, 10_000)
    epochs: int = whole(14, 1, 1_000)
    rates: tuple[float, ...] = reals(2.0, 4.0, 8.0, low=1e-4, high=1e3)
    multiples: tuple[float, ...] = reals(0.1, 0.5, 1.0, 3.0, 10.0, low=1e-3, high=1e3)
    kinds_rate: float = real(2.0, 1e-4, 1e3)
    every: int = whole(10, 1, 10_000)
    tightness: tuple[float, ...] = reals(1.0, 0.1, 0.01, low=1e-6, high=1e3)

    NAME: ClassVar[str] = "clipping"
    COLUMNS: ClassVar = {
        "part": str, "corpus": str, "kind": str, "quantity": str, "rate": float, "multiple": float, "threshold": float,
        "seed": int, "step": int, "bin": int, "w": float, "b": float, "value": float,
    }  # fmt: skip
    SIGNED: ClassVar = ("w", "b", "value")

    def prepare(self) -> None:
        """Check that every corpus exists and is long enough."""
        if not all(self._corpora) or len(set(self._corpora)) < len(self._corpora):
            raise lm.InputError(f"corpora must be different names or paths with commas between, not {self.corpora!r}")
        for data in self._data.values():
            steps = self.epochs * len(lm.Batches(data.train.ids, self.rows, self.bptt))
            kept = -(-steps // self.every) * data.tokenizer.size if "kinds" in self.parts else 0
            check_memory(8.0 * self.hidden * kept, "hidden, vocabulary or epochs, or raise every")

    def cells(self) -> list[Cell]:
        """The cliff; each corpus and seed of trainings; an example of the four methods, then each corpus and seed of them; each
        corpus and seed of gradients that overflow.
        """
        cells: list[Cell] = [{"part": "cliff", "corpus": "", "seed": 0}] if "cliff" in self.parts else []
        for part in PARTS[1:]:
            if part in self.parts:
                cells += [{"part": part, "corpus": "", "seed": 0}] if part == "kinds" else []  # an example in numbers
                cells += [{"part": part, "corpus": c, "seed": s} for c in self._corpora for s in range(1, self.seeds + 1)]
        return cells

    def measure(self, cell: Cell) -> list[dict[str, Any]]:
        """Rows with a ``quantity`` and its ``value``.

        ``w`` and ``b`` are the place on the surface; ``rate``, ``multiple`` and ``threshold`` the training and clipping;
        ``step`` and ``bin`` number repeated rows. Columns that do not apply are 0 or empty.
        """
        nothing = dict.fromkeys(self.COLUMNS, 0) | dict.fromkeys(("kind", "corpus"), "")
        return [nothing | cell | row for row in self._rows(**cell)]

    def subject(self) -> str:
        """The corpora, their tokens and the model, if one is trained."""
        if self.parts == ("cliff",):
            return ""
        return f"{' and '.join(self._names)}, word tokens, {self.cell} {self.hidden}"

    def inputs(self) -> str:
        """A digest of the training texts."""
        return " ".join(data.fingerprint() for data in self._data.values())

    def config(self, corpus: str, seed: int) -> lm.RunConfig:
        """The lecture's SGD at a constant rate, without dropout, for ``epochs`` epochs."""
        return lm.RunConfig().replace(
            source=corpus, kind="word", vocab_size=self.vocabulary, rows=self.rows, bptt=self.bptt, cell=self.cell,
            hidden_size=self.hidden, dropout=0.0, optimizer="sgd", schedule="constant", clip="none", epochs=self.epochs,
            patience=0, seed=seed, valid_rows=VALID_ROWS, device="cpu", precision="float32", backend="torch",
            threads=torch.get_num_threads(), checkpoint_every=10**9,
        )  # fmt: skip

    @property
    def _corpora(self) -> list[str]:
        return names_in(self.corpora)

    @cached_property
    def _data(self) -> dict[str, lm.Data]:
        if set(self.parts) == {"cliff"}:
            return {}
        return {corpus: lm.prepare(self.config(corpus, 1)) for corpus in self._corpora}

    @property
    def _names(self) -> list[str]:
        return [data.corpus.name for data in self._data.values()]

    def _rows(self, part: str, corpus: str, seed: int) -> Iterator[dict[str, Any]]:
        if part == "cliff":
            return cliff.rows(self.grid, (self.w, self.b), self.descent_rate, self.descent_threshold, self.descent_steps)
        if not corpus:
            return kinds.example()
        if part == "overflow":
            return overflow.rows(overflow.config(corpus, seed), overflow.AN_EPOCH * self.epochs)
        config = self.config(corpus, seed)
        if part == "training":
            return model.rows(config, self.rates, self.multiples)
        return kinds.rows(config.replace(lr=self.kinds_rate), self.every, self.tightness)


PRESETS = {
    "smoke": Study(
        corpora="obama", seeds=1, grid=31, hidden=16, vocabulary=200, epochs=1, rates=(1.0, 8.0), multiples=(0.5, 1.0), every=20
    ),
    "cpu": Study(),
    "cpu-long": Study(seeds=10, hidden=128, epochs=20, rates=(0.5, 1.0, 2.0, 4.0, 8.0, 16.0)),
}


def complaint(study: Study, table: "pd.DataFrame") -> str:
    """What keeps a table from being one of this study; nothing if it is one."""
    cells = {(cell["part"], cell["corpus"], cell["seed"]) for cell in study.cells()}
    parts = table["part"].replace("norms", "training")
    if not set(zip(parts, table["corpus"], table["seed"], strict=True)) <= cells:
        return "holds a cell that its parameters do not"
    if table.duplicated(list(KEYS)).any():
        return "holds a measurement twice"
    if table[[*KEYS, "threshold", "value"]].isna().any().any():
        return "lacks a value"
    return ""
