"""The choice of a training's precision: a trial that changes nothing, and backends that have float32 only."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recurrent_lm.lm import resources
from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.config import BatchConfig, MachineConfig, ModelConfig, RunConfig

SMALL = RunConfig(
    model=ModelConfig(hidden_size=64, layers=2),
    batches=BatchConfig(rows=2),
    machine=MachineConfig(device="cpu", backend="torch", precision="auto"),
)


@pytest.mark.parametrize(
    "rounds, gain",
    [
        ([(2.0, 1.0)], 2.0),
        ([(2.0, 1.0)] * 4 + [(2.0, 9.0)], 2.0),  # one round of bfloat16 was disturbed
        ([(1.0, 1.0)] * 3 + [(9.0, 1.0)] * 2, 1.0),  # two rounds of float32 were
        ([(9.0, 1.0)] * 4 + [(1.0, 1.0)], 1.0),  # all but one were: the shortest times are right
        ([(2.0, 1.0)] * 3 + [(2.0, 0.1)] * 2, 2.0),  # single times too short to be true: the median is right
        ([(1.0, 2.0)] * 3, 0.5),
    ],
)
def test_the_gain_is_the_more_cautious_of_two_estimates(rounds: list[tuple[float, float]], gain: float) -> None:
    assert resources.bfloat16_gain(rounds) == gain


@pytest.mark.parametrize("truth, rounds", [(0.6, 5), (0.8, 5), (0.9, 11)])
def test_noise_does_not_choose_a_slower_bfloat16(truth: float, rounds: int) -> None:
    """Half of the times are those of a busy machine, up to several times as long as alone."""
    assert _chosen(truth, rounds) <= 0.01


def test_a_gain_of_two_is_seen_through_noise() -> None:
    assert _chosen(2.0, 5) >= 0.9


def _chosen(truth: float, rounds: int, trials: int = 1000) -> float:
    """The share of trials that choose bfloat16 if it is ``truth`` times as fast."""
    random = np.random.default_rng(0)
    busy = random.random((trials, rounds, 2)) < 0.5
    times = (1 + busy * random.exponential(1.0, busy.shape)) * [truth, 1.0]
    return float(np.mean([resources.bfloat16_gain([tuple(r) for r in one]) >= resources.PAYS for one in times]))


@pytest.mark.parametrize("bfloat16, precision", [(1.0, "float32"), (0.9, "float32"), (0.8, "bf16")])
def test_bfloat16_is_chosen_by_a_margin(monkeypatch: pytest.MonkeyPatch, bfloat16: float, precision: str) -> None:
    monkeypatch.setattr(resources, "trial", lambda *_: [(1.0, bfloat16)] * 5)
    config, why = resources.with_precision(SMALL, "", 50)
    assert config == replace(SMALL, machine=replace(SMALL.machine, precision=precision))
    assert "trial" in why


def test_there_is_no_trial_of_a_precision_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "trial", None)
    asked = replace(SMALL, machine=replace(SMALL.machine, precision="bf16"))
    assert resources.with_precision(asked, "as asked", 50) == (asked, "as asked")


@pytest.mark.parametrize("seconds, most", [(0.0, 5), (60.0, 7)])
def test_precisions_take_turns_in_going_first(monkeypatch: pytest.MonkeyPatch, seconds: float, most: int) -> None:
    """For at least five rounds, however slow the machine is."""
    called: list[bool] = []
    monkeypatch.setattr(resources, "_few_steps", lambda *_: called.append)
    monkeypatch.setattr(resources, "ROUNDS", (5, 7))
    monkeypatch.setattr(resources, "SECONDS", seconds)
    assert len(resources.trial(SMALL, 50)) == most
    rounds = [called[i : i + 2] for i in range(2, len(called), 2)]
    assert rounds == [[True, False] if i % 2 == 0 else [False, True] for i in range(most)]


@pytest.mark.parametrize("variable", ["eager", "nonsense"])
def test_the_trial_is_of_the_backend_that_was_asked_for(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """The environment's choice is for calls that leave the backend open."""
    monkeypatch.setenv("KERNELS_BACKEND", variable)
    monkeypatch.setattr(resources, "SECONDS", 0.0)
    used: set[object] = set()
    step = torch.nn.Module.__call__

    def spied(module: torch.nn.Module, *inputs: object, **named: object) -> object:
        used.add(getattr(module, "backend", "torch"))
        return step(module, *inputs, **named)

    monkeypatch.setattr(torch.nn.Module, "__call__", spied)
    assert all(a > 0 and b > 0 for a, b in resources.trial(SMALL, 50))
    assert used == {"torch"}


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn-tanh", "mingru"])
def test_the_trial_leaves_random_numbers_and_threads_as_they_were(monkeypatch: pytest.MonkeyPatch, cell: str) -> None:
    monkeypatch.setattr(resources, "SECONDS", 0.0)
    threads, random = torch.get_num_threads(), torch.get_rng_state()
    assert len(resources.trial(replace(SMALL, model=replace(SMALL.model, cell=cell)), 50)) == 5
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("backend", ["eager", "triton"])
def test_a_backend_without_bfloat16_trains_in_float32(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """On a CPU Triton runs in its interpreter, whose bfloat16 is wrong."""
    monkeypatch.setattr(resources.kernels, "choose_backend", lambda *_: backend)
    assert resources.settle(MachineConfig(device="cpu", backend=backend))[0].precision == "float32"
    with pytest.raises(InputError, match="--precision bf16"):
        resources.settle(MachineConfig(device="cpu", backend=backend, precision="bf16"))
