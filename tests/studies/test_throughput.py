"""The throughput study: its cells, what it refuses, and what its claims make of planted samples."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from recurrent_lm import studies
from recurrent_lm.lm import InputError, run_app
from recurrent_lm.studies.cli import app
from recurrent_lm.studies.engine.study import make
from recurrent_lm.studies.engine.tables import load, save
from recurrent_lm.studies.throughput import claims
from recurrent_lm.studies.throughput import study as throughput
from recurrent_lm.studies.throughput.comparison import together
from recurrent_lm.studies.throughput.study import PRESETS, Study, complaint, star

TINY = {
    "batch": (2,), "hidden": (4,), "steps": (2,), "tokens": (8,), "width": (4,), "vocabulary": (10,), "rounds": 2,
    "copied": 1, "square": (16,), "cell": ("gru",), "variants": ("kernels:torch", "torch.nn"), "parts": throughput.PARTS,
}  # fmt: skip


def test_sizes_vary_one_at_a_time_about_the_first():
    assert list(star(a=(1, 2), b=(10, 20, 30))) == [
        {"a": 1, "b": 10}, {"a": 2, "b": 10}, {"a": 1, "b": 20}, {"a": 1, "b": 30},
    ]  # fmt: skip


@pytest.mark.parametrize("preset", PRESETS)
def test_cells_are_different_and_hold_every_key(preset):
    cells = PRESETS[preset].cells()
    assert len({tuple(cell.items()) for cell in cells}) == len(cells) > 10
    assert all(list(cell) == list(throughput.CELL) for cell in cells)
    assert {cell["part"] for cell in cells} == set(throughput.USUAL)


def test_every_combination_of_sizes_can_be_asked_for():
    sizes = {"batch": "20,10", "hidden": "128,200", "steps": "35", "cell": "gru"}
    study = make("throughput", sizes | {"parts": "trace", "vary": "all"})
    assert [(c["part"], c["cell"], c["direction"], c["batch"], c["hidden"]) for c in study.cells()] == [
        ("trace", "gru", "backward", b, h) for b in (20, 10) for h in (128, 200)
    ]


def test_compiling_is_for_the_first_sizes_only(monkeypatch):
    """It takes longer than everything else; ``compiled=all`` asks for it at every size."""
    entered = []
    monkeypatch.setattr(throughput, "trial", lambda work, entries, *rest: entered.append({e.variant for e in entries}) or [])
    monkeypatch.setattr(Study, "_work", lambda self, cell: None)
    sizes = {"tokens": "8,16", "width": "4", "vocabulary": "10", "direction": "forward", "variants": "torch.nn,torch.compile"}
    for compiled in ("first", "all"):
        study = make("throughput", sizes | {"parts": "cross_entropy", "compiled": compiled})
        for cell in study.cells():
            study.measure(cell)
    both = {"torch.nn", "torch.compile"}
    assert entered == [both, {"torch.nn"}, both, both]


def test_parts_and_dimensions_can_be_chosen():
    study = make("throughput", {"parts": "cross_entropy", "tokens": "32,64", "width": "8", "vocabulary": "100"}, "smoke")
    assert [(c["batch"], c["steps"], c["hidden"], c["vocabulary"]) for c in study.cells()] == [
        (32, 1, 8, 100), (64, 1, 8, 100), (32, 1, 8, 100), (64, 1, 8, 100),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"device": "cuda"}, "needs a CUDA GPU, and there is none here; take --preset cpu"),
        ({"variants": ("kernels:triton",)}, "interpreter are never timed"),
        ({"mode": ("graph",)}, "mode graph and cache cold need a CUDA GPU"),
        ({"cache": ("hot", "cold")}, "mode graph and cache cold need a CUDA GPU"),
        ({"vocabulary": (10**6,), "tokens": (10**7,)}, "GB of memory or more"),
        ({"hidden": (10**5,)}, "GB of memory or more"),
    ],
)
def test_what_cannot_be_measured_here_is_refused(settings, words, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=words):
        Study(**settings).prepare()


def test_the_interpreter_is_never_timed(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(InputError, match="TRITON_INTERPRET is set"):
        PRESETS["smoke"].prepare()


def test_a_preset_without_its_gpu_is_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run_app(app, "studies", ["run", "throughput", "--preset", "gpu", "--out", str(tmp_path / "t.parquet")]) == 2
    assert "device cuda needs a CUDA GPU" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def tiny():
    return Study(**TINY)()


def test_every_part_is_measured_and_agrees(tiny):
    assert set(tiny["status"]) == {"timed"}
    assert (tiny["seconds"] > 0).all() and (tiny["error"] <= tiny["allowed"]).all()
    per_cell = tiny.groupby(list(throughput.CELL))["variant"].nunique()
    assert dict(zip(per_cell.index.get_level_values("part"), per_cell, strict=True)) == {
        "peak": 1, "sequential": 2, "recurrence": 2, "cross_entropy": 2, "training": 2, "trace": 2,
    }  # fmt: skip
    assert complaint(Study(**TINY), tiny) == ""
    assert len(studies.summary(tiny)) == len(tiny) / 2


def test_a_table_is_stored_and_comes_back(tiny, tmp_path, capsys):
    save(tiny.copy(), tmp_path / "t.parquet", "throughput", Study(**TINY), preset="smoke", failed=[{"cell": {}, "error": "x"}])
    table = load(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(table, tiny)
    assert table.attrs["machine"]["versions"]["numpy"] and table.attrs["preset"] == "smoke"
    assert run_app(app, "studies", ["show", "--csv", str(tmp_path / "t.parquet")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(studies.summary(tiny)) + 1 and printed[0].startswith("part,cell,direction")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda t: t.assign(status="splendid"), "a status that is none of"),
        (lambda t: t.assign(hidden=t["hidden"] + 1), "a cell that its parameters do not"),
        (lambda t: pd.concat([t, t.tail(1)]), "a measurement twice"),
    ],
)
def test_a_table_with_a_fault_is_refused(fault, words, tiny):
    assert words in complaint(Study(**TINY), fault(tiny))


# --- planted samples ---------------------------------------------------------------------------------------------------

SIZES = {"batch": (16,), "hidden": (32,), "steps": (64, 16, 32, 128, 256)}


def planted(seconds, part="recurrence", rounds=30, noise=0.01, **columns):
    """A table in which each variant takes ``seconds[variant](steps)``, times noise that rounds share and noise they do not."""
    random = np.random.default_rng(0)
    rows = []
    for steps in SIZES["steps"]:
        mood = random.lognormal(0, 0.3, rounds)
        for variant, law in seconds.items():
            for r in range(rounds):
                row = {
                    "part": part, "cell": "" if part == "sequential" else "lstm", "direction": "forward", "dtype": "float32",
                    "batch": 16, "steps": steps, "hidden": 32, "vocabulary": 0, "variant": variant, "mode": "eager",
                    "cache": "hot", "status": "timed", "note": "", "round": r,
                    "seconds": law(steps) * mood[r] * random.lognormal(0, noise), "error": 1e-7, "allowed": 1e-6,
                    "flops": 1e6 * steps, "bytes": 1e3 * steps, "peak_bytes": 100, "dropped": 0,
                    "clock_mhz": math.nan, "watts": math.nan,
                }  # fmt: skip
                rows.append(row | columns)
    return Study(parts=(part,), direction=("forward",), cell=("lstm",), **SIZES).table(rows)


def verdict(table, key):
    return studies.select(studies.verdicts(table), key).iloc[0]


def test_summary_finds_planted_medians_ratios_and_rates():
    table = planted({"torch.nn": lambda t: 2e-5 * t, "kernels:torch": lambda t: 1e-5 * t})
    about = studies.summary(table).set_index(["variant", "steps"])
    mine = about.loc[("kernels:torch", 64)]
    assert mine["low"] < 64e-5 < mine["high"]
    assert mine["speed"] == pytest.approx(2.0, rel=0.02) and mine["speed_low"] < 2.0 < mine["speed_high"]
    assert mine["compared"] == "faster" and mine["against"] == "torch.nn"
    assert about.loc[("torch.nn", 64), "compared"] == ""
    assert mine["us_per_step"] == pytest.approx(mine["seconds"] / 64 * 1e6)
    assert mine["tokens_per_second"] == pytest.approx(16 * 64 / mine["seconds"])
    assert mine["tflops"] == pytest.approx(64e6 / mine["seconds"] / 1e12)
    assert mine["gbs"] == pytest.approx(64e3 / mine["seconds"] / 1e9)
    assert mine["samples"] == 30


def test_shares_are_of_the_best_peak_of_that_dtype():
    rows = planted({"torch.nn": lambda t: 1e-3}, noise=0.0)
    peaks = []
    for variant, dtype, flops, bytes_ in (
        ("product", "float32", 1e9, 0.0), ("product", "float32", 2e8, 0.0), ("product", "bfloat16", 9e9, 0.0),
        ("copy", "float32", 0.0, 4e6),
    ):  # fmt: skip
        at = {
            "hidden": len(peaks),
            "part": "peak",
            "cell": variant,
            "variant": variant,
            "dtype": dtype,
            "steps": 0,
            "flops": flops,
            "bytes": bytes_,
        }
        peaks.append(rows.head(1).assign(seconds=1e-3, **at))
    table = pd.concat([rows, *peaks])
    table.attrs = rows.attrs
    about = studies.summary(table)
    mine = about[about["steps"] == 64].iloc[0]
    assert mine["of_product"] == pytest.approx(mine["tflops"] / 1.0)
    assert mine["of_copy"] == pytest.approx(mine["gbs"] / 4.0)


@pytest.mark.parametrize(
    ("factor", "word"), [(0.8, "holds"), (1.0, "holds"), (1.2, "fails"), (1.03, "ambiguous")]
)  # 1.03: the noise floor itself
def test_not_slower_is_decided_at_every_size(factor, word):
    table = planted({"torch.nn": lambda t: 1e-5 * t, "kernels:torch": lambda t: 1e-5 * t * factor})
    claim = verdict(table, "not_slower.recurrence.kernels:torch")
    assert claim["verdict"] == word
    assert claim["setting"] == "lstm, forward, float32"


def test_one_size_that_is_slower_is_enough_and_is_named():
    laws = {"torch.nn": lambda t: 1e-5 * t, "kernels:torch": lambda t: 1e-5 * t * (1.5 if t == 128 else 0.5)}
    claim = verdict(planted(laws), "not_slower.recurrence.kernels:torch")
    assert claim["verdict"] == "fails"
    assert "at worst, at B 16, H 32, T 128; of 5 settings" in claim["measured"]
    assert claim["measured"].startswith("0.67 [")


@pytest.mark.parametrize(("factor", "word"), [(0.4, "holds"), (0.5, "ambiguous"), (0.6, "fails")])
def test_a_graph_must_be_twice_as_fast(factor, word):
    table = planted({"torch.nn": lambda t: 1e-5 * t, "kernels:triton-graph": lambda t: 1e-5 * t * factor}, part="training")
    claim = verdict(table, "graph_twice")
    assert claim["verdict"] == word
    assert claim["threshold"] == ">= 2"
    assert verdict(planted({"torch.nn": lambda t: 1.0}, part="training"), "graph_twice")["verdict"] == "not measured"


def test_intervals_that_hold_at_once_are_wider():
    """Five settings, 99% each instead of 95%; of one setting the interval is that of the summary."""
    table = planted({"torch.nn": lambda t: 1e-5, "kernels:torch": lambda t: 1e-5}, noise=0.06)
    about = studies.summary(table)
    mine = about[about["variant"] == "kernels:torch"]
    wide = together(table, mine)
    assert (wide["speed"] == mine["speed"]).all()
    assert (wide["speed_high"] - wide["speed_low"] > 1.1 * (mine["speed_high"] - mine["speed_low"])).all()
    alone = together(table, mine.head(1)).iloc[0]
    assert (alone["speed_low"], alone["speed_high"]) == (mine["speed_low"].iloc[0], mine["speed_high"].iloc[0])


def test_triton_is_not_measured_on_a_cpu():
    claim = verdict(planted({"torch.nn": lambda t: 1.0}), "not_slower.recurrence.kernels:triton")
    assert (claim["measured"], claim["verdict"]) == ("not measured", "not measured")


@pytest.mark.parametrize(
    ("law", "word"), [(lambda t: 1e-5 * t, "holds"), (lambda t: 1e-7 * t**2, "fails"), (lambda t: 1e-3, "fails")]
)
def test_growth_finds_planted_exponents(law, word):
    table = planted({"kernels:torch": law}, noise=0.005)
    table["seconds"] = [law(t) for t in table["steps"]] * np.random.default_rng(0).lognormal(0, 0.01, len(table))
    fits = studies.growth(table)
    assert list(fits["over"]) == ["T"] and list(fits["points"]) == [5]
    true = math.log(law(256) / law(16)) / math.log(16)
    assert fits["low"][0] - 0.02 < true < fits["high"][0] + 0.02
    assert fits["exponent"][0] == pytest.approx(true, abs=0.02)
    assert verdict(table, "proportional")["verdict"] == word


def test_growth_follows_one_size_while_the_others_stay():
    """A cost of B T: the exponent over T is taken where B has its first value, whatever other B were measured."""
    table = planted({"kernels:torch": lambda t: 1e-5 * t}, noise=0.0)
    table["seconds"] = 1e-5 * table["steps"]
    more = table.assign(batch=1, seconds=1.0)  # at an end of the line, where it would tilt it
    both = pd.concat([table, more[more["steps"] == 256]])
    both.attrs = table.attrs
    assert studies.growth(both)["exponent"][0] == pytest.approx(1.0)


@pytest.mark.parametrize(("cost", "word"), [(5.0, "holds"), (1.0, "fails"), (0.2, "fails")])
def test_steps_that_wait_cost_more_than_one_product(cost, word):
    table = planted({"product": lambda t: 1e-6 * t, "steps": lambda t: cost * 1e-6 * t}, part="sequential")
    claim = verdict(table, "waiting")
    assert claim["verdict"] == word
    low, _, high = claim["measured"].split(" times")[0].split(" ")
    assert float(low) == pytest.approx(cost, rel=0.02) and float(high) == pytest.approx(cost, rel=0.02)


@pytest.mark.parametrize(("cost", "word"), [(1.05, "holds"), (1.15, "ambiguous"), (1.3, "fails")])
def test_a_trace_may_cost_little(cost, word):
    table = planted({"untraced": lambda t: 1e-5 * t, "traced": lambda t: cost * 1e-5 * t}, part="trace", cell="gru")
    assert verdict(table, "trace")["verdict"] == word


def test_a_trace_may_cost_more_beside_a_fused_lstm():
    table = planted({"untraced": lambda t: 1e-5 * t, "traced": lambda t: 1.6e-5 * t}, part="trace")
    assert verdict(table, "trace")["verdict"] == "holds"
    mean = studies.listing(table).splitlines()[-1].split()
    assert mean[0] == "mean" and float(mean[1]) == pytest.approx(1 / 1.6, rel=0.02)


def test_what_disagrees_fails_the_first_claim():
    table = planted({"torch.nn": lambda t: 1e-5, "kernels:torch": lambda t: 1e-5})
    assert verdict(table, "right")["verdict"] == "holds"
    wrong = table.assign(status=np.where(table["variant"] == "kernels:torch", "disagrees", "timed"))
    wrong.loc[wrong["status"] == "disagrees", "error"] = 0.5
    wrong.attrs = table.attrs
    claim = verdict(wrong, "right")
    assert claim["verdict"] == "fails"
    assert claim["measured"] == "5 of 10 agree; the largest error of those is 1.0e-07; kernels:torch is wrong by 5.0e-01"
    assert verdict(wrong, "not_slower.recurrence.kernels:torch")["verdict"] == "not measured"


@pytest.mark.parametrize(("peak", "word"), [(50, "holds"), (51, "fails")])
def test_memory_of_the_loss_is_compared_where_logits_are_most(peak, word):
    table = planted({"torch.nn": lambda t: 1e-5, "kernels:torch": lambda t: 1e-5}, part="cross_entropy", cell="")
    table["batch"], table["steps"], table["vocabulary"] = table["steps"], 1, 10
    mine = table["variant"] == "kernels:torch"
    table.loc[mine, "peak_bytes"] = np.where(table.loc[mine, "batch"] == 256, peak, 1000)
    claim = verdict(table, "memory.kernels:torch")
    assert claim["verdict"] == word and "N 256" in claim["setting"]


def test_three_sizes_decide_no_exponent():
    table = planted({"kernels:torch": lambda t: 1e-3}, noise=0.0)
    few = table[table["steps"] <= 64]
    few.attrs = table.attrs
    assert claims.FEW == 4
    assert verdict(few, "proportional")["verdict"] == "ambiguous"
