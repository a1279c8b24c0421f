"""Cost of one training step: this project's trainer beside the usual torch.nn loop.

Both do the whole step (forward, loss, backward, norm clipping, SGD) on the same model, sizes and tokens. Variants take turns in
random order, so that changes in the machine's speed affect all alike; ratios are of neighbours in time.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from recurrent_lm.studies.engine.memory import check_memory, peak_bytes
from recurrent_lm.studies.engine.parameters import choice, whole
from recurrent_lm.studies.engine.study import Cell, Sweep
from recurrent_lm.studies.timing.measure import WallTimer, race
from recurrent_lm.studies.timing.peers import MODULES
from recurrent_lm.studies.timing.steps import PLAIN, Size, plain, trainer
from recurrent_lm.studies.training_step.claims import claims

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PRESETS", "Study", "claims", "grid"]

VARIANTS = (PLAIN, "lm float32", "lm bf16")


@dataclass(frozen=True)
class Study(Sweep):
    """Time and memory of a step of a language model on random tokens, on the CPU."""

    vocabulary: int = whole(10_000, 2, 1_000_000)
    hidden: int = whole(200, 1, 10_000)
    layers: int = whole(2, 1, 100)
    rows: int = whole(20, 1, 10_000)
    bptt: int = whole(35, 1, 10_000)
    cell: str = choice("lstm", *MODULES)
    rounds: int = whole(30, 1, 1_000)
    threads: int = whole(0, 0, 1_024)

    LATER: ClassVar = ("cell",)
    SAMPLES: ClassVar = (("variant",), "seconds")
    TIMED: ClassVar = True
    NAME: ClassVar[str] = "training_step"
    COLUMNS: ClassVar = {"variant": str, "round": int, "seconds": float, "peak_bytes": int}

    def prepare(self) -> None:
        check_memory(self._bytes(), "vocabulary, hidden, layers, rows or bptt")
        if self.threads:
            torch.set_num_threads(self.threads)

    def measure(self, cell: Cell) -> list[dict[str, Any]]:
        """One row for each variant and round: ``seconds``, and ``peak_bytes`` of tensors above parameters, gradients and
        optimizer state (measured once a variant). All variants are one cell, since they take turns.
        """
        size = self.size
        steps = dict(zip(VARIANTS, (plain(size), trainer(size, "float32"), trainer(size, "bf16")), strict=True))
        peaks = {name: peak_bytes(step) - _parameter_bytes(model) for name, (step, model) in steps.items()}
        timed = race({name: step for name, (step, _) in steps.items()}, WallTimer(least=0.0), self.rounds)
        return [{"variant": s.name, "round": s.round, "seconds": s.seconds, "peak_bytes": peaks[s.name]} for s in timed.samples]

    @property
    def size(self) -> Size:
        return Size(self.vocabulary, self.hidden, self.layers, self.rows, self.bptt, self.cell)

    def _bytes(self) -> int:
        """A lower bound of the memory: parameters and gradients of each variant, and the plain loop's logits twice."""
        tokens = self.rows * self.bptt
        held = len(VARIANTS) * 2 * self.size.parameters + 2 * tokens * self.vocabulary + 6 * tokens * self.layers * self.hidden
        return 4 * held


PRESETS = {
    "smoke": Study(vocabulary=100, hidden=8, layers=1, rows=2, bptt=4, rounds=3),
    "cpu": Study(),
    "cpu-long": Study(rounds=300),
}


def _parameter_bytes(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())


def grid(study: Study, table: "pd.DataFrame") -> dict[str, Any]:
    """The columns that identify a row, with their values; a table holds each combination once."""
    return {"variant": VARIANTS, "round": range(study.rounds)}
