"""What only a GPU can show of the fused losses: bfloat16, no waiting for the device, peak memory, more than 2^31 logits.

TRITON_INTERPRET=0 python -m pytest tests/kernels/test_cross_entropy_gpu.py
"""

import os
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import cross_entropy, linear_cross_entropy

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available() or INTERPRETED, reason="needs a GPU and TRITON_INTERPRET=0")
STRATEGIES = pytest.mark.parametrize("strategy", ["cut", "chunked"])


def problem(n: int, v: int, d: int, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator("cuda").manual_seed(0)
    x, w = (torch.randn(s, device="cuda", generator=generator).mul_(d**-0.25).to(dtype) for s in ((n, d), (v, d)))
    target = torch.randint(0, v, (n,), device="cuda", generator=generator)
    target[::5] = -100
    return x, w, target


def found(loss: Any, *tensors: Tensor) -> list[Tensor]:
    leaves = [t.clone().requires_grad_() for t in tensors]
    value = loss(*leaves)
    return [value.detach(), *torch.autograd.grad(value, leaves)]


def error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


@STRATEGIES
@pytest.mark.parametrize("d", [200, 512])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_linear_no_less_accurate_than_torch(dtype: torch.dtype, d: int, strategy: str) -> None:
    """Errors against float64 at most twice those of eager torch in the same dtype."""
    x, w, target = problem(1000, 10_000, d, dtype)
    how = {"label_smoothing": 0.1}
    truth = found(lambda x, w: F.cross_entropy(x @ w.t(), target, **how), x.double(), w.double())
    eager = found(lambda x, w: F.cross_entropy(F.linear(x, w), target, **how), x, w)
    ours = found(lambda x, w: linear_cross_entropy(x, w, target, strategy=strategy, backend="triton", **how), x, w)
    for mine, theirs, exact in zip(ours, eager, truth, strict=True):
        assert error(mine, exact) <= max(2 * error(theirs, exact), torch.finfo(dtype).eps / 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("inplace", [False, True])
def test_logits_no_less_accurate_than_torch(inplace: bool, dtype: torch.dtype) -> None:
    """The same of the loss on logits."""
    x, w, target = problem(1000, 10_000, 64, dtype)
    logits = x @ w.t()
    how = {"label_smoothing": 0.1}
    truth = found(lambda z: F.cross_entropy(z, target, **how), logits.double())
    eager = found(lambda z: F.cross_entropy(z, target, **how), logits)
    ours = found(lambda z: cross_entropy(z, target, inplace_backward=inplace, backend="triton", **how), logits)
    for mine, theirs, exact in zip(ours, eager, truth, strict=True):
        assert error(mine, exact) <= max(2 * error(theirs, exact), torch.finfo(dtype).eps / 2)


@STRATEGIES
def test_nothing_waits_for_the_device(strategy: str) -> None:
    """torch's own guard raises at any wait."""
    x, w, target = problem(1000, 10_000, 64)
    x, w = x.requires_grad_(), w.requires_grad_()
    for _ in range(2):  # the first call compiles
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error" if _ else "default")
        try:
            linear_cross_entropy(x, w, target, strategy=strategy, backend="triton").backward()
            cross_entropy(x, target.clamp(max=63), backend="triton").backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


@STRATEGIES
def test_same_input_same_bits(strategy: str) -> None:
    x, w, target = problem(2000, 32_000, 512)
    first, second = (
        found(lambda x, w: linear_cross_entropy(x, w, target, strategy=strategy, backend="triton"), x, w) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_cut_needs_one_percent() -> None:
    """Peak memory beyond inputs and gradients, over forward and backward."""
    n, v, d = 8192, 128_256, 512
    x, w, target = problem(n, v, d)
    x, w = x.requires_grad_(), w.requires_grad_()
    for _ in range(2):  # workspaces of the library are kept from the first time on
        x.grad = w.grad = None
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        linear_cross_entropy(x, w, target, strategy="cut", backend="triton").backward()
    gradients = 2 * (n + v) * d
    assert torch.cuda.max_memory_allocated() - before - gradients <= 0.01 * n * v * 4 + 2**20


@pytest.mark.slow
def test_more_than_two_to_the_31_logits() -> None:
    """8,256 rows of 262,144: the last rows' loss and gradient are those of the rows alone."""
    n, v = 8256, 262_144
    logits = torch.randn(n, v, device="cuda", dtype=torch.bfloat16)
    target = torch.randint(0, v, (n,), device="cuda")
    leaf = logits[-8:].clone().requires_grad_()
    expected = cross_entropy(leaf, target[-8:], reduction="none", backend="triton")
    (gradient,) = torch.autograd.grad(expected.sum(), leaf)
    losses = cross_entropy(logits.requires_grad_(), target, reduction="none", inplace_backward=True, backend="triton")
    assert torch.equal(losses[-8:], expected)
    assert torch.equal(torch.autograd.grad(losses.sum(), logits)[0][-8:], gradient)


@STRATEGIES
def test_wrong_target_makes_nan(strategy: str) -> None:
    """No error, no read at the wrong address: that row is NaN."""
    x, w, target = problem(100, 1000, 64)
    target[7] = 2**40
    losses = linear_cross_entropy(x, w, target, reduction="none", strategy=strategy, backend="triton")
    assert losses.isnan().nonzero().flatten().tolist() == [7]
