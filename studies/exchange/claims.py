"""What the table of exchange decides: that all read what was written, which protocol waits less, and by what plans predict."""

import math
from typing import TYPE_CHECKING, Any

from recurrent_lm import kernels
from recurrent_lm.studies.engine.claims import NOT, Claim
from recurrent_lm.studies.engine.statistics import UNDEFINED, decided
from recurrent_lm.studies.exchange.measured_constants import LAUNCH, PROTOCOLS, allowed, constants_of, device_name, floors
from recurrent_lm.studies.timing.work import DTYPES

if TYPE_CHECKING:
    import pandas as pd


def claims(table: "pd.DataFrame") -> list[Claim]:
    """Nobody reads what is not yet written; the sentinel waits less than the counter; what plans predict by is what is here."""

    worst, limit = float(table["error"].max(skipna=False)), allowed(DTYPES[table.attrs["parameters"]["dtype"]])
    text, threshold = "every program reads what the others wrote", f"error <= {limit:.1e}"
    measured = "" if math.isnan(worst) else f"{worst:.1e}"
    rows = [Claim("right", text, "the exchange in float64", "all protocols and sizes", threshold, measured, worst <= limit)]
    about = floors(table)
    intervals = constants_of(about)
    sentinel, counter = intervals["WAIT.sentinel"], intervals["WAIT.counter"]
    known = not math.isnan(sentinel.low) and not math.isnan(counter.low)
    measured = f"{sentinel} and {counter} µs" if known else _unknown(table, about)
    verdict: Any = True if sentinel.high < counter.low else False if sentinel.low > counter.high else None
    text = "the sentinel waits less than the counter"
    rows.append(Claim("sentinel", text, "aim of the kernels", "wait of a step", "intervals apart", measured, verdict))
    device = device_name(table)
    estimates = kernels.ESTIMATES
    for name, interval in intervals.items():
        used = kernels.constant(device, name, estimates[name])
        measured = f"{interval.told('.3g')}, and {used:.3g} is used"
        if math.isnan(interval.value):
            mine = [LAUNCH] if name == "LAUNCH" else [LAUNCH, *PROTOCOLS]
            measured = _unknown(*(frame[frame["protocol"].isin(mine)] for frame in (table, about)))
        verdict = decided(interval, used / 1.25, used * 1.25)
        text, threshold = f"plans predict by the {name} of this GPU", "within a factor of 1.25"
        setting = device or "no GPU"
        rows.append(Claim(f"constant.{name}", text, "kernels/rnn/plan.py", setting, threshold, measured, verdict))
    return rows


def _unknown(table: "pd.DataFrame", about: "pd.DataFrame") -> str:
    """What stands for a number that a table does not tell: undefined where times, or what a step adds, are not above 0."""
    seconds = table["seconds"].dropna()
    odd = not ((seconds > 0) & (seconds < math.inf)).all() or (len(seconds) and (about["us"] <= 0).any())
    return UNDEFINED if odd else NOT
