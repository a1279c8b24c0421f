import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from recurrent_lm.reports import figure
from recurrent_lm.reports.cli import app
from recurrent_lm.studies import InputError, run_app, save
from recurrent_lm.studies.gradient_lag.study import Study


def stored(table, path, subject=""):
    if subject:
        table.attrs["subject"] = subject
    save(table, path, "gradient_lag", Study(run="runs/x", windows=table["window"].nunique(), lags=table["lag"].nunique()))
    return path


def one_window(medians, layer=0):
    """One window in which the norms are as given."""
    columns = {"window": 0, "layer": layer, "lag": range(len(medians)), "hidden_norm": 1.0, "weight_norm": medians}
    return pd.DataFrame(columns | {"sum_error": 1e-15})


@pytest.fixture
def table(tmp_path):
    """Norms that halve at every step back: 0.1 is passed between lag 3 and lag 4."""
    rows = [
        {"window": w, "layer": 0, "lag": lag, "hidden_norm": 1.0, "weight_norm": 0.5**lag * (1 + 0.01 * w), "sum_error": 1e-15}
        for w in range(5)
        for lag in range(20)
    ]
    return stored(pd.DataFrame(rows), tmp_path / "table.parquet", "obama, word tokens, gru 1 x 256")


def test_caption_states_what_the_table_holds(table):
    caption = figure(table).caption
    assert "falls below a tenth of its value at lag 0 from lag 4 on" in caption
    assert "multiplied by 0.500 on average" in caption
    assert "sum to autograd's gradient: holds (relative error 1.0e-15)." in caption


@pytest.mark.parametrize(
    ("medians", "words"),
    [
        ([1, 0.5, 0.2], "stays above a tenth of its value at lag 0 up to lag 2; per step"),
        ([1, 0.01, 0.5], "first falls below a tenth of its value at lag 0 at lag 1, and does not stay there; per step"),
        ([1, 0.01, 0.5, 0.01, 0.01], "falls below a tenth of its value at lag 0 from lag 3 on; per step"),
        ([1, 0, 0], "from lag 1 on; how it changes per step back is undefined: a value is 0"),
        ([0, 1, 2], "is 0 at lag 0; per step back it is multiplied by 2.000 on average"),
        ([float("nan"), 1, 2], "is nan at lag 0; per step"),
        ([1, 0.5, float("inf")], "stays above a tenth"),
    ],
    ids=str,
)
def test_caption_says_how_far_the_gradient_reaches(medians, words, tmp_path):
    assert words in figure(stored(one_window([float(m) for m in medians]), tmp_path / "t.parquet")).caption


def test_caption_of_several_layers_names_the_one_it_speaks_of(tmp_path):
    both = pd.concat([one_window([1.0, 0.5]), one_window([1.0, 0.01], layer=1)])
    drawn = figure(stored(both, tmp_path / "t.parquet"))
    assert "a step's part in layer 1 falls below a tenth of its value at lag 0 from lag 1 on" in drawn.caption
    assert "layer 1;" in drawn.lines[1]
    (legend,) = drawn.drawing.legends
    entries = [text.get_text() for text in legend.get_texts()]
    assert {"layer 0: median of 1 window", "layer 1: median of 1 window", "a tenth of layer 1's median at lag 0"} < set(entries)


def test_a_last_layer_without_a_gradient_has_empty_bars(tmp_path):
    both = pd.concat([one_window([1.0, 0.5]), one_window([0.0, 0.0], layer=1)])
    drawn = figure(stored(both, tmp_path / "t.parquet"))
    assert "in layer 1 is 0 at lag 0; how it changes per step back is undefined: a value is 0" in drawn.caption
    assert not any("█" in line for line in drawn.lines)


def test_caption_of_a_sum_that_was_not_measured(tmp_path):
    table = one_window([1.0, 0.5]).assign(sum_error=float("nan"))
    assert figure(stored(table, tmp_path / "t.parquet")).caption.endswith("autograd's gradient: not measured.")


