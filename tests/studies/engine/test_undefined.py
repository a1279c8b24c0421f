"""Measurements of 0, of nothing but the same, missing, tiny or infinite: every study's claims and summary have a word for them,
and nothing that cannot be formed counts as true."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_tables import CASES, PLACES, WRONG, changed, judged, table_of

from recurrent_lm import studies

VERDICTS = {"holds", "fails", "ambiguous", "not measured"}


def check(table, claims):
    """Each claim has a verdict and a reason to be open, and what holds was told in finite numbers."""
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
    return claims


@pytest.mark.parametrize("name", CASES)
def test_a_table_as_it_should_be_decides_something(name):
    """The certificate: what follows is of tables in which claims do hold."""
    table = table_of(name)
    assert (check(table, studies.verdicts(table))["verdict"] == "holds").any()


@pytest.mark.parametrize(("name", "column"), PLACES)
@pytest.mark.parametrize("kind", [*WRONG, "same"])
def test_a_whole_column_that_says_nothing_raises_nothing(name, column, kind):
    check(*judged(name, column, kind))


@given(data=st.data(), place=st.sampled_from(PLACES), kind=st.sampled_from([*WRONG, "same"]))
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_some_rows_that_say_nothing_raise_nothing(data, place, kind):
    name, column = place
    count = len(table_of(name))
    rows = data.draw(
        st.lists(st.integers(0, count - 1), min_size=1, max_size=30) | st.slices(count).map(range(count).__getitem__)
    )
    table = changed(name, column, kind, list(rows))
    check(table, studies.verdicts(table))


# What was found by such tables, or by reading: the study, the column, its value, and a claim that must not hold.
FOUND = [
    ("throughput", "seconds", "tiny", "not_slower"),  # floor / 0 microseconds was a traceback
    ("throughput", "seconds", "zero", "waiting"),
    ("throughput", "error", "missing", "right"),  # a result of nan was left out, and the rest agreed
    ("throughput", "error", "infinite", "right"),
    ("throughput", "peak_bytes", "zero", "memory"),
    ("training_step", "seconds", "zero", "speed"),
    ("training_step", "seconds", "same", "speed"),
    ("training_step", "peak_bytes", "negative", "memory"),  # a share below 0 held
    ("backends", "tokens_per_second", "zero", "speed"),
    ("backends", "valid_loss", "infinite", "curve"),  # infinity less infinity had no largest distance: a traceback
    ("speeches", "bits_per_byte", "zero", "own"),  # a traceback
    ("speeches", "bits_per_byte", "zero", "gates"),
    ("speeches", "bits_per_byte", "zero", "network"),
    ("speeches", "bits_per_byte", "zero", "mixture"),
    ("speeches", "novel", "infinite", "novel"),
    ("weight_tying", "parameters", "zero", "most"),  # 0 / 0 of all was a traceback
    ("weight_tying", "parameters", "zero", "saving"),
    ("weight_tying", "perplexity", "zero", "tied"),
    ("gradient_lag", "weight_norm", "zero", "fall"),
    ("gradient_lag", "weight_norm", "same", "fall"),
    ("gradient_flow", "value", "huge", "gates_help"),  # e to that power was a traceback
    ("gradient_flow", "value", "missing", "vanishing"),
    ("long_range", "nats", "zero", "recent"),
    ("long_range", "nats", "infinite", "recent"),
    ("long_range", "error", "missing", "omega"),  # shares of nothing counted as success
    ("clipping", "value", "zero", "steepest"),  # a traceback
    ("clipping", "value", "zero", "formula"),  # a formula of 0 was passed over
    ("clipping", "value", "infinite", "forks"),  # infinity is no whole number: a traceback
    ("clipping", "value", "infinite", "four_digits"),
    ("clipping", "value", "zero", "range"),
    ("exchange", "seconds", "zero", "sentinel"),  # bytes over 0 microseconds was a traceback
    ("exchange", "seconds", "tiny", "sentinel"),  # its reciprocal is infinite: no least squares
    ("exchange", "error", "missing", "right"),
]


@pytest.mark.parametrize(("name", "column", "kind", "key"), FOUND)
def test_what_is_undefined_decides_no_claim(name, column, kind, key):
    mine = studies.select(check(*judged(name, column, kind)), key)
    assert len(mine) and not (mine["verdict"] == "holds").any(), mine.to_string()


@pytest.mark.parametrize(
    ("name", "column", "key"),
    [
        ("throughput", "seconds", "not_slower.recurrence.kernels:torch"),
        ("training_step", "seconds", "speed"),
        ("backends", "tokens_per_second", "speed"),
        ("speeches", "bits_per_byte", "own"),
        ("weight_tying", "perplexity", "tied.same_width"),
        ("exchange", "seconds", "sentinel"),
    ],
)
def test_a_ratio_to_zero_is_ambiguous_and_says_so(name, column, key):
    mine = studies.select(judged(name, column, "zero")[1], key)
    assert set(mine["verdict"]) == {"ambiguous"} and mine["measured"].str.contains("undefined").all()
    assert mine["reason"].str.contains("0, negative or not finite").all()


def test_one_size_whose_clock_stood_still_is_enough_to_leave_every_size_undecided():
    table = table_of("throughput")
    assert "recurrence" in set(table["part"])
    rows = table.index[(table["part"] == "recurrence") & (table["variant"] == "kernels:torch") & (table["steps"] == 16)]
    before, after = (
        studies.verdicts(t).set_index("key")["verdict"] for t in (table, changed("throughput", "seconds", "zero", rows))
    )
    key = "not_slower.recurrence.kernels:torch"
    assert set(before.loc[[key]]) == {"holds"} and "holds" not in set(after.loc[[key]])
