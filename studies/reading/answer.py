"""What reading answers, in sentences made from its table."""

from typing import TYPE_CHECKING

from recurrent_lm.studies.engine.answers import Answer, both
from recurrent_lm.studies.reading.claims import gains, misplaced

if TYPE_CHECKING:
    import pandas as pd


def answer(table: "pd.DataFrame", claims: "pd.DataFrame") -> Answer | None:
    """The next word, and whether the carried state helps."""
    expected, gain = _next(table, claims), _first(table)
    if not expected or gain != gain:
        return None
    saved = f"{gain:.2f} nats" if gain > 0 else "nothing"
    return Answer(both(expected, f"The state carried from pass to pass saves {saved} at a pass's first word."), "next")


def _first(table: "pd.DataFrame") -> float:
    """Nats that carrying saves at the first position, mean over seeds."""
    saved = gains(table)
    return float(saved.loc[saved["column"] == 1, "value"].mean())


def _next(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    rows = table[table["part"] == "next"].sort_values(["seed", "place"])
    if rows.empty:
        return ""
    word, value = rows.iloc[0]["token"], rows.iloc[0]["value"]
    return f"Behind “{table.attrs['parameters']['prompt']}” the model expects “{word}” first, with probability {value:.1%}."


def _cut(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    sizes, wrong = table.attrs["parameters"], misplaced(table)
    if wrong:
        return f"{wrong} tokens are not where the lecture's cut has them."
    second = f", row 2 at word {sizes['cut_tau'] + 1}" if sizes["cut_rows"] > 1 else ""
    return f"Row 1 begins at word 1{second}; each pass reads the next {sizes['cut_bptt']} words of every row."


def _state(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    gain = _first(table)
    if gain != gain:
        return ""
    if gain > 0:
        return f"A state carried from the pass before saves {gain:.2f} nats at the first word of a pass."
    return f"A state carried from the pass before saves nothing at the first word of a pass ({gain:+.2f} nats)."


FINDINGS = {"next": _next, "cut": _cut, "state": _state}
