"""What the compiler makes of the scans for GPUs that are not there. All that the plans return is compiled by test-all."""

import csv
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any

import pytest
from paths import ROOT

from recurrent_lm.kernels.bench.compiled import SWITCHES, Configuration, Facts, held_before_loop, spills_in_loops
from recurrent_lm.kernels.bench.compiled_loss import Configuration as LossConfiguration
from recurrent_lm.kernels.bench.compiled_loss import Facts as LossFacts
from recurrent_lm.kernels.bench.compiler import Compiler
from recurrent_lm.kernels.bench.sweep import TYPICAL_DEVICE, as_line, chosen, configurations, conflicts, faults, scans
from recurrent_lm.kernels.loss import plan as loss_plan
from recurrent_lm.kernels.rnn import plan as plans
from recurrent_lm.kernels.rnn.plan import DEVICES

GOOD = Facts(
    shared=65536,
    registers=128,
    stack=0,
    spills=0,
    hmma=64,
    hmma_planned=64,
    loads=16,
    loads_of_128_bits=16,
    weight_tiles=2,
    allocated_before_loop=2,
)


@pytest.fixture(scope="module")
def compiler() -> Iterator[Compiler]:
    with Compiler() as running:
        yield running


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({}, None),
        ({"shared": 164 * 1024}, "needs 167936 bytes of shared memory of 166912"),
        ({"stack": 8, "spills": 5}, "spills 5 times a step, 8 bytes"),
        ({"stack": 8, "spills": 4}, None),  # two numbers, put aside and read back
        ({"hmma": 65}, "65 HMMA instead of 64"),
        ({"hmma": 65, "hmma_planned": 0}, None),  # float32 has none planned
        ({"loads_of_128_bits": 15}, "loads of the state are not all of 128 bits"),
        ({"loads": 0, "loads_of_128_bits": 0}, "no loads of the state were found"),
        ({"allocated_before_loop": 1}, "W is not all on chip before the loop"),
    ],
    ids=str,
)
def test_faults(changed: dict[str, int], fault: str | None) -> None:
    """Each way to be wrong is named, alone."""
    assert replace(GOOD, **changed).faults(DEVICES["sm_80"], "cooperative") == ([] if fault is None else [fault])


def test_spills_are_counted_in_the_loop_over_time() -> None:
    """Machine code with a loop over batch tiles from 0020 to 0090, in it one over time from 0040 to 0070 with two ways back."""
    lines = {
        "0010": "STL [R1], R0", "0020": "S2R R0", "0030": "STL [R1+0x4], R2", "0040": "LDL R3, [R1]", "0050": "@P0 BRA 0x40",
        "0060": "STL.64 [R1], R4", "0070": "@!P1 BRA.U 0x40", "0080": "LDL R2, [R1+0x4]",
        "0090": "BRA 0x20", "00a0": "BRA 0xb0",
    }  # fmt: skip
    code = "\n".join(f"        /*{at}*/   {what} ;   /* 0x000 */\n   /* 0x0aa */" for at, what in lines.items())
    assert [spills_in_loops(code, depth) for depth in (0, 1, 2, 3)] == [5, 4, 2, 0]


def test_tiles_are_held_before_the_loop() -> None:
    """One in shared memory, one in registers, one that each step stores anew, one that each step loads anew."""
    ttgir = """
        %w_1 = tt.load %p_1 : tensor<64x16x!tt.ptr<bf16>, #blocked>
        %s_1 = ttg.local_alloc %w_1 : (tensor<64x16xbf16>) -> !ttg.memdesc<64x16xbf16>
        %w_11 = tt.load %p_2 : tensor<64x16x!tt.ptr<bf16>, #blocked>
        %w_3 = tt.load %p_3 : tensor<64x16x!tt.ptr<bf16>, #blocked>
        scf.for %t = %c0 to %steps step %c1 : i32 {
          %d = ttg.convert_layout %w_11 : tensor<64x16xbf16> -> tensor<64x16xbf16>
          %s_3 = ttg.local_alloc %w_3 : (tensor<64x16xbf16>) -> !ttg.memdesc<64x16xbf16>
          %w_4 = tt.load %p_4 : tensor<64x16x!tt.ptr<bf16>, #blocked>
    """
    assert held_before_loop(ttgir) == 2


