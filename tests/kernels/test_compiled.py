"""What the compiler makes of the kernels for GPUs that are not there."""

from dataclasses import replace

import pytest

from kernels.compiled import Configuration, Facts, compile_apart, configurations
from kernels.plan import DEVICES

GOOD = Facts(
    shared=65536,
    registers=128,
    stack=0,
    hmma=64,
    hmma_planned=64,
    loads=16,
    loads_of_128_bits=16,
    weight_tiles=2,
    allocated_before_loop=2,
)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({}, None),
        ({"shared": 164 * 1024}, "needs 167936 bytes of shared memory of 166912"),
        ({"stack": 8}, "spills 8 bytes"),
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


def test_configurations_are_what_the_planner_returns() -> None:
    """Both directions of each strategy that fits, and no other."""
    found = list(configurations(["sm_90"], ["lstm"], [(16, 1024)], ["bfloat16"]))
    assert [(c.strategy, c.direction) for c in found] == [
        (strategy, direction) for strategy in ("stepwise", "cooperative") for direction in ("forward", "backward")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(
    ("device", "cell", "batch", "hidden", "dtype", "strategy"),
    [
        ("sm_80", "rnn-tanh", 20, 200, "float16", "resident"),
        ("sm_80", "gru", 20, 200, "bfloat16", "cooperative"),
        ("sm_90", "lstm", 16, 1024, "bfloat16", "cooperative"),
        ("sm_90", "lstm", 20, 650, "float32", "stepwise"),
        ("sm_100", "rnn-relu", 64, 1024, "bfloat16", "cooperative"),
    ],
)
def test_a_plan_compiles_without_fault(
    device: str, cell: str, batch: int, hidden: int, dtype: str, strategy: str, direction: str
) -> None:
    """Fits, spills nothing, loads the state 16 bytes at a time, and holds W on chip before the loop over time."""
    facts = compile_apart(Configuration(device, cell, batch, hidden, dtype, strategy, direction))
    assert isinstance(facts, Facts), facts
    assert facts.faults(DEVICES[device], strategy) == []


@pytest.mark.slow
def test_the_counter_compiles() -> None:
    """The other exchange, too."""
    facts = compile_apart(Configuration("sm_90", "rnn-tanh", 16, 512, "bfloat16", "cooperative", "forward", "counter"))
    assert isinstance(facts, Facts), facts
    assert facts.faults(DEVICES["sm_90"], "cooperative") == []
