"""How a training goes on and ends, and what its folder says."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from paths import ROOT

from recurrent_lm.lm.config import from_toml
from recurrent_lm.lm.runs import checkpoint
from recurrent_lm.lm.runs import folder as runs
from recurrent_lm.lm.scoring.evaluate import evaluate
from recurrent_lm.lm.training.start import new_training

Log = Callable[[Path], list[dict[str, Any]]]
Fit = Callable[..., Any]
Make = Callable[..., Any]


# -- schedule and ends ----------------------------------------------------------------------------------------------

STILL = 1e-30  # a rate at which no weight moves, so that validation never improves after the first epoch


def test_patience_counts_epochs_without_a_better_validation(tmp_path: Path, corpus: Path, fit: Fit, read_log: Log) -> None:
    training = fit(tmp_path / "run", corpus, optimizer="sgd", lr=STILL, patience=2, epochs=9, bptt=100, decay_factor=4.0)
    epochs = read_log(tmp_path / "run" / "epochs.jsonl")
    assert [r["improved"] for r in epochs] == [True, False, False]
    assert [r["lr"] for r in epochs] == [STILL, STILL, STILL / 4]
    steps = read_log(tmp_path / "run" / "steps.jsonl")
    assert {(r["epoch"], r["lr"]) for r in steps} == {(1, STILL), (2, STILL), (3, STILL / 4)}
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["epochs"], result["best_epoch"], result["steps"]) == (3, 1, training.at.step)


def test_no_patience_never_stops_early(tmp_path: Path, corpus: Path, fit: Fit, read_log: Log) -> None:
    fit(tmp_path / "run", corpus, optimizer="sgd", lr=STILL, patience=0, epochs=5, bptt=200)
    assert [r["epoch"] for r in read_log(tmp_path / "run" / "epochs.jsonl")] == [1, 2, 3, 4, 5]


def test_the_rate_decays_from_the_fifth_epoch_on(tmp_path: Path, corpus: Path, fit: Fit, read_log: Log) -> None:
    how = {"schedule": "decay", "decay_after": 4, "decay_factor": 2.0, "patience": 0, "epochs": 6, "bptt": 200}
    fit(tmp_path / "run", corpus, optimizer="sgd", lr=1.0, **how)
    rates = {r["epoch"]: r["lr"] for r in read_log(tmp_path / "run" / "steps.jsonl")}
    assert rates == {1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0, 5: 0.5, 6: 0.25}


def test_the_rate_in_the_log_is_the_rate_that_moves_the_weights(tmp_path: Path, corpus: Path, make_config: Make) -> None:
    training = new_training(make_config(corpus, optimizer="sgd", lr=0.5, clip="none"), tmp_path / "run")
    for rate in (0.5, 0.25):
        training.at.lr = rate
        before = training.model.decoder.bias.detach().clone()
        training.update(training.batches[0])
        bias = training.model.decoder.bias
        torch.testing.assert_close(bias.detach(), before - rate * bias.grad)


@pytest.mark.parametrize("steps", [1, 7])
def test_max_steps_is_exact_and_the_model_is_still_validated(
    tmp_path: Path, corpus: Path, fit: Fit, read_log: Log, steps: int
) -> None:
    fit(tmp_path / "run", corpus, max_steps=steps)
    assert [r["step"] for r in read_log(tmp_path / "run" / "steps.jsonl")] == list(range(1, steps + 1))
    assert len(read_log(tmp_path / "run" / "epochs.jsonl")) == 1
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == steps


def test_max_steps_beyond_the_first_epoch(tmp_path: Path, corpus: Path, fit: Fit, read_log: Log) -> None:
    training = fit(tmp_path / "run", corpus, max_steps=5, bptt=100, epochs=9)
    assert len(training.batches) < 5 < 2 * len(training.batches)
    assert len(read_log(tmp_path / "run" / "steps.jsonl")) == 5
    assert [r["step"] for r in read_log(tmp_path / "run" / "epochs.jsonl")] == [len(training.batches), 5]


def test_the_best_checkpoint_is_that_of_the_lowest_validation_loss(tmp_path: Path, fit: Fit, read_log: Log) -> None:
    draw = torch.Generator().manual_seed(0)  # noise, which can only be learnt by heart
    (tmp_path / "t.txt").write_text("".join("abcd"[t] for t in torch.randint(0, 4, (600,), generator=draw)))
    run = tmp_path / "run"
    training = fit(run, tmp_path / "t.txt", hidden_size=16, lr=0.1, epochs=6, patience=0, schedule="constant")
    losses = [r["valid_loss"] for r in read_log(run / "epochs.jsonl")]
    best = losses.index(min(losses)) + 1
    assert best < len(losses), "the case needs a training that gets worse in the end"
    result = json.loads((run / "result.json").read_text())
    assert result["best_epoch"] == best
    for which, expected in (("best", min(losses)), ("last", losses[-1])):
        score = evaluate(runs.load(run, which, device="cpu").model, training.data.valid)
        assert score.loss == pytest.approx(expected, rel=1e-6), which
    assert result["valid"]["loss"] == pytest.approx(min(losses), rel=1e-6)
    test = evaluate(runs.load(run, device="cpu").model, training.data.test)
    assert result["test"]["loss"] == pytest.approx(test.loss, rel=1e-6)
    assert result["test"]["tokens"] == len(training.data.test.ids)


# -- the run folder -------------------------------------------------------------------------------------------------

REGULARISED = {"dropout": 0.3, "embedding_dropout": 0.1, "weight_drop": 0.2}


@pytest.mark.parametrize(
    "settings",
    [
        {"cell": "lstm", "optimizer": "sgd", "lr": 3.0, "locked": False, **REGULARISED},
        {"kind": "word", "optimizer": "adamw", "precision": "bf16", "state": "document", **REGULARISED},
        {"cell": "rnn-sigmoid", "precision": "auto", "device": "auto", "backend": "auto", "valid_rows": 3, **REGULARISED},
    ],
    ids=["char", "word-bf16", "auto"],
)
def test_the_config_in_the_run_folder_gives_the_same_run_bit_for_bit(
    tmp_path: Path, corpus: Path, flags: Make, read_log: Log, lm_command: Any, settings: dict[str, Any]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    code, _, err = lm_command("train", corpus, "--run", first, *flags(seed=5, **settings), "--quiet")
    assert code == 0, err
    torch.manual_seed(99)
    torch.rand(3)
    code, _, err = lm_command("train", "--config", first / "config.toml", "--run", second, "--quiet")
    assert code == 0, err
    assert (second / "steps.jsonl").read_bytes() == (first / "steps.jsonl").read_bytes()
    assert (second / "config.toml").read_bytes() == (first / "config.toml").read_bytes()
    timings = ("seconds", "tokens_per_second")
    a, b = (
        [{k: v for k, v in r.items() if k not in timings} for r in read_log(run / "epochs.jsonl")] for run in (first, second)
    )
    assert a == b
    assert (second / "result.json").read_bytes() == (first / "result.json").read_bytes()
    for which in ("best", "last"):
        groups = [checkpoint.load(run, which).groups for run in (first, second)]
        for name, tensor in groups[0]["model"].items():
            assert torch.equal(tensor, groups[1]["model"][name])


def test_another_seed_gives_another_run(tmp_path: Path, corpus: Path, fit: Fit, read_log: Log) -> None:
    losses = []
    for seed in (1, 2):
        fit(tmp_path / str(seed), corpus, seed=seed, max_steps=3)
        losses.append(read_log(tmp_path / str(seed) / "steps.jsonl")[0]["loss"])
    assert losses[0] != losses[1]


def test_the_run_folder_says_what_it_is_and_not_where(trained: Path, corpus: Path) -> None:
    config = from_toml(trained / "config.toml")
    text = (trained / "config.toml").read_text()
    assert str(trained) not in text
    assert config.corpus.source == str(corpus)
    assert config.machine.device == "cpu"
    assert config.machine.threads == 1
    assert "auto" not in (config.machine.precision, config.machine.backend)
    about = json.loads((trained / "about.json").read_text())
    assert about["torch"] == torch.__version__
    assert {"version", "python", "command", "platform", "cores", "trimmed_tokens", "parameters"} <= about.keys()
    assert about["corpus"]["documents"] == 1
    if (ROOT / ".git").exists():
        assert re.fullmatch(r"[0-9a-f]{40}", about["commit"])


def test_a_relative_corpus_is_kept_as_a_whole_path(
    tmp_path: Path, corpus: Path, fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(corpus.parent)
    fit(tmp_path / "run", corpus.name, max_steps=1)
    assert from_toml(tmp_path / "run" / "config.toml").corpus.source == str(corpus)


def test_bf16_products_give_losses_close_to_float32(tmp_path: Path, corpus: Path, fit: Fit, read_log: Log) -> None:
    losses = {}
    for precision in ("float32", "bf16"):
        fit(tmp_path / precision, corpus, precision=precision, hidden_size=16, lr=0.01, max_steps=40)
        losses[precision] = [r["loss"] for r in read_log(tmp_path / precision / "steps.jsonl")]
    assert losses["bf16"] != losses["float32"]
    assert losses["bf16"] == pytest.approx(losses["float32"], rel=5e-3)
    for name, tensor in checkpoint.load(tmp_path / "bf16").groups["model"].items():
        assert tensor.dtype == torch.float32, name
