"""What a page says, and that everything from outside is text on it. Needs no browser."""

import base64
import gzip
import io
import re
from html.parser import HTMLParser
from urllib.parse import unquote
from xml.etree import ElementTree

import pandas as pd
import pytest
from jinja2 import PackageLoader
from PIL import Image
from report_cases import EVIL

from recurrent_lm.reports import page as pages_of
from recurrent_lm.reports.page import ROWS, cell, facts, make
from recurrent_lm.reports.render import _environment, _typeset, _typeset_markdown, fenced, mathml, pieces, render
from recurrent_lm.reports.site import FIGURES
from recurrent_lm.studies.engine.claims import Claim, frame

VOID = {"meta", "link", "img", "br", "input"}


class Parsed(HTMLParser):
    """Elements, ids, links and the visible text of a page; it must be well nested but for rows and cells."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links, self.open, self.said = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = " ".join("".join(self.said).split())

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values[key] for key in ("href", "src") if key in values]
        assert not [key for key in values if key.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        while self.open[-1] != tag and self.open[-1] in ("td", "tr"):
            self.open.pop()
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.said.append(data)


@pytest.fixture
def unknown(monkeypatch):
    """A table of a study that has no figures: unknown(columns) gives its page."""

    def made(columns, claims=(), about=None, **attrs):
        monkeypatch.setitem(pages_of.STUDIES, "unheard_of", "how fast it is")
        monkeypatch.setattr(pages_of, "summary", lambda table: table)
        monkeypatch.setattr(pages_of, "verdicts", lambda table: frame([Claim(*claim) for claim in claims]))
        monkeypatch.setattr(pages_of, "summary", lambda table: table)
        monkeypatch.setattr(pages_of, "plots", lambda study: ())
        table = pd.DataFrame(columns)
        table.attrs = {"study": "unheard_of", "parameters": {}, "machine": about or {}} | attrs
        return make(table, "unheard_of", "unheard_of.parquet")

    return made


def written(page, ending):
    return render(f"page{ending}", page=page, figures=FIGURES).decode()


def test_every_page_can_be_parsed_and_every_image_decoded(built, pages):
    figures = {page.name: sum(not figure.problem for figure in page.figures) for page in built.pages}
    assert len(pages) == len(built.pages) + 3  # the index, all claims, and the page to touch
    ids = {page.name: set(Parsed(page.read_text()).ids) for page in pages}
    for page in pages:
        parsed = Parsed(page.read_text())
        assert len(parsed.ids) == len(set(parsed.ids)), page.name
        assert parsed.tags.count("script") == 1 + (page.stem == "gradients")
        assert ("img" in parsed.tags) == (page.stem == "index")
        for link in parsed.links:
            if link.startswith("data:image/png;base64,"):  # in a drawing: what is too dense for lines
                Image.open(io.BytesIO(base64.b64decode(link.partition(",")[2]))).verify()
                continue
            if link.startswith("data:image/svg+xml,"):  # in the gallery
                assert ElementTree.fromstring(unquote(link.partition(",")[2])).get("viewBox")
                continue
            present, _, part = link.partition("#")
            assert link == "data:," or (page.parent / present).exists(), link
            assert not part or part in ids[present or page.name], link
        drawings = re.findall(r'<svg[^>]*class="figure".*?</svg>', page.read_text(), re.DOTALL)
        assert len(drawings) == figures.get(page.stem, 0)  # one a figure
        for drawing in drawings:
            assert ElementTree.fromstring(drawing).get("viewBox")
    assert len(list(built.index.parent.glob(f"{FIGURES}/*.png"))) == sum(figures.values())


def test_every_link_of_the_markdown_leads_somewhere(pages):
    for page in pages:
        if page.stem == "gradients":
            continue
        targets = re.findall(r"(?<!\\)\]\((\S+?)\)", page.with_suffix(".md").read_text())
        assert targets
        assert [target for target in targets if not (page.parent / target).is_file()] == []


def test_a_page_has_question_answer_picture_and_then_the_failing_claims(built):
    text = Parsed((built.index.parent / "training_step.html").read_text()).text
    order = [
        "How much time and memory does a training step take",
        "A training step costs less in part",
        "Understanding this plot",
        "Claims: 2 fail, 2 hold",
    ]
    places = [text.index(part) for part in [*order, "✗ fails", "✓ holds", "Save CSV", "Commit"]]
    assert places == sorted(places)


def test_markup_from_outside_is_text(built):
    for name in ("script-alert-1", "claims"):
        page = built.index.parent / f"{name}.html"
        assert " ".join(EVIL.split()) in Parsed(page.read_text()).text
        markdown = page.with_suffix(".md").read_text()
        assert "<script>" not in markdown and "<img" not in markdown
        assert r"\*\*b\*\* \| \[a\](b) \`c\`" in markdown
    assert "<script>alert(1)<.parquet" in Parsed((built.index.parent / "script-alert-1.html").read_text()).text


def test_markup_in_every_place_of_a_page_without_figures(unknown):
    about = {"command": EVIL, "commit": EVIL, "gpu": {EVIL: EVIL}}
    page = unknown({EVIL: [EVIL]}, [["key"] + [EVIL] * 5 + ["fails"]], about, parameters={EVIL: EVIL}, subject=EVIL)
    parsed = Parsed(written(page, ".html"))
    plain = " ".join(EVIL.split())
    # subject, title, question's answer (claim and measured), five cells, column, value, csv (quoted), command, commit, facts
    assert parsed.text.count(plain) >= 13
    assert parsed.tags.count("script") == 1 and "img" not in parsed.tags and "svg" not in parsed.tags
    markdown = written(page, ".md")
    code = markdown[markdown.index("```") : markdown.rindex("```")]
    assert EVIL in code
    assert "<script>" not in markdown.replace(code, "") and "<img" not in markdown.replace(code, "")


def test_a_study_without_figures_has_its_claims_and_its_table(unknown):
    page = unknown({"peer": ["ours"], "ms": [1.23456789]}, [["speed", "it is fast", "s", "x", "> 1", "2", "holds"]])
    text = Parsed(written(page, ".html")).text
    assert "The one claim holds: it is fast (measured 2)." in text
    assert "peerms ours1.235" in text
    assert "peer,ms ours,1.23456789" in text
    assert "How fast it is" in text and "Commit unknown" in text


def test_a_long_table_is_listed_in_part_and_saved_whole(unknown):
    page = unknown({"x": range(ROWS + 1)})
    text = Parsed(written(page, ".html")).text
    assert (
        "201 rows of unheard_of.parquet, numbers with nine digits in the CSV. The list below holds the first 200, the CSV all."
        in text
    )
    assert len(page.rows) == ROWS
    assert page.csv.splitlines()[-1] == str(ROWS)


def test_a_table_that_a_study_sums_up_is_listed_so_and_saved_whole(unknown, monkeypatch):
    page = unknown({"x": range(6)})
    assert page.summed == 0 and page.columns == page.measured == ["x"]
    with monkeypatch.context() as patch:
        patch.setattr(pages_of, "summary", lambda table: pd.DataFrame({"median": [2.5], "name": ["x"]}))
        table = pd.DataFrame({"x": range(6)})
        table.attrs = {"study": "unheard_of", "parameters": {}, "machine": {}}
        page = make(table, "throughput", "throughput.parquet")
    assert page.rows == [["2.5", "x"]] and page.columns == ["median", "name"] and page.numeric == [True, False]
    text = Parsed(written(page, ".html")).text
    assert "6 rows of throughput.parquet, numbers with nine digits in the CSV. The list below sums them up in 1 row;" in text
    assert page.csv.splitlines() == ["x", *"012345"]
    assert "with the columns x;" in written(page, ".md")


@pytest.mark.parametrize(("length", "packed"), [(10, False), (60_000, True)])
def test_a_long_csv_is_packed(length, packed, unknown):
    page = unknown({"x": range(length)})
    assert bool(page.packed) == packed
    match = re.search(r'<pre id="csv"( data-packed="gzip")? hidden>(.+?)</pre>', written(page, ".html"), re.DOTALL)
    assert bool(match[1]) == packed
    assert not packed or gzip.decompress(base64.b64decode(match[2])).decode() == page.csv


def test_one_row_is_not_rows(unknown):
    assert "1 row of" in written(unknown({"x": [1]}), ".html")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (True, "True"), (12345, "12345"), (1234567.0, "1.235e+06"), (0.5, "0.5"), ("w" * 201, "w" * 199 + "…")],
)
def test_values_are_short(value, text):
    assert cell(value) == text


def test_missing_values_are_empty_cells(unknown):
    page = unknown({"x": [1.0, float("nan")], "y": ["a", None], "z": [[1, 2], None]})
    assert page.rows == [["1", "a", "[1, 2]"], ["", "", ""]]


def test_nested_facts_are_flat():
    flat = facts({"cpu": "x", "versions": {"torch": "2", "cuda": None}, "sizes": [1, 2]})
    assert flat == {"cpu": "x", "versions.torch": "2", "versions.cuda": "none", "sizes": "1, 2"}


def test_uncommitted_changes_are_said(unknown):
    assert unknown({"x": [1]}, about={"commit": "abc", "dirty": True}).commit == "abc, with changes that were not committed"
    assert unknown({"x": [1]}, about={"commit": "abc", "dirty": False}).commit == "abc"


@pytest.mark.parametrize(
    ("text", "fence"), [("a", "```"), ("a ``` b", "````"), ("`````", "``````")], ids=["plain", "three", "five"]
)
def test_code_cannot_leave_its_fence(text, fence):
    assert fenced(text) == f"{fence}\n{text}\n{fence}"


@pytest.mark.parametrize("start", ["1. x", "12) x", "- x", "+ x", "# x", "> x", "=== x"])
def test_markdown_at_the_start_of_a_line_is_text(start, unknown):
    line = next(line for line in written(unknown({"x": [1]}, subject=start), ".md").splitlines() if line.endswith("x*"))
    assert re.match(r"\*(\d+\\[.)]|\\[-+#=]|&gt;)", line)


@pytest.mark.parametrize("text", ["\ud800", "a‮b", "\x00", "日本語", "a\nb"])
def test_any_text_can_be_written(text, unknown):
    page = unknown({"x": [1]}, subject=text, about={"command": text})
    for ending in (".html", ".md"):
        output = written(page, ending)
        assert not [c for c in output if not c.isprintable() and c != "\n"]


def test_templates_are_those_of_the_package_wherever_the_command_runs() -> None:
    """Not of a folder ``reports`` that happens to stand in the working folder."""
    loader = _environment(False).loader
    assert isinstance(loader, PackageLoader) and loader.package_name == "recurrent_lm.reports"


@pytest.mark.parametrize(
    ("text", "formulas"),
    [
        ("parts of dL(t)/dW_h at step i", ["dL(t)/dW_h"]),
        ("dL(4)/dh(4) and h(0), W_h", ["dL(4)/dh(4)", "h(0)", "W_h"]),
        ("dE/db = -661.7", ["dE/db"]),
        ("h(t-1) and x(t+1)", ["h(t-1)", "x(t+1)"]),
        ("runs/with_h(2)/x, a_h, https://x/W_h", []),
        ("it costs $5 or $6", []),
        ("the tokens per_second of log(chi)", []),
    ],
)
def test_symbols_are_found_and_nothing_else(text, formulas):
    symbols = list(pieces(text))
    assert [piece for piece, formula in symbols if formula] == formulas
    assert "".join(piece for piece, _ in symbols) == text


def test_dollars_are_mathematics_in_this_programs_texts_alone():
    assert [p for p, formula in pieces(r"as $\rho^l$ or $5", dollars=True) if formula] == [r"\rho^l"]
    assert not any(formula for _, formula in pieces(r"as $\rho^l$ or $5"))


@pytest.mark.parametrize("formula", ["W_h", "dL(t)/dW_h", r"\chi = g^2 E[\tanh'^2]", r"g/\sqrt{n}"])
def test_a_formula_is_one_element_of_mathml(formula):
    assert ElementTree.fromstring(mathml(formula)).tag.endswith("}math")


def test_text_beside_formulas_is_escaped():
    assert str(_typeset("<b> & W_h")).startswith("&lt;b&gt; &amp; <math")
    assert str(_typeset("no formula <i>")) == "no formula &lt;i&gt;"
    assert str(_typeset_markdown("*a* W_h <b>")) == r"\*a\* $W_h$ &lt;b&gt;"
    assert str(_typeset_markdown("1. W_h")) == r"1\. $W_h$"
