"""A study's parameters: every value that it cannot have is a sentence that names it and its range."""

import json
from dataclasses import asdict, dataclass, fields

import pytest
import torch
from forked import ended

from recurrent_lm.lm import InputError, Settings, run_app
from recurrent_lm.studies import STUDIES
from recurrent_lm.studies.cli import app
from recurrent_lm.studies.engine.catalogue import module_of
from recurrent_lm.studies.engine.memory import allocation_failures, check_memory
from recurrent_lm.studies.engine.parameters import from_text, real, reals
from recurrent_lm.studies.engine.study import make, usual_preset
from recurrent_lm.studies.throughput.study import Study as Throughput
from recurrent_lm.studies.training_step.study import Study as TrainingStep

RANGES = [
    (name, f) for name in STUDIES for f in fields(module_of(name).Study) if "low" in f.metadata and not f.metadata.get("many")
]
NUMBERS = [(name, f) for name, f in RANGES if type(f.default) is int]
WRONG = ["-1", str(10**7), str(10**20), "10^14", "nan", "inf", "text", "", "1.5", "9" * 6000, "0x10"]


@pytest.mark.parametrize(("name", "field"), NUMBERS, ids=lambda x: getattr(x, "name", x))
@pytest.mark.parametrize("value", WRONG, ids=lambda v: v[:12])
def test_wrong_numbers_are_refused_with_their_range(name, field, value, tmp_path, capsys):
    out = tmp_path / "t.parquet"
    assert run_app(app, "studies", ["run", name, "--set", f"{field.name}={value}", "--out", str(out)]) == 2
    low, high = field.metadata["low"], field.metadata["high"]
    error = capsys.readouterr().err
    assert error.startswith(f"studies: {field.name} must be a whole number from {low:,} to {high:,}, not ")
    assert error.count("\n") == 1 and len(error) < 200
    assert not out.exists()


@pytest.mark.parametrize(("name", "field"), NUMBERS, ids=lambda x: getattr(x, "name", x))
def test_the_ends_of_a_range_are_in_it(name, field):
    low, high = field.metadata["low"], field.metadata["high"]
    for value in (low, high, field.default):
        assert getattr(make(name, {field.name: str(value)}, usual_preset(name)), field.name) == value
    for value in (low - 1, high + 1, 0.5 + low, True, None):
        with pytest.raises(InputError, match=field.name):
            module_of(name).Study(**{field.name: value})


def test_zero_is_refused_but_where_it_means_something():
    assert {f.name for _, f in NUMBERS if f.metadata["low"] == 0} == {"threads", "warmup"}


@dataclass(frozen=True)
class Rates(Settings):
    rate: float = real(0.5, 0.0, 10.0)
    rates: tuple[float, ...] = reals(0.1, 1.0, low=0.001, high=100.0)


def test_numbers_with_a_decimal_point():
    assert from_text(Rates, {"rate": "2", "rates": "1e-2, 3"}) == {"rate": 2.0, "rates": (0.01, 3.0)}
    assert Rates(**json.loads(json.dumps(asdict(Rates())))) == Rates()


@pytest.mark.parametrize("value", ["-0.1", "10.5", "nan", "inf", "text", "", "1,2"])
def test_wrong_numbers_with_a_decimal_point_are_refused_with_their_range(value):
    with pytest.raises(InputError, match=r"^rate must be a number from 0 to 10, not "):
        Rates(**from_text(Rates, {"rate": value}))


@pytest.mark.parametrize("value", ["0", "1,1", "1,nan", "200", ""])
def test_wrong_lists_with_decimal_points_are_refused_with_their_range(value):
    with pytest.raises(InputError, match=r"^rates must be different numbers from 0\.001 to 100 with commas between, not "):
        Rates(**from_text(Rates, {"rates": value}))


def test_make_reads_numbers_and_text():
    study = make("gradient_lag", {"run": "12", "lags": "9"})
    assert (study.run, study.lags, study.windows) == ("12", 9, 24)


def test_an_unknown_parameter_names_those_there_are():
    with pytest.raises(InputError, match=r"no parameter 'steps'.*vocabulary, a whole number from 2 to 1,000,000; hidden"):
        from_text(TrainingStep, {"steps": "0"})


def test_what_cannot_fit_is_refused_before_anything_is_allocated(capsys, tmp_path):
    """Each parameter is in its range; together they need thousands of times the memory there is."""
    sets = [x for s in ("rows=10000", "bptt=10000", "vocabulary=1000000") for x in ("--set", s)]
    assert run_app(app, "studies", ["run", "training_step", *sets, "--out", str(tmp_path / "t.parquet")]) == 2
    assert "GB of memory or more" in capsys.readouterr().err


