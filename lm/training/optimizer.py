"""The optimizer, and its state as tensors and JSON."""

from typing import Any

import torch
from torch import Tensor, nn

from recurrent_lm.lm.config import TrainingConfig


def make(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimizer that the settings name, SGD, Adam or AdamW, over all parameters."""
    settings: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[config.optimizer](model.parameters(), fused=True, **settings)


def tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """{"parameter.name": tensor} of the optimizer's state."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": value for i, entry in state.items() for name, value in entry.items() if value is not None}


def restore(optimizer: torch.optim.Optimizer, saved: dict[str, Tensor]) -> None:
    """The inverse of ``tensors``, for a new optimizer with the same settings."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in saved.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def next_rate(config: TrainingConfig, rate: float, epoch: int, improved: bool) -> float:
    """The learning rate after ``epoch`` (from 1).

    ``plateau`` divides it when the validation loss did not improve; ``decay`` divides it after each epoch from
    ``decay_after`` on, so that with 4 the fifth epoch is the first at a lower rate (Zaremba et al. 2014).

    Args:
        config: the schedule.
        rate: the rate of this epoch.
        epoch: its number, from 1.
        improved: whether the validation loss did.
    """
    if config.schedule == "plateau" and not improved:
        return rate / config.decay_factor
    if config.schedule == "decay" and epoch >= config.decay_after:
        return rate / config.decay_factor
    return rate
