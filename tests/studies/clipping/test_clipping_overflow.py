"""Norms that float32 does not hold: known answers, a real training, and what its claims make of planted updates."""

import math

import pytest
import torch

from recurrent_lm.studies import load, save, verdicts
from recurrent_lm.studies.clipping import overflow as overflow
from recurrent_lm.studies.clipping.study import Study, complaint

TEXT = "the people of the union and the people of the states stand by the union, and all of us with them. " * 60


@pytest.mark.parametrize(
    ("parts", "norm", "naive"),
    [
        ([[3e28], [4e28]], 5e28, math.inf),
        ([[3e-30], [4e-30]], 5e-30, 0.0),
        ([[1e-23] * 2_000], 1e-23 * math.sqrt(2_000), 0.0),
        ([[3.0], [4.0]], 5.0, 5.0),
        ([[0.0, 0.0]], 0.0, 0.0),
    ],
)
def test_the_norm_of_the_scaled_gradient_is_float64s(parts, norm, naive):
    gradients = [torch.tensor(part) for part in parts]
    assert overflow.scaled(gradients) == pytest.approx(norm, rel=1e-6)
    assert overflow.true(gradients) == pytest.approx(norm, rel=1e-6)
    assert overflow.naive(gradients) == pytest.approx(naive, rel=1e-6)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_what_is_no_number_stays_none(value):
    assert not math.isfinite(overflow.scaled([torch.tensor([1.0, value])]))


def test_the_naive_norm_stops_a_training_that_the_scaled_one_lets_go_on(tmp_path):
    """Real updates: 150 steps back through wide weights, whose gradient float32 holds."""
    (tmp_path / "text.txt").write_text(TEXT)
    rows = list(overflow.rows(overflow.config(str(tmp_path / "text.txt"), 1).replace(rows=2), 2))
    values = {(row["kind"], row["step"], row["quantity"]): row["value"] for row in rows}
    for step in (1, 2):
        assert 1e20 < values["naive", step, "true norm"] < math.inf
        assert (values["naive", step, "norm"], values["naive", step, "left"]) == (math.inf, 0.0)
        assert values["scaled", step, "norm"] == pytest.approx(values["scaled", step, "true norm"], rel=1e-5)
        assert values["scaled", step, "left"] == pytest.approx(1.0, rel=1e-5)
        assert values["near", step, "true norm"] < 1e6
    assert values["naive", 1, "loss"] == values["scaled", 1, "loss"]
    assert values["naive", 2, "loss"] != values["scaled", 2, "loss"]


STUDY = Study(parts=("overflow",), corpora="obama", seeds=3)


def planted(fall=0.01, near=0.3, seeds=3, naive=(math.inf, 1e28, 0.0), off=0.0):
    """Updates whose loss falls by so much each; ``naive`` is its norm, the true one, and what is left."""
    rows = []
    for seed in range(1, seeds + 1):
        for kind, slope in (("naive", 0.0), ("scaled", fall), ("near", near)):
            for step in range(1, 4 if kind == "naive" else 13):
                norm, true, left = naive if kind == "naive" else (1e28 * (1 + off), 1e28, 1.0)
                values = {"loss": 16 - slope * step * (1 + 0.01 * seed), "norm": norm, "true norm": true, "left": left}
                at = {"part": "overflow", "corpus": "obama", "seed": seed, "kind": kind, "step": step, "threshold": 1.0}
                rows += [at | {"quantity": quantity, "value": value} for quantity, value in values.items()]
    nothing = dict.fromkeys(STUDY.COLUMNS, 0) | dict.fromkeys(("kind", "corpus"), "")
    return STUDY.table([nothing | row for row in rows])


def verdict(table, claim):
    return verdicts(table).set_index("key").loc[claim]


@pytest.mark.parametrize(
    ("how", "claim", "expected"),
    [
        ({}, "naive_norm", "holds"),
        ({"naive": (math.inf, 1e28, 0.5)}, "naive_norm", "fails"),
        ({"naive": (1e10, 1e10, 1.0)}, "naive_norm", "ambiguous"),
        ({}, "scaled_norm", "holds"),
        ({"off": 1e-3}, "scaled_norm", "fails"),
        ({}, "scaled_learns", "fails"),
        ({"fall": 0.3}, "scaled_learns", "holds"),
        ({"fall": 0.3, "seeds": 1}, "scaled_learns", "ambiguous"),
    ],
)
def test_claims_on_norms_that_float32_does_not_hold(how, claim, expected):
    decided = verdict(planted(**how), claim)
    assert decided["verdict"] == expected
    assert bool(decided["reason"]) == ((expected != "holds" and claim == "scaled_learns") or expected == "ambiguous")


def test_a_table_of_an_older_study_makes_no_such_claim(tmp_path):
    table = planted()
    table.attrs["parameters"] |= {"parts": ("cliff", "training", "kinds")}
    assert not verdicts(table)["key"].isin(["naive_norm", "scaled_norm", "scaled_learns"]).any()
    save(planted(), tmp_path / "t.parquet", "clipping", STUDY)
    assert complaint(STUDY, load(tmp_path / "t.parquet")) == ""
    assert verdict(load(tmp_path / "t.parquet"), "scaled_norm")["verdict"] == "holds"
