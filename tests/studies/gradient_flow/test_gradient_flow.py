"""Every step's part of the gradient: against autograd with a copy of W_h for every step, and known answers."""

import math

import numpy as np
import pytest
import torch

from recurrent_lm import kernels, lm
from recurrent_lm.studies.engine.study import make
from recurrent_lm.studies.engine.tables import load, save
from recurrent_lm.studies.gradient_flow import language as language
from recurrent_lm.studies.gradient_flow import textbook as textbook
from recurrent_lm.studies.gradient_flow.parts import (
    along_lags,
    at_own_step,
    backward,
    forward,
    horizon,
    part_norms,
    slope,
    sum_norms,
    sums,
)
from recurrent_lm.studies.gradient_flow.study import PRESETS, Study, complaint
from recurrent_lm.studies.gradient_lag.study import unroll

STEPS, BATCH, UNITS = 5, 2, 3


def copies(cell, z, state, weight, bias, aims):
    """dL(t)/dW_h at step i by autograd, [T, T, B, G H, H] by i and t: a copy of W_h for every step and row; and dL(t)/dh(i)."""
    result = torch.zeros(STEPS, STEPS, BATCH, *weight.shape, dtype=torch.float64)
    hidden = torch.zeros(STEPS, STEPS, BATCH, UNITS, dtype=torch.float64)
    for b in range(BATCH):
        now = tuple(s[b : b + 1] for s in state)
        own = [weight.clone().requires_grad_() for _ in range(STEPS)]
        seen = []
        for i in range(STEPS):
            now = kernels.step(cell, z[i, b : b + 1], now, own[i], bias)
            seen.append(now[0])
        for t in range(STEPS):
            loss = (seen[t] * aims[t, b]).sum()
            grads = torch.autograd.grad(loss, [*own, *seen], retain_graph=True, allow_unused=True)
            for i in range(t + 1):
                result[i, t, b], hidden[i, t, b] = grads[i], grads[STEPS + i][0]
    return result, hidden


def layer(cell, seed=0):
    gates = kernels.CELLS[cell].gates
    draw = torch.Generator().manual_seed(seed)

    def numbers(*shape):
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    state = tuple(numbers(BATCH, UNITS) for _ in range(kernels.CELLS[cell].states))
    z, weight, bias = numbers(STEPS, BATCH, gates * UNITS), numbers(gates * UNITS, UNITS), numbers(gates * UNITS)
    return z, state, weight, bias, numbers(STEPS, BATCH, UNITS)


@pytest.mark.parametrize("cell", kernels.CELLS)
def test_the_map_is_autograds_with_a_copy_of_the_weights_for_every_step(cell):
    z, state, weight, bias, aims = layer(cell)
    truth, hidden = copies(cell, z, state, weight, bias, aims)
    unrolled = forward(cell, z, state, weight, bias)
    back = backward(unrolled, at_own_step(aims, STEPS))
    assert torch.allclose(part_norms(unrolled, back), truth.flatten(-2).norm(dim=-1), rtol=1e-12, atol=1e-14)
    assert torch.allclose(back.d_h, hidden, rtol=1e-12, atol=1e-14)
    assert torch.allclose(sums(unrolled, back), truth.sum(dim=0), rtol=1e-12, atol=1e-13)
    assert torch.allclose(sum_norms(unrolled, back), truth.sum(dim=0).flatten(-2).norm(dim=-1), rtol=1e-9, atol=1e-12)


def test_the_state_of_an_lstm_is_h_and_c():
    """Against autograd of the state before the first step, h and c as independent variables."""
    z, state, weight, bias, aims = layer("lstm")
    starts = tuple(s.clone().requires_grad_() for s in state)
    now = starts
    for row in z:
        now = kernels.step("lstm", row, now, weight, bias)
    d_h, d_c = torch.autograd.grad((now[0] * aims[-1]).sum(), starts)
    whole = forward("lstm", z, state, weight, bias)
    back = backward(whole, at_own_step(aims[-1:], STEPS))
    d = back.d_a[0, 0] @ weight
    assert torch.allclose(d, d_h, rtol=1e-12)
    forget = whole.gates[1][0]
    through = back.d_h[0, 0] * whole.gates[3][0] * (1 - torch.tanh(whole.after[1][0]) ** 2)
    assert torch.allclose((back.d_c[0, 0] + through) * forget, d_c, rtol=1e-12)
    norms = torch.hypot(back.d_h.norm(dim=-1), back.d_c.norm(dim=-1))
    assert torch.equal(back.state_norms(), norms)


