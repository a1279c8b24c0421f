"""The throughput figures: planted times, speeds and memory come back in drawings and captions."""

import re
from itertools import pairwise

import numpy as np
import pytest
from report_cases import speeds, stored_speeds

from recurrent_lm.studies import InputError, load, plots, summary, verdicts
from recurrent_lm.studies.plotting.style import NARROW, WIDE
from recurrent_lm.studies.throughput.figures import shared

SIZES = pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
PLOTS = {plot.name: plot for plot in plots("throughput")}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return load(stored_speeds(tmp_path_factory.mktemp("t") / "t.parquet"))


@pytest.fixture(scope="module")
def claims(table):
    return verdicts(table)


def lines(axes):
    """The curves of a panel by their labels: x and y."""
    return {line.get_label(): line.get_data() for line in axes.lines if not line.get_label().startswith("_")}


def numbers(text, words):
    """The number and the interval that stand before some words."""
    match = re.search(r"([\d.]+) \[([\d.]+), ([\d.]+)\] " + words, text)
    return tuple(float(part) for part in match.groups())


def test_waiting_has_both_ways_and_the_peak(table, claims):
    left, right = PLOTS["waiting"].draw(table, claims, WIDE).axes
    product, steps = (lines(left)[name] for name in ("one product", "steps that wait"))
    assert list(product[0]) == [16, 32, 64, 128]
    assert np.allclose(steps[1] / product[1], 4, rtol=0.05)
    assert set(lines(right)) == {"one product", "steps that wait", "the fastest product measured"}
    assert (left.get_xscale(), left.get_yscale()) == ("log", "log")
    value, low, high = numbers(PLOTS["waiting"].caption(table, claims), "times as long as steps")
    assert low <= value <= high and value == pytest.approx(4, rel=0.02)
    assert PLOTS["waiting"].caption(table, claims).endswith("That waiting costs time: holds.")


@SIZES
def test_a_recurrence_grows_in_three_panels(size, table, claims):
    drawing = PLOTS["recurrence"].draw(table, claims, size)
    panels = drawing.axes
    assert [panel.get_xlabel().split("$")[1] for panel in panels] == ["T", "H", "B"]
    for panel, sizes, power in zip(panels, ((16, 32, 64, 128), (16, 32, 64), (1, 16, 64)), (1.0, 1.5, 0.5), strict=True):
        seen = lines(panel)
        assert set(seen) == {"torch.nn", "kernels:torch", "kernels:eager", "loop"}
        x, y = seen["kernels:torch"]
        assert list(x) == list(sizes)
        assert np.allclose(y / seen["torch.nn"][1], 0.5, rtol=0.05)
        assert np.polyfit(np.log(x), np.log(y), 1)[0] == pytest.approx(power, abs=0.15)
    assert len({panel.get_ylim() for panel in panels}) == 1  # heights can be compared
    texts = {panel: [tick.get_text() for tick in panel.get_xticklabels()] for panel in panels}
    assert texts[panels[1]] == ["16", "32", "64"]


def test_the_caption_of_a_recurrence_has_time_speed_and_exponents(table, claims):
    caption = PLOTS["recurrence"].caption(table, claims)
    assert caption.startswith("At B = 16, H = 32, T = 64 kernels:torch takes ")
    assert numbers(caption, r"times as fast as torch.nn \(faster\)")[0] == pytest.approx(2, rel=0.02)
    assert re.search(r"kernels:eager takes longest, (6|5\.9|6\.1) times as long as kernels:torch", caption)
    powers = {letter: float(p) for letter, p in re.findall(r"([BHT])\^([\d.]+)", caption)}
    assert powers == {"B": pytest.approx(0.5, abs=0.15), "H": pytest.approx(1.5, abs=0.2), "T": pytest.approx(1.0, abs=0.2)}


def test_a_loss_shows_time_and_memory(table, claims):
    left, right = PLOTS["loss"].draw(table, claims, WIDE).axes
    assert list(lines(left)["torch.nn"][0]) == [500, 2000, 8000]
    assert list(lines(right)["torch.nn"][1]) == [6.25, 25.0, 100.0]
    assert list(lines(right)["kernels:torch"][1]) == [1.25, 5.0, 20.0]
    assert "MB" in right.get_ylabel() and "ms" in left.get_ylabel()
    caption = PLOTS["loss"].caption(table, claims)
    assert "(N 64, d 16, V 8000) it holds 0.20 of torch.nn's peak (aim <= 0.5: holds)" in caption


