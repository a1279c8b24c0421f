"""The page of vanishing and exploding gradients computes what the kernels compute, and everything on it moves."""

import html
import json
import math
from itertools import product

import pytest
import torch
from markupsafe import Markup

from recurrent_lm import kernels
from recurrent_lm.reports.render import part, render
from recurrent_lm.reports.site import _touch
from recurrent_lm.reports.touch import STEPS, UNITS, as_json, example
from recurrent_lm.studies.clipping import cliff

CELLS = {
    "tanh": "rnn-tanh",
    "relu": "rnn-relu",
    "sigmoid": "rnn-sigmoid",
    "linear": "rnn-identity",
    "lstm": "lstm",
    "gru": "gru",
}
SETTINGS = [
    {"cell": cell, "scale": scale, "noise": noise, "bias": bias}
    for cell in CELLS
    for scale, noise, bias in ((0.0, 0.3, 2.0), (0.9, 1.0, 0.0), (1.4, 0.3, -1.0), (2.0, 0.3, 4.0))
]
PLACES = [(4.7, -2.1), (5.0, -2.4), (4.3, -2.6), (4.9, -1.95)]
GATE = slice(UNITS, 2 * UNITS)  # f of i f g o, u of r u n


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("touch") / "gradients.html"
    path.write_bytes(_touch())
    return path


def kernel_norms(cell, scale, noise, bias):
    """By lag: ||dL(t)/dh(i)||, ||dL(t)/dc(i)||, and ||dL(t)/dW_h at step i||, by autograd through the kernels."""
    data = {key: torch.tensor(example()[key], dtype=torch.float64) for key in ("weights", "inputs", "aim")}
    name, gates = CELLS[cell], kernels.CELLS[CELLS[cell]].gates
    z = noise * data["inputs"][:, : gates * UNITS]
    if gates > 1:
        z[:, GATE] = bias
    state = tuple(torch.zeros(1, UNITS, dtype=torch.float64) for _ in range(kernels.CELLS[name].states))
    states, copies = [], []
    for row in z:
        weight = (scale * data["weights"][:gates].flatten(0, 1)).requires_grad_()
        state = tuple(
            s.clone().requires_grad_() if not s.requires_grad else s for s in kernels.step(name, row[None], state, weight)
        )
        for s in state:
            s.retain_grad()
        states.append(state)
        copies.append(weight)
    (states[-1][0] * data["aim"]).sum().backward()

    def norm(gradient):
        return 0.0 if gradient is None else float(torch.linalg.vector_norm(gradient))

    hidden = [norm(s[0].grad) for s in reversed(states)]
    cells = [norm(s[1].grad) if len(s) > 1 else 0.0 for s in reversed(states)]
    return {"hidden": hidden, "cell": cells, "part": [norm(w.grad) for w in reversed(copies)]}


MEASURE = """
const measure = async frame => {
  const { gradients } = frame.contentWindow, page = frame.contentDocument, seen = {};
  seen.flows = SETTINGS.map(setting => gradients.flow(setting.cell, setting));
  seen.newton = SETTINGS.map(setting => gradients.newton(setting.cell, setting)).map(k => isFinite(k) ? k : -1);
  seen.slopes = PLACES.map(([w, b]) => gradients.slopes(w, b));
  seen.descents = [0.1, Infinity].map(limit => gradients.descent(4.7, -2.1, limit));
  seen.products = seen.flows.map(found => gradients.products(gradients.chains(found)));
  const figures = ["curve", "plane", "paths", "cliff"], draw = () => figures.map(id => page.getElementById(id).innerHTML);
  const slide = (id, value) => {
    const before = draw(), input = page.getElementById(id);
    input.value = value;
    input.dispatchEvent(new Event("input"));
    return draw().map((after, i) => after !== before[i]);
  };
  seen.moved = {};
  for (const [id, value] of [["scale", 1.9], ["lag", 7], ["noise", 1.5], ["threshold", 0.5], ["cell", "lstm"], ["bias", 3.5]])
    seen.moved[id] = slide(id, value);
  seen.said = page.getElementById("newton").textContent;
  const start = page.getElementById("start"), before = page.getElementById("cliff-said").textContent;
  start.focus();
  start.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true }));
  seen.key = page.getElementById("cliff-said").textContent !== before;
  seen.focused = page.activeElement.id;
  seen.answer = page.getElementById("answer").textContent;
  return seen;
};
"""


@pytest.fixture(scope="module")
def seen(page, measured):
    script = MEASURE.replace("SETTINGS", json.dumps(SETTINGS)).replace("PLACES", json.dumps(PLACES))
    ((values,), console) = measured([page], script)
    assert console == []
    return values


def close(found, wanted):
    return all(math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-300) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("number", range(len(SETTINGS)), ids=["{cell}-g{scale}".format(**setting) for setting in SETTINGS])
def test_norms_agree_with_the_kernels(number, seen):
    found, wanted = seen["flows"][number], kernel_norms(**SETTINGS[number])
    assert len(found["hidden"]) == STEPS
    for name, norms in wanted.items():
        assert close(found[name], norms), name


