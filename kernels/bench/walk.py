"""Cycles of one iteration of the loop over time, from machine code: stall counts, scoreboards and assumed latencies.

A warp issues in order. Each instruction of the machine code carries the number of cycles that the next one stalls, the
scoreboard that it sets until its result is ready, another until its operands are read, and those that it waits for first. One
warp goes from the head of the loop over time to its end, alone on its scheduler; an inner loop (a poll) is left at the first
opportunity, as if all polled values had arrived. Delays of the hardware are not in the code and assumed: ``LATENCY`` and
``INTERVAL``.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

LATENCY = {  # cycles until a result is ready, by opcode; the first prefix that fits
    "LDGSTS": 600, "LDG": 600, "LD.": 600, "ATOM": 600, "LDSM": 33, "LDS": 30, "STS": 30, "ST": 30, "SHFL": 24, "REDUX": 24,
    "RED": 600, "BAR": 20, "MUFU": 20, "S2R": 20, "S2UR": 20, "R2UR": 12, "HGMMA": 30, "MEMBAR": 600, "FENCE": 20, "LDC": 30,
    "ULDC": 12, "VOTE": 12, "IMAD": 8,
}  # fmt: skip
ENDS = ("BRA", "CALL", "EXIT", "RET")  # opcodes that end a block
SHARED = ("LDS", "STS", "LDSM", "STSM")  # opcodes that take wavefronts of shared memory
LEAST = 8  # instructions of a loop that does more than wait; every program ends with a branch to itself that nothing reaches
OTHER = 14  # cycles of opcodes that LATENCY lacks
READ = 12  # cycles until a store or load has read its registers


@dataclass(frozen=True)
class Instruction:
    """One line: its address, its operation and its control bits. ``target`` is that of a branch."""

    at: int
    op: str
    text: str
    predicated: bool
    target: int | None
    stall: int
    sets: int | None
    releases: int | None
    waits: tuple[int, ...]


@dataclass
class Walk:
    """``cycles`` in total, and ``waits``, the cycles waited by opcode; ``path``: each instruction with its time of issue.

    ``waited``: loads of this step from global memory whose results are waited for before the first poll is requested.
    """

    cycles: int
    instructions: int
    barriers: int = 0
    waited: int = 0
    waits: dict[str, int] = field(default_factory=dict)
    path: list[tuple[int, Instruction]] = field(default_factory=list)


def parse(code: str) -> list[Instruction]:
    """The instructions of ``cuobjdump -sass``, in order."""
    lines = [line for line in code.splitlines() if "/* 0x" in line]
    instructions = []
    for first, second in zip(lines[::2], lines[1::2], strict=True):
        at = re.match(r"\s*/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;", first)
        assert at, first
        control = int(re.findall(r"/\* (0x[0-9a-f]+) \*/", second)[0], 16) >> 41
        text = at[2]
        guard = re.match(r"@(!?\w+) ", text)
        body = text[guard.end() :] if guard else text
        jump = re.match(
            r"(?:BRA|CALL\.REL)\b.*?(0x[0-9a-f]+)", body
        )  # some compilers leave a loop by a call that never returns
        sets, releases = control >> 5 & 7, control >> 8 & 7
        instructions.append(
            Instruction(
                int(at[1], 16), body.split()[0], text, guard is not None,
                int(jump[1], 16) if jump else None, control & 15,
                sets if sets < 7 else None, releases if releases < 7 else None,
                tuple(i for i in range(6) if control >> 11 >> i & 1),
            )
        )  # fmt: skip
    return instructions


def blocks_of(code: list[Instruction]) -> tuple[dict[int, list[Instruction]], dict[int, list[int]]]:
    """Basic blocks by address, and the addresses of the blocks that may follow each."""
    starts = {code[0].at} | {i.target for i in code if i.target is not None}
    starts |= {code[n + 1].at for n, i in enumerate(code[:-1]) if i.op.split(".")[0] in ENDS}
    blocks: dict[int, list[Instruction]] = {}
    for i in code:
        if i.at in starts:
            blocks[i.at] = here = []
        here.append(i)
    order = sorted(blocks)
    follow = dict(pairwise(order))
    leads = {}
    for start, block in blocks.items():
        last = block[-1]
        kind = last.op.split(".")[0]
        conditional = last.predicated or (kind == "BRA" and re.search(r"BRA(\.\w+)* !?U?P\d", last.text) is not None)
        to = [last.target] if last.target is not None else []
        if (kind not in ENDS or conditional) and start in follow:
            to.insert(0, follow[start])
        leads[start] = to
    return blocks, leads


def components(nodes: set[int], leads: dict[int, list[int]]) -> list[set[int]]:
    """Strongly connected components that contain a cycle."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    circles = []

    def visit(n: int) -> None:
        index[n] = low[n] = len(index)
        stack.append(n)
        for m in leads[n]:
            if m not in nodes:
                continue
            if m not in index:
                visit(m)
                low[n] = min(low[n], low[m])
            elif m in stack:
                low[n] = min(low[n], index[m])
        if low[n] == index[n]:
            of = set(stack[stack.index(n) :])
            del stack[stack.index(n) :]
            if len(of) > 1 or n in leads[n]:
                circles.append(of)

    for n in sorted(nodes):
        if n not in index:
            visit(n)
    return circles


