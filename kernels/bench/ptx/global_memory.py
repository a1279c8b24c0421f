"""Global memory, with a check of every access.

A ``Viewer`` accesses it: some warps in step. Order is kept as vector clocks: a viewer's ``clock`` holds, for each warp of the
launch, the last of that warp's epochs that the viewer has synchronised with, and in its last place the moment up to which it
must see the stores of others. An epoch ends with a barrier or a release.

Global stores are delayed: each becomes visible to other programs at a moment of its own, in parts, in any order that the memory
model allows. A volatile load may see the value before the last one, until an acquire orders it. In a kernel without atomics its
data are their own flags, so it needs no order; in one with atomics it must be ordered as any other.
"""

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recurrent_lm.kernels.bench.ptx.code.registers import Lanes, u8

BASE = 1 << 40  # of global addresses
SHARED = 1 << 14  # of shared ones; swizzles of wgmma ask for a multiple of 1024
GUARD = 512  # bytes between buffers
UNSIGNED: dict[int, Any] = {1: np.dtype("u1"), 2: np.dtype("u2"), 4: np.dtype("u4"), 8: np.dtype("u8")}


class Fault(Exception):
    """An error of a kernel."""


@dataclass
class Viewer:
    """Warps in step. ``agents`` [lanes] are their numbers in the launch; ``bits`` are masks of their numbers in the program:
    one mask for a single warp, otherwise one for each lane.
    """

    program: int
    agents: NDArray[Any]
    bits: Any
    clock: NDArray[Any]  # never changed in place
    epoch: int = 1
    barriers: int = 0
    fences: list[tuple[int, int]] = field(default_factory=list)  # (tick, barriers passed)
    name: str = ""

    def fault(self, line: int, message: str) -> Fault:
        return Fault(f"line {line}, {self.name}: {message}")


@dataclass
class Store:
    """A store that others may not see yet; each array has one element for each stored number."""

    at: NDArray[Any]  # bytes from BASE
    values: NDArray[Any]
    agents: NDArray[Any]
    epoch: int
    clock: NDArray[Any]
    first: int
    last: int
    who: Viewer
    line: int