@pytest.mark.parametrize(("name", "rows"), [("training", 5), ("cells", 4)])
def test_speeds_have_a_row_a_setting_and_torch_nn_at_one(name, rows, table, claims):
    drawing = PLOTS[name].draw(table, claims, WIDE)
    (axes,) = drawing.axes
    assert len(axes.get_yticklabels()) == rows and axes.get_ylim()[0] > axes.get_ylim()[1]
    marks = {c.get_label(): c.lines[0].get_data() for c in axes.containers}
    x, y = marks["kernels:torch"]
    assert np.allclose(x, 2, rtol=0.05) and len(x) == rows
    assert np.abs(y - np.arange(rows)).max() < 0.3
    caption = PLOTS[name].caption(table, claims)
    assert f"{rows} faster of {rows} settings" in caption
    if name == "training":
        assert "for H = " in caption
    else:
        assert "lstm\nforward + back" in [text.get_text() for text in axes.get_yticklabels()]


def test_limits_are_shares_of_the_measured_peak(table, claims):
    left, right = PLOTS["limits"].draw(table, claims, WIDE).axes
    about = summary(table)
    row = about[(about["part"] == "recurrence") & (about["variant"] == "loop") & (about["hidden"] == 64)]
    row = row[(row["cell"] == "lstm") & (row["direction"] == "forward+backward")].iloc[0]
    assert lines(left)["loop"][1][-1] == pytest.approx(row["us_per_step"])
    assert lines(right)["loop"][1][-1] == pytest.approx(100 * row["of_product"])
    assert "the exchange alone" not in lines(left)  # nobody measured it
    caption = PLOTS["limits"].caption(table, claims)
    assert re.search(r"a step of kernels:torch takes [\d.]+ µs; its arithmetic runs at [\d.]+%", caption)


def test_the_floor_is_drawn_where_it_was_measured(table, claims, monkeypatch):
    about = summary(table).copy()
    about["floor_us"] = np.where(about["part"] == "recurrence", 0.5, np.nan)
    about["of_floor"] = about["floor_us"] / about["us_per_step"]
    monkeypatch.setattr(shared, "summary", lambda table: about)
    left, _ = PLOTS["limits"].draw(table, claims, WIDE).axes
    assert list(lines(left)["the exchange alone"][1]) == [0.5] * 3
    assert "the exchange alone would take 0.5 µs, " in PLOTS["limits"].caption(table, claims)


@pytest.mark.parametrize("parts", [("peak",), ("sequential",), ("recurrence",)])
def test_parts_that_were_not_measured_are_said(parts, tmp_path):
    _, table = speeds(parts=parts)
    claims = verdicts(table)
    drawn = set()
    for name, plot in PLOTS.items():
        assert plot.title(table) and plot.caption(table, claims).endswith(".")
        try:
            plot.draw(table, claims, WIDE)
        except InputError as error:
            assert str(error).startswith("there is nothing to draw: the table holds no ")
        else:
            drawn.add(name)
    assert drawn == {("peak",): set(), ("sequential",): {"waiting"}, ("recurrence",): {"recurrence", "cells"}}[parts]


def test_one_size_and_one_round_can_be_drawn():
    _, table = speeds(rounds=1, batch=(4,), hidden=(16,), steps=(8,), vocabulary=(100,), tokens=(8,), cell=("lstm",))
    claims = verdicts(table)
    for plot in PLOTS.values():
        plot.draw(table, claims, NARROW).draw_without_rendering()
        assert "nan" not in plot.caption(table, claims)


def test_sizes_that_are_close_do_not_write_over_each_other():
    _, table = speeds(hidden=(768, 128, 256, 512, 1024, 1536), rounds=2, parts=("recurrence",), cell=("lstm",))
    drawing = PLOTS["recurrence"].draw(table, verdicts(table), WIDE)
    drawing.draw_without_rendering()
    boxes = sorted((t.get_window_extent() for t in drawing.axes[1].get_xticklabels()), key=lambda box: box.x0)
    assert len(boxes) >= 3
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))


def test_what_was_not_timed_is_no_line(table):
    _, broken = speeds(parts=("recurrence",), cell=("lstm",), direction=("forward",))
    wrong = broken["variant"] == "loop"
    broken.loc[wrong, ["seconds", "error"]] = np.nan, 0.5
    broken.loc[wrong, "status"] = "disagrees"
    drawing = PLOTS["recurrence"].draw(broken, verdicts(broken), WIDE)
    assert "loop" not in lines(drawing.axes[0])
