"""Run a layer's kernels on the PTX machine, or count the cost of a step.

``python -m recurrent_lm.kernels.bench.ptx run LSTM --hidden 512``
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"  # read when kernels are decorated

import torch

from recurrent_lm.kernels.bench.ptx.cases import Layer
from recurrent_lm.kernels.bench.ptx.code.parse import Refused
from recurrent_lm.kernels.bench.ptx.cost import steps_of
from recurrent_lm.kernels.bench.ptx.cost_table import write
from recurrent_lm.kernels.bench.ptx.global_memory import Fault
from recurrent_lm.kernels.bench.ptx.launch import Launch, execute
from recurrent_lm.kernels.rnn import plan as plans
from recurrent_lm.kernels.rnn.cells import CELLS

NAMES = {"LSTM": "lstm", "GRU": "gru", "RNN": "rnn-tanh"} | {cell: cell for cell in CELLS}
LONG = 100  # steps, as those of training


def main() -> int:
    """Returns 0 if all is right; 1 for errors above 1.5 times those of eager torch, or for a fault."""
    parser = argparse.ArgumentParser(prog="python -m recurrent_lm.kernels.bench.ptx", description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("run", "count", "table"))
    parser.add_argument("cell", nargs="?", default="LSTM", choices=list(NAMES))
    parser.add_argument("--out", type=Path, default=Path("costs.csv"), help="of table, which takes minutes")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3, help="of run")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--device", default="sm_90", choices=("sm_80", "sm_90"))
    parser.add_argument("--plan", choices=plans.STRATEGIES, help="without, the planner's choice for a long sequence")
    parser.add_argument("--exchange", default="sentinel", choices=plans.EXCHANGES)
    parser.add_argument("--reset", action="store_true", help="reset states at some steps")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order in which warps run and stores become visible")
    parser.add_argument("--apart", action="store_true", help="run each warp by itself; takes about five times as long")
    a = parser.parse_args()
    if a.what == "table":
        print(f"{write(a.out, ['sm_80', 'sm_90'])} kernels in {a.out}")
        return 0
    cell, device = NAMES[a.cell], plans.DEVICES[a.device]
    a.plan = a.plan or plans.choose(a.batch, LONG, a.hidden, cell, a.dtype, device, None, a.exchange).strategy
    fields = ("hidden", "batch", "steps", "dtype", "device", "plan", "exchange", "reset")
    layer = Layer(cell, **{name: getattr(a, name) for name in fields})
    return count(layer) if a.what == "count" else run(layer, a.seed, a.apart)


def run(layer: Layer, seed: int, apart: bool) -> int:
    """Run a layer and print its errors; returns 1 if one is too large."""
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = True  # filled with NaN, so that unwritten elements show
    torch.use_deterministic_algorithms(True)

    def one(launch: Launch) -> None:
        start = time.monotonic()
        execute(launch, seed, not apart)
        programs, seconds = launch.grid[0] * launch.grid[1], time.monotonic() - start
        print(f"{launch.name}: {programs} programs of {launch.warps} warps, {seconds:.1f} s", flush=True)

    try:
        errors, eager = layer.errors(one)
    except (Fault, Refused) as report:
        print(report)
        return 1
    names = ["output", "h", "c"][: 1 + CELLS[layer.cell].states]
    names += [f"d {name}" for name in ("input", "h", "c")[: 1 + CELLS[layer.cell].states]]
    names += ["d W_ih", "d W_hh", "d b_ih", "d b_hh"]
    print(f"{'':8} {'error':>9} {'of eager':>9}")
    for name, error, other in zip(names, errors, eager, strict=True):
        print(f"{name:8} {error:9.1e} {other:9.1e}")
    return int(any(not error <= max(1.5 * other, 1e-6) for error, other in zip(errors, eager, strict=True)))


def count(layer: Layer) -> int:
    """Print the cost of a step of a layer."""
    for name, step in steps_of(layer).items():
        rows: dict[str, Any] = {"programs": step.grid[0] * step.grid[1], "warps": step.warps, "barriers": step.barriers}
        rows |= {kind: number for kind, number in step.instructions.items() if kind != "barriers"}
        memory = step.memory
        rows |= {
            "shared wavefronts": memory.wavefronts,
            "without conflicts": memory.least,
            "of wgmma's operands": memory.operands,
        }
        rows |= {"sectors loaded": memory.loaded, "sectors stored": memory.stored}
        rows |= {"barriers a further look": step.look, "spills": step.spills}
        print(f"{name}, a step of one program (instructions of warps, barriers of each warp):")
        for row, number in rows.items():
            print(f"  {row:24} {number:10,.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
