"""Problems for the decoder's loss, its textbook twin, and how they are compared."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from loss_checks import CASES
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from recurrent_lm.kernels import linear_cross_entropy
from recurrent_lm.kernels.loss import chunks

MODULE = chunks
REDUCTIONS = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
OPTIONS = pytest.mark.parametrize("case", CASES)
# numpy, inside Triton's interpreter, warns of what -inf and NaN are for
WARNINGS = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
BIAS = pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
Loss = Callable[..., Tensor]


@contextmanager
def rows(count: int) -> Iterator[None]:
    """Chunks of ``count`` rows, so that few rows make many chunks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODULE, "ROWS", count)
        patch.setattr(MODULE, "LOGITS", 0)
        yield


def textbook(input: Tensor, weight: Tensor, target: Tensor, *, linear_bias: Tensor | None = None, **options: Any) -> Tensor:
    """What torch users write: all logits, then the loss."""
    return F.cross_entropy(F.linear(input, weight, linear_bias), target, **options)


def ours(*arguments: Any, **options: Any) -> Tensor:
    return linear_cross_entropy(*arguments, **options, backend="torch")


def problem(n: int, v: int, d: int, bias: bool = True, seed: int = 0, scale: float = 1.0) -> tuple[list[Tensor], Tensor]:
    """[input, weight, bias] in float64 (bias last, or left out) and targets."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(n, d), (v, d), *([(v,)] if bias else [])]
    tensors = [scale * torch.randn(s, dtype=torch.float64, generator=generator) for s in shapes]
    return tensors, torch.randint(0, v, (n,), generator=generator)


def everything(
    loss: Loss, tensors: list[Tensor], target: Tensor, upstream: Tensor | float = 1.0, dtype: Any = None, **options: Any
) -> list[Tensor]:
    """The loss, then the gradients of (loss * upstream).sum() for input, weight and bias."""
    leaves = [t.to(dtype or t.dtype, copy=True).requires_grad_() for t in tensors]
    value = loss(leaves[0], leaves[1], target, linear_bias=leaves[2] if len(leaves) > 2 else None, **options)
    return [value.detach(), *torch.autograd.grad((value * upstream).sum(), leaves)]


def same(actual: list[Tensor], expected: list[Tensor]) -> None:
    """Equal to float64 rounding, nan where nan is due."""
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-12, atol=1e-13, equal_nan=True)


def error(actual: Tensor, truth: Tensor) -> float:
    """Norm of the error over norm of the truth."""
    return float((actual.double() - truth).norm() / truth.norm())


class Recorder(TorchDispatchMode):
    """Every operation, with the largest tensor that one returned, in bytes, and the dtype of products."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.largest, self.products = [], 0, []  # type: ignore[var-annotated]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operations.append(func.overloadpacket)
        if isinstance(result, Tensor):
            self.largest = max(self.largest, result.numel() * result.element_size())
            if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_):
                self.products.append(result.dtype if func.overloadpacket == torch.ops.aten.mm else args[1].dtype)
        return result
