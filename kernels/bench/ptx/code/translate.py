"""Translates a kernel's PTX to a Python generator that runs it for some warps in step; its local variables are the registers.

Instructions are looked up in a table of patterns; an instruction without a pattern is refused by name.
"""

import re
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from recurrent_lm.kernels.bench.ptx.code import matrix
from recurrent_lm.kernels.bench.ptx.code import registers as values
from recurrent_lm.kernels.bench.ptx.code.flow import block_starts, check_products
from recurrent_lm.kernels.bench.ptx.code.parse import (
    Address,
    Group,
    Immediate,
    Instruction,
    Kernel,
    Operand,
    Refused,
    Register,
    Special,
    Symbol,
    width,
)
from recurrent_lm.kernels.bench.ptx.counts import kind_of
from recurrent_lm.kernels.bench.ptx.global_memory import SHARED

END, BARRIER, STEP = -2, -1, 0  # a generator's yields; a line's number: before it reads global memory
GARBAGE = 0xA5A5A5A5A5A5A5A5
WORDS = {1: "p", 16: "u2", 32: "u4", 64: "u8"}  # the type of a register with so many bits
CODES = {"pred": "p", "f16": "f2", "bf16": "bf", "f32": "f4"} | {
    f"{kind}{8 * size}": f"{'i' if kind == 's' else 'u'}{size}" for kind in "usb" for size in (1, 2, 4, 8)
}
BITS = {"p": 1, "bf": 16} | {f"{kind}{size}": 8 * size for kind in "uif" for size in (1, 2, 4, 8)}
Handler = Callable[["Translator", Instruction, "re.Match[str]"], None]
TABLE: list[tuple["re.Pattern[str]", Handler]] = []


def instruction(pattern: str) -> Callable[[Handler], Handler]:
    """Register a function that translates the opcodes that a pattern matches completely."""

    def add(handler: Handler) -> Handler:
        TABLE.append((re.compile(pattern), handler))
        return handler

    return add


@lru_cache(maxsize=4096)
def _lookup(op: str) -> tuple[Handler, "re.Match[str]"] | None:
    for pattern, handler in TABLE:
        if match := pattern.fullmatch(op):
            return handler, match
    return None


@dataclass
class Program:
    """``run(gang)`` is a generator; ``kinds`` counts the instructions of each block."""

    run: Callable[[Any], Generator[int, None, None]]
    blocks: int
    kinds: list[Counter[str]]
    opcodes: list[Counter[str]]
    spans: list[tuple[int, int]]  # of each block, the first and last line


@dataclass
class Translator:
    kernel: Kernel
    lines: list[str] = field(default_factory=list)
    constants: dict[str, tuple[int, str]] = field(default_factory=dict)
    specials: dict[str, str] = field(default_factory=dict)
    blocks: dict[int, int] = field(default_factory=dict)  # of the first instruction
    written: set[str] = field(default_factory=set)  # registers, up to here
    garbage: dict[str, str] = field(default_factory=dict)  # registers that are first written in some lanes only, or never

    def emit(self, line: str) -> None:
        self.lines.append("            " + line)

    def constant(self, bits: int, code: str) -> str:
        bits &= (1 << BITS[code]) - 1
        name = f"k{bits}_{code}"
        self.constants[name] = (bits, code)
        return name

    def read(self, operand: Operand, code: str) -> str:
        """An expression for an operand read as type ``code``: "p", "u4", "i4", "f4" ..., "bf" and "f2" widened to float32."""
        if isinstance(operand, Register):
            base = WORDS[width(operand.name)]
            if code == base:
                return operand.name
            if code in ("bf", "f2") and base == "u2":
                return f"{'from_bf16' if code == 'bf' else 'from_f16'}({operand.name})"
            if BITS[code] == BITS[base] and code not in ("bf", "f2"):
                return f"{operand.name}.view({code})"
            raise Refused(f"%{operand.name} as {code}")
        if isinstance(operand, Immediate):
            if code in ("bf", "f2"):
                return f"{'from_bf16' if code == 'bf' else 'from_f16'}({self.constant(operand.bits, 'u2')})"
            return self.constant(operand.bits, code)
        if isinstance(operand, Special) and code in ("u4", "i4"):
            name = "s_" + operand.name.replace(".", "_")
            self.specials[name] = operand.name
            return name if code == "u4" else f"{name}.view(i4)"
        if isinstance(operand, Symbol) and operand.name in self.kernel.shared:
            return self.constant(SHARED, code)
        raise Refused(f"operand {operand}")

    def write(self, operand: Operand, expression: str, code: str, ins: Instruction) -> None:
        """Assign an ``expression`` whose dtype is ``code``."""
        if not isinstance(operand, Register):
            raise Refused(f"line {ins.line}: {ins.op} into {operand}")
        base = WORDS[width(operand.name)]
        if code == "bf":
            expression = f"to_bf16({expression})"
        elif code == "f2":
            expression = f"to_f16({expression})"
        elif code != base:
            expression = f"({expression}).{'view' if BITS[code] == BITS[base] else 'astype'}({base})"
        if ins.guard:
            expression = f"where({self.guard(ins)}, {expression}, {operand.name})"
            if operand.name not in self.written:  # lanes without it hold garbage
                self.garbage[operand.name] = self.constant(GARBAGE, base)
        self.written.add(operand.name)
        self.emit(f"{operand.name} = {expression}")

    def guard(self, ins: Instruction) -> str:
        if ins.guard is None:
            return "None"
        return f"~{ins.guard}" if ins.unless else ins.guard

    def address(self, operand: Operand) -> str:
        if not isinstance(operand, Address):
            raise Refused(f"address {operand}")
        if isinstance(operand.base, Symbol):
            self.read(operand.base, "u4")
            return self.constant(SHARED + operand.offset, "u4")
        code = WORDS[width(operand.base.name)]
        return operand.base.name if operand.offset == 0 else f"({operand.base.name} + {self.constant(operand.offset, code)})"

    def items(self, operand: Operand) -> list[Operand]:
        return list(operand.items) if isinstance(operand, Group) else [operand]

    def source(self) -> str:
        check_products(self.kernel)
        self.blocks = {start: number for number, start in enumerate(block_starts(self.kernel))}
        instructions = self.kernel.instructions
        named = {r for ins in instructions for operand in ins.operands for r in self.items(operand) if isinstance(r, Register)}
        for register in named - {r for ins in instructions if ins.operands for r in self.items(ins.operands[0])}:
            self.garbage[register.name] = self.constant(GARBAGE, WORDS[width(register.name)])  # which nothing writes
        for index, ins in enumerate(instructions):
            if index in self.blocks:
                number = self.blocks[index]
                if number:
                    self.emit(f"at = {number}")
                self.lines.append(f"        if at == {number}:")
                self.emit(f"entered[{number}] += 1")
            entry = _lookup(ins.op)
            if entry is None:
                raise Refused(f"line {ins.line}: instruction {ins.op}")
            try:
                entry[0](self, ins, entry[1])
            except Refused as refused:
                raise Refused(f"line {ins.line}: {ins.op}: {refused}") from None
        self.emit("return")
        head = [
            "def run(w):",
            "    entered = w.entered",
            *(f"    {n} = w.special({name!r})" for n, name in self.specials.items()),
        ]
        head += [f"    {register} = {constant}" for register, constant in self.garbage.items()]
        return "\n".join([*head, "    at = 0", "    while True:", *self.lines])


