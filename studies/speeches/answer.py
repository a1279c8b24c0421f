"""What speeches answers, in sentences made from its table."""

from typing import TYPE_CHECKING

from recurrent_lm.studies.engine.answers import Answer, both, uncertain
from recurrent_lm.studies.engine.claims import select
from recurrent_lm.studies.speeches.figures import NAMES

if TYPE_CHECKING:
    import pandas as pd


def answer(table: "pd.DataFrame", claims: "pd.DataFrame") -> Answer | None:
    """The best network of each speaker, against counting words, and how new its texts are."""
    best = _cells(table, claims)
    if not best:
        return None
    written = table[(table["part"] == "sample") & (table["temperature"] > 0)]["novel"].dropna()
    if written.empty:
        return Answer(best, "cells")
    new = "is new" if written.median() > 0.5 else "is copied"
    share = written.median() if new == "is new" else 1 - written.median()
    return Answer(both(best, f"Of what the models write, {share:.0%} {new}."), "cells")


def _cells(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    scores = table[(table["part"] == "score") & (table["corpus"] == table["text"])]
    told, networks, ahead = [], set(), []
    for name, of in scores.groupby("corpus", sort=False):
        by = of.groupby(["way", "cell"])["bits_per_byte"].median().dropna()
        if "network" not in by.index or "n-gram" not in by.index:
            continue
        network, counted = by["network"], by["n-gram"].min()
        networks.add(NAMES[str(network.idxmin())])
        ahead.append(bool(network.min() < counted))
        told.append(f"{name} {network.min():.3f} against {counted:.3f}")
    if not told:
        return ""
    who = f"{' and '.join(sorted(networks))} predict best"
    if len(networks) == 1:
        (one,) = networks
        who = f"{'an' if one == 'LSTM' else 'a'} {one} predicts best"
    than = "better than counting words" if all(ahead) else "but not always better than counting words"
    doubt = uncertain(select(claims, "gates"))
    return f"{who[0].upper()}{who[1:]}, {than}, in bits per byte: {', '.join(told)}{doubt}."


FINDINGS = {"cells": _cells}