def test_what_exceeds_the_limit_of_a_control_group_is_refused(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("1000000\n")
    monkeypatch.setattr("recurrent_lm.lm.base.machine.GROUPS", tmp_path)
    check_memory(1e6, "rows")
    with pytest.raises(InputError, match=r"GB of memory or more.*; reduce rows$"):
        check_memory(2e6, "rows")


def test_the_memory_that_is_foreseen_is_less_than_what_is_used():
    """The estimate of the default study, 10,000 words and 2 x 200 units: parameters and gradients are 53 MB a variant."""
    assert 3 * 35e6 < TrainingStep()._bytes() < 500e6
    check_memory(TrainingStep()._bytes(), "nothing")


@pytest.mark.parametrize("allocate", [lambda: torch.empty(2**60, dtype=torch.int8), lambda: bytearray(2**62)])
def test_a_failed_allocation_is_a_sentence(allocate):
    with pytest.raises(InputError, match="memory is not enough"), allocation_failures():
        allocate()


def test_other_errors_of_torch_are_not_hidden():
    with pytest.raises(RuntimeError, match="must match"), allocation_failures():
        torch.zeros(2) + torch.zeros(3)


def test_a_study_that_runs_out_of_memory_ends_with_a_sentence(tmp_path):
    """A real shortage: the process may have 3 GB of addresses, and the study's token ids alone want as much."""
    limit = "from resource import *; setrlimit(RLIMIT_AS, (3 << 30, 3 << 30))"
    sets = [x for s in ("vocabulary=2", "hidden=1", "layers=1", "rows=10000", "bptt=10000") for x in ("--set", s)]
    arguments = ["run", "training_step", *sets, "--out", tmp_path / "t.parquet"]
    code, _, output = ended(tmp_path / "ended", "studies", arguments, first=limit)
    assert code == 2, output
    assert "memory is not enough" in output or "GB of memory or more" in output
    assert output.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["ended"]


SEVERAL = [f for f in fields(Throughput) if "low" in f.metadata and f.metadata.get("many")]


@pytest.mark.parametrize("field", SEVERAL, ids=lambda f: f.name)
@pytest.mark.parametrize("value", ["", "2,", "x", "2,x", "2,2", "2,-1", "2;3", "1e3", "0x10", "9" * 6000])
def test_wrong_lists_of_numbers_are_refused_with_their_range(field, value, tmp_path, capsys):
    arguments = ["run", "throughput", "--set", f"{field.name}={value}", "--out", str(tmp_path / "t.parquet")]
    assert run_app(app, "studies", arguments) == 2
    low, high = field.metadata["low"], field.metadata["high"]
    error = capsys.readouterr().err
    assert error.startswith(
        f"studies: {field.name} must be different whole numbers from {low:,} to {high:,} with commas between, not "
    )
    assert error.count("\n") == 1 and len(error) < 250
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("cell", "lstm,elman", "some of rnn-tanh, rnn-relu, rnn-sigmoid, rnn-identity, lstm, gru, mingru, with commas between"),
        ("cell", "", "some of"),
        ("cell", "lstm,lstm", "some of"),
        ("variants", "torch.nn,tensorflow", "some of kernels:eager, kernels:torch, kernels:triton, torch.nn"),
        ("device", "tpu", "one of cpu, cuda"),
        ("device", "cpu,cuda", "one of cpu, cuda"),
    ],
)
def test_wrong_names_are_refused_with_those_there_are(name, value, words):
    with pytest.raises(InputError, match=f"^{name} must be {words}"):
        make("throughput", {name: value})


def test_lists_come_from_text_and_from_json():
    study = make("throughput", {"hidden": "64, 32", "cell": "gru", "rounds": "3", "device": "cpu"})
    assert (study.hidden, study.cell, study.rounds) == ((64, 32), ("gru",), 3)
    assert Throughput(**json.loads(json.dumps(asdict(study)))) == study


def test_a_preset_is_where_settings_start():
    assert make("training_step", {"rounds": "7"}, "smoke").hidden == module_of("training_step").PRESETS["smoke"].hidden
    assert make("training_step", {}, "cpu") == TrainingStep()
    with pytest.raises(InputError, match="training_step has no preset 'gpu'; it has smoke, cpu, cpu-long"):
        make("training_step", {}, "gpu")
