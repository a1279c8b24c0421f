"""Cost of the exchange between programs alone: microseconds a step, and the rate of L2.

A cell is one number of programs and one size of the state; both protocols, and loads without waiting, take turns. Each is timed
over all steps and over half of them; the difference is the time of steps alone, without launch and clock. ``floors`` gives
times a step, ``constants`` the numbers by which ``kernels/rnn/plan.py`` predicts. Measuring needs a GPU, reading does not.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from scipy.special import stdtrit

from recurrent_lm import kernels
from recurrent_lm.lm import InputError
from recurrent_lm.studies.engine.claims import NOT, Claim
from recurrent_lm.studies.engine.parameters import choice, whole, wholes
from recurrent_lm.studies.engine.statistics import NOTHING, UNDEFINED, Interval, median, ratio
from recurrent_lm.studies.engine.study import Cell, Sweep
from recurrent_lm.studies.timing.cuda import EventTimer, FreshTimer, Gpu
from recurrent_lm.studies.timing.measure import race
from recurrent_lm.studies.timing.watchdog import watchdog
from recurrent_lm.studies.timing.work import DTYPES, SLACK

PROTOCOLS = ("sentinel", "counter", "none")  # none: loads from L2 without waiting
LAUNCH = "launch"
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
            calls = {f"{protocol} {steps}": run for (protocol, steps), run in runs.items()}
            timed = race(calls, timer, self.rounds, weather=Gpu().weather)
        rows = []
        for sample in timed.samples:
            protocol, steps = sample.name.split()
            row = {"protocol": protocol, "steps": int(steps), "round": sample.round, "seconds": sample.seconds}
            rows.append(cell | row | {"error": errors[protocol, int(steps)], "dropped": timed.dropped[sample.name]})
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


def allowed(dtype: torch.dtype) -> float:
    """The allowed error of the state: rounding of numbers below 2."""
    return float(SLACK * 2 * torch.finfo(dtype).eps)


def floors(table: "pd.DataFrame") -> "pd.DataFrame":
    """Time of a step of the exchange, one row for each protocol and size.

    Returns:
        ``us`` a step with ``low`` and ``high`` (median over rounds, 95% BCa interval), ``gathered`` bytes that all programs
        read each step, and ``gbs``, their rate. A ``launch`` has its own time and no size.
    """

    rows = []
    key: Any
    for key, group in table.groupby(["protocol", "programs", "kilobytes"], sort=False):
        protocol, programs, kilobytes = key
        seconds = group.dropna(subset="seconds").pivot_table(index="round", columns="steps", values="seconds")
        counts = sorted(int(steps) for steps in seconds.columns)
        if protocol == LAUNCH and counts:
            interval = median(seconds[counts[0]].dropna() * 1e6)
        elif len(counts) > 1:
            interval = median((seconds[counts[-1]] - seconds[counts[0]]).dropna() / (counts[-1] - counts[0]) * 1e6)
        else:
            interval = NOTHING
        gathered = 1024 * programs * kilobytes
        rate = {
            "gathered": gathered,
            "gbs": ratio(gathered / 1e3, interval.value) if gathered and interval.value > 0 else math.nan,
        }
        rows.append(
            dict(zip(("protocol", "programs", "kilobytes"), key, strict=True))
            | {"us": interval.value, "low": interval.low, "high": interval.high}
            | rate
        )
    summary = pd.DataFrame(rows)
    summary.attrs = table.attrs
    return summary


summary = floors


def constants(table: "pd.DataFrame") -> dict[str, Interval]:
    """Fit ``kernels.CONSTANTS`` with 95% intervals, in microseconds and bytes a microsecond; nan if a table cannot determine
    one.

    The fit is by least squares of relative errors on us = WAIT of the protocol + gathered / L2_BYTES, with one rate for all.
    Only sizes with at least half of the largest number of programs count: with fewer, the loads of one multiprocessor are the
    limit, which no plan of interest reaches. The intervals cover the scatter about that model (Student's t), whether noise or a
    model too simple.
    """

    about = floors(table)
    intervals = dict.fromkeys(kernels.CONSTANTS, NOTHING)
    launch = about[about["protocol"] == LAUNCH]
    if len(launch):
        intervals["LAUNCH"] = Interval(*launch.iloc[0][["us", "low", "high"]].astype(float))
    seen = about[(about["protocol"] != LAUNCH) & (about["us"] > 0) & np.isfinite(about["us"])]
    seen = seen[2 * seen["programs"] >= seen["programs"].max()]
    protocols = [p for p in PROTOCOLS if p in set(seen["protocol"])]
    if seen["gathered"].nunique() < 3 or len(seen) < len(protocols) + 3:
        return intervals
    us = seen["us"].to_numpy()
    columns = [(seen["protocol"] == p).to_numpy().astype(float) for p in protocols] + [seen["gathered"].to_numpy() / 1e6]
    with np.errstate(all="ignore"):
        design = np.stack(columns, axis=1) / us[:, None]
        usable = np.isfinite(design).all() and np.linalg.matrix_rank(design) == design.shape[1]
    if not usable:  # times next to 0, or sizes that do not tell the wait from the rate
        return intervals
    values, *_ = np.linalg.lstsq(design, np.ones(len(us)), rcond=None)
    freedom = len(us) - design.shape[1]
    variance = float(((design @ values - 1) ** 2).sum()) / freedom
    reach = float(stdtrit(freedom, 0.975)) * np.sqrt(variance * np.diag(np.linalg.inv(design.T @ design)))
    for i, protocol in enumerate(protocols):
        if protocol != "none":
            intervals[f"WAIT.{protocol}"] = Interval(float(values[i]), float(values[i] - reach[i]), float(values[i] + reach[i]))
    slow, fast = values[-1] + reach[-1], values[-1] - reach[-1]  # microseconds a megabyte
    if fast > 0:
        intervals["L2_BYTES"] = Interval(1e6 / float(values[-1]), 1e6 / float(slow), 1e6 / float(fast))
    return intervals


def claims(table: "pd.DataFrame") -> list[Claim]:
    """Nobody reads what is not yet written; the sentinel waits less than the counter; what plans predict by is what is here."""

    worst, limit = float(table["error"].max(skipna=False)), allowed(DTYPES[table.attrs["parameters"]["dtype"]])
    text, threshold = "every program reads what the others wrote", f"error <= {limit:.1e}"
    measured = NOT if math.isnan(worst) else f"{worst:.1e}"
    verdict = NOT if math.isnan(worst) else "holds" if worst <= limit else "fails"
    rows = [Claim("right", text, "the exchange in float64", "all protocols and sizes", threshold, measured, verdict)]
    intervals = constants(table)
    sentinel, counter = intervals["WAIT.sentinel"], intervals["WAIT.counter"]
    if math.isnan(sentinel.low) or math.isnan(counter.low):
        measured, verdict = _unknown(table)
    else:
        measured = f"{sentinel} and {counter} µs"
        verdict = "holds" if sentinel.high < counter.low else "fails" if sentinel.low > counter.high else "ambiguous"
    text = "the sentinel waits less than the counter"
    rows.append(Claim("sentinel", text, "aim of the kernels", "wait of a step", "intervals apart", measured, verdict))
    device = device_name(table)
    estimates = kernels.ESTIMATES
    for name, interval in intervals.items():
        used = kernels.constant(device, name, estimates[name])
        if math.isnan(interval.value):
            measured, verdict = _unknown(table[table["protocol"] == LAUNCH] if name == "LAUNCH" else table)
        elif math.isnan(interval.low):
            measured, verdict = f"{interval.told('.3g')}, and {used:.3g} is used", "ambiguous"
        else:
            measured = f"{interval.value:.3g} [{interval.low:.3g}, {interval.high:.3g}], and {used:.3g} is used"
            near = [used / 1.25 <= bound <= used * 1.25 for bound in (interval.low, interval.high)]
            apart = interval.high < used / 1.25 or interval.low > used * 1.25
            verdict = "holds" if all(near) else "fails" if apart else "ambiguous"
        text, threshold = f"plans predict by the {name} of this GPU", "within a factor of 1.25"
        setting = device or "no GPU"
        rows.append(Claim(f"constant.{name}", text, "kernels/rnn/plan.py", setting, threshold, measured, verdict))
    return rows


def _unknown(table: "pd.DataFrame") -> tuple[str, str]:
    """(measured, verdict) of what a table does not tell: undecided where times, or what a step adds, are not above 0."""
    seconds = table["seconds"].dropna()
    odd = not ((seconds > 0) & (seconds < math.inf)).all() or (len(seconds) and (floors(table)["us"] <= 0).any())
    return (UNDEFINED, "ambiguous") if odd else (NOT, NOT)


def device_name(table: "pd.DataFrame") -> str:
    """The name of a table's GPU in plans, such as sm_90; empty without a GPU."""
    capability = (table.attrs.get("machine") or {}).get("capability")
    return f"sm_{str(capability).replace('.', '')}" if capability else ""


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
