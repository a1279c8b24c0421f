"""The controls of the page in a real browser: values under the pointer, units, and runs that are left out."""

import html
import json
import math
import re
import shutil
import subprocess

import pytest

from recurrent_lm import lm
from recurrent_lm.reports.training import Models, write_page

PROGRAM = next(
    filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"))), None
)
# Beside the page, which stands in a frame: its own rules let no other script run in it.
HAND = """
addEventListener("load", () => {
  const page = document.querySelector("iframe").contentDocument, view = document.querySelector("iframe").contentWindow;
  const chart = page.querySelector("[data-chart=loss]"), seen = {};
  const values = () => [...chart.querySelectorAll(".values div")].map(row => row.textContent);
  const point = share => {
    const svg = chart.querySelector("svg"), box = svg.getBoundingClientRect();
    svg.dispatchEvent(new view.PointerEvent("pointermove", { clientX: box.left + share * box.width, clientY: box.top + 50 }));
    return values();
  };
  const press = key => chart.querySelector("svg").dispatchEvent(new view.KeyboardEvent("keydown", { key }));
  seen.end = point(1);
  press("ArrowLeft");
  seen.before = values();
  for (const unit of ["perplexity", "bits"]) {
    page.querySelector(`[data-unit=${unit}]`).click();
    seen[unit] = point(1);
  }
  seen.hash = view.location.hash;
  const paths = () => page.querySelectorAll(".chart path").length;
  seen.paths = [paths()];
  page.querySelector("[data-run='0']").click();
  seen.paths.push(paths());
  page.querySelector("[data-run='0']").click();
  seen.paths.push(paths());
  document.getElementById("seen").textContent = JSON.stringify(seen);
});
"""


@pytest.fixture(scope="module")
def touched(tmp_path_factory):
    """What the controls did, and the history of the run."""
    if PROGRAM is None:
        pytest.skip("there is no browser to look at pages with; install chromium")
    folder = tmp_path_factory.mktemp("touched")
    (folder / "speech.txt").write_text("We want jobs. They want peace. All of us build good roads and schools. " * 40)
    tiny = {"kind": "word", "hidden_size": 8, "rows": 4, "bptt": 8, "threads": 1, "device": "cpu", "epochs": 2}
    for name, cell in (("a", "lstm"), ("b", "rnn-tanh")):
        lm.train(folder / "speech.txt", folder / name, quiet=True, cell=cell, **tiny)
    page, desk = folder / "page.html", folder / "desk.html"
    write_page([folder / "a", folder / "b"], page, [], Models())
    frame = f'<iframe width="900" height="900" srcdoc="{html.escape(page.read_text())}"></iframe>'
    desk.write_text(f'<meta charset="utf-8">{frame}<pre id="seen"></pre><script>{HAND}</script>')
    command = [PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--virtual-time-budget=10000", "--dump-dom", desk.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    seen = re.search(r'<pre id="seen">(.+?)</pre>', done.stdout, re.DOTALL)
    assert seen, done.stderr[-2000:]
    return json.loads(html.unescape(seen[1])), lm.history(folder / "a")


def value(rows, name):
    """The number of a row such as "a, validation 1.234"."""
    (row,) = [row for row in rows if row.startswith(name)]
    return float(row.rpartition(" ")[2].replace(",", ""))


def test_the_pointer_reads_the_logs_values(touched):
    seen, history = touched
    last = history.steps[-1]
    assert value(seen["end"], "updates") == last["step"]
    assert value(seen["end"], "a, training") == pytest.approx(last["loss"], rel=1e-3)
    assert value(seen["end"], "a, validation") == pytest.approx(history.epochs[-1]["valid_loss"], rel=1e-3)
    assert len(seen["end"]) == 1 + 2 * 2, "a heading and two lines a run"


def test_an_arrow_key_moves_by_one_update(touched):
    seen, history = touched
    before = history.steps[-2]
    assert value(seen["before"], "updates") == before["step"]
    assert value(seen["before"], "a, training") == pytest.approx(before["loss"], rel=1e-3)


def test_the_same_loss_in_every_unit(touched):
    seen, history = touched
    last = history.epochs[-1]
    assert value(seen["perplexity"], "a, validation") == pytest.approx(last["valid_perplexity"], rel=1e-3)
    assert value(seen["perplexity"], "a, training") == pytest.approx(math.exp(history.steps[-1]["loss"]), rel=1e-3)
    assert value(seen["bits"], "a, validation") == pytest.approx(last["valid_bits_per_byte"], rel=1e-3)


def test_a_run_is_left_out_and_comes_back(touched):
    seen, _ = touched
    every, without, again = seen["paths"]
    assert every == again > without > 0
