"""Newton's method over a whole sequence: exact where it must be, counted as the literature has it, and what a table decides."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from parallel_cases import STUDY
from parallel_cases import solved as planted

from recurrent_lm import kernels, lm
from recurrent_lm.studies import load, save, verdicts
from recurrent_lm.studies.engine.statistics import rank_correlation
from recurrent_lm.studies.gradient_flow.textbook import exponent, numbers
from recurrent_lm.studies.parallel import newton
from recurrent_lm.studies.parallel.claims import costs, iterations_of
from recurrent_lm.studies.parallel.cost import Work
from recurrent_lm.studies.parallel.language import layers
from recurrent_lm.studies.parallel.newton import Layer, by_loop, by_scan, counts, gradients, solved
from recurrent_lm.studies.parallel.study import CELLS, MODELS, PRESETS, checks, complaint, random


def layer(cell="rnn-tanh", scale=1.0, units=8, steps=21, bias=True):
    """A small random network whose start is not 0."""
    plain = random(cell, scale, 3, units, steps)
    given = numbers(5, len(plain.weight_hh)) if bias else None
    return replace(plain, bias_hh=given, start=numbers(4, len(plain.start)).tanh())


@pytest.mark.parametrize("cell", CELLS)
def test_jacobians_are_those_of_torch_func(cell):
    of = layer(cell)
    before = of.before(of.sequential())

    def one(state, z):
        parts = tuple(part[None] for part in state.split(8))
        return torch.cat(kernels.step(cell, z[None], parts, of.weight_hh, of.bias_hh), dim=-1)[0]

    truth = torch.func.vmap(torch.func.jacrev(one))(before, of.z)
    assert torch.allclose(of.jacobian(before), truth, atol=1e-14)
    assert torch.allclose(of.diagonal(before), truth.diagonal(dim1=1, dim2=2), atol=1e-14)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 8, 33])
@pytest.mark.parametrize("shape", [(5, 5), (5,)])
def test_the_scan_is_the_loop(steps, shape):
    jacobian, b = numbers(1, steps, *shape) / 2, numbers(2, steps, 5)
    assert torch.allclose(by_scan(jacobian, b), by_loop(jacobian, b), rtol=1e-12, atol=1e-12)
    whole = by_loop(jacobian, b)
    if steps > 3:  # a loop goes on from where another ended
        assert torch.equal(by_loop(jacobian[3:], b[3:], whole[2]), whole[3:])


@pytest.mark.parametrize("cell", CELLS)
def test_the_parallel_solution_is_the_sequential_one_and_so_are_its_gradients(cell):
    of = layer(cell, bias=False)
    states, _ = solved(of)
    assert torch.allclose(states, of.sequential(), atol=1e-12)
    z, weight = of.z.clone().requires_grad_(), of.weight_hh.clone().requires_grad_()
    losses = numbers(7, *states.shape)
    wanted = torch.autograd.grad((replace(of, z=z, weight_hh=weight).sequential() * losses).sum(), (z, weight))
    for own, true in zip(gradients(of, states, losses), wanted, strict=True):
        assert float((own - true).norm() / true.norm()) < 1e-12
    assert all(row["value"] < 1e-12 for row in checks(random(cell, 1.0, 0, 6, 15)))


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.05])
def test_a_linear_network_is_solved_in_one_iteration(scale):
    for count in counts(layer("rnn-identity", scale, steps=64), "full", (5, 64), 10):
        assert (count.iterations, count.stopped, count.reason) == (1, 1, "")


def test_a_cell_that_is_linear_in_h_needs_no_special_case(monkeypatch):
    """h' = (1 - s(z)) h + s(z) c: the gate depends on the input alone, as in minGRU."""

    def step(z, state, weight, bias):
        gate, candidate = z.chunk(2, dim=-1)
        return ((1 - torch.sigmoid(gate)) * state[0] + torch.sigmoid(gate) * candidate,)

    def gradient(dh, dc, gates, state):
        keep = 1 - torch.sigmoid(gates[0])
        return dh, torch.zeros(*dh.shape[:-1], 2 * dh.shape[-1], dtype=dh.dtype), dh * keep, dc

    cell = kernels.Cell("gated", 2, 1, step, lambda z, a: (z.chunk(2, dim=-1)[0],), gradient)
    for cells in (kernels.CELLS, kernels.EVERY_CELL):
        monkeypatch.setitem(cells, "gated", cell)
    of = Layer("gated", numbers(1, 40, 12), torch.zeros(12, 6, dtype=torch.float64), None, numbers(2, 6))
    for way in ("full", "diagonal"):
        assert [count.iterations for count in counts(of, way, (40,), 5)] == [1]
    assert torch.allclose(solved(of)[0], of.sequential(), atol=1e-14)


