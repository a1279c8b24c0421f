"""What a model writes while it is trained: kept, the same after a resume, and without any influence on the losses."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recurrent_lm import lm
from recurrent_lm.lm.base.errors import Diverged
from recurrent_lm.lm.training import start
from recurrent_lm.lm.training.journal import LENGTHS

Log = Callable[[Path], list[dict[str, Any]]]
HOW = {"cell": "lstm", "kind": "word", "dropout": 0.3, "weight_drop": 0.2, "epochs": 3, "lr": 0.02, "checkpoint_every": 3}


@pytest.mark.parametrize("how", [{}, {"average": 0.9}, {"kind": "char", "cell": "rnn-relu", "optimizer": "sgd"}])
def test_losses_are_bit_for_bit_the_same_with_and_without(
    tmp_path: Path, small: Path, fit: Any, read_log: Log, how: dict[str, Any]
) -> None:
    runs = {texts: tmp_path / str(texts) for texts in (True, False)}
    states = []
    for texts, run in runs.items():
        training = fit(run, small, **{**HOW, **how, "texts": texts})
        states.append((training.model.state_dict(), torch.get_rng_state()))
    for name in ("steps.jsonl", "epochs.jsonl"):
        with_texts, without = ([strip(r) for r in read_log(run / name)] for run in runs.values())
        assert with_texts == without
    assert all(torch.equal(a, b) for a, b in zip(states[0][0].values(), states[1][0].values(), strict=True))
    assert torch.equal(states[0][1], states[1][1])
    assert len(read_log(runs[True] / "samples.jsonl")) == 3
    assert not (runs[False] / "samples.jsonl").exists()


def strip(record: dict[str, Any]) -> dict[str, Any]:
    """Without what the clock says."""
    return {key: value for key, value in record.items() if key not in ("seconds", "tokens_per_second")}


@pytest.mark.parametrize("stop_after", [1, 4, 9])
def test_a_resumed_training_has_the_same_losses_and_writes_the_same(
    tmp_path: Path, small: Path, fit: Any, make_config: Any, read_log: Log, stop_after: int
) -> None:
    fit(tmp_path / "whole", small, **HOW)
    training = start.new_training(make_config(small, **HOW), tmp_path / "run")
    update = training.update

    def stopping(batch: Any) -> Any:
        if training.at.step == stop_after:
            training.signum = 2
        return update(batch)

    training.update = stopping  # type: ignore[method-assign]
    with pytest.raises(lm.Stopped):
        training.run(quiet=True)
    start.resume(tmp_path / "run").run(quiet=True)
    for name in ("steps.jsonl", "epochs.jsonl", "samples.jsonl"):
        whole, resumed = ([strip(r) for r in read_log(tmp_path / run / name)] for run in ("whole", "run"))
        assert whole == resumed


@pytest.mark.parametrize("kind", ["word", "char", "bpe"])
def test_a_text_is_kept_after_every_epoch(tmp_path: Path, small: Path, fit: Any, read_log: Log, kind: str) -> None:
    fit(tmp_path / "run", small, **{**HOW, "kind": kind, "sample": "the people"})
    texts, epochs = read_log(tmp_path / "run" / "samples.jsonl"), read_log(tmp_path / "run" / "epochs.jsonl")
    assert [(t["epoch"], t["step"], t["improved"]) for t in texts] == [(e["epoch"], e["step"], e["improved"]) for e in epochs]
    assert {t["prompt"] for t in texts} == {"the people"}
    assert all(t["text"] or t["ended"] == "eos" for t in texts)
    run = lm.load(tmp_path / "run", device="cpu")
    best = max((t for t in texts if t["improved"]), key=lambda t: t["epoch"])
    assert best["text"] == "".join(lm.generate(run, "the people", LENGTHS[kind], seed=1)), "what the best model writes"


def test_without_a_prompt_one_is_taken_from_the_text(tmp_path: Path, small: Path, fit: Any, read_log: Log) -> None:
    fit(tmp_path / "run", small, **HOW)
    (prompt,) = {t["prompt"] for t in read_log(tmp_path / "run" / "samples.jsonl")}
    assert len(prompt.split()) == 2
    assert prompt in small.read_text()


def test_a_sample_is_printed_after_each_epoch(tmp_path: Path, small: Path, flags: Any, lm_command: Any, read_log: Log) -> None:
    run = tmp_path / "run"
    code, out, _ = lm_command("train", small, "--run", run, *flags(kind="word", sample="we want"))
    assert code == 0
    lines = [line.strip() for line in out.splitlines() if line.startswith("  we want")]
    assert lines == [" ".join((t["prompt"] + t["text"]).split()) for t in read_log(run / "samples.jsonl")]
    assert len(lines) == 2


@pytest.mark.parametrize("how", [["--sample", " ", "--split-words", "spaces"], ["--sample", "we", "--no-texts"]])
def test_a_sample_that_makes_no_sense_is_refused_before_anything_is_made(
    tmp_path: Path, small: Path, refused: Any, how: list[str]
) -> None:
    assert "--sample" in refused("train", small, "--tokens", "word", "--run", tmp_path / "run", *how)
    assert not (tmp_path / "run").exists()


def test_a_model_that_overflows_ends_its_text_without_an_error(tmp_path: Path, small: Path, fit: Any) -> None:
    fit(tmp_path / "run", small, **HOW)
    run = lm.load(tmp_path / "run", device="cpu")
    with torch.no_grad():
        run.model.embedding.weight.fill_(math.inf)
    (sample,) = lm.generate_batch(run, "we want", 1, lm.Draws(5, seed=1))
    assert (sample.text, sample.ended) == ("", "not finite")


def test_a_divergence_is_recorded_with_the_norms_before_it(tmp_path: Path, small: Path, fit: Any) -> None:
    run = tmp_path / "run"
    with pytest.raises(Diverged) as error:
        fit(run, small, kind="word", optimizer="sgd", lr=1e5, clip="none", epochs=50, cell="rnn-relu")
    record = json.loads((run / "diverged.json").read_text())
    norms = [json.loads(line)["grad_norm"] for line in (run / "steps.jsonl").read_text().splitlines()]
    assert record["what"] == error.value.what
    assert record["step"] == len(norms) + 1
    assert record["grad_norms"][-len(norms) :] == norms[-len(record["grad_norms"]) :]
    assert lm.history(run).diverged == record


def test_a_run_that_goes_on_forgets_its_divergence(tmp_path: Path, small: Path, make_config: Any) -> None:
    training = start.new_training(make_config(small, epochs=1), tmp_path / "run")
    assert training.lock
    training.lock.release()
    (tmp_path / "run" / "diverged.json").write_text("{}")
    start.resume(tmp_path / "run").run(quiet=True)
    assert not (tmp_path / "run" / "diverged.json").exists()
