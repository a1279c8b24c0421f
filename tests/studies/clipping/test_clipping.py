"""The clipping study: the cliff against known answers, trainings by the trainer, four kinds against autograd, its claims."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recurrent_lm import lm
from recurrent_lm.lm.training.clip import clip
from recurrent_lm.studies import load, save, verdicts
from recurrent_lm.studies.clipping import cliff as cliff
from recurrent_lm.studies.clipping import kinds as kinds
from recurrent_lm.studies.clipping import trainings as model
from recurrent_lm.studies.clipping.study import PRESETS, Study, complaint
from recurrent_lm.studies.clipping.table import BINS, bin_of, norm_edges, trainings
from recurrent_lm.studies.engine.run import Run

TEXT = "the people of the union and the people of the states stand by the union, and all of us with them. " * 40
INF = float("inf")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A study of all parts on a text of a few words."""
    corpus = tmp_path_factory.mktemp("text") / "text.txt"
    corpus.write_text(TEXT)
    sizes = {"hidden": 6, "vocabulary": 50, "rows": 3, "bptt": 7, "epochs": 1, "every": 20, "seeds": 1, "grid": 5}
    parts = ("cliff", "training", "kinds")
    return Study(parts=parts, corpora=str(corpus), rates=(0.5, 2.0), multiples=(0.5, 100.0), descent_steps=30, **sizes)


