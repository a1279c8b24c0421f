"""Built pages, and a browser to look at them with."""

import functools
import html
import json
import re
import shutil
import subprocess

import pytest
from flow_cases import stored_flow
from matplotlib.mathtext import MathTextParser
from report_cases import (
    EVIL,
    READ,
    readings,
    speech_scores,
    stored_clippings,
    stored_costs,
    stored_norms,
    stored_reaches,
    stored_speeds,
    tying,
)

from recurrent_lm.reports import build
from recurrent_lm.studies import save
from recurrent_lm.studies.speeches.study import Study as Speeches
from recurrent_lm.studies.weight_tying.study import Study as WeightTying

# matplotlib keeps what it parsed of fifty numbers with exponents, fewer than the axes of these tests have
MathTextParser._parse_cached = functools.lru_cache(None)(MathTextParser._parse_cached.__wrapped__)


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A folder of pages: one table of each study, one full of markup, one with nothing to draw, and an index.

    Figures are real in the pages; their files are empty, since drawing them takes as long again, and ``test_folder.py`` has
    real ones.
    """
    folder = tmp_path_factory.mktemp("tables")
    stored_norms(folder / "gradient_lag.parquet", subject="obama, word tokens, lstm 2 x 256")
    stored_costs(folder / "training_step.parquet")
    stored_reaches(folder / "long_range.parquet", corpora=("obama", "trump"))
    save(speech_scores(), folder / "speeches.parquet", "speeches", Speeches(cell=("rnn-tanh", "lstm")))
    save(tying(), folder / "weight_tying.parquet", "weight_tying", WeightTying(vocabulary=(100_000,), sizes=(64,)))
    save(readings(), folder / "reading.parquet", "reading", READ)
    stored_flow(folder / "gradient_flow.parquet")
    stored_clippings(folder / "clipping.parquet")
    stored_speeds(folder / "throughput.parquet")
    stored_norms(folder / "<script>alert(1)<.parquet", run=EVIL, subject=EVIL)
    stored_norms(folder / "zeros.parquet", run="a" * 300, near=0.0, windows=1, subject="W" * 300)
    (folder / "broken.parquet").write_text(EVIL)

    def save_empty(drawing, path):
        path.parent.mkdir(exist_ok=True)
        path.touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recurrent_lm.reports.site.save", save_empty)
        return build([folder], tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="session")
def pages(built):
    return sorted(built.index.parent.glob("*.html"))


BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
# Runs beside the pages, which stand in frames of this document: what a reader would trip over, and a try of the controls.
INSPECTION = r"""
const measure = async frame => {
  const page = frame.contentDocument, view = frame.contentWindow, width = frame.clientWidth, found = [];
  page.querySelectorAll("details").forEach(details => details.open = true);
  const narrow = page.getElementById("narrow") && view.matchMedia("(max-width: 44rem)").matches;
  for (let wait = 0; narrow && !page.querySelector("svg.narrow") && wait < 1000; wait++)
    await new Promise(done => setTimeout(done, 50));
  const say = (what, element) => found.push(`${what}: ${(element.id || element.textContent).trim().slice(0, 60)}`);
  const shown = element => element.getClientRects().length > 0;
  if (page.documentElement.scrollWidth > width) say("the page is wider than the window", page.documentElement);
  for (const element of page.body.querySelectorAll("*")) {
    if (!shown(element) || element.closest("svg")) continue;
    const clipped = ["hidden", "clip"].includes(view.getComputedStyle(element).overflowX);
    if (clipped && element.scrollWidth > element.clientWidth) say("cut off", element);
    if (!element.closest(".scroll") && element.getBoundingClientRect().right > width + 1) say("beyond the edge", element);
  }
  for (const image of page.images) if (!image.complete || !image.naturalWidth) say("missing image", image);
  const drawings = [...page.querySelectorAll("svg.figure")].filter(shown);
  if (narrow && drawings.some(svg => !svg.matches(".narrow") || svg.getBoundingClientRect().right > width))
    say("a wide figure on a telephone", page.body);
  for (const svg of drawings) {
    const edge = svg.getBoundingClientRect(), texts = [...svg.querySelectorAll("text")];
    const boxes = texts.map(text => text.getBoundingClientRect()).filter(box => box.width > 0);
    if (!boxes.length) say("a drawing without text", svg);
    const wide = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left);  // of what two boxes share
    const high = (a, b) => Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (boxes.some(box => wide(box, edge) < box.width - 1 || high(box, edge) < box.height - 1))
      say("text beyond the drawing", {id: svg.getAttribute("aria-label")});
    // the box of a line holds room above and below its letters, which the next line may share
    const room = (a, b) => 0.25 * Math.min(a.height, b.height) + 1;
    if (boxes.some((a, i) => boxes.slice(i + 1).some(b => wide(a, b) > 1 && high(a, b) > room(a, b))))
      say("text over text", {id: svg.getAttribute("aria-label")});
  }
  const channels = colour => (colour.match(/[\d.]+/g) ?? []).map(Number);
  const light = colour => channels(colour).slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = view.getComputedStyle(at).backgroundColor;
      if (channels(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  let contrast = Infinity;
  for (const element of page.body.querySelectorAll("*")) {
    const letters = element.closest("svg"), own = [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    // type in a drawing that does not take the page's colours stands on a ground of its own
    if (!own || !shown(element) || ["SCRIPT", "STYLE", "TITLE", "OPTION"].includes(element.tagName)) continue;
    if (letters && !(element.closest("text")?.outerHTML ?? "").includes("var(--")) continue;
    const style = view.getComputedStyle(element), colour = letters ? style.fill : style.color;
    const [a, b] = [colour, ground(letters ?? element)].map(light);
    const found = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (found < 4.5) say(`contrast ${found.toFixed(2)}`, element);
    contrast = Math.min(contrast, found);
  }
  const style = view.getComputedStyle(page.body), table = page.querySelector("table.data");
  const glyph = drawings.length ? drawings[0].querySelector("text") : null;
  const column = table ? table.tHead.rows[0].cells.length - 2 : 0, sorted = [];
  for (let i = 0; table && i < 2; i++) {
    table.tHead.rows[0].cells[column].querySelector("button").click();
    sorted.push([...table.tBodies[0].rows].map(row => row.cells[column].textContent.trim()));
  }
  let csv = null;
  const save = page.querySelector("button.save[data-name]");
  if (save) {
    // a real blob would be read through another process, for which the browser's virtual time does not wait
    view.Blob = class { constructor(parts) { this.text = parts.join(""); } };
    const saved = new Promise(done => { view.URL.createObjectURL = blob => { done(blob.text); return "#"; }; });
    view.HTMLAnchorElement.prototype.click = () => {};
    save.click();
    csv = await saved;
  }
  return {
    found, sorted, csv, width, contrast, drawings: drawings.length, paper: style.backgroundColor, ink: style.color,
    type: glyph && view.getComputedStyle(glyph).fill, loaded: view.performance.getEntriesByType("resource").length,
  };
};
"""

EACH = """
addEventListener("load", async () => {
  const seen = [];
  for (const frame of document.querySelectorAll("iframe")) seen.push(await measure(frame));
  document.getElementById("seen").textContent = JSON.stringify(seen);
});
"""


@pytest.fixture(scope="session")
def browser():
    """A browser's program."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"there is no browser to look at pages with; install one of {', '.join(BROWSERS)}")
    return program


@pytest.fixture(scope="session")
def measured(tmp_path_factory, browser):
    """measured(pages, script, widths, dark) opens each page at each width and calls the script's ``measure(frame)`` there;
    gives what it returned, page by page, and the console's lines."""

    def measured(pages, script, widths=(1280,), dark=False):
        folder = tmp_path_factory.mktemp("look")
        frames = [
            f'<iframe width="{width}" height="900" style="border: 0" srcdoc="{html.escape(page.read_text())}"></iframe>'
            for page in pages
            for width in widths
        ]
        desk = folder / "desk.html"
        desk.write_text(f'<meta charset="utf-8">{"".join(frames)}<pre id="seen"></pre><script>{script}{EACH}</script>')
        scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000", scheme]
        command += [f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=100000"]
        done = subprocess.run([*command, "--dump-dom", desk.as_uri()], capture_output=True, text=True, timeout=600)
        seen = re.search(r'<pre id="seen">(.+?)</pre>', done.stdout, re.DOTALL)
        assert seen, f"the browser ended with {done.returncode} before the page had answered: {done.stderr[-2000:]}"
        console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
        return json.loads(html.unescape(seen[1])), console

    return measured


@pytest.fixture(scope="session")
def look(measured):
    """look(pages, widths, dark): what a reader would trip over on each page, and the console's lines."""
    return lambda pages, widths, dark: measured(pages, INSPECTION, widths, dark)
