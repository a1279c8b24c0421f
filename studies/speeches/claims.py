"""What the table of speeches decides: which model predicts which text best, and whether samples repeat themselves or copy."""

import math
from typing import Any

import numpy as np
import pandas as pd

from recurrent_lm.studies.engine.claims import Claim
from recurrent_lm.studies.engine.statistics import (
    NO_INTERVAL,
    UNDEFINED,
    Interval,
    decided,
    exp,
    mean,
    median,
    paired_ratio,
    share,
)
from recurrent_lm.studies.speeches.samples import DRAWN, LIKELY

FEWER = "fewer bits per byte of its test text, by a 95% interval over seeds"
ONE = "one seed shows no spread, so nothing says which would be ahead with another; --set seeds=5"
FEW = "the interval reaches across the limit: the seeds, or the texts, do not agree"


def claims(table: "pd.DataFrame") -> list[Claim]:
    """Own texts are known best; gates help; counting and networks know different things; what is written is new, or not."""
    scores, samples = table[table["bits_per_byte"].notna()], table[table["part"] == "sample"]
    tokens = table.attrs["parameters"]["tokens"]
    return [_own(scores), *_gates(scores, tokens), *_counting(scores, tokens), _repeats(samples), _novel(samples)]


def _own(scores: "pd.DataFrame") -> Claim:
    text = "a text is predicted best by the model of its own speaker"
    claim = "own", text, "lecture, slide Generating text"
    of = scores[scores["way"] == "network"].pivot_table(
        index=["cell", "seed", "text"], columns="corpus", values="bits_per_byte", aggfunc="first"
    )
    texts: list[Any] = list(of.index.get_level_values("text"))
    rows: list[tuple[Any, Any]] = list(zip(texts, of.to_dict("records"), strict=True))
    pairs = [(row[at], min(x for name, x in row.items() if name != at)) for at, row in rows if at in row and len(row) > 1]
    threshold = "fewer bits per byte, for every cell, seed and text; the median ratio's 95% interval above 1"
    if not pairs:
        return Claim(*claim, "all", threshold)
    own, other = (pd.Series(values) for values in zip(*pairs, strict=True))
    ratio = paired_ratio(other, own)
    if math.isnan(ratio.value):
        return Claim(*claim, "all cells", threshold, UNDEFINED)
    right = int((own < other).sum())
    measured = f"{right} of {len(pairs)}; another speaker's model needs {(other / own).min():.2f} times as many bits, or more"
    measured += f", median {ratio}"
    verdict = decided(ratio, low=1)
    verdict = "ambiguous" if verdict == "holds" and right < len(pairs) else verdict
    return Claim(*claim, "all cells", threshold, measured, verdict, _why(verdict))


def _why(verdict: str, seeds: int = 0) -> str:
    """Why two numbers do not decide."""
    return "" if verdict != "ambiguous" else ONE if seeds == 1 else FEW


def _gates(scores: "pd.DataFrame", tokens: str) -> list[Claim]:
    """An LSTM and a GRU against the best Elman network, corpus by corpus."""
    source, threshold = "lecture, slides Why it matters and Problem with the vanilla RNN", FEWER
    own = scores[(scores["way"] == "network") & (scores["corpus"] == scores["text"])]
    rows: list[Claim] = []
    for corpus, group in own.groupby("corpus", sort=False):
        middle = group.groupby("cell")["bits_per_byte"].median()
        plain = middle[[cell for cell in middle.index if cell.startswith("rnn-")]]
        for cell in ("lstm", "gru"):
            if cell in middle.index and len(plain):
                best = group[group["cell"].isin(plain.index)].groupby("seed")["bits_per_byte"].min()
                ratio, verdict, why = _fewer(group[group["cell"] == cell].set_index("seed")["bits_per_byte"], best)
                measured = f"{middle[cell]:.3f} against {plain.min():.3f} ({plain.idxmin()}); {ratio}"
                text = f"gates help: a {cell} predicts better than the best Elman network"
                rows.append(
                    Claim(f"gates.{cell}", text, source, f"{corpus}, {tokens} tokens", threshold, measured, verdict, why)
                )
    return rows


