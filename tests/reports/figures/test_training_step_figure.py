from itertools import pairwise

import numpy as np
import pytest
from report_cases import costs, stored_costs

from recurrent_lm.reports import figure
from recurrent_lm.studies import InputError, plots, save, verdicts
from recurrent_lm.studies.plotting.style import NARROW, WIDE
from recurrent_lm.studies.training_step.study import Study


@pytest.fixture
def made(tmp_path):
    """float32 twice as fast as the plain loop in 30 of 80 MB, bf16 half as fast in 70 of 80 MB."""
    return figure(stored_costs(tmp_path / "t.parquet"))


def drawn(table, path, size=WIDE):
    save(table, path, "training_step", Study(rounds=table["round"].nunique()))
    (plot,) = plots("training_step")
    return plot.draw(table, verdicts(table), size)


def test_caption_has_each_variant_with_its_verdicts(made):
    assert made.caption.startswith("Against a torch.nn loop, median over 6 rounds. lm float32: 2.00 times as fast [1.")
    assert "(aim >= 1: holds), 0.38 of the memory (30.0 of 80.0 MB) (aim <= 0.5: holds); lm bf16: 0.5" in made.caption
    assert made.caption.endswith("(aim >= 2: fails), 0.88 of the memory (70.0 of 80.0 MB) (aim <= 0.5: fails).")


def test_caption_of_times_and_memory_of_zero(tmp_path):
    table = costs(rounds=1).assign(seconds=0.0, peak_bytes=0)
    save(table, tmp_path / "t.parquet", "training_step", Study(rounds=1))
    (plot,) = plots("training_step")
    assert plot.caption(table, verdicts(table)) == (
        "Against a torch.nn loop, median over 1 round. "
        "lm float32: fast undefined (aim >= 1: ambiguous), memory undefined (aim <= 0.5: ambiguous); "
        "lm bf16: fast undefined (aim >= 2: ambiguous), memory undefined (aim <= 0.5: ambiguous)."
    )


def test_left_panel_has_each_round_the_median_and_the_aim(tmp_path):
    table = costs()
    left, right = drawn(table, tmp_path / "t.parquet").axes
    seconds = table.pivot(index="round", columns="variant", values="seconds")
    rounds = [line for line in left.lines if line.get_marker() == "o"]
    medians = [line for line in left.lines if line.get_marker() == "D"]
    for row, variant in enumerate(("lm float32", "lm bf16")):
        ratios = seconds["torch.nn loop"] / seconds[variant]
        assert np.allclose(rounds[row].get_xdata(), ratios)
        assert np.allclose(medians[row].get_xdata(), ratios.median())
        assert list(medians[row].get_ydata()) == [row]
        assert abs(rounds[row].get_ydata() - row).max() < 0.3
    aims = [collection.get_segments()[0][0][0] for collection in left.collections if collection.get_label() == "aim"]
    assert aims == [1.0, 2.0]
    assert left.get_xscale() == "log" and left.get_ylim()[0] > left.get_ylim()[1]  # the first row is on top
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["lm float32", "lm bf16"]
    assert "times" in left.get_xlabel() and "MB" in right.get_xlabel()


def test_right_panel_has_the_peaks_and_half_the_plain_loops(tmp_path):
    _, right = drawn(costs(), tmp_path / "t.parquet").axes
    assert [bar.get_width() for bar in right.patches] == [30, 70, 80]
    assert [tick.get_text() for tick in right.get_yticklabels()] == [
        "lm float32\n30.0 MB",
        "lm bf16\n70.0 MB",
        "torch.nn loop\n80.0 MB",
    ]
    (aim,) = right.collections
    assert aim.get_segments()[0][0][0] == 40


def test_clocks_that_stood_still_are_left_out_and_nothing_else_is_a_sentence(tmp_path):
    table = costs()
    table.loc[(table["round"] == 2) & (table["variant"] == "lm bf16"), "seconds"] = 0.0
    left, _ = drawn(table, tmp_path / "t.parquet").axes
    assert [len(line.get_xdata()) for line in left.lines if line.get_marker() == "o"] == [6, 5]
    assert [line.get_ydata()[0] for line in left.lines if line.get_marker() == "D"] == [0]  # bf16 has no median
    with pytest.raises(InputError, match="nothing to draw"):
        drawn(table.assign(seconds=0.0), tmp_path / "t.parquet")


def test_one_round_has_no_interval(tmp_path):
    left, _ = drawn(costs(rounds=1), tmp_path / "t.parquet").axes
    assert len(left.containers) == 2 and not any(container.has_xerr for container in left.containers)


@pytest.mark.parametrize("faster", [(1.0, 1.0), (900.0, 0.002), (1.5, 1.4)], ids=["same", "far apart", "close"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_speeds_can_be_read_off_the_axis(size, faster, tmp_path):
    """Two labels or more, none over another, whatever the range."""
    drawing = drawn(costs(faster=faster), tmp_path / "t.parquet", size)
    drawing.draw_without_rendering()
    left = drawing.axes[0]
    low, high = left.get_xlim()
    labels = [tick.label1 for tick in left.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
    boxes = sorted((label.get_window_extent() for label in labels if label.get_text()), key=lambda box: box.x0)
    assert len(boxes) >= 2
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))


def test_panels_stand_below_each_other_where_it_is_narrow(tmp_path):
    for size, below in ((WIDE, False), (NARROW, True)):
        drawing = drawn(costs(), tmp_path / "t.parquet", size)
        drawing.draw_without_rendering()
        left, right = (axes.get_position() for axes in drawing.axes)
        assert (left.y0 > right.y1) == below and (left.x1 < right.x0) != below
