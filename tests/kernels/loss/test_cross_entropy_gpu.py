"""The fused losses on a GPU, compiled; ``make gpu-check`` does these and more.

TRITON_INTERPRET=0 python -m pytest tests/kernels/loss/test_cross_entropy_gpu.py
"""

import os

import loss_gpu_checks
import pytest
import torch
from loss_checks import linear_agrees, logits_agree

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available() or INTERPRETED, reason="needs a GPU and TRITON_INTERPRET=0")
STRATEGIES = pytest.mark.parametrize("strategy", ["cut", "chunked"])
DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)


@STRATEGIES
@DTYPES
@pytest.mark.parametrize("d", [200, 512])
def test_linear_no_less_accurate_than_torch(d: int, dtype: torch.dtype, strategy: str) -> None:
    linear_agrees("smoothing", "mean", 1000, 10_000, d, strategy, dtype, "cuda")


@DTYPES
@pytest.mark.parametrize("inplace", [False, True])
def test_logits_no_less_accurate_than_torch(inplace: bool, dtype: torch.dtype) -> None:
    logits_agree("smoothing", "mean", 1000, 10_000, dtype, "cuda", inplace_backward=inplace)


@STRATEGIES
@pytest.mark.parametrize("name", ["waits_for_nothing", "same_bits", "memory", "wrong_target_makes_nan"])
def test_what_only_a_gpu_can_show(name: str, strategy: str) -> None:
    getattr(loss_gpu_checks, name)(strategy)


@pytest.mark.slow
def test_more_than_two_to_the_31_logits() -> None:
    loss_gpu_checks.beyond_2_to_the_31()
    loss_gpu_checks.linear_beyond_2_to_the_31("cut")
    loss_gpu_checks.linear_beyond_2_to_the_31("chunked")
