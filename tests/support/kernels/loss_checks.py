"""The losses from their definition, the options tried, and checks that hold in the interpreter and compiled, on any device.

Plain functions: a check raises ``AssertionError``, or returns the numbers it looked at.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from accuracy import Numbers, near, same
from torch import Tensor

from recurrent_lm.kernels import cross_entropy, linear_cross_entropy

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
    w = logits.new_ones(v) if weight is None else weight
    y = torch.where(counted, target, 0)
    losses = -(1 - label_smoothing) * w[y] * log_p.gather(1, y.unsqueeze(1)).squeeze(1)
    losses = losses - label_smoothing / v * (w * log_p).sum(dim=1)
    losses, penalties = torch.where(counted, losses, 0.0), torch.where(counted, z_loss * lse**2, 0.0)
    if reduction == "none":
        return losses + penalties, lse
    if reduction == "sum":
        return losses.sum() + penalties.sum(), lse
    return losses.sum() / w[y][counted].sum() + penalties.sum() / counted.sum(), lse


def rows_of_logits(n: int, v: int, seed: int = 0, scale: float = 2.0, case: str = "plain") -> tuple[Tensor, Tensor]:
    """Logits [n, v] in float64 and targets, every third of which is what the case ignores."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, v, (n,), generator=generator)
    target[1::3] = CASES[case].get("ignore_index", -100)
    return scale * torch.randn(n, v, dtype=torch.float64, generator=generator), target


def weighed(loss: Tensor) -> Tensor:
    """One number that depends on each loss, on each in another way."""
    return (loss * torch.arange(1, loss.numel() + 1, device=loss.device).view_as(loss)).sum()


def logits_agree(
    case: str, reduction: str, n: int, v: int, dtype: torch.dtype = torch.float64, device: str = "cpu", **how: Any
) -> Numbers:
    """Loss, lse and gradient on logits by Triton: in float64 to rounding, else no worse than eager torch in that dtype."""
    logits, target = rows_of_logits(n, v, case=case)
    logits, target = logits.to(dtype).to(device), target.to(device)
    given = {name: o.to(device) if isinstance(o, Tensor) else o for name, o in options(case, v, dtype).items()}
    given["reduction"] = reduction

    def found(leaf: Tensor, both: Callable[..., tuple[Tensor, Tensor]], **how: Any) -> list[Tensor]:
        leaf = leaf.clone().requires_grad_()
        loss, lse = both(leaf, target, **how)
        mixed = weighed(loss) + (lse * torch.linspace(-1, 1, n, device=device)).sum()
        return [loss.detach(), lse.detach(), torch.autograd.grad(mixed, leaf)[0]]

    truth = found(logits.double(), definition, **_doubled(given))
    with filled_with_nan():
        got = found(logits, cross_entropy, return_lse=True, backend="triton", **given, **how)
    if dtype == torch.float64:
        same(got, truth, size=10 + v)
        return {}
    return near(got, found(logits, cross_entropy, return_lse=True, backend="eager", **given), truth)


def linear_agrees(
    case: str,
    reduction: str,
    n: int,
    v: int,
    d: int,
    strategy: str,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
    upstream: float = 1.0,
    bias: bool = True,
) -> Numbers:
    """Loss and the gradients of hidden states, decoder and bias by Triton, by the rule of ``logits_agree``."""
    generator = torch.Generator().manual_seed(n + v)
    shapes = ((n, d), (v, d), (v,))[: 2 + bias]
    scale = 0.7 if v < 1000 else d**-0.25
    tensors = [(scale * torch.randn(s, dtype=torch.float64, generator=generator)).to(dtype).to(device) for s in shapes]
    target = torch.randint(0, v, (n,), generator=generator)
    target[1::3] = CASES[case].get("ignore_index", -100)
    target = target.to(device)
    given = {name: o.to(device) if isinstance(o, Tensor) else o for name, o in options(case, v, dtype).items()}
    given["reduction"] = reduction

    def found(leaves: list[Tensor], loss: Callable[..., Tensor]) -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in leaves]
        value = loss(*leaves)
        return [value.detach(), *torch.autograd.grad(weighed(value) * upstream, leaves)]

    def by(backend: str, strategy: str | None) -> Callable[..., Tensor]:
        how = given | {"backend": backend, "strategy": strategy}
        return lambda x, w, b=None: linear_cross_entropy(x, w, target, linear_bias=b, **how)

    truth = found(
        [t.double() for t in tensors], lambda x, w, b=None: definition(F.linear(x, w, b), target, **_doubled(given))[0]
    )
    with filled_with_nan():
        got = found(tensors, by("triton", strategy))
    if dtype == torch.float64:
        same(got, truth, size=50 * upstream)
        return {}
    return near(got, found(tensors, by("eager", None)), truth, products=dtype)


def _doubled(how: dict[str, Any]) -> dict[str, Any]:
    return {name: value.double() if isinstance(value, Tensor) else value for name, value in how.items()}


def as_torch_has_it(
    case: str, reduction: str, *hows: dict[str, Any], device: str = "cpu"
) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Values and gradients of a case of torch's: for each way, the linear loss and the loss on logits beside torch's."""
    given = dict(TORCH_CASES[case])
    generator = torch.Generator().manual_seed(0)
    n = given.pop("rows", 10)
    tensors = [torch.randn(s, dtype=torch.float64, generator=generator).to(device) for s in ((n, 4), (6, 4), (6,))]
    target = torch.randint(0, 6, (n,), generator=generator).to(device)
    if "all" in given:
        target.fill_(given.pop("all"))
    target[::4] = given.get("ignore_index", target[::4])
    if "weight" in given:
        given["weight"] = torch.tensor([0.5, 1.0, 2.0, 0.25, 3.0, 0.1], dtype=torch.float64, device=device)
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

    with (
        patch.object(torch, "empty", fill(torch.empty)),
        patch.object(torch, "empty_like", fill(torch.empty_like)),
        patch.object(Tensor, "new_empty", fill(Tensor.new_empty)),
    ):
        yield
