"""Compiles the exchange alone for a GPU that need not be there and prints what came out as JSON.

python compile_exchange.py CAPABILITY EXCHANGE PROGRAMS BYTES     e.g. 90 sentinel 132 65536; without TRITON_INTERPRET
"""

import json
import re
import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from recurrent_lm.kernels.bench.compiler import machine_code
from recurrent_lm.kernels.bench.exchange_only import WARPS, exchange_only, slices


def build(capability: int, exchange: str, programs: int, state: int) -> dict[str, Any]:
    sizes = slices(programs, state // 2, 2)
    fixed = {"SLICE": sizes.slice, "BLOCK": sizes.block, "COUNT": sizes.count, "EXCHANGE": exchange}
    types = {"p_h": "*fp16", "p_arrivals": "*i32"} | dict.fromkeys(fixed, "constexpr")
    names = exchange_only.arg_names
    aligned = [i for i, name in enumerate(names) if name.startswith("p_") or name == "elements"]
    source = ASTSource(
        exchange_only,
        {name: types.get(name, "i32") for name in names},
        fixed,
        {(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    options = {"num_warps": WARPS, "num_stages": 1, "launch_cooperative_grid": True, "enable_fp_fusion": True}
    compiled: Any = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    usage, code = machine_code(compiled.asm["cubin"], "-res-usage"), machine_code(compiled.asm["cubin"], "-sass")
    match = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert match, usage
    loads = re.findall(r"\bLDG\.E[.\w]*STRONG[.\w]*", code)
    return {
        "registers": int(match[1]),
        "stack": int(match[2]),
        "shared": compiled.metadata.shared,
        "loads": len(loads),
        "wide": sum(".128" in load for load in loads),
        "count": sizes.count,
        "arrivals": len(re.findall(r"\b(?:RED|ATOM)G?\b[.\w]*ADD", code)),
        "fences": len(re.findall(r"\bMEMBAR\b", code)),
        "cooperative": bool(compiled.metadata.launch_cooperative_grid),
    }


if __name__ == "__main__":
    capability, exchange, programs, state = sys.argv[1:]
    print(json.dumps(build(int(capability), exchange, int(programs), int(state))))
