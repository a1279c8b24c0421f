"""AR and TAR: by hand in float64, their gradient, and what a training minimises and reports with them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from recurrent_lm.lm.config import ModelConfig, RunConfig
from recurrent_lm.lm.model import LanguageModel
from recurrent_lm.lm.training.step import Step, activation_penalty

Fit = Callable[..., Any]
RAW = torch.tensor([[[1.0, 2.0]], [[3.0, -1.0]], [[3.0, 0.0]]], dtype=torch.float64)  # [n = 3, k = 1, h = 2]
DROPPED = torch.tensor([[[2.0, 0.0]], [[6.0, 0.0]], [[0.0, 4.0]]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("ar", "tar", "expected"),
    [
        (2.0, 0.0, 2 * (4 + 36 + 16) / 6),
        (0.0, 3.0, 3 * (4 + 9 + 0 + 1) / 4),
        (2.0, 3.0, 2 * 56 / 6 + 3 * 14 / 4),
        (0.0, 0.0, 0.0),
    ],
)
def test_by_hand(ar: float, tar: float, expected: float) -> None:
    assert float(activation_penalty(RAW, DROPPED, ar, tar)) == pytest.approx(expected, rel=1e-15)


def test_one_step_has_no_changes() -> None:
    assert float(activation_penalty(RAW[:1], DROPPED[:1], 2.0, 3.0)) == 2 * 4 / 2


def test_bfloat16_is_summed_in_float32() -> None:
    penalty = activation_penalty(RAW.bfloat16(), DROPPED.bfloat16(), 2.0, 3.0)
    assert penalty.dtype == torch.float32
    assert float(penalty) == pytest.approx(2 * 56 / 6 + 3 * 14 / 4, rel=1e-6)


def test_the_gradient() -> None:
    raw, dropped = RAW.clone().requires_grad_(), DROPPED.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: activation_penalty(a, b, 2.0, 3.0), (raw, dropped))


@pytest.mark.parametrize("cell", ["lstm", "rnn-tanh"])
def test_a_step_minimises_loss_and_penalty_and_reports_the_loss(cell: str) -> None:
    """With a step of SGD the change of the weights is -lr times the gradient of both, here of a second computation in torch."""
    torch.manual_seed(0)
    config = RunConfig(model=ModelConfig(cell=cell, hidden_size=4, embedding_size=3, layers=2, dropout=0.3))
    config = config.replace(optimizer="sgd", lr=0.1, clip="none", ar=2.0, tar=1.5, precision="float32", device="cpu")
    model = LanguageModel(6, config.model).double().train()
    inputs, targets = torch.randint(6, (2, 5)), torch.randint(6, (2, 5))
    before = [p.detach().clone() for p in model.parameters()]

    torch.manual_seed(1)  # the same dropout masks
    outputs: list[torch.Tensor] = []
    hidden, _ = model(inputs, model.zero_state(2), None, outputs)
    raw, dropped = outputs
    assert raw.shape == dropped.shape == (5, 2, 4)
    own = F.cross_entropy(model.logits(hidden).flatten(0, 1), targets.t().flatten())
    penalty = 2.0 * dropped.pow(2).mean() + 1.5 * (raw[1:] - raw[:-1]).pow(2).mean()
    gradients = torch.autograd.grad(own + penalty, list(model.parameters()))

    torch.manual_seed(1)
    figures, _ = Step(model, config)(inputs, targets, None, model.zero_state(2), 0.1, 0)
    assert float(figures.loss) == pytest.approx(float(own.detach()), rel=1e-12)
    for p, old, g in zip(model.parameters(), before, gradients, strict=True):
        torch.testing.assert_close(p.detach(), old - 0.1 * g, rtol=1e-9, atol=1e-12)


def test_without_them_a_training_is_bit_for_bit_what_it_was(tmp_path: Path, corpus: Path, fit: Fit) -> None:
    """A run with weights of 0 never asks for the outputs, and one with a weight is another."""
    how = {"max_steps": 6, "dropout": 0.3, "lr": 0.02}
    plain, off, on = (
        fit(tmp_path / name, corpus, **how, **more) for name, more in (("a", {}), ("b", {"ar": 0.0}), ("c", {"ar": 2.0}))
    )
    steps = [(run.path / "steps.jsonl").read_bytes() for run in (plain, off, on)]
    assert steps[0] == steps[1] != steps[2]
