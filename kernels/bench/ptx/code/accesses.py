"""Instructions of memory, copies and products, as calls of ``execution.Gang``."""

import re

from recurrent_lm.kernels.bench.ptx.code.instructions import number
from recurrent_lm.kernels.bench.ptx.code.parse import (
    Address,
    Group,
    Immediate,
    Instruction,
    Operand,
    Refused,
    Register,
    Symbol,
    width,
)
from recurrent_lm.kernels.bench.ptx.code.translate import STEP, WORDS, Translator, instruction

Match = re.Match[str]
VECTOR = r"(?:\.v([24]))?\.(b|u|s(?=32|64))(8|16|32|64)"


def _targets(t: Translator, ins: Instruction, operand: Operand, count: int, size: int, call: str) -> None:
    """Assign the result of a load, [lanes] a number; registers wider than the number are filled with zeros."""
    items = t.items(operand)
    if len(items) != count:
        raise Refused(f"{len(items)} registers for {count} numbers")
    t.emit(f"v = {call}")
    for i, item in enumerate(items):
        if not isinstance(item, Register):
            raise Refused(f"a load into {item}")
        t.write(item, f"v[{i}]", f"u{size}", ins)


@instruction(r"ld\.param\.([bus]32|[bus]64|f32)")
def parameter(t: Translator, ins: Instruction, match: Match) -> None:
    to, source = ins.operands
    if not isinstance(source, Address) or not isinstance(source.base, Symbol) or source.offset or not isinstance(to, Register):
        raise Refused(f"parameter {source}")
    kinds = {name: kind for kind, name in t.kernel.parameters}
    code = f"u{int(kinds[source.base.name][1:]) // 8}"
    name = f"parameter_{source.base.name}"
    if match[1][0] == "s" and WORDS[width(to.name)] != code:
        name, code = f"{name}.view(i{code[1]}).astype(i8)", "i8"
    t.write(to, name, code, ins)


@instruction(rf"ld(\.volatile)?\.global(?:\.(?:gpu|sys)\.(acquire|relaxed))?{VECTOR}")
def load_global(t: Translator, ins: Instruction, match: Match) -> None:
    kind = match[2] or ("volatile" if match[1] else "weak")
    count, size = int(match[3] or 1), int(match[5]) // 8
    if kind != "weak":
        t.emit(f"yield {ins.line}")
    call = f"w.load({ins.line}, {kind!r}, {size}, {count}, {t.address(ins.operands[1])}, {t.guard(ins)})"
    _targets(t, ins, ins.operands[0], count, size, call)


@instruction(rf"st\.global{VECTOR}")
def store_global(t: Translator, ins: Instruction, match: Match) -> None:
    count, size = int(match[1] or 1), int(match[3]) // 8
    t.emit(f"yield {STEP}")
    t.emit(f"w.store({ins.line}, {size}, {t.address(ins.operands[0])}, {_values(t, ins.operands[1], count)}, {t.guard(ins)})")


def _values(t: Translator, operand: Operand, count: int) -> str:
    items = t.items(operand)
    if len(items) != count:
        raise Refused(f"{len(items)} registers for {count} numbers")
    read = [t.read(item, WORDS[width(item.name)] if isinstance(item, Register) else "u4") for item in items]
    return f"[{', '.join(read)}]"


@instruction(r"(red|atom)\.global\.gpu\.(relaxed|acquire|release|acq_rel)\.add\.[us]32")
def atomic(t: Translator, ins: Instruction, match: Match) -> None:
    operands = ins.operands if match[1] == "red" else ins.operands[1:]
    waits = match[1] == "atom" and match[2] in ("acquire", "acq_rel")
    t.emit(f"yield {ins.line if waits else STEP}")
    call = f"w.atomic({ins.line}, {match[2]!r}, {t.address(operands[0])}, {t.read(operands[1], 'u4')}, {t.guard(ins)})"
    if match[1] == "red":
        t.emit(call)
    else:
        t.write(ins.operands[0], call, "u4", ins)


@instruction(rf"ld\.shared(?:::cta)?{VECTOR}")
def load_shared(t: Translator, ins: Instruction, match: Match) -> None:
    count, size = int(match[1] or 1), int(match[3]) // 8
    call = f"w.load_shared({ins.line}, {size}, {count}, {t.address(ins.operands[1])}, {t.guard(ins)})"
    _targets(t, ins, ins.operands[0], count, size, call)


@instruction(rf"st\.shared(?:::cta)?{VECTOR}")
def store_shared(t: Translator, ins: Instruction, match: Match) -> None:
    count, size = int(match[1] or 1), int(match[3]) // 8
    values = _values(t, ins.operands[1], count)
    t.emit(f"w.store_shared({ins.line}, {size}, {t.address(ins.operands[0])}, {values}, {t.guard(ins)})")


