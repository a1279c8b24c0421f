"""What training_step answers, in a sentence made from its table."""

import math
from typing import TYPE_CHECKING

from recurrent_lm.studies.engine.answers import Answer
from recurrent_lm.studies.training_step.figures import OURS, PLAIN

if TYPE_CHECKING:
    import pandas as pd


def answer(table: "pd.DataFrame", claims: "pd.DataFrame") -> Answer | None:
    """Time and memory of each variant as parts of the plain loop's."""
    told, times, peaks = [], [], []
    seconds = table.pivot(index="round", columns="variant", values="seconds")
    memory = table.groupby("variant")["peak_bytes"].first()
    for variant in (v for v in OURS if v in seconds and PLAIN in seconds):
        time = float((seconds[variant] / seconds[PLAIN]).median())
        peak = float(memory[variant] / memory[PLAIN]) if memory[PLAIN] else math.nan
        if not math.isfinite(time + peak):
            return None
        told.append(f"{variant.removeprefix('lm ')}: {time:.2f} times the time, {peak:.2f} times the memory")
        times.append(time)
        peaks.append(peak)
    if not told:
        return None
    verdict = "costs less" if max(*times, *peaks) < 1 else "costs more" if min(*times, *peaks) > 1 else "costs less in part"
    return Answer(f"A training step {verdict} than a plain torch.nn loop's ({'; '.join(told)}).", "cost")


def _cost(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    answered = answer(table, claims)
    return answered.sentence if answered else ""


FINDINGS = {"cost": _cost}
