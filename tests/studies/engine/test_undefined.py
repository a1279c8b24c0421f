"""Measurements of 0, of nothing but the same, missing, tiny or infinite: every study's claims and summary have a word for them,
and nothing that cannot be formed counts as true."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from undefined_cases import CASES, PLACES, WRONG, changed, table_of

from recurrent_lm import studies

VERDICTS = {"holds", "fails", "ambiguous", "not measured"}


def check(table):
    """The claims: each has a verdict and a reason to be open, and what holds was told in finite numbers."""
    claims = studies.verdicts(table)
    assert set(claims["verdict"]) <= VERDICTS
    assert not claims["measured"].str.contains("nan").any(), claims["measured"].tolist()
    assert ((claims["measured"] == "not measured") == (claims["verdict"] == "not measured")).all()
    held = claims[claims["verdict"] == "holds"]
    assert not held["measured"].str.contains(r"\binf\b|undefined|no interval|one seed", regex=True).any(), held[
        "measured"
    ].tolist()
    undecided = claims[(claims["verdict"] == "ambiguous") & claims["measured"].str.contains("undefined|no interval")]
    assert undecided["reason"].str.len().gt(0).all()
    about = studies.summary(table)
    if "compared" in about:
        decided = about[about["compared"].isin(["faster", "slower", "same"])]
        assert (decided["speed"] > 0).all() and np.isfinite(decided[["speed", "speed_low", "speed_high"]]).all(axis=None)
        assert not np.isinf(about.select_dtypes("float64").drop(columns="error")).any(axis=None)
    return claims.set_index(["claim", "setting"])["verdict"]


@pytest.mark.parametrize("name", CASES)
def test_a_table_as_it_should_be_decides_something(name):
    """The certificate: what follows is of tables in which claims do hold."""
    assert (check(table_of(name)) == "holds").any()


@pytest.mark.parametrize(("name", "column"), PLACES)
@pytest.mark.parametrize("kind", [*WRONG, "same"])
def test_a_whole_column_that_says_nothing_raises_nothing(name, column, kind):
    check(changed(name, column, kind, table_of(name).index))


@given(data=st.data(), place=st.sampled_from(PLACES), kind=st.sampled_from([*WRONG, "same"]))
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_some_rows_that_say_nothing_raise_nothing(data, place, kind):
    name, column = place
    count = len(table_of(name))
    rows = data.draw(
        st.lists(st.integers(0, count - 1), min_size=1, max_size=30) | st.slices(count).map(range(count).__getitem__)
    )
    check(changed(name, column, kind, list(rows)))


# What was found by such tables, or by reading: the study, the column, its value, and a claim that must not hold.
FOUND = [
    ("throughput", "seconds", "tiny", "is not slower than torch.nn's"),  # floor / 0 microseconds was a traceback
    ("throughput", "seconds", "zero", "take longer than the same multiplications"),
    ("throughput", "error", "missing", "computes what float64 does"),  # a result of nan was left out, and the rest agreed
    ("throughput", "error", "infinite", "computes what float64 does"),
    ("throughput", "peak_bytes", "zero", "holds at most half the memory"),
    ("training_step", "seconds", "zero", "times as fast"),
    ("training_step", "seconds", "same", "times as fast"),
    ("training_step", "peak_bytes", "negative", "at most half"),  # a share below 0 held
    ("backends", "tokens_per_second", "zero", "at least as fast"),
    ("backends", "valid_loss", "infinite", "learns the curve"),  # infinity less infinity had no largest distance: a traceback
    ("speeches", "bits_per_byte", "zero", "predicted best by"),  # a traceback
    ("speeches", "bits_per_byte", "zero", "predicts better"),
    ("speeches", "novel", "infinite", "is not copied"),
    ("weight_tying", "parameters", "zero", "hold most of an untied model"),  # 0 / 0 of all was a traceback
    ("weight_tying", "parameters", "zero", "saves |V| x h"),
    ("weight_tying", "perplexity", "zero", "tied model predicts better"),
    ("gradient_lag", "weight_norm", "zero", "parts of far steps are smaller"),
    ("gradient_lag", "weight_norm", "same", "parts of far steps are smaller"),
    ("gradient_flow", "value", "huge", "gates help"),  # e to that power was a traceback
    ("gradient_flow", "value", "missing", "vanishing is usual"),
    ("long_range", "nats", "zero", "biased toward recent inputs"),
    ("long_range", "nats", "infinite", "biased toward recent inputs"),
    ("long_range", "error", "missing", "the T where success is 80%"),  # shares of nothing counted as success
    ("clipping", "value", "zero", "the steepest b"),  # a traceback
    ("clipping", "value", "zero", "dE/db on the ridge"),  # a formula of 0 was passed over
    ("clipping", "value", "infinite", "fixed points appear"),  # infinity is no whole number: a traceback
    ("clipping", "value", "infinite", "misses the cliff"),
    ("clipping", "value", "zero", "any threshold"),
    ("exchange", "seconds", "zero", "waits less than"),  # bytes over 0 microseconds was a traceback
    ("exchange", "seconds", "tiny", "waits less than"),  # its reciprocal is infinite: no least squares
    ("exchange", "error", "missing", "reads what the others wrote"),
]


@pytest.mark.parametrize(("name", "column", "kind", "words"), FOUND)
def test_what_is_undefined_decides_no_claim(name, column, kind, words):
    found = check(changed(name, column, kind, table_of(name).index))
    mine = found[[words in claim for claim, _ in found.index]]
    assert len(mine) and not (mine == "holds").any(), mine.to_string()


@pytest.mark.parametrize(
    ("name", "column", "words"),
    [
        ("throughput", "seconds", "kernels:torch's recurrence is not slower"),
        ("training_step", "seconds", "times as fast"),
        ("backends", "tokens_per_second", "at least as fast"),
        ("speeches", "bits_per_byte", "predicted best by"),
        ("weight_tying", "perplexity", "predicts better than an untied one of the same d"),
        ("exchange", "seconds", "waits less than"),
    ],
)
def test_a_ratio_to_zero_is_ambiguous_and_says_so(name, column, words):
    claims = studies.verdicts(changed(name, column, "zero", table_of(name).index))
    mine = claims[claims["claim"].str.contains(words, regex=False)]
    assert set(mine["verdict"]) == {"ambiguous"} and mine["measured"].str.contains("undefined").all()
    assert mine["reason"].str.contains("0, negative or not finite").all()


def test_one_size_whose_clock_stood_still_is_enough_to_leave_every_size_undecided():
    table = table_of("throughput")
    assert "recurrence" in set(table["part"])
    rows = table.index[(table["part"] == "recurrence") & (table["variant"] == "kernels:torch") & (table["steps"] == 16)]
    before, after = (
        studies.verdicts(t).set_index("claim")["verdict"] for t in (table, changed("throughput", "seconds", "zero", rows))
    )
    claim = "kernels:torch's recurrence is not slower than torch.nn's"
    assert set(before.loc[[claim]]) == {"holds"} and "holds" not in set(after.loc[[claim]])