@lru_cache(maxsize=64)
def _compiled(kernel: "Keyed") -> tuple[Any, dict[str, tuple[int, str]], Program]:
    translator = Translator(kernel.kernel)
    code = compile(translator.source(), f"<{kernel.kernel.name}>", "exec")
    instructions = kernel.kernel.instructions
    starts = sorted(translator.blocks)
    parts = [instructions[a:b] for a, b in zip(starts, [*starts[1:], len(instructions)], strict=True)]
    kinds = [Counter(map(kind_of, part)) for part in parts]
    opcodes = [Counter(ins.op for ins in part) for part in parts]
    spans = [(part[0].line, part[-1].line) for part in parts]
    return code, translator.constants, Program(lambda gang: iter(()), len(parts), kinds, opcodes, spans)  # type: ignore[arg-type,return-value]


class Keyed:
    """A kernel as a cache key: kernels are compared by identity."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def __hash__(self) -> int:
        return id(self.kernel)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Keyed) and self.kernel is other.kernel


def translate(kernel: Kernel, arguments: list[int], lanes: int) -> Program:
    """Translate a kernel.

    Args:
        kernel: the parsed entry.
        arguments: the values of its parameters, in the entry's order.
        lanes: how many lanes run in step.

    Returns:
        The program.

    Raises:
        Refused: for an instruction that is not known.
    """
    code, constants, program = _compiled(Keyed(kernel))
    space: dict[str, Any] = {name: getattr(values, name) for name in dir(values) if not name.startswith("_")}
    space["mma"] = matrix.mma
    space |= {name: np.dtype(name) for name in ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8")}
    space |= {
        name: getattr(np, name) for name in ("where", "minimum", "maximum", "isnan", "exp2", "log2", "sqrt", "trunc", "abs")
    }
    for name, (bits, kind) in constants.items():
        if kind == "p":
            space[name] = np.full(lanes, bool(bits))
        else:
            space[name] = np.full(lanes, bits, f"u{BITS[kind] // 8}").view(kind)
    if len(arguments) != len(kernel.parameters):
        raise ValueError(f"{kernel.name} has {len(kernel.parameters)} parameters, not {len(arguments)}")
    for (kind, name), value in zip(kernel.parameters, arguments, strict=True):
        size = int(kind[1:]) // 8
        space[f"parameter_{name}"] = np.full(lanes, value & ((1 << 8 * size) - 1), f"u{size}")
    exec(code, space)
    return Program(space["run"], program.blocks, program.kinds, program.opcodes, program.spans)


def granule(kernel: Kernel, space: str) -> int:
    """Bytes of the smallest store, at most 4."""
    sizes = [4]
    for ins in kernel.instructions:
        if ins.parts[0] == "st" and ins.parts[1].startswith(space):
            sizes.append(int(ins.parts[-1][1:]) // 8)
        elif ins.parts[0] == "stmatrix" and space == "shared":
            sizes.append(2)
    return min(sizes)