def test_norms_along_lags_are_those_of_steps_before_the_loss():
    steps, losses = 6, 2
    norms = torch.arange(steps)[:, None, None] + 10 * torch.arange(losses)[None, :, None]  # step + 10 * loss
    by_lag = along_lags(norms, 4)
    assert by_lag[:, 0, 0].tolist() == [4, 3, 2, 1, 0] and by_lag[:, 1, 0].tolist() == [15, 14, 13, 12, 11]


@pytest.mark.parametrize(("norms", "lags"), [([9.0, 1, 0], 0), ([8.0, 1, 1], 1), ([1.0] * 10, 8), ([1.0, 0, 0], 0)])
def test_the_horizon_is_the_first_lag_that_holds_nine_tenths(norms, lags):
    assert horizon(torch.tensor(norms, dtype=torch.float64)).item() == lags


def test_a_slope_is_that_of_the_log_and_nan_where_there_is_none():
    curve = torch.tensor([7.0, *(3 * 0.5**lag for lag in range(1, 9))])
    assert slope(curve, 1, 8) == pytest.approx(math.log(0.5), rel=1e-6)
    assert math.isnan(slope(torch.tensor([1.0, 0.5, 0.0]), 0, 2)) and math.isnan(slope(curve, 3, 3))


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm", "gru"])
def test_the_certificate_holds(cell):
    values = {row["quantity"]: row["value"] for row in textbook.certificate(cell, 1, 6, 5)}
    assert values["sum_error"] <= 1e-12 and values["trace_error"] <= 1e-12 and values["beyond"] == values["first"] == 0


def test_the_certificate_finds_a_wrong_gradient(monkeypatch):
    """Steps that forget a tenth of what comes from later ones."""
    right = textbook.backward

    def wrong(unrolled, arriving):
        back = right(unrolled, arriving)
        return type(back)(back.d_h, back.d_c, back.d_z, back.d_a * torch.linspace(0.9, 1, len(arriving))[:, None, None, None])

    monkeypatch.setattr(textbook, "backward", wrong)
    values = {row["quantity"]: row["value"] for row in textbook.certificate("rnn-tanh", 1, 6, 5)}
    assert values["sum_error"] > 1e-3


def test_the_exponent_of_a_linear_network_is_the_log_of_its_radius():
    weight = 0.8 * torch.linalg.qr(textbook.numbers(0, 6, 6))[0]
    assert textbook.lyapunov("rnn-identity", weight, 0, 20) == pytest.approx(math.log(0.8), abs=1e-12)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_exponent_is_what_the_gradient_follows(cell):
    """Of a small network the backward pass falls as the tangent vectors do, over the same inputs' statistics."""
    rows = textbook.curves(cell, 1.0, 1, 24, 160, 4, 400)
    values = {row["quantity"]: row["value"] for row in rows if "seed" in row}
    assert values["slope"] == pytest.approx(values["exponent"], abs=0.05) and "half_log_chi" not in values


def test_theory_of_a_linear_network_is_exact():
    """chi = g^2, singular values and radius those of W_h."""
    weight = torch.diag(torch.tensor([0.5, -0.9], dtype=torch.float64))
    unrolled = forward("rnn-identity", textbook.numbers(0, 3, 1, 2), textbook.zeros("rnn-identity", 1, 2), weight)
    predicted = textbook.theory(unrolled, 0.7)
    assert predicted["log_radius"] == pytest.approx(math.log(0.9)) == predicted["log_singular"]
    assert predicted["half_log_chi"] == pytest.approx(math.log(0.7))


@pytest.mark.parametrize("value", [0.5, 0.9])
def test_the_curse_of_memory(value):
    values = {row["quantity"]: row["value"] for row in textbook.memory(value, 512)}
    assert values["exact"] == pytest.approx((1 + value**2) / (1 - value**2) ** 3, rel=1e-6)
    assert values["state"] == pytest.approx(1 / (1 - value**2), rel=1e-6)
    assert values["sampled_low"] < values["exact"] < values["sampled_high"]