class Global:
    """Buffers in one array of bytes, each at a multiple of 256, with gaps that no access may touch.

    Args:
        granule: bytes of the smallest store.
        ordered: whether a volatile load must be ordered with the store that it sees.
    """

    def __init__(
        self, buffers: list[NDArray[Any]], granule: int, programs: int, chance: random.Random, ordered: bool = False
    ) -> None:
        self.bases, size = [], GUARD
        for buffer in buffers:
            self.bases.append(BASE + size)
            size += -(-(len(buffer) + GUARD) // 256) * 256
        self.data = np.zeros(size, "u1")
        self.allowed = np.zeros(size, bool)
        for base, buffer in zip(self.bases, buffers, strict=True):
            self.data[base - BASE : base - BASE + len(buffer)] = buffer
            self.allowed[base - BASE : base - BASE + len(buffer)] = True
        self.granule, self.chance, self.ordered = granule, chance, ordered
        self.views = {size: self.data.view(UNSIGNED[size]) for size in (1, 2, 4, 8)}
        self.words = self.data.view(UNSIGNED[granule])
        self.old = self.words.copy()
        n = len(self.words)
        self.tick, self.writer, self.written = np.zeros(n, "i4"), np.full(n, -1, "i4"), np.zeros(n, "i4")
        self.reader, self.read = np.full(n, -1, "i4"), np.zeros(n, "i4")
        self.pending: list[list[Store]] = [[] for _ in range(programs)]
        self.waiting = 0  # stores in ``pending``
        self.now = 0  # commits so far
        self.released: dict[int, NDArray[Any]] = {}

    def read_back(self, buffers: list[NDArray[Any]]) -> None:
        for base, buffer in zip(self.bases, buffers, strict=True):
            buffer[:] = self.data[base - BASE : base - BASE + len(buffer)]

    def where(self, addresses: Lanes, size: int, count: int, who: Viewer, line: int) -> NDArray[Any]:
        """The position of each lane's vector in ``data``, in bytes.

        Raises:
            Fault: if an address is out of bounds or misaligned.
        """
        at = (addresses - u8.type(BASE)).view("i8")
        vector = size * count
        if len(at) and (at.min() < 0 or at.max() + vector > len(self.data)):
            raise who.fault(line, "a global address far out of bounds")
        if (at & (vector - 1)).any():
            raise who.fault(line, f"a global address that is no multiple of {vector}")
        if not (self.allowed[at].all() and self.allowed[at + (vector - 1)].all()):
            bad = at[~(self.allowed[at] & self.allowed[at + (vector - 1)])][0]
            raise who.fault(line, f"global access out of bounds, {self._near(int(bad))}")
        return at

    def _near(self, at: int) -> str:
        index = max((i for i, base in enumerate(self.bases) if base - BASE <= at), default=0)
        return f"{at + BASE - self.bases[index]} bytes from the start of buffer {index}"

    def granules(self, index: NDArray[Any], size: int) -> NDArray[Any]:
        """The words of numbers of ``size`` bytes: [.., lanes], or lanes times the words of a number."""
        ratio = size // self.granule
        if ratio == 1:
            return index
        if ratio == 0:
            return index // (self.granule // size)
        return (index[..., None] * ratio + np.arange(ratio)).reshape(*index.shape[:-1], -1)

    def load(
        self, addresses: Lanes, size: int, count: int, kind: str, who: Viewer, agents: NDArray[Any], line: int
    ) -> NDArray[Any]:
        """Load [count, lanes] numbers. ``kind``: "weak", "volatile", "relaxed" or "acquire"."""
        at = self.where(addresses, size, count, who, line)
        if not len(at):
            return np.empty((count, 0), UNSIGNED[size])
        if self.pending[who.program]:
            first, last = int(at.min()), int(at.max()) + size * count
            self._commit_overlapping(who.program, first, last)
        index = at // size + np.arange(count)[:, None]
        values = self.views[size][index]
        g = self.granules(index, size)
        writer = self.writer[g]
        agents = agents if size <= self.granule else np.repeat(agents, size // self.granule)
        if kind == "acquire":
            for address in np.unique(at):
                if int(address) in self.released:
                    who.clock = np.maximum(who.clock, self.released[int(address)])
            clock = who.clock.copy()
            clock[-1] = self.now
            who.clock = clock
            return values
        foreign = (writer >= 0) & (writer != agents)
        if foreign.any():
            unordered = foreign & (who.clock[writer] < self.written[g])
            if (kind == "weak" or (kind == "volatile" and self.ordered)) and unordered.any():
                raise who.fault(
                    line,
                    f"a global load unordered with a store by another warp, {self._near(int(g[unordered][0]) * self.granule)}",
                )
            late = unordered & (self.tick[g] > who.clock[-1])
            if late.any():
                words = np.where(late, self.old[g], self.words[g])
                values = words.view(UNSIGNED[size]) if size >= self.granule else values
        if kind == "weak":
            self.reader[g] = agents
            self.read[g] = who.epoch
        return values

    def store(self, addresses: Lanes, values: NDArray[Any], size: int, who: Viewer, agents: NDArray[Any], line: int) -> None:
        """Store [count, lanes] numbers."""
        count = len(values)
        at = self.where(addresses, size, count, who, line)
        if not len(at):
            return
        first, last = int(at.min()), int(at.max()) + size * count
        self._commit_overlapping(who.program, first, last)
        at = (at + size * np.arange(count)[:, None]).ravel()
        store = Store(at, values.ravel(), np.tile(agents, count), who.epoch, who.clock, first, last, who, line)
        self.pending[who.program].append(store)
        self.waiting += 1

    def release(self, who: Viewer, address: int) -> None:
        """Let a later acquire of this address see everything before."""
        agents = set(who.agents.tolist())
        kept = []
        for store in self.pending[who.program]:
            if agents >= set(store.agents.tolist()) or (who.clock[store.agents] >= store.epoch).all():
                self._commit(store)
            else:
                kept.append(store)
        self.waiting -= len(self.pending[who.program]) - len(kept)
        self.pending[who.program] = kept
        clock = who.clock.copy()
        clock[who.agents] = who.epoch
        before = self.released.get(address)
        self.released[address] = clock if before is None else np.maximum(before, clock)
        who.epoch += 1

    def add(self, address: Lanes, value: Lanes, semantics: str, who: Viewer, line: int) -> Lanes:
        """Add 32-bit numbers atomically, lane after lane; returns the values before."""
        at = self.where(address, 4, 1, who, line)
        out = np.empty(len(at), "u4")
        for i, place in enumerate(at.tolist()):
            if semantics in ("release", "acq_rel"):
                self.release(who, place)
            if semantics in ("acquire", "acq_rel"):
                self.load(address[i : i + 1], 4, 1, "acquire", who, who.agents[i : i + 1], line)
            out[i] = self.views[4][place // 4]
            self.views[4][place // 4] = (int(out[i]) + int(value[i])) & 0xFFFFFFFF
            self.now += 1
        return out

    def some_arrive(self) -> None:
        """Make one store of a random program visible, or a part of it."""
        busy = [p for p in self.pending if p]
        if not busy:
            return
        stores = self.chance.choice(busy)
        i = self.chance.randrange(len(stores))
        store = stores[i]
        if len(store.at) > 1 and self.chance.random() < 0.3:
            cut = self.chance.randrange(1, len(store.at))
            rest = np.arange(len(store.at)) >= cut if self.chance.random() < 0.5 else np.arange(len(store.at)) % 2 == 1
            part = Store(
                store.at[~rest], store.values[~rest], store.agents[~rest], store.epoch, store.clock, 0, 0, store.who, store.line
            )
            self._commit(part)
            store.at, store.values, store.agents = store.at[rest], store.values[rest], store.agents[rest]
            return
        del stores[i]
        self.waiting -= 1
        self._commit(store)

    def all_arrive(self) -> None:
        for stores in self.pending:
            for store in stores:
                self._commit(store)
            stores.clear()
        self.waiting = 0

    def _commit_overlapping(self, program: int, first: int, last: int) -> None:
        stores = self.pending[program]
        mine = [s for s in stores if s.first < last and first < s.last]
        if mine:
            self.pending[program] = [s for s in stores if not (s.first < last and first < s.last)]
            self.waiting -= len(mine)
            for store in mine:
                self._commit(store)

    def _commit(self, store: Store) -> None:
        size = store.values.itemsize
        self.now += 1
        g = self.granules(store.at // size, size)
        ratio = max(1, size // self.granule)
        new = np.ascontiguousarray(store.values).view(self.words.dtype)
        agents_of = np.repeat(store.agents, ratio)
        if len(store.at) > 1:
            order = np.argsort(store.at, kind="stable")
            same = np.flatnonzero(np.diff(store.at[order]) == 0)
            if len(same) and (store.values[order[same]] != store.values[order[same + 1]]).any():
                raise store.who.fault(store.line, "lanes store different numbers to one global address")
        changed = self.words[g] != new
        for agents, epochs, access in ((self.writer, self.written, "store"), (self.reader, self.read, "load")):
            other = agents[g]
            bad = changed & (other >= 0) & (other != agents_of) & (store.clock[other] < epochs[g])
            if bad.any():
                where = self._near(int(g[bad][0]) * self.granule)
                raise store.who.fault(store.line, f"a global store unordered with a {access} by another warp, {where}")
        self.old[g] = self.words[g]
        self.words[g] = new
        self.tick[g] = self.now
        self.writer[g] = agents_of
        self.written[g] = store.epoch
