"""Updates as one graph. Without a GPU nothing is recorded, and the same work in the same buffers is held to plain updates."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recurrent_lm.lm.base.errors import Diverged, InputError, Stopped
from recurrent_lm.lm.config import RunConfig
from recurrent_lm.lm.runs import checkpoint
from recurrent_lm.lm.training import cuda_graph as graph
from recurrent_lm.lm.training import loop as train
from recurrent_lm.lm.training import start as launch
from recurrent_lm.lm.training.clip import clip
from recurrent_lm.lm.training.cuda_graph import Graph
from recurrent_lm.lm.training.loop import Training
from recurrent_lm.lm.training.step import Average

Log = Callable[[Path], list[dict[str, Any]]]
Make = Callable[..., Any]


def begin(config: RunConfig, path: Path, graphed: bool = True) -> Training:
    """A training that takes its updates from a ``Graph`` though it is on a CPU."""
    training = launch.new_training(config, path)
    training.config = training.config.replace(graph=graphed)
    return training


def same_steps(tmp_path: Path, config: RunConfig, read_log: Log) -> Training:
    logs = []
    for graphed in (False, True):
        training = begin(config, tmp_path / str(graphed), graphed)
        training.run(quiet=True)
        logs.append([read_log(training.path / name) for name in ("steps.jsonl", "epochs.jsonl")])
    assert isinstance(training.graph, Graph)
    for plain, ours in zip(*logs, strict=True):
        assert len(plain) == len(ours) > 1
        for a, b in zip(plain, ours, strict=True):
            timed = ("seconds", "tokens_per_second")
            assert {k: v for k, v in b.items() if k not in timed} == pytest.approx(
                {k: v for k, v in a.items() if k not in timed}, rel=2e-5
            )
    for which in ("best", "last"):
        weights = [checkpoint.load(tmp_path / str(g), which).groups for g in (False, True)]
        for group, tensors in weights[0].items():
            for name, value in tensors.items():
                torch.testing.assert_close(weights[1][group][name].double(), value.double(), rtol=1e-3, atol=3e-5)
    return training


@pytest.mark.parametrize(
    "how",
    [
        {"cell": "lstm", "clip": "norm:0.3", "lr": 0.03},
        {"cell": "gru", "optimizer": "adamw", "weight_decay": 0.1, "clip": "value:0.01", "average": 0.9, "ar": 2.0, "tar": 1.0},
        {"cell": "rnn-tanh", "optimizer": "sgd", "lr": 1.0, "clip": "none", "layers": 2, "schedule": "decay", "decay_after": 1},
        {"cell": "lstm", "dropout": 0.3, "weight_drop": 0.3, "embedding_dropout": 0.1, "checkpoint_every": 5},
        {"cell": "gru", "state": "never", "max_steps": 30},
    ],
    ids=lambda how: how["cell"] + "-" + how.get("optimizer", "adam"),
)
def test_updates_from_buffers_are_plain_updates(
    tmp_path: Path, small: Path, make_config: Make, read_log: Log, how: dict[str, Any]
) -> None:
    """Dropout masks, the average, a rate that falls and each epoch's shorter last pass included."""
    training = same_steps(tmp_path, make_config(small, **how), read_log)
    lengths = {training.batches[s].inputs.shape[1] for s in range(len(training.batches))}
    assert len(lengths) == 2, "the last pass of an epoch is shorter"


def test_documents_begin_where_they_do(tmp_path: Path, make_text: Make, make_config: Make, read_log: Log) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(30):
        (folder / f"{i:02}.txt").write_text(make_text(120, seed=i))
    config = make_config(folder, state="document", backend="eager", bptt=16, epochs=2)
    training = same_steps(tmp_path, config, read_log)
    assert any(training.batches[s].begins.any() for s in range(len(training.batches)))
    assert training.graph is not None
    assert training.graph._begins is not None, "the mask has a buffer"


def test_the_next_update_runs_before_one_is_looked_at_except_where_something_is_stored(
    tmp_path: Path, corpus: Path, make_config: Make
) -> None:
    training = begin(make_config(corpus, checkpoint_every=4, max_steps=10, epochs=9), tmp_path / "run")
    ahead, saved = {}, []
    log, save = training.journal.step, training.save

    def note(*figures: Any) -> None:
        assert training.graph is not None
        ahead[training.at.step] = training.graph.ahead
        log(*figures)

    def keep(best: bool = False) -> None:
        saved.append((training.at.step, training.graph.ahead if training.graph else 0))
        save(best)

    training.journal.step, training.save = note, keep  # type: ignore[method-assign]
    training.run(quiet=True)
    assert ahead == {step: 0 if step % 4 == 0 or step == 10 else 1 for step in range(1, 11)}
    assert saved == [(4, 0), (8, 0), (10, 0)]


