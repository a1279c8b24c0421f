"""Dynamic evaluation against a plain loop of autograd and SGD."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recurrent_lm.lm.config import ModelConfig
from recurrent_lm.lm.model import LanguageModel, detach
from recurrent_lm.lm.scoring.dynamic import dynamic_losses
from recurrent_lm.lm.scoring.evaluate import token_losses
from recurrent_lm.lm.text.tokens import EOS

V = 7
IDS = np.random.default_rng(0).integers(0, V, 29).astype(np.int32)


def build(cell: str = "lstm", **settings: object) -> LanguageModel:
    torch.manual_seed(0)
    config = ModelConfig(cell=cell, **{"hidden_size": 5, "dropout": 0.5, "weight_drop": 0.5, "init_width": 3.0, **settings})
    return LanguageModel(V, config).double()


def by_hand(model: LanguageModel, lr: float, bptt: int, resets: bool) -> list[float]:
    model = copy.deepcopy(model).eval()
    state, losses, read = model.zero_state(1), [], [EOS, *IDS[:-1].tolist()]
    for begin in range(0, len(IDS), bptt):
        x = torch.tensor([read[begin : begin + bptt]])
        hidden, state = model(x, detach(state), x == EOS if resets else None)
        segment = F.cross_entropy(
            model.logits(hidden[:, 0]), torch.from_numpy(IDS[begin : begin + bptt]).long(), reduction="none"
        )
        losses += segment.tolist()
        model.zero_grad()
        segment.mean().backward()
        norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters()))
        with torch.no_grad():
            for p in model.parameters():
                p -= lr * p.grad * min(1.0, 1.0 / float(norm))
    return losses


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize(
    "cell, settings", [("lstm", {"layers": 2}), ("gru", {"embedding_size": 3}), ("rnn-tanh", {"tie": False})]
)
@pytest.mark.parametrize("bptt", [1, 4, 29])
def test_each_segment_is_scored_and_then_learnt_from(cell: str, settings: dict[str, object], bptt: int, resets: bool) -> None:
    model = build(cell, **settings)
    losses = dynamic_losses(model, IDS, lr=0.7, bptt=bptt, resets=resets)
    assert losses == pytest.approx(by_hand(model, 0.7, bptt, resets), rel=1e-9)


def test_the_clipping_takes_effect_in_this_test() -> None:
    """Otherwise the comparison above would not see it."""
    model = build()
    hidden, _ = model(torch.tensor([[EOS, *IDS[:-1].tolist()]]), model.zero_state(1))
    F.cross_entropy(model.logits(hidden[:, 0]), torch.from_numpy(IDS).long()).backward()
    assert sum(float((p.grad**2).sum()) for p in model.parameters() if p.grad is not None) > 1


def test_without_a_rate_it_is_the_static_model() -> None:
    model = build()
    assert dynamic_losses(model, IDS, lr=0.0, bptt=4) == pytest.approx(token_losses(model, IDS), rel=1e-10)


def test_the_run_s_own_model_stays_as_it_was() -> None:
    model = build().train()
    before = copy.deepcopy(model.state_dict())
    dynamic_losses(model, IDS, lr=1.0, bptt=4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert model.training


def test_a_text_that_repeats_itself_is_learnt() -> None:
    ids = np.tile(np.array([3, 5, 1], dtype=np.int32), 60)
    losses = dynamic_losses(build(), ids, lr=1.0, bptt=6)
    assert losses[-30:].mean() < 0.5 * losses[:30].mean()
