"""Compiles the scan of a linear cell for GPUs that are not present; ``compiler`` runs it in a process."""

from dataclasses import dataclass
from typing import Any

import triton.language as tl

from recurrent_lm.kernels.bench.compiled import POINTERS, compile_for
from recurrent_lm.kernels.linear import blocks


@dataclass(frozen=True)
class Configuration:
    """One kernel in tiles of ``steps`` x ``units``; ``trace`` is of the backward pass."""

    device: str
    direction: str
    dtype: str
    hidden: int = 256
    reset: bool = False
    trace: bool = False
    steps: int = 64
    units: int = 32


@dataclass(frozen=True)
class Facts:
    """Bytes of shared memory, registers and bytes of spilled registers a thread, and exchanges between threads of a warp."""

    shared: int
    registers: int
    stack: int
    shuffles: int


def compile_here(configuration: Configuration) -> Facts:
    """Compile a configuration in this process."""
    c = configuration
    kernel: Any = blocks.linear_forward if c.direction == "forward" else blocks.linear_backward
    constants: dict[str, Any] = {
        "HIDDEN": c.hidden, "RESET": c.reset, "TRACE": c.trace, "ACC": tl.float32, "BLOCK_T": c.steps, "BLOCK_H": c.units,
    }  # fmt: skip
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    types = {name: POINTERS[c.dtype] if name.startswith("p_") else "i32" for name in kernel.arg_names}
    types |= {"p_reset": "*u8"} | ({"p_dh": "*fp32", "p_trace": "*fp32"} if c.direction == "backward" else {})
    types |= dict.fromkeys(constants, "constexpr")
    aligned = [name for name in types if name.startswith("p_")]
    options = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}
    compiled = compile_for(c.device, kernel, types, constants, aligned, options)
    return Facts(compiled.shared, compiled.registers, compiled.stack, compiled.code.count("SHFL"))
