"""A training that diverges goes back to its last good checkpoint with half the rate, when its settings say so."""

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from faulty_disk import losses

from recurrent_lm.lm.base.errors import Diverged, Stopped
from recurrent_lm.lm.runs import checkpoint
from recurrent_lm.lm.training import rollback
from recurrent_lm.lm.training import start as launch
from recurrent_lm.lm.training.loop import Training

Log = Callable[[Path], list[dict[str, Any]]]
Make = Callable[..., Any]

WILD = {"cell": "rnn-relu", "optimizer": "sgd", "lr": 400.0, "clip": "none", "rows": 8, "bptt": 16, "epochs": 3}
BACK = {"on_divergence": "rollback", "checkpoint_every": 4, "dropout": 0.2}


def spoilt(training: Training, at: tuple[int, ...], factor: float = math.nan) -> Training:
    """Let the ``n``-th updates that are made, counted from 1, have no loss, whatever the rate."""
    made = 0

    def spoil(module: Any, args: Any, output: Any) -> Any:
        nonlocal made
        if not module.training:
            return None
        made += 1
        return (output[0] * factor, output[1]) if made in at else None

    training.model.register_forward_hook(spoil)
    return training


def test_a_run_that_would_diverge_ends_with_a_smaller_rate(
    tmp_path: Path, corpus: Path, flags: Make, lm_command: Any, read_log: Log
) -> None:
    how = flags(**WILD, checkpoint_every=4)
    assert lm_command("train", corpus, "--run", tmp_path / "stop", "--quiet", *how)[0] == 3
    assert not (tmp_path / "stop" / "good.json").exists()
    run = tmp_path / "run"
    code, out, err = lm_command("train", corpus, "--run", run, *how, "--on-divergence", "rollback")
    assert (code, err) == (0, "")
    records = read_log(run / "rollbacks.jsonl")
    assert len(records) >= 2
    assert [r["rollback"] for r in records] == list(range(1, len(records) + 1))
    for r in records:
        line = f"{r['what']}; back to step {r['back_to_step']} with rate {r['next_lr']:.3g}"
        assert f"{line} (rollback {r['rollback']} of at most 8)\n" in out
    assert [r["next_lr"] for r in records] == [400 / 2**n for n in range(1, len(records) + 1)]
    assert json.loads((run / "result.json").read_text())["rollbacks"] == len(records)
    steps = read_log(run / "steps.jsonl")
    assert [r["step"] for r in steps] == list(range(1, len(steps) + 1)), "what was rolled back is gone"
    assert all(math.isfinite(r["loss"]) for r in steps)
    assert steps[-1]["lr"] <= records[-1]["next_lr"]
    assert lm_command("runs", tmp_path)[1].count("done") == 1


def test_everything_is_restored_but_the_rate(tmp_path: Path, corpus: Path, make_config: Make, read_log: Log) -> None:
    """From the checkpoint on, the run is the one that resumes from it with half the rate."""
    settings = {**BACK, "cell": "lstm", "optimizer": "adam", "lr": 0.01, "max_steps": 12, "average": 0.9}
    run = tmp_path / "run"
    spoilt(launch.new_training(make_config(corpus, **settings), run), at=(7,)).run(quiet=True)
    assert [(r["step"], r["back_to_step"]) for r in read_log(run / "rollbacks.jsonl")] == [(6, 4)]
    assert [r["lr"] for r in read_log(run / "steps.jsonl")][:12] == [0.01] * 4 + [0.005] * 8
    again = tmp_path / "again"
    training = launch.new_training(make_config(corpus, **settings), again)
    training.signum = 0
    real = training.update

    def update(batch: Any) -> Any:
        if training.at.step == 4:
            training.at.lr = 0.005
        return real(batch)

    training.update = update  # type: ignore[method-assign]
    training.run(quiet=True)
    assert losses(run)["steps"] == losses(again)["steps"]
    groups = [checkpoint.load(path, "last").groups for path in (run, again)]
    for name in ("model", "moving", "optimizer", "state"):
        for key, tensor in groups[0][name].items():
            assert torch.equal(tensor, groups[1][name][key]), f"{name} {key}"


