"""Compiles one Triton body of the loss for a GPU that need not be there, and prints what it needs as JSON.

python compile_loss.py BODY CAPABILITY V D DTYPE [debug]     e.g. tiles_forward 90 32000 512 bfloat16
Run without TRITON_INTERPRET. Prints registers, stack (spilled bytes and all), shared (bytes), the widths of global loads, and
whether it can stop at an assertion.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels import loss_plan, loss_rows, loss_tiles

SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "float64": "fp64"}
BIN = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
FUSION = {"enable_fp_fusion": True}
VECTORS = ("loss", "top", "top_out", "log_sum", "upstream", "tops", "totals", "chosens", "weighteds", "seens", "weight_total")
INTEGERS = {"target": "*i64", "best_out": "*i64", "bests": "*i32"}


def constants(body: str, v: int, d: int, dtype: str) -> tuple[dict[str, Any], dict[str, int]]:
    """Constexprs and launch options, as ``loss_launch`` chooses them; no class weights, no smoothing, no argmax."""
    fixed: dict[str, Any] = {"V": v, "SMOOTHING": 0.0, "Z_LOSS": 0.0, "SOFTCAP": None}
    fixed |= {"weight": None, "weight_total": None, "upstream_lse": None, "best_out": None, "bests": None}
    fixed |= {"weighteds": None, "seens": None, "b": None}
    if body.startswith("rows"):
        rows = loss_plan.row_tiles(v)
        return fixed | {"ROWS": rows.rows, "BLOCK": rows.block}, {"num_warps": rows.warps, **FUSION}
    tile = loss_plan.tiles(d, dtype)
    span = loss_plan.column_range(8192, v, tile)
    sizes = {"BLOCK_N": tile.block_n, "BLOCK_V": tile.block_v, "BLOCK_D": tile.block_d, "D": d, "PRECISION": "ieee"}
    if body == "tiles_combine":
        return fixed | {"PARTS": -(-v // span), "BLOCK_N": 128}, {"num_warps": 4, **FUSION}
    return fixed | sizes | {"RANGE": span}, {"num_warps": tile.warps, "num_stages": tile.stages, **FUSION}


def build(body: str, capability: int, v: int, d: int, dtype: str, debug: bool) -> dict[str, Any]:
    function = getattr(loss_rows if body.startswith("rows") else loss_tiles, body)
    fixed, options = constants(body, v, d, dtype)
    fixed = {name: value for name, value in fixed.items() if name in function.arg_names}
    single = "fp64" if dtype == "float64" else "fp32"
    signature, aligned = {}, {}
    for index, name in enumerate(function.arg_names):
        if name in fixed:
            signature[name] = "constexpr"
        elif name in ("logits", "grad", "x", "w"):
            signature[name] = "*" + SHORT[dtype]
        elif name in VECTORS:
            signature[name] = "*" + single
        else:
            signature[name] = INTEGERS.get(name, "i32")
        # what the launcher sees: pointers from the allocator, and strides of rows where 16 divides V
        if signature[name].startswith("*") or (name in ("row_stride", "grad_stride") and v % 16 == 0):
            aligned[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(function, signature, fixed, aligned)
    done = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options | {"debug": debug})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(done.asm["cubin"])
        file.flush()
        usage = _tool("-res-usage", file.name)
        sass = _tool("-sass", file.name)
    numbers = {key: int(value) for key, value in re.findall(r"(REG|STACK):(\d+)", usage)}
    loads: Counter[str] = Counter()
    for modifiers in re.findall(r"\bLDG(?:STS)?((?:\.\w+)+)", sass):
        width = [part for part in modifiers.split(".") if part in ("128", "64", "U16", "U8")]
        loads[width[0] if width else "32"] += 1
    return {
        "registers": numbers["REG"],
        "stack": numbers["STACK"],
        "shared": done.metadata.shared,
        "loads": loads,
        "asserts": "__assertfail" in done.asm["ptx"],
    }


def _tool(option: str, path: str) -> str:
    return subprocess.run([str(BIN / "cuobjdump"), option, path], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    name, capability, v, d, dtype, *debug = sys.argv[1:]
    print(json.dumps(build(name, int(capability), int(v), int(d), dtype, debug == ["debug"])))
