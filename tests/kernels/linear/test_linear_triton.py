"""The Triton scan of minGRU in the interpreter against the eager backend in float64."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accuracy import near
from linear_cases import Layer
from scan_checks import error

from recurrent_lm.kernels.linear import ops


@pytest.fixture(autouse=True)
def _unwritten_is_nan() -> Iterator[None]:
    """Memory that nobody wrote is NaN, so that reading it shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four steps and two units a tile, so that short sequences have several."""
    monkeypatch.setattr(ops, "STEPS", 4)
    monkeypatch.setattr(ops, "UNITS", 2)


# T = 1 has no step before it; 4 fills a tile, 5 begins a second one, 11 has three; H = 3 leaves half a tile of units
@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 2, 2), (5, 1, 3), (11, 2, 3)], ids=str)
@pytest.mark.usefixtures("small_tiles")
def test_float64(shape: tuple[int, int, int]) -> None:
    """To rounding, with the norms of the trace, with and without resets and bias."""
    for bias in (True, False):
        case = Layer(*shape, bias=bias)
        for reset in (None, case.reset, torch.ones_like(case.reset)):
            got, truth = (case.traced(backend=name, reset=reset) for name in ("triton", "eager"))
            assert error(got[:-1], truth[:-1]) < 1e-14
            torch.testing.assert_close(got[-1], truth[-1], rtol=1e-7, atol=1e-12)


def test_tiles_of_the_launch() -> None:
    """The sizes that run: a second tile of steps begins."""
    case = Layer(ops.STEPS + 1, 1, 3)
    assert error(case(backend="triton", reset=case.reset), case(backend="eager", reset=case.reset)) < 1e-14


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_errors_are_at_most_twice_those_of_eager(dtype: torch.dtype) -> None:
    case = Layer(9, 3, 5, dtype)
    near(case(dtype, backend="triton"), case(dtype, backend="eager"), case(backend="eager"))


@pytest.mark.usefixtures("small_tiles")
def test_two_passes_are_one() -> None:
    """Tiles begin elsewhere, so that the order of the sums differs, by a rounding."""
    case = Layer(9, 2, 3)
    x, h, *weights = case.tensors
    whole, _ = case.run(x, h, *weights, backend="triton")
    parts = []
    for piece in x.split(5):
        output, h = case.run(piece, h, *weights, backend="triton")
        parts.append(output)
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-15, atol=1e-15)


@pytest.mark.usefixtures("small_tiles")
def test_saturated_gates_neither_overflow_nor_lose_the_state() -> None:
    """z = 800 takes the candidate, z = -800 keeps the state, and gradients are finite."""
    case = Layer(6, 1, 2)
    case.tensors[0] *= 1000
    got, truth = case(backend="triton"), case(backend="eager")
    assert error(got, truth) < 1e-13


@pytest.mark.usefixtures("small_tiles")
def test_a_nan_stays_in_its_row_and_a_reset_ends_it() -> None:
    case = Layer(6, 3, 2)
    case.tensors[0][2, 1, 0] = torch.nan
    reset = torch.zeros_like(case.reset)
    reset[4, 1] = True
    got, truth = (case(backend=name, reset=reset) for name in ("triton", "eager"))
    assert all(torch.equal(a.isnan(), b.isnan()) for a, b in zip(got[:3], truth[:3], strict=True))
    assert got[0][2:4, 1].isnan().all()
    assert got[0][4:].isfinite().all()


@pytest.mark.parametrize("size", ["batch", "none"])
def test_an_empty_batch_has_empty_results(size: str) -> None:
    case = Layer(3, 0 if size == "batch" else 1, 2)
    results: Any = case(backend="triton")
    assert [list(r.shape) for r in results[:2]] == [[3, len(case.reset[0]), 2], [len(case.reset[0]), 2]]


def test_the_interpreter_refuses_bfloat16() -> None:
    case = Layer(2, 1, 2)
    with pytest.raises(ValueError, match="bfloat16"):
        case(torch.bfloat16, backend="triton")