def test_a_shorter_pass_waits_for_those_before_it(tmp_path: Path, corpus: Path, make_config: Make) -> None:
    """It reads its loss at once, and counts the updates before it."""
    training = begin(make_config(corpus, bptt=32), tmp_path / "run")
    update, seen = training.update, []

    def short(batch: Any) -> Any:
        assert training.graph is not None
        seen.append((batch.inputs.shape[1], training.graph.ahead))
        return update(batch)

    training.update = short  # type: ignore[method-assign]
    training.run(quiet=True)
    length = training.batches[len(training.batches) - 1].inputs.shape[1]
    assert seen == [(length, 0)] * 2
    assert 0 < length < 32


@pytest.mark.parametrize("stop_at", [3, 4, 7])
def test_a_signal_stops_it_where_weights_and_step_agree(
    tmp_path: Path, corpus: Path, make_config: Make, read_log: Log, stop_at: int
) -> None:
    config = make_config(corpus, dropout=0.3, clip="norm:0.2", epochs=2)
    whole = begin(config, tmp_path / "whole")
    whole.run(quiet=True)
    training = begin(config, tmp_path / "run")
    log = training.journal.step

    def interrupted(*figures: Any) -> None:
        log(*figures)
        if training.at.step == stop_at:
            training.signum = signal.SIGINT

    training.journal.step = interrupted  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        training.run(quiet=True)
    assert checkpoint.load(training.path).meta["step"] == stop_at + 1, "the one that ran already is taken in"
    resumed = launch.resume(training.path)
    resumed.config = resumed.config.replace(graph=True)
    resumed.run(quiet=True)
    assert (resumed.path / "steps.jsonl").read_bytes() == (whole.path / "steps.jsonl").read_bytes()


WILD = {"cell": "rnn-relu", "optimizer": "sgd", "lr": 400.0, "clip": "none", "rows": 8, "bptt": 16, "epochs": 3}


def test_a_divergence_is_told_with_its_own_step_though_another_runs_already(
    tmp_path: Path, corpus: Path, make_config: Make, read_log: Log
) -> None:
    told = []
    for graphed in (False, True):
        training = begin(make_config(corpus, **WILD), tmp_path / str(graphed), graphed)
        with pytest.raises(Diverged) as error:
            training.run(quiet=True)
        told.append((error.value.what, training.at.step, checkpoint.load(training.path).meta["step"]))
        assert len(read_log(training.path / "steps.jsonl")) == training.at.step
    assert told[0] == told[1]


def test_a_rollback_takes_the_update_back_that_ran_already(
    tmp_path: Path, corpus: Path, make_config: Make, read_log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Training] = []
    monkeypatch.setattr(train, "Graph", lambda training: made.append(training) or Graph(training))
    config = make_config(corpus, **WILD, on_divergence="rollback", checkpoint_every=4, dropout=0.2)
    training = same_steps(tmp_path, config, read_log)
    assert training.at.rollbacks > 1
    assert len(made) == 1 + training.at.rollbacks, "a recording knows the tensors of an optimizer that was restored since"


class Untouched(torch.utils._python_dispatch.TorchDispatchMode):
    """Refuses what makes the host wait for a number of the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.name() not in ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal"), func.name()
        return func(*args, **(kwargs or {}))


class Descent(torch.optim.Optimizer):
    """For "meta", which torch's fused optimizers do not know; those take the rate as a tensor, too."""

    def step(self, closure: Any = None) -> None:
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p -= group["lr"] * p.grad


