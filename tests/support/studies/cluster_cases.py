"""A study for tests of executors, in a file that their processes can import: it computes, dies and dawdles as it is told."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from recurrent_lm.lm import InputError
from recurrent_lm.studies.engine.parameters import whole, wholes
from recurrent_lm.studies.engine.study import Sweep


@dataclass(frozen=True)
class Cases(Sweep):
    """Sums of random products. What happens once leaves a file in ``notes``, as does each measuring."""

    numbers: tuple[int, ...] = wholes(1, 2, 3, 4, low=0, high=1_000)
    notes: str = ""
    deadly: int = whole(-1, -1, 1_000)  # the cell that kills its process
    deaths: int = whole(1, 0, 1_000)  # so many times
    after: int = whole(0, 0, 1_000)  # and only when so many cells are stored in ``base``
    base: str = ""
    broken: int = whole(-1, -1, 1_000)
    slow: int = whole(-1, -1, 1_000)  # cells from this one on take longer than any test

    NAME: ClassVar = "cluster_cases"
    COLUMNS: ClassVar = {"number": int, "round": int, "value": float, "threads": int}

    def cells(self) -> list[dict[str, Any]]:
        return [{"number": n} for n in self.numbers]

    def measure(self, cell: dict[str, Any]) -> list[dict[str, Any]]:
        number = cell["number"]
        note = Path(self.notes) / f"{number}-{os.getpid()}-{time.monotonic_ns()}"
        note.touch()
        if number == self.deadly and len(list(note.parent.glob(f"{number}-*"))) <= self.deaths:
            while len(list(Path(self.base).glob("cells/*.parquet"))) < self.after:
                time.sleep(0.02)
            os.kill(os.getpid(), signal.SIGKILL)
        if number == self.broken:
            raise InputError(f"number {number} is broken")
        if 0 <= self.slow <= number:
            time.sleep(3600)
        torch.manual_seed(number)
        product = torch.randn(64, 64) @ torch.randn(64, 64)
        rows = enumerate(product.sum(dim=1)[:3].tolist())
        return [{"number": number, "round": r, "value": abs(v), "threads": torch.get_num_threads()} for r, v in rows]

    def measured(self) -> list[tuple[int, int]]:
        """Each measuring that was begun: its number and process."""
        parts = (path.name.split("-") for path in sorted(Path(self.notes).iterdir()))
        return sorted((int(number), int(process)) for number, process, _ in parts)