def head_of(loop: set[int], leads: dict[int, list[int]]) -> int:
    """The block through which a loop is entered."""
    entries = {m for n, to in leads.items() if n not in loop for m in to if m in loop}
    return min(entries or loop)


def size(nodes: set[int], blocks: dict[int, list[Instruction]]) -> int:
    """The number of instructions of some blocks."""
    return sum(len(blocks[n]) for n in nodes)


def path_of(loop: set[int], head: int, blocks: dict[int, list[Instruction]], leads: dict[int, list[int]]) -> list[int]:
    """Blocks from the head to the end of one iteration.

    An inner loop is left out if possible and otherwise passed once; between other branches the longer one is taken.
    """
    inner = {
        n: loop_
        for loop_ in components(loop - {head}, {n: [m for m in to if m != head] for n, to in leads.items()})
        for n in loop_
    }
    memo: dict[int, tuple[int, list[int]] | None] = {}

    def best(n: int, seen: frozenset[int]) -> tuple[int, list[int]] | None:
        if n in memo:
            return memo[n]
        if n in seen:
            return None
        choices = []
        out = [m for m in leads[n] if m == head or m in loop]
        within = inner.get(n)
        leaving = [m for m in out if m == head or inner.get(m) is not within] if within else [m for m in out if m not in inner]
        for m in leaving or out:
            rest = (0, []) if m == head else best(m, seen | {n})
            if rest is not None:
                choices.append(rest)
        if not choices:
            return None
        most = max(choices, key=lambda c: c[0])
        result = most[0] + len(blocks[n]), [n, *most[1]]
        memo[n] = result
        return result

    longest = best(head, frozenset())
    assert longest
    return longest[1]


def latency(op: str) -> int:
    """Assumed cycles until the result of an opcode is ready."""
    return next((cycles for name, cycles in LATENCY.items() if op.startswith(name)), OTHER)


def interval(op: str) -> int:
    """Cycles from one wgmma to the next: limited by its reads of shared memory, 128 bytes a cycle, or by 2048 products a
    cycle.
    """
    shape = re.search(r"64x(\d+)x(\d+)", op)
    assert shape, op
    columns, k = int(shape[1]), int(shape[2])
    size = 32 // k  # bytes of a number: a k is 32 bytes
    return int(max(16 + columns / 4, columns * size / 4))


def walk(code: str, depth: int = 2, wavefronts: float = 0.0) -> Walk:
    """One iteration of the loop over time in a kernel's machine code.

    Args:
        code: the output of ``cuobjdump -sass``.
        depth: the nesting level of the loop over time, from outside.
        wavefronts: as in ``timed``.

    Returns:
        Its cycles, with the path.
    """
    blocks, nests = nests_of(code, depth)
    assert len(nests) == depth, f"{len(nests)} loops"
    loop, head, leads = nests[-1]
    order = path_of(loop, head, blocks, leads)
    return timed([i for n in order for i in blocks[n]], wavefronts)


def innermost(code: str) -> Walk:
    """As ``walk``, of the innermost loop that does more than wait, the largest one at each level; of nothing without a loop."""
    return _of_nest(code, 1)


