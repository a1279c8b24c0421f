"""The four figures of long_range: what is drawn is what the table holds."""

import math

import numpy as np
import pytest
from report_cases import reaches, stored_reaches

from recurrent_lm.studies import InputError, load, plots, verdicts
from recurrent_lm.studies.plotting.style import NARROW, WIDE

PLOTS = {plot.name: plot for plot in plots("long_range")}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return load(stored_reaches(tmp_path_factory.mktemp("reach") / "t.parquet", corpora=("obama", "trump")))


def drawn(name, table, size=WIDE):
    return PLOTS[name].draw(table, verdicts(table), size).axes


def lines(axes):
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def test_shares_stand_over_their_lengths_with_intervals(table):
    (axes,) = drawn("clipping", table)
    shares = {bar.get_label(): bar.lines[0].get_ydata().astype(float) for bar in axes.containers}
    assert {name: list(np.round(y * 15)) for name, y in shares.items()} == {
        "plain gradient": [15, 1],
        "clipped": [15, 11],
        "clipped, with Ω": [15, 15],
    }
    assert [tick.get_text().split("\n") for tick in axes.get_xticklabels()] == [[t, "30,000 updates"] for t in ("20", "30")]
    assert sorted(text.get_text() for text in axes.texts) == ["1/15", "11/15", "15/15", "15/15", "15/15", "15/15"]
    for bar in axes.containers:
        assert np.allclose(bar.lines[0].get_xdata(), [0, 1], atol=0.2)
        (whiskers,) = bar.lines[2]
        low, high = np.array(whiskers.get_segments())[:, :, 1].T
        assert (
            (low <= bar.lines[0].get_ydata()).all() and (high >= bar.lines[0].get_ydata()).all() and (high - low > 0.15).all()
        )


def test_tables_of_other_lengths_are_shown_together_with_their_updates(table, tmp_path):
    other = load(stored_reaches(tmp_path / "t.parquet", seeds=5, solved={30: (5, 5, 5), 50: (0, 1, 4)}))
    other.attrs["parameters"]["updates"] = 60_000
    joined = PLOTS["clipping"].joined([table, other])
    (axes,) = drawn("clipping", joined)
    shown = [tick.get_text() for tick in axes.get_xticklabels()]
    assert shown == ["20\n30,000 updates", "30\n30,000 updates", "50\n60,000 updates"]
    caption = PLOTS["clipping"].caption(joined, verdicts(table))
    assert "T = 30: plain gradient 1 of 15" in caption and "T = 50: plain gradient 0 of 5, clipped 1 of 5" in caption
    assert caption.endswith("Updates at the most: 30,000 at T = 20, 30,000 at T = 30, 60,000 at T = 50.")


def test_each_training_is_a_mark_and_those_without_success_are_on_top(table):
    for axes, task in zip(drawn("gates", table), ("adding", "copy"), strict=True):
        assert axes.get_title() == task
        middles = lines(axes)
        assert list(middles) == ["tanh", "LSTM", "GRU"]
        assert list(middles["LSTM"].get_ydata()) == [580, 1380, 2980]  # 80 T - 400 + 90 * 2
        marks = [line for line in axes.lines if line.get_label() == "_" or line.get_linestyle() == "None"]
        assert sum(len(line.get_ydata()) for line in marks) == 27
        never = next(t for t in axes.get_yticklabels() if t.get_text() == "never").get_position()[1]
        assert list(middles["tanh"].get_ydata())[1:] == [never, never]


def test_perplexities_are_those_of_the_tokens_kept(table):
    for axes, corpus in zip(drawn("history", table), ("obama", "trump"), strict=True):
        assert axes.get_title() == corpus
        curves = lines(axes)
        assert len(curves) == 6
        x, y = curves["GRU, rest dropped"].get_data()
        assert np.allclose(np.expm1(x), [0, 1, 2, 3, 5, 10, 20, 50, 100])
        rows = table[(table["part"] == "history") & (table["task"] == corpus) & (table["cell"] == "gru")]
        whole = rows[rows["method"] == "all"]["nats"].mean()
        assert y[-1] == pytest.approx(math.exp(whole)) and y[0] > y[-1]
        assert len(curves["GRU, rest shuffled"].get_xdata()) == 7


def test_the_divergence_is_drawn_over_the_lag(table):
    axes = drawn("influence", table)[1]
    assert axes.get_yscale() == "log"
    x, y = lines(axes)["tanh"].get_data()
    assert list(x) == [0, 1, 2, 3, 5, 8, 12, 20, 30, 50] and np.allclose(y, 2 * 0.6**x * 1.05)


@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_every_axis_says_what_it_is(name, size, table):
    axes = drawn(name, table, size)
    assert axes[0].get_ylabel() and axes[-1].get_xlabel()


@pytest.mark.parametrize("name", PLOTS)
def test_a_part_that_was_not_measured_is_not_drawn(name, table):
    kept = {"clipping": "gates", "gates": "clipping", "history": "clipping", "influence": "clipping"}[name]
    other = table[table["part"] == kept]
    other.attrs = table.attrs
    with pytest.raises(InputError, match="nothing to draw"):
        drawn(name, other)


def test_captions_say_what_was_found(table):
    captions = {name: plot.caption(table, verdicts(table)) for name, plot in PLOTS.items()}
    assert "T = 30: plain gradient 1 of 15, clipped 11 of 15, clipped, with Ω 15 of 15." in captions["clipping"]
    assert "(Fisher p = 0.00048), holds." in captions["clipping"]
    assert captions["gates"].startswith("Seeds that learn adding at T = 40: tanh 0 of 3, LSTM 2 of 3, GRU 3 of 3; copy at T")
    assert "is there after: obama, rnn-tanh 2." in captions["history"]
    assert "KL at lag 10 and further, in parts of that at lag 0: obama, rnn-tanh" in captions["influence"]
    assert "Gates keep what lies several steps back: obama, lstm holds; obama, gru holds" in captions["influence"]


def test_changes_too_small_to_show_are_left_out():
    table = reaches()
    table.attrs = {"study": "long_range", "parameters": {"adam_updates": 3000}}
    table.loc[table["part"] == "influence", "nats"] = 0.0
    with pytest.raises(InputError, match="no changed token"):
        PLOTS["influence"].draw(table, None, WIDE)
