"""The shared memory of a program, with a check of every access: between two barriers only one warp may use a word that it
writes.

Two warps may write the same number to one word, as layouts do that hold a number several times. For each word a mark records
the epoch (barriers passed) of the last read and of the last write, and the warps that did so since: the epoch in the upper
bits, a bit for each warp in the lower ones. Accesses are [numbers, lanes].
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recurrent_lm.kernels.bench.ptx.code.registers import Lanes
from recurrent_lm.kernels.bench.ptx.global_memory import SHARED, UNSIGNED, Viewer

WARPS = 16  # bits of a mark that are warps
FLYING = 1 << 62  # the mark of words to which a copy is under way


class Shared:
    """``granule`` is the smallest store of the kernel in bytes, which is the size of a word. ``proxied``: whether wgmma reads
    this memory by the asynchronous proxy, which sees stores only after a fence.
    """

    def __init__(self, size: int, granule: int, proxied: bool) -> None:
        self.size, self.granule, self.proxied = size, granule, proxied
        self.data = np.zeros(-(-size // 16) * 16, "u1")
        self.views = {size: self.data.view(UNSIGNED[size]) for size in (1, 2, 4, 8)}
        self.words = self.data.view(UNSIGNED[granule])
        n = len(self.words)
        self.written, self.read = np.full(n, -1, "i8"), np.full(n, -1, "i8")
        self.flights = np.zeros(n, "i4")  # products under way that read a word
        self.tick, self.landed = np.zeros(n, "i4"), np.full(n, -1, "i4")  # when a word was stored last, and by which agent
        self.now = 0

    def where(self, addresses: NDArray[Any], bytes: int, who: Viewer, line: int) -> NDArray[Any]:
        at = addresses.astype("i8") - SHARED
        if len(at) and (at.min() < 0 or at.max() + bytes > self.size):
            raise who.fault(line, f"shared access out of bounds: {int(at.max())} + {bytes} of {self.size} bytes")
        if (at & (bytes - 1)).any():
            raise who.fault(line, f"a shared address that is no multiple of {bytes}")
        return at

    def index(self, at: NDArray[Any], size: int, count: int) -> NDArray[Any]:
        """The indices [count, lanes] of numbers of ``size`` bytes."""
        first = at // size
        return first[None] if count == 1 else first + np.arange(count)[:, None]

    def granules(self, index: NDArray[Any], size: int) -> NDArray[Any]:
        """The words of numbers of ``size`` bytes: [count, lanes], or lanes times the words of a number."""
        ratio = size // self.granule
        if ratio == 1:
            return index
        if ratio == 0:
            return index // (self.granule // size)
        return (index[..., None] * ratio + np.arange(ratio)).reshape(*index.shape[:-1], -1)

    def load(self, addresses: Lanes, size: int, count: int, who: Viewer, bits: Any, line: int) -> NDArray[Any]:
        """Load [count, lanes] numbers. ``bits``: the readers as masks of warps, one for all or one for each lane."""
        index = self.index(self.where(addresses, size * count, who, line), size, count)
        self.check_read(self.granules(index, size), self.spread(bits, size), who, line)
        return self.views[size][index]

    def spread(self, bits: Any, size: int) -> Any:
        """Repeat values of lanes for each word of a lane's number."""
        return bits if isinstance(bits, int) or size <= self.granule else np.repeat(bits, size // self.granule)

    def check_read(self, g: NDArray[Any], bits: Any, who: Viewer, line: int) -> None:
        """Record a read.

        Raises:
            Fault: if the words may be read before they are written.
        """
        epoch = who.barriers << WARPS
        written = self.written[g]
        if written.max(initial=0) >= epoch:
            if (written == FLYING).any():
                raise who.fault(line, f"shared memory is read while a copy to it is under way{self._at(g, written == FLYING)}")
            bad = (written >= epoch) & ((written & bits) == 0)
            if bad.any():
                raise who.fault(
                    line, f"shared memory is read where another warp writes, with no barrier between{self._at(g, bad)}"
                )
        if written.min(initial=0) < 0:
            raise who.fault(line, f"shared memory is read that was never written{self._at(g, written < 0)}")
        self._mark(self.read, self.read[g], g, bits, epoch)

    def _mark(self, marks: NDArray[Any], before: NDArray[Any], g: NDArray[Any], bits: Any, epoch: int) -> None:
        if isinstance(bits, int):
            marks[g] = np.maximum(before, epoch) | bits
        else:
            marks[g] = np.maximum(before, epoch)
            np.bitwise_or.at(marks, g.ravel(), np.tile(bits, g.size // len(bits)))

    def _at(self, g: NDArray[Any], bad: NDArray[Any]) -> str:
        return f" (byte {int(g[bad].ravel()[0]) * self.granule})"

    def store(
        self, addresses: Lanes, values: NDArray[Any], size: int, who: Viewer, bits: Any, agents: NDArray[Any], line: int
    ) -> None:
        """Store [count, lanes] numbers."""
        index = self.index(self.where(addresses, size * len(values), who, line), size, len(values))
        g = self.granules(index, size)
        new = values.view(self.words.dtype)
        bits = self.spread(bits, size)
        self.check_write(g, new, bits, who, line)
        self.words[g] = new
        if (self.words[g] != new).any():
            raise who.fault(line, f"lanes store different numbers to one shared address{self._at(g, self.words[g] != new)}")
        self._mark(self.written, self.written[g], g, bits, who.barriers << WARPS)
        self.landing(g, self.spread(agents, size))

    def check_write(self, g: NDArray[Any], new: NDArray[Any] | None, bits: Any, who: Viewer, line: int) -> None:
        """Record a write; ``new`` is None for numbers that are not known yet.

        Raises:
            Fault: if other warps may still read these words or write other numbers.
        """
        epoch = who.barriers << WARPS
        read, written = self.read[g], self.written[g]
        if self.proxied and self.flights[g].any():
            raise who.fault(line, f"shared memory is overwritten while a wgmma reads it{self._at(g, self.flights[g] > 0)}")
        bad = (read & ~bits) > epoch
        if bad.any():
            bad = bad if new is None else bad & (self.words[g] != new)
            if bad.any():
                raise who.fault(line, f"shared memory is overwritten that may still be read{self._at(g, bad)}")
        bad = (written & ~bits) > epoch
        if bad.any():
            bad = bad if new is None else bad & ((written == FLYING) | (self.words[g] != new))
            if bad.any():
                raise who.fault(line, f"two warps write shared memory with no barrier between{self._at(g, bad)}")

    def fly(self, g: NDArray[Any]) -> None:
        """Begin a copy to these words."""
        self.written[g] = FLYING

    def land(self, g: NDArray[Any], bits: Any, agents: NDArray[Any], who: Viewer) -> None:
        """End a copy; the threads that have waited for it see its data."""
        self.written[g] = 0
        self._mark(self.written, self.written[g], g, bits, who.barriers << WARPS)
        self.landing(g, agents)

    def landing(self, g: NDArray[Any], agents: NDArray[Any]) -> None:
        if self.proxied:
            self.now += 1
            self.tick[g] = self.now
            self.landed[g] = agents

    def fence(self, who: Viewer) -> None:
        """fence.proxy.async of these warps."""
        self.now += 1
        who.fences.append((self.now, who.barriers))

    def check_fenced(self, g: NDArray[Any], who: Viewer, viewers: dict[int, Viewer], line: int) -> None:
        """Check that the asynchronous proxy sees the stores to these words.

        A fence must lie between: of the writer, after its store and before a barrier that the reader has passed; or of the
        reader, after a barrier that follows the store.

        Raises:
            Fault: if it may miss one.
        """
        for agent in np.unique(self.landed[g]).tolist():
            own = g[self.landed[g] == agent]
            writer = viewers[agent]
            last, since = int(self.tick[own].max()), int(self.written[own].max()) >> WARPS
            by_writer = any(tick > last and (passed < who.barriers or writer is who) for tick, passed in writer.fences)
            by_reader = any(tick > last and passed > since for tick, passed in who.fences)
            if not (by_writer or by_reader):
                raise who.fault(line, "no fence.proxy.async between a store and the wgmma that reads it")


def first_lanes(addresses: Lanes, matrices: int) -> NDArray[Any]:
    """The row addresses that ldmatrix and stmatrix take: those of each warp's first 8 n lanes, [warps, n, 8]."""
    return addresses.reshape(-1, 32)[:, : 8 * matrices].reshape(-1, matrices, 8)
