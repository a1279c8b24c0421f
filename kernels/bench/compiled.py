"""Compiles the scans for GPUs that are not present, and reports what the machine code contains; ``compiler`` runs it in a
process.

Pointers are declared with the alignment that they have at run time; otherwise another kernel would be compiled than the one
that runs.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from recurrent_lm.kernels.bench.compiler import machine_code
from recurrent_lm.kernels.bench.ptx.alone import Shape, of_a_step
from recurrent_lm.kernels.bench.ptx.code.parse import Refused, float_bits
from recurrent_lm.kernels.bench.ptx.counts import Total
from recurrent_lm.kernels.bench.walk import timed, walk
from recurrent_lm.kernels.rnn import plan as plans
from recurrent_lm.kernels.rnn import scan
from recurrent_lm.kernels.rnn.cells import CELLS

STEPS = 100
SPILLS = 4  # a step: two registers put aside and read back from the nearest cache, some 20 ns of a microsecond or more
POINTERS = {"float16": "*fp16", "bfloat16": "*bf16", "float32": "*fp32"}
SWITCHES: dict[str, dict[str, Any]] = {  # options of a caller, by direction; the first of each are those of training
    "none": {"forward": {}, "backward": {}},
    "inference": {"forward": {"SAVE": False, "KEEP_GATES": False}},
    "reset": {"forward": {"RESET": True}, "backward": {"RESET": True}},
    "recompute": {"forward": {"KEEP_GATES": False}, "backward": {"RECOMPUTE": True}},
    "clip value": {"backward": {"CLIP": "value"}},
    "clip norm": {"backward": {"CLIP": "norm"}},
    "trace": {"backward": {"TRACE": True}},
}
IN_FLOAT32 = ("p_dh", "p_dc", "p_dc_alone", "p_parts", "p_norms")


@dataclass(frozen=True)
class Configuration:
    """One kernel: the plan that ``plan.choose`` returns for these sizes, in one direction."""

    device: str
    cell: str
    batch: int
    hidden: int
    dtype: str
    strategy: str
    direction: str
    exchange: str = "sentinel"
    switch: str = "none"  # a key of ``SWITCHES``


@dataclass(frozen=True)
class Facts:
    """Facts about a compiled kernel. ``hmma``, ``loads`` and ``spills`` are counts in the machine code, ``stack`` is in bytes.

    ``spills`` are the accesses to spilled registers within the loop over time. A stack without any holds registers that are
    spilled outside that loop, once a launch, which costs nothing.
    """

    shared: int
    registers: int
    stack: int
    spills: int
    hmma: int
    hmma_planned: int
    loads: int  # of the neighbours' tiles
    loads_of_128_bits: int
    weight_tiles: int
    allocated_before_loop: int
    cycles: int = 0  # of a walk through a step (``walk``), as are the next three; stepwise: through a tile of K
    instructions: int = 0
    barriers: int = 0
    waited: int = 0
    wavefronts: int | None = None  # of shared memory, a step of one program and batch tile, all warps; None if not counted
    conflict_free: int | None = None  # that would remain without bank conflicts
    crowded: int | None = None  # cycles of the walk with all those wavefronts, one a cycle; None if not counted, and stepwise

    def faults(self, device: plans.Device, strategy: str) -> list[str]:
        """The faults of this kernel, as sentences; none for a kernel that may run."""
        wrong = {
            f"needs {self.shared} bytes of shared memory of {device.shared}": self.shared > device.shared,
            f"spills {self.spills} times a step, {self.stack} bytes": self.spills > SPILLS,
            f"{self.hmma} HMMA instead of {self.hmma_planned}": 0 < self.hmma_planned < self.hmma,
            "loads of the state are not all of 128 bits": self.loads_of_128_bits < self.loads,
            "no loads of the state were found": strategy == "cooperative" and self.loads == 0,
            "W is not all on chip before the loop": strategy != "stepwise" and self.allocated_before_loop < self.weight_tiles,
        }
        return [fault for fault, is_wrong in wrong.items() if is_wrong]


@dataclass(frozen=True)
class Compiled:
    """A kernel for one device: bytes of shared memory, registers and bytes of stack a thread, its machine code, and Triton's
    intermediate texts by name (``ttgir``, ``ptx``).
    """

    shared: int
    registers: int
    stack: int
    code: str
    asm: Any
    warps: int


def compile_for(
    device: str, kernel: Any, types: dict[str, str], constants: dict[str, Any], aligned: Iterable[str], options: dict[str, Any]
) -> Compiled:
    """Compile a Triton body.

    Args:
        device: a name in ``plan.DEVICES``.
        kernel: the body.
        types: of each argument, in order, as Triton writes them.
        constants: the values of those that are constexpr.
        aligned: arguments that are multiples of 16, as the launcher finds pointers from the allocator.
        options: launch options, such as ``num_warps``.

    Returns:
        The machine code, with its use of memory and registers.
    """
    at = {name: (index,) for index, name in enumerate(types)}
    attributes = {at[name]: [["tt.divisibility", 16]] for name in aligned}
    source = ASTSource(kernel, types, {at[name]: value for name, value in constants.items()}, attributes)
    binary: Any = triton.compile(source, target=GPUTarget("cuda", int(device.removeprefix("sm_")), 32), options=options)
    usage, code = (machine_code(binary.asm["cubin"], option) for option in ("-res-usage", "-sass"))
    match = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert match, usage
    return Compiled(binary.metadata.shared, int(match[1]), int(match[2]), code, binary.asm, binary.metadata.num_warps)


def compile_here(configuration: Configuration) -> Facts:
    """Compile a configuration in this process."""

    c, device = configuration, plans.DEVICES[configuration.device]
    plan = plans.choose(c.batch, STEPS, c.hidden, c.cell, c.dtype, device, c.strategy, c.exchange)
    tiles = plan.forward if c.direction == "forward" else plan.backward
    kernel: Any = scan.scan_forward if c.direction == "forward" else scan.scan_backward
    switches: dict[str, Any] = {"RESET": False, "RECOMPUTE": False, "CLIP": "none", "TRACE": False}
    switches["FIRST"] = int(c.strategy != "stepwise")
    if c.direction == "forward":
        switches = {"RESET": False, "SAVE": True, "KEEP_GATES": True}
    switches["PADDED"] = c.hidden != plan.hidden
    constants = scan.constants(c.cell, plan, tiles, c.dtype, "ieee", **switches | SWITCHES[c.switch][c.direction])
    options = {name: constants.pop(name) for name in ("num_warps", "num_stages", "enable_fp_fusion")}
    names = kernel.arg_names
    types = {name: POINTERS[c.dtype] if name.startswith("p_") else "i32" for name in names}
    types |= dict.fromkeys(IN_FLOAT32, "*fp32") | {"p_reset": "*u8", "p_arrivals": "*i32", "limit": "fp32"}
    integers = {"steps": 1 if c.strategy == "stepwise" else STEPS, "batch": c.batch}
    constants |= {name: 1 for name, value in integers.items() if value == 1}  # as the launcher has it
    types |= dict.fromkeys(constants, "constexpr")
    aligned = {name for name in names if name.startswith("p_") or integers.get(name, 1) % 16 == 0}
    compiled = compile_for(c.device, kernel, {name: types[name] for name in names}, constants, aligned, options)

    slots = CELLS[c.cell].slots
    k, columns = plan.product(c.direction, slots)
    pieces = -(-tiles.block_b // 16) * -(-columns // 8)
    inner = tiles.block_k if c.strategy == "stepwise" else k  # the stepwise loop over K is a loop in the machine code, too
    planned = -(-pieces // tiles.warps) * inner // 16
    if c.switch == "clip norm" and c.cell == "lstm" and c.strategy != "resident":  # of the clipped part, and of the other
        planned *= 2
    loads = re.findall(r"LDG\.E[.\w]*STRONG[.\w]*", compiled.code)
    if c.switch == "clip norm" or c.exchange == "counter":  # norms, and the counter, are loaded one number at a time on purpose
        loads = [load for load in loads if re.search(r"\.(U8|U16|64|128)\b", load)]
    if c.switch == "clip norm":  # norms of two neighbouring rows; without the switch the state's loads are counted in full
        loads = [load for load in loads if ".64" not in load]
    if tiles.parts > 1 and c.dtype == "float32":  # eight numbers a row and part of a sum are 8 bytes a thread
        loads = [load for load in loads if ".64" not in load]
    elif tiles.parts > 1 and c.switch != "clip norm":  # few numbers a thread of each part of a sum
        narrow = [load for load in loads if ".128" not in load]
        looks = 2 if c.exchange == "sentinel" else 1  # the first look, and those that repeat it
        for load in narrow[: looks * tiles.parts]:
            loads.remove(load)
    step = walk(compiled.code)
    memory, crowded = step_memory(c, plan, tiles, compiled, [name for name in names if name not in constants]), None
    if memory is not None and c.strategy != "stepwise":
        crowded = timed([i for _, i in step.path], memory.wavefronts).cycles
    return Facts(
        shared=compiled.shared,
        registers=compiled.registers,
        stack=compiled.stack,
        spills=spills_in_loops(compiled.code, depth=2),
        hmma=len(re.findall(r"\bHMMA\.", compiled.code)),
        hmma_planned=planned if plans.BYTES[c.dtype] == 2 else 0,
        loads=len(loads),
        loads_of_128_bits=sum(".128" in load for load in loads),
        weight_tiles=k // tiles.block_k,
        allocated_before_loop=held_before_loop(compiled.asm["ttgir"]),
        cycles=step.cycles,
        instructions=step.instructions,
        barriers=step.barriers,
        waited=step.waited,
        wavefronts=None if memory is None else round(memory.wavefronts),
        conflict_free=None if memory is None else round(memory.least),
        crowded=crowded,
    )


def step_memory(c: Configuration, plan: plans.Plan, tiles: plans.Tiles, compiled: Compiled, names: list[str]) -> Total | None:
    """The shared memory of a step of one program and batch tile; None for code that the PTX machine does not execute."""
    known = {"steps": STEPS, "batch": min(c.batch, tiles.block_b), "hidden": c.hidden, "limit": float_bits(1.0)}
    shape = Shape(plan.hidden // tiles.block_h, compiled.warps, compiled.shared)
    try:
        return of_a_step(compiled.asm["ptx"], shape, {name: known.get(name) for name in names})
    except Refused:
        return None


def held_before_loop(ttgir: str) -> int:
    """The number of tiles of W that are loaded before the first loop and put into shared memory or kept in registers there."""
    before, _, within = ttgir.partition("scf.for")
    tiles = re.findall(r"(%[\w.]+) = tt\.load ", before)
    return sum(f"local_alloc {tile} " in before or f"local_alloc {tile} " not in within for tile in tiles)


def spills_in_loops(code: str, depth: int) -> int:
    """Count loads and stores of spilled registers within at least ``depth`` nested loops of machine code.

    A loop is the code between a branch backwards and its target. The outermost loop of a scan goes over batch tiles, the second
    over time (stepwise, where a launch is one step: over tiles of K).
    """
    ends: dict[int, int] = {}
    spills = []
    for line in code.splitlines():
        at = re.match(r"\s*/\*([0-9a-f]{4,})\*/", line)
        if at is None:
            continue
        here = int(at[1], 16)
        jump = re.search(r"\bBRA(?:\.\w+)* .*?(0x[0-9a-f]+)", line)
        if jump and int(jump[1], 16) < here:
            start = int(jump[1], 16)
            ends[start] = max(here, ends.get(start, 0))
        if re.search(r"\b(STL|LDL)\b", line):
            spills.append(here)
    return sum(sum(start <= here <= end for start, end in ends.items()) >= depth for here in spills)
