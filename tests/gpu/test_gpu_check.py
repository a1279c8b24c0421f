"""The GPU check without a GPU: it runs to its end on tiny sizes in the interpreter, and survives what a GPU can do to it."""

import csv
import json
import os
import re
import subprocess
import sys
import time
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch
from paths import ROOT

PARTS = """
import os, time
from check import Check, Skip

def fail(): assert 1 + 1 == 3, "one and one"
def skip(): raise Skip("no reason")
def broken(): raise ValueError("a sentence")

def checks(where, shard):
    yield Check("fine", lambda: {"error": 0.5, "rows": [{"variant": "a", "status": "timed", "median": 0.25}]})
    yield Check("fails", fail)
    yield Check("hangs", lambda: time.sleep(60), seconds=0.5)
    yield Check("dies", lambda: os._exit(7))
    yield Check("skips", skip)
    yield Check("breaks", broken)
    yield Check("disagrees", lambda: {"wrong": ["kernels: too far"]})
    yield Check("last", lambda: None)
"""


@pytest.fixture
def gpu_check() -> Any:
    spec = spec_from_file_location("gpu_check", ROOT / "tests" / "gpu_check.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["gpu_check"] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def command(*arguments: Any) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    program = [sys.executable, ROOT / "tests" / "gpu_check.py", *map(str, arguments)]
    return subprocess.run(program, env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)


def test_each_way_to_fail_is_one_check(gpu_check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hang and a process that dies cost one check each; the checks behind them are done."""
    (tmp_path / "parts_fake.py").write_text(PARTS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    results = gpu_check.Results(tmp_path / "out", {"gpu": "none", "command": "this"})
    gpu_check.run_shard(gpu_check.Shard("fake", "all"), "cpu", results, time.monotonic() + 100)
    values = {c["check"]: (c["status"], c["note"]) for c in results.checks}
    assert values == {
        "fine": ("ok", ""),
        "fails": ("failed", "one and one"),
        "hangs": ("failed", "hangs: nothing was heard for 0 s"),
        "dies": ("failed", "the process ended with exit code 7: "),
        "skips": ("skipped", "no reason"),
        "breaks": ("failed", "ValueError: a sentence"),
        "disagrees": ("failed", "kernels: too far"),
        "last": ("ok", ""),
    }
    assert results.bad()
    with (tmp_path / "out" / "checks.csv").open() as file:
        assert [(row["check"], row["status"]) for row in csv.DictReader(file)] == [(n, s) for n, (s, _) in values.items()]
    with (tmp_path / "out" / "timings.csv").open() as file:
        assert [(row["work"], row["variant"], row["median"]) for row in csv.DictReader(file)] == [("fine", "a", "0.25")]
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert summary.index("## Failed: 5") < summary.index("## Skipped: 1") < summary.index("## Checks")
    assert "`this` did not end" in summary, "the summary of a run that was killed says so"
    assert json.loads((tmp_path / "out" / "results.json").read_text())["checks"][0]["numbers"] == {"error": 0.5}


def test_time_that_is_up(gpu_check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not run is named, and it is no success; nor is nothing at all."""
    (tmp_path / "parts_fake.py").write_text(PARTS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    results = gpu_check.Results(tmp_path / "out", {"gpu": "none", "command": "this"})
    assert results.bad()
    gpu_check.run_shard(gpu_check.Shard("fake", "all"), "cpu", results, time.monotonic())
    ((status, note),) = [(c["status"], c["note"]) for c in results.checks]
    assert status == "not run"
    assert note.startswith("the time was up")
    assert results.bad()


def test_targets_are_met_or_missed(gpu_check: Any, tmp_path: Path) -> None:
    """Speed is judged against the aims, and fails nothing."""
    results = gpu_check.Results(tmp_path, {"gpu": "one", "command": "this"})

    def rows(**medians: float) -> list[dict[str, Any]]:
        names = {"ours": "kernels:triton", "nn": "torch.nn", "copy": "copy"}
        plain = {"status": "timed", "flops": 0.0, "bytes": 8e9, "peak_bytes": 0, "note": ""}
        return [plain | {"variant": names[name], "median": median} for name, median in medians.items()]

    results.add("timing", "peaks", {"check": "copy", "status": "ok", "rows": rows(copy=4e-3)})
    work = "lstm bfloat16 B=16 H=768 T=1024 forward"
    results.add("timing", "recurrence", {"check": work, "status": "ok", "rows": rows(ours=1.7e-3)})
    results.add("timing", "recurrence", {"check": work + "+backward", "status": "ok", "rows": rows(ours=3e-3, nn=12e-3)})
    results.add("timing", "logits", {"check": "logits N=1 V=2 forward", "status": "ok", "rows": rows(ours=4.2e-3, nn=5e-3)})
    results.add("timing", "trace", {"check": "trace, lstm", "status": "ok", "share_of_backward": 0.06})
    summary = results.summary()
    assert f"* {work}: 1.70 ms, aim 1.6 ms: **missed**" in summary
    assert f"* {work}+backward: 4.00 times as fast as torch.nn, aim 3.0: met" in summary
    assert "* logits N=1 V=2 forward: 95% of the bandwidth of a copy, aim 90%: met" in summary
    assert "* trace, lstm: 6.0% of the backward pass, aim 5%: **missed**" in summary
    assert f"| {work}+backward | kernels:triton | 3.000 |  | 0.25 | 0.0 | 2667 GB/s |" in summary
    assert not results.bad()


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_without_a_gpu_it_is_one_sentence() -> None:
    done = command()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("a CUDA GPU is needed")


def test_without_a_c_compiler_it_is_one_sentence(gpu_check: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Triton would fail at each launch. Python's headers count as well."""
    present = subprocess.CompletedProcess([], 0, json.dumps({"gpu": "one"}), "")
    monkeypatch.setattr(gpu_check.subprocess, "run", lambda *_, **__: present)
    monkeypatch.setattr(gpu_check.sysconfig, "get_paths", lambda scheme: {"include": str(tmp_path)})
    monkeypatch.setenv("CC", "no-such-compiler")
    assert "there is no no-such-compiler" in gpu_check.about("cuda")["error"]
    monkeypatch.setenv("CC", sys.executable)
    assert "there is no Python.h" in gpu_check.about("cuda")["error"]
    (tmp_path / "Python.h").touch()
    assert gpu_check.about("cuda")["gpu"] == "one"


def test_every_cell_has_its_shards(gpu_check: Any) -> None:
    from recurrent_lm.kernels import CELLS

    assert {shard.split()[0] for shard in gpu_check.SHARDS["scan"]} == set(CELLS)
    parts = {path.stem.removeprefix("parts_") for path in (ROOT / "tests" / "gpu").glob("parts_*.py")}
    assert parts == {*gpu_check.PARTS, "story"}


def test_every_shard_of_a_story_is_known(gpu_check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "gpu"))
    story = import_module("parts_story")
    assert sorted(name for names in gpu_check.STORIES.values() for name in names) == sorted(story.SHARDS)
    assert set(gpu_check.SECONDS) == {None, *gpu_check.STORIES}


def test_a_story_goes_on_where_it_was_stopped(gpu_check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What passed is kept with its times and not done again; what failed or was skipped is."""
    (tmp_path / "parts_fake.py").write_text(PARTS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    about = {"gpu": "none", "command": "this"}
    first = gpu_check.Results(tmp_path / "out", about)
    timed = {"variant": "a", "status": "timed", "median": 0.125}
    first.add("fake", "all", {"check": "fine", "status": "ok", "rows": [timed]})
    for name, status in (("fails", "failed"), ("skips", "skipped"), ("hangs", "ok"), ("dies", "ok"), ("breaks", "ok")):
        first.add("fake", "all", {"check": name, "status": status})
    again = gpu_check.Results(tmp_path / "out", about, go_on=["all"])
    leave = again.passed("all")
    assert leave == ["fine", "hangs", "dies", "breaks"]
    gpu_check.run_shard(gpu_check.Shard("fake", "all", leave=leave), "cpu", again, time.monotonic() + 100)
    done = {c["check"]: c["status"] for c in again.checks}
    assert done == dict.fromkeys(leave, "ok") | {"fails": "failed", "skips": "skipped", "disagrees": "failed", "last": "ok"}
    assert [t["median"] for t in again.timings] == [0.125]
    with (tmp_path / "out" / "checks.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 8


def test_the_last_table_fits_on_a_screen(gpu_check: Any, tmp_path: Path) -> None:
    results = gpu_check.Results(tmp_path, {"gpu": "one", "command": "this"})
    for i in range(70):
        results.add("story", "sizes", {"check": f"number {i}", "status": "failed" if i == 69 else "ok", "us_a_step": 1.5})
    results.add("story", "peaks", {"check": "of another story", "status": "ok"})
    table = results.table(["sizes"])
    assert len(table) == 60
    assert table[0].startswith("failed number 69")
    assert table[1] == "ok number 0: us_a_step 1.5"
    assert table[-1] == "1 failed, 69 ok"
    assert not any("another story" in line for line in table)


def test_a_part_runs_to_its_end(tmp_path: Path) -> None:
    """In the interpreter, tiny: the results are there, and all is well."""
    done = command("--device", "cpu", "--out", tmp_path, "--part", "repeat")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| repeat | 1 | 0 | 0 |" in (tmp_path / "summary.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("story", [1, 2, 3])
def test_a_story_runs_to_its_end(tmp_path: Path, story: int) -> None:
    done = command("--story", story, "--device", "cpu", "--out", tmp_path, "--seconds", 1400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(tmp_path.iterdir())) <= 8


@pytest.mark.slow
@pytest.mark.parametrize("story", [1, 2, 3])
def test_a_story_on_a_gpu_that_launches_nothing(tmp_path: Path, story: int) -> None:
    """Every line that the GPU would see is run; only numbers are wrong, and trainings diverge."""
    command("--story", story, "--device", "stub", "--out", tmp_path, "--seconds", 1400)
    for check in json.loads((tmp_path / "results.json").read_text())["checks"]:
        if "language model" not in check["check"]:  # a process of its own, which sees that there is no GPU
            assert not re.search(r"(?<!Assertion)Error", check["note"]), check
            assert check["status"] != "not run"


@pytest.mark.slow
def test_all_of_it_runs_to_its_end(tmp_path: Path) -> None:
    """Every part and every kind of check, so that none meets its first Python error beside a GPU."""
    done = command("--device", "cpu", "--out", tmp_path, "--jobs", 1, "--seconds", 1400)
    assert done.returncode == 0, done.stdout + done.stderr
    checks = json.loads((tmp_path / "results.json").read_text())["checks"]
    assert {c["part"] for c in checks} == {"scan", "loss", "module", "cuda", "sanitize", "repeat", "timing"}
