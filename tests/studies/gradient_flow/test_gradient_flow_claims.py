"""What claims make of planted tables: holds, fails, ambiguous, not measured."""

import math

import pandas as pd
import pytest

from recurrent_lm.studies import verdicts
from recurrent_lm.studies.gradient_flow.study import NONE, Study
from recurrent_lm.studies.gradient_flow.verdicts import each

BLANK = NONE | {"step": -1, "lag": -1, "token": ""}


def table(rows, **more):
    study = Study(**more)
    planted = study.table([BLANK | row for row in rows])
    planted.attrs["parameters"] = dict(vars(study))
    return planted


def claim(planted, key, setting=""):
    claims = verdicts(planted)
    result = claims[(claims["key"] == key) & claims["setting"].str.contains(setting, regex=False)]
    assert len(result), claims[["key", "setting"]]
    return result.iloc[0]


@pytest.mark.parametrize(
    ("values", "verdict"),
    [([0.001, -0.002], "holds"), ([0.001, 0.002, 0.5], "ambiguous"), ([0.5, -0.5], "fails"), ([], "not measured")],
)
def test_every_seed_within_holds_and_the_median_alone_is_ambiguous(values, verdict):
    assert each(values, 0.01) == verdict


def test_a_number_that_is_missing_decides_nothing():
    assert each([0.0, float("nan")], 0.01) == "not measured"


def certificate(**errors):
    numbers = {"sum_error": 1e-15, "beyond": 0.0, "first": 0.0, "trace_error": 1e-15} | errors
    return [{"part": "certificate", "cell": "gru", "seed": 0, "quantity": q, "value": v} for q, v in numbers.items()]


@pytest.mark.parametrize(
    ("errors", "verdict"),
    [({}, "holds"), ({"sum_error": 1e-11}, "fails"), ({"beyond": 1e-30}, "fails"), ({"first": 1e-30}, "fails"),
     ({"sum_error": math.nan}, "not measured")],
)  # fmt: skip
def test_claim_1_wants_the_sum_and_the_zeros(errors, verdict):
    assert claim(table(certificate(**errors)), "sums", "gru")["verdict"] == verdict


def test_the_trace_is_held_to_the_same():
    assert claim(table(certificate(trace_error=1e-9)), "trace")["verdict"] == "fails"
    assert claim(table(certificate()), "trace")["verdict"] == "holds"


def curves(slope, exponent=None, half_log_chi=None, radius=0.22, singular=0.87, scale=1.2, cell="rnn-tanh", seed=0):
    values = {"slope": slope, "early_slope": slope, "exponent": slope if exponent is None else exponent}
    values |= {"log_radius": radius, "log_singular": singular, "half_log_chi": slope if half_log_chi is None else half_log_chi}
    at = {"part": "curves", "cell": cell, "scale": scale, "seed": seed}
    return [at | {"quantity": q, "value": v} for q, v in values.items()]


def test_claim_4_is_held_to_its_radius():
    assert claim(table(curves(0.215, cell="rnn-identity")), "linear", "Gaussian")["verdict"] == "holds"
    off = claim(table(curves(0.2, cell="rnn-identity")), "linear", "Gaussian")
    assert (off["verdict"], off["measured"][:13]) == ("fails", "off by 0.0200")
    assert claim(table(curves(0.22, cell="rnn-identity"), lags=100), "linear", "Gaussian")["verdict"] == "not measured"
    exact = [
        {"part": "linear", "scale": 0.9, "seed": 0, "quantity": q, "value": v}
        for q, v in (("slope", -0.1), ("log_radius", -0.1 + 1e-10))
    ]
    assert claim(table(exact), "linear", "orthogonal")["verdict"] == "fails"


def test_claim_5_has_both_tolerances():
    planted = table(curves(-0.07, exponent=-0.065, half_log_chi=-0.09))
    assert claim(planted, "lyapunov", "g = 1.2")["verdict"] == "holds"
    assert claim(planted, "chi", "g = 1.2")["verdict"] == "fails"
    assert claim(planted, "chi", "g = 2")["verdict"] == "not measured"
    assert claim(planted, "bound")["verdict"] == "holds"
    assert claim(table(curves(0.9)), "bound")["verdict"] == "fails"
    assert claim(table(curves(-0.07), units=100), "lyapunov", "g = 1.2")["verdict"] == "not measured"


