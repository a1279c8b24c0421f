"""The arithmetic of docs/scale.md, and that the page holds what the program computes."""

import numpy as np
import pandas as pd
import pytest
from paths import ROOT

from recurrent_lm import kernels, lm
from recurrent_lm.lm import run_app
from recurrent_lm.studies import load
from recurrent_lm.studies.cli import app
from recurrent_lm.studies.scale.arithmetic import CONSTANTS, GPUS, MODELS, Model, Training
from recurrent_lm.studies.scale.markdown import count, markdown, size, span

PUBLISHED = ROOT / "reports" / "published" / "cpu"


def test_the_page_holds_what_the_program_prints(capsys):
    page = (ROOT / "docs" / "scale.md").read_text()
    _, begin, rest = page.partition("<!-- studies scale -->\n\n")
    tables, end, _ = rest.partition("\n<!-- end -->\n")
    assert begin and end and tables == markdown(), "make it with: studies scale"
    assert run_app(app, "studies", ["scale"]) == 0
    assert capsys.readouterr().out == markdown()
    assert run_app(app, "studies", ["scale", "--rows", "8"]) == 0
    assert "8 rows of 100 tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (["--rows", "0"], "--rows must be at least 1, not '0'"),
        (["--bptt", "2000000"], "--bptt must be at most 1,000,000, not '2000000'"),
        (["--tokens", "many"], "--tokens must be a whole number, not 'many'"),
    ],
)
def test_numbers_out_of_range_are_refused(capsys, wrong, sentence):
    assert run_app(app, "studies", ["scale", *wrong]) == 2
    assert capsys.readouterr().err == f"studies: {sentence}\n"


@pytest.mark.parametrize("model", MODELS[:1])
def test_parameters_are_those_of_a_model_that_is_built(model):
    config = lm.ModelConfig(cell="lstm", hidden_size=model.hidden, layers=model.layers, tie=True)
    built = lm.LanguageModel(model.vocabulary, config)
    assert sum(p.numel() for p in built.parameters()) == model.parameters


def test_memory_worked_out_by_hand():
    """LSTM 2 x 1,024, bfloat16: of a token the input of 1,024 and six numbers a unit and layer, or two."""
    model = Model(2, 1_024, 32_000)
    assert model.parameters == 32_000 * 1_024 + 2 * (8 * 1_024**2 + 8 * 1_024) + 32_000
    assert (model.saved(), model.saved(True)) == (2 * (1_024 + 12 * 1_024), 2 * (1_024 + 4 * 1_024))
    assert model.logits == 128_000
    assert Model(1, 200, 10).saved() == 2 * (200 + 6 * 256)  # 200 units are padded to 256


def test_operations_are_six_a_weight_of_a_product_but_those_of_the_scan():
    """Three products, each of two operations a weight; two of W_h's three are in the scan, that of its gradient is not."""
    model = Model(3, 64, 1_000)
    inputs, recurrent, decoder = 3 * 4 * 64 * 64, 3 * 4 * 64 * 64, 64 * 1_000
    assert model.products == 6 * inputs + 2 * recurrent + 6 * decoder


@pytest.mark.parametrize(("gpus", "share"), [(1, 0.0), (2, 1.0), (8, 1.75), (1_000, 1.998)])
def test_a_ring_sends_the_gradient_almost_twice(gpus, share):
    training = Training(MODELS[1], gpus)
    assert training.gradient == 4 * MODELS[1].parameters
    assert training.traffic == pytest.approx(share * training.gradient)


def test_the_exchange_takes_the_slowest_link_and_waits_for_messages():
    small = Training(MODELS[0], 8)
    assert small.exchange == pytest.approx(1.75 * small.gradient / 450e9 + 6 * 5e-6)
    large = Training(MODELS[0], 1_000)
    assert large.exchange == pytest.approx(1.998 * large.gradient / 50e9 + 20 * 5e-6)
    assert Training(MODELS[0], 1).exchange == 0


def test_time_adds_up():
    t = Training(MODELS[2], 8, rows=16, bptt=50, tokens=10**9)
    assert t.at_once == 8 * 16 * 50
    assert t.update == pytest.approx(50 * 4 * t.model.step(16) + 800 * t.model.products / 989e12 + t.optimizing + t.exchange)
    assert t.optimizing == pytest.approx(28 * t.model.parameters / 3.35e12)
    assert t.seconds == pytest.approx(10**9 / t.at_once * t.update)
    assert t.row * 8 * 16 == 10**9


def test_a_step_is_what_plans_predict_or_the_reading_of_weights_that_do_not_fit():
    fits, not_ = Model(1, 1_024, 10), Model(1, 4_096, 10)
    predicted = kernels.predict(64, 1_000, 1_024, "lstm", "bfloat16", kernels.DEVICES["sm_90"])
    assert fits.step(64) == pytest.approx(min(p.total for p in predicted.values()) * 1e-9)
    assert not_.step(1) == pytest.approx(2 * 4 * 4_096**2 * 2 / 3.35e12)
    assert not_.step(256) > not_.step(1)


def test_more_gpus_read_faster_but_by_less_than_their_number():
    for model in MODELS:
        speeds = [Training(model, gpus).speed for gpus in GPUS]
        assert speeds[0] < speeds[1] < 8 * speeds[0] and speeds[1] < speeds[2] < 125 * speeds[1]


def test_what_is_called_measured_was_measured():
    table = load(PUBLISHED / "training_step.parquet")
    assert {k: table.attrs["parameters"][k] for k in ("layers", "hidden", "vocabulary")} == {
        "layers": 2,
        "hidden": 200,
        "vocabulary": 10_000,
    }
    seconds = table[table["variant"] == "lm float32"]["seconds"].median()
    assert CONSTANTS["cpu"].value == pytest.approx(700 / seconds, rel=0.01)
    runs = pd.read_csv(PUBLISHED / "trainer.csv").query("tokens == 'bpe'")
    each = np.log2(runs["test_perplexity"]) / runs["test_bits_per_byte"]
    assert each.min() == pytest.approx(3.3, abs=0.05) and each.max() == pytest.approx(3.6, abs=0.05)
    assert each.min() < CONSTANTS["text"].value < each.max()
    assert {c.kind for c in CONSTANTS.values()} == {"measured", "published", "assumed"}


@pytest.mark.parametrize(
    ("make", "value", "text"),
    [
        (count, 6_400, "6,400"),
        (count, 999_600, "1.00 million"),
        (count, 1.5625e9, "1.56 billion"),
        (count, 64, "64.0"),
        (size, 0, "0"),
        (size, 40_000, "40.0 KB"),
        (size, 4e11, "400 GB"),
        (span, 518e-6, "518 µs"),
        (span, 59.4, "59.4 s"),
        (span, 19 * 86400, "19.0 days"),
        (span, 3e-9, "0.00300 µs"),
    ],
)
def test_three_digits_count(make, value, text):
    assert make(value) == text
