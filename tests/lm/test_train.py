"""Training against a reference written with torch.nn, F.cross_entropy and torch.optim; its schedule, ends and records."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lm import checkpoint, runs
from lm.config import from_toml
from lm.data import prepare
from lm.errors import Diverged, InputError
from lm.evaluate import evaluate
from lm.launch import new_training
from lm.model import flatten
from lm.tokens import EOS

Log = Callable[[Path], list[dict[str, Any]]]
Fit = Callable[..., Any]
Make = Callable[..., Any]


# -- what is learnt -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn-tanh"])
def test_a_text_without_surprise_is_learnt_to_almost_no_loss(tmp_path: Path, fit: Fit, read_log: Log, cell: str) -> None:
    (tmp_path / "abc.txt").write_text("abc" * 700)
    fit(tmp_path / "run", tmp_path / "abc.txt", cell=cell, hidden_size=16, lr=0.03, epochs=5)
    epochs = read_log(tmp_path / "run" / "epochs.jsonl")
    assert epochs[0]["train_loss"] > 0.3
    assert epochs[-1]["valid_loss"] < 0.05


def test_a_text_of_coin_throws_is_learnt_to_its_entropy_and_no_further(tmp_path: Path, fit: Fit, read_log: Log) -> None:
    draw = torch.Generator().manual_seed(0)
    throws = torch.randint(0, 2, (6000,), generator=draw).tolist()
    (tmp_path / "coins.txt").write_text("".join("ab"[t] for t in throws))
    fit(tmp_path / "run", tmp_path / "coins.txt", lr=0.01, epochs=3, rows=8)
    last = read_log(tmp_path / "run" / "epochs.jsonl")[-1]
    assert last["valid_loss"] == pytest.approx(math.log(2), abs=0.02)
    assert last["valid_bits_per_byte"] == pytest.approx(1.0, abs=0.03)


# -- a reference ----------------------------------------------------------------------------------------------------


class Reference:
    """The same training from the lecture's formulas, one time step after another, with torch.nn's cells and torch.optim."""

    def __init__(self, training: Any) -> None:
        config = training.config
        weights = {k: v.clone() for k, v in training.model.state_dict().items()}
        model = config.model
        self.config, self.ids = config, torch.from_numpy(training.data.train.ids).long()
        self.embedding = nn.Parameter(weights["embedding.weight"])
        self.decoder = self.embedding if model.tie else nn.Parameter(weights["decoder.weight"])
        self.bias = nn.Parameter(weights["decoder.bias"])
        self.projection = nn.Parameter(weights["projection.weight"]) if "projection.weight" in weights else None
        self.cells: list[Any] = []
        for number in range(model.layers):
            size = model.d if number == 0 else model.hidden_size
            kind = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}.get(model.cell, nn.RNNCell)
            extra = {} if kind is not nn.RNNCell else {"nonlinearity": model.cell.removeprefix("rnn-")}
            cell = kind(size, model.hidden_size, **extra)
            cell.load_state_dict(
                {n: weights[f"layers.{number}.{n}_l0"] for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
            )
            self.cells.append(cell)
        single = [self.embedding, self.bias, *([] if model.tie else [self.decoder])]
        single += [] if self.projection is None else [self.projection]
        self.parameters = single + [p for cell in self.cells for p in cell.parameters()]
        self.optimizer = {
            "sgd": lambda p, **how: torch.optim.SGD(p, **how),
            "adam": lambda p, **how: torch.optim.Adam(p, **how),
            "adamw": lambda p, **how: torch.optim.AdamW(p, **how),
        }[config.training.optimizer](self.parameters, lr=config.training.lr, weight_decay=config.training.weight_decay)
        self.pair = model.cell == "lstm"

    def zero(self) -> list[Any]:
        z = torch.zeros(self.config.batches.rows, self.config.model.hidden_size)
        return [(z, z) if self.pair else z for _ in self.cells]

    def passes(self) -> list[tuple[Tensor, Tensor]]:
        """Row j of pass s: x(j tau + s L + 1) .. x(j tau + (s + 1) L) and the tokens after them."""
        k, length, total = self.config.batches.rows, self.config.batches.bptt, len(self.ids)
        tau = total // k
        found = []
        for begin in range(0, tau, length):
            places = torch.tensor([[j * tau + t for t in range(begin, min(begin + length, tau))] for j in range(k)])
            after = (places + 1).clamp(max=total - 1)
            targets = torch.where(places + 1 < total, self.ids[after], torch.tensor(-100))
            found.append((self.ids[places], targets))
        return found

    def run(self, steps: int) -> list[dict[str, float]]:
        """The losses and gradient norms of the first updates."""
        records: list[dict[str, float]] = []
        mode = self.config.batches.state
        clip, _, threshold = self.config.training.clip.partition(":")
        state = self.zero()
        while True:
            if mode != "never":
                state = self.zero()
            for inputs, targets in self.passes():
                if len(records) == steps:
                    return records
                state = [tuple(s.detach() for s in p) if self.pair else p.detach() for p in state]
                losses = []
                for t in range(inputs.shape[1]):
                    if mode == "document":
                        keep = (inputs[:, t] != EOS).float().unsqueeze(1)
                        state = [tuple(s * keep for s in p) if self.pair else p * keep for p in state]
                    z = self.embedding[inputs[:, t]]
                    for number, cell in enumerate(self.cells):
                        state[number] = cell(z, state[number])
                        z = state[number][0] if self.pair else state[number]
                    z = z if self.projection is None else z @ self.projection.T
                    logits = z @ self.decoder.T + self.bias
                    losses.append(F.cross_entropy(logits, targets[:, t], ignore_index=-100, reduction="none"))
                loss = torch.stack(losses).sum() / (targets >= 0).sum()
                self.optimizer.zero_grad()
                loss.backward()
                norm = math.sqrt(sum(float(p.grad.double().square().sum()) for p in self.parameters))
                if clip == "norm" and norm >= float(threshold):
                    for p in self.parameters:
                        p.grad *= float(threshold) / norm
                elif clip == "value":
                    nn.utils.clip_grad_value_(self.parameters, float(threshold))
                self.optimizer.step()
                records.append({"loss": loss.item(), "grad_norm": norm})


def compare(training: Any, log: Log, steps: int, rel: float = 1e-5) -> list[dict[str, Any]]:
    reference = Reference(training)
    training.run(quiet=True)
    found = log(training.path / "steps.jsonl")
    expected = reference.run(steps)
    assert len(found) == steps
    assert [r["loss"] for r in found] == pytest.approx([r["loss"] for r in expected], rel=rel)
    assert [r["grad_norm"] for r in found] == pytest.approx([r["grad_norm"] for r in expected], rel=30 * rel)
    last = checkpoint.load(training.path, "last").groups["model"]
    torch.testing.assert_close(last["embedding.weight"], reference.embedding.detach(), rtol=1e-3, atol=1e-5)
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {"cell": "lstm", "optimizer": "sgd", "lr": 2.0, "clip": "norm:0.25", "layers": 2, "embedding_size": 5},
        {"cell": "lstm", "optimizer": "sgd", "lr": 5.0, "clip": "none", "weight_decay": 0.01},
        {"cell": "gru", "optimizer": "adam", "lr": 0.01, "clip": "value:0.01", "tie": False, "embedding_size": 5},
        {"cell": "gru", "optimizer": "adamw", "lr": 0.01, "clip": "norm:0.3", "weight_decay": 0.1, "layers": 2},
        {"cell": "rnn-tanh", "optimizer": "sgd", "lr": 1.0, "clip": "norm:0.5", "backend": "eager", "init_width": 0.3},
        {"cell": "rnn-relu", "optimizer": "adam", "lr": 0.005, "clip": "norm:1", "tie": False, "weight_decay": 0.05},
    ],
    ids=lambda s: "-".join(str(v) for v in s.values()),
)
def test_losses_and_norms_are_those_of_a_plain_torch_loop(
    tmp_path: Path, corpus: Path, make_config: Make, read_log: Log, settings: dict[str, Any]
) -> None:
    config = make_config(corpus, max_steps=12, **settings)
    found = compare(new_training(config, tmp_path / "run"), read_log, 12)
    assert [r["step"] for r in found] == list(range(1, 13))
    assert len({r["loss"] for r in found}) == 12


@pytest.fixture
def lines(tmp_path: Path, make_text: Callable[..., str]) -> Path:
    """Many short documents, so that an <eos> stands in most passes."""
    path = tmp_path / "lines.txt"
    path.write_text(make_text(560).replace(". ", ".\n").replace("! ", "!\n"))
    return path


@pytest.mark.parametrize("cell", ["lstm", "rnn-tanh"])
@pytest.mark.parametrize("mode", ["epoch", "document", "never"])
def test_the_state_is_carried_and_set_to_zero_as_asked(
    tmp_path: Path, lines: Path, make_config: Make, read_log: Log, mode: str, cell: str
) -> None:
    # tau = 112 and L = 35: four passes an epoch, the last one short; three epochs.
    config = make_config(
        lines, cell=cell, state=mode, bptt=35, epochs=3, optimizer="sgd", lr=1.0, eos_at_newline=True, init_width=0.5, rows=4
    )
    training = new_training(config, tmp_path / "run")
    assert len(training.batches) == 4
    found = compare(training, read_log, 12, rel=2e-5)
    assert [r["epoch"] for r in found] == [1] * 4 + [2] * 4 + [3] * 4


def test_the_three_modes_of_the_state_differ_where_they_should(tmp_path: Path, lines: Path, fit: Fit, read_log: Log) -> None:
    losses = {}
    for mode in ("epoch", "document", "never"):
        how = {"bptt": 20, "optimizer": "sgd", "lr": 0.5, "eos_at_newline": True, "init_width": 0.5}
        training = fit(tmp_path / mode, lines, state=mode, **how)
        losses[mode] = [r["loss"] for r in read_log(tmp_path / mode / "steps.jsonl")]
        passes = len(training.batches)
    assert losses["epoch"][:passes] == losses["never"][:passes], "within the first epoch they are the same"
    assert losses["epoch"][passes] != losses["never"][passes], "then one begins from zero again"
    assert losses["epoch"][1] != losses["document"][1]


def test_gradients_end_where_the_pass_begins_though_its_state_is_used(
    tmp_path: Path, make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "abcdefgh" * 5 + "ijklmnop" * 5
    (tmp_path / "t.txt").write_text(text * 6)
    config = make_config(tmp_path / "t.txt", tie=False, rows=2, bptt=20, optimizer="sgd", lr=1.0)
    training = new_training(config, tmp_path / "run")
    first, second, third = (training.batches[s] for s in range(3))
    assert not set(first.inputs[0]) & set(third.inputs[0])
    training.update(first)
    training.update(second)
    before = [s.clone() for s in flatten(training.state)]
    weights = {k: v.clone() for k, v in training.model.state_dict().items()}
    loss, _, _ = training.update(third)
    read_now = set(third.inputs.flatten().tolist())
    gradient = training.model.embedding.weight.grad
    touched = set(gradient.abs().sum(dim=1).nonzero().flatten().tolist())
    assert touched == read_now, "an embedding that only the passes before read gets no gradient"
    fresh = new_training(config, tmp_path / "fresh")
    fresh.model.load_state_dict(weights)
    assert fresh.update(third)[0] != pytest.approx(loss, rel=1e-6), "from h = 0 the loss is another"
    fresh.model.load_state_dict(weights)
    fresh.state = before[0:1]
    assert fresh.update(third)[0] == loss


def test_what_is_logged_of_a_step(tmp_path: Path, corpus: Path, fit: Fit, read_log: Log) -> None:
    training = fit(tmp_path / "run", corpus, clip="norm:0.25", optimizer="sgd", lr=1.0, rows=7, bptt=30)
    steps = read_log(tmp_path / "run" / "steps.jsonl")
    assert {r["clipped"] for r in steps} == {True, False}
    assert all(r["clipped"] == (r["grad_norm"] > 0.25) for r in steps), "the norm is that before clipping"
    epochs = read_log(tmp_path / "run" / "epochs.jsonl")
    total = len(training.data.train.ids)
    assert total % 7, "some tokens do not fill the rows"
    for epoch in epochs:
        records = [r for r in steps if r["epoch"] == epoch["epoch"]]
        assert epoch["trimmed_tokens"] == total % 7
        assert sum(r["tokens"] for r in records) == total - total % 7
        mean = sum(r["loss"] * r["tokens"] for r in records) / sum(r["tokens"] for r in records)
        assert epoch["train_loss"] == pytest.approx(mean, rel=1e-12)
        assert epoch["step"] == records[-1]["step"]
        assert epoch["valid_perplexity"] == pytest.approx(math.exp(epoch["valid_loss"]))


def test_a_whole_multiple_of_rows_trims_nothing_and_counts_one_target_less(tmp_path: Path, fit: Fit, read_log: Log) -> None:
    (tmp_path / "t.txt").write_text("ab" * 500)
    training = fit(tmp_path / "run", tmp_path / "t.txt", epochs=1)
    assert len(training.data.train.ids) == 800
    assert sum(r["tokens"] for r in read_log(tmp_path / "run" / "steps.jsonl")) == 799
    assert read_log(tmp_path / "run" / "epochs.jsonl")[0]["trimmed_tokens"] == 0


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
    if (Path(runs.__file__).parent.parent / ".git").exists():
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


# -- from another run -----------------------------------------------------------------------------------------------


@pytest.fixture
def other_corpus(tmp_path: Path, make_text: Callable[..., str]) -> Path:
    path = tmp_path / "other.txt"
    path.write_text(make_text(1500, seed=7) + "ZZ Ÿ")
    return path


def test_init_from_takes_over_tokens_model_and_best_weights(
    tmp_path: Path, trained: Path, other_corpus: Path, lm_command: Any, read_log: Log
) -> None:
    run = tmp_path / "run"
    how = ["--epochs", 1, "--lr", STILL, "--optimizer", "sgd", "--dropout", 0, "--threads", 1, "--precision", "float32"]
    code, _, err = lm_command("train", other_corpus, "--init-from", trained, "--run", run, "--quiet", *how)
    assert code == 0, err
    assert (run / "tokens.json").read_bytes() == (trained / "tokens.json").read_bytes()
    source, target = (runs.load(path, device="cpu") for path in (trained, run))
    shape = ("cell", "hidden_size", "embedding_size", "layers", "tie")
    assert [getattr(source.config.model, n) for n in shape] == [getattr(target.config.model, n) for n in shape]
    for name, tensor in source.model.state_dict().items():
        assert torch.equal(target.model.state_dict()[name], tensor), name
    assert source.meta["step"] == checkpoint.load(trained, "best").meta["step"]
    # Its first loss is that of the other run's best model on this text.
    data = prepare(target.config, source.tokenizer)
    expected = evaluate(source.model, data.valid).loss
    assert read_log(run / "epochs.jsonl")[0]["valid_loss"] == pytest.approx(expected, rel=1e-6)
    assert read_log(run / "steps.jsonl")[0]["loss"] < math.log(source.tokenizer.size) - 0.5
    assert target.config.training.init_from == str(trained)


@pytest.mark.parametrize(
    "contradiction",
    [["--cell", "gru"], ["--hidden-size", "9"], ["--tokens", "word"], ["--layers", "2"], ["--no-tie"], ["--min-count", "5"]],
    ids=" ".join,
)
def test_init_from_refuses_what_contradicts_the_other_run(
    tmp_path: Path, trained: Path, corpus: Path, refused: Any, contradiction: list[str]
) -> None:
    message = refused("train", corpus, "--init-from", trained, "--run", tmp_path / "run", *contradiction)
    assert contradiction[0].removeprefix("--no-").strip("-").split("-")[0].replace("tokens", "kind") in message
    assert not (tmp_path / "run").exists()


def test_init_from_accepts_what_agrees(tmp_path: Path, trained: Path, corpus: Path, lm_command: Any) -> None:
    how = ["--cell", "lstm", "--hidden-size", 16, "--max-steps", 1, "--weight-drop", 0.1, "--threads", 1, "--quiet"]
    code, _, err = lm_command("train", corpus, "--init-from", trained, "--run", tmp_path / "run", *how)
    assert code == 0, err


def test_init_from_nothing_is_refused(tmp_path: Path, corpus: Path, refused: Any) -> None:
    assert "there is no run" in refused("train", corpus, "--init-from", tmp_path / "none", "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()


# -- divergence -----------------------------------------------------------------------------------------------------

WILD = {"cell": "rnn-relu", "optimizer": "sgd", "lr": 1e6, "clip": "none", "epochs": 3}


def finite(run: Path) -> dict[str, Tensor]:
    weights = checkpoint.load(run, "last").groups["model"]
    assert all(bool(t.isfinite().all()) for t in weights.values())
    return weights


def test_a_divergence_is_diagnosed_and_the_last_good_checkpoint_stays(
    tmp_path: Path, corpus: Path, flags: Make, lm_command: Any, read_log: Log
) -> None:
    run = tmp_path / "run"
    code, _, err = lm_command("train", corpus, "--run", run, "--quiet", *flags(**WILD))
    assert code == 3
    assert err.count("\n") == 1
    assert "Traceback" not in err
    steps = read_log(run / "steps.jsonl")
    assert re.search(rf"at step {len(steps) + 1}\b", err), "the step that failed"
    norms = re.search(r"norms of the steps before it: ([^A-Z]*)\.", err)
    assert norms
    assert [float(n) for n in norms[1].split(", ")] == pytest.approx([r["grad_norm"] for r in steps][-8:], rel=0.01)
    assert "--lr" in err
    assert "--clip norm:1" in err
    assert all(math.isfinite(r["loss"]) and math.isfinite(r["grad_norm"]) for r in steps)
    weights = finite(run)
    code, _, err = lm_command("resume", run, "--quiet")
    assert code == 3
    assert all(torch.equal(t, finite(run)[k]) for k, t in weights.items())
    assert not (run / "result.json").exists()


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_loss_or_gradient_that_is_not_finite_moves_no_weight(
    tmp_path: Path, corpus: Path, make_config: Make, what: str, bad: float
) -> None:
    training = new_training(make_config(corpus, checkpoint_every=2, clip="norm:0.5"), tmp_path / "run")
    updates = 0

    def spoil(module: Any, args: Any, output: Any) -> Any:
        nonlocal updates
        updates += 1
        if updates < 4 or not module.training:
            return None
        hidden, state = output
        if what == "loss":
            return hidden * bad, state
        hidden.register_hook(lambda g: g * bad)
        return hidden, state

    training.model.register_forward_hook(spoil)
    with pytest.raises(Diverged, match=rf"the {what} became (inf|nan) at step 4 .*below norm:0\.5"):
        training.run(quiet=True)
    assert training.at.step == 3
    assert all(bool(p.isfinite().all()) for p in training.model.parameters())
    finite(tmp_path / "run")
    assert checkpoint.load(tmp_path / "run").meta["step"] == 2


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, corpus: Path, make_config: Make) -> None:
    # The last update of an epoch can spoil the weights without a loss that shows it.
    training = new_training(make_config(corpus, epochs=1, bptt=10_000), tmp_path / "run")
    training.optimizer.register_step_post_hook(lambda *_: training.model.decoder.bias.data.fill_(math.inf))
    with pytest.raises(Diverged):
        training.run(quiet=True)
    finite(tmp_path / "run")


def test_training_in_another_thread_works_without_signals(tmp_path: Path, corpus: Path, fit: Fit) -> None:
    from threading import Thread

    errors: list[BaseException] = []

    def work() -> None:
        try:
            fit(tmp_path / "run", corpus, max_steps=2)
        except BaseException as error:
            errors.append(error)

    thread = Thread(target=work)
    thread.start()
    thread.join()
    assert not errors
    assert (tmp_path / "run" / "result.json").exists()


def test_an_existing_run_folder_is_refused(tmp_path: Path, corpus: Path, make_config: Make) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        new_training(make_config(corpus), tmp_path / "run")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["notes"]
