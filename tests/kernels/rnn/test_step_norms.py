"""The norms of single steps' weight gradients, both ways and in pieces, against these gradients themselves."""

import pytest
import torch

from recurrent_lm.kernels.rnn import trace as file
from recurrent_lm.kernels.rnn.trace import step_norms

# T, B, H, W: few rows, for which products of rows are cheaper, as many as make both alike, and many; one of everything
SIZES = [(5, 3, 7, 28), (3, 4, 8, 8), (4, 40, 6, 24), (1, 1, 1, 1)]


@pytest.mark.parametrize("elements", [1 << 24, 1], ids=["at once", "step by step"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_norms_of_the_gradients(
    dtype: torch.dtype, size: tuple[int, ...], elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To rounding of the accumulator: halves are not rounded on the way. h may be part of a wider buffer."""
    steps, batch, hidden, width = size
    monkeypatch.setattr(file, "ELEMENTS", elements)
    generator = torch.Generator().manual_seed(0)
    h = (100 * torch.randn(steps, batch, hidden + 3, generator=generator)).to(dtype)[:, :, :hidden]
    d = (100 * torch.randn(steps, batch, width, generator=generator)).to(dtype)
    found = step_norms(h[0], h[1:], d)
    expected = torch.stack([torch.linalg.matrix_norm(d[t].double().T @ h[t].double()) for t in range(steps)])
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert found.dtype == wide
    torch.testing.assert_close(found.double(), expected, rtol=1e-12 if wide == torch.float64 else 1e-6, atol=0)


def test_rows_that_cancel_and_rows_of_nan() -> None:
    """Where rows cancel nothing is left but rounding, and never the root of a negative number; a NaN stays in its step."""
    h, d = torch.ones(3, 2, 4), torch.ones(3, 2, 4)
    d[0, 1], h[1, 0, 0] = -1, torch.nan
    found = step_norms(h[0], h[1:], d)
    assert found[0] == 0
    assert found[1].isnan()
    assert found[2] == 8


def test_a_state_of_zero_does_not_change_the_other_steps() -> None:
    """As before the first batch: the norm is exactly 0."""
    generator = torch.Generator().manual_seed(0)
    h, d = (torch.randn(3, 2, n, generator=generator) for n in (7, 28))
    plain = step_norms(h[0], h[1:], d)
    found = step_norms(torch.zeros_like(h[0]), h[1:], d)
    assert found[0] == 0
    assert torch.equal(found[1:], plain[1:])


@pytest.mark.parametrize("batch", [3, 40], ids=["rows", "gradients"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("of_h", "of_d"), [(0, 25), (0, -30), (15, 15), (30, -38), (-20, 36), (0, -39)])
def test_norms_whose_squares_are_no_float32(dtype: torch.dtype, batch: int, of_h: int, of_d: int) -> None:
    """Powers of ten of h and d; each of the products has a norm that float32 can hold. Other steps keep their bits."""
    generator = torch.Generator().manual_seed(0)
    h, d = (torch.randn(3, batch, n, generator=generator, dtype=torch.float64) for n in (7, 28))
    plain = step_norms(h[0].to(dtype), h[1:].to(dtype), d.to(dtype))
    h[1], d[1] = h[1] * 10.0**of_h, d[1] * 10.0**of_d
    h, d = h.to(dtype), d.to(dtype)
    found = step_norms(h[0], h[1:], d)
    truth = torch.linalg.matrix_norm(d[1].double().T @ h[1].double())
    digits = 1e-5 if of_d < -38 else 1e-6  # subnormal elements are few digits themselves, and so is the norm
    torch.testing.assert_close(found[1].double(), truth, rtol=digits, atol=0)
    assert torch.equal(found[::2], plain[::2])


def test_the_cheaper_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Multiplications: B^2 (H + W) for products of rows, B H W for the gradient."""
    taken: list[tuple[int, ...]] = []
    products = file.products
    monkeypatch.setattr(file, "products", lambda a, b: taken.append((a.shape[1], b.shape[2])) or products(a, b))
    for batch, shapes in ((4, [(4, 4)] * 4), (5, [(10, 8)] * 2)):  # 4 * 18 <= 80 < 5 * 18
        taken.clear()
        step_norms(torch.ones(batch, 8), torch.ones(2, batch, 8), torch.ones(3, batch, 10))
        assert taken == shapes