def around(code: str) -> int:
    """Cycles of a walk through the loop around ``innermost``'s, without one through that; 0 if there is none."""
    return max(0, _of_nest(code, 2).cycles - _of_nest(code, 1).cycles)


def _of_nest(code: str, outwards: int) -> Walk:
    blocks, nests = nests_of(code, 9)
    nests = [nest for nest in nests if size(nest[0], blocks) >= LEAST]
    if len(nests) < outwards:
        return Walk(0, 0)
    loop, head, leads = nests[-outwards]
    return timed([i for n in path_of(loop, head, blocks, leads) for i in blocks[n]])


Nest = tuple[set[int], int, dict[int, list[int]]]  # a loop's blocks, its head, and which block leads to which


def nests_of(code: str, depth: int) -> tuple[dict[int, list[Instruction]], list[Nest]]:
    """The blocks of some machine code and its largest loop, the largest loop in that, and so on, at most ``depth``."""
    blocks, leads = blocks_of(parse(code))
    nests: list[Nest] = []
    nodes = set(blocks)
    while len(nests) < depth and (loops := components(nodes, leads)):
        loop = max(loops, key=lambda of: size(of, blocks))
        head = head_of(loop, leads)
        nests.append((loop, head, leads))
        nodes, leads = loop, {n: [m for m in to if m in loop and m != head] for n, to in leads.items()}
    return blocks, nests


def waited_before_poll(path: list[Instruction]) -> int:
    """The number of global loads that are requested and waited for before the first load that polls; 0 without a poll."""
    first = next((n for n, i in enumerate(path) if i.op.startswith("LDG") and "STRONG" in i.op), 0)
    pending: dict[int, int] = defaultdict(int)
    waited = 0
    for i in path[:first]:
        waited += sum(pending.pop(board, 0) for board in i.waits)
        if i.op.startswith("LDG") and i.sets is not None:
            pending[i.sets] += 1
    return waited


def timed(path: list[Instruction], wavefronts: float = 0.0) -> Walk:
    """Cycles of a path that repeats: of its second iteration.

    Args:
        path: the instructions in order.
        wavefronts: of shared memory, of all warps on this path; one a cycle, spread evenly over its instructions.

    Returns:
        Its cycles, the waits and the times of issue.
    """
    shared = sum(i.op.startswith(SHARED) for i in path)
    each = wavefronts / shared if shared else 0.0
    now = products = pipe = 0.0
    pending: dict[int, list[tuple[float, str]]] = defaultdict(list)
    out = Walk(0, len(path), sum(i.op.startswith("BAR") for i in path), waited_before_poll(path))
    for _ in range(2):
        start, waits = now, defaultdict[str, float](float)
        shown = []
        for i in path:
            ready, awaited = now, ""
            for board in i.waits:
                for at, name in pending.pop(board, []):
                    if at > ready:
                        ready, awaited = at, name
            drain = re.search(r"DEPBAR\.LE (gsb0|SB(\d)), 0x([0-9a-f]+)", i.text)
            if drain and drain[2]:
                of = sorted(pending[int(drain[2])])
                for at, name in of[: max(0, len(of) - int(drain[3], 16))]:
                    if at > ready:
                        ready, awaited = at, name
            elif drain and products + latency("HGMMA") > ready:
                ready, awaited = products + latency("HGMMA"), "HGMMA"
            if awaited:
                waits[awaited] += ready - now
            now = ready
            shown.append((round(now - start), i))
            result = now
            if i.op.startswith("HGMMA"):
                products = max(products, now) + interval(i.op)
            if i.op.startswith(SHARED):
                result = pipe = max(pipe, now) + each
            if i.op.startswith("BAR"):
                waits["BAR"] += latency("BAR")
                now += latency("BAR")
            if i.sets is not None:
                pending[i.sets].append((result + latency(i.op), i.op))
            if i.releases is not None:
                pending[i.releases].append((result + READ, i.op + " read"))
            now += max(1, i.stall)
        out.cycles, out.path = round(now - start), shown
        out.waits = {name: round(cycles) for name, cycles in sorted(waits.items(), key=lambda item: -item[1])}
    return out
