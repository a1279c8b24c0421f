"""What a table of reading decides: probabilities sum to 1, the cut is the lecture's, and the carried state helps."""

import math
from typing import TYPE_CHECKING

from recurrent_lm.studies.engine.claims import NOT, Claim
from recurrent_lm.studies.engine.statistics import UNDEFINED, decided, mean

if TYPE_CHECKING:
    import pandas as pd

CLOSE = 1e-9
BEGINNING = 5  # positions at the beginning of a pass


def claims(table: "pd.DataFrame") -> list[Claim]:
    """Three claims of the lecture."""
    return [_sum(table), _cut(table), _carried(table)]


def _sum(table: "pd.DataFrame") -> Claim:
    claim = "sums", "the probabilities of the next word sum to 1", "lecture, slide Language modeling"
    seen = table[(table["part"] == "whole") & (table["way"] == "sum")]["value"]
    settings = f"{len(seen)} model{'s' * (len(seen) != 1)}", f"within {CLOSE:g} of 1"
    if seen.empty:
        return Claim(*claim, *settings, NOT, NOT)
    worst = float((seen - 1).abs().max(skipna=False))
    verdict = "ambiguous" if math.isnan(worst) else "holds" if worst <= CLOSE else "fails"
    return Claim(*claim, *settings, UNDEFINED if math.isnan(worst) else f"off by {worst:.1e} at the most", verdict)


def misplaced(table: "pd.DataFrame") -> int:
    """How many tokens of the cut are not where the lecture has them: row j of pass s begins at (j - 1) tau + (s - 1) L + 1."""
    seen, sizes = table[table["part"] == "cut"], table.attrs["parameters"]
    passes = seen["way"].str.removeprefix("pass ").astype(int)
    wanted = (seen["row"] - 1) * sizes["cut_tau"] + (passes - 1) * sizes["cut_bptt"] + seen["column"]
    return int((wanted != seen["place"]).sum())


def _cut(table: "pd.DataFrame") -> Claim:
    claim = "cut", "row j of a pass continues row j of the pass before", "lecture, slide Mini batches, data preparation"
    seen, sizes = table[table["part"] == "cut"], table.attrs["parameters"]
    setting = f"k = {sizes['cut_rows']}, L = {sizes['cut_bptt']}, tau = {sizes['cut_tau']}"
    if seen.empty:
        return Claim(*claim, setting, "every token in its place", NOT, NOT)
    wrong = misplaced(table)
    measured = f"{len(seen) - wrong} of {len(seen)} tokens"
    return Claim(*claim, setting, "every token in its place", measured, "fails" if wrong else "holds")


def gains(table: "pd.DataFrame") -> "pd.DataFrame":
    """Nats that the carried state saves by seed and position in a pass: columns seed, column, value."""
    seen = table[table["part"] == "state"].pivot_table(index=["seed", "column"], columns="way", values="value", dropna=False)
    if not {"carried", "zero"} <= set(seen.columns):
        return seen.iloc[:0].reset_index().assign(value=[])
    return (seen["zero"] - seen["carried"]).rename("value").reset_index()


def _carried(table: "pd.DataFrame") -> Claim:
    claim = "carried", "a state carried from the pass before predicts better than h(0) = 0", "lecture, slide h(0)"
    saved = gains(table)
    setting = f"the first {BEGINNING} positions of a pass, {saved['seed'].nunique()} seeds"
    threshold = "a difference above 0, by a 95% interval over seeds"
    if saved.empty:
        return Claim(*claim, setting, threshold, NOT, NOT)
    early = mean(saved[saved["column"] <= BEGINNING].groupby("seed")["value"].apply(lambda values: values.mean(skipna=False)))
    if math.isnan(early.value):
        return Claim(*claim, setting, threshold, UNDEFINED, "ambiguous")
    return Claim(*claim, setting, threshold, f"{early.told('.3f')} nats a word", decided(early, low=0))