@pytest.mark.parametrize(("scale", "known"), [(0.5, (3, 3)), (1.0, (5, 6)), (1.5, (17, 22))])
def test_iterations_of_tanh_networks_are_the_known_ones(scale, known):
    (count,) = counts(random("rnn-tanh", scale, 0, 64, 64), "full", (64,), 60)
    assert known[0] <= count.iterations <= known[1] and count.error < 1e-4


def test_a_shorter_sequence_is_counted_beside_the_longer_one():
    of = layer(scale=1.5, units=16, steps=60)
    together = counts(of, "full", (10, 30, 60), 100)
    alone = [counts(of.first(steps), "full", (steps,), 100)[0] for steps in (10, 30, 60)]
    assert [c.iterations for c in together] == [c.iterations for c in alone]
    assert together[0].iterations <= 10  # k iterations make the first k states exact


@pytest.mark.parametrize("way", newton.WAYS)
def test_every_way_ends_at_the_truth_and_after_k_iterations_k_states_are_exact(way):
    of = layer("lstm", scale=2.0, steps=16)
    states = of.zeros()
    for _ in range(5):
        states = newton.improved(of, states, newton.residual(of, states), way)
    assert torch.allclose(states[:5], of.sequential()[:5], atol=1e-12)
    (count,) = counts(of, way, (16,), 40)
    assert count.iterations <= 16


def test_what_is_not_solved_has_a_reason():
    chaotic = random("lstm", 6.0, 0, 16, 256)
    (full,) = counts(chaotic, "full", (256,), 60)
    assert full.iterations == math.inf and full.reason in ("overflow", "limit")
    (few,) = counts(random("rnn-tanh", 1.0, 0, 16, 64), "full", (64,), 2)
    assert (few.iterations, few.reason) == (math.inf, "limit")
    (itself,) = counts(random("rnn-relu", 100.0, 0, 8, 400), "full", (400,), 5)
    assert (itself.iterations, itself.reason) == (math.inf, "network")


def test_the_exponent_of_a_linear_network_is_the_log_of_its_radius():
    weight = 0.7 * torch.linalg.qr(numbers(0, 6, 6))[0]
    assert exponent("rnn-identity", weight, numbers(1, 80, 6), 0, 20) == pytest.approx(math.log(0.7), abs=1e-9)
    large = exponent("rnn-identity", 1e10 * weight, numbers(1, 80, 6), 0, 20)  # overflows after 31 steps
    assert large == pytest.approx(math.log(0.7e10), abs=1e-9)
    assert math.isnan(exponent("rnn-identity", 1e10 * weight, numbers(1, 80, 6), 0, 40))


@pytest.mark.parametrize("cell", MODELS)
def test_a_models_layers_are_the_models(cell):
    torch.manual_seed(0)
    model = lm.LanguageModel(20, lm.ModelConfig(cell=cell, hidden_size=8, embedding_size=8, layers=2)).double().eval()
    tokens = torch.arange(12)
    hidden, _ = model(tokens[None], model.zero_state(1))
    of = layers(model, tokens)
    assert len(of) == 2
    assert torch.allclose(of[-1].sequential()[:, :8], hidden.flatten(0, -2), atol=1e-12)


def test_a_paper_iteration_is_bound_by_its_levels_or_its_bytes():
    small, large = Work("rnn-tanh", 1, 64, 16), Work("rnn-tanh", 64, 1_024, 256)
    assert small.iteration("diagonal") == pytest.approx(4, abs=0.1)  # two kernels that wait
    assert small.iteration("full") == pytest.approx(2 * 13, abs=0.2)  # one, and two for each of six levels
    jacobians = 5 * 2 * 64 * 1_024 * 256**2
    assert large.iteration("full") * 1e-6 > jacobians / 3.35e12
    assert Work("lstm", 64, 4_096, 1_024).iteration("full") == math.inf
    assert large.even("diagonal") > large.even("full")


def test_rank_correlation_ranks_infinity_last_and_has_an_interval():
    x = np.arange(20.0)
    rank = rank_correlation(x, [*range(18), math.inf, 17.5])
    assert rank.value == pytest.approx(1 - 6 * 2 / (20 * 399), abs=1e-12) and rank.low < rank.value < rank.high
    assert math.isnan(rank_correlation(x, x).low) and rank_correlation(x, -x).value == pytest.approx(-1)
    assert math.isnan(rank_correlation([1, 2, math.nan], [1, 2, 3]).value) and math.isnan(rank_correlation(x, 0 * x).value)


