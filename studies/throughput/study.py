"""Speed of this project beside its alternatives: recurrences, losses, whole training steps.

A cell is one computation at one size; all variants take turns at it, after each was compared with the float64 result. Sizes
vary one at a time about the first value of each, so that along a curve only one size changes.
"""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from recurrent_lm import kernels
from recurrent_lm.lm import InputError
from recurrent_lm.studies.engine.memory import check_memory
from recurrent_lm.studies.engine.parameters import choice, choices, whole, wholes
from recurrent_lm.studies.engine.study import Cell, Sweep, label
from recurrent_lm.studies.throughput.claims import NAMES, claims
from recurrent_lm.studies.throughput.comparison import AXES, CELL, KEYS, STATUSES, growth, summary
from recurrent_lm.studies.throughput.times import listing
from recurrent_lm.studies.timing import losses, own, peaks, recurrences, steps
from recurrent_lm.studies.timing.cuda import exact_float32
from recurrent_lm.studies.timing.trial import Entry, trial
from recurrent_lm.studies.timing.trial import complaint as complaint_of
from recurrent_lm.studies.timing.work import DIRECTIONS, DTYPES, Work

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PRESETS", "Study", "claims", "complaint", "growth", "listing", "summary"]

USUAL = ("peak", "sequential", "recurrence", "cross_entropy", "training")
PARTS = (*USUAL, "trace")
OFFERS = {
    "peak": ("copy", "product", "launch"),
    "sequential": ("product", "steps"),
    "recurrence": recurrences.VARIANTS,
    "cross_entropy": losses.VARIANTS,
    "training": steps.VARIANTS,
    "trace": recurrences.TRACED,
}
CHOSEN = ("kernels:eager", "kernels:torch", "torch.nn", "loop", "linear_cross_entropy", "linear_cross_entropy-chunked")
VARIANTS = tuple(dict.fromkeys(v for part in USUAL[2:] for v in OFFERS[part]))
VERBS = {"disagrees": "disagrees with float64", "failed": "fails", "skipped": "cannot be given the weights"}
GRAPHED = ("peak", "sequential", "recurrence", "cross_entropy")  # a training step reads its loss back, which no graph can


