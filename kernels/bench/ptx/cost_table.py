"""The cost of a step of every kernel that the planner returns at typical sizes, and of the losses' kernels, as a table.

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
from recurrent_lm.kernels.bench.ptx.cost import Body, Loss, Step, bodies_of, steps_of
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


def row(what: Layer | Loss, kernel: str, cost: Step | Body) -> dict[str, Any]:
    """A row of the table; its numbers are those of ``Step`` or ``Body``, of a loss for one program and not a step."""
    cells: dict[str, Any] = {"triton": version("triton")}
    if isinstance(what, Layer):
        cells |= {name: getattr(what, name) for name in LAYER}
    else:
        sizes = {"batch": what.rows, "hidden": what.features, "dtype": what.dtype, "plan": "", "exchange": ""}
        cells |= {"device": what.device, "cell": "loss"} | sizes
    cells |= {"kernel": kernel, "programs": cost.grid[0] * cost.grid[1], "warps": cost.warps, "cycles": cost.cycles}
    cells |= {"crowded": "", "barriers_a_look": ""}
    if isinstance(cost, Step):
        cells |= {"crowded": cost.crowded, "barriers_a_look": cost.look}
    memory = cost.memory
    cells |= {"barriers": cost.barriers, "spills": cost.spills} | asdict(memory)
    cells["conflicts"] = round(memory.wavefronts / memory.least, 3) if memory.least else ""
    return cells | {kind: cost.instructions.get(kind, 0) for kind in KIND_COLUMNS}


def rows(devices: list[str]) -> Iterator[dict[str, Any]]:
    """All rows of the table."""
    for device in devices:
        for dtype in ("bfloat16", "float32"):
            loss = Loss(device, dtype)
            for kernel, body in bodies_of(loss).items():
                yield row(loss, kernel, body)
    for layer in layers(devices):
        for kernel, step in steps_of(layer).items():
            yield row(layer, kernel, step)


def write(path: Path, devices: list[str]) -> int:
    """Write the table, row by row; returns the number of rows."""
    count = 0
    with path.open("w", newline="") as file:
        writer: csv.DictWriter[str] | None = None
        for cells in rows(devices):
            if writer is None:
                writer = csv.DictWriter(file, list(cells), lineterminator="\n")
                writer.writeheader()
            writer.writerow(cells)
            file.flush()
            count += 1
    return count
