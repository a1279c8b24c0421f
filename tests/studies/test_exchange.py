"""The exchange study: what it refuses, the constants it finds in planted tables, the file it writes, and its watchdog."""

import json
import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from recurrent_lm import kernels
from recurrent_lm.lm import InputError, run_app
from recurrent_lm.studies import select, summary, verdicts
from recurrent_lm.studies.cli import app
from recurrent_lm.studies.engine.study import usual_preset
from recurrent_lm.studies.engine.tables import load, save
from recurrent_lm.studies.exchange import study as exchange
from recurrent_lm.studies.exchange.measured_constants import constants, floors, record
from recurrent_lm.studies.exchange.study import PRESETS, Study, complaint, steps_of
from recurrent_lm.studies.timing import cuda

WAITS = {"sentinel": 0.8, "counter": 1.6, "none": 0.3}
L2, LAUNCH = 5e6, 4.0


def planted(noise=0.0, waits=WAITS, l2=L2, study=None, error=1e-4, few=0.0):
    """Steps take the wait of their protocol and the time of what all gather; ``few`` adds to those below 64 programs."""
    study = study or Study()
    random = np.random.default_rng(0)
    rows = []
    for cell in study.cells():
        protocols = [exchange.LAUNCH] if cell["protocol"] else list(waits)
        for protocol in protocols:
            full = 1 if cell["protocol"] else steps_of(1024 * cell["kilobytes"])
            us = LAUNCH if cell["protocol"] else waits[protocol] + 1024 * cell["programs"] * cell["kilobytes"] / l2
            us += few * (cell["programs"] < 64)
            for steps in (full,) if cell["protocol"] else (full, full // 2):
                for r in range(study.rounds):
                    seconds = (us * steps + (0 if cell["protocol"] else 20)) * 1e-6 * random.lognormal(0, noise)
                    row = {"protocol": protocol, "steps": steps, "round": r, "seconds": seconds, "error": error, "dropped": 0}
                    rows.append(cell | row)
    table = study.table(rows)
    table.attrs["machine"] = {"capability": "9.0", "gpu": "a GPU", "multiprocessors": 132}
    return table


def test_floors_are_times_of_steps_alone():
    """The 20 µs that every launch takes beside its steps are in neither of them."""
    table = planted()
    summary_of_floors = floors(table)
    result = summary_of_floors.set_index(["protocol", "programs", "kilobytes"])
    assert result.loc[("sentinel", 8, 1), "us"] == pytest.approx(0.8 + 8192 / 5e6)
    assert result.loc[("none", 132, 256), "us"] == pytest.approx(0.3 + 132 * 262144 / 5e6)
    assert result.loc[("none", 132, 256), "gathered"] == 132 * 262144
    assert result.loc[("none", 132, 256), "gbs"] == pytest.approx(132 * 262144 / (0.3 + 132 * 262144 / 5e6) / 1e3)
    assert result.loc[("launch", 1, 0), "us"] == pytest.approx(4.0)
    assert summary(table).equals(summary_of_floors)


def test_constants_are_those_that_were_planted():
    intervals = constants(planted())
    assert list(intervals) == list(kernels.CONSTANTS)
    assert intervals["WAIT.sentinel"].value == pytest.approx(0.8) and intervals["WAIT.counter"].value == pytest.approx(1.6)
    assert intervals["L2_BYTES"].value == pytest.approx(5e6) and intervals["LAUNCH"].value == pytest.approx(4.0)


def test_constants_lie_in_their_intervals_under_noise():
    intervals = constants(planted(noise=0.005))
    for name, true in {"WAIT.sentinel": 0.8, "WAIT.counter": 1.6, "L2_BYTES": 5e6, "LAUNCH": 4.0}.items():
        low, high = intervals[name].low, intervals[name].high
        assert low < true < high, name
        assert high - low < 0.2 * true, name


def test_few_programs_do_not_count():
    """They are bound by what one multiprocessor loads."""
    assert constants(planted(few=50.0))["WAIT.sentinel"].value == pytest.approx(0.8)


@pytest.mark.parametrize("kept", [["launch"], ["sentinel"], []])
def test_a_table_of_little_tells_little(kept):
    table = planted(study=Study(programs=(132,), kilobytes=(1, 4)))
    few = table[table["protocol"].isin(kept)]
    few.attrs = table.attrs
    result = constants(few) if kept else constants(planted(study=Study(programs=(132,), kilobytes=(4,))))
    assert math.isnan(result["WAIT.sentinel"].value) and math.isnan(result["L2_BYTES"].value)
    assert math.isnan(result["LAUNCH"].value) == (kept == ["sentinel"])


def claim(table, key):
    return select(verdicts(table), key).iloc[0]


@pytest.mark.parametrize(("counter", "word"), [(1.6, "holds"), (0.8, "ambiguous"), (0.2, "fails")])
def test_who_waits_less_is_decided(counter, word):
    table = planted(noise=0.005, waits=WAITS | {"counter": counter})
    assert claim(table, "sentinel")["verdict"] == word


@pytest.mark.parametrize(("error", "word"), [(1e-4, "holds"), (0.5, "fails")])
def test_a_wrong_state_fails(error, word):
    assert claim(planted(error=error), "right")["verdict"] == word


def test_what_plans_use_is_held_against_what_was_measured(monkeypatch):
    monkeypatch.setattr(kernels, "constant", lambda device, name, estimate: {"L2_BYTES": 5.1e6, "LAUNCH": 8.0}.get(name, 1.0))
    claims = verdicts(planted(noise=0.002))
    bandwidth, launch = (select(claims, f"constant.{name}").iloc[0] for name in ("L2_BYTES", "LAUNCH"))
    assert (bandwidth["verdict"], bandwidth["setting"]) == ("holds", "sm_90")
    assert launch["verdict"] == "fails" and "and 8 is used" in launch["measured"]


def stored(path, **how):
    table = planted(**how)
    save(table, path, "exchange", Study(), machine=table.attrs["machine"] | {"commit": "abc", "command": "c", "driver": "1"})
    return path


def test_constants_are_written_beside_those_of_other_devices(tmp_path, capsys):
    table, out = stored(tmp_path / "t.parquet", noise=0.005), tmp_path / "measured.json"
    out.write_text('{"sm_80": {"LAUNCH": {"value": 1}}, "sm_90": {"old": 1}}')
    assert run_app(app, "studies", ["constants", str(table), "--out", str(out)]) == 0
    assert "sm_90 in " in capsys.readouterr().out
    content = json.loads(out.read_text())
    assert content["sm_80"] == {"LAUNCH": {"value": 1}}
    assert content["sm_90"]["WAIT.sentinel"]["value"] == pytest.approx(0.8, rel=0.05)
    assert content["sm_90"]["gpu"] == "a GPU" and content["sm_90"]["commit"] == "abc" and "old" not in content["sm_90"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t[t["protocol"] != "counter"], "cannot tell WAIT.counter; measure more sizes"),
        (lambda t: t.assign(seconds=math.nan), "cannot tell LAUNCH, WAIT.sentinel, WAIT.counter, L2_BYTES"),
    ],
)
def test_constants_that_a_table_cannot_tell_are_not_written(change, words, tmp_path):
    table = planted()
    part = change(table)
    part.attrs = table.attrs
    with pytest.raises(InputError, match=words):
        record(part, tmp_path / "measured.json")
    assert not any(tmp_path.iterdir())