@dataclass(frozen=True)
class Study(Sweep):
    """Sizes: B ``batch``, H ``hidden`` (also of inputs) and T ``steps`` of recurrences and training; N ``tokens``, d ``width``
    and V ``vocabulary`` of losses; training uses V, too. While one size varies, the others have their first value, unless
    ``vary`` is ``all``.

    torch.compile takes part only at the ``first`` of all sizes unless ``compiled`` is ``all``, because compiling each size
    takes longer than all the rest.
    """

    parts: tuple[str, ...] = choices(*USUAL, names=PARTS)
    variants: tuple[str, ...] = choices(*CHOSEN, names=VARIANTS)
    cell: tuple[str, ...] = choices("lstm", "gru", "rnn-tanh", names=tuple(kernels.CELLS))
    direction: tuple[str, ...] = choices(*DIRECTIONS, names=DIRECTIONS)
    dtype: tuple[str, ...] = choices("float32", names=tuple(DTYPES))
    batch: tuple[int, ...] = wholes(16, 1, 4, 64, low=1, high=100_000)
    hidden: tuple[int, ...] = wholes(256, 64, 128, 512, low=1, high=100_000)
    steps: tuple[int, ...] = wholes(64, 16, 32, 128, 256, low=1, high=1_000_000)
    tokens: tuple[int, ...] = wholes(512, 128, 256, 1024, low=1, high=10_000_000)
    width: tuple[int, ...] = wholes(256, 64, 128, 512, low=1, high=100_000)
    vocabulary: tuple[int, ...] = wholes(4000, 1000, 2000, 8000, low=2, high=1_000_000)
    vary: str = choice("one", "one", "all")
    layers: int = whole(1, 1, 100)
    compiled: str = choice("first", "first", "all")
    mode: tuple[str, ...] = choices("eager", names=("eager", "graph"))
    cache: tuple[str, ...] = choices("hot", names=("hot", "cold"))
    device: str = choice("cpu", "cpu", "cuda")
    rounds: int = whole(15, 1, 10_000)
    copied: int = whole(256, 1, 100_000)  # megabytes
    square: tuple[int, ...] = wholes(1024, low=1, high=100_000)
    threads: int = whole(0, 0, 1_024)
    own: str = ""  # module:factory, several with commas between: somebody's recurrences and losses

    LATER: ClassVar = ("own", "vary")
    SAMPLES: ClassVar = (KEYS, "seconds")
    TIMED: ClassVar = True
    NAME: ClassVar[str] = "throughput"
    COLUMNS: ClassVar = CELL | {
        "variant": str, "mode": str, "cache": str, "status": str, "note": str, "round": int, "seconds": float,
        "error": float, "allowed": float, "flops": float, "bytes": float, "peak_bytes": int, "dropped": int,
        "clock_mhz": float, "watts": float,
    }  # fmt: skip

    def prepare(self) -> None:
        if self.device == "cuda":
            if not torch.cuda.is_available():
                raise InputError("device cuda needs a CUDA GPU, and there is none here; take --preset cpu, or --set device=cpu")

            exact_float32()
        elif any(v.startswith("kernels:triton") for v in self.variants):
            raise InputError(
                "kernels:triton needs a CUDA GPU: kernels in the interpreter are never timed; take it out of variants"
            )
        elif self.mode != ("eager",) or self.cache != ("hot",):
            raise InputError("mode graph and cache cold need a CUDA GPU; on a CPU leave mode at eager and cache at hot")
        if os.environ.get("TRITON_INTERPRET", "0") != "0":
            raise InputError("TRITON_INTERPRET is set, and kernels in the interpreter are never timed; unset it")
        if self.threads:
            torch.set_num_threads(self.threads)
        if self.device == "cpu":
            names = "batch, hidden, steps, tokens, width, vocabulary, layers, copied or square"
            check_memory(max(map(self._bytes, self.cells())), names)
        for name in self._own:
            self._hold(name)

    def inputs(self) -> str:
        """Digest of the sources of ``own``, so that an edited variant is measured again."""
        return ",".join(own.load(name).digest() for name in self._own)

    @property
    def _own(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name.strip() for name in self.own.split(",") if name.strip()))

    def _hold(self, name: str) -> None:
        """Refuse a user's variant that is wrong at the first sizes of every cell, before anything is timed."""
        part = own.load(name).part
        cells = [cell for cell in self.cells() if cell["part"] == part and self._first(cell)]
        if not cells:
            raise InputError(f"{name} is a {NAMES[part]}, and parts has no {part}; add it there")
        reasons: dict[str, str] = {}
        for cell in cells:
            status, note = complaint_of(self._work(cell), Entry(name), self.device)
            if not status:
                return
            reasons.setdefault(status, f"as {label(cell)} it {VERBS[status]}: {note}")
        raise InputError(f"{name} is not timed, since {next(reasons[s] for s in VERBS if s in reasons)}")

    def cells(self) -> list[Cell]:
        return [cell for part in PARTS if part in self.parts for cell in getattr(self, f"_{part}")()]

    def measure(self, cell: Cell) -> list[dict[str, Any]]:
        """One row for each variant, mode, cache and round: ``seconds`` of one call, ``error`` against float64, the
        computation's ``flops`` and least ``bytes``, ``peak_bytes`` of memory. A variant that was not timed has one row, with
        the reason in ``note``.
        """
        names = OFFERS[cell["part"]]
        if cell["part"] == "peak":
            names = (cell["cell"],)
        elif cell["part"] not in ("sequential", "trace"):
            left_out = () if self.compiled == "all" or self._first(cell) else ("torch.compile",)
            names = tuple(n for n in names if n in self.variants and n not in left_out) + self._others(cell["part"])
        modes = self.mode if cell["part"] in GRAPHED else ("eager",)
        entries = [Entry(name, mode) for name in names for mode in modes]
        rows = trial(self._work(cell), entries, self.cache, self.rounds, self.device)
        return [cell | row for row in rows]

    def _others(self, part: str) -> tuple[str, ...]:
        return tuple(name for name in self._own if own.load(name).part == part)

    def _first(self, cell: Cell) -> bool:
        """Whether all sizes of a cell are their parameters' first values."""
        return all(cell[column] == getattr(self, parameter)[0] for column, _, parameter in AXES[cell["part"]])

    def _work(self, cell: Cell) -> Work:
        part, kind, direction, dtype, batch, step, hidden, vocabulary = cell.values()
        if part == "peak":
            if kind == "copy":
                return peaks.copy(hidden, self.device)
            return peaks.product(hidden, dtype, self.device) if kind == "product" else peaks.launch(self.device)
        if part == "sequential":
            return recurrences.sequential(dtype, batch, hidden, step, self.device)
        if part == "recurrence":
            return recurrences.recurrence(kind, direction, dtype, batch, hidden, step, self.device, self._others(part))
        if part == "trace":
            return recurrences.backward(kind, dtype, batch, hidden, step, self.device)
        if part == "cross_entropy":
            return losses.cross_entropy(direction, dtype, batch, hidden, vocabulary, self.device, self._others(part))
        return steps.training(steps.Size(vocabulary, hidden, self.layers, batch, step), dtype, self.device)

    def _peak(self) -> Iterator[Cell]:
        yield _cell("peak", "copy", "forward", "float32", hidden=self.copied)
        if self.device == "cuda":
            yield _cell("peak", "launch", "forward", "float32")
        for dtype in self.dtype:
            for size in self.square:
                yield _cell("peak", "product", "forward", dtype, hidden=size)

    def _sequential(self) -> Iterator[Cell]:
        for dtype in self.dtype:
            for size in self._sizes(batch=self.batch, hidden=self.hidden, steps=self.steps):
                yield _cell("sequential", "", "forward", dtype, **size)

    def _recurrence(self) -> Iterator[Cell]:
        for kind in self.cell:
            for direction in self.direction:
                for dtype in self.dtype:
                    for size in self._sizes(batch=self.batch, hidden=self.hidden, steps=self.steps):
                        yield _cell("recurrence", kind, direction, dtype, **size)

    def _trace(self) -> Iterator[Cell]:
        for kind in self.cell:
            for dtype in self.dtype:
                for size in self._sizes(batch=self.batch, hidden=self.hidden, steps=self.steps):
                    yield _cell("trace", kind, "backward", dtype, **size)

    def _sizes(self, **axes: tuple[int, ...]) -> Iterator[dict[str, int]]:
        if self.vary == "one":
            return star(**axes)
        return (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))

    def _cross_entropy(self) -> Iterator[Cell]:
        for direction in self.direction:
            for dtype in self.dtype:
                for size in self._sizes(batch=self.tokens, hidden=self.width, vocabulary=self.vocabulary):
                    yield _cell("cross_entropy", "", direction, dtype, steps=1, **size)

    def _training(self) -> Iterator[Cell]:
        for dtype in self.dtype:
            for size in self._sizes(hidden=self.hidden, vocabulary=self.vocabulary):
                yield _cell("training", "lstm", "update", dtype, batch=self.batch[0], steps=self.steps[0], **size)

    def _bytes(self, cell: Cell) -> float:
        """A lower bound of a cell's memory in bytes: its numbers in float64 and in one other dtype."""
        b, t, h, v = (float(cell[k]) for k in ("batch", "steps", "hidden", "vocabulary"))
        if cell["part"] == "peak":
            return 2e6 * h if cell["cell"] == "copy" else 20 * h * h
        if cell["part"] == "cross_entropy":
            return 8 * (b * h + v * h + b * v)
        if cell["part"] == "training":
            return 8 * (steps.Size(int(v), int(h), self.layers, 1, 1).parameters + b * t * v)
        gates = kernels.CELLS[cell["cell"]].gates if cell["cell"] else 1
        return 8 * (t * b * h * (2 + gates) + gates * h * h)


