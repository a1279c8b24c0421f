"""Scores against a sum of log-probabilities in float64, token by token, by the eager twin."""

import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recurrent_lm import kernels
from recurrent_lm.lm.config import CELLS, ModelConfig
from recurrent_lm.lm.model import LanguageModel
from recurrent_lm.lm.scoring.evaluate import evaluate, token_losses
from recurrent_lm.lm.text.batches import Stream
from recurrent_lm.lm.text.tokens import EOS

evaluate_module: Any = importlib.import_module("recurrent_lm.lm.scoring.evaluate")
V = 9


def build(cell: str = "lstm", **settings: Any) -> LanguageModel:
    torch.manual_seed(0)
    drop = 0.0 if cell in kernels.LINEAR_CELLS else 0.3  # without W_h there is nothing to drop
    config = ModelConfig(cell=cell, **{"hidden_size": 6, "dropout": 0.5, "weight_drop": drop, "init_width": 0.8, **settings})
    return LanguageModel(V, config).double()


def stream(length: int = 23, size: int = 40, spelling: float = 0.0) -> Stream:
    ids = np.random.default_rng(1).integers(0, V, length).astype(np.int32)
    return Stream(ids, size, spelling)


@torch.no_grad()
def nats_by_hand(model: LanguageModel, ids: list[int], first: int = EOS, resets: bool = False) -> float:
    """-sum log P(x(t) | x(1) .. x(t-1)), one step of the eager twin after another."""
    cell, h = model.config.cell, model.config.hidden_size
    zero = tuple(torch.zeros(1, h, dtype=torch.double) for _ in range(kernels.EVERY_CELL[cell].states))
    state: list[tuple[Tensor, ...]] = [zero for _ in model.layers]
    total, before = 0.0, first
    for token in ids:
        if resets and before == EOS:
            state = [zero for _ in model.layers]
        x = model.embedding.weight[before].unsqueeze(0)
        for number, layer in enumerate(model.layers):
            z = x @ layer.weight_ih_l0.T + layer.bias_ih_l0
            of_state = (getattr(layer, f"{kind}_hh_l0", None) for kind in ("weight", "bias"))
            state[number] = kernels.step(cell, z, state[number], *of_state)
            x = state[number][0]
        if model.projection is not None:
            x = x @ model.projection.weight.T
        scores = (x @ model.decoder.weight.T + model.decoder.bias)[0]
        exponentials = torch.exp(scores - scores.max())
        total -= math.log(float(exponentials[token] / exponentials.sum()))
        before = token
    return total


@pytest.mark.parametrize("backend", ["eager", "torch"])
@pytest.mark.parametrize("settings", [{}, {"layers": 2, "embedding_size": 4}, {"tie": False}], ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_one_row_is_the_sum_over_all_tokens(cell: str, settings: dict[str, Any], backend: str) -> None:
    model, text = build(cell, **settings), stream()
    score = evaluate(model, text, backend=backend)
    expected = nats_by_hand(model, text.ids.tolist())
    assert score.tokens == 23
    assert score.loss == pytest.approx(expected / 23, rel=1e-12)
    assert score.perplexity == pytest.approx(math.exp(expected / 23), rel=1e-11)
    assert score.bits_per_byte == pytest.approx(expected / math.log(2) / 40, rel=1e-12)


def test_spelling_counts_in_bits_per_byte_only() -> None:
    model = build()
    free, spelled = evaluate(model, stream()), evaluate(model, stream(spelling=10.0))
    assert spelled.loss == free.loss
    assert spelled.bits_per_byte == pytest.approx(free.bits_per_byte + 10 / math.log(2) / 40, rel=1e-12)


def test_a_document_end_sets_the_state_to_zero_if_asked() -> None:
    model, text = build(), stream(60)
    assert (text.ids == EOS).sum() > 2
    with_resets = evaluate(model, text, resets=True)
    assert with_resets.loss == pytest.approx(nats_by_hand(model, text.ids.tolist(), resets=True) / 60, rel=1e-12)
    assert with_resets.loss != pytest.approx(evaluate(model, text).loss, rel=1e-6)


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 22, 23, 24, 50])
def test_more_rows_begin_from_zero_behind_the_token_before_and_miss_none(rows: int) -> None:
    model, text = build("gru"), stream()
    ids = text.ids.tolist()
    length = -(-len(ids) // rows)
    expected, counted = 0.0, 0
    for begin in range(0, len(ids), length):
        part = ids[begin : begin + length]
        expected += nats_by_hand(model, part, first=ids[begin - 1] if begin else EOS)
        counted += len(part)
    assert counted == 23
    score = evaluate(model, text, rows=rows)
    assert score.loss == pytest.approx(expected / 23, rel=1e-12)
    assert score.tokens == 23


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("rows", [1, 4])
def test_the_window_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch, rows: int, resets: bool) -> None:
    model, text = build("lstm", layers=2), stream(61)
    scores = []
    for window in (1, 3, 16, 61, 1000):
        monkeypatch.setattr(evaluate_module, "WINDOW", window)
        scores.append(evaluate(model, text, rows=rows, resets=resets).loss)
    assert scores == pytest.approx([scores[0]] * 5, rel=1e-12)


