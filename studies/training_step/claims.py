"""What the table of training_step decides: whether the trainer is as fast, and as small, as it aims to be."""

import math
from typing import TYPE_CHECKING

from recurrent_lm.studies.engine.claims import Claim
from recurrent_lm.studies.engine.statistics import UNDEFINED, decided, paired_ratio
from recurrent_lm.studies.timing.steps import PLAIN

if TYPE_CHECKING:
    import pandas as pd


def claims(table: "pd.DataFrame") -> list[Claim]:
    """The trainer's three aims: as fast in float32, twice as fast in bf16, half the memory."""
    source, setting = "aim of the trainer", ", ".join(f"{k} {v}" for k, v in table.attrs["parameters"].items())
    seconds = table.pivot(index="round", columns="variant", values="seconds")
    halves = (
        "products of halves pay only where a processor multiplies them faster than float32, which lm train --precision auto "
        "measures before it takes them"
    )
    rows = []
    for variant, aim, why in (("lm float32", 1.0, ""), ("lm bf16", 2.0, halves)):
        both = seconds[[PLAIN, variant]].dropna()
        speed = paired_ratio(both[PLAIN], both[variant])
        measured = "" if both.empty else UNDEFINED if math.isnan(speed.value) else str(speed)
        text, facts = f"{variant} is at least {aim:g} times as fast as the {PLAIN}", {"aim": aim, "speed": speed}
        verdict = decided(speed, low=aim)
        rows.append(Claim(f"speed.{variant}", text, source, setting, f">= {aim:g}", measured, verdict, why, facts))
    peaks = table.groupby("variant")["peak_bytes"].first()
    for variant in ("lm float32", "lm bf16"):
        claim = f"memory.{variant}", f"{variant} needs at most half the {PLAIN}'s peak of tensor memory", source, setting
        share, held = math.nan, f"{peaks[variant] / 1e6:.1f} of {peaks[PLAIN] / 1e6:.1f} MB"
        if peaks[PLAIN] > 0 and peaks[variant] > 0:  # every step holds something
            share = peaks[variant] / peaks[PLAIN]
        measured = UNDEFINED if math.isnan(share) else f"{share:.2f} ({held})"
        rows.append(Claim(*claim, "<= 0.5", measured, share <= 0.5, "", {"share": share, "held": held}))
    return rows
