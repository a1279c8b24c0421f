import numpy as np
import pandas as pd
import pytest
from PIL import Image

from reports import figure
from reports.cli import app
from studies import run_app, save
from studies.gradient_lag import Study


@pytest.fixture
def table(tmp_path):
    """Norms that halve at every step back: 0.1 is passed between lag 3 and lag 4."""
    rows = [
        {"layer": 0, "window": w, "lag": lag, "hidden_norm": 1.0, "weight_norm": 0.5**lag * (1 + 0.01 * w), "sum_error": 1e-15}
        for w in range(5)
        for lag in range(20)
    ]
    path = tmp_path / "table.parquet"
    save(pd.DataFrame(rows), path, "gradient_lag", Study(run="runs/<script>alert(1)</script>"))
    return path


def test_caption_states_what_the_table_holds(table):
    caption = figure(table).caption
    assert "falls below a tenth of its value at lag 0 from lag 4 on" in caption
    assert "multiplied by 0.500 on average" in caption
    assert "holds (1.0e-15)" in caption


def test_drawing_shows_the_medians_on_a_log_scale(table):
    axes = figure(table).drawing.axes[0]
    x, y = axes.lines[0].get_data()
    assert list(x) == list(range(20))
    assert np.allclose(y, 0.5 ** np.arange(20) * 1.02)
    assert axes.get_yscale() == "log"
    assert axes.get_xlabel() and axes.get_ylabel()


def test_bars_fall_with_the_lag(table):
    lengths = [line.count("█") for line in figure(table).lines]
    assert lengths == sorted(lengths, reverse=True)
    assert len(set(lengths)) > 5


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
