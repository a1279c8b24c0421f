"""What the table of exchange decides: that all read what was written, which protocol waits less, and by what plans predict."""

import math
from typing import TYPE_CHECKING

from recurrent_lm import kernels
from recurrent_lm.studies.engine.claims import NOT, Claim
from recurrent_lm.studies.engine.statistics import UNDEFINED
from recurrent_lm.studies.exchange.measured_constants import LAUNCH, allowed, constants, device_name, floors
from recurrent_lm.studies.timing.work import DTYPES

if TYPE_CHECKING:
    import pandas as pd


def claims(table: "pd.DataFrame") -> list[Claim]:
    """Nobody reads what is not yet written; the sentinel waits less than the counter; what plans predict by is what is here."""

    worst, limit = float(table["error"].max(skipna=False)), allowed(DTYPES[table.attrs["parameters"]["dtype"]])
    text, threshold = "every program reads what the others wrote", f"error <= {limit:.1e}"
    measured = NOT if math.isnan(worst) else f"{worst:.1e}"
    verdict = NOT if math.isnan(worst) else "holds" if worst <= limit else "fails"
    rows = [Claim("right", text, "the exchange in float64", "all protocols and sizes", threshold, measured, verdict)]
    found = constants(table)
    sentinel, counter = found["WAIT.sentinel"], found["WAIT.counter"]
    if math.isnan(sentinel.low) or math.isnan(counter.low):
        measured, verdict = _unknown(table)
    else:
        measured = f"{sentinel} and {counter} µs"
        verdict = "holds" if sentinel.high < counter.low else "fails" if sentinel.low > counter.high else "ambiguous"
    text = "the sentinel waits less than the counter"
    rows.append(Claim("sentinel", text, "aim of the kernels", "wait of a step", "intervals apart", measured, verdict))
    device = device_name(table)
    estimates = kernels.ESTIMATES
    for name, interval in found.items():
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