def decided(table):
    table.attrs = {"study": "parallel", "parameters": json.loads(json.dumps(asdict(STUDY))), "machine": {}}
    return verdicts(table)


def test_claims_hold_where_iterations_follow_the_exponent_and_fail_where_they_do_not():
    def of(claims, key):
        return set(claims.loc[claims["key"] == key, "verdict"])

    right, wrong = decided(planted()), decided(planted(parallel=False))
    for key in ("scan", "states", "gradients", "linear", "flat", "grows", "rank.random", "diagonal", "damped", "float32"):
        assert of(right, key) == {"holds"}, key
    assert of(right, "stopping.vanishing") == {"holds"} == of(right, "stopping.exploding")
    for key in ("flat", "grows", "rank.random"):
        assert of(wrong, key) == {"fails"}, key
    table = planted()
    table.loc[table["quantity"] == "error", "value"] = 1.0
    table.loc[table["quantity"] == "gradient_error", "value"] = 1e-5
    table.loc[(table["cell"] == "rnn-identity") & (table["quantity"] == "iterations"), "value"] = 2.0
    broken = decided(table)
    for key in ("gradients", "linear", "stopping.vanishing"):
        assert of(broken, key) == {"fails"}, key
    facts = right[right["key"] == "trained"].set_index("setting")["facts"]
    assert [(f["cell"], f["least"], f["most"]) for f in facts] == [("lstm", 9, 9), ("rnn-tanh", 8, 8)]


def test_iterations_without_a_reason_to_be_infinite_decide_nothing():
    table = planted()
    table.loc[table["value"] == math.inf, "reason"] = ""
    assert not iterations_of(table)["known"].all()
    keys = ("rank.random", "grows")
    claims = decided(table)
    assert not (claims[claims["key"].isin(keys)]["verdict"] == "holds").any()


def test_what_pays_on_paper_depends_on_the_iterations():
    claims = decided(planted())
    rows = claims[claims["key"] == "pays.full"]
    paid = {(of["hidden"], of["batch"]): verdict for of, verdict in zip(rows["facts"], rows["verdict"], strict=True)}
    assert paid[64, 64] == paid[1024, 1] == "fails"
    wide = costs(planted())
    assert (wide["diagonal_even"] > wide["full_even"]).all() and len(wide) == 24


def test_a_small_study_is_measured(tmp_path):
    (tmp_path / "text.txt").write_text("the students opened their books and the doors were closed . " * 120)
    study = replace(
        PRESETS["smoke"], corpora=str(tmp_path / "text.txt"), cell=("gru",), scales=(0.5,), lengths=(8, 16), models=("gru",),
        text_lengths=(16, 48), hidden=4,
    )  # fmt: skip
    table = study()
    save(table, tmp_path / "t.parquet", "parallel", study)
    table = load(tmp_path / "t.parquet")
    assert set(table["part"]) == {"checks", "random", "language", "cost"}
    models = table[table["part"] == "language"]
    assert set(models["epoch"]) == {0, 1} and set(models["steps"]) == {-1, 16, 48}
    assert (models[models["quantity"] == "decay"]["value"] < 0).all()
    assert np.isfinite(table[table["quantity"] == "iterations"]["value"]).all()


def test_looks_are_powers_of_two_and_the_last_epoch():
    assert [replace(STUDY, epochs=n).looks for n in (1, 4, 6)] == [(0, 1), (0, 1, 2, 4), (0, 1, 2, 4, 6)]


def test_what_cannot_be_measured_is_refused(tmp_path):
    (tmp_path / "text.txt").write_text("the students opened their books . " * 30)
    study = replace(PRESETS["smoke"], corpora=str(tmp_path / "text.txt"), parts=("language",))
    with pytest.raises(lm.InputError, match="text_lengths must reach"):
        replace(study, text_lengths=(16,))()
    with pytest.raises(lm.InputError, match="take smaller text_lengths"):
        replace(study, text_lengths=(100,), models=("gru",))()


def test_a_table_of_another_kind_is_refused():
    table = planted()
    assert complaint(STUDY, table) == ""
    assert "part" in complaint(STUDY, table.assign(part="x"))
    assert "reason" in complaint(STUDY, table.assign(reason="x"))
    assert "twice" in complaint(STUDY, table.iloc[[0, 0]])