def test_a_rollback_repeats_bit_for_bit(tmp_path: Path, corpus: Path, fit: Any) -> None:
    for name in ("a", "b"):
        fit(tmp_path / name, corpus, **WILD, **BACK)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert losses(tmp_path / "a")["rollbacks"]


def test_weights_that_are_spoilt_but_finite_are_never_gone_back_to(
    tmp_path: Path, corpus: Path, make_config: Make, read_log: Log
) -> None:
    """The update before the checkpoint of step 8 ruins the weights: the loss is known only at the next one."""
    training = launch.new_training(make_config(corpus, **BACK, max_steps=12, lr=0.01, optimizer="sgd"), tmp_path / "run")
    ruined = 0

    def ruin(*_: Any) -> None:
        nonlocal ruined
        if training.at.step == 7 and not ruined:
            ruined = 1
            for parameter in training.model.parameters():
                parameter.data.mul_(1e9)

    training.step.optimizer.register_step_post_hook(ruin)
    training.run(quiet=True)
    assert [(r["step"], r["back_to_step"]) for r in read_log(tmp_path / "run" / "rollbacks.jsonl")] == [(8, 4)]


def test_a_loss_worse_than_guessing_makes_no_checkpoint_good(tmp_path: Path, corpus: Path, make_config: Make) -> None:
    training = launch.new_training(make_config(corpus, **BACK, max_steps=12, lr=1e-6), tmp_path / "run")
    spoilt(training, at=(1, 5), factor=2000.0)  # finite, and above log |V| + 1
    spoilt(training, at=(11,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollback, "MOST", 1)
        training.run(quiet=True)
    record = json.loads((tmp_path / "run" / "rollbacks.jsonl").read_text())
    assert record["back_to_step"] == 8, "the first is good without that, the second is not, the third is"


def test_divergence_that_returns_at_once_halves_the_rate_until_it_ends(
    tmp_path: Path, corpus: Path, make_config: Make, read_log: Log
) -> None:
    run = tmp_path / "run"
    training = spoilt(launch.new_training(make_config(corpus, **BACK, lr=0.512), run), at=tuple(range(6, 100)))
    with pytest.raises(Diverged, match=r"^the loss became nan at step 5 \(epoch 1\), after 8 rollbacks that halved"):
        training.run(quiet=True)
    assert [r["next_lr"] for r in read_log(run / "rollbacks.jsonl")] == [0.512 / 2**n for n in range(1, 9)]
    assert {r["back_to_step"] for r in read_log(run / "rollbacks.jsonl")} == {4}
    saved = checkpoint.load(run, "last")
    assert (saved.meta["position"]["lr"], saved.meta["position"]["rollbacks"], saved.meta["step"]) == (0.002, 8, 4)
    assert not (run / "result.json").exists()
    with pytest.raises(Diverged, match="after 8 rollbacks"):
        spoilt(launch.resume(run), at=(1,)).run(quiet=True)
    assert len(read_log(run / "rollbacks.jsonl")) == 8


def test_where_no_update_goes_well_there_is_no_way_back(tmp_path: Path, corpus: Path, make_config: Make) -> None:
    training = spoilt(launch.new_training(make_config(corpus, **BACK), tmp_path / "run"), at=(1,))
    with pytest.raises(Diverged, match=r"at step 1 .*, and no checkpoint is known to be good"):
        training.run(quiet=True)
    assert not (tmp_path / "run" / "rollbacks.jsonl").exists()


def test_a_validation_that_diverges_rolls_back(
    tmp_path: Path, corpus: Path, make_config: Make, read_log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = launch.new_training(make_config(corpus, **BACK, epochs=2), tmp_path / "run")
    steps, real, scored = len(training.batches), training.score, 0

    def score(split: str, rows: int = 1) -> Any:
        nonlocal scored
        scored += 1
        found = real(split, rows)
        return type(found)(**{**vars(found), "loss": math.nan}) if scored == 1 else found

    monkeypatch.setattr(training, "score", score)
    training.run(quiet=True)
    (record,) = read_log(tmp_path / "run" / "rollbacks.jsonl")
    assert record["what"] == f"the validation loss became nan at step {steps + 1} (epoch 1)"
    assert record["back_to_step"] == steps - (steps % 4 or 4)
    assert [r["epoch"] for r in read_log(tmp_path / "run" / "epochs.jsonl")] == [1, 2]


@pytest.mark.parametrize("schedule", ["constant", "plateau", "decay"])
def test_no_schedule_undoes_the_halving(tmp_path: Path, corpus: Path, make_config: Make, read_log: Log, schedule: str) -> None:
    how = {**BACK, "schedule": schedule, "decay_after": 1, "lr": 1e-20, "optimizer": "sgd", "epochs": 4, "patience": 0}
    how |= {"rows": 8, "bptt": 16}
    for name, at in (("plain", ()), ("back", (7,))):
        spoilt(launch.new_training(make_config(corpus, **how), tmp_path / name), at).run(quiet=True)
    plain, back = ([r["lr"] for r in read_log(tmp_path / n / "epochs.jsonl")] for n in ("plain", "back"))
    assert back == [lr / 2 for lr in plain]
    assert len(set(plain)) == (1 if schedule == "constant" else 3 + (schedule == "decay"))


def test_a_stop_after_a_rollback_and_a_resume_change_nothing(tmp_path: Path, corpus: Path, fit: Any, make_config: Make) -> None:
    """Also a stop that leaves a checkpoint where the uninterrupted run has none: that one is not gone back to."""
    fit(tmp_path / "whole", corpus, **WILD, **BACK)
    for stop in (1, 2, 5, 9):
        run = tmp_path / f"run{stop}"
        training, made = launch.new_training(make_config(corpus, **WILD, **BACK), run), 0
        real = training.update

        def update(batch: Any, training: Training = training, real: Any = real, stop: int = stop) -> Any:
            nonlocal made
            made += 1
            if made == stop:
                os.kill(os.getpid(), signal.SIGTERM)
            return real(batch)

        training.update = update  # type: ignore[method-assign]
        with pytest.raises(Stopped):
            training.run(quiet=True)
        launch.resume(run).run(quiet=True)
        assert losses(run) == losses(tmp_path / "whole")


def test_the_best_model_stays_though_the_steps_to_it_are_taken_back(
    tmp_path: Path, corpus: Path, make_config: Make, read_log: Log
) -> None:
    training = launch.new_training(
        make_config(corpus, **BACK, lr=1e-3, epochs=3, patience=0, schedule="constant"), tmp_path / "run"
    )
    steps = len(training.batches)
    assert steps % 4, "the end of an epoch is no step with a checkpoint"
    spoilt(training, at=(steps + 1,))  # at once from the best checkpoint of epoch 1, which is therefore not good
    before: list[bytes] = []
    real = training.rollback.after

    def after(error: Any) -> None:
        before.append((tmp_path / "run" / "best.json").read_bytes())
        real(error)
        assert (tmp_path / "run" / "best.json").read_bytes() == before[0]
        assert (training.at.best_epoch, training.at.epoch) == (1, 0)
        checkpoint.load(tmp_path / "run", "best")

    training.rollback.after = after  # type: ignore[method-assign]
    training.run(quiet=True)
    assert before
    assert read_log(tmp_path / "run" / "rollbacks.jsonl")[0]["back_to_step"] == steps - steps % 4


def test_old_checkpoints_without_a_count_can_be_resumed_with_rollback(
    tmp_path: Path, corpus: Path, make_config: Make, read_log: Log
) -> None:
    training = launch.new_training(make_config(corpus, checkpoint_every=4, dropout=0.2), tmp_path / "run")
    training.signum = signal.SIGTERM
    with pytest.raises(Stopped):
        training.run(quiet=True)
    saved = checkpoint.load(tmp_path / "run")
    del saved.meta["position"]["rollbacks"], saved.meta["logs"], saved.meta["files"]
    checkpoint.save(tmp_path / "run", saved)
    config = tmp_path / "run" / "config.toml"
    config.write_text(config.read_text().replace('on_divergence = "stop"', 'on_divergence = "rollback"'))
    spoilt(launch.resume(tmp_path / "run"), at=(3,)).run(quiet=True)
    assert [r["back_to_step"] for r in read_log(tmp_path / "run" / "rollbacks.jsonl")] == [0]
