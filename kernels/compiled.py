"""Compiles the scans for GPUs that are not there and says what came out: ``python -m kernels.compiled --help``.

Each compilation runs in a process of its own, because the compiler aborts on some inputs. Pointers are declared as aligned
as they are at run time; without that another kernel is compiled than the one that runs. Needs Triton, not torch.
"""

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kernels import plan as plans
from kernels.cells import CELLS

POINTERS = {"float16": "*fp16", "bfloat16": "*bf16", "float32": "*fp32"}
IN_FLOAT32 = ("p_dh", "p_dc", "p_dc_alone", "p_parts", "p_squares", "p_squares_after")


@dataclass(frozen=True)
class Configuration:
    """One kernel: what ``plan.choose`` gives for these sizes, in one direction."""

    device: str
    cell: str
    batch: int
    hidden: int
    dtype: str
    strategy: str
    direction: str
    exchange: str = "sentinel"
    clip: str = "none"


@dataclass(frozen=True)
class Facts:
    """What the compiler made of it. ``hmma`` and ``loads`` are counts in the machine code, ``stack`` is in bytes."""

    shared: int
    registers: int
    stack: int
    hmma: int
    hmma_planned: int
    loads: int  # of the neighbours' tiles
    loads_of_128_bits: int
    weight_tiles: int
    allocated_before_loop: int

    def faults(self, device: plans.Device, strategy: str) -> list[str]:
        """What is wrong with it; nothing for a kernel that may run."""
        wrong = {
            f"needs {self.shared} bytes of shared memory of {device.shared}": self.shared > device.shared,
            f"spills {self.stack} bytes": self.stack > 0,
            f"{self.hmma} HMMA instead of {self.hmma_planned}": 0 < self.hmma_planned < self.hmma,
            "loads of the state are not all of 128 bits": self.loads_of_128_bits < self.loads,
            "no loads of the state were found": strategy == "cooperative" and self.loads == 0,
            "W is not all on chip before the loop": strategy != "stepwise" and self.allocated_before_loop < self.weight_tiles,
        }
        return [fault for fault, is_wrong in wrong.items() if is_wrong]


def compile_here(configuration: Configuration) -> Facts:
    """Compile in this process."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from kernels import scan

    c, device = configuration, plans.DEVICES[configuration.device]
    plan = plans.choose(c.batch, 100, c.hidden, c.cell, c.dtype, device, c.strategy, c.exchange)
    tiles = plan.forward if c.direction == "forward" else plan.backward
    kernel: Any = scan.scan_forward if c.direction == "forward" else scan.scan_backward
    switches: dict[str, Any] = {"RESET": False, "RECOMPUTE": False, "CLIP": c.clip, "TRACE": False}
    if c.direction == "forward":
        switches = {"RESET": False, "SAVE": True, "KEEP_GATES": True}
    constants = scan.constants(c.cell, plan, tiles, c.dtype, "ieee", **switches)
    options = {name: constants.pop(name) for name in ("num_warps", "num_stages")}
    names = kernel.arg_names
    types = {name: POINTERS[c.dtype] if name.startswith("p_") else "i32" for name in names}
    types |= dict.fromkeys(IN_FLOAT32, "*fp32") | {"p_reset": "*u8", "p_arrivals": "*i32", "limit": "fp32"}
    types |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(
        kernel,
        {name: types[name] for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name.startswith("p_")},
    )
    target = GPUTarget("cuda", int(c.device.removeprefix("sm_")), 32)
    compiled: Any = triton.compile(source, target=target, options=options)

    slots = CELLS[c.cell].slots
    k, columns = plan.product(c.direction, slots)
    pieces = -(-tiles.block_b // 16) * -(-columns // 8)
    inner = tiles.block_k if c.strategy == "stepwise" else k  # the stepwise loop over K is a loop in the machine code, too
    planned = -(-pieces // max(1, tiles.warps // tiles.split)) * inner // 16 // tiles.split
    usage, code = _dump(compiled.asm["cubin"], "-res-usage"), _dump(compiled.asm["cubin"], "-sass")
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found, usage
    loads = re.findall(r"LDG\.E[.\w]*STRONG[.\w]*", code)
    if tiles.parts > 1 and c.dtype == "float32":  # eight numbers a row and part of a sum are 8 bytes a thread
        loads = [load for load in loads if ".64" not in load]
    ttgir = compiled.asm["ttgir"]
    return Facts(
        shared=compiled.metadata.shared,
        registers=int(found[1]),
        stack=int(found[2]),
        hmma=len(re.findall(r"\bHMMA\.", code)),
        hmma_planned=planned if plans.BYTES[c.dtype] == 2 else 0,
        loads=len(loads),
        loads_of_128_bits=sum(".128" in load for load in loads),
        weight_tiles=k // (tiles.block_k * tiles.split),
        allocated_before_loop=ttgir[: ttgir.index("scf.for")].count("ttg.local_alloc"),
    )


def _dump(cubin: bytes, what: str) -> str:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([tool, what, file.name], check=True, capture_output=True, text=True).stdout


def compile_apart(configuration: Configuration) -> Facts | str:
    """Compile in a process of its own; the last line of what it said where it failed."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "kernels.compiled", "--one", json.dumps(asdict(configuration))],
        env=environment | {"TRITON_DEFAULT_FP_FUSION": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return Facts(**json.loads(done.stdout.splitlines()[-1]))


def configurations(
    devices: list[str], cells: list[str], sizes: list[tuple[int, int]], dtypes: list[str]
) -> Iterator[Configuration]:
    """Both directions of every strategy that ``plan.py`` says fits."""
    for device in devices:
        for cell in cells:
            for batch, hidden in sizes:
                for dtype in dtypes:
                    found = plans.predict(batch, 100, hidden, cell, dtype, plans.DEVICES[device])
                    for strategy in plans.STRATEGIES:
                        if found[strategy].plan is not None:
                            for direction in ("forward", "backward"):
                                yield Configuration(device, cell, batch, hidden, dtype, strategy, direction)


def main() -> int:
    """Write the table; 1 if a kernel has a fault."""
    parser = argparse.ArgumentParser(prog="python -m kernels.compiled", description=__doc__.partition("\n")[0])
    parser.add_argument("--devices", nargs="+", default=list(plans.DEVICES), choices=list(plans.DEVICES))
    parser.add_argument("--cells", nargs="+", default=["rnn-tanh", "lstm", "gru"], choices=list(CELLS))
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"], choices=list(POINTERS))
    parser.add_argument("--sizes", nargs="+", default=["20x200", "16x768", "64x1024"], help="batch x hidden, such as 20x200")
    parser.add_argument("--out", type=Path, default=Path("reports/published/compile/kernels.csv"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(asdict(compile_here(Configuration(**json.loads(arguments.one))))))
        return 0
    import triton

    sizes = [(int(batch), int(hidden)) for batch, hidden in (size.split("x") for size in arguments.sizes)]
    rows = []
    for configuration in configurations(arguments.devices, arguments.cells, sizes, arguments.dtypes):
        facts = compile_apart(configuration)
        if isinstance(facts, str):
            faults, values = [facts], dict.fromkeys(Facts.__dataclass_fields__, "")
        else:
            faults, values = facts.faults(plans.DEVICES[configuration.device], configuration.strategy), asdict(facts)
        rows.append({"triton": triton.__version__} | asdict(configuration) | values | {"faults": "; ".join(faults)})
        print(*asdict(configuration).values(), "|", *values.values(), "|", rows[-1]["faults"] or "ok", flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return int(any(row["faults"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
