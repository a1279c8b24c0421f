"""Update rules and learning rates by hand; the optimizer's state through a checkpoint."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from recurrent_lm.lm.config import TrainingConfig
from recurrent_lm.lm.runs import checkpoint
from recurrent_lm.lm.training import optimizer

LR, DECAY = 0.1, 0.2


def one_parameter(kind: str, gradients: list[float], start: float = 2.0) -> float:
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, start)
    chosen = optimizer.make(model, TrainingConfig(optimizer=kind, lr=LR, weight_decay=DECAY))
    for gradient in gradients:
        model.weight.grad = torch.full((1, 1), gradient, dtype=torch.double)
        chosen.step()
    return model.weight.item()


def adam_by_hand(gradients: list[float], coupled: bool, w: float = 2.0) -> float:
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        if coupled:
            g += DECAY * w
        else:
            w -= LR * DECAY * w
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        w -= LR * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w


def test_sgd_is_the_lectures_step_with_an_l2_penalty() -> None:
    w = 2.0
    for g in (0.5, -1.0, 3.0):
        w -= LR * (g + DECAY * w)
    assert one_parameter("sgd", [0.5, -1.0, 3.0]) == pytest.approx(w, rel=1e-12)


def test_adam_and_adamw_are_those_of_the_papers() -> None:
    gradients = [0.5, -1.0, 3.0, 0.25]
    assert one_parameter("adam", gradients) == pytest.approx(adam_by_hand(gradients, coupled=True), rel=1e-9)
    assert one_parameter("adamw", gradients) == pytest.approx(adam_by_hand(gradients, coupled=False), rel=1e-9)


def test_a_tied_parameter_moves_once() -> None:
    model = nn.ModuleList([nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)])
    model[1].weight = model[0].weight
    nn.init.zeros_(model[0].weight)
    chosen = optimizer.make(model, TrainingConfig(optimizer="sgd", lr=1.0))
    model[0].weight.grad = torch.ones(2, 2)
    chosen.step()
    assert model[0].weight.tolist() == [[-1.0, -1.0], [-1.0, -1.0]]


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_a_restored_optimizer_goes_on_as_if_nothing_had_happened(kind: str, tmp_path: Path) -> None:
    config = TrainingConfig(optimizer=kind, lr=0.05, weight_decay=0.01)

    def build() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))

    def steps(model: nn.Module, chosen: torch.optim.Optimizer, numbers: range) -> None:
        for number in numbers:
            chosen.zero_grad()
            x = torch.randn(5, 3, generator=torch.Generator().manual_seed(number))
            model(x).square().sum().backward()
            chosen.step()

    whole = build()
    steps(whole, optimizer.make(whole, config), range(9))

    first = build()
    chosen = optimizer.make(first, config)
    steps(first, chosen, range(4))
    saved = checkpoint.Checkpoint({"model": first.state_dict(), "optimizer": optimizer.tensors(chosen)}, {"step": 4})
    checkpoint.save(tmp_path, saved)
    loaded = checkpoint.load(tmp_path)
    second = build()
    second.load_state_dict(loaded.groups["model"])
    again = optimizer.make(second, config)
    optimizer.restore(again, loaded.groups["optimizer"])
    steps(second, again, range(4, 9))
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert (len(loaded.groups["optimizer"]) > 0) == (kind != "sgd"), "adam remembers, sgd without momentum does not"


def test_restoring_before_the_first_step_is_possible() -> None:
    model = nn.Linear(2, 2)
    config = TrainingConfig(optimizer="adam")
    chosen = optimizer.make(model, config)
    optimizer.restore(chosen, optimizer.tensors(optimizer.make(model, config)))
    model(torch.ones(2)).sum().backward()
    chosen.step()
    assert model.weight.isfinite().all()


def rates(config: TrainingConfig, improved: list[bool]) -> list[float]:
    """The rate of each epoch, the first included."""
    rate, found = config.lr, [config.lr]
    for epoch, better in enumerate(improved, start=1):
        rate = optimizer.next_rate(config, rate, epoch, better)
        found.append(rate)
    return found


def test_zaremba_trains_four_epochs_at_the_full_rate_and_halves_it_from_the_fifth() -> None:
    config = TrainingConfig(lr=1.0, schedule="decay", decay_after=4, decay_factor=2.0)
    assert rates(config, [True, False, True, False, True, True]) == [1.0, 1.0, 1.0, 1.0, 0.5, 0.25, 0.125]


def test_plateau_divides_exactly_where_validation_stalls() -> None:
    config = TrainingConfig(lr=20.0, schedule="plateau", decay_factor=4.0)
    assert rates(config, [True, False, True, False, False]) == [20.0, 20.0, 5.0, 5.0, 1.25, 0.3125]


def test_constant_stays() -> None:
    config = TrainingConfig(lr=3.0, schedule="constant", decay_after=1)
    assert rates(config, [True, False, False, True]) == [3.0] * 5
