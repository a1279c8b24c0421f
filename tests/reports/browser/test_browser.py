"""Built pages in a real browser, as a reader at a desk and one on a telephone see them."""

import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from recurrent_lm import reports
from recurrent_lm.studies.plotting.style import COLOURS

WIDTHS = (1280, 400)


def rgb(colour):
    return f"rgb({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))})"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_is_cut_off_missing_or_wrong(dark, look, built, pages):
    figures = {page.name: sum(not figure.problem for figure in page.figures) for page in built.pages}
    seen, console = look(pages, WIDTHS, dark)
    assert console == []
    assert len(seen) == 2 * len(pages)
    for page, view in zip([page for page in pages for _ in WIDTHS], seen, strict=True):
        assert view["found"] == [], f"{page.name} at {view['width']}"
        assert view["loaded"] == 0, f"{page.name} asks the network"
        assert (view["paper"], view["ink"]) == tuple(rgb(COLOURS[name][dark]) for name in ("paper", "ink"))
        drawn = figures.get(page.stem, 0)
        assert view["drawings"] == drawn
        assert 4.5 <= view["contrast"] < 22
        inks = [rgb(COLOURS[name][dark]) for name in ("ink", "muted")]
        assert view["type"] in (inks if drawn else [None])


def test_tables_are_sorted_and_the_csv_is_saved(look, built):
    page = built.index.parent / "gradient_lag.html"
    ((view,), console) = look([page], [1280], dark=False)
    assert console == []
    rows = view["csv"].splitlines()
    assert rows[0] == "window,layer,lag,hidden_norm,weight_norm,sum_error"
    assert len(rows) == 1 + 3 * 2 * 20
    norms = pd.Series([float(row.split(",")[-2]) for row in rows[1:]])
    up, down = ([float(value) for value in column] for column in view["sorted"])
    assert up == pytest.approx(sorted(norms), rel=1e-3)
    assert down == up[::-1]
    assert up[0] < 1e-5 < 1 < up[-1]  # by value, not as text


def test_a_long_csv_is_packed_and_saved_as_it_is(look, built):
    page = built.index.parent / "throughput.html"
    (packed,) = re.findall(r'<pre id="csv" data-packed="gzip" hidden>(.+?)</pre>', page.read_text())
    ((view,), console) = look([page], [1280], dark=False)
    assert console == []
    table = next(page for page in built.pages if page.study == "throughput")
    assert view["csv"] == table.csv and len(table.csv) > 5 * len(packed)


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("<h1>", "<h1 style='white-space: nowrap'>" + "far " * 200, "the page is wider"),
        ("<h1>", "<h1 style='overflow: hidden; white-space: nowrap'>" + "far " * 200, "cut off"),
        ("<h1>", '<img alt="" src="data:image/png;base64,AAAA"><h1>', "missing image"),
        (r'viewBox="0 0 \d+', 'viewBox="0 0 500', "text beyond the drawing"),
        ("<h1>", "<h1 style='color: #8a8a8a'>pale", "contrast"),
    ],
    ids=["wide", "cut", "image", "drawing", "pale"],
)
def test_the_inspection_finds_what_is_wrong(before, after, complaint, look, built, tmp_path):
    text = (built.index.parent / "gradient_lag.html").read_text()
    broken = tmp_path / "broken.html"
    broken.write_text(re.sub(before, after, text, count=1))
    ((view,), _) = look([broken], [1280], dark=False)
    assert any(line.startswith(complaint) for line in view["found"])


def test_the_console_says_what_is_wrong(look, built, tmp_path):
    """A script that a page did not bring is refused by the page itself, which the console tells."""
    broken = tmp_path / "broken.html"
    broken.write_text((built.index.parent / "index.html").read_text().replace("<h1>", "<script>alert(1)</script><h1>"))
    _, console = look([broken], [1280], dark=False)
    assert len(console) == 1
    assert "Content Security Policy" in console[0]


def test_the_published_index_prints_on_few_pages(browser, tmp_path):
    index = Path(reports.__file__).parent / "published" / "cpu" / "pages" / "index.html"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    subprocess.run([*command, f"--print-to-pdf={tmp_path / 'index.pdf'}", index.as_uri()], check=True, timeout=600)
    (pages,) = re.findall(rb"/Count (\d+)", (tmp_path / "index.pdf").read_bytes())
    assert 2 <= int(pages) <= 6
