"""What the compiler makes of the scans for GPUs that are not there. All that the plans return is compiled by test-all."""

import csv
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.metadata import version

import pytest
from paths import ROOT

from recurrent_lm.kernels.bench.compiled import SWITCHES, Configuration, Facts, held_before_loop, spills_in_loops
from recurrent_lm.kernels.bench.compiler import Compiler
from recurrent_lm.kernels.bench.sweep import TYPICAL_DEVICE, configurations, faults, scans
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


@pytest.mark.parametrize(
    ("device", "cell", "batch", "hidden", "dtype", "strategy", "direction"),
    [
        ("sm_80", "rnn-tanh", 20, 200, "float16", "resident", "forward"),
        ("sm_90", "rnn-tanh", 16, 512, "bfloat16", "cooperative", "backward"),
        ("sm_100", "lstm", 20, 200, "float32", "stepwise", "forward"),
    ],
)
def test_a_plan_compiles_without_fault(
    compiler: Compiler, device: str, cell: str, batch: int, hidden: int, dtype: str, strategy: str, direction: str
) -> None:
    """Fits, spills nothing, loads the state 16 bytes at a time, and holds W on chip before the loop over time."""
    configuration = Configuration(device, cell, batch, hidden, dtype, strategy, direction)
    assert faults(configuration, compiler(configuration)) == []


def published(configuration: Configuration) -> dict[str, str] | None:
    """The row of a kernel in the published table, for this version of Triton; None if there is none that has a walk."""
    with (ROOT / "reports" / "published" / "compile" / "scans.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if (
                row["triton"] == version("triton")
                and row["cycles"]
                and all(row[k] == str(v) for k, v in asdict(configuration).items())
            ):
                return row
    return None


def dearer(configuration: Configuration, facts: Facts) -> list[str]:
    """What a step has more of than in the published table, by more than a twentieth."""
    row = published(configuration)
    costs = ("cycles", "instructions", "barriers", "waited", "spills")
    return [] if row is None else [name for name in costs if getattr(facts, name) > 1.05 * int(row[name])]


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_step_is_no_longer_than_published(compiler: Compiler, direction: str) -> None:
    """Every barrier and load that is waited for counts, and a twentieth of the cycles and instructions."""
    configuration = Configuration("sm_90", "lstm", 20, 768, "bfloat16", "cooperative", direction)
    configuration = next(c for c in scans("sm_90") if replace(c, batch=20, hidden=768) == configuration)
    row, facts = published(configuration), compiler(configuration)
    if row is None:
        pytest.skip(f"the published table has no row of Triton {version('triton')}")
    assert isinstance(facts, Facts), facts
    assert facts.cycles > 0
    assert 0 < facts.barriers < facts.instructions
    assert dearer(configuration, facts) == []
    assert dearer(configuration, replace(facts, cycles=2 * facts.cycles, barriers=2 * facts.barriers)) == ["cycles", "barriers"]


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
    found = {c: faults(c, of) or dearer(c, of) for c, of in facts.items()}
    assert {str(c): wrong for c, wrong in found.items() if wrong} == {}
