"""Compiles the loss's bodies for GPUs that are not present, and reports what the machine code contains; ``compiler`` runs
it.
"""

import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from recurrent_lm.kernels.bench.compiled import SPILLS, compile_for, spills_in_loops
from recurrent_lm.kernels.bench.ptx.alone import Shape, of_a_round
from recurrent_lm.kernels.bench.ptx.code.parse import Refused
from recurrent_lm.kernels.bench.ptx.counts import Total
from recurrent_lm.kernels.bench.walk import around, innermost
from recurrent_lm.kernels.loss import plan as loss_plan
from recurrent_lm.kernels.loss import rows as loss_rows
from recurrent_lm.kernels.loss import tiles as loss_tiles
from recurrent_lm.kernels.rnn.plan import Device

SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "float64": "fp64"}
FUSION = {"enable_fp_fusion": True}
VECTORS = ("loss", "top", "top_out", "log_sum", "upstream", "tops", "totals", "chosens", "weighteds", "seens", "weight_total")
INTEGERS = {"target": "*i64", "best_out": "*i64", "bests": "*i32"}
ROWS = 8192  # N
IGNORED = -100 % 2**32
LEAST_WIDE_LOADS = {"rows_forward": 2, "rows_backward": 2, "tiles_forward": 4, "tiles_backward": 4}


@dataclass(frozen=True)
class Configuration:
    """One body at a size, without class weights, smoothing and argmax. ``d`` is 0 for bodies on logits."""

    device: str
    body: str  # rows_forward, rows_backward, tiles_forward, tiles_combine, tiles_backward
    v: int
    d: int
    dtype: str
    debug: bool = False


@dataclass(frozen=True)
class Facts:
    """Facts about a compiled body. ``stack`` is in bytes, ``spills`` are the accesses to it within loops; loads are counts in
    the machine code.
    """

    shared: int
    registers: int
    stack: int
    spills: int
    loads_of_128_bits: int
    loads_of_16_bits: int
    asserts: bool
    cycles: int = 0  # of a walk through the innermost loop (``walk``), as are the next two; 0 without a loop
    instructions: int = 0
    barriers: int = 0
    around: int = 0  # cycles of the loop around that one, without it; 0 if there is none
    wavefronts: int | None = None  # of shared memory, a round of that loop, all warps; without a loop of the program
    conflict_free: int | None = None  # that would remain without bank conflicts

    def faults(self, device: Device, body: str) -> list[str]:
        """The faults of this kernel, as sentences; none for a kernel that may run."""
        wide = LEAST_WIDE_LOADS.get(body, 0)
        wrong = {
            f"needs {self.shared} bytes of shared memory of {device.shared}": self.shared > device.shared,
            f"spills {self.spills} times a tile, {self.stack} bytes": self.spills > SPILLS,
            f"{self.loads_of_128_bits} loads of 128 bits instead of {wide}": self.loads_of_128_bits < wide,
            # only the logit of each row's class is loaded by itself
            f"{self.loads_of_16_bits} loads of 16 bits": body in LEAST_WIDE_LOADS and self.loads_of_16_bits > 1,
        }
        return [fault for fault, is_wrong in wrong.items() if is_wrong]


def compile_here(configuration: Configuration) -> Facts:
    """Compile a configuration in this process."""

    c = configuration
    function: Any = getattr(loss_rows if c.body.startswith("rows") else loss_tiles, c.body)
    fixed, options = _constants(c)
    fixed = {name: value for name, value in fixed.items() if name in function.arg_names}
    single = "fp64" if c.dtype == "float64" else "fp32"
    types, aligned = {}, []
    for name in function.arg_names:
        if name in fixed:
            types[name] = "constexpr"
        elif name in ("logits", "grad", "x", "w"):
            types[name] = "*" + SHORT[c.dtype]
        else:
            types[name] = "*" + single if name in VECTORS else INTEGERS.get(name, "i32")
        # pointers, and strides of rows where 16 divides V
        if types[name].startswith("*") or (name in ("row_stride", "grad_stride") and c.v % 16 == 0):
            aligned.append(name)
    compiled = compile_for(c.device, function, types, fixed, aligned, options | {"debug": c.debug})
    widths: Counter[str] = Counter()
    for modifiers in re.findall(r"\bLDG(?:STS)?((?:\.\w+)+)", compiled.code):
        width = [part for part in modifiers.split(".") if part in ("128", "64", "U16", "U8")]
        widths[width[0] if width else "32"] += 1
    step = innermost(compiled.code)
    numbers = {"n": ROWS, "last": ROWS, "right": c.v, "row_stride": c.v, "grad_stride": c.v, "ignore_index": IGNORED}
    passed = {
        name: None if kind.startswith("*") else numbers.get(name, 0) for name, kind in types.items() if kind != "constexpr"
    }
    memory: Total | None = None
    with suppress(Refused):  # its columns stay empty
        memory = of_a_round(compiled.asm["ptx"], Shape(1, compiled.warps, compiled.shared), passed)
    return Facts(
        shared=compiled.shared,
        registers=compiled.registers,
        stack=compiled.stack,
        spills=spills_in_loops(compiled.code, depth=1),
        loads_of_128_bits=widths["128"],
        loads_of_16_bits=widths["U16"],
        asserts="__assertfail" in compiled.asm["ptx"],
        cycles=step.cycles,
        instructions=step.instructions,
        barriers=step.barriers,
        around=around(compiled.code),
        wavefronts=None if memory is None else round(memory.wavefronts),
        conflict_free=None if memory is None else round(memory.least),
    )


def _constants(c: Configuration) -> tuple[dict[str, Any], dict[str, Any]]:
    """Constexprs and launch options, as ``kernels/loss/launch.py`` chooses them."""
    fixed: dict[str, Any] = {"V": c.v, "SMOOTHING": 0.0, "Z_LOSS": 0.0, "SOFTCAP": None, "FILTER_EPS": None, "kept": None}
    fixed |= {"weight": None, "weight_total": None, "upstream_lse": None, "best_out": None, "bests": None}
    fixed |= {"weighteds": None, "seens": None, "b": None}
    if c.body.startswith("rows"):
        rows = loss_plan.row_tiles(c.v)
        return fixed | {"ROWS": rows.rows, "BLOCK": rows.block}, {"num_warps": rows.warps, **FUSION}
    tile = loss_plan.tiles(c.d, c.dtype)
    span = loss_plan.column_range(ROWS, c.v, tile)
    sizes = {"BLOCK_N": tile.block_n, "BLOCK_V": tile.block_v, "BLOCK_D": tile.block_d, "D": c.d, "PRECISION": "ieee"}
    if c.body == "tiles_combine":
        return fixed | {"PARTS": -(-c.v // span), "BLOCK_N": 128}, {"num_warps": 4, **FUSION}
    return fixed | sizes | {"RANGE": span}, {"num_warps": tile.warps, "num_stages": tile.stages, **FUSION}