def test_a_table_of_another_study_has_no_constants(tmp_path):
    other = pd.DataFrame({"x": [1]})
    other.attrs = {"study": "throughput"}
    with pytest.raises(InputError, match="this is a table of throughput; constants come of one of exchange"):
        record(other, tmp_path / "measured.json")


def test_without_a_gpu_a_sentence_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run_app(app, "studies", ["run", "exchange", "--out", str(tmp_path / "t.parquet")]) == 2
    assert "exchange needs a CUDA GPU, and there is none here; run it where one is" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
    assert (usual_preset("exchange"), usual_preset("throughput")) == ("gpu", "cpu")


def test_a_smaller_gpu_is_told_which_programs_fit(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(multi_processor_count=108))
    with pytest.raises(InputError, match="runs 108 programs at once, and all must; take --set programs=8,16,32,64,96,108"):
        Study().prepare()
    Study(programs=(108, 8)).prepare()
    with pytest.raises(InputError, match="kilobytes must be powers of two"):
        Study(programs=(8,), kilobytes=(3,)).prepare()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda t: t.assign(protocol="shout"), "a protocol that is none of"),
        (lambda t: t.assign(programs=t["programs"] + 1), "a cell that its parameters do not"),
        (lambda t: pd.concat([t, t.tail(1)]), "a measurement twice"),
    ],
)
def test_a_table_with_a_fault_is_refused(fault, words):
    assert words in complaint(Study(), fault(planted()))