def _counting(scores: "pd.DataFrame", tokens: str) -> list[Claim]:
    own = scores[scores["corpus"] == scores["text"]]
    rows: list[Claim] = []
    for corpus, group in own.groupby("corpus", sort=False):
        middle = group.groupby(["way", "cell"])["bits_per_byte"].median()
        best = {way: middle[way].min() for way in ("network", "n-gram", "mixture") if way in middle.index}
        if len(best) < 3:
            continue
        setting = f"{corpus}, {tokens} tokens, the best of all cells"
        source = "Chen & Goodman 1998; Mikolov et al. 2010"
        by_seed = group.groupby(["seed", "way"])["bits_per_byte"].min().unstack()
        text = "a network predicts better than an n-gram model"
        ratio, verdict, why = _fewer(by_seed["network"], by_seed["n-gram"])
        measured = f"{best['network']:.3f} against {best['n-gram']:.3f}; {ratio}"
        rows.append(Claim("network", text, source, setting, FEWER, measured, verdict, why))
        text, alone = "a mixture of both predicts better than either", by_seed[["network", "n-gram"]].min(axis=1)
        ratio, verdict, why = _fewer(by_seed["mixture"], alone)
        measured = f"{best['mixture']:.3f} against {min(best['network'], best['n-gram']):.3f}; {ratio}"
        rows.append(Claim("mixture", text, source, setting, FEWER, measured, verdict, why))
    return rows


def _fewer(own: "pd.Series[float]", other: "pd.Series[float]") -> tuple[str, str, str]:
    """The geometric mean of own / other over seeds that have both, with Student's interval; the verdict on its being < 1, and
    why it is ambiguous."""

    both = pd.concat([own, other], axis=1).dropna().to_numpy()
    if not (np.isfinite(both) & (both > 0)).all():
        return f"ratio {UNDEFINED}", "ambiguous", ""
    logs = mean(np.log(both[:, 0]) - np.log(both[:, 1]))
    many = f"{len(both)} seeds" if len(both) != 1 else "one seed"
    verdict = decided(logs, high=0)
    return f"ratio {Interval(*map(exp, logs)).told('.3f')}, {many}", verdict, _why(verdict, len(both))


def _repeats(samples: "pd.DataFrame") -> Claim:
    text = "taking the likeliest word each time repeats itself more than drawing words"
    claim = "repeats", text, "lecture, slide Generating text (the Trump sample)"
    wide = samples.pivot_table(index=["corpus", "cell", "seed", "prompt"], columns="temperature", values="repeated")
    threshold = "median share of repeated 4-grams is larger"
    pairs = wide.dropna()
    if pairs.empty or not {LIKELY, DRAWN} <= set(pairs.columns):
        return Claim(*claim, "all", threshold)
    likely, drawn = pairs[LIKELY], pairs[DRAWN]
    gap = median(likely - drawn)
    measured = f"{likely.median():.0%} against {drawn.median():.0%}, {len(pairs)} pairs"
    if math.isnan(gap.low):
        measured = f"{measured}, {NO_INTERVAL}" if math.isfinite(gap.value) else UNDEFINED
    verdict = decided(gap, low=0)
    return Claim(*claim, "all models and prompts", threshold, measured, verdict, _why(verdict))


def _novel(samples: "pd.DataFrame") -> Claim:
    text = "what is drawn is not copied: most of its 5-grams are not in the training text"
    drawn = samples[(samples["temperature"] == DRAWN) & samples["novel"].notna()]
    claim = "novel", text, "lecture, slide Generating text", f"temperature {DRAWN}"
    threshold = "> 50% new in every model's samples, and in most samples (Wilson's 95% interval)"
    if drawn.empty:
        return Claim(*claim, threshold)
    if not drawn["novel"].between(0, 1).all():
        return Claim(*claim, threshold, UNDEFINED)
    novel = drawn.groupby(["corpus", "cell"])["novel"].mean()
    most = share(int((drawn["novel"] > 0.5).sum()), len(drawn))
    measured = f"{novel.min():.0%} to {novel.max():.0%} new; the longest overlap is {int(drawn['longest'].max())} words; "
    measured += f"mostly new are {most.told('.0%')} of {len(drawn)} samples"
    verdict = decided(most, low=0.5)
    verdict = "ambiguous" if verdict == "holds" and novel.min() <= 0.5 else verdict
    return Claim(*claim, threshold, measured, verdict, _why(verdict))
