"""The instructions that the machine knows, each as Python code."""

import re

from recurrent_lm.kernels.bench.ptx.code.parse import Group, Immediate, Instruction, Refused, Register, Symbol, width
from recurrent_lm.kernels.bench.ptx.code.translate import BARRIER, BITS, CODES, WORDS, Translator, instruction

Match = re.Match[str]
INTEGER = "(u16|s16|b16|u32|s32|b32|u64|s64|b64)"
ORDERS = {"eq": "==", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
SIGNS = {"add": "+", "sub": "-", "mul": "*"}
NEGATED = {"ltu": ">=", "leu": ">", "gtu": "<=", "geu": "<"}  # true for NaN: the opposite comparison is false


# Integers and bits


@instruction(rf"(add|sub|mul\.lo|and|or|xor|min|max)\.{INTEGER}")
def binary(t: Translator, ins: Instruction, match: Match) -> None:
    code = CODES[match[2]]
    a, b = (t.read(operand, code) for operand in ins.operands[1:])
    if match[1] in ("min", "max"):
        t.write(ins.operands[0], f"{match[1]}imum({a}, {b})", code, ins)
    else:
        sign = {"add": "+", "sub": "-", "mul.lo": "*", "and": "&", "or": "|", "xor": "^"}[match[1]]
        t.write(ins.operands[0], f"{a} {sign} {b}", code, ins)


@instruction(r"(div|rem)\.(u16|s16|u32|s32|u64|s64)")
def quotient(t: Translator, ins: Instruction, match: Match) -> None:
    a, b = (t.read(operand, CODES[match[2]]) for operand in ins.operands[1:])
    t.write(ins.operands[0], f"{'quotient' if match[1] == 'div' else 'remainder'}({a}, {b})", CODES[match[2]], ins)


@instruction(r"mul\.hi\.(u32|s32)")
def upper_half(t: Translator, ins: Instruction, match: Match) -> None:
    code = CODES[match[1]]
    a, b = (f"{t.read(operand, code)}.astype({code[0]}8)" for operand in ins.operands[1:])
    t.write(ins.operands[0], f"({a} * {b} >> {code[0]}8.type(32)).astype({code})", code, ins)


@instruction(r"(min|max)\.(u16|s16)x2")
def pair(t: Translator, ins: Instruction, match: Match) -> None:
    a, b = (f"{t.read(operand, 'u4')}.view({CODES[match[2]]})" for operand in ins.operands[1:])
    t.write(ins.operands[0], f"{match[1]}imum({a}, {b}).view(u4)", "u4", ins)


@instruction(r"(and|or|xor)\.pred")
def predicates(t: Translator, ins: Instruction, match: Match) -> None:
    a, b = (t.read(operand, "p") for operand in ins.operands[1:])
    t.write(ins.operands[0], f"{a} {dict(zip(('and', 'or', 'xor'), '&|^', strict=True))[match[1]]} {b}", "p", ins)


@instruction(r"not\.(pred|b16|b32|b64)")
def complement(t: Translator, ins: Instruction, match: Match) -> None:
    t.write(ins.operands[0], f"~{t.read(ins.operands[1], CODES[match[1]])}", CODES[match[1]], ins)


@instruction(r"neg\.(s16|s32|s64)")
def negative(t: Translator, ins: Instruction, match: Match) -> None:
    t.write(ins.operands[0], f"-{t.read(ins.operands[1], CODES[match[1]])}", CODES[match[1]], ins)


@instruction(r"(mul|mad)\.wide\.(u16|s16|u32|s32)")
def wide(t: Translator, ins: Instruction, match: Match) -> None:
    code = CODES[match[2]]
    twice = f"{code[0]}{2 * int(code[1])}"
    a, b = (f"{t.read(operand, code)}.astype({twice})" for operand in ins.operands[1:3])
    product = f"{a} * {b}"
    if match[1] == "mad":
        product += f" + {t.read(ins.operands[3], twice)}"
    t.write(ins.operands[0], product, twice, ins)


@instruction(rf"mad\.lo\.{INTEGER}")
def multiply_add(t: Translator, ins: Instruction, match: Match) -> None:
    code = CODES[match[1]]
    a, b, c = (t.read(operand, code) for operand in ins.operands[1:])
    t.write(ins.operands[0], f"{a} * {b} + {c}", code, ins)


@instruction(rf"(shl|shr)\.{INTEGER}")
def shift(t: Translator, ins: Instruction, match: Match) -> None:
    code, by = CODES[match[2]], ins.operands[2]
    a = t.read(ins.operands[1], code)
    if isinstance(by, Immediate) and 0 <= by.bits < BITS[code]:
        t.write(ins.operands[0], f"{a} {'<<' if match[1] == 'shl' else '>>'} {t.constant(by.bits, code)}", code, ins)
    else:
        name = "shift_left" if match[1] == "shl" else "shift_right"
        t.write(ins.operands[0], f"{name}({a}, {t.read(by, 'u4')})", code, ins)


def number(operand: object) -> int:
    if not isinstance(operand, Immediate):
        raise Refused(f"{operand} that is not known in advance")
    return operand.bits


@instruction(r"bfe\.(u32|s32)")
def bit_field(t: Translator, ins: Instruction, match: Match) -> None:
    code = CODES[match[1]]
    position, length = number(ins.operands[2]), number(ins.operands[3])
    t.write(ins.operands[0], f"extract({t.read(ins.operands[1], code)}, {position}, {length})", code, ins)


@instruction(r"bfi\.b32")
def bit_insert(t: Translator, ins: Instruction, match: Match) -> None:
    a, into = (t.read(operand, "u4") for operand in ins.operands[1:3])
    t.write(ins.operands[0], f"insert({a}, {into}, {number(ins.operands[3])}, {number(ins.operands[4])})", "u4", ins)


@instruction(r"prmt\.b32")
def permute(t: Translator, ins: Instruction, match: Match) -> None:
    a, b = (t.read(operand, "u4") for operand in ins.operands[1:3])
    t.write(ins.operands[0], f"permute({a}, {b}, {number(ins.operands[3])})", "u4", ins)


@instruction(r"popc\.(b32|b64)")
def population(t: Translator, ins: Instruction, match: Match) -> None:
    t.write(ins.operands[0], f"ones({t.read(ins.operands[1], CODES[match[1]])})", "u4", ins)


# Comparisons and moves


@instruction(r"setp\.(eq|ne|lt|le|gt|ge|lo|ls|hi|hs|equ|neu|ltu|leu|gtu|geu|num|nan)\.(\w+)")
def compare(t: Translator, ins: Instruction, match: Match) -> None:
    order, kind = match[1], match[2]
    if kind in ("bf16x2", "f16x2"):
        targets = t.items(ins.operands[0])
        code = CODES[kind[:-2]]
        widen = "from_bf16" if code == "bf" else "from_f16"
        for i, target in enumerate(targets):
            half = "low16" if i == 0 else "high16"
            a, b = (f"{widen}({half}({t.read(operand, 'u4')}))" for operand in ins.operands[1:])
            t.write(target, _comparison(order, a, b, True), "p", ins)
        return
    if kind not in CODES or kind == "pred":
        raise Refused(f"comparison of {kind}")
    code = CODES[kind]
    a, b = (t.read(operand, code) for operand in ins.operands[1:])
    t.write(ins.operands[0], _comparison(order, a, b, code in ("f4", "bf", "f2")), "p", ins)


def _comparison(order: str, a: str, b: str, floating: bool) -> str:
    if order in ORDERS:
        return f"{a} {ORDERS[order]} {b}"
    if order in NEGATED:
        return f"~({a} {NEGATED[order]} {b})"
    if order == "neu" or (order == "ne" and not floating):
        return f"{a} != {b}"
    return {
        "ne": f"({a} < {b}) | ({a} > {b})",
        "equ": f"~(({a} < {b}) | ({a} > {b}))",
        "nan": f"isnan({a}) | isnan({b})",
        "num": f"~(isnan({a}) | isnan({b}))",
    }[order]


@instruction(r"selp\.(u16|s16|b16|u32|s32|b32|u64|s64|b64|f32)")
def select(t: Translator, ins: Instruction, match: Match) -> None:
    code = WORDS[BITS[CODES[match[1]]]]
    a, b = (t.read(operand, code) for operand in ins.operands[1:3])
    t.write(ins.operands[0], f"where({t.read(ins.operands[3], 'p')}, {a}, {b})", code, ins)


@instruction(r"mov\.(pred|u16|s16|b16|u32|s32|b32|f32|u64|s64|b64)")
def move(t: Translator, ins: Instruction, match: Match) -> None:
    code = WORDS[BITS[CODES[match[1]]]]
    to, source = ins.operands
    if isinstance(to, Group):
        if len(to.items) != 2 or code not in ("u4", "u8"):
            raise Refused("a vector of other than two halves")
        word, half = t.read(source, code), f"u{int(code[1]) // 2}"
        for i, item in enumerate(to.items):
            if item != Symbol("_"):
                t.write(item, f"{'high' if i else 'low'}{BITS[half]}({word})", half, ins)
    elif isinstance(source, Group):
        low, high = (t.read(item, f"u{int(code[1]) // 2}") for item in source.items)
        t.write(to, f"pack({low}, {high})", code, ins)
    else:
        t.write(to, t.read(source, code), code, ins)


@instruction(r"cvt\.([us](?:8|16|32|64))\.([us](?:8|16|32|64))")
def convert_integer(t: Translator, ins: Instruction, match: Match) -> None:
    to, source = CODES[match[1]], CODES[match[2]]
    operand = ins.operands[1]
    if isinstance(operand, Register) and width(operand.name) != BITS[source]:
        value = f"{operand.name}.astype({source})"
    else:
        value = t.read(operand, source)
    t.write(ins.operands[0], f"{value}.astype({to})", to, ins)


@instruction(r"cvt\.rn\.f32\.([us]32)|cvt\.f32\.(bf16|f16)")
def convert_to_float(t: Translator, ins: Instruction, match: Match) -> None:
    if match[1]:
        t.write(ins.operands[0], f"{t.read(ins.operands[1], CODES[match[1]])}.astype(f4)", "f4", ins)
    else:
        t.write(ins.operands[0], t.read(ins.operands[1], CODES[match[2]]), "f4", ins)


@instruction(r"cvt\.rn\.(bf16|f16)(x2)?\.f32")
def convert_to_half(t: Translator, ins: Instruction, match: Match) -> None:
    code = CODES[match[1]]
    if not match[2]:
        t.write(ins.operands[0], t.read(ins.operands[1], "f4"), code, ins)
        return
    narrow = "to_bf16" if code == "bf" else "to_f16"
    high, low = (f"{narrow}({t.read(operand, 'f4')})" for operand in ins.operands[1:])
    t.write(ins.operands[0], f"pack({low}, {high})", "u4", ins)


# Floating point


@instruction(r"(add|sub|mul)(?:\.rn)?(\.ftz)?\.f32")
def float_binary(t: Translator, ins: Instruction, match: Match) -> None:
    a, b = (t.read(operand, "f4") for operand in ins.operands[1:])
    if match[2]:
        a, b = f"flushed({a})", f"flushed({b})"
    result = f"{a} {SIGNS[match[1]]} {b}"
    t.write(ins.operands[0], f"flushed({result})" if match[2] else result, "f4", ins)


@instruction(r"fma\.rn(\.ftz)?\.f32")
def fused(t: Translator, ins: Instruction, match: Match) -> None:
    operands = [t.read(operand, "f4") for operand in ins.operands[1:]]
    if match[1]:
        operands = [f"flushed({operand})" for operand in operands]
    result = f"fma({', '.join(operands)})"
    t.write(ins.operands[0], f"flushed({result})" if match[1] else result, "f4", ins)


@instruction(r"(add|sub|mul)(?:\.rn)?\.(bf16|f16)(x2)?|fma\.rn\.(bf16|f16)(x2)?")
def of_halves(t: Translator, ins: Instruction, match: Match) -> None:
    """In float32, rounded once: exact for a sum or product, which has at most 24 bits; a fused one is off by its last place."""
    name, code, both = (match[2], match[1], match[3]) if match[2] else (match[4], "fma", match[5])
    operands = [t.read(operand, "u4" if both else "u2") for operand in ins.operands[1:]]

    def result(values: list[str]) -> str:
        wide = [f"from_{name}({value})" for value in values]
        total = "fma(" + ", ".join(wide) + ")" if code == "fma" else f" {SIGNS[code]} ".join(wide)
        return f"to_{name}({total})"

    if both:
        low, high = ([f"{half}({operand})" for operand in operands] for half in ("low16", "high16"))
        t.write(ins.operands[0], f"pack({result(low)}, {result(high)})", "u4", ins)
    else:
        t.write(ins.operands[0], result(operands), "u2", ins)


@instruction(r"(add|sub|fma)(?:\.rn)?\.f32\.(bf16|f16)")
def mixed(t: Translator, ins: Instruction, match: Match) -> None:
    """Halves widened and added to a float32 (doc; sm_100)."""
    *halves, last = ins.operands[1:]
    values = [t.read(operand, "bf" if match[2] == "bf16" else "f2") for operand in halves] + [t.read(last, "f4")]
    result = f"fma({', '.join(values)})" if match[1] == "fma" else f" {SIGNS[match[1]]} ".join(values)
    t.write(ins.operands[0], result, "f4", ins)


@instruction(r"(add|sub|mul|fma)(?:\.rn)?\.f32x2")
def pairs(t: Translator, ins: Instruction, match: Match) -> None:
    """Two float32 numbers in 64 bits each (doc; sm_100)."""
    values = [f"{t.read(operand, 'u8')}.view(f4)" for operand in ins.operands[1:]]
    result = f"fma({', '.join(values)})" if match[1] == "fma" else f" {SIGNS[match[1]]} ".join(values)
    t.write(ins.operands[0], f"({result}).view(u8)", "u8", ins)


@instruction(r"div\.(?:full|approx|rn)(?:\.ftz)?\.f32")
def divide(t: Translator, ins: Instruction, match: Match) -> None:
    a, b = (t.read(operand, "f4") for operand in ins.operands[1:])
    t.write(ins.operands[0], f"{a} / {b}", "f4", ins)


@instruction(r"(ex2|lg2|sqrt|rsqrt|rcp)\.(?:approx|rn)(?:\.ftz)?\.f32")
def special_function(t: Translator, ins: Instruction, match: Match) -> None:
    """Exact here; a GPU's units differ in some last places."""
    a = t.read(ins.operands[1], "f4")
    forms = {"ex2": f"exp2({a})", "lg2": f"log2({a})", "sqrt": f"sqrt({a})", "rsqrt": f"f32(k1065353216_u4) / sqrt({a})",
             "rcp": f"f32(k1065353216_u4) / {a}"}  # fmt: skip
    t.constant(0x3F800000, "u4")
    t.write(ins.operands[0], forms[match[1]], "f4", ins)


@instruction(r"(neg|abs)\.(f32|bf16|f16|bf16x2|f16x2)")
def sign(t: Translator, ins: Instruction, match: Match) -> None:
    masks = {"f32": ("u4", 0x80000000), "bf16": ("u2", 0x8000), "f16": ("u2", 0x8000)}
    code, mask = masks.get(match[2], ("u4", 0x80008000))
    a = t.read(ins.operands[1], code)
    if match[1] == "neg":
        t.write(ins.operands[0], f"{a} ^ {t.constant(mask, code)}", code, ins)
    else:
        t.write(ins.operands[0], f"{a} & {t.constant(~mask, code)}", code, ins)


@instruction(r"(min|max)(\.NaN)?\.f32")
def extreme(t: Translator, ins: Instruction, match: Match) -> None:
    """Of two numbers, or of three (doc; sm_100)."""
    name = f"{match[1]}imum" if match[2] else "smaller" if match[1] == "min" else "larger"
    result, *others = (t.read(operand, "f4") for operand in ins.operands[1:])
    for other in others:
        result = f"{name}({result}, {other})"
    t.write(ins.operands[0], result, "f4", ins)


# Control


@instruction(r"bra(?:\.uni)?")
def branch(t: Translator, ins: Instruction, match: Match) -> None:
    (target,) = ins.operands
    if not isinstance(target, Symbol) or target.name not in t.kernel.labels:
        raise Refused(f"a branch to {target}")
    number = t.blocks.get(t.kernel.labels[target.name])
    jump = "return" if number is None else f"at = {number}; continue"
    if ins.guard:
        t.emit(f"if w.decide({t.guard(ins)}, {ins.line}):")
        t.emit(f"    {jump}")
    else:
        t.emit(jump)


@instruction(r"ret")
def finish(t: Translator, ins: Instruction, match: Match) -> None:
    if ins.guard:
        t.emit(f"if w.decide({t.guard(ins)}, {ins.line}):")
        t.emit("    return")
    else:
        t.emit("return")


@instruction(r"bar\.warp\.sync")
def of_a_warp(t: Translator, ins: Instruction, match: Match) -> None:
    """Nothing to do: the lanes of a warp are in step."""
    t.emit(f"w.all_lanes({t.read(ins.operands[0], 'u4')}, {ins.line})")


@instruction(r"bar\.sync")
def barrier(t: Translator, ins: Instruction, match: Match) -> None:
    if ins.guard or len(ins.operands) != 1 or number(ins.operands[0]) != 0:
        raise Refused("a barrier that is not that of all threads")
    t.emit(f"yield {BARRIER}")


@instruction(r"shfl\.sync\.(bfly|idx|up|down)\.b32")
def shuffle(t: Translator, ins: Instruction, match: Match) -> None:
    value, by, clamp, mask = ins.operands[1:]
    if number(mask) & 0xFFFFFFFF != 0xFFFFFFFF or ins.guard:
        raise Refused("a shuffle of some lanes")
    t.write(ins.operands[0], f"shuffle({match[1]!r}, {t.read(value, 'u4')}, {t.read(by, 'u4')}, {number(clamp)})", "u4", ins)


@instruction(r"redux\.sync\.(add|min|max|and|or|xor)\.(s32|u32|b32)")
def reduction(t: Translator, ins: Instruction, match: Match) -> None:
    code = CODES[match[2]]
    t.emit(f"w.all_lanes({t.read(ins.operands[2], 'u4')}, {ins.line})")
    t.write(ins.operands[0], f"reduce({match[1]!r}, {t.read(ins.operands[1], code)})", code, ins)
