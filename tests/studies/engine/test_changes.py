"""What was measured now against what was measured before."""

import math

import numpy as np
import pandas as pd
import pytest

from recurrent_lm.studies import changes
from recurrent_lm.studies.engine.catalogue import STUDIES, module_of
from recurrent_lm.studies.engine.statistics import unpaired_ratio


def steps(seconds):
    """A table of training_step: so many seconds, by variant and round."""
    rows = [
        {"variant": v, "round": r, "seconds": s, "peak_bytes": 1} for v, all_ in seconds.items() for r, s in enumerate(all_)
    ]
    table = pd.DataFrame(rows)
    table.attrs["study"] = "training_step"
    return table


def test_times_that_doubled_are_half_the_speed_and_those_that_stayed_are_the_same():
    around = 1 + 0.001 * np.arange(12)
    older = steps({"a": around, "b": around, "c": around, "gone": around})
    changed = changes(steps({"a": 2 * around, "b": around, "c": around / 3, "new": around}), older).set_index("variant")
    assert list(changed.index) == ["a", "b", "c"]
    assert list(changed["change"]) == ["slower", "same", "faster"]
    assert list(changed["ratio"]) == pytest.approx([0.5, 1.0, 3.0])
    assert changed.loc["a", "then"] == pytest.approx(1.0055) and changed.loc["a", "now"] == pytest.approx(2.011)
    assert (changed["low"] <= changed["ratio"]).all() and (changed["ratio"] <= changed["high"]).all()


def test_what_is_no_time_is_higher_or_lower():
    rows = [{"part": "score", "corpus": "x", "cell": "lstm", "way": "network", "text": "x", "seed": s} for s in range(8)]
    older = pd.DataFrame(rows).assign(bits_per_byte=2.0 + 0.001 * np.arange(8))
    older.attrs["study"] = "speeches"
    newer = older.assign(bits_per_byte=2 * older["bits_per_byte"])
    newer.attrs["study"] = "speeches"
    (row,) = changes(newer, older).to_dict("records")
    assert row["change"] == "higher" and row["ratio"] == pytest.approx(2.0)
    assert changes(older, newer)["change"].tolist() == ["lower"]


def test_what_was_not_measured_is_left_out_and_too_few_decide_nothing():
    older = steps({"a": [1.0, math.nan, math.inf, 0.0], "b": [math.nan] * 4})
    changed = changes(steps({"a": [2.0, 2.0], "b": [1.0] * 4}), older)
    assert changed[["variant", "ratio", "change"]].values.tolist() == [["a", 0.5, "ambiguous"]]


def test_a_study_that_repeats_nothing_has_no_changes():
    table = pd.DataFrame({"window": [0], "layer": [0], "lag": [0], "weight_norm": [1.0]})
    table.attrs["study"] = "gradient_lag"
    assert changes(table, table).empty


def test_what_studies_repeat_are_columns_of_theirs():
    for name in STUDIES:
        study = module_of(name).Study
        keys, value = study.SAMPLES
        assert set(keys) <= set(study.COLUMNS) and (not keys or study.COLUMNS[value] is float), name


@pytest.mark.parametrize(("first", "second"), [([], [1.0]), ([1.0], [math.nan]), ([0.0], [1.0]), ([1.0], [math.inf])])
def test_there_is_no_ratio_of_what_is_no_sample(first, second):
    assert all(math.isnan(v) for v in unpaired_ratio(first, second))


def test_the_interval_of_a_ratio_holds_the_truth_about_as_often_as_it_says():
    """Samples of 15 and 25 whose medians are 2 and 1: of 300 intervals, about 95% hold 2."""
    random = np.random.default_rng(5)
    held = 0
    for _ in range(300):
        ratio = unpaired_ratio(2 * random.lognormal(0, 0.2, 15), random.lognormal(0, 0.2, 25))
        held += ratio.low <= 2 <= ratio.high
    assert 0.91 < held / 300 < 0.99


def test_both_samples_are_resampled_each_by_itself():
    """If they were resampled together, noise that both happen to share would cancel and leave an interval of no width."""
    shared = np.random.default_rng(1).lognormal(0, 0.3, 20)
    ratio = unpaired_ratio(shared, shared)
    assert ratio.value == 1 and ratio.high - ratio.low > 0.1
