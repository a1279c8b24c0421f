"""The control flow of a kernel: its blocks, the loops in which it polls, and the registers of products under way."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from recurrent_lm.kernels.bench.ptx.code.parse import Group, Immediate, Instruction, Kernel, Operand, Refused, Register, Symbol

GROUPS = 8  # of products under way that are told apart; more are one


def block_starts(kernel: Kernel) -> list[int]:
    """Indices of the instructions that begin a block: labels, and the instructions after a branch."""
    starts = {0, *kernel.labels.values()}
    starts |= {i + 1 for i, ins in enumerate(kernel.instructions) if ins.parts[0] in ("bra", "ret")}
    return sorted(i for i in starts if i < len(kernel.instructions))


def target(kernel: Kernel, branch: Instruction) -> int:
    """The index of the instruction that a branch jumps to."""
    (label,) = branch.operands
    if not isinstance(label, Symbol) or label.name not in kernel.labels:
        raise Refused(f"line {branch.line}: a branch to {label}")
    return kernel.labels[label.name]


@dataclass(frozen=True)
class Poll:
    """A loop that waits for other programs: its instructions, and for each conditional branch that may leave it, by line,
    whether taking the branch leaves it.
    """

    instructions: list[Instruction]
    exits: dict[int, bool]


@dataclass(frozen=True)
class Flow:
    """The instructions of each block, in order, and the numbers of the blocks that may follow it."""

    bodies: list[list[Instruction]]
    after: list[list[int]]

    def loops(self) -> list[set[int]]:
        """The blocks of each innermost loop."""
        return list(_innermost(self.after, set(range(len(self.bodies)))))


def flow_of(kernel: Kernel) -> Flow:
    """The blocks of a kernel."""
    starts = block_starts(kernel)
    ends = [*starts[1:], len(kernel.instructions)]
    number = {start: block for block, start in enumerate(starts)}
    bodies = [kernel.instructions[a:b] for a, b in zip(starts, ends, strict=True)]
    after: list[list[int]] = []
    for block, body in enumerate(bodies):
        last = body[-1]
        to = [number[target(kernel, last)]] if last.parts[0] == "bra" and target(kernel, last) in number else []
        falls = last.guard is not None or last.parts[0] not in ("bra", "ret")
        after.append(to + ([block + 1] if falls and block + 1 < len(bodies) else []))
    return Flow(bodies, after)


def check_products(kernel: Kernel) -> None:
    """Refuse a kernel in which an instruction may use a register of a wgmma that is under way, on any path to it."""
    flow = flow_of(kernel)
    before: dict[int, list[set[str]]] = {0: []}  # the groups of registers under way where a block begins
    waiting = [0]
    while waiting:
        block = waiting.pop()
        groups = [set(group) for group in before[block]]
        for ins in flow.bodies[block]:
            used = {r.name for operand in ins.operands for r in _registers(operand)}
            if ins.parts[0] == "wgmma":
                groups = _product(ins, groups)
            elif any(used & group for group in groups):
                raise Refused(f"line {ins.line}: {ins.op} uses a register of a wgmma that is under way")
        groups = [set().union(*groups[:-GROUPS]), *groups[-GROUPS:]] if len(groups) > GROUPS else groups
        for to in flow.after[block]:
            known = before.get(to)
            size = max(len(known or []), len(groups))
            padded = [[set[str]()] * (size - len(part)) + part for part in (known or [], groups)]
            joined = [a | b for a, b in zip(*padded, strict=True)]
            if joined != known:
                before[to] = joined
                waiting.append(to)


def _product(ins: Instruction, groups: list[set[str]]) -> list[set[str]]:
    """The groups under way after an instruction of wgmma; the last one is not committed."""
    groups = groups or [set()]
    if ins.parts[1] == "commit_group":
        return [*groups, set()]
    if ins.parts[1] == "wait_group":
        (left,) = ins.operands
        assert isinstance(left, Immediate)
        return groups[max(0, len(groups) - 1 - left.bits) :]
    if ins.parts[1] == "mma_async":
        held = {r.name for operand in ins.operands[:2] for r in _registers(operand) if isinstance(operand, Group)}
        return [*groups[:-1], groups[-1] | held]  # a descriptor is read at once
    return groups


def _registers(operand: Operand) -> list[Register]:
    items = operand.items if isinstance(operand, Group) else (operand,)
    return [item for item in items if isinstance(item, Register)]


def polls(kernel: Kernel) -> list[Poll]:
    """The innermost loops that load data of other programs and store nothing to global memory."""
    flow = flow_of(kernel)
    number = {start: block for block, start in enumerate(block_starts(kernel))}
    loops = []
    for loop in flow.loops():
        inside = [ins for block in sorted(loop) for ins in flow.bodies[block]]
        looks = any(part in ins.parts for ins in inside for part in ("volatile", "acquire", "relaxed"))
        if looks and not any(ins.op.startswith("st.global") for ins in inside):
            exits = {}
            for block in loop:
                last = flow.bodies[block][-1]
                if last.parts[0] == "bra" and last.guard and any(to not in loop for to in flow.after[block]):
                    exits[last.line] = number[target(kernel, last)] not in loop
            loops.append(Poll(inside, exits))
    return loops


def _innermost(after: list[list[int]], nodes: set[int]) -> Iterator[set[int]]:
    """Cycles of blocks that contain no smaller cycle once their entry is removed."""
    order = sorted(nodes)
    place = {node: i for i, node in enumerate(order)}
    edges = [(place[a], place[b]) for a in order for b in after[a] if b in nodes]
    if not edges:
        return
    rows, columns = np.array(edges).T
    graph = csr_array((np.ones(len(edges)), (rows, columns)), shape=(len(order), len(order)))
    _, labels = connected_components(graph, directed=True, connection="strong")
    for label in np.unique(labels):
        cycle = {order[i] for i in np.flatnonzero(labels == label)}
        if len(cycle) == 1 and not any(node in after[node] for node in cycle):
            continue
        entered = {b for a in range(len(after)) if a not in cycle for b in after[a] if b in cycle}
        within = list(_innermost(after, cycle - (entered or {min(cycle)})))
        yield from within or [cycle]
