"""The loss's bodies compiled for GPUs that need not be there: no spills, tiles that fit, loads of 128 bits."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from recurrent_lm.kernels.bench.compiled_loss import Configuration, Facts
from recurrent_lm.kernels.bench.compiler import Compiler
from recurrent_lm.kernels.bench.sweep import faults, losses
from recurrent_lm.kernels.rnn.plan import DEVICES

pytest.importorskip("triton.backends.nvidia")
GOOD = Facts(shared=1024, registers=64, stack=0, spills=0, loads_of_128_bits=4, loads_of_16_bits=1, asserts=False)


@pytest.fixture(scope="module")
def compiler() -> Iterator[Compiler]:
    with Compiler() as running:
        yield running


@pytest.mark.parametrize(
    ("changed", "body", "fault"),
    [
        ({}, "tiles_forward", None),
        ({"stack": 8, "spills": 5}, "rows_forward", "spills 5 times a tile, 8 bytes"),
        ({"stack": 16, "spills": 4}, "tiles_forward", None),
        ({"shared": 2**18}, "tiles_backward", "needs 262144 bytes of shared memory of 232448"),
        ({"loads_of_128_bits": 3}, "tiles_forward", "3 loads of 128 bits instead of 4"),
        ({"loads_of_128_bits": 1}, "rows_backward", "1 loads of 128 bits instead of 2"),
        ({"loads_of_16_bits": 2}, "rows_forward", "2 loads of 16 bits"),
        ({"loads_of_128_bits": 0, "loads_of_16_bits": 9}, "tiles_combine", None),  # it reads three numbers a row
    ],
    ids=str,
)
def test_faults(changed: dict[str, int], body: str, fault: str | None) -> None:
    """Each way to be wrong is named, alone."""
    assert replace(GOOD, **changed).faults(DEVICES["sm_90"], body) == ([] if fault is None else [fault])


@pytest.mark.parametrize(
    ("device", "body", "v", "d"), [("sm_90", "rows_forward", 10_000, 512), ("sm_80", "tiles_forward", 10_000, 200)]
)
def test_compiles(compiler: Compiler, device: str, body: str, v: int, d: int) -> None:
    """One body of each kind; the features (200) are no multiple of 16 elements, only of 16 bytes."""
    configuration = Configuration(device, body, v, d, "bfloat16")
    assert faults(configuration, compiler(configuration)) == []


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("device", list(DEVICES))
def test_every_body_compiles_without_fault(compiler: Compiler, device: str) -> None:
    """Vocabularies and features of language models, as in the published table."""
    found = {c: faults(c, compiler(c)) for c in losses(device)}
    assert {str(c): wrong for c, wrong in found.items() if wrong} == {}


@pytest.mark.slow
@pytest.mark.parametrize("body", ["rows_forward", "tiles_forward"])
def test_wrong_targets_stop_a_debug_build(compiler: Compiler, body: str) -> None:
    """With TRITON_DEBUG=1 a target that is no class is a device assertion; without it there is none to pay for."""
    configuration = Configuration("sm_90", body, 10_000, 200, "bfloat16")
    assert compiler(replace(configuration, debug=True)).asserts
    assert not compiler(configuration).asserts


@pytest.mark.slow
@pytest.mark.parametrize("body", ["rows_forward", "rows_backward", "tiles_forward", "tiles_backward"])
def test_compiles_in_float64(compiler: Compiler, body: str) -> None:
    """The type that no language model uses, and gradient checks do."""
    configuration = Configuration("sm_90", body, 10_000, 512, "float64")
    assert faults(configuration, compiler(configuration)) == []
