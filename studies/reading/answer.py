"""The answer of reading, from its table."""

from typing import TYPE_CHECKING

from recurrent_lm.lm import InputError
from recurrent_lm.studies.plotting.plots import Answer
from recurrent_lm.studies.reading.figures import first_gain, likeliest, next_finding

if TYPE_CHECKING:
    import pandas as pd


def answer(table: "pd.DataFrame", claims: "pd.DataFrame") -> Answer | None:
    """The next word, and whether the carried state helps."""
    try:
        likeliest(table)
    except InputError:
        return None
    gain = first_gain(table)
    told = next_finding(table, claims).removesuffix(".")
    if gain > 0:
        return Answer(f"{told}, and a state carried from batch to batch saves {gain:.2f} nats at a batch's first word.", "next")
    return Answer(f"{told}, but a state carried from batch to batch saves nothing at a batch's first word.", "next")
