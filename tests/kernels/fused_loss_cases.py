"""The loss of the fused cross-entropies from its definition, the options tried, and outputs that begin as NaN."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import cross_entropy, linear_cross_entropy

# numpy, inside Triton's interpreter, warns of what -inf and NaN are for
WARNINGS = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
REDUCTIONS = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
HERE: Any = "filled in by ``options``"
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "weight": {"weight": HERE},
    "smoothing": {"label_smoothing": 0.3},
    "smoothing of one": {"label_smoothing": 1.0},
    "z_loss": {"z_loss": 0.05},
    "softcap": {"softcap": 1.5},
    "ignored class": {"ignore_index": 2},
    "weight and smoothing": {"weight": HERE, "label_smoothing": 0.3},
    "weight and z_loss": {"weight": HERE, "z_loss": 0.05},
    "smoothing and softcap": {"label_smoothing": 0.3, "softcap": 1.5},
    "everything": {"weight": HERE, "label_smoothing": 0.3, "z_loss": 0.05, "softcap": 1.5, "ignore_index": 2},
}
TORCH_CASES: dict[str, dict[str, Any]] = {  # of torch's own options, and of empty batches
    "plain": {},
    "ignored": {"ignore_index": 3},
    "ignored, no class": {"ignore_index": -1},
    "weights": {"weight": HERE},
    "weights, ignored": {"weight": HERE, "ignore_index": 0},
    "smoothing": {"label_smoothing": 0.2},
    "smoothing, ignored": {"label_smoothing": 0.2, "ignore_index": 3},
    "smoothing, weights": {"label_smoothing": 0.2, "weight": HERE},
    "smoothing, weights, ignored": {"label_smoothing": 0.2, "weight": HERE, "ignore_index": 3},
    "all smooth": {"label_smoothing": 1.0, "weight": HERE},
    "empty": {"rows": 0},
    "empty, smoothing, weights": {"rows": 0, "label_smoothing": 0.2, "weight": HERE},
    "all ignored": {"all": -100},
    "all ignored, smoothing": {"all": -100, "label_smoothing": 0.2},
}
OPTIONS = pytest.mark.parametrize("case", CASES)


def options(case: str, v: int, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """The options of a case; class weights go from 0 to 2 and differ."""
    chosen = dict(CASES[case])
    if "weight" in chosen:
        chosen["weight"] = torch.linspace(0, 2, v, dtype=dtype)[torch.randperm(v, generator=torch.Generator().manual_seed(5))]
    return chosen


def definition(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss and log-sum-exp, term by term as the documentation has them."""
    v = logits.shape[1]
    z = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    lse = torch.logsumexp(z, dim=1)
    log_p = z - lse.unsqueeze(1)
    counted = target != ignore_index
    w = torch.ones(v, dtype=logits.dtype) if weight is None else weight
    y = torch.where(counted, target, 0)
    losses = -(1 - label_smoothing) * w[y] * log_p.gather(1, y.unsqueeze(1)).squeeze(1)
    losses = losses - label_smoothing / v * (w * log_p).sum(dim=1) + z_loss * lse**2
    losses = torch.where(counted, losses, 0.0)
    if reduction == "none":
        return losses, lse
    return (losses.sum() / w[y][counted].sum() if reduction == "mean" else losses.sum()), lse


def rows_of_logits(n: int, v: int, seed: int = 0, scale: float = 2.0, case: str = "plain") -> tuple[Tensor, Tensor]:
    """Logits [n, v] in float64 and targets, every third of which is what the case ignores."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, v, (n,), generator=generator)
    target[1::3] = CASES[case].get("ignore_index", -100)
    return scale * torch.randn(n, v, dtype=torch.float64, generator=generator), target


def as_torch_has_it(case: str, reduction: str, *hows: dict[str, Any]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Values and gradients of a case of torch's: for each way, the linear loss and the loss on logits beside torch's."""
    given = dict(TORCH_CASES[case])
    generator = torch.Generator().manual_seed(0)
    n = given.pop("rows", 10)
    tensors = [torch.randn(s, dtype=torch.float64, generator=generator) for s in ((n, 4), (6, 4), (6,))]
    target = torch.randint(0, 6, (n,), generator=generator)
    if "all" in given:
        target.fill_(given.pop("all"))
    target[::4] = given.get("ignore_index", target[::4])
    if "weight" in given:
        given["weight"] = torch.tensor([0.5, 1.0, 2.0, 0.25, 3.0, 0.1], dtype=torch.float64)
    given["reduction"] = reduction

    def found(loss: Callable[..., Tensor]) -> list[Tensor]:
        x, w, b = leaves = [t.clone().requires_grad_() for t in tensors]
        value = loss(x, w, b)
        return [value.detach(), *torch.autograd.grad(value.sum(), leaves)]

    torchs = found(lambda x, w, b: F.cross_entropy(F.linear(x, w, b), target, **given))
    for how in hows:
        yield found(lambda x, w, b, how=how: linear_cross_entropy(x, w, target, linear_bias=b, **how, **given)), torchs
        on_logits = {name: value for name, value in how.items() if name != "strategy"}
        yield found(lambda x, w, b, how=on_logits: cross_entropy(F.linear(x, w, b), target, **how, **given)), torchs


@contextmanager
def filled_with_nan() -> Iterator[None]:
    """Memory that was asked for without a value holds NaN, or the smallest integer: what nobody writes then shows."""

    def fill(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def made(*arguments: Any, **how: Any) -> Tensor:
            tensor = make(*arguments, **how)
            if tensor.device.type == "meta" or not tensor.numel():
                return tensor
            return tensor.fill_(torch.nan if tensor.is_floating_point() else torch.iinfo(tensor.dtype).min)

        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty", fill(torch.empty))
        patch.setattr(torch, "empty_like", fill(torch.empty_like))
        patch.setattr(Tensor, "new_empty", fill(Tensor.new_empty))
        yield
