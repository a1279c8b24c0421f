"""The figures of clipping: what they show is what the table holds, and they say so."""

import math
import re
from itertools import combinations

import numpy as np
import pytest
from report_cases import clippings, stored_clippings

from recurrent_lm.studies import InputError, load, plots, verdicts
from recurrent_lm.studies.clipping.figures.clipping_cliff import WINDOW
from recurrent_lm.studies.clipping.figures.clipping_surface import FACETS, facets
from recurrent_lm.studies.clipping.table import norm_edges
from recurrent_lm.studies.plotting.style import NARROW, WIDE, headline

NAMES = ("surface", "cliff", "thresholds", "norms", "kinds")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return load(stored_clippings(tmp_path_factory.mktemp("tables") / "t.parquet"))


def plot(name):
    (chosen,) = (p for p in plots("clipping") if p.name == name)
    return chosen


_decided = []


def decided(table):
    """What a table decides, computed once for calls in a row with the same table."""
    if not _decided or _decided[0] is not table:
        _decided[:] = table, verdicts(table)
    return _decided[1]


def drawn(name, table, size=WIDE):
    drawing = plot(name).draw(table, decided(table), size)
    drawing.draw_without_rendering()
    return drawing


def captioned(name, table):
    return plot(name).caption(table, decided(table))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_type_is_inside_and_not_over_type(name, size, table):
    drawing = drawn(name, table, size)
    headline(drawing, "W" * 200)
    drawing.draw_without_rendering()
    edge = drawing.bbox
    labels = [t for axes in drawing.axes for t in (*axes.texts, axes.xaxis.label, axes.yaxis.label) if t.get_text()]
    labels += [t for axes in drawing.axes for t in (*axes.get_xticklabels(), *axes.get_yticklabels()) if t.get_text()]
    boxes = [axes.get_tightbbox() for axes in drawing.axes] + [key.get_window_extent() for key in drawing.legends]
    for box in boxes:
        assert edge.x0 < box.x0 and box.x1 < edge.x1 and edge.y0 < box.y0 and box.y1 < edge.y1
    for one, two in combinations([t.get_window_extent() for t in labels if t in [x for a in drawing.axes for x in a.texts]], 2):
        assert not one.overlaps(two)
    for axes in drawing.axes:
        assert axes.get_xlabel().endswith(")") or axes.get_ylabel().endswith(")")


def test_the_ridge_is_the_exact_line_and_both_paths_begin_at_the_start(table):
    left, right, bar = drawn("cliff", table).axes
    assert bar.get_xlabel().startswith("error")
    ridge, plain, clipped = left.lines
    s = 1 / (1 + math.exp(-0.5))
    assert np.allclose(ridge.get_ydata(), 0.5 - s * np.array(ridge.get_xdata()), atol=1e-9)
    for path in (plain, clipped):
        assert (path.get_xdata()[0], path.get_ydata()[0]) == (4.7, -2.1)
    assert plain.get_ydata()[-1] > 1 and len(clipped.get_xdata()) == 41  # thrown out of the window; there to the end
    assert any("w = 7.0" in text.get_text() for text in left.texts)
    forks = sorted(line.get_xdata()[0] for line in right.lines[1:])
    assert forks == pytest.approx([-2.6556, -2.3444], abs=5e-5)
    cut = right.lines[0]
    height = np.interp([-2.65, -2.55], cut.get_xdata(), cut.get_ydata())
    assert height[0] > 0.3 and height[1] < 0.05


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_the_surface_has_the_wall_on_the_exact_ridge_and_both_paths_at_its_foot(size, table):
    (axes,) = drawn("surface", table, size).axes
    lines = {line.get_label(): np.array(line.get_data_3d()) for line in axes.lines}
    ridge, plain, thrown, clipped = lines.values()
    s = 1 / (1 + math.exp(-0.5))
    assert np.allclose(ridge[1], 0.5 - s * ridge[0], atol=1e-9) and np.allclose(ridge[2], (s - 0.7) ** 2)
    for path in (plain, clipped):
        assert path[:, 0] == pytest.approx([4.7, -2.1, path[2, 0]])
    assert clipped.shape == (3, 41) and plain.shape[1] < 41 and clipped[2, -1] < 0.01 < 0.2 < plain[2].max()
    assert np.allclose(thrown[:, 0], plain[:, -1]) and thrown[1, 1] == pytest.approx(WINDOW[1][1])
    w, b, error, middle = facets(table[table["part"] == "cliff"])
    assert w.min() >= WINDOW[0][0] and np.allclose(b[:, [0, -1]], WINDOW[1])
    last = w[:, 0] > 4.9  # the higher w, the steeper the wall
    assert (np.abs(np.interp(-0.01, b[-1] - middle[-1], error[-1]) - 0.34) < 0.03).all()
    assert (error[last, FACETS + 1 :].min(axis=1) < 0.02).all() and (error[last, : FACETS - 4].min() > 0.3)


