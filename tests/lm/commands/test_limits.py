"""Values beyond all measure: each ends in one sentence, before anything is made."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from recurrent_lm.lm import resources
from recurrent_lm.lm.base import machine
from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.base.settings import flag_of
from recurrent_lm.lm.config import RunConfig
from recurrent_lm.lm.parameter_counts import parameter_table
from recurrent_lm.lm.training import start as launch

Make = Callable[..., Any]

NUMERIC = [(section, f) for section, f in RunConfig.settings() if type(f.default) in (int, float)]
HUGE = [10**7, 10**13, 10**20, 10**400, -1, -(10**400), 0, 1e300, -1e300, math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("section, f", NUMERIC, ids=[f.name for _, f in NUMERIC])
def test_no_number_passes_that_torch_or_memory_cannot_take(section: str, f: Any) -> None:
    for value in HUGE:
        try:
            kept = getattr(getattr(RunConfig().replace(**{f.name: value}), section), f.name)
        except InputError as error:
            assert str(error).startswith(f"{flag_of(f)} must be"), value
            assert len(str(error)) < 150, value
            continue
        assert type(kept) is type(f.default)
        assert abs(kept) < 2**63
        assert abs(torch.tensor(float(kept)).item()) < 1e19
    assert RunConfig().replace(**{f.name: f.default}) == RunConfig()


@pytest.mark.parametrize(
    "flag, value, bound",
    [
        ("--hidden-size", "10000000", "to 100,000"),
        ("--hidden-size", "1" + 20 * "0", "to 100,000, not 1" + 20 * "0"),
        ("--embedding-size", "10000000", "to 100,000"),
        ("--layers", "10000000", "to 100, "),
        ("--rows", "10000000000000", "to 1,000,000"),
        ("--bptt", "10000000000000", "to 1,000,000"),
        ("--valid-rows", "10000000000000", "to 10,000"),
        ("--vocab-size", "1" + 20 * "0", "to 1,000,000"),
        ("--min-count", "1" + 30 * "0", "to 1,000,000,000"),
        ("--epochs", "1" + 30 * "0", "to 1,000,000,000"),
        ("--max-steps", "1" + 30 * "0", "to 1,000,000,000"),
        ("--forget-bias", "1e300", "to 100, not 1e+300"),
        ("--lr", "1e308", "at most 1,000,000"),
        ("--weight-decay", "1e30", "to 1,000,000"),
        ("--decay-factor", "1e30", "at most 1,000,000"),
        ("--seed", "1" + 5000 * "0", "a whole number of fewer digits, not 1"),
    ],
)
def test_a_huge_value_is_a_sentence_with_the_bound(
    tmp_path: Path, corpus: Path, refused: Any, flag: str, value: str, bound: str
) -> None:
    for kind in ("word", "bpe"):
        message = refused("train", corpus, "--tokens", kind, "--run", tmp_path / "run", flag, value).replace("'", "")
        assert f"{flag} must be a" in message
        assert bound in message
        assert len(message) < 150
    assert not (tmp_path / "run").exists()
    if flag != "--vocab-size":  # lm params makes no tokenizer, and says so
        assert bound in refused("params", flag, value).replace("'", "")


def test_a_vocabulary_beyond_measure_is_refused(refused: Any, lm_command: Any) -> None:
    assert "--vocabulary must be at most 1,000,000,000" in refused("params", "--vocabulary", 10**20)
    assert "--vocabulary" in refused("params", "--vocabulary", 1)
    assert lm_command("params", "--vocabulary", 10**7)[0] == 0


def test_more_rows_than_tokens_to_validate_are_refused_before_training(
    tmp_path: Path, corpus: Path, make_config: Make, refused: Any, flags: Make
) -> None:
    message = refused("train", corpus, "--run", tmp_path / "run", *flags(valid_rows=10_000))
    count = int(message.partition("has ")[2].partition(" tokens")[0])
    assert "--valid-rows must be at most that many, not 10,000" in message
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError):
        launch.new_training(make_config(corpus, valid_rows=count + 1), tmp_path / "run")
    scores = launch.new_training(make_config(corpus, valid_rows=count, max_steps=1), tmp_path / "run").run(quiet=True)
    assert scores["valid"].tokens == count


# -- memory ---------------------------------------------------------------------------------------------------------


def needed(config: RunConfig, tokens: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """The least memory with which a configuration is let through, found by bisection."""
    low, high = 0, 10**15
    while low < high:
        middle = (low + high) // 2
        monkeypatch.setattr(machine, "memory", lambda device, middle=middle: middle)
        try:
            with resources.enough_memory(config, 1000, tokens):
                high = middle
        except InputError:
            low = middle + 1
    return low


@pytest.mark.parametrize("optimizer, copies", [("sgd", 2), ("adam", 4), ("adamw", 4)])
@pytest.mark.parametrize("cell, gates", [("rnn-tanh", 1), ("gru", 3), ("lstm", 4), ("mingru", 2)])
def test_what_a_training_needs_is_counted(
    monkeypatch: pytest.MonkeyPatch, optimizer: str, copies: int, cell: str, gates: int
) -> None:
    config = RunConfig().replace(
        optimizer=optimizer, cell=cell, hidden_size=50, embedding_size=20, layers=2, rows=4, bptt=30, device="cpu"
    )
    weights = sum(n for _, n in parameter_table(1000, config.model, tie=True).values())
    batch = 4 * 30 * (20 + 2 * (gates + 1) * 50)
    assert needed(config, 10_000, monkeypatch) == 4 * (copies * weights + batch)
    short = 4 * 10 * (20 + 2 * (gates + 1) * 50)  # rows of 10 tokens hold no batch of 30
    assert needed(config, 40, monkeypatch) == 4 * (copies * weights + short)
    assert needed(config.replace(average=0.9), 40, monkeypatch) == 4 * ((copies + 1) * weights + short), "and their average"


def test_a_model_beyond_memory_is_refused_with_figures_before_it_is_made(
    tmp_path: Path, corpus: Path, refused: Any, flags: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "memory", lambda device: 16 * 10**9)
    monkeypatch.setattr(launch, "LanguageModel", None)
    message = refused("train", corpus, "--run", tmp_path / "run", *flags(cell="lstm", hidden_size=20_000))
    assert "parameters take 51." in message
    assert "cpu has 16.0 GB; take a smaller --hidden-size" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
        RuntimeError("Storage size calculation overflowed with sizes=[10000000000, 10000000000]"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 12.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
    ],
    ids=lambda e: type(e).__name__ + str(e)[:12],
)
def test_a_failed_allocation_is_a_sentence(
    tmp_path: Path, corpus: Path, make_config: Make, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(launch, "Training", fail)
        with pytest.raises(InputError, match=r"parameters take 0\.0 GB .* not that much to give; take a smaller"):
            launch.new_training(make_config(corpus), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    training = launch.new_training(make_config(corpus), tmp_path / "run")
    monkeypatch.setattr(training, "update", fail)
    with pytest.raises(InputError, match="memory does not suffice after step 0; take a smaller"):
        training.run(quiet=True)


def test_other_errors_of_torch_are_not_taken_for_a_lack_of_memory(
    tmp_path: Path, corpus: Path, make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with monkeypatch.context() as patch:
        patch.setattr(launch, "Training", fail)
        with pytest.raises(RuntimeError, match="mat1"):
            launch.new_training(make_config(corpus), tmp_path / "run")
    training = launch.new_training(make_config(corpus), tmp_path / "run")
    monkeypatch.setattr(training, "update", fail)
    with pytest.raises(RuntimeError, match="mat1"):
        training.run(quiet=True)


@pytest.mark.parametrize("own", ["0::/jobs/7", "5:cpu:/other\n9:memory:/jobs/7\n0::/"])
@pytest.mark.parametrize("place", ["", "jobs", "jobs/7"])
def test_a_control_group_or_one_around_it_limits_the_memory(
    own: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = tmp_path / "cgroup"
    old = "memory" in own
    for part in ("jobs/7", "other"):
        (groups / ("memory" if old else "") / part).mkdir(parents=True)
    for group in (groups / ("memory" if old else "")).rglob("."):
        (group / ("memory.limit_in_bytes" if old else "memory.max")).write_text("9223372036854771712\n" if old else "max\n")
    limited = groups / ("memory" if old else "") / place / ("memory.limit_in_bytes" if old else "memory.max")
    limited.write_text("3000000\n")
    (tmp_path / "own").write_text(own)
    monkeypatch.setattr(machine, "GROUPS", groups)
    monkeypatch.setattr(machine, "OWN_GROUPS", tmp_path / "own")
    assert machine.memory("cpu") == 3_000_000
    with pytest.raises(InputError, match=r"^a table needs 4 MB, and cpu has 0\.0 GB; reduce rows$"):
        machine.check_memory(4e6, "a table needs 4 MB", "reduce rows")
    machine.check_memory(3e6, "", "")


def test_the_memory_of_this_machine_is_plausible(monkeypatch: pytest.MonkeyPatch) -> None:
    available = machine.memory("cpu")
    assert 2**28 < available < 2**50
    monkeypatch.setattr(Path, "read_text", lambda path: "1000000\n" if path.name == "memory.max" else "max\n")
    assert machine.memory("cpu") == 1_000_000, "the limit of a group of processes"
    config = replace(RunConfig(), machine=replace(RunConfig().machine, device="cpu"))
    with pytest.raises(InputError, match=r"cpu has 0\.0 GB"), resources.enough_memory(config, 1000, 1000):
        pass
