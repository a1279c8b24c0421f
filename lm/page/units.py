"""Scores single units of a character model: how well each separates quotations, line ends, capitals and places in a word or
line.

A unit's state is h, or tanh(c) in an LSTM, as Karpathy et al. 2015 coloured it ("Visualizing and understanding recurrent
networks").
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.stats import rankdata

from recurrent_lm.lm.model import LanguageModel, State
from recurrent_lm.lm.text.tokenizer import EOS

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS, STEPS = 32, 600  # at most: parts of the text that are read in parallel, counted characters of each
WARM_UP = 50  # uncounted characters before each part
FEW = 20  # a property is scored only with at least this many characters that have it, and that lack it
LARGE = 99.0  # percentile of a unit's |state| that gets the full colour
OPENING, CLOSING, STRAIGHT = "“«„", "”»", '"'


@dataclass(frozen=True)
class Units:
    """``scores``: for each property a number in [0, 1] for each unit, layer by layer; ``scale`` [units]: its largest usual
    state.

    A score is |2 AUC - 1| of separating the characters with the property from the others (0: not at all, 1: completely), or the
    absolute rank correlation with a place.
    """

    scores: dict[str, "NDArray[np.float64]"]
    scale: "NDArray[np.float64]"


def probe(model: LanguageModel, ids: "NDArray[np.int32]", characters: list[str]) -> Units:
    """Read a text and score every unit.

    Args:
        model: the model of characters.
        ids: [T], the tokens of a text.
        characters: [T], the character of each token, "" if it is none.

    Returns:
        A score for each property and unit, [layers * h] each.
    """
    rows = min(max(len(ids) // (4 * WARM_UP), 1), ROWS)
    length = min(STEPS, max((len(ids) - 1) // rows - WARM_UP, 1))
    begins = np.linspace(0, max(len(ids) - 1 - WARM_UP - length, 0), rows).astype(int)
    at = np.minimum(begins[:, None] + np.arange(WARM_UP + length), len(ids) - 2)  # the next character is needed, too
    states, state = [], model.zero_state(rows)
    with torch.no_grad():
        for column in at.T:
            tokens = torch.from_numpy(ids[column].astype(np.int64))[:, None].to(model.embedding.weight.device)
            _, state = model(tokens, state)
            states.append(values(state))
    counted = at.T[WARM_UP:].flatten()
    told = np.stack(states[WARM_UP:]).reshape(len(counted), -1)
    ranks = rankdata(told, axis=0)
    scores = {}
    for name, (property_of, score) in PROPERTIES.items():
        property_values = property_of(characters)[counted]
        if (score is _auc and not FEW <= property_values.sum() <= len(property_values) - FEW) or len(set(property_values)) < 2:
            continue
        scores[name] = score(ranks, property_values)
    return Units(scores, np.percentile(np.abs(told), LARGE, axis=0))


def values(state: State) -> "NDArray[np.float64]":
    """Every unit's state, [rows, layers * h]."""
    parts = [torch.tanh(part[1]) if isinstance(part, tuple) else part for part in state]
    return torch.cat([part[0] for part in parts], dim=1).cpu().double().numpy()


# -- properties of each character of a text -------------------------------------------------------------------------


def _quoted(characters: list[str]) -> "NDArray[np.float64]":
    inside, flags = False, []
    for c in characters:
        inside = not inside if c == STRAIGHT else c in OPENING if c and c in OPENING + CLOSING else inside
        flags.append(inside and c != "\n")
        inside = inside and c not in ("\n", "")
    return np.array(flags, dtype=float)


def _before(condition: Callable[[str], bool]) -> Callable[[list[str]], "NDArray[np.float64]"]:
    return lambda characters: np.array([*(condition(b) for _, b in pairwise(characters)), False], dtype=float)


def _since(condition: Callable[[str], bool]) -> Callable[[list[str]], "NDArray[np.float64]"]:
    def count(characters: list[str]) -> "NDArray[np.float64]":
        place, places = 0, []
        for c in characters:
            place = 0 if condition(c) else place + 1
            places.append(place)
        return np.array(places, dtype=float)

    return count


# -- scores of all units for one property ---------------------------------------------------------------------------


def _auc(ranks: "NDArray[np.float64]", flags: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """|2 AUC - 1| from the ranks [T, units] (Mann and Whitney's statistic)."""
    ones, zeros = flags.sum(), len(flags) - flags.sum()
    auc = (flags @ ranks - ones * (ones + 1) / 2) / (ones * zeros)
    return np.abs(2 * auc - 1)


def _correlation(ranks: "NDArray[np.float64]", values: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """|Spearman's rank correlation| with each unit's ranks [T, units]."""
    place = rankdata(values) - (len(values) + 1) / 2
    centred = ranks - (len(values) + 1) / 2
    norms = np.sqrt((centred**2).sum(axis=0) * (place**2).sum())
    return np.abs(np.divide(place @ centred, norms, out=np.zeros(ranks.shape[1]), where=norms > 0))


PROPERTIES = {
    "inside quotation marks": (_quoted, _auc),
    "before the end of a line": (_before(lambda c: c in ("\n", "\r", "")), _auc),
    "before a capital": (_before(str.isupper), _auc),
    "place in the word": (_since(lambda c: not c.isalnum()), _correlation),
    "place in the line": (_since(lambda c: c in ("\n", "")), _correlation),
}


def characters_of(ids: "NDArray[np.int32]", show: Callable[[int], str]) -> list[str]:
    """The character of each token of a character model; "" for <eos> and parts of characters."""
    names = [show(int(i)) for i in ids]
    return [name if len(name) == 1 and i != EOS else "" for i, name in zip(ids, names, strict=True)]