@pytest.mark.parametrize("state", ["epoch", "document"])
@pytest.mark.parametrize(("limit", "average"), [("norm:0.3", 0.9), ("value:0.1", 0.0), ("none", 0.0)])
def test_an_update_reads_no_number_back(
    tmp_path: Path, corpus: Path, make_config: Make, limit: str, average: float, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the device "meta" there are no numbers, so whatever asked for one would fail: the launch is all the host does.

    The layers are those of the triton backend, whose operations tell there what they would give; the loss is the textbook's.
    """
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)  # "meta" is none of its devices
    config = make_config(corpus, cell="lstm", dropout=0.3, weight_drop=0.2, embedding_dropout=0.1, clip=limit, state=state)
    config = config.replace(average=average)
    training = launch.new_training(config, tmp_path / "run")
    with torch.device("meta"):
        training.model = type(training.model)(training.data.tokenizer.size, config.model, "triton").to("meta")
    training.device = torch.device("meta")
    training.step.model, training.step.backend = training.model, "eager"
    training.step.optimizer = Descent(training.model.parameters(), {})
    if average:
        training.step.average = Average(training.model, average)
    training.state = training.model.zero_state(config.batches.rows)
    made = Graph(training)
    addresses = list(made._state)
    with Untouched():
        made._update()
    assert all(a is b for a, b in zip(addresses, made._state, strict=True)), "the state stays in its buffers"
    with pytest.raises((RuntimeError, NotImplementedError)):  # the test would see it
        float(made._results[0])


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn-tanh", "rnn-sigmoid"])
@pytest.mark.parametrize("state", ["epoch", "document"])
def test_layers_in_halves_learn_what_float32_learns(
    tmp_path: Path, corpus: Path, make_config: Make, read_log: Log, cell: str, state: str
) -> None:
    """As on a GPU, whose autocast the CPU's stands for: near float32 and not the same; parameters and state are float32.
    One of the two states goes through a graph's buffers."""
    config = make_config(corpus, cell=cell, state=state, backend="torch", weight_drop=0.2, max_steps=12, epochs=1)
    logs = []
    for halves in (False, True):
        training = begin(config.replace(precision="bf16"), tmp_path / str(halves), graphed=halves and state == "epoch")
        assert training.step.halves
        training.step.halves = halves
        training.run(quiet=True)
        assert all(p.dtype == torch.float32 for p in training.model.parameters())
        saved = checkpoint.load(training.path).groups["state"]
        assert all(t.dtype == torch.float32 for name, t in saved.items() if name.startswith("carried"))
        logs.append([(r["loss"], r["grad_norm"]) for r in read_log(training.path / "steps.jsonl")])
    assert logs[0] != logs[1]
    for plain, ours in zip(*logs, strict=True):
        assert ours == pytest.approx(plain, rel=0.02)
    assert logs[1][-1][0] < logs[1][0][0]


@given(
    st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=5), min_size=1, max_size=4),
    st.sampled_from(["norm", "value", "none"]),
    st.floats(0.0625, 128, width=32),
)
def test_clipping_on_the_device_is_clipping(values: list[list[float]], kind: str, threshold: float) -> None:
    plain = [torch.tensor(v, dtype=torch.double) for v in values]
    ours = [g.clone() for g in plain]
    norm, clipped = clip(plain, kind, threshold)
    norm_there, clipped_there = clip(ours, kind, threshold, look=False)
    assert norm_there == norm
    assert clipped_there == clipped
    torch.testing.assert_close(ours, plain, rtol=1e-14, atol=0)


def test_a_gradient_of_zero_stays_zero() -> None:
    gradients = [torch.zeros(3)]
    norm, clipped = clip(gradients, "norm", 0.25, look=False)
    assert (float(norm), bool(clipped)) == (0.0, False)
    assert gradients[0].tolist() == [0.0, 0.0, 0.0]


def test_what_cannot_be_recorded_is_refused(tmp_path: Path, corpus: Path, refused: Make, flags: Make) -> None:
    message = refused("train", corpus, "--run", tmp_path / "run", *flags(), "--graph")
    assert "--graph is for a GPU" in message
    assert not (tmp_path / "run").exists()
    config = RunConfig().replace(graph=True, device="cuda", backend="triton")
    graph.check(config, 1)
    graph.check(RunConfig(), 2)
    with pytest.raises(InputError, match="one process only"):
        graph.check(config, 2)
    with pytest.raises(InputError, match="--state document"):
        graph.check(config.replace(backend="torch", state="document"), 1)
    graph.check(config.replace(state="document"), 1)


def test_a_run_that_was_recorded_goes_on_without_on_a_cpu(tmp_path: Path, corpus: Path, make_config: Make) -> None:
    training = launch.new_training(make_config(corpus, epochs=1), tmp_path / "run")
    training.lock.release()
    settings = tmp_path / "run" / "config.toml"
    settings.write_text(settings.read_text().replace("graph = false", "graph = true"))
    with pytest.raises(InputError, match="--graph is for a GPU"):
        launch.resume(tmp_path / "run")
    resumed = launch.resume(tmp_path / "run", device="cpu")
    assert not resumed.config.machine.graph
    resumed.run(quiet=True)
