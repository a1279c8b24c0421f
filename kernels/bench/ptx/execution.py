"""Runs all warps of all programs of a launch, in an order and at speeds that a seed decides.

A gang is a set of warps of one program that run in step: a single warp, or, for speed, all warps of the program. Its code is a
Python generator (``translate.py``) that yields at the points where other gangs may run: at barriers, before stores to global
memory, atomics and volatile loads.
"""

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recurrent_lm.kernels.bench.ptx.code import accesses as accesses  # fills the table of instructions
from recurrent_lm.kernels.bench.ptx.code import instructions as instructions
from recurrent_lm.kernels.bench.ptx.code import matrix
from recurrent_lm.kernels.bench.ptx.code.parse import Kernel, Refused
from recurrent_lm.kernels.bench.ptx.code.registers import Lanes, u2
from recurrent_lm.kernels.bench.ptx.code.translate import BARRIER, END, STEP, Program, granule, translate
from recurrent_lm.kernels.bench.ptx.counts import Counts
from recurrent_lm.kernels.bench.ptx.global_memory import UNSIGNED, Fault, Global, Viewer
from recurrent_lm.kernels.bench.ptx.shared_memory import Shared, first_lanes

PATIENCE = 40  # rounds without a change that count as a deadlock: a loop may count first


@dataclass
class Copy:
    """An unfinished cp.async: its destination, [numbers, lanes], and its owner."""

    index: NDArray[Any]
    data: NDArray[Any]
    words: NDArray[Any]
    bits: Any
    agents: NDArray[Any]


