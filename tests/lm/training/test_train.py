"""Training against a reference written with torch.nn, F.cross_entropy and torch.optim; its schedule, ends and records."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurrent_lm.lm.model import flatten
from recurrent_lm.lm.runs import checkpoint
from recurrent_lm.lm.text.tokens import EOS
from recurrent_lm.lm.training.start import new_training

Log = Callable[[Path], list[dict[str, Any]]]
Fit = Callable[..., Any]
Make = Callable[..., Any]


# -- what is learnt -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn-tanh"])
def test_a_text_without_surprise_is_learnt_to_almost_no_loss(tmp_path: Path, fit: Fit, read_log: Log, cell: str) -> None:
    (tmp_path / "abc.txt").write_text("abc" * 700)
    fit(tmp_path / "run", tmp_path / "abc.txt", cell=cell, hidden_size=16, lr=0.03, epochs=5)
    epochs = read_log(tmp_path / "run" / "epochs.jsonl")
    steps = read_log(tmp_path / "run" / "steps.jsonl")
    assert steps[0]["loss"] == pytest.approx(math.log(3), abs=0.03), "at first only the three frequencies are known"
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
    training = fit(tmp_path / "run", corpus, clip="norm:0.1", optimizer="sgd", lr=1.0, rows=7, bptt=30)
    steps = read_log(tmp_path / "run" / "steps.jsonl")
    assert {r["clipped"] for r in steps} == {True, False}
    assert all(r["clipped"] == (r["grad_norm"] > 0.1) for r in steps), "the norm is that before clipping"
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