def test_drawing_shows_the_medians_on_a_log_scale(table):
    axes = figure(table).drawing.axes[0]
    x, y = axes.lines[0].get_data()
    assert list(x) == list(range(20))
    assert np.allclose(y, 0.5 ** np.arange(20) * 1.02)
    assert axes.get_yscale() == "log"
    assert axes.get_xlabel() and axes.get_ylabel()


def test_title_and_heading_name_corpus_and_model_and_no_path(table, tmp_path):
    drawn = figure(table)
    title = drawn.drawing.get_suptitle()
    assert title == "Where the gradient comes from: obama, word tokens, gru 1 x 256"
    assert drawn.lines[0] == title
    assert "median" in drawn.lines[1] and "log scale" in drawn.lines[1]
    assert all(len(line) <= 80 for line in drawn.lines)
    nameless = figure(stored(one_window([1.0, 0.5]), tmp_path / "t.parquet"))
    assert nameless.lines[0] == nameless.drawing.get_suptitle() == "Where the gradient comes from"


def test_bars_fall_with_the_lag(table):
    """Equal factors are equal lengths: norms that halve a step lose as much of the bar per lag everywhere."""
    lines = figure(table).lines[2:]
    lengths = {int(line.split()[1]): line.count("█") for line in lines}
    assert list(lengths) == [0, 1, 2, 3, 5, 8, 12, 18]
    assert lengths[0] == 40
    step = 40 * np.log10(2) / (18 * np.log10(2) + 0.1)  # the shortest bar stands for a tenth of a decade
    assert all(length == pytest.approx(40 - lag * step, abs=0.51) for lag, length in lengths.items())


def test_bars_of_what_a_log_scale_cannot_show_are_empty(tmp_path):
    lines = figure(stored(one_window([1.0, 0.0, 0.1, float("inf")]), tmp_path / "t.parquet")).lines[2:]
    assert [line.count("█") for line in lines] == [40, 0, 4, 0]
    assert "0.00e+00" in lines[1] and "inf" in lines[3]


EXTREME = st.sampled_from([0.0, 5e-324, 1e-300, 1e-9, 1.0, 1.7e308, float("inf"), float("nan")]) | st.floats(0)
SUBJECTS = st.text(st.characters(), max_size=100) | st.sampled_from(["$x_{$", "\\frac{", "a\n\x1b[31mb", "日本語 ‮", "\ud800"])


@given(st.lists(EXTREME, min_size=1, max_size=6), SUBJECTS)
@settings(max_examples=25, deadline=None)
def test_any_measured_table_is_drawn_or_refused(medians, subject):
    """0, infinity, nan and the ends of float64, and any text for a subject: a picture, or a sentence."""
    with tempfile.TemporaryDirectory() as folder:
        path = stored(one_window(medians), Path(folder) / "t.parquet", subject)
        code = run_app(app, "reports", ["figure", str(path)])
        visible = [m for m in medians if 1e-200 <= m <= 1e200]
        assert code == (0 if visible else 2)
        assert path.with_suffix(".png").exists() == bool(visible)


def test_a_table_of_zeros_is_a_sentence(tmp_path):
    with pytest.raises(InputError, match="nothing to draw"):
        figure(stored(one_window([0.0, 0.0]), tmp_path / "t.parquet"))


def test_command_writes_a_picture(table, tmp_path, capsys):
    out = tmp_path / "lag.png"
    assert run_app(app, "reports", ["figure", str(table), "--out", str(out)]) == 0
    with Image.open(out) as picture:
        assert picture.size == (1280, 720)
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 20)
    assert colours is not None and len(colours) > 50
    assert f"figure: {out}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["figure", "nothing.parquet"], ["figure", "TABLE", "--out", "picture.xyz"]])
def test_bad_input_is_a_sentence_and_code_2(arguments, table, capsys):
    arguments = [str(table) if a == "TABLE" else a for a in arguments]
    assert run_app(app, "reports", arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
