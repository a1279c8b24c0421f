"""The choice of a training's precision: a trial that changes nothing, and backends that have float32 only."""

import pytest
import torch

from recurrent_lm.lm import resources
from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.config import MachineConfig, ModelConfig


@pytest.mark.parametrize("variable", ["eager", "nonsense"])
def test_the_trial_is_of_the_backend_that_was_asked_for(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """The environment's choice is for calls that leave the backend open."""
    monkeypatch.setenv("KERNELS_BACKEND", variable)
    used: list[object] = []
    layer = resources.kernels.layer

    def spied(cell: str, *sizes: int, backend: str) -> torch.nn.Module:
        used.append(backend)
        return layer(cell, *sizes, backend=backend)

    monkeypatch.setattr(resources.kernels, "layer", spied)
    monkeypatch.setattr(resources, "TRIALS", 4)
    settled, why = resources.settle(MachineConfig(device="cpu", backend="torch"), ModelConfig(hidden_size=64), rows=2)
    assert settled.precision in ("float32", "bf16")
    assert "trial" in why
    assert used == ["torch"]


def test_the_trial_leaves_random_numbers_and_threads_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "TRIALS", 4)
    threads, random = torch.get_num_threads(), torch.get_rng_state()
    resources.bfloat16_gain("cpu", ModelConfig(hidden_size=64), 2)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("backend", ["eager", "triton"])
def test_a_backend_without_bfloat16_trains_in_float32(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """On a CPU Triton runs in its interpreter, whose bfloat16 is wrong."""
    monkeypatch.setattr(resources.kernels, "choose_backend", lambda *_: backend)
    monkeypatch.setattr(resources, "bfloat16_gain", lambda *_: 2.0)
    assert resources.settle(MachineConfig(device="cpu", backend=backend))[0].precision == "float32"
    with pytest.raises(InputError, match="--precision bf16"):
        resources.settle(MachineConfig(device="cpu", backend=backend, precision="bf16"))
