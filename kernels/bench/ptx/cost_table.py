"""The cost of a step of every kernel that the planner returns at typical sizes, as a table.

``python -m recurrent_lm.kernels.bench.ptx table``
"""

import csv
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from recurrent_lm.kernels.bench import sweep as compile_sweep
from recurrent_lm.kernels.bench.ptx.cases import Layer
from recurrent_lm.kernels.bench.ptx.cost import Step, steps_of
from recurrent_lm.kernels.bench.ptx.counts import KINDS

KIND_COLUMNS = sorted({*KINDS.values(), "float arithmetic", "integer"} - {"barriers"})
LAYER = ("device", "cell", "batch", "hidden", "dtype", "plan", "exchange")


def layers(devices: list[str], sizes: Any = compile_sweep.TYPICAL) -> Iterator[Layer]:
    """Resident and cooperative plans, by both exchanges, of the cells that the planner may choose."""
    for device in devices:
        for cell in compile_sweep.CHOSEN_CELLS:
            for dtype in ("bfloat16", "float32"):
                for batch, hidden in sizes:
                    for exchange in ("sentinel", "counter"):
                        for c in compile_sweep.configurations(device, cell, batch, hidden, dtype, exchange):
                            once = c.direction == "forward" and (c.strategy == "cooperative" or exchange == "sentinel")
                            if once and c.strategy != "stepwise":
                                yield Layer(cell, hidden, c.strategy, exchange, dtype, device, batch=batch)


def row(layer: Layer, kernel: str, step: Step) -> dict[str, Any]:
    """A row of the table; its numbers are those of ``Step``."""
    cells: dict[str, Any] = {"triton": version("triton")} | {name: getattr(layer, name) for name in LAYER}
    cells |= {"kernel": kernel, "programs": step.grid[0] * step.grid[1], "warps": step.warps, "barriers": step.barriers}
    cells |= {"barriers_a_look": step.look, "spills": step.spills} | asdict(step.memory)
    return cells | {kind: step.instructions.get(kind, 0) for kind in KIND_COLUMNS}


def write(path: Path, devices: list[str]) -> int:
    """Write the table, row by row; returns the number of rows."""
    count = 0
    with path.open("w", newline="") as file:
        writer: csv.DictWriter[str] | None = None
        for layer in layers(devices):
            for kernel, step in steps_of(layer).items():
                cells = row(layer, kernel, step)
                if writer is None:
                    writer = csv.DictWriter(file, list(cells), lineterminator="\n")
                    writer.writeheader()
                writer.writerow(cells)
                file.flush()
                count += 1
    return count
