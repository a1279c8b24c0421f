"""What the table of weight_tying decides: the lecture's counts, and what tying does to perplexity."""

from typing import TYPE_CHECKING

from recurrent_lm.studies.engine.claims import Claim
from recurrent_lm.studies.engine.statistics import UNDEFINED, decided, paired_ratio
from recurrent_lm.studies.weight_tying.sizes import MATRICES, SMALLER

if TYPE_CHECKING:
    import pandas as pd

PAIRS = {  # key: claim, tied, untied
    "tied.same_width": ("a tied model predicts better than an untied one of the same d and h", "tied, d = h", "untied, d = h"),
    "tied.same_count": ("a tied model predicts better than an untied one with as many parameters", "tied, d = h", SMALLER),
    "tied.projection": (
        "where d < h, tying through a projection predicts better than not tying",
        "tied by a projection",
        "untied, d < h",
    ),
}


def claims(table: "pd.DataFrame") -> list[Claim]:
    """The slide's counts, which are exact, and what tying does to perplexity, pair by pair of corpus and seed."""
    counts, models = table[table["part"] == "counts"], table[table["part"] == "model"]
    rows = [_formula(counts), _saving(counts), *_most(counts)]
    source, p = "Press & Wolf 2017, Inan et al. 2017; lecture, slide Weight tying", table.attrs["parameters"]
    for key, (text, tied, untied) in PAIRS.items():
        pairs = _pairs(models, tied, untied)
        ratio, many = paired_ratio(pairs[tied], pairs[untied]), len(pairs)
        setting = f"{p['cell']}, h = {p['hidden']}, {many} pair{'s' * (many > 1)} of corpus and seed"
        measured = "" if not many else UNDEFINED if ratio.value != ratio.value else ratio.told(".3f")
        verdict = decided(ratio, high=1)
        why = _why(pairs) if many and verdict == "ambiguous" else ""
        rows.append(Claim(key, text, source, setting, "perplexity ratio < 1", measured, verdict, why))
    return rows


def _why(pairs: "pd.DataFrame") -> str:
    """Why a ratio is not decided: what each corpus says alone."""
    each = (pairs.iloc[:, 0] / pairs.iloc[:, 1]).groupby("corpus").median()
    if each.min() < 1 < each.max():
        return f"the corpora do not agree: {', '.join(f'{name} {value:.3f}' for name, value in each.items())}"
    return f"{len(pairs)} pairs are few for a difference as small as this"


def _pairs(models: "pd.DataFrame", *variants: str) -> "pd.DataFrame":
    wide = models.pivot(index=["corpus", "seed"], columns="variant", values="perplexity")
    return wide.reindex(columns=list(variants)).dropna()


def _formula(counts: "pd.DataFrame") -> Claim:
    text, source = "every matrix has as many parameters as the lecture says", "lecture, slide Parameters"
    seen = counts[counts["matrix"] != "biases"]
    wrong = int((seen["parameters"] != seen["formula"]).sum())
    measured = f"{len(seen) - wrong} of {len(seen)} counts are equal" if len(seen) else ""
    return Claim("formula", text, source, _sizes(counts), "equal", measured, not wrong)


def _saving(counts: "pd.DataFrame") -> Claim:
    about = "saving", "where d = h, tying saves |V| x h parameters", "lecture, slide Weight tying"
    total = counts.groupby(["vocabulary", "h", "variant"])["parameters"].sum().unstack()
    total = total.reindex(columns=["tied, d = h", "untied, d = h"]).dropna()
    if total.empty:
        return Claim(*about, "", "equal")
    if not (total > 0).all(axis=None):
        return Claim(*about, _sizes(counts), "equal", UNDEFINED)
    saved = (total["untied, d = h"] - total["tied, d = h"]).reset_index(name="saved")
    right = int((saved["saved"] == saved["vocabulary"] * saved["h"]).sum())
    share = (total["untied, d = h"] - total["tied, d = h"]) / total["untied, d = h"]
    measured = f"{right} of {len(saved)} are equal; {share.min():.0%} to {share.max():.0%} of all parameters"
    return Claim(*about, _sizes(counts), "equal", measured, right == len(saved))


def _most(counts: "pd.DataFrame") -> list[Claim]:
    """One row a vocabulary: it is true where |V| exceeds h, and not of every vocabulary."""
    about = "most", "E and U hold most of an untied model's parameters", "lecture, slide Parameters"
    why = "E and U are 2 |V| h numbers and W_i and W_h are 2 h^2, so they hold most of them only where |V| is larger than h"
    rows = []
    for vocabulary, group in counts[counts["variant"] == "untied, d = h"].groupby("vocabulary"):
        wide = group.pivot(index="h", columns="matrix", values="parameters").reindex(columns=list(MATRICES)).dropna()
        if wide.empty:
            continue
        measured, right = UNDEFINED, None
        if (wide >= 0).all(axis=None) and (wide.sum(axis=1) > 0).all():
            share = (wide["E"] + wide["U"]) / wide.sum(axis=1)
            measured = f"{share.min():.1%} at h = {share.idxmin()} to {share.max():.1%} at h = {share.idxmax()}"
            right = bool(share.min() > 0.5)
        setting = f"|V| = {vocabulary:,}, an Elman network"
        rows.append(Claim(*about, setting, "> 50% at every size", measured, right, why))
    return rows or [Claim(*about, "", "> 50% at every size")]


def _sizes(counts: "pd.DataFrame") -> str:
    if counts.empty:
        return ""
    v, h = sorted(counts["vocabulary"].unique()), sorted(counts["h"].unique())
    return f"an Elman network, |V| = {', '.join(f'{x:,}' for x in v)}, h = {', '.join(map(str, h))}"