@pytest.fixture(scope="module")
def table(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "t.parquet"
    save(Run(small, "clipping", "smoke", path.with_suffix(""))(), path, "clipping", small)
    return load(path)


def snapshots(small, cell="rnn-tanh"):
    config = replace(small, cell=cell).config(small.corpora, 1).replace(lr=1.0)
    return list(kinds.trajectory(config, small.every))


# The cliff


def test_the_ridge_is_where_the_reference_says():
    assert f"{cliff.ridge(5.0):.4f}" == "-2.6123"
    assert f"{float(cliff.slopes(5.0, cliff.ridge(5.0)).by_b):.1f}" == "-661.7"
    assert f"{float(cliff.slopes(6.0, cliff.ridge(6.0)).by_b):.2e}" == "-2.57e+06"
    assert pytest.approx(4.255, abs=5e-4) == cliff.UNSTABLE
    assert [f"{b:.4f}" for b in cliff.bifurcations(5.0)] == ["-2.6556", "-2.3444"]


@given(st.floats(3.0, 5.5), st.floats(-3.5, -1.0))
@settings(max_examples=20, deadline=None)
def test_slopes_are_autograds(w, b):
    leaves = torch.tensor([w, b], dtype=torch.float64, requires_grad=True)
    x = torch.tensor(0.5, dtype=torch.float64)
    for _ in range(50):
        x = leaves[0] * torch.sigmoid(x) + leaves[1]
    error = (torch.sigmoid(x) - 0.7) ** 2
    (gradient,) = torch.autograd.grad(error, leaves)
    derivatives = cliff.slopes(w, b)
    steep = max(1.0, float(gradient.norm()))  # a steep place amplifies the last bit of s as much
    assert float(derivatives.error) == pytest.approx(float(error.detach()), rel=1e-9, abs=1e-12 * steep)
    assert [float(derivatives.by_w), float(derivatives.by_b)] == pytest.approx(gradient.tolist(), rel=1e-7, abs=1e-10 * steep)


@pytest.mark.parametrize("w", [4.3, 5.0, 6.0])
def test_formula_forward_mode_and_decimals_agree_on_the_ridge(w):
    by_mode = float(cliff.slopes(w, cliff.ridge(w)).by_b)
    assert by_mode == pytest.approx(cliff.formula(w), rel=1e-9)
    assert by_mode == pytest.approx(cliff.decimal_slope(w), rel=1e-9)


def test_the_steepest_place_is_beside_the_ridge_and_not_on_the_plain():
    for w in (5.0, 6.0):
        b, slope = cliff.steepest(w)
        assert abs(b - cliff.ridge(w)) < 1e-4
        assert abs(slope) >= abs(float(cliff.slopes(w, cliff.ridge(w)).by_b))
    assert abs(float(cliff.slopes(6.0, round(float(cliff.ridge(6.0)), 4)).by_b)) < 1


def test_fixed_points_are_counted():
    low, high = cliff.bifurcations(5.0)
    assert [cliff.fixed_points(5.0, b) for b in (low - 0.01, low + 0.01, high - 0.01, high + 0.01)] == [1, 3, 3, 1]
    assert cliff.fixed_points(3.0, -1.5) == 1
    assert all(math.isnan(b) for b in cliff.bifurcations(4.0))


def test_descent_is_gradient_descent_and_clipping_shortens_its_steps():
    first, second = list(cliff.descent(4.7, -2.1, 0.2, INF, 1))
    slopes = cliff.slopes(4.7, -2.1)
    assert (second.w, second.b) == pytest.approx((4.7 - 0.2 * float(slopes.by_w), -2.1 - 0.2 * float(slopes.by_b)))
    assert first.norm == pytest.approx(math.hypot(float(slopes.by_w), float(slopes.by_b)))
    path = [(p.w, p.b) for p in cliff.descent(4.7, -2.1, 0.2, 0.1, 60)]
    lengths = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert lengths.max() == pytest.approx(0.02) and lengths.min() > 0


def test_the_default_descents_part_at_the_wall():
    """Not by a hair: a start that is off by a billionth ends in the same places."""
    study = Study()
    for nudge in (0.0, 1e-9):
        at = (study.w + nudge, study.b, study.descent_rate)
        *_, plain = cliff.descent(*at, INF, study.descent_steps)
        *_, clipped = cliff.descent(*at, study.descent_threshold, study.descent_steps)
        assert plain.w > 6 and plain.b > 1
        assert clipped.error < 0.02 and 4.2 < clipped.w < 4.7


# Trainings


def test_a_training_is_the_trainers_and_thresholds_are_multiples_of_its_mean_norm(small, table):
    from recurrent_lm.studies.engine.language_models import trained

    runs = trainings(table).set_index(["rate", "multiple"])
    free = trained(small.config(small.corpora, 1).replace(lr=0.5, clip="none"))
    mean = free.steps["grad_norm"].mean()
    assert runs.loc[(0.5, INF), "loss"] == free.epochs["valid_loss"].iloc[-1]
    assert runs.loc[(0.5, INF), "mean norm"] == pytest.approx(mean)
    assert runs.loc[(2.0, 0.5), "threshold"] == pytest.approx(0.5 * mean)
    clipped = trained(small.config(small.corpora, 1).replace(lr=2.0, clip=f"norm:{float(runs.loc[(2.0, 0.5), 'threshold'])!r}"))
    assert runs.loc[(2.0, 0.5), "loss"] == clipped.epochs["valid_loss"].iloc[-1]
    assert runs.loc[(2.0, 0.5), "clipped"] == clipped.steps["clipped"].mean() > 0
    assert runs.loc[(0.5, 100.0), "loss"] == runs.loc[(0.5, INF), "loss"]


def test_a_threshold_that_no_norm_reached_is_the_same_training_bit_for_bit(small):
    from recurrent_lm.studies.engine.language_models import trained

    config = small.config(small.corpora, 1).replace(lr=0.5)
    assert trained(config.replace(clip="norm:1000")).scores == trained(config.replace(clip="none")).scores


def test_a_training_that_explodes_is_counted_and_one_that_ends_worse_than_the_frequencies_too():
    rows = [
        {"part": "training", "corpus": "x", "seed": 1, "rate": 1.0, "multiple": m, "threshold": m, "quantity": q, "value": v}
        for m, loss in ((1.0, 4.0), (2.0, 6.0), (INF, INF))
        for q, v in (("loss", loss), ("frequencies", 5.0), ("clipped", 0.5), ("mean norm", 1.0))
    ]
    assert trainings(pd.DataFrame(rows))["diverged"].tolist() == [0, 1, 1]


def test_at_a_smallest_rate_that_diverges_there_is_no_mean_norm(small):
    with pytest.raises(lm.InputError, match=r"smallest rate, 100000, .* take a smaller one"):
        list(model.rows(small.config(small.corpora, 1), (1e5,), (1.0,)))


def test_histograms_hold_every_step_and_clipping_moves_what_is_beyond_the_threshold(table):
    norms = table[table["part"] == "norms"]
    counts = norms.groupby(["rate", "multiple", "quantity"])["value"].sum().unstack()
    assert (counts["before"] == counts["after"]).all() and (counts["before"] > 5).all()
    after = norms[(norms["quantity"] == "after") & (norms["multiple"] == 0.5)]
    assert (after["bin"] <= bin_of(after["threshold"].to_numpy())).all()


def test_bins_hold_what_lies_between_their_edges():
    edges = norm_edges()
    assert bin_of(edges[:-1] * 1.01).tolist() == list(range(BINS))
    assert bin_of([0.0, 1e-9, 1e9, INF]).tolist() == [0, 0, BINS - 1, BINS - 1]


def test_frequencies_are_where_the_trainers_models_begin(small):
    data = lm.prepare(small.config(small.corpora, 1))
    ids, counts = data.valid.ids, np.bincount(data.train.ids, minlength=data.tokenizer.size)
    by_hand = -sum(math.log((counts[i] + 1) / (counts.sum() + len(counts))) for i in ids) / len(ids)
    assert model.frequencies_loss(data) == pytest.approx(by_hand, rel=1e-12)


# Four kinds


def test_the_example_of_the_three_parts():
    values = {row["quantity"]: row["value"] for row in kinds.example()}
    assert values["sum"] == pytest.approx(0.1, abs=1e-12) and values["temporal"] == pytest.approx(-0.4, abs=1e-12)
    assert values["norm"] == values["value"] == values["sum"]


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=8), st.floats(0.01, 50))
@settings(max_examples=50, deadline=None)
def test_norm_and_value_are_the_trainers_clipping(values, threshold):
    gradient = torch.tensor(values, dtype=torch.float64)
    for kind, ours in (("norm", kinds.by_norm), ("value", kinds.by_value)):
        theirs = [gradient.clone()]
        clip(theirs, kind, threshold)
        assert torch.allclose(ours(gradient, threshold), theirs[0], rtol=1e-12, atol=0)