def test_many_rows_are_read_in_small_windows_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    model, text = build("lstm"), stream(61)
    expected = token_losses(model, text.ids, rows=30, warmup=7)
    monkeypatch.setattr(evaluate_module, "AT_ONCE", 90)
    widest = 0

    def look(module: Any, args: Any) -> None:
        nonlocal widest
        widest = max(widest, args[0].numel())

    model.register_forward_pre_hook(look)
    assert token_losses(model, text.ids, rows=30, warmup=7) == pytest.approx(expected, rel=1e-12)
    assert widest <= 90


def test_every_token_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_module, "WINDOW", 10)
    model, text = build(), stream(35)
    read: list[int] = []
    model.register_forward_pre_hook(lambda m, args: read.extend(args[0].flatten().tolist()))
    evaluate(model, text)
    assert read == [EOS, *text.ids[:-1].tolist()]


def test_a_single_token_can_be_scored() -> None:
    model, text = build(), stream(1)
    assert evaluate(model, text).loss == pytest.approx(nats_by_hand(model, text.ids.tolist()), rel=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_no_regulariser_acts_and_the_mode_is_given_back(training: bool) -> None:
    model = build(embedding_dropout=0.3).train(training)
    random_state = torch.get_rng_state()
    first, second = (evaluate(model, stream()) for _ in range(2))
    assert first == second
    assert model.training is training
    assert torch.equal(torch.get_rng_state(), random_state), "no random number is drawn"
    assert all(p.grad is None for p in model.parameters())


def test_someone_may_look_in_between_and_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_module, "WINDOW", 10)
    calls = []

    def stop() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        evaluate(build(), stream(100), between=stop)
    assert len(calls) == 3


def test_a_hopeless_model_has_an_infinite_perplexity_and_no_error() -> None:
    model = build(tie=False, layers=1)
    torch.nn.init.zeros_(model.decoder.weight)
    model.decoder.bias.data[:] = torch.tensor([-2000.0] * (V - 1) + [0.0])
    score = evaluate(model, Stream(np.zeros(5, dtype=np.int32), 5, 0.0))
    assert score.loss == pytest.approx(2000.0)
    assert score.perplexity == math.inf


def test_the_score_of_a_run_is_that_of_its_model(trained: Path) -> None:
    import json

    from recurrent_lm.lm import load, prepare

    run = load(trained, device="cpu")
    data = prepare(run.config, run.tokenizer)
    result = json.loads((trained / "result.json").read_text())
    model = run.model.double()
    for split in ("valid", "test"):
        text = getattr(data, split)
        expected = nats_by_hand(model, text.ids.tolist())
        assert result[split]["loss"] == pytest.approx(expected / len(text.ids), rel=1e-5)
        assert result[split]["bits_per_byte"] == pytest.approx(expected / math.log(2) / text.bytes, rel=1e-5)


@pytest.mark.parametrize("rows", [2, 3, 5, 7])
@pytest.mark.parametrize("resets", [False, True])
def test_a_warm_up_of_everything_equals_one_row(rows: int, resets: bool) -> None:
    model, text = build("lstm", layers=2), stream(61)
    alone = token_losses(model, text.ids, resets=resets)
    for warmup in (61, 10**12):
        assert token_losses(model, text.ids, rows=rows, warmup=warmup, resets=resets) == pytest.approx(alone, rel=1e-10)
    assert token_losses(model, text.ids, rows=rows, resets=resets) != pytest.approx(alone, rel=1e-6)


@pytest.mark.parametrize("window", [4, 7, 1000])
@pytest.mark.parametrize("warmup", [1, 5, 9, 30])
def test_each_row_knows_the_tokens_of_its_warm_up_and_no_more(
    monkeypatch: pytest.MonkeyPatch, warmup: int, window: int
) -> None:
    monkeypatch.setattr(evaluate_module, "WINDOW", window)
    model, text = build("gru"), stream(40)
    ids, length = text.ids.tolist(), 8
    losses = token_losses(model, text.ids, rows=5, warmup=warmup)
    for begin in range(0, 40, length):
        start = max(begin - warmup, 0)
        first = ids[start - 1] if start else EOS
        part, before = ids[start : begin + length], ids[start:begin]
        expected = nats_by_hand(model, part, first) - nats_by_hand(model, before, first)
        assert losses[begin : begin + length].sum() == pytest.approx(expected, rel=1e-9)


def test_the_losses_of_single_tokens_are_their_own() -> None:
    model, text = build(), stream()
    losses = token_losses(model, text.ids)
    for t in (0, 1, 9, 22):
        head = text.ids[: t + 1].tolist()
        assert losses[t] == pytest.approx(nats_by_hand(model, head) - nats_by_hand(model, head[:-1]), rel=1e-9)
