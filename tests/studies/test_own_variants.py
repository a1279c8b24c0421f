"""Somebody's own recurrence or loss in the throughput study: the command from a folder with one file, and what it refuses."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recurrent_lm import studies
from recurrent_lm.lm import InputError, run_app
from recurrent_lm.studies.cli import app
from recurrent_lm.studies.engine.study import make
from recurrent_lm.studies.throughput.options import settings
from recurrent_lm.studies.throughput.study import Study
from recurrent_lm.studies.timing import own

MINE = """
import torch
from torch import nn


def lstm(x, w_ih, w_hh, b_ih, b_hh):
    h = c = x.new_zeros(x.shape[1], w_hh.shape[1])
    outputs = []
    for z in x @ w_ih.T + b_ih + b_hh:
        i, f, g, o = (z + h @ w_hh.T).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs)


class Right(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.bias_ih = nn.Parameter(torch.empty(4 * hidden_size))
        self.bias_hh = nn.Parameter(torch.empty(4 * hidden_size))

    def forward(self, x):
        return lstm(x, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)


def function(input_size, hidden_size):
    return lstm


def tuples(input_size, hidden_size, cell, device, dtype):
    assert (cell, dtype) == ("lstm", torch.float32) and str(device) == "cpu"
    return lambda *tensors: (lstm(*tensors), None)


def wrong(input_size, hidden_size):
    return lambda *tensors: lstm(*tensors) * 1.001


def detached(input_size, hidden_size):
    return lambda *tensors: lstm(*tensors).detach()


def overwriting(input_size, hidden_size):
    def call(x, *weights):
        h = lstm(x, *weights)
        x.data.zero_()
        return h
    return call


def batch_first(input_size, hidden_size):
    return lambda *tensors: lstm(*tensors).transpose(0, 1)


def broken(input_size, hidden_size):
    raise RuntimeError("no such kernel")


def nothing(input_size, hidden_size):
    return None


def other_arguments(batch, seq):
    return lstm


def loss(width, vocabulary):
    return lambda x, w, b, y: nn.functional.cross_entropy(x @ w.T + b, y)


def summed(width, vocabulary):
    return lambda x, w, b, y: nn.functional.cross_entropy(x @ w.T + b, y, reduction="sum")


number = 3
"""
TINY = {
    "batch": "2", "hidden": "4", "steps": "3", "tokens": "8", "width": "4", "vocabulary": "10", "rounds": "2", "copied": "1",
    "square": "16", "cell": "lstm", "variants": "torch.nn",
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a file of one's own, as the working folder; nothing of it stays imported."""
    (tmp_path / "my_rnn.py").write_text(MINE)
    (tmp_path / "no_rnn.py").write_text("import no_such_library\n")
    (tmp_path / "leaving.py").write_text("raise SystemExit(1)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    forget()  # files of these names that other tests imported
    yield tmp_path
    forget()


def forget() -> None:
    own.load.cache_clear()
    for name in ("my_rnn", "no_rnn", "leaving"):
        sys.modules.pop(name, None)


def tiny(*names: str, **more: str) -> Study:
    result: Study = make("throughput", TINY | settings(list(names), "", [], "") | more)
    return result


@pytest.mark.parametrize("name", ["Right", "function", "tuples"])
def test_a_right_recurrence_is_timed_beside_the_others(name: str) -> None:
    """A module, a function, and one that gives a tuple; both directions."""
    table = tiny(f"my_rnn:{name}", rounds="1")()
    recurrences = table[table["part"] == "recurrence"]
    assert set(recurrences["variant"]) == {"torch.nn", f"my_rnn:{name}"}
    assert set(recurrences["status"]) == {"timed"} and (recurrences["seconds"] > 0).all()
    assert set(recurrences["direction"]) == {"forward", "forward+backward"}
    assert set(table["part"]) == {"peak", "recurrence"}


def test_a_loss_is_a_variant_too() -> None:
    table = tiny("my_rnn:loss", rounds="1")()
    losses = table[table["variant"] == "my_rnn:loss"]
    assert set(losses["part"]) == {"cross_entropy"} and set(losses["status"]) == {"timed"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wrong", "disagrees with float64: the relative error is 1.0e-03"),
        ("broken", "fails: RuntimeError: no such kernel"),
        ("nothing", "the factory gives None, which cannot be called"),
        ("batch_first", r"it gives \[2, 3, 4\], and \[3, 2, 4\] is wanted"),
        ("summed", "disagrees with float64"),
        ("overwriting", "disagrees with float64"),  # its own copy of the input, from the second call on
    ],
)
def test_one_that_is_right_nowhere_is_refused_before_anything_is_timed(name: str, words: str) -> None:
    with pytest.raises(InputError, match=f"^my_rnn:{name} is not timed, .*{words}"):
        tiny(f"my_rnn:{name}").prepare()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("my_rnn:other_arguments", r"takes \(batch, seq\); a recurrence's factory takes \(input_size, hidden_size\)"),
        ("my_rnn:number", "is not a callable"),
        ("my_rnn:missing", "my_rnn has no missing"),
        ("no_rnn:make", "cannot be imported: ModuleNotFoundError: No module named 'no_such_library'"),
        ("leaving:make", "cannot be imported: SystemExit: 1"),
        ("nowhere_at_all:make", "cannot be imported"),
        ("my_rnn", "must be module:factory"),
        ("my_rnn.py:Right", "cannot be imported"),
        (":Right", "must be module:factory"),
    ],
)
def test_a_factory_that_cannot_be_used_is_a_sentence(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        own.load(name)


def test_gradients_are_held_too() -> None:
    """Right forward and without a gradient: timed without gradients, and a row says what fails with them."""
    study = tiny("my_rnn:detached", rounds="1")
    table = study()
    mine = table[table["variant"] == "my_rnn:detached"].set_index("direction")
    assert mine.loc["forward", "status"] == "timed"
    assert mine.loc["forward+backward", "status"] == "failed"
    assert "my_rnn:detached failed: RuntimeError" in studies.listing(table)


def test_a_cell_that_a_module_is_not_is_skipped_with_its_parameters() -> None:
    table = tiny("my_rnn:Right", cell="lstm,gru", direction="forward", rounds="1")()
    mine = table[table["variant"] == "my_rnn:Right"].set_index("cell")
    assert mine.loc["lstm", "status"] == "timed" and mine.loc["gru", "status"] == "skipped"
    assert "gru has weight_ih [12, 4]" in mine.loc["gru", "note"]


def test_the_source_is_part_of_what_a_table_is_measured_on(folder: Path) -> None:
    before = tiny("my_rnn:Right").inputs()
    own.load.cache_clear()
    (folder / "my_rnn.py").write_text(MINE + "\n# faster\n")
    assert tiny("my_rnn:Right").inputs() != before != ""
    assert make("throughput", {}).inputs() == ""


def test_short_options_are_parameters() -> None:
    parameters = settings([], "lstm,gru", ["B=1,16 H=256", "V=100"], "bfloat16")
    assert parameters == {"cell": "lstm,gru", "batch": "1,16", "hidden": "256", "vocabulary": "100", "dtype": "bfloat16"}
    both = settings(["my_rnn:Right", "my_rnn:loss"], "", [], "")
    assert both == {"own": "my_rnn:Right,my_rnn:loss", "parts": "peak,cross_entropy,recurrence"}
    for text in ("X=3", "B", "batch=3"):
        with pytest.raises(InputError, match="with a letter of B, H, T, N, d, V"):
            settings([], "", [text], "")


def test_the_command_prints_times_and_keeps_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a folder with one file: a row a size, a column a variant, the claims after it; the table needs the file no more."""
    sets = [f"{key}={TINY[key]}" for key in ("rounds", "copied", "square", "variants")]
    options = ["--variant", "my_rnn:Right", "--cells", "lstm", "--sizes", "B=2 H=4,8", "--sizes", "T=3", "--dtype", "float32"]
    assert run_app(app, "studies", ["run", "throughput", *options, *(x for s in sets for x in ("--set", s))]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("cell ")]  # how far it is
    assert lines[0].startswith("recurrence, lstm, forward, float32") and "microseconds a step" in lines[0]
    assert lines[1].split() == ["B", "H", "T", "torch.nn", "my_rnn:Right"]
    assert [line.split()[:3] for line in (lines[2], lines[4])] == [["2", "4", "3"], ["2", "8", "3"]]
    assert lines[2].count("*") == lines[4].count("*") == 1
    assert any(line.startswith("Claim ") for line in lines[5:])
    (folder / "my_rnn.py").unlink()
    own.load.cache_clear()
    sys.modules.pop("my_rnn", None)
    assert run_app(app, "studies", ["show", "runs/studies/throughput.parquet"]) == 0
    assert capsys.readouterr().out.splitlines()[:6] == lines[:6]


@pytest.mark.parametrize("option", [["--variant", "a:b"], ["--cells", "lstm"], ["--sizes", "B=1"], ["--dtype", "float32"]])
def test_other_studies_refuse_the_options_of_throughput(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(app, "studies", ["run", "training_step", *option]) == 2
    assert f"{option[0]} is an option of throughput" in capsys.readouterr().err


def test_the_listing_marks_the_fastest_and_gives_ratios() -> None:
    """Planted: mine takes half of torch.nn's 20 us a step over 4 steps."""
    rows = [
        {
            "part": "recurrence", "cell": "lstm", "direction": "forward", "dtype": "float32", "batch": 2, "steps": 4,
            "hidden": 8, "vocabulary": 0, "variant": variant, "mode": "eager", "cache": "hot", "status": "timed", "note": "",
            "round": r, "seconds": us * 4e-6 * (1 + (r if us > 10 else 9 - r) / 1000),
            "error": 0.0, "allowed": 1.0, "flops": 1.0, "bytes": 1.0,
            "peak_bytes": 1, "dropped": 0, "clock_mhz": 0.0, "watts": 0.0,
        }
        for variant, us in (("torch.nn", 20.0), ("a:mine", 10.0))
        for r in range(10)
    ]  # fmt: skip
    table = make("throughput", {}).table(rows)
    lines = studies.listing(table).splitlines()
    assert lines[2].split() == ["2", "8", "4", "20.09", "10.04*"]
    assert lines[3].split() == ["2.00", "[1.99,", "2.01]"]