def test_clipping_parts_is_elementwise_and_before_the_sum():
    parts = torch.tensor([[10.0, 0.5], [-9.5, 0.25], [-0.4, -3.0]], dtype=torch.float64)
    assert kinds.by_part(parts, 1.0).tolist() == pytest.approx([-0.4, -0.25])


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm", "gru"])
def test_the_parts_sum_to_the_gradient_and_hidden_clipping_is_the_eager_backends(small, cell):
    snapshot = snapshots(small, cell)[-1]
    gradient = kinds.parts_of(snapshot)
    true = kinds.through_recurrence(snapshot)
    assert gradient.parts.shape == (small.bptt, len(true))
    assert float((gradient.parts.sum(dim=0) - true).norm() / true.norm()) < 1e-12
    threshold = 0.3 * gradient.hidden
    ours, eager = (kinds.through_recurrence(snapshot, threshold, backend) for backend in ("torch", "eager"))
    assert torch.allclose(ours, eager, rtol=1e-10, atol=1e-15) and not torch.allclose(ours, true, rtol=1e-3)
    assert torch.allclose(kinds.through_recurrence(snapshot, 1.01 * gradient.hidden), true, rtol=1e-12, atol=0)


def test_snapshots_are_steps_of_the_trainer(small, tmp_path):
    """The model before a step is what the trainer had then; states are carried, and its batch is the next."""
    config = small.config(small.corpora, 1).replace(lr=1.0)
    training = lm.new_training(config, tmp_path / "run")
    steps = snapshots(small)
    assert [s.step for s in steps] == list(range(0, len(training.batches), small.every)) and len(steps) > 1
    for step, batch in enumerate(training.batches):
        if step == steps[1].step:
            break
        training.update(batch)
    assert torch.equal(steps[1].model.decoder.weight, training.model.decoder.weight.double())
    assert torch.equal(steps[1].state, training.state[0].double()) and steps[1].state.abs().sum() > 0
    assert steps[1].inputs.tolist() == training.batches[steps[1].step].inputs.tolist()
    training.lock.release()