def test_the_cliffs_caption_has_its_slopes_and_where_the_descents_end(table):
    caption = captioned("cliff", table)
    assert "w = 5: b* = -2.6123, dE/db = -661.7 (holds); w = 6: b* = -3.2348, dE/db = -2.57e+06 (holds)" in caption
    assert "without clipping the descent meets a gradient of norm 25.5 and ends at w = 6.96" in caption


def test_thresholds_show_perplexities_of_what_did_not_diverge_and_shares_of_what_did(table):
    left, middle, right = drawn("thresholds", table).axes
    low, high = (line for line in left.lines if not line.get_label().startswith("_"))
    single = [line for line in left.lines if line.get_linestyle() == "None"]
    assert [len(line.get_xdata()) for line in single] == [6, 4]  # two seeds at each threshold that none diverged at
    assert [line.get_ydata().tolist() for line in middle.lines] == [[50, 0], [50, 0]]
    assert list(low.get_xdata()) == [0, 1, 2] and list(high.get_xdata()) == [0, 1]
    assert np.allclose(low.get_ydata(), np.exp([4.002, 4, 4]))
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["0.5", "10", "none"]
    points = {(round(c[0].get_xdata()[0]), i // 3): c[0].get_ydata()[0] for i, c in enumerate(right.containers)}
    assert points == {(0, 0): 0, (1, 0): 0, (2, 0): 0, (0, 1): 0, (1, 1): 0, (2, 1): 100}
    caption = captioned("thresholds", table)
    assert "diverged 0 of 2 at rate 1; 2 of 2 at rate 8" in caption
    assert "obama, learning rate 8: holds (0.0% to 0.1%)" in caption
    assert "and of those clipped at 0.5 or 10 mean norms none." in caption
    assert "At rate 1 thresholds from 10 mean norms on clip no step at all." in caption


def test_norms_are_shares_of_steps_in_the_tables_bins(table):
    drawing = drawn("norms", table)
    assert len(drawing.axes) == 2
    before, after = (patch for patch in drawing.axes[0].patches if hasattr(patch, "get_data"))
    values, edges, _ = before.get_data()
    assert np.allclose(edges, norm_edges()) and values[[30, 34, 36]].tolist() == pytest.approx([100 / 3] * 3)
    assert after.get_data().values[31] == pytest.approx(100 / 3) and values.sum() == pytest.approx(100)
    assert "50% at rate 1, 50% at rate 8" in captioned("norms", table)


def test_kinds_show_every_steps_cosine_and_the_caption_counts_what_points_uphill(tmp_path):
    table = load(stored_clippings(tmp_path / "t.parquet", uphill=0.3))
    (axes,) = drawn("kinds", table).axes
    dots = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert len(dots) == 8 and all(len(line.get_xdata()) == 10 for line in dots)
    assert sum((line.get_ydata() < 0).sum() for line in dots) == 3
    caption = captioned("kinds", table)
    assert (
        re.search(r"each step's part 0\.8[23] \(3 of 10 uphill\)", caption)
        and "norm (Algorithm 1) 1.00 (0 of 10 uphill)" in caption
    )
    assert "touches 100% of the steps" in caption and "(0.1, clipped -0.4: holds)" in caption


@pytest.mark.parametrize(("name", "part"), [*zip(NAMES, ("cliff", "cliff", "training", "norms", "kinds"), strict=True)])
def test_without_its_part_a_figure_is_a_sentence_and_has_a_caption(name, part):
    table = clippings()
    without = table[table["part"] != part]
    without.attrs = table.attrs | {"parameters": {}}
    with pytest.raises(InputError, match="there is nothing to draw"):
        plot(name).draw(without, verdicts(without), WIDE)
    assert captioned(name, without).endswith(".")
