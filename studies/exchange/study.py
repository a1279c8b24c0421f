"""Cost of the exchange between programs alone: microseconds a step, and the rate of L2.

A cell is one number of programs and one size of the state; both protocols, and loads without waiting, take turns. Each is timed
over all steps and over half of them; the difference is the time of steps alone, without launch and clock.
``measured_constants`` computes times of a step, and the numbers by which ``kernels/rnn/plan.py`` predicts. Only measuring needs
a GPU.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from recurrent_lm import kernels
from recurrent_lm.lm import InputError
from recurrent_lm.studies.engine.parameters import choice, whole, wholes
from recurrent_lm.studies.engine.study import Cell, Sweep
from recurrent_lm.studies.exchange.claims import claims
from recurrent_lm.studies.exchange.measured_constants import LAUNCH, PROTOCOLS, allowed
from recurrent_lm.studies.exchange.measured_constants import floors as summary
from recurrent_lm.studies.timing.cuda import EventTimer, FreshTimer, Gpu
from recurrent_lm.studies.timing.measure import race
from recurrent_lm.studies.timing.watchdog import watchdog
from recurrent_lm.studies.timing.work import DTYPES

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PRESETS", "Study", "claims", "complaint", "summary"]

BUFFER = 8 << 20  # bytes of all steps' states, so that they stay in L2
STEPS = (32, 1024)  # at least and at most
DEADLINE = 60.0  # seconds a cell, most of which are the compiler's


@dataclass(frozen=True)
class Study(Sweep):
    """``programs`` exchange a state of ``kilobytes`` every step; each reads all of it and writes its own part."""

    programs: tuple[int, ...] = wholes(132, 8, 16, 32, 64, 96, low=1, high=1024)
    kilobytes: tuple[int, ...] = wholes(1, 4, 16, 64, 256, low=1, high=1024)
    dtype: str = choice("float16", *DTYPES)
    rounds: int = whole(20, 1, 10_000)

    SAMPLES: ClassVar = (("protocol", "programs", "kilobytes", "steps"), "seconds")
    TIMED: ClassVar = True
    NAME: ClassVar[str] = "exchange"
    COLUMNS: ClassVar = {
        "protocol": str, "programs": int, "kilobytes": int, "steps": int, "round": int, "seconds": float, "error": float,
        "dropped": int,
    }  # fmt: skip

    def prepare(self) -> None:
        if any(k & (k - 1) for k in self.kilobytes):
            raise InputError("kilobytes must be powers of two, such as 1,4,16,64,256")
        if not torch.cuda.is_available():
            raise InputError(
                "exchange needs a CUDA GPU, and there is none here; run it where one is, then: "
                "studies constants runs/studies/exchange.parquet, which needs none"
            )
        processors = torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count
        fitting = [p for p in (*self.programs, processors) if p <= processors]
        if len(fitting) <= len(self.programs):
            programs = ",".join(map(str, dict.fromkeys(fitting)))
            raise InputError(f"this GPU runs {processors} programs at once, and all must; take --set programs={programs}")

    def cells(self) -> list[Cell]:
        sizes = [{"programs": p, "kilobytes": k} for p in self.programs for k in self.kilobytes]
        return [{"protocol": LAUNCH, "programs": 1, "kilobytes": 0}, *({"protocol": "", **size} for size in sizes)]

    def measure(self, cell: Cell) -> list[dict[str, Any]]:
        """One row for each protocol, number of steps and round: ``seconds`` of the launch, ``error`` of the final state."""

        dtype = DTYPES[self.dtype]
        if cell["protocol"] == LAUNCH:
            runs = {(LAUNCH, 1): kernels.ExchangeRun("sentinel", 1, 64, 1, dtype)}
        else:
            state = cell["kilobytes"] * 1024
            full = steps_of(state)
            cases = [(protocol, steps) for protocol in PROTOCOLS for steps in (full, full // 2)]
            runs = {(p, steps): kernels.ExchangeRun(p, cell["programs"], state, steps, dtype) for p, steps in cases}
        name = f"the exchange of {cell['programs']} programs and {cell['kilobytes']} KB"
        with watchdog(DEADLINE, f"{name} did not end in {DEADLINE:.0f} s"):
            errors = {key: _checked(run, dtype) for key, run in runs.items()}
            timer = EventTimer() if cell["protocol"] == LAUNCH else FreshTimer()
            timed = race(runs, timer, self.rounds, weather=Gpu().weather)
        rows = []
        for sample in timed.samples:
            protocol, steps = sample.name
            row = {"protocol": protocol, "steps": steps, "round": sample.round, "seconds": sample.seconds}
            rows.append(cell | row | {"error": errors[sample.name], "dropped": timed.dropped[sample.name]})
        return rows


PRESETS = {"gpu": Study(), "smoke": Study(programs=(8, 16), kilobytes=(1, 4), rounds=4)}


def steps_of(state: int) -> int:
    """The even number of steps whose states fill ``BUFFER``."""
    return max(STEPS[0], min(STEPS[1], BUFFER // state)) // 2 * 2


def _checked(run: Any, dtype: torch.dtype) -> float:
    run.refill()
    run()
    torch.cuda.synchronize()
    error = run.error()
    if not error <= allowed(dtype):
        raise RuntimeError(f"{run.exchange} leaves a state that is wrong by {error:.1e}, and {allowed(dtype):.1e} is allowed")
    return float(error)


def complaint(study: Study, table: "pd.DataFrame") -> str:
    """Why a table is not one of this study; empty if it is one."""
    if not table["protocol"].isin((*PROTOCOLS, LAUNCH)).all():
        return f"holds a protocol that is none of {', '.join((*PROTOCOLS, LAUNCH))}"
    cells = {(cell["programs"], cell["kilobytes"]) for cell in study.cells()}
    if not set(table[["programs", "kilobytes"]].itertuples(index=False, name=None)) <= cells:
        return "holds a cell that its parameters do not"
    if table.duplicated(["protocol", "programs", "kilobytes", "steps", "round"]).any():
        return "holds a measurement twice"
    return ""
