"""The kernels' PTX, executed: every cell, plan, exchange and type through the project's own launches, against float64.

What runs is what Triton compiles for a GPU, under a schedule that a seed decides, with stores that others see late. A report of
the machine (a race, an access out of bounds, a deadlock, ...) fails a test as wrong numbers do.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT, SUPPORT

from recurrent_lm.kernels.bench.compiled import Configuration, Facts
from recurrent_lm.kernels.bench.compiler import Compiler
from recurrent_lm.kernels.rnn.cells import CELLS
from recurrent_lm.kernels.rnn.plan import DEVICES, Sizes, choose, step_cycles

Ask = Callable[[dict[str, Any]], dict[str, Any]]
FLOAT32 = 1e-6  # the largest error of float32, relative in norm; some ten roundings
WORSE = 1.5  # than eager torch in the same 16 bits: the kernels keep sums in float32
NO_KINK = 1  # numbers with which no unit of relu is so near zero that one rounding decides its gradient
NARROW = {"block_h": 16, "block_k": 16, "ahead": 4, "warps": 4}  # four programs of 64 units
TURNED = {"block_h": 16, "block_k": 64, "ahead": 1, "warps": 4}  # one wgmma a step and 16 of K, with w_first


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """A process in which kernels are compiled, not interpreted."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    others = [Path(folder) for folder in [os.environ.get("TRITON_FOLDER")] if folder]  # of another version; see the Makefile
    paths = [*others, ROOT, SUPPORT, SUPPORT / "kernels"]
    environment |= {"PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, SUPPORT / "kernels" / "executed.py"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None

    def question(of: dict[str, Any]) -> dict[str, Any]:
        print(json.dumps(of), file=server.stdin, flush=True)
        line = server.stdout.readline()
        assert line, f"the process ended with {server.wait()}"
        answer: dict[str, Any] = json.loads(line)
        assert "raised" not in answer, answer["raised"]
        return answer

    yield question
    server.stdin.close()
    server.terminate()  # it has nothing to lose, and takes seconds to go by itself
    server.wait()
    server.stdout.close()


def check_scan(ask: Ask, spec: dict[str, Any]) -> None:
    answer = ask({"scan": spec})
    assert "fault" not in answer, answer["fault"]
    states = CELLS[spec["cell"]].states
    assert len(answer["errors"]) == 1 + states + 1 + states + 4  # output and states; gradients of input, states and weights
    for ours, eager in zip(answer["errors"], answer["eager"], strict=True):
        assert ours <= (FLOAT32 if spec["dtype"] == "float32" else WORSE * eager), answer


def case(cell: str, plan: str, dtype: str, device: str, **more: Any) -> dict[str, Any]:
    """Fields of ``kernels.bench.ptx.cases.Layer``, and of how it is executed."""
    return {"cell": cell, "plan": plan, "dtype": dtype, "device": device, "hidden": 64, **more}


QUICK = {
    "tanh": case("rnn-tanh", "resident", "bfloat16", "sm_80"),
    "relu": case("rnn-relu", "stepwise", "float32", "sm_90", steps=2),
    "sigmoid": case("rnn-sigmoid", "cooperative", "float16", "sm_80", tiles=NARROW),
    "linear": case("rnn-identity", "cooperative", "float32", "sm_90", exchange="counter", tiles=NARROW),
    "lstm wgmma": case("lstm", "cooperative", "bfloat16", "sm_90", tiles=TURNED, forward={"w_first": True}),
    "lstm counter": case("lstm", "cooperative", "float16", "sm_80", exchange="counter", tiles=NARROW, batch=20),
    "lstm resident": case("lstm", "resident", "float16", "sm_90", hidden=20),
    "lstm norm": case("lstm", "cooperative", "bfloat16", "sm_90", clip=["norm", 1.0], reset=True, tiles=NARROW, in_step=True),
    "lstm norm of small tiles": case(
        "lstm", "cooperative", "bfloat16", "sm_90", exchange="sentinel", clip=["norm", 1.0], tiles=NARROW
    ),
    "gru parts": case("gru", "cooperative", "bfloat16", "sm_80", reset=True, tiles=NARROW, backward={"parts": 4}),
    "gru stepwise": case("gru", "stepwise", "bfloat16", "sm_90", steps=2, reset=True),
    "gru planned": case("gru", "cooperative", "bfloat16", "sm_90", hidden=128, in_step=True),
}


@pytest.mark.parametrize("name", QUICK)
def test_a_layer_and_its_gradients_are_right(ask: Ask, name: str) -> None:
    check_scan(ask, QUICK[name])


def combinations() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every cell, plan, exchange, type and architecture."""
    plans = [("stepwise", ""), ("resident", ""), ("cooperative", "sentinel"), ("cooperative", "counter")]
    for cell, (plan, exchange), dtype, device in product(CELLS, plans, ("bfloat16", "float16", "float32"), ("sm_80", "sm_90")):
        more = {"exchange": exchange, "tiles": NARROW} if exchange else {}
        hidden = 16 if plan == "resident" and dtype == "float32" else 64
        spec = case(cell, plan, dtype, device, **more) | {"hidden": hidden, "schedule": 1, "seed": NO_KINK}
        yield f"{cell} {plan} {exchange} {dtype} {device}".replace("  ", " "), spec
    for cell, device in product(("lstm", "gru", "rnn-tanh"), ("sm_80", "sm_90")):
        switches: list[dict[str, Any]] = [
            {"clip": ["value", 0.1]},
            {"clip": ["norm", 0.5]},
            {"recompute": True},
            {"trace": True},
            {"batch": 40},
        ]
        for switch in switches:
            for exchange, reset in (("sentinel", True), ("counter", False)):
                spec = case(cell, "cooperative", "bfloat16", device, tiles=NARROW, exchange=exchange, reset=reset, **switch)
                name = f"clip {switch['clip'][0]}" if "clip" in switch else next(iter(switch))
                yield f"{cell} {exchange} {name} {device}", spec | {"schedule": 2}
    for cell, dtype, device in product(("lstm", "gru", "rnn-tanh"), ("bfloat16", "float32"), ("sm_80", "sm_90")):
        for batch, hidden in ((16, 512), (64, 1024)):
            if (batch, dtype) != (64, "float32"):
                sizes = {"batch": batch, "hidden": hidden, "in_step": True, "steps": 2}
                yield f"{cell} {dtype} {device} {hidden}", case(cell, "cooperative", dtype, device) | sizes


ALL = dict(combinations())
assert len(ALL) == len(list(combinations())), "two combinations have one name, so one of them would not run"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ALL)
def test_every_layer_is_right(ask: Ask, name: str) -> None:
    check_scan(ask, ALL[name])


@pytest.mark.parametrize(("device", "exchange"), [("sm_80", "sentinel"), ("sm_90", "counter")])
def test_the_exchange_alone_is_right(ask: Ask, device: str, exchange: str) -> None:
    """Five programs, of which the last ones own nothing, under several schedules."""
    for schedule in range(3):
        spec = {"exchange": exchange, "programs": 5, "bytes": 1024, "dtype": "float16", "device": device, "schedule": schedule}
        answer = ask({"exchange": spec})
        assert "fault" not in answer, answer["fault"]
        assert answer["error"] <= 2e-3  # two roundings of numbers below 2


def check_loss(ask: Ask, spec: dict[str, Any]) -> None:
    answer = ask({"loss": spec})
    assert "fault" not in answer, answer["fault"]
    single = spec["dtype"] == "float32"
    assert answer["best"][0] == 1.0
    assert answer["best"][1] == 1.0 or not single  # of logits that are rounded to 16 bits the largest may be another
    assert answer["cut"][0] <= FLOAT32  # its logits are never rounded to the dtype
    allowed = FLOAT32 if single else 5e-3  # gradients of 16 bits are rounded to them
    assert max(answer["cut"] + answer["chunked"]) <= allowed, answer


HARD = {"softcap": 2.0, "label_smoothing": 0.1, "z_loss": 1e-3}
LOSSES = {
    "plain sm_90": {"n": 40, "d": 72, "v": 300, "dtype": "bfloat16", "device": "sm_90"},
    "all terms sm_80": {"n": 20, "d": 40, "v": 200, "dtype": "float32", "device": "sm_80", "weight": True, "terms": HARD},
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_and_its_gradients_are_right(ask: Ask, name: str) -> None:
    spec = LOSSES[name] | {"in_step": True}
    if os.environ.get("TRITON_FOLDER") and spec["device"] == "sm_90":  # Triton 3.6 leaves out the fence behind cp.async
        assert "no fence.proxy.async" in ask({"loss": spec})["fault"]
    else:
        check_loss(ask, spec)


@pytest.mark.parametrize(("device", "dtype"), [("sm_80", "bfloat16"), ("sm_90", "float16")])
def test_filtered_gradients_are_right(ask: Ask, device: str, dtype: str) -> None:
    if os.environ.get("TRITON_FOLDER") and device == "sm_90":
        pytest.skip("Triton 3.6 leaves out the fence behind cp.async")
    spec = {"n": 140, "d": 40, "v": 300, "dtype": dtype, "device": device, "in_step": True, "filter_eps": 0.3}
    answer = ask({"loss": spec})
    assert "fault" not in answer, answer["fault"]
    assert 0.05 < answer["dropped"] < 0.95, answer
    assert max(answer["cut"]) <= 5e-3, answer


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("device", ["sm_80", "sm_90"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("terms", [{}, HARD])
def test_every_loss_is_right(ask: Ask, device: str, dtype: str, terms: dict[str, Any]) -> None:
    sizes = {"n": 150, "d": 136, "v": 600, "weight": bool(terms), "schedule": 1, "in_step": True}
    check_loss(ask, {"dtype": dtype, "device": device, "terms": terms, **sizes})


EXCHANGED = {"cell": "lstm", "hidden": 64, "plan": "cooperative"}
BY_SENTINEL = EXCHANGED | {"tiles": TURNED, "forward": {"w_first": True}}
BY_COUNTER = EXCHANGED | {"exchange": "counter", "device": "sm_80", "tiles": NARROW}
OF_SENTINEL = [
    "volatile weak",
    "trans dropped",
    "fence dropped",
    "swizzle changed",
    "product not waited for",
    "branch inverted",
]
OF_COUNTER = ["acquire relaxed", "release relaxed", "trans dropped", "branch inverted"]


@pytest.mark.parametrize(
    ("layer", "kinds"), [(BY_SENTINEL, OF_SENTINEL), (BY_COUNTER, OF_COUNTER)], ids=["sentinel", "counter"]
)
def test_changes_of_the_code_are_noticed(ask: Ask, layer: dict[str, Any], kinds: list[str]) -> None:
    """The first places of each kind of change; the rest, and each barrier, in the slow test."""
    answer = ask({"mutants": {"layer": layer, "kinds": kinds, "most": 1, "seeds": [1]}})
    assert set(answer) == set(kinds)
    assert [kind for kind in kinds if answer[kind]["missed"]] == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("layer", "kinds"), [(BY_SENTINEL, OF_SENTINEL), (BY_COUNTER, OF_COUNTER)], ids=["sentinel", "counter"]
)
def test_every_change_of_the_code_is_noticed(ask: Ask, layer: dict[str, Any], kinds: list[str]) -> None:
    """Some barriers may go unnoticed: of two in a row one is enough, and some separate lanes of one warp."""
    answer = ask({"mutants": {"layer": layer, "kinds": [*kinds, "barrier dropped"]}})
    barriers = answer.pop("barrier dropped")
    assert {kind: found["missed"] for kind, found in answer.items() if found["missed"]} == {}
    noticed = len(barriers["noticed"])
    assert noticed >= 0.85 * (noticed + len(barriers["missed"])), barriers["missed"]


# What a step of one program costs, at most: bank conflicts as a factor, barriers of each warp, those of a further look,
# instructions of all warps, cycles of a walk. These are what Triton 3.6 and 3.9 make of the kernels today, the larger of both,
# and some 5% more: a change that makes a step longer fails.
COSTS = {
    "lstm bfloat16 sm_90": {"scan_forward": (1.05, 7, 3, 1_800, 2_700), "scan_backward": (1.05, 10, 3, 2_000, 3_400)},
    "lstm float32 sm_90": {"scan_forward": (1.25, 5, 3, 15_400, 5_800), "scan_backward": (1.05, 22, 3, 15_000, 5_700)},
    "gru bfloat16 sm_80": {"scan_forward": (1.05, 9, 3, 1_800, 2_800), "scan_backward": (1.3, 10, 3, 1_800, 3_400)},
}


@pytest.mark.parametrize("name", COSTS)
def test_a_step_costs_no_more_than_it_did(ask: Ask, name: str) -> None:
    cell, dtype, device = name.split()
    answer = ask({"cost": {"cell": cell, "hidden": 512, "batch": 16, "plan": "cooperative", "dtype": dtype, "device": device}})
    assert set(answer) == set(COSTS[name])
    for kernel, (conflicts, barriers, look, instructions, cycles) in COSTS[name].items():
        step = answer[kernel]
        assert 0 < step["memory"]["least"] <= step["memory"]["wavefronts"] <= conflicts * step["memory"]["least"], step
        assert 0 < step["instructions"]["barriers"] <= barriers * step["warps"], step
        assert 0 < sum(step["instructions"].values()) <= instructions, step
        assert 0 < step["look"] <= look
        assert 0 < step["cycles"] <= cycles, step
        assert step["cycles"] <= step["crowded"]
        assert step["spills"] == 0
        # What the planner takes a step to cost: the walk without what it waits for, the look and the meeting of parts.
        plan = choose(16, 100, 512, cell, dtype, DEVICES[device], "cooperative")
        tiles, slots = (plan.forward if kernel == "scan_forward" else plan.backward), CELLS[cell].slots
        forward = kernel == "scan_forward"
        sizes = Sizes(16, 512, 512 if forward else 512 * slots, slots if forward else 1, 2 if dtype == "bfloat16" else 4)
        trips = 600 * (1 if tiles.parts == 1 else 2)
        assert step_cycles(sizes, tiles) == pytest.approx(step["crowded"] - trips, rel=0.25), step


@pytest.mark.parametrize(("cell", "device", "dtype", "plan", "hidden"), [
    ("gru", "sm_80", "bfloat16", "resident", 64), ("lstm", "sm_90", "float32", "cooperative", 128),
])  # fmt: skip
def test_a_program_alone_has_the_wavefronts_of_a_layer_s(
    ask: Ask, cell: str, device: str, dtype: str, plan: str, hidden: int
) -> None:
    """The columns of the compile tables, which need no tensors, against the project's own launches."""
    if os.environ.get("TRITON_FOLDER"):
        pytest.skip("the compiler of the tables is that of this Python")
    answer = ask({"cost": {"cell": cell, "hidden": hidden, "batch": 16, "plan": plan, "dtype": dtype, "device": device}})
    with Compiler() as compiler:
        for kernel, step in answer.items():
            facts = compiler(Configuration(device, cell, 16, hidden, dtype, plan, kernel.removeprefix("scan_")))
            assert isinstance(facts, Facts), facts
            memory = step["memory"]
            assert (facts.wavefronts, facts.conflict_free) == (round(memory["wavefronts"]), round(memory["least"]))
            assert facts.crowded == pytest.approx(step["crowded"], rel=0.02)


# The same of one program of the losses' kernels, for 128 rows, 128 features and 1,024 classes: bank conflicts, barriers of each
# warp, instructions of all warps, cycles of the innermost loop. Float32's products in tiles, which no plan chooses by itself,
# have conflicts.
LOSS_COSTS = {
    "bfloat16": {
        "tiles_forward": (1.05, 47, 72_000, 500),
        "tiles_backward": (1.05, 7, 12_600, 500),
        "tiles_combine": (1.05, 0, 410, 0),
        "rows_forward": (1.05, 3, 1_460, 0),
        "rows_backward": (1.05, 0, 1_270, 0),
        "kept_product": (1.05, 7, 5_400, 500),
    },
    "float32": {
        "tiles_forward": (7.4, 156, 443_000, 1_490),
        "tiles_backward": (7.4, 11, 27_000, 1_480),
        "tiles_combine": (1.05, 0, 410, 0),
        "rows_forward": (1.05, 3, 1_410, 0),
        "rows_backward": (1.05, 0, 1_160, 0),
        "kept_product": (1.05, 12, 22_200, 1_480),
    },
}


@pytest.mark.parametrize("dtype", LOSS_COSTS)
def test_a_loss_costs_no_more_than_it_did(ask: Ask, dtype: str) -> None:
    answer = ask({"loss cost": {"dtype": dtype, "features": 128, "classes": 1024}})
    assert set(answer) == set(LOSS_COSTS[dtype])
    for kernel, (conflicts, barriers, instructions, cycles) in LOSS_COSTS[dtype].items():
        body = answer[kernel]
        assert body["memory"]["wavefronts"] <= conflicts * body["memory"]["least"], (kernel, body)
        assert body["instructions"].get("barriers", 0) <= barriers * body["warps"], (kernel, body)
        assert 0 < sum(body["instructions"].values()) <= instructions, (kernel, body)
        assert (cycles > 0) == (body["cycles"] > 0), (kernel, body)
        assert body["cycles"] <= cycles, (kernel, body)
        assert body["spills"] == 0
