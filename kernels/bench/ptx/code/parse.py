"""Parses PTX text, as Triton emits it, into a list of instructions; anything else is refused by name.

It accepts one entry a module, without functions, scopes of registers and tables of branches.
"""

import re
import struct
from dataclasses import dataclass, field

SKIPPED = (".loc", ".file", ".version", ".target", ".address_size", ".pragma", ".maxntid", ".reqntid", ".minnctapersm")


class Refused(Exception):
    """PTX that the machine does not execute; the message names it."""


@dataclass(frozen=True)
class Register:
    name: str  # without the percent sign, dots as underscores


@dataclass(frozen=True)
class Immediate:
    bits: int  # as written; negative numbers are two's complement of the operand's width


@dataclass(frozen=True)
class Special:
    name: str  # "tid.x"


@dataclass(frozen=True)
class Symbol:
    name: str  # of shared memory, a parameter or a label


@dataclass(frozen=True)
class Address:
    base: "Register | Symbol"
    offset: int


@dataclass(frozen=True)
class Group:
    items: tuple["Operand", ...]


Operand = Register | Immediate | Special | Symbol | Address | Group


@dataclass(frozen=True)
class Instruction:
    """``op`` is the opcode with its modifiers; ``guard`` a predicate's name, negated if ``unless``."""

    op: str
    operands: tuple[Operand, ...]
    guard: str | None = None
    unless: bool = False
    line: int = 0  # of the text

    @property
    def parts(self) -> list[str]:
        return self.op.split(".")


@dataclass
class Kernel:
    """An entry. ``labels`` are the indices of the instructions that follow them."""

    name: str = ""
    parameters: list[tuple[str, str]] = field(default_factory=list)  # type ("u64") and name
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    shared: list[str] = field(default_factory=list)  # names of external shared memory


WIDTHS = {"rs": 16, "r": 32, "f": 32, "rd": 64, "fd": 64, "p": 1}


def width(register: str) -> int:
    """Bits of a register, from the letters of its name, as the compiler chooses them."""
    return WIDTHS[register.rstrip("0123456789")]


def parse(text: str) -> Kernel:
    """Parse the one entry of a PTX module.

    Raises:
        Refused: for text that is not known.
    """
    kernel = Kernel()
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("//")[0].strip()
        if not line or line.startswith(SKIPPED):
            continue
        if not inside:
            inside = _header(kernel, line)
        elif line == "}":
            break
        elif line.startswith(".reg"):
            match = re.fullmatch(r"\.reg \.(\w+)\s+%(\w+)<\d+>;", line)
            if not match or WIDTHS.get(match[2]) != {"pred": 1}.get(match[1], int(re.sub(r"\D", "", match[1]) or 0)):
                raise Refused(f"line {number}: {line}")
        elif label := re.fullmatch(r"([$\w]+):", line):
            kernel.labels[label[1]] = len(kernel.instructions)
        else:
            if not line.endswith(";"):
                raise Refused(f"line {number}: {line}")
            for statement in line.split(";"):
                if statement.strip():
                    kernel.instructions.append(_instruction(statement.strip(), number))
    if not kernel.name:
        raise Refused("a module without an entry")
    return kernel


def _header(kernel: Kernel, line: str) -> bool:
    """Parse a line before the code; returns whether this line begins the code."""
    if match := re.match(r"\.visible \.entry (\w+)\(", line):
        if kernel.name:
            raise Refused("a second entry")
        kernel.name = match[1]
    elif match := re.match(r"\.param \.(\w+) (?:\.ptr \.global \.align \d+ )?(\w+),?$", line):
        kernel.parameters.append((match[1], match[2]))
    elif match := re.match(r"\.extern \.shared \.align \d+ \.b8 (\w+)\[\];", line):
        kernel.shared.append(match[1])
    elif line == "{":
        return True
    elif line != ")" and not line.startswith(
        (".section", ".b8", ".b32", ".b64", "}", ".global .align 1 .b8 ", ".extern .func")
    ):
        raise Refused(line)
    return False


def _instruction(text: str, line: int) -> Instruction:
    guard, unless = None, False
    if match := re.match(r"@(!?)%(\w+)\s+", text):
        guard, unless = match[2], bool(match[1])
        text = text[match.end() :]
    op, _, rest = text.partition(" ") if " " in text.replace("\t", " ") else (text, "", "")
    if "\t" in op:
        op, _, rest = text.partition("\t")
    try:
        operands = tuple(_operand(item) for item in _split(rest))
    except ValueError as error:
        raise Refused(f"line {line}: {text}: {error}") from None
    return Instruction(op, operands, guard, unless, line)


def _split(text: str) -> list[str]:
    """Split operands at commas outside of braces and brackets."""
    items, depth, begin = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in "{[") - (c in "}]")
        if c == "," and depth == 0:
            items.append(text[begin:i].strip())
            begin = i + 1
    items.append(text[begin:].strip())
    return [item for item in items if item]


def _operand(text: str) -> Operand:
    if text.startswith("{"):
        return Group(tuple(_operand(item) for item in _split(text[1:-1])))
    if text.startswith("["):
        base, _, offset = text[1:-1].partition("+")
        operand = _operand(base.strip())
        if not isinstance(operand, Register | Symbol):
            raise ValueError(f"address {text}")
        return Address(operand, int(offset.strip() or "0", 0))
    if text.startswith("%"):
        if re.fullmatch(r"%(?:rs|rd|r|fd|f|p)\d+", text):
            return Register(text[1:])
        if "|" in text:
            return Group(tuple(_operand(item) for item in text.split("|")))
        return Special(text[1:])
    if match := re.fullmatch(r"0[fF]([0-9A-Fa-f]{8})", text):
        return Immediate(int(match[1], 16))
    if match := re.fullmatch(r"0[dD]([0-9A-Fa-f]{16})", text):
        return Immediate(int(match[1], 16))
    if match := re.fullmatch(r"(-?(?:0[xX][0-9A-Fa-f]+|\d+))U?", text):
        return Immediate(int(match[1], 0))
    if re.fullmatch(r"[$A-Za-z_][\w$]*", text):
        return Symbol(text)
    raise ValueError(f"operand {text}")


def float_bits(value: float) -> int:
    """The bits of a float32."""
    return int(struct.unpack("<I", struct.pack("<f", value))[0])
