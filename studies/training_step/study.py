"""Cost of one training step: this project's trainer beside the usual torch.nn loop.

Both do the whole step (forward, loss, backward, norm clipping, SGD) on the same model, sizes and tokens. Variants take turns in
random order, so that changes in the machine's speed affect all alike; ratios are of neighbours in time.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from recurrent_lm.studies.engine.claims import NOT, Claim
from recurrent_lm.studies.engine.memory import check_memory, peak_bytes
from recurrent_lm.studies.engine.parameters import whole
from recurrent_lm.studies.engine.statistics import UNDEFINED, decided, paired_ratio
from recurrent_lm.studies.engine.study import Cell, Sweep
from recurrent_lm.studies.timing.measure import WallTimer, race
from recurrent_lm.studies.timing.steps import Size, plain, trainer

if TYPE_CHECKING:
    import pandas as pd

PLAIN = "torch.nn loop"
VARIANTS = (PLAIN, "lm float32", "lm bf16")


@dataclass(frozen=True)
class Study(Sweep):
    """Time and memory of a step of an LSTM language model on random tokens, on the CPU."""

    vocabulary: int = whole(10_000, 2, 1_000_000)
    hidden: int = whole(200, 1, 10_000)
    layers: int = whole(2, 1, 100)
    rows: int = whole(20, 1, 10_000)
    bptt: int = whole(35, 1, 10_000)
    rounds: int = whole(30, 1, 1_000)
    threads: int = whole(0, 0, 1_024)

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
        return Size(self.vocabulary, self.hidden, self.layers, self.rows, self.bptt)

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


def claims(table: "pd.DataFrame") -> list[Claim]:
    """The trainer's three aims: as fast in float32, twice as fast in bf16, half the memory."""
    source, setting = "aim of the trainer", ", ".join(f"{k} {v}" for k, v in table.attrs["parameters"].items())
    seconds = table.pivot(index="round", columns="variant", values="seconds")
    halves = (
        "products of halves pay only where a processor multiplies them faster than float32, which lm train --precision auto "
        "measures before it takes them"
    )
    rows = []
    for variant, aim, why in (("lm float32", 1.0, ""), ("lm bf16", 2.0, halves)):
        both = seconds[[PLAIN, variant]].dropna()
        speed = paired_ratio(both[PLAIN], both[variant])
        measured = NOT if both.empty else UNDEFINED if math.isnan(speed.value) else str(speed)
        verdict = NOT if both.empty else decided(speed, low=aim)
        text = f"{variant} is at least {aim:g} times as fast as the {PLAIN}"
        rows.append(Claim(f"speed.{variant}", text, source, setting, f">= {aim:g}", measured, verdict, why))
    peaks = table.groupby("variant")["peak_bytes"].first()
    for variant in ("lm float32", "lm bf16"):
        measured, verdict = UNDEFINED, "ambiguous"
        if peaks[PLAIN] > 0 and peaks[variant] > 0:  # every step holds something
            share = peaks[variant] / peaks[PLAIN]
            measured = f"{share:.2f} ({peaks[variant] / 1e6:.1f} of {peaks[PLAIN] / 1e6:.1f} MB)"
            verdict = "holds" if share <= 0.5 else "fails"
        text = f"{variant} needs at most half the {PLAIN}'s peak of tensor memory"
        rows.append(Claim(f"memory.{variant}", text, source, setting, "<= 0.5", measured, verdict))
    return rows