def test_a_stored_table_comes_back(tmp_path):
    table = load(stored(tmp_path / "t.parquet"))
    assert complaint(Study(), table) == "" and table.attrs["machine"]["capability"] == "9.0"


@pytest.mark.parametrize(("kilobytes", "steps"), [(1, 1024), (64, 128), (256, 32), (1024, 32)])
def test_states_of_all_steps_stay_in_the_cache(kilobytes, steps):
    assert steps_of(1024 * kilobytes) == steps and steps % 2 == 0


class Run:
    """Stands for ``kernels.ExchangeRun`` on a device whose clock its calls move."""

    clock = 0.0

    def __init__(self, protocol, programs, state, steps, dtype):
        self.exchange, self.steps, self.ready = protocol, steps, False
        self.seconds = (3 + steps * (WAITS[protocol] + programs * state / L2)) * 1e-6

    def refill(self):
        Run.clock += 1.0  # takes long, and must not count
        self.ready = True

    def __call__(self):
        assert self.ready or self.steps == 1, "a buffer was used twice"
        self.ready = False
        Run.clock += self.seconds

    def error(self):
        return 1.0 if self.exchange == "counter" and Run.broken else 1e-5


@pytest.fixture
def device(monkeypatch):
    def event(enable_timing):
        event_of_stream = SimpleNamespace(at=None, synchronize=lambda: None)
        event_of_stream.record = lambda: setattr(event_of_stream, "at", Run.clock)
        event_of_stream.elapsed_time = lambda end: (end.at - event_of_stream.at) * 1e3
        return event_of_stream

    Run.broken = False
    monkeypatch.setattr(kernels, "ExchangeRun", Run)
    monkeypatch.setattr(torch.cuda, "Event", event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(cuda.EventTimer, "warmup", 0.0)
    monkeypatch.setattr(cuda, "Gpu", lambda: SimpleNamespace(weather=exchange_weather))


def exchange_weather():
    from recurrent_lm.studies.timing.measure import Weather

    return Weather()


def test_a_whole_run_on_a_device_that_keeps_time(device):
    study = PRESETS["smoke"]
    table = study.table([row for cell in study.cells() for row in study.measure(cell)])
    assert complaint(study, table) == ""
    summary_of_floors = floors(table).set_index(["protocol", "programs", "kilobytes"])["us"]
    for protocol, wait in WAITS.items():
        assert summary_of_floors[protocol, 16, 4] == pytest.approx(wait + 16 * 4096 / L2)
    assert set(table["round"]) == set(range(4))


def test_a_state_that_is_wrong_is_not_timed(device):
    Run.broken = True
    with pytest.raises(RuntimeError, match=r"counter leaves a state that is wrong by 1.0e\+00, and"):
        Study().measure(Study().cells()[1])


def test_the_watchdog_ends_what_does_not_end():
    program = (
        "import time\nfrom recurrent_lm.studies.timing.watchdog import watchdog\n"
        "with watchdog(0.2, 'it hangs'):\n    time.sleep(600)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert done.returncode == 3
    assert done.stderr == "studies: it hangs; what was measured before is kept, and the same command goes on\n"
    program = program.replace("time.sleep(600)", "pass") + "time.sleep(0.5)\nprint('ended')"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600).stdout == "ended\n"