@pytest.mark.parametrize("number", range(len(SETTINGS)), ids=["{cell}-g{scale}".format(**setting) for setting in SETTINGS])
def test_newtons_iterations_are_those_of_the_study(number, seen):
    wanted, found = iterations(**SETTINGS[number]), seen["newton"][number]
    last = STEPS - 1  # where as many iterations as steps are needed, rounding decides whether the last one suffices
    assert (
        found == wanted or {found >= last or found == -1, wanted >= last} == {True} or (found > 8 and abs(found - wanted) < 2)
    )


def iterations(cell, scale, noise, bias):
    """Newton's iterations for the page's network, by autograd's derivatives; infinite where they are more than its steps."""
    data = {key: torch.tensor(example()[key], dtype=torch.float64) for key in ("weights", "inputs")}
    name, gates = CELLS[cell], kernels.CELLS[CELLS[cell]].gates
    z, weight = noise * data["inputs"][:, : gates * UNITS], (scale * data["weights"][:gates].flatten(0, 1))
    if gates > 1:
        z[:, GATE] = bias
    start = torch.zeros(kernels.CELLS[name].states * UNITS, dtype=torch.float64)

    def step(before, row):
        return torch.cat(kernels.step(name, row[None], before[None].split(UNITS, dim=1), weight), dim=1)[0]

    truth = [step(start, z[0])]
    for row in z[1:]:
        truth.append(step(truth[-1], row))
    truth, guess = torch.stack(truth), torch.zeros(STEPS, len(start), dtype=torch.float64)
    for k in range(STEPS + 1):
        if not (guess - truth).isfinite().all():
            break
        if float((guess - truth).abs().max()) <= 1e-6:
            return k
        before = torch.cat([start[None], guess[:-1]])
        after, jacobian = torch.func.vmap(step)(before, z), torch.func.vmap(torch.func.jacrev(step))(before, z)
        new, last = [], start
        for t in range(STEPS):
            last = after[t] + jacobian[t] @ (last - before[t])
            new.append(last)
        guess = torch.stack(new)
    return math.inf


def test_the_cliff_agrees_with_the_study(seen):
    for (w, b), found in zip(PLACES, seen["slopes"], strict=True):
        assert found == pytest.approx([float(x) for x in cliff.slopes(w, b)], rel=1e-9)
    for limit, path in zip((0.1, math.inf), seen["descents"], strict=True):
        wanted = list(cliff.descent(4.7, -2.1, 0.2, limit, 60))
        told = [[point.w, point.b, point.error, point.norm] for point in wanted]
        assert path[:10] == [pytest.approx(point, rel=1e-7) for point in told[:10]]  # then the wall amplifies rounding
        assert (path[-1][2] < 0.01) == (wanted[-1].error < 0.01) == (limit == 0.1)


def test_products_are_true_as_they_are_shown(seen):
    def value(text):
        mantissa, _, power = text.partition("·10")
        return float(mantissa) * 10 ** int(power.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")) or 0)

    for rows in seen["products"]:
        for factors, whole in rows:
            times, told = math.prod(map(value, factors)), value(whole)
            unit = 10 ** (math.floor(math.log10(told)) - 1) if told else 0.0  # of the second digit
            assert abs(times - told) <= unit / 2 * (1 + 1e-9)


def test_every_slider_moves_its_figure(seen):
    curve, plane, paths, cliff_ = range(4)
    wanted = {"scale": (curve, plane, paths), "lag": (curve,), "noise": (curve, paths), "threshold": (cliff_,)}
    wanted |= {"cell": (curve, plane, paths), "bias": (curve, plane, paths)}
    for slider, figures in wanted.items():
        assert all(seen["moved"][slider][figure] for figure in figures), slider
    assert not any(seen["moved"]["threshold"][figure] for figure in (curve, plane, paths))  # clipping cures no vanishing
    assert seen["key"] and seen["focused"] == "start"
    assert seen["said"].startswith("Newton's method")


def test_the_page_needs_nothing_but_itself(page):
    text = page.read_text()
    assert len(text.encode()) < 800_000
    assert "http://" not in text.replace("http://www.w3.org/", "") and "https://" not in text
    data = json.loads(html.unescape(text.split('id="example">')[1].split("</script>")[0]))
    assert data == json.loads(as_json(example()))  # every digit


def test_eigenvalues_are_those_of_the_weights():
    data = example()
    weight = torch.tensor(data["weights"][0], dtype=torch.float64)
    eigenvalues = sorted(abs(complex(*pair)) for pair in data["eigenvalues"])
    assert eigenvalues == pytest.approx(sorted(torch.linalg.eigvals(weight).abs().tolist()), rel=1e-9)
    assert data["sigma"] == pytest.approx(float(torch.linalg.matrix_norm(weight, 2)), rel=1e-12)
    assert math.hypot(*data["aim"]) == pytest.approx(1, rel=1e-12)


def test_with_no_recurrent_weights_a_gate_alone_decides():
    for cell, bias in product(("lstm", "gru"), (0.0, 3.0)):
        norms = kernel_norms(cell, 0.0, 0.3, bias)["cell" if cell == "lstm" else "hidden"]
        pace = (norms[40] / norms[0]) ** (1 / 40)
        assert pace == pytest.approx(1 / (1 + math.exp(-bias)), rel=1e-9)


def test_a_script_of_another_page_is_not_allowed():
    """The policy names the one script that the page brings."""
    text = render("gradients.html", example=example(), data="{}", script=Markup(part("gradients.js"))).decode()
    assert text.count("<script") == 2 and text.count("sha256-") == 1