def star(**axes: tuple[int, ...]) -> Iterator[dict[str, int]]:
    """The first value of each axis together, then each axis's other values with the first values of the others."""
    base = {name: values[0] for name, values in axes.items()}
    yield base
    for name, values in axes.items():
        for value in values[1:]:
            yield base | {name: value}


def _cell(part: str, kind: str, direction: str, dtype: str, **size: int) -> Cell:
    return dict(zip(CELL, (part, kind, direction, dtype), strict=False)) | {
        name: size.get(name, 0) for name in ("batch", "steps", "hidden", "vocabulary")
    }


_SMOKE: dict[str, Any] = {
    "batch": (2, 4), "hidden": (16, 32), "steps": (4, 8, 16), "tokens": (32, 64), "width": (16,), "vocabulary": (50, 100),
    "rounds": 6, "copied": 4, "square": (128,), "cell": ("lstm",),
}  # fmt: skip
_GPU: dict[str, Any] = {
    "device": "cuda", "variants": VARIANTS, "dtype": ("bfloat16", "float16", "float32"),
    "batch": (16, 1, 8, 64, 128), "hidden": (768, 128, 256, 512, 1024, 1536), "steps": (512, 64, 128, 256, 1024),
    "tokens": (8192, 1024, 16384), "width": (1024, 512, 2048), "vocabulary": (32000, 10000, 128000),
    "mode": ("eager", "graph"), "cache": ("cold", "hot"), "rounds": 30, "copied": 2048, "square": (4096, 8192), "layers": 2,
}  # fmt: skip
_LONG: dict[str, Any] = {
    "variants": tuple(v for v in VARIANTS if not v.startswith("kernels:triton")), "dtype": ("float32", "bfloat16"),
    "cell": ("lstm", "gru", "rnn-tanh", "rnn-sigmoid"), "batch": (16, 1, 4, 64), "hidden": (256, 64, 128, 512, 1024),
    "steps": (64, 16, 32, 128, 256, 512), "tokens": (2048, 256, 512, 1024), "vocabulary": (10_000, 1000, 4000, 32_000),
    "rounds": 40, "square": (512, 1024, 2048), "layers": 2,
}  # fmt: skip
PRESETS = {"smoke": Study(**_SMOKE), "cpu": Study(), "cpu-long": Study(**_LONG), "gpu": Study(**_GPU)}


def complaint(study: Study, table: "pd.DataFrame") -> str:
    """Why a table is not one of this study; empty if it is one."""
    if not table["status"].isin(STATUSES).all():
        return f"holds a status that is none of {', '.join(STATUSES)}"
    cells = {tuple(cell.values()) for cell in study.cells()}
    if not set(table[list(CELL)].itertuples(index=False, name=None)) <= cells:
        return "holds a cell that its parameters do not"
    if table.duplicated([*KEYS, "round"]).any():
        return "holds a measurement twice"
    return ""