@pytest.mark.parametrize(
    ("scale", "slope", "radius", "verdict"),
    [
        (1.2, -0.07, 0.2, "holds"),
        (1.2, 0.01, 0.2, "fails"),
        (1.2, -0.07, -0.1, "fails"),
        (1.5, 0.03, 0.4, "holds"),
        (1.5, -0.01, 0.4, "fails"),
    ],
)
def test_claim_6_wants_both_signs(scale, slope, radius, verdict):
    planted = table(curves(slope, radius=radius, scale=scale))
    assert claim(planted, "radius", f"g = {scale:g}")["verdict"] == verdict


def test_claim_7_is_held_to_log_s_of_b():
    truth = -math.log1p(math.exp(-1.0))
    for off, verdict in ((5e-4, "holds"), (-2e-3, "fails")):
        rows = [{"part": "gates", "cell": "gru", "bias": 1.0, "seed": 0, "quantity": "slope", "value": truth + off}]
        assert claim(table(rows), "gates_decay", "gru, dh(t)/dh(i), b = 1")["verdict"] == verdict
    assert claim(table(rows), "gates_decay", "lstm")["verdict"] == "not measured"


@pytest.mark.parametrize(
    ("exact", "low", "high", "verdicts_"),
    [(263.887, 250.0, 280.0, ("holds", "holds")), (263.9, 264.0, 280.0, ("fails", "fails"))],
)
def test_claim_8_is_held_to_the_formula(exact, low, high, verdicts_):
    values = {"exact": exact, "sampled_low": low, "sampled_high": high}
    planted = table([{"part": "memory", "scale": 0.9, "quantity": q, "value": v} for q, v in values.items()])
    assert tuple(claim(planted, "memory", f"lambda = 0.9, {how}")["verdict"] for how in ("by", "random")) == verdicts_
    assert claim(planted, "memory", "lambda = 0.99")["verdict"] == "not measured"


def models(cell, slopes, vanishing=1.0, exploding=0.0):
    at = {"part": "language", "corpus": "obama", "cell": cell, "epoch": 3}
    return [
        at | {"seed": seed, "layer": 0, "quantity": q, "value": v}
        for seed, slope in enumerate(slopes)
        for q, v in (("slope", slope), ("vanishing", vanishing), ("exploding", exploding))
    ]


@pytest.mark.parametrize(
    ("slopes", "verdict"),
    [
        ([-0.2, -0.31], "holds"),
        ([-0.2, -0.7], "ambiguous"),
        ([-0.8, -0.91], "fails"),
        ([-0.2], "ambiguous"),
        ([], "not measured"),
    ],
)
def test_gates_help_by_an_interval_over_seeds(slopes, verdict):
    planted = table(models("rnn-tanh", [-0.5, -0.6]) + models("lstm", slopes))
    assert claim(planted, "gates_help", "lstm against rnn-tanh, obama")["verdict"] == verdict


@pytest.mark.parametrize(("down", "up", "verdict"), [(0.9, 0.05, "holds"), (0.4, 0.0, "fails"), (0.6, 0.7, "fails")])
def test_vanishing_is_usual_where_most_models_show_it(down, up, verdict):
    """Four of four are most by Wilson's interval, one of one is not."""
    one = table(models("gru", [-0.1], down, up))
    assert claim(one, "vanishing", "after training")["verdict"] == "ambiguous"
    planted = table(models("gru", [-0.1] * 4, down, up))
    assert claim(planted, "vanishing", "after training")["verdict"] == verdict
    assert claim(planted, "vanishing", "at initialisation")["verdict"] == "not measured"


def test_every_claim_of_the_papers_has_a_row_even_where_nothing_was_measured():
    claims = verdicts(table([{"part": "memory", "scale": 0.5, "quantity": "exact", "value": 2.96}]))
    assert (claims["verdict"] == "not measured").all() and (claims["measured"] == "not measured").all()
    keys = "sums", "trace", "linear", "lyapunov", "chi", "bound", "radius", "gates_decay", "memory", "gates_help", "vanishing"
    assert set(keys) == set(claims["key"])
    assert isinstance(claims, pd.DataFrame) and claims["source"].str.len().gt(3).all()
