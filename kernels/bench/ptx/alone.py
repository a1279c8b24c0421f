"""Executes the first program of a kernel by itself, in memory of zeros, to count its wavefronts of shared memory.

Accesses to global memory read zeros and write nothing, so addresses need no buffers, and neither torch nor a driver is needed.
Loops that poll are left after one round. The numbers are garbage; shared memory's addresses do not depend on them.
"""

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recurrent_lm.kernels.bench.ptx.code.flow import flow_of, polls
from recurrent_lm.kernels.bench.ptx.code.parse import Kernel, parse
from recurrent_lm.kernels.bench.ptx.code.registers import Lanes
from recurrent_lm.kernels.bench.ptx.code.translate import BARRIER
from recurrent_lm.kernels.bench.ptx.counts import Total
from recurrent_lm.kernels.bench.ptx.execution import Machine
from recurrent_lm.kernels.bench.ptx.global_memory import BASE, UNSIGNED, Global, Viewer

APART = 1 << 36  # bytes from one argument's address to the next
ROUNDS = 4  # of a loop that are executed, unless there are fewer


class Zeros(Global):
    """Global memory that reads as zeros."""

    def __init__(self) -> None:
        super().__init__([], 1, 1, random.Random(0))

    def load(self, addresses: Lanes, size: int, count: int, *_: Any) -> NDArray[Any]:
        return np.zeros((count, len(addresses)), UNSIGNED[size])

    def store(self, *_: Any) -> None:
        pass

    def add(self, address: Lanes, value: Lanes, semantics: str, who: Viewer, line: int) -> Lanes:
        return np.zeros(len(address), "u4")


@dataclass(frozen=True)
class Shape:
    """What a launch fixes: its grid in x, warps a program, bytes of shared memory."""

    programs: int
    warps: int
    shared: int


def machine_of(kernel: Kernel, shape: Shape, arguments: dict[str, int | None]) -> Machine:
    """A machine with all warps of the first program in step.

    Args:
        kernel: the parsed entry.
        shape: of the launch.
        arguments: those of the entry, in order; None for a pointer.
    """
    values = [BASE + APART * i if value is None else value for i, value in enumerate(arguments.values())]
    values += [0] * (len(kernel.parameters) - len(values))  # of scratch memory, which no kernel here has

    def placed(_: list[int]) -> list[int]:
        return values

    machine = Machine(kernel, [], placed, (1, 1, 1), shape.warps, shape.shared, in_step=True, counting=True, memory=Zeros())
    machine.grid = shape.programs, 1, 1
    machine.forced = {line: taken for poll in polls(kernel) for line, taken in poll.exits.items()}
    return machine


def run(machine: Machine, stop: Callable[[list[int]], bool] = lambda entered: False) -> None:
    """Run the program until ``stop`` is true of how often each block was entered; asked at barriers and stores.

    Raises:
        Refused: for PTX that the machine does not know.
    """
    (gang,) = machine.gangs[0]
    with np.errstate(all="ignore"):
        for at in gang.generator:
            gang.barriers += at == BARRIER
            if stop(gang.entered):
                break


def of_a_step(ptx: str, shape: Shape, arguments: dict[str, int | None]) -> Total:
    """The counts of one step of a scan, without its first and what comes before the loop; of all if ``steps`` is fixed.

    Raises:
        Refused: for PTX that the machine does not know.
    """
    kernel, totals = parse(ptx), []
    for steps in (2, 3) if "steps" in arguments else (None,):
        machine = machine_of(kernel, shape, arguments | ({} if steps is None else {"steps": steps}))
        run(machine)
        totals.append(asdict(machine.counts.total()))
    return Total(**{name: many - (totals[0][name] if totals[1:] else 0.0) for name, many in totals[-1].items()})


def of_a_round(ptx: str, shape: Shape, arguments: dict[str, int | None]) -> Total:
    """The counts of a round of the largest innermost loop; of the whole program where there is no loop.

    Raises:
        Refused: for PTX that the machine does not know.
    """
    kernel = parse(ptx)
    machine, flow = machine_of(kernel, shape, arguments), flow_of(kernel)
    loop = max(flow.loops(), key=lambda blocks: sum(len(flow.bodies[block]) for block in blocks), default=set())
    run(machine, lambda entered: bool(loop) and max(entered[block] for block in loop) > ROUNDS)
    if not loop:
        return machine.counts.total()
    lines = {ins.line for block in loop for ins in flow.bodies[block]}
    (gang,) = machine.gangs[0]
    rounds = max(gang.entered[block] for block in loop)
    return Total(**{
        name: sum(count for line, count in by_line.items() if line in lines) / rounds
        for name, by_line in machine.counts.by_line.items()
    })  # fmt: skip