def test_configurations_are_what_the_planner_returns() -> None:
    """Both directions of each strategy that fits, and no other."""
    found = list(configurations("sm_90", "lstm", 16, 1024, "bfloat16"))
    assert [(c.strategy, c.direction) for c in found] == [
        (strategy, direction) for strategy in ("stepwise", "cooperative") for direction in ("forward", "backward")
    ]


@pytest.mark.parametrize(("cell", "batch", "hidden"), [("lstm", 16, 768), ("rnn-tanh", 3, 50), ("gru", 128, 1024)])
def test_the_sweep_has_every_kernel_once(cell: str, batch: int, hidden: int) -> None:
    """What a size needs is compiled at this size or at one with the same tiles; and nothing is compiled twice."""
    swept = scans("sm_90")
    assert len(set(swept)) == len(swept)

    def kernel(c: Configuration) -> object:
        plan = plans.choose(c.batch, 100, c.hidden, c.cell, c.dtype, DEVICES[c.device], c.strategy, c.exchange)
        return c.cell, c.dtype, c.strategy, plan.exchange, c.direction, getattr(plan, c.direction), c.switch

    kernels = [kernel(c) for c in swept]
    assert len(set(kernels)) == len(kernels)
    assert {kernel(c) for c in configurations("sm_90", cell, batch, hidden, "bfloat16")} <= set(kernels)
    for switch in SWITCHES:
        assert any(c.switch == switch and c.strategy == "cooperative" for c in swept)
    assert {c.exchange for c in swept if c.device == TYPICAL_DEVICE} == {"sentinel", "counter"}


TABLE = ROOT / "reports" / "published" / "compile"


def published(table: str, configuration: Any) -> dict[str, str] | None:
    """The row of a kernel in a published table, for this version of Triton; None if there is none that has a walk."""
    with (TABLE / table).open(newline="") as file:
        for row in csv.DictReader(file):
            same = all(row[name] == str(value) for name, value in asdict(configuration).items())
            if row["triton"] == version("triton") and row.get("cycles") and same:
                return row
    return None


COSTS = ("cycles", "instructions", "barriers", "waited", "spills", "wavefronts", "crowded", "around")


def dearer(row: dict[str, str] | None, facts: Any) -> list[str]:
    """What a step has more of than in a row of the published table, by more than a twentieth."""
    if row is None:
        return []
    found = asdict(facts)
    return [name for name in COSTS if row.get(name) and found.get(name) is not None and found[name] > 1.05 * int(row[name])]


KERNELS = {  # few, of every device, cell, type and strategy; the sizes are those of the table
    "sm_80 tanh": ("sm_80", "rnn-tanh", 20, 256, "bfloat16", "resident", "forward"),
    "sm_80 LSTM": ("sm_80", "lstm", 20, 512, "bfloat16", "cooperative", "backward"),
    "sm_90 LSTM": ("sm_90", "lstm", 16, 768, "bfloat16", "cooperative", "forward"),
    "sm_90 LSTM backward": ("sm_90", "lstm", 64, 1024, "bfloat16", "cooperative", "backward"),
    "sm_90 GRU": ("sm_90", "gru", 20, 512, "float32", "cooperative", "forward"),
    "sm_90 counter": ("sm_90", "lstm", 16, 768, "bfloat16", "cooperative", "backward", "counter"),
    "sm_100 LSTM": ("sm_100", "lstm", 20, 2048, "float32", "stepwise", "forward"),
}


