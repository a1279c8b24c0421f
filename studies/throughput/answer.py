"""What throughput answers, in sentences made from its table."""

from typing import TYPE_CHECKING, Any

from recurrent_lm.studies.engine.answers import Answer
from recurrent_lm.studies.throughput.figures import speed
from recurrent_lm.studies.throughput.figures.shared import base, ours, shown, sizes

if TYPE_CHECKING:
    import pandas as pd


def answer(table: "pd.DataFrame", claims: "pd.DataFrame") -> Answer | None:
    """How fast training steps are beside torch.nn's; of a table without such, recurrences."""
    for name, told in (("training", _training(table, claims)), ("cells", _cells(table, claims))):
        if told:
            return Answer(told, name)
    return None


def _range(rows: "pd.DataFrame", subject: str) -> str:
    """The least and the largest speed of this project's variant, and what that comes to."""
    mine = ours(rows["variant"])
    own = rows[rows["variant"] == mine]["speed"].dropna()
    if own.empty:
        return ""
    low, high = own.min(), own.max()
    word = "faster than" if low > 1.03 else "slower than" if high < 1 / 1.03 else "about as fast as"
    if word == "about as fast as" and (low < 0.8 or high > 1.25):
        word = "sometimes slower, sometimes faster than" if low < 0.8 else "as fast as or faster than"
    reach = f"{low:.2f} to {high:.2f}" if len(own) > 1 else f"{low:.2f}"
    return f"On this machine {subject} of {mine} is {word} torch.nn's: {reach} times its speed."


def _training(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    return _range(speed.training(table), "a training step")


def _cells(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    return _range(speed.cells(table), "a recurrence")


def _at(table: "pd.DataFrame", part: str) -> tuple[str, Any]:
    """This project's variant at the first sizes, and its row; an empty name where none was timed."""
    at = base(table, shown(table, part))
    mine = ours(at.index)
    return mine, at.loc[mine] if mine else None


def _recurrence(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    mine, row = _at(table, "recurrence")
    return f"A sequence through one layer takes {mine} {row['seconds'] * 1e3:.3g} ms at {sizes(row)}." if mine else ""


def _loss(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    mine, row = _at(table, "cross_entropy")
    return f"The loss takes {mine} {row['seconds'] * 1e3:.3g} ms at {sizes(row)}." if mine else ""


def _waiting(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    rows = shown(table, "sequential")
    steps = rows[(rows["variant"] == "steps") & (rows["speed"] > 0)]
    if steps.empty:
        return ""
    costs = 1 / steps["speed"]
    reach = f"{costs.min():.1f} to {costs.max():.1f} times as long as the same arithmetic at once"
    if costs.min() > 1:
        return f"Steps that wait for each other take {reach}."
    return f"Waiting does not cost time at every size: steps take {reach}."


FINDINGS = {"training": _training, "cells": _cells, "recurrence": _recurrence, "loss": _loss, "waiting": _waiting}