class Gang(Viewer):
    """Warps in step, with the functions that their code calls."""

    def __init__(self, machine: "Machine", program: int, first: int, warps: int) -> None:
        lanes = np.arange(32 * warps)
        start = program * machine.warps
        super().__init__(
            program,
            start + first + lanes // 32,
            1 << first if warps == 1 else 1 << (first + lanes // 32),
            np.zeros(machine.programs * machine.warps + 1, "i4"),
            fences=[],
            name=f"program {machine.place(program)}, warp {first}" + (f" to {first + warps - 1}" if warps > 1 else ""),
        )
        self.machine, self.memory, self.first, self.warps = machine, machine.memory, first, warps
        self.shared: Shared = machine.shared[program]
        self.thread = 32 * first + lanes
        self.entered = [0] * machine.code.blocks
        # by line of a polling load: whether it saw all stores, and the moment up to which it saw them
        self.looks: dict[int, tuple[bool, int]] = {}
        self.speed = machine.chance.choice((0.05, 0.3, 1.0, 1.0))
        self.copies: list[list[Copy]] = [[]]
        self.products: list[list[NDArray[Any]]] = [[]]
        self.generator: Generator[int, None, None] = machine.code.run(self)
        self.at_barrier = self.done = False
        self.stop = STEP

    def special(self, name: str) -> Lanes:
        kind, _, axis = name.partition(".")
        place, grid = self.machine.place(self.program), self.machine.grid
        if name == "tid.x":
            return self.thread.astype("u4")
        if kind in ("ctaid", "nctaid") and axis in ("x", "y", "z"):
            value = (place if kind == "ctaid" else grid)["xyz".index(axis)]
            return np.full(len(self.thread), value, "u4")
        if name in ("tid.y", "tid.z"):
            return np.zeros(len(self.thread), "u4")
        if name == "ntid.x":
            return np.full(len(self.thread), 32 * self.machine.warps, "u4")
        raise Refused(f"%{name}")

    def decide(self, predicate: NDArray[Any], line: int) -> bool:
        if line in self.machine.forced:
            return self.machine.forced[line]
        taken = bool(predicate[0])
        if (predicate != taken).any():
            raise Refused(f"line {line}, {self.name}: lanes that part at a branch")
        return taken

    def all_lanes(self, mask: Lanes, line: int) -> None:
        if (mask != np.uint32(0xFFFFFFFF)).any():
            raise Refused(f"line {line}: a reduction of some lanes")

    # Global memory

    def load(self, line: int, kind: str, size: int, count: int, address: Lanes, guard: NDArray[Any] | None) -> NDArray[Any]:
        if kind != "weak":
            newest = kind != "volatile"
            self.looks[line] = newest, self.memory.now if newest else int(self.clock[-1])
        if guard is None or guard.all():
            self.machine.counts.sectors(line, "loaded", address, size * count)
            return self.memory.load(address, size, count, kind, self, self.agents, line)
        self.machine.counts.sectors(line, "loaded", address, size * count, guard)
        values = np.zeros((count, len(address)), UNSIGNED[size])
        values[:, guard] = self.memory.load(address[guard], size, count, kind, self, self.agents[guard], line)
        return values

    def store(self, line: int, size: int, address: Lanes, values: list[Lanes], guard: NDArray[Any] | None) -> None:
        numbers, agents = np.array(values).astype(UNSIGNED[size], copy=False), self.agents
        self.machine.counts.sectors(line, "stored", address, size * len(values), guard)
        if guard is not None and not guard.all():
            address, numbers, agents = address[guard], numbers[:, guard], agents[guard]
        self.memory.store(address, numbers, size, self, agents, line)

    def atomic(self, line: int, semantics: str, address: Lanes, value: Lanes, guard: NDArray[Any] | None) -> Lanes:
        lanes = np.flatnonzero(guard) if guard is not None else np.arange(len(address))
        out = np.zeros(len(address), "u4")
        self.looks[line] = True, self.memory.now
        if len(lanes):
            out[lanes] = self.memory.add(address[lanes], value[lanes], semantics, self, line)
        return out

    # Shared memory

    def bits_of(self, guard: NDArray[Any]) -> Any:
        return self.bits if isinstance(self.bits, int) else self.bits[guard]

    def load_shared(self, line: int, size: int, count: int, address: Lanes, guard: NDArray[Any] | None) -> NDArray[Any]:
        self.machine.counts.wavefronts(line, address, size * count, guard)
        if guard is None or guard.all():
            return self.shared.load(address, size, count, self, self.bits, line)
        values = np.zeros((count, len(address)), UNSIGNED[size])
        values[:, guard] = self.shared.load(address[guard], size, count, self, self.bits_of(guard), line)
        return values

    def store_shared(self, line: int, size: int, address: Lanes, values: list[Lanes], guard: NDArray[Any] | None) -> None:
        self.machine.counts.wavefronts(line, address, size * len(values), guard)
        numbers = np.array(values).astype(UNSIGNED[size], copy=False)
        bits, agents = self.bits, self.agents
        if guard is not None and not guard.all():
            address, numbers = address[guard], np.ascontiguousarray(numbers[:, guard])
            bits, agents = self.bits_of(guard), agents[guard]
        if len(address):
            self.shared.store(address, numbers, size, self, bits, agents, line)

    def load_matrices(self, line: int, matrices: int, transposed: bool, address: Lanes) -> list[Lanes]:
        rows = first_lanes(address, matrices)
        self.machine.counts.rows(line, rows)
        at = self.shared.where(rows.reshape(-1), 16, self, line)
        index = self.shared.index(at, 2, 8)
        bits = self.bits if isinstance(self.bits, int) else np.repeat(self.bits[::32], 8 * matrices)
        words = self.shared.granules(self.shared.index(at, 4, 4), 4)
        self.shared.check_read(words, self.shared.spread(bits, 4), self, line)
        return matrix.matrices(self.shared.views[2][index].T.reshape(-1, matrices, 8, 8), transposed)

    def store_matrices(self, line: int, transposed: bool, address: Lanes, registers: list[Lanes]) -> None:
        rows = first_lanes(address, len(registers))
        self.machine.counts.rows(line, rows)
        values = matrix.rows_to_store(registers, transposed).reshape(-1, 8)
        owners = np.repeat(np.arange(0, len(self.thread), 32), 8 * len(registers))
        numbers = np.ascontiguousarray(values.T, u2)
        self.shared.store(rows.reshape(-1), numbers, 2, self, self.bits_of(owners), self.agents[owners], line)

    # Copies and products under way

    def copy(self, line: int, to: Lanes, source: Lanes, bytes: int, present: Lanes, guard: NDArray[Any] | None) -> None:
        """cp.async; ``present`` [lanes] bytes come from memory, the rest are zeros."""
        lanes = np.arange(len(to)) if guard is None else np.flatnonzero(guard)
        self.machine.counts.wavefronts(line, to, bytes, guard)
        if not len(lanes):
            return
        index = self.shared.index(self.shared.where(to[lanes], bytes, self, line), 4, bytes // 4)
        if not np.isin(present, (0, bytes)).all():
            raise Refused(f"line {line}: cp.async of part of its bytes")
        g = self.shared.granules(index, 4)
        bits = self.shared.spread(self.bits_of(lanes), 4)
        self.shared.check_write(g, None, bits, self, line)
        self.shared.fly(g)
        full = present[lanes] > 0
        data = np.zeros((bytes // 4, len(lanes)), "u4")
        self.machine.counts.sectors(line, "loaded", source[lanes][full], bytes)
        data[:, full] = self.memory.load(source[lanes][full], 4, bytes // 4, "weak", self, self.agents[lanes][full], line)
        self.copies[-1].append(Copy(index, data, g, bits, self.shared.spread(self.agents[lanes], 4)))

    def commit_copies(self) -> None:
        self.copies.append([])

    def wait_copies(self, line: int, left: int | None) -> None:
        """Finish all groups but the last ``left``; with None also copies that are not committed."""
        groups = self.copies if left is None else self.copies[: max(0, len(self.copies) - 1 - left)]
        for copy in (copy for group in groups for copy in group):
            self.shared.views[4][copy.index] = copy.data
            self.shared.land(copy.words, copy.bits, copy.agents, self)
        self.copies = self.copies[len(groups) :] or [[]]

    def fence(self) -> None:
        self.shared.fence(self)

    def multiply(
        self, line: int, kind: str, columns: int, a: list[Lanes] | Lanes, b: Lanes, d: list[Lanes],
        keep: NDArray[Any], turned_a: bool, turned_b: bool,
    ) -> list[Lanes]:  # fmt: skip
        """wgmma, for each warp's 16 rows separately.

        Args:
            line: of the PTX.
            kind: dtype of the operands.
            columns: of B.
            a: registers of A, or its descriptor.
            b: the descriptor of B.
            d: registers of the sums.
            keep: whether d is added to the product.
            turned_a, turned_b: whether the operand is transposed in memory.

        Returns:
            The new registers of d.
        """
        size, k = (4, 8) if kind == "tf32" else (2, 16)
        reads, tops = [], []
        for warp in range(self.warps):
            lane = 32 * warp
            rows = 16 * ((self.first + warp) % 4)
            if isinstance(a, list):
                top = matrix.rows_of_a([r[lane : lane + 32] for r in a], kind)[0]
            else:
                at = self._described(int(a[lane]), 64, k, size, turned_a, line)[rows : rows + 16]
                reads.append((warp, at))
                top = matrix.widen(self.shared.views[size][at // size], kind)
            at = self._described(int(b[lane]), columns, k, size, turned_b, line)
            reads.append((warp, at))
            tops.append(top @ matrix.widen(self.shared.views[size][at // size], kind).T)
        for warp, at in reads:
            g = np.unique(at // self.shared.granule)
            self.shared.check_read(g, 1 << (self.first + warp), self, line)
            self.shared.check_fenced(g, self, self.machine.viewers, line)
            self.shared.flights[g] += 1
            self.products[-1].append(g)
        self.machine.counts.product(
            line, 0 if isinstance(a, list) else 16 * k * size * self.warps, columns * k * size * self.warps
        )
        sums = np.stack(tops)
        if self.decide(keep, line):
            sums = sums + matrix.sums_of(d)
        return matrix.registers_of(sums)

    def _described(self, descriptor: int, rows: int, k: int, size: int, turned: bool, line: int) -> NDArray[Any]:
        try:
            return self.shared.where(matrix.described(descriptor, rows, k, size, turned), size, self, line)
        except ValueError as error:
            raise Refused(f"line {line}: {error}") from None

    def commit_products(self) -> None:
        self.products.append([])

    def wait_products(self, left: int) -> None:
        done = max(0, len(self.products) - 1 - left)
        for group in self.products[:done]:
            for g in group:
                self.shared.flights[g] -= 1
        self.products = self.products[done:]


class Machine:
    """One launch of a kernel.

    Args:
        arguments: integers, addresses among them as ``Global`` places them once ``buffers`` are known, in the entry's order.
        in_step: whether all warps of a program are one gang; fast, but races between warps are not found.
        ordered: whether volatile loads must be ordered, too; None: if the kernel has atomics.
        memory: in place of global memory that holds the buffers.
    """

    def __init__(
        self, kernel: Kernel, buffers: list[NDArray[Any]], arguments: Callable[[list[int]], list[int]],
        grid: tuple[int, int, int], warps: int, shared: int, seed: int = 0, in_step: bool = False, counting: bool = False,
        ordered: bool | None = None, memory: Global | None = None,
    ) -> None:  # fmt: skip
        self.grid, self.warps, self.programs = grid, warps, grid[0] * grid[1] * grid[2]
        self.chance = random.Random(seed)
        words, of_shared = granule(kernel, "global"), granule(kernel, "shared")
        if ordered is None:
            ordered = any(ins.parts[0] in ("red", "atom") for ins in kernel.instructions)
        self.memory = memory or Global(buffers, words, self.programs, self.chance, ordered)
        proxied = any(ins.op.startswith("wgmma") for ins in kernel.instructions)
        self.shared = [Shared(shared, of_shared, proxied) for _ in range(self.programs)]
        self.counts = Counts(counting)
        self.forced: dict[int, bool] = {}  # outcomes of branches, by line, that replace their predicates
        self.code: Program = translate(kernel, arguments(self.memory.bases), 32 * (warps if in_step else 1))
        size = warps if in_step else 1
        self.gangs = [[Gang(self, p, first, size) for first in range(0, warps, size)] for p in range(self.programs)]
        self.viewers: dict[int, Viewer] = {int(a): gang for gangs in self.gangs for gang in gangs for a in gang.agents}

    def place(self, program: int) -> tuple[int, int, int]:
        x, y, _ = self.grid
        return program % x, program // x % y, program // (x * y)

    def run(self, at_once: int | None = None, programs: list[int] | None = None) -> None:
        """Run programs to their end in a random order.

        Args:
            at_once: the most programs that run at a time; None for all.
            programs: their numbers; None for all.

        Raises:
            Fault: for an error of the kernel.
        """
        waiting = list(range(self.programs)) if programs is None else list(programs)
        self.chance.shuffle(waiting)
        running: list[Gang] = []
        idle, rate = 0, self.chance.choice((0.02, 0.1, 0.5))
        with np.errstate(all="ignore"):
            while waiting or running:
                while waiting and (at_once is None or len({g.program for g in running}) < at_once):
                    running += self.gangs[waiting.pop()]
                ready = [g for g in running if not g.at_barrier and not self._parked(g)]
                behind = [] if ready else [g for g in running if not g.at_barrier and g.clock[-1] < self.memory.now]
                if behind and self.chance.random() < 0.7:
                    self._catch_up(self.chance.choice(behind))
                    continue
                if not ready and self.memory.waiting:
                    self.memory.some_arrive()
                    continue
                if not ready and not behind:
                    idle += 1
                    ready = [g for g in running if not g.at_barrier]
                    if not ready or idle > PATIENCE * len(running):
                        raise Fault(f"deadlock: {self._standing(running)}")
                else:
                    idle = 0
                for gang in self.chance.sample(ready, len(ready)):
                    if self.chance.random() < gang.speed or len(ready) == 1:
                        self._advance(gang)
                    if self.memory.waiting and self.chance.random() < rate:
                        self.memory.some_arrive()
                running = [g for g in running if not g.done]
        self.memory.all_arrive()

    def _catch_up(self, gang: Gang) -> None:
        """Let a gang see more of the stores of others."""
        clock = gang.clock.copy()
        clock[-1] = self.chance.randint(int(clock[-1]) + 1, self.memory.now)
        gang.clock = clock

    def _advance(self, gang: Gang) -> None:
        if gang.clock[-1] < self.memory.now and self.chance.random() < gang.speed / 4:
            self._catch_up(gang)
        stop = gang.stop = next(gang.generator, END)
        if stop == BARRIER:
            gang.at_barrier = True
            self._meet(self.gangs[gang.program])
        elif stop == END:
            gang.done = True
            others = [g for g in self.gangs[gang.program] if not g.done]
            if any(g.at_barrier for g in others):
                raise gang.fault(0, "a warp ends while others wait at a barrier")

    def _meet(self, gangs: list[Gang]) -> None:
        if not all(g.at_barrier for g in gangs):
            return
        clock = np.maximum.reduce([g.clock for g in gangs])
        for g in gangs:
            clock[g.agents] = np.maximum(clock[g.agents], g.epoch)
        for g in gangs:
            g.clock, g.at_barrier = clock, False
            g.epoch += 1
            g.barriers += 1

    def _parked(self, gang: Gang) -> bool:
        """Whether the gang would poll memory that has not changed since its last look."""
        look = gang.looks.get(gang.stop)
        return look is not None and look[1] == (self.memory.now if look[0] else gang.clock[-1])

    def _standing(self, running: list[Gang]) -> str:
        where = [f"{g.name} {'at a barrier' if g.at_barrier else f'looking at line {g.stop}'}" for g in running[:6]]
        return "; ".join(where) + (f"; and {len(running) - 6} more" if len(running) > 6 else "")
