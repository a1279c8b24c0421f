"""The losses: every option, reduction and type on logits and from hidden states, and what only a GPU can show."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import loss_gpu_checks
import torch
from accuracy import same
from check import Check, Skip, Where
from loss_checks import CASES, TORCH_CASES, as_torch_has_it, linear_agrees, logits_agree

REDUCTIONS = ("mean", "sum", "none")


def checks(where: Where, shard: str) -> Iterator[Check]:
    if shard == "torch":
        yield from torchs(where)
    elif shard == "logits":
        yield from logits(where)
    else:
        yield from linear(where, shard)


def logits(where: Where) -> Iterator[Check]:
    size = (11, 37) if where.tiny else (200, 5003)  # two tiles of columns, and a rest
    for dtype in [torch.float64, *where.dtypes()]:
        for case in _cases(where):
            for reduction in REDUCTIONS:
                call = partial(logits_agree, case, reduction, *size, dtype, where.device)
                yield Check(f"logits, {case}, {reduction}, {_name(dtype)}", call)
    if not where.tiny:
        for dtype in where.dtypes():
            for inplace in (False, True):
                call = partial(logits_agree, "smoothing", "mean", 1000, 128_256, dtype, "cuda", inplace_backward=inplace)
                yield Check(f"logits, V = 128,256, {'in place, ' * inplace}{_name(dtype)}", call)
        yield Check("logits, more than 2^31", loss_gpu_checks.beyond_2_to_the_31)


def linear(where: Where, strategy: str) -> Iterator[Check]:
    size = (35, 141, 19) if where.tiny else (300, 2055, 72)
    for dtype in [torch.float64, *where.dtypes()]:
        for case in _cases(where):
            for reduction in REDUCTIONS:
                call = partial(linear_agrees, case, reduction, *size, strategy, dtype, where.device)
                yield Check(f"{strategy}, {case}, {reduction}, {_name(dtype)}", call)
    if not where.tiny:
        for dtype in where.dtypes():
            for d in (200, 512):
                call = partial(linear_agrees, "plain", "mean", 1000, 32_000, d, strategy, dtype, "cuda", bias=False)
                yield Check(f"{strategy}, V = 32,000, d = {d}, {_name(dtype)}", call)
        yield Check(f"{strategy}, more than 2^31 logits", partial(loss_gpu_checks.linear_beyond_2_to_the_31, strategy))
        for name in ("waits_for_nothing", "same_bits", "memory", "wrong_target_makes_nan"):
            yield Check(f"{strategy}, {name.replace('_', ' ')}", partial(getattr(loss_gpu_checks, name), strategy))


def torchs(where: Where) -> Iterator[Check]:
    """torch's own cases in float64, and the operations under torch.compile."""
    for case in [next(iter(TORCH_CASES))] if where.tiny else TORCH_CASES:
        for reduction in REDUCTIONS:
            yield Check(f"as torch has it, {case}, {reduction}", partial(_torchs, case, reduction, where.device))
    for strategy in ("cut", "chunked"):
        yield Check(f"{strategy}, one graph under torch.compile", partial(_one_graph, strategy, where), 300)


def _torchs(case: str, reduction: str, device: str) -> None:
    hows = [{"backend": "triton", "strategy": strategy} for strategy in ("cut", "chunked")]
    for mine, theirs in as_torch_has_it(case, reduction, *hows, device=device):
        same(mine, theirs)


def _one_graph(strategy: str, where: Where) -> None:
    """fullgraph=True, forward and backward, gives what is given without."""
    if where.tiny:
        raise Skip("the interpreter's kernels are tested under torch.compile elsewhere")
    from recurrent_lm.kernels import linear_cross_entropy

    x, w, target = loss_gpu_checks.problem(256, 1000, 64, torch.float32)

    def loss(x: Any, w: Any) -> Any:
        return linear_cross_entropy(x * 1, w, target, strategy=strategy, backend="triton")

    results = []
    for function in (torch.compile(loss, fullgraph=True, backend="aot_eager"), loss):
        leaves = [t.clone().requires_grad_() for t in (x, w)]
        value = function(*leaves)
        results.append([value.detach(), *torch.autograd.grad(value, leaves)])
    torch.testing.assert_close(results[0], results[1])


def _cases(where: Where) -> list[str]:
    return ["plain", "everything"] if where.tiny else list(CASES)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
