"""What exchange answers, in a sentence made from its table."""

from typing import TYPE_CHECKING

from recurrent_lm.studies.engine.answers import Answer
from recurrent_lm.studies.exchange.measured_constants import floors

if TYPE_CHECKING:
    import pandas as pd


def answer(table: "pd.DataFrame", claims: "pd.DataFrame") -> Answer | None:
    """The floor of a step, from the least to the largest exchange that was measured."""
    times = floors(table)
    by = times[times["us"] > 0].set_index("protocol")["us"]
    if "sentinel" not in by.index:
        return None
    steps = by.loc[["sentinel"]]
    return Answer(
        f"A step in which programs only exchange their state takes {steps.min():.2g} to {steps.max():.2g} µs on this GPU."
    )
