"""What all figures share: type inside the edges, no legend over data, colours that a page can turn."""

import re
from itertools import product
from xml.etree import ElementTree

import pytest
from report_cases import stored_costs, stored_norms, stored_speeds

from recurrent_lm.reports.drawing import figure
from recurrent_lm.reports.svg import _rounded, inline
from recurrent_lm.studies import STUDIES, InputError, load, plots, verdicts
from recurrent_lm.studies.plotting.style import COLOURS, NARROW, PALETTE, WIDE, canvas, headline, legend

STORED = {"gradient_lag": stored_norms, "training_step": stored_costs, "throughput": stored_speeds}
SIZES = pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])


def test_every_plot_has_its_own_name_and_words():
    for study in STUDIES:
        names = [plot.name for plot in plots(study)]
        assert len(set(names)) == len(names)
        assert all(re.fullmatch("[a-z_]+", name) for name in names)
        assert all(len(plot.understanding) > 100 for plot in plots(study))
    assert plots("nothing_of_the_kind") == ()


@pytest.fixture(scope="module", params=STORED)
def decided(request, tmp_path_factory):
    """A stored table of a study, and what it decides."""
    table = load(STORED[request.param](tmp_path_factory.mktemp("stored") / "t.parquet"))
    return table, verdicts(table)


@SIZES
def test_type_is_inside_and_legends_are_off_the_data(decided, size):
    table, claims = decided
    for plot in plots(table.attrs["study"]):
        drawing = plot.draw(table, claims, size)
        headline(drawing, "W" * 200)
        drawing.draw_without_rendering()
        edge = drawing.bbox
        (key,), (title,) = drawing.legends, drawing.texts
        boxes = [part.get_tightbbox() for part in drawing.axes] + [part.get_window_extent() for part in (key, title)]
        for box in boxes:
            assert edge.x0 < box.x0 and box.x1 < edge.x1 and edge.y0 < box.y0 and box.y1 < edge.y1
        for axes in drawing.axes:
            assert not axes.get_legend()
            assert not axes.get_tightbbox().overlaps(key.get_window_extent())
            assert axes.get_xlabel().endswith(")") or axes.get_ylabel().endswith(")")  # a unit


def test_a_legend_has_fewer_columns_where_it_would_be_cut_off():
    drawing, (axes,) = canvas(WIDE)
    for number in range(6):
        axes.plot([0, 1], label=f"a long label, the one with the number {number}")
    axes.plot([1, 0], label="a long label, the one with the number 5")
    legend(drawing)
    (key,) = drawing.legends
    assert len(key.get_texts()) == 6  # equal entries are one
    assert key.get_window_extent().width < drawing.bbox.width
    assert 1 < key._ncols < 6


def test_type_can_be_read_when_projected():
    """On 720 lines, no smaller than a fortieth of the height."""
    _, (axes,) = canvas(WIDE)
    sizes = [axes.xaxis.label.get_size(), *(label.get_size() for label in axes.get_xticklabels())]
    assert min(sizes) * 100 / 72 >= 720 / 40


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("dark", [0, 1], ids=["light", "dark"])
def test_contrast(dark):
    """WCAG 2.1: text 4.5 against its ground; the palette on a dark ground 3, on a light one as Okabe and Ito chose it."""
    paper = luminance(COLOURS["paper"][dark])
    for name, pair in COLOURS.items():
        low, high = sorted((paper, luminance(pair[dark])))
        contrast = (high + 0.05) / (low + 0.05)
        if name in ("ink", "muted"):
            assert contrast >= 4.5
        elif name[0] == "c":
            assert contrast >= (3 if dark else 2.3), name


def test_an_inline_drawing_takes_the_pages_colours_and_shares_no_name():
    drawing, (axes,) = canvas(WIDE)
    axes.plot([1, 2])
    axes.set_xlabel("x <script> (s)")
    first, second = (inline(drawing, prefix, 'a "label" <b>') for prefix in ("one", "two"))
    root = ElementTree.fromstring(first)
    assert root.get("aria-label") == 'a "label" <b>' and root.get("viewBox") and root.get("width") is None
    for name in ("paper", "ink", "rule", "c0"):
        assert f"var(--{name})" in first
    assert not {PALETTE[0], COLOURS["ink"][0], COLOURS["paper"][0]} & set(re.findall("#[0-9a-f]{6}", first))
    ids = [set(re.findall(r'\bid="([^"]+)"', text)) for text in (first, second)]
    assert ids[0] and not ids[0] & ids[1]
    for text, own in zip((first, second), ids, strict=True):
        used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
        assert used == own  # and none that nothing refers to


def test_lines_differ_without_their_colours():
    _, (axes,) = canvas(WIDE)
    lines = [axes.plot([0, 1])[0] for _ in PALETTE]
    assert all(
        a.get_linestyle() != b.get_linestyle() or a._dash_pattern != b._dash_pattern
        for a, b in product(lines, lines)
        if a is not b
    )


def test_a_figure_is_chosen_by_name(tmp_path):
    path = stored_costs(tmp_path / "t.parquet")
    assert figure(path, "cost").caption == figure(path).caption
    with pytest.raises(InputError, match="has no figure 'costs'; it has cost"):
        figure(path, "costs")


def test_coordinates_are_short_and_the_scale_of_letters_is_kept():
    assert _rounded("M 620.385463 -191.562078 z") == "M 620.4 -191.6 z"
    assert _rounded("translate(57.600000 3.141593) scale(0.075000 -0.0833333)") == "translate(57.6 3.1) scale(0.075 -0.0833)"