@instruction(r"ldmatrix\.sync\.aligned\.m8n8\.x([124])(\.trans)?\.shared\.b16")
def load_matrix(t: Translator, ins: Instruction, match: Match) -> None:
    _unguarded(ins)
    call = f"w.load_matrices({ins.line}, {match[1]}, {bool(match[2])}, {t.address(ins.operands[1])})"
    _targets(t, ins, ins.operands[0], int(match[1]), 4, call)


@instruction(r"stmatrix\.sync\.aligned\.m8n8\.x([124])(\.trans)?\.shared\.b16")
def store_matrix(t: Translator, ins: Instruction, match: Match) -> None:
    _unguarded(ins)
    values = _values(t, ins.operands[1], int(match[1]))
    t.emit(f"w.store_matrices({ins.line}, {bool(match[2])}, {t.address(ins.operands[0])}, {values})")


def _unguarded(ins: Instruction) -> None:
    if ins.guard:
        raise Refused("a guard on an instruction of whole warps")


@instruction(r"cp\.async\.(cg|ca)\.shared\.global")
def copy(t: Translator, ins: Instruction, match: Match) -> None:
    size = number(ins.operands[2])
    present = t.read(ins.operands[3], "u4") if len(ins.operands) > 3 else t.constant(size, "u4")
    to, source = t.address(ins.operands[0]), t.address(ins.operands[1])
    t.emit(f"w.copy({ins.line}, {to}, {source}, {size}, {present}, {t.guard(ins)})")


@instruction(r"cp\.async\.(commit_group|wait_group|wait_all)")
def copies(t: Translator, ins: Instruction, match: Match) -> None:
    _unguarded(ins)
    if match[1] == "commit_group":
        t.emit("w.commit_copies()")
    else:
        t.emit(f"w.wait_copies({ins.line}, {number(ins.operands[0]) if match[1] == 'wait_group' else None})")


@instruction(r"fence\.proxy\.async(?:\.shared::cta)?")
def fence(t: Translator, ins: Instruction, match: Match) -> None:
    _unguarded(ins)
    t.emit("w.fence()")


@instruction(r"mma\.sync\.aligned\.(?:m16n8k16\.row\.col\.f32\.(bf16|f16)\.\1|m16n8k8\.row\.col\.f32\.(tf32)\.tf32)\.f32")
def multiply(t: Translator, ins: Instruction, match: Match) -> None:
    _unguarded(ins)
    a, b, c = (_values(t, operand, count) for operand, count in zip(ins.operands[1:], (4, 2, 4), strict=True))
    _targets(t, ins, ins.operands[0], 4, 4, f"mma({a}, {b}, {c}, {match[1] or match[2]!r})")


@instruction(r"wgmma\.mma_async\.sync\.aligned\.m64n(\d+)k(16|8)\.f32\.(bf16|f16|tf32)\.\3")
def multiply_async(t: Translator, ins: Instruction, match: Match) -> None:
    _unguarded(ins)
    columns, kind = int(match[1]), match[3]
    if (match[2] == "8") != (kind == "tf32"):
        raise Refused("a product of that depth")
    d, a, b, keep, *flags = ins.operands
    scales, turned = [number(flag) for flag in flags[:2]], [number(flag) for flag in flags[2:]]
    in_registers = isinstance(a, Group)
    expected = 0 if kind == "tf32" else 1 if in_registers else 2
    if scales != [1, 1] or len(turned) != expected:
        raise Refused("operands of wgmma")
    turned_a, turned_b = ([0, *turned] if in_registers else turned) if expected else [0, 0]
    first = _values(t, a, 4) if in_registers else t.read(a, "u8")
    fresh = isinstance(keep, Immediate) and not keep.bits  # then the registers may be unwritten
    sums = f"[{', '.join([t.constant(0, 'u4')] * (columns // 2))}]" if fresh else _values(t, d, columns // 2)
    predicate = t.constant(keep.bits, "p") if isinstance(keep, Immediate) else t.read(keep, "p")
    call = (
        f"w.multiply({ins.line}, {kind!r}, {columns}, {first}, {t.read(b, 'u8')}, {sums}, {predicate}, "
        f"{bool(turned_a)}, {bool(turned_b)})"
    )
    _targets(t, ins, d, columns // 2, 4, call)


@instruction(r"wgmma\.(fence|commit_group|wait_group)\.sync\.aligned")
def products(t: Translator, ins: Instruction, match: Match) -> None:
    _unguarded(ins)
    if match[1] == "commit_group":
        t.emit("w.commit_products()")
    elif match[1] == "wait_group":
        left = number(ins.operands[0])
        t.emit(f"w.wait_products({left})")