@pytest.mark.parametrize("name", KERNELS)
def test_a_plan_compiles_without_fault_and_no_step_is_longer(compiler: Compiler, name: str) -> None:
    """Fits, spills nothing, loads the state 16 bytes at a time, holds W on chip before the loop over time; and each barrier,
    load that is waited for and spill counts, and a twentieth of the rest.
    """
    kernel = Configuration(*KERNELS[name])
    facts = compiler(kernel)
    assert isinstance(facts, Facts), facts
    assert faults(kernel, facts) == []
    assert facts.cycles > 0
    assert 0 < facts.barriers < facts.instructions
    row = published("scans.csv", kernel)
    if row is None:
        pytest.skip(f"the published table has no row of Triton {version('triton')}")
    assert dearer(row, facts) == []
    assert dearer(row, replace(facts, cycles=2 * facts.cycles, barriers=2 * facts.barriers)) == ["cycles", "barriers"]


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("device", ["sm_90", "sm_100"])
def test_w_first_is_multiplied_by_groups_of_warps(compiler: Compiler, device: str, direction: str) -> None:
    """At 16 rows of batch nothing is left to single warps' products (HMMA): wgmma or tcgen05 multiply."""
    configuration = Configuration(device, "lstm", 16, 768, "bfloat16", "cooperative", direction)
    assert getattr(plans.choose(16, 100, 768, "lstm", "bfloat16", DEVICES[device], "cooperative"), direction).w_first
    facts = compiler(configuration)
    assert isinstance(facts, Facts), facts
    assert facts.hmma == 0 < facts.hmma_planned


def test_a_failure_is_a_sentence_and_the_next_kernel_compiles(compiler: Compiler) -> None:
    """A compilation that fails, or whose process dies, takes no other with it."""
    good = Configuration("sm_80", "rnn-tanh", 20, 200, "float16", "resident", "forward")
    assert compiler(replace(good, strategy="fast")).startswith("ValueError: plan must be one of stepwise, resident")
    assert isinstance(compiler(good), Facts)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float16"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn-tanh", "rnn-relu", "rnn-sigmoid", "rnn-identity"])
@pytest.mark.parametrize("device", list(DEVICES))
def test_every_plan_compiles_without_fault(compiler: Compiler, device: str, cell: str, dtype: str) -> None:
    """All of them, as in the published table, and none with a longer step."""
    facts = {c: compiler(c) for c in scans(device) if (c.cell, c.dtype) == (cell, dtype)}
    found = {c: faults(c, of) or dearer(published("scans.csv", c), of) for c, of in facts.items()}
    assert {str(c): wrong for c, wrong in found.items() if wrong} == {}


LOSSES = {
    "sm_90": ("sm_90", "tiles_forward", 32_000, 512, "bfloat16"),
    "sm_90 backward": ("sm_90", "tiles_backward", 32_000, 512, "bfloat16"),
    "sm_80": ("sm_80", "tiles_backward", 32_000, 512, "bfloat16"),
    "rows": ("sm_90", "rows_forward", 32_000, 512, "bfloat16"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_compiles_without_fault_and_costs_what_it_did(compiler: Compiler, name: str) -> None:
    kernel = LossConfiguration(*LOSSES[name])
    facts = compiler(kernel)
    assert isinstance(facts, LossFacts), facts
    assert faults(kernel, facts) == []
    assert 0 < facts.barriers < facts.instructions < facts.cycles
    assert facts.wavefronts == facts.conflict_free
    if kernel.device == "sm_90" and kernel.body in loss_plan.ROUND:  # what ``explain_linear_cross_entropy`` counts with
        assert facts.cycles == pytest.approx(loss_plan.ROUND[kernel.body], rel=0.05)
        assert facts.around == pytest.approx(loss_plan.TILE if kernel.body == "tiles_forward" else 0, rel=0.05)
    row = published("losses.csv", kernel)
    if row is None:
        pytest.skip(f"the published table has no row of Triton {version('triton')}")
    assert dearer(row, facts) == []


def test_kernels_with_bank_conflicts_are_named() -> None:
    """Each kernel that the planner chooses has at most 1.25 times the wavefronts of none with conflicts, or is in the list."""
    lines = [line for line in (TABLE / "README.md").read_text().splitlines() if line.startswith("| 3.")]
    assert lines == [as_line(factor, row) for factor, row in conflicts(TABLE / "scans.csv")]


def test_the_planner_s_choices_are_in_the_sweep() -> None:
    """The kernels that a size runs, whatever size of the sweep it is."""
    kernels = chosen("sm_90")
    assert set(kernels) <= set(scans("sm_90"))
    best = plans.choose(16, 100, 768, "lstm", "bfloat16", DEVICES["sm_90"])
    for direction in ("forward", "backward"):
        c = Configuration("sm_90", "lstm", 16, 768, "bfloat16", best.strategy, direction)
        assert c in kernels
        assert replace(c, exchange="counter") in scans("sm_90")
        assert replace(c, exchange="counter") not in kernels
