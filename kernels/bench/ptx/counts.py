"""Counts the cost of a launch: instructions by kind, wavefronts of shared memory, sectors of global memory."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recurrent_lm.kernels.bench.ptx.code.parse import Instruction

KINDS = {  # by the opcode's first part, or its first two
    "ld.global": "global loads", "ld.volatile": "global loads", "st.global": "global stores", "cp.async": "asynchronous copies",
    "red.global": "atomics", "atom.global": "atomics", "ld.shared": "shared loads", "st.shared": "shared stores",
    "st.shared::cta": "shared stores", "ld.shared::cta": "shared loads", "ldmatrix": "ldmatrix", "stmatrix": "stmatrix",
    "mma": "mma", "wgmma.mma_async": "wgmma", "wgmma.wait_group": "wgmma waits",
    "bar.sync": "barriers", "bar.warp": "barriers of a warp", "shfl": "shuffles",
    "redux": "shuffles", "ex2": "special functions", "lg2": "special functions", "div": "special functions",
    "sqrt": "special functions", "rcp": "special functions", "rsqrt": "special functions", "bra": "branches", "ret": "branches",
    "setp": "compare and select", "selp": "compare and select", "cvt": "conversions", "mov": "moves", "fence": "fences",
}  # fmt: skip


def kind_of(instruction: Instruction) -> str:
    """The kind under which an instruction is counted."""
    parts = instruction.parts
    for name in (".".join(parts[:2]), parts[0]):
        if name in KINDS:
            return KINDS[name]
    if parts[0] in ("add", "sub", "mul", "fma", "neg", "abs", "min", "max") and parts[-1] in (
        "f32",
        "f16",
        "bf16",
        "f16x2",
        "bf16x2",
    ):
        return "float arithmetic"
    return "integer"


WHAT = ("wavefronts", "least", "operands", "loaded", "stored")


@dataclass(frozen=True)
class Total:
    """The counts of a launch, all warps together. ``wavefronts`` are of shared memory, ``least`` would remain without bank
    conflicts, ``operands`` are those of wgmma; ``loaded`` and ``stored`` are sectors of 32 bytes of global memory.
    """

    wavefronts: float
    least: float
    operands: float
    loaded: float
    stored: float


class Counts:
    """Adds up by line of the PTX; does nothing unless ``on``, as counting takes longer than the accesses themselves."""

    def __init__(self, on: bool) -> None:
        self.on = on
        self.by_line: dict[str, dict[int, float]] = {name: defaultdict(float) for name in WHAT}

    def sectors(self, line: int, access: str, address: NDArray[Any], bytes: int, guard: NDArray[Any] | None = None) -> None:
        """Count the distinct sectors of 32 bytes that each warp's access touches."""
        if not self.on:
            return
        for warp in range(0, len(address), 32):
            part = address[warp : warp + 32]
            if guard is not None:
                part = part[guard[warp : warp + 32]]
            self.by_line[access][line] += len(np.unique(part // np.uint64(32)))

    def wavefronts(self, line: int, address: NDArray[Any], bytes: int, guard: NDArray[Any] | None) -> None:
        """Count an access to shared memory.

        8 bytes a lane go by half a warp, 16 by a quarter; each bank delivers one word a wavefront.
        """
        if not self.on:
            return
        group = 32 if bytes <= 4 else 16 if bytes == 8 else 8
        for first in range(0, len(address), group):
            part = address[first : first + group]
            if guard is not None:
                part = part[guard[first : first + group]]
            if len(part):
                words = (part.astype("i8") // 4)[:, None] + np.arange(max(1, bytes // 4))
                self._banks(line, words.ravel())

    def rows(self, line: int, rows: NDArray[Any]) -> None:
        """Count ldmatrix or stmatrix: one wavefront a matrix, if its rows lie in different banks."""
        if self.on:
            for matrix in rows.reshape(-1, 8):
                self._banks(line, ((matrix.astype("i8") // 4)[:, None] + np.arange(4)).ravel())

    def product(self, line: int, own: int, common: int) -> None:
        """Count a wgmma, which reads without conflicts: ``own`` bytes for each warp, ``common`` bytes once for four warps."""
        if self.on:
            self.by_line["operands"][line] += own / 128 + common / 512

    def _banks(self, line: int, words: NDArray[Any]) -> None:
        distinct = np.unique(words)
        self.by_line["wavefronts"][line] += int(np.bincount(distinct % 32).max())
        self.by_line["least"][line] += -(-len(distinct) // 32)

    def total(self) -> Total:
        return Total(**{name: sum(lines.values()) for name, lines in self.by_line.items()})