@pytest.mark.parametrize("bias", [0.0, 3.0])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_gates_alone_set_the_slope(cell, bias):
    (row,) = (row for row in textbook.gates(cell, bias, 1, 8, 20) if row["quantity"] == "slope")
    assert row["value"] == pytest.approx(-math.log1p(math.exp(-bias)), abs=1e-5)


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm", "gru"])
def test_a_language_models_parts_are_those_of_its_unrolled_copies(cell):
    """Two layers, tied with a projection, against ``gradient_lag.unroll`` and autograd."""
    torch.manual_seed(0)
    config = lm.ModelConfig(cell=cell, hidden_size=6, embedding_size=4, layers=2)
    model = lm.LanguageModel(11, config).double().eval()
    text = torch.tensor([3, 1, 4, 1, 5, 9])
    hidden, weights = unroll(model, text[:-1], model.zero_state(1))
    loss = torch.nn.functional.cross_entropy(model.logits(model.projection(hidden[-1][-1])), text[-1:])
    flat = [w for step in weights for w in step]
    truth = [float(g.norm()) for g in torch.autograd.grad(loss, flat)]
    unrolled = language.layers(model, text[:-1, None])
    backs = language.flows(model, unrolled, text[-1:, None])
    for i in range(2):
        own = part_norms(unrolled[i], backs[i])[:, 0, 0].tolist()
        assert own == pytest.approx(truth[i::2], rel=1e-10, abs=1e-14)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("the people of the union and the people of the states stand by the union . " * 150)
    return path


TINY = {"windows": 1, "reach": 4, "map_steps": 4, "hidden": 6, "layers": 2, "epochs": 1, "model_seeds": 1}


def test_a_course_looks_before_and_after_and_draws_both(text):
    study = Study(parts=("language",), corpora=str(text), models=("rnn-tanh",), sentence="people of the states stand", **TINY)
    study.prepare()
    (cell,) = study.cells()
    rows = study.measure(cell)
    table = study.table(rows)
    looks = table[(table["part"] == "language") & (table["lag"] < 0)]
    assert sorted(looks["epoch"].unique()) == [0, 1] and set(looks["layer"]) == {0, 1}
    assert (looks.loc[looks["quantity"] == "sum_error", "value"] <= 1e-12).all()
    assert set(table["part"]) == {"language", "map", "paths"} and sorted(table[table["part"] == "map"]["epoch"].unique()) == [
        0,
        1,
    ]
    first = table[(table["part"] == "map") & (table["step"] - table["lag"] == 1)]
    assert (first["value"] == 0).all()  # h(0) = 0
    assert list(table[(table["quantity"] == "hidden") & (table["epoch"] == 1)]["token"]) == ["people", "of", "the", "states"]
    ratio = looks[looks["quantity"] == "cancellation"]["value"]
    assert ((ratio > 0) & (ratio <= 1)).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"corpora": "nowhere"}, "nowhere"),
        ({"sentence": "the people"}, "four words and the one that follows, not 2 tokens"),
        ({"units": "5000", "lags": "5000", "positions": "1000"}, "GB of memory or more"),
        ({"cell": "rnn"}, "cell must be some of"),
        ({"scales": "0"}, "scales must be different numbers"),
    ],
)
def test_what_cannot_be_measured_is_a_sentence(settings, words):
    with pytest.raises(lm.InputError, match=words):
        make("gradient_flow", settings, "smoke").prepare()


@pytest.mark.parametrize("preset", PRESETS)
def test_cells_are_different(preset):
    cells = PRESETS[preset].cells()
    assert len({tuple(cell.items()) for cell in cells}) == len(cells)


def test_numbers_depend_on_seed_and_sizes_alone():
    study = Study(parts=("curves",), scales=(0.7,), units=6, others=6, lags=8, positions=2, seeds=2, qr_steps=5)
    rows = study.measure({"part": "curves", "cell": "gru", "scale": "0.7"})
    torch.rand(7)
    again = study.measure({"part": "curves", "cell": "gru", "scale": "0.7"})
    assert [row["value"] for row in rows] == [row["value"] for row in again]
    one = textbook.curves("gru", 0.7, 1, 6, 8, 2, 2)
    slopes = [row["value"] for row in rows if row["quantity"] == "slope"]
    assert slopes[0] == next(row["value"] for row in one if row["quantity"] == "slope") != slopes[1]


def test_a_table_is_stored_and_read_and_a_foreign_one_refused(tmp_path):
    study = Study(parts=("memory", "gates"), eigenvalues=(0.5,), samples=16, seeds=1, others=4, lags=8)
    table = study()
    save(table, tmp_path / "t.parquet", "gradient_flow", study)
    assert len(load(tmp_path / "t.parquet")) == len(table)
    assert complaint(study, table) == ""
    assert "none of" in complaint(study, table.assign(part="else")) and "none of" in complaint(study, table.assign(cell="else"))
    assert "twice" in complaint(study, table.loc[np.zeros(2, dtype=int)])