def test_at_the_median_each_kind_touches_about_half_of_the_steps(table):
    steps = table[table["quantity"] == "sum error"]["step"].nunique()
    touched = table[(table["quantity"] == "touched") & (table["multiple"] == 1.0)]
    assert sorted(touched["kind"]) == sorted(kinds.KINDS)
    assert touched["value"].tolist() == [steps // 2 / steps] * 4
    cosines = table[table["quantity"] == "cosine"]
    assert (cosines[cosines["kind"] == "norm"]["value"] > 1 - 1e-12).all()
    assert cosines[cosines["kind"] == "value"]["value"].between(0, 1 - 1e-6).any()


# The table and its claims


def verdict(table, key, setting=""):
    claims = verdicts(table)
    rows = claims[(claims["key"] == key) & claims["setting"].str.contains(setting, regex=False)]
    return rows["verdict"].tolist()


def test_a_small_run_decides_all_claims(table):
    claims = verdicts(table)
    assert not (claims["verdict"] == "not measured").any()
    assert claims[claims["key"] == "range"]["measured"].str.contains("one seed").all()
    exact = claims[~claims["key"].isin(["range", "temporal_uphill", "hidden_uphill", "scaled_norm", "scaled_learns"])]
    assert (exact["verdict"] == "holds").all(), exact[exact["verdict"] != "holds"].to_string()
    assert complaint(Study(**table.attrs["parameters"]), table) == ""


def test_a_wrong_cliff_fails(table):
    wrong = table.copy()
    wrong.loc[(wrong["kind"] == "ridge") & (wrong["w"] == 5.0), "value"] *= 1.001
    assert verdict(wrong, "cliff", "w = 5") == ["fails"] and verdict(wrong, "cliff", "w = 6") == ["holds"]
    assert verdict(wrong, "formula") == ["fails"]
    wrong = table.copy()
    wrong.loc[wrong["quantity"] == "fixed points", "value"] = 2.0
    assert verdict(wrong, "forks") == ["fails", "fails"]


@pytest.mark.parametrize(
    ("losses", "expected"),
    [((4.0, 4.04), "holds"), ((4.0, 4.12), "fails"), ((4.0, 4.079), "ambiguous"), ((4.0, INF), "fails"), ((INF, INF), "fails")],
)
def test_a_range_of_thresholds_trains_if_its_worst_is_within_two_percent_by_an_interval_over_seeds(losses, expected):
    """One seed decides nothing, nor do seeds that do not agree, one of which diverged."""
    low, high = losses
    assert verdict(made_up({1: losses}), "range") == ["ambiguous"]
    seeds = {seed: (low, high + 0.002 * seed) for seed in (-1, 0, 1)}
    assert verdict(made_up(seeds), "range") == [expected]
    assert verdict(made_up(seeds | {2: (4.0, 4.0), 3: (4.0, INF)}), "range") == ["ambiguous"]


def test_losses_of_zero_have_no_ratio():
    claims = verdicts(made_up({1: (0.0, 4.0), 2: (4.0, 4.0)}))
    row = claims[claims["key"] == "range"].iloc[0]
    assert row["verdict"] == "ambiguous" and row["measured"].startswith("undefined")


def made_up(losses):
    """Trainings at thresholds of 0.5 and 10 mean norms by seed, and one at 0.1, which is not in the range."""
    keys = {"part": "training", "corpus": "x", "kind": "", "rate": 1.0, "step": 0, "bin": 0, "w": 0.0, "b": 0.0}
    rows = [
        keys | {"seed": seed, "multiple": m, "threshold": m, "quantity": q, "value": v}
        for seed, (low, high) in losses.items()
        for m, loss in ((0.1, 9.0), (0.5, low), (10.0, high))
        for q, v in (("loss", loss), ("frequencies", 5.0), ("clipped", 0.5), ("mean norm", 1.0))
    ]
    table = pd.DataFrame(rows)
    table.attrs = {"study": "clipping", "parameters": {}}
    return table


def test_what_is_not_measured_says_so(table):
    nothing = table[table["part"] == "training"]
    nothing.attrs = table.attrs
    assert set(verdicts(nothing).query("verdict != 'not measured'")["key"]) == {"range"}
    cliff_only = table[table["part"] == "cliff"]
    cliff_only.attrs = table.attrs
    assert verdict(cliff_only, "range") == verdict(cliff_only, "norm_keeps") == ["not measured"]


def test_direction_claims_fail_where_the_table_says_otherwise(table):
    wrong = table.copy()
    wrong.loc[(wrong["quantity"] == "cosine") & (wrong["kind"] == "norm"), "value"] = 0.999
    wrong.loc[(wrong["quantity"] == "cosine") & (wrong["kind"] == "value"), "value"] = -0.1
    wrong.loc[(wrong["quantity"] == "cosine") & (wrong["kind"] == "temporal"), "value"] = -0.1
    assert verdict(wrong, "norm_keeps") == verdict(wrong, "value_uphill") == ["fails"]
    assert verdict(wrong, "temporal_uphill") == ["holds"]


def test_tables_that_are_none_of_this_study_are_refused(table):
    study = Study(**table.attrs["parameters"])
    assert "twice" in complaint(study, pd.concat([table, table.head(1)]))
    assert "cell" in complaint(study, table.assign(seed=7))
    assert "value" in complaint(study, table.assign(value=float("nan")))


@pytest.mark.parametrize("corpora", ["", "obama,", "obama,obama"])
def test_corpora_are_different_names(corpora):
    with pytest.raises(lm.InputError, match="corpora must be different names"):
        Study(corpora=corpora).prepare()


def test_presets_differ_in_size_only_and_smoke_covers_every_part():
    assert PRESETS["cpu"] == Study() and PRESETS["smoke"].parts == PRESETS["cpu-long"].parts == Study().parts
