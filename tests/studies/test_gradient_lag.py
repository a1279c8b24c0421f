import numpy as np
import pandas as pd
import pytest
import torch

from recurrent_lm import lm
from recurrent_lm.studies import verdicts
from recurrent_lm.studies.engine.statistics import by_lag, decay
from recurrent_lm.studies.gradient_lag.study import Study, unroll

TEXT = "the people of the union and the people of the states stand by the union. " * 60


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A small trained run of each kind of cell, two layers, tied with a projection."""
    folder = tmp_path_factory.mktemp("runs")
    corpus = folder / "text.txt"
    corpus.write_text(TEXT)
    paths = {}
    for cell in ("rnn-tanh", "lstm", "gru", "mingru"):
        config = lm.RunConfig().replace(
            source=str(corpus), kind="char", cell=cell, hidden_size=12, embedding_size=8, layers=2, rows=4, max_steps=5
        )
        training = lm.new_training(config, folder / cell)
        training.run(quiet=True)
        paths[cell] = folder / cell
    return paths


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm", "gru", "mingru"])
def test_the_parts_sum_to_the_gradient_of_the_model_itself(runs, cell):
    study = Study(run=str(runs[cell]), windows=3, lags=7, warmup=4)
    table = study()
    assert len(table) == 3 * 7 * 2
    assert (table["sum_error"] <= 1e-12).all()
    assert table.groupby(["layer", "window"])["lag"].apply(sorted).map(lambda lags: lags == list(range(7))).all()


def test_norms_agree_with_finite_differences(runs):
    """||dL(t)/dh(t-l)|| from central differences of a recurrence that is restarted at t - l."""
    study = Study(run=str(runs["rnn-tanh"]), windows=1, lags=5, warmup=0)
    table = study()
    run = lm.load(runs["rnn-tanh"])
    model = run.model.double()
    ids = torch.from_numpy(lm.prepare(run.config, run.tokenizer).valid.ids).long()
    hidden, _ = unroll(model, ids[:5], model.zero_state(1))
    lag, layer = 3, 1

    def loss(h):
        state = [hidden[4 - lag][0][None], h[None]]
        with torch.no_grad():
            out, _ = model(ids[None, 5 - lag : 5], state)
            return torch.nn.functional.cross_entropy(model.logits(out[-1]), ids[5:6]).item()

    base, eps = hidden[4 - lag][layer].detach(), 1e-6
    slope = []
    for i in range(base.shape[1]):
        shift = torch.zeros_like(base)
        shift[0, i] = eps
        slope.append((loss(base + shift) - loss(base - shift)) / (2 * eps))
    expected = float(np.linalg.norm(slope))
    measured = table.query("layer == @layer and lag == @lag")["hidden_norm"].item()
    assert measured == pytest.approx(expected, rel=1e-6)


def test_verdicts_read_the_table(runs):
    study = Study(run=str(runs["gru"]), windows=2, lags=6, warmup=2)
    table = study()
    table.attrs = {"study": "gradient_lag", "parameters": {"run": "a run"}}
    assert verdicts(table)["verdict"].iloc[0] == "holds"
    growing = table.assign(weight_norm=np.exp(table["lag"] * 0.5), sum_error=1e-3)
    growing.attrs = table.attrs
    claims = verdicts(growing)
    assert list(claims["verdict"]) == ["fails", "ambiguous", "ambiguous"]  # two windows have no interval
    assert claims["measured"].iloc[-1] == "1.649 times per step; median of 2 windows 1.649 no interval"
    one_bad = table.assign(sum_error=[float("nan"), *[1e-15] * (len(table) - 1)])
    one_bad.attrs = table.attrs
    assert verdicts(one_bad)["verdict"].iloc[0] == "not measured"


def test_the_table_names_its_corpus_and_model(runs):
    table = Study(run=str(runs["lstm"]), windows=1, lags=1, warmup=0)()
    assert table.attrs["subject"] == "text, char tokens, lstm 2 x 12"


def test_more_copies_than_memory_holds_are_refused(runs, monkeypatch):
    """Ten thousand copies of two layers' W_h [48, 12] and their gradients, 8 bytes each: 0.18 GB on a machine of 0.1 GB."""
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PAGE_SIZE": 1000, "SC_PHYS_PAGES": 100_000}[name])
    with pytest.raises(lm.InputError, match="reduce lags"):
        Study(run=str(runs["lstm"]), windows=1, lags=10_000, warmup=0)()


@pytest.mark.parametrize("factor", [0.5, 1.25])
def test_decay_is_the_factor_of_a_geometric_curve(factor):
    """What is 0, infinite or missing says nothing about it."""
    curve = pd.DataFrame({"lag": range(8), "median": [factor**i for i in range(8)]})
    assert decay(curve) == pytest.approx(factor, rel=1e-12)
    holes = curve.assign(median=curve["median"].where(curve["lag"] % 2 > 0, [0, 1, np.inf, 1, np.nan, 1, 0, 1]))
    assert decay(holes) == pytest.approx(factor, rel=1e-12)
    assert np.isnan(decay(holes.head(2)))


def test_by_lag_is_median_and_quartiles():
    table = pd.DataFrame({"layer": 0, "lag": 2, "window": range(5), "weight_norm": [5.0, 1, 4, 2, 3]})
    row = by_lag(table).iloc[0]
    assert (row["low"], row["median"], row["high"]) == (2, 3, 4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"run": ""}, "name a run"),
        ({"lags": 10_000}, "fewer lags"),
        ({"run": "nowhere"}, "no run"),
    ],
)
def test_bad_parameters_are_sentences(runs, settings, words):
    study = Study(**{"run": str(runs["gru"]), **settings})
    with pytest.raises(lm.InputError, match=words):
        study()
