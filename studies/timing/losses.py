"""The decoder's product and the softmax cross-entropy as one computation."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from recurrent_lm import kernels
from recurrent_lm.studies.timing import own, peers
from recurrent_lm.studies.timing.work import DTYPES, Peer, Work, differentiable, numel_bytes, tolerance

OURS = {"kernels:torch": "torch", "kernels:triton": "triton"}  # the eager one is torch.nn's two lines
VARIANTS = (
    *OURS, "torch.nn", "linear_cross_entropy", "linear_cross_entropy-chunked", "torch.compile", "liger-kernel",
    "cut-cross-entropy",
)  # fmt: skip

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # (input, weight, bias, target) to the mean loss


def cross_entropy(
    direction: str, dtype: str, tokens: int, width: int, vocabulary: int, device: str = "cpu", others: tuple[str, ...] = ()
) -> Work:
    """The mean loss of N tokens from hidden states [N, d] and weights [V, d]; backward: gradients of both and the bias.

    ``others`` are losses of ``own``, by ``module:factory``.
    """
    kind = DTYPES[dtype]
    random = torch.Generator().manual_seed(1)
    x = torch.randn(tokens, width, generator=random).to(device, kind)
    weight = (torch.randn(vocabulary, width, generator=random) * width**-0.5).to(device, kind)
    bias = (torch.randn(vocabulary, generator=random) * 0.1).to(device, kind)
    target = torch.randint(vocabulary, (tokens,), generator=random).to(device)

    def ours(backend: str) -> Loss:
        return lambda x, w, b, y: kernels.linear_cross_entropy(x, w, y, linear_bias=b, backend=backend)

    def peer(make: Callable[[], Loss], kind: torch.dtype = kind) -> Peer:
        loss = make()
        a, w, b = (t.detach().to(kind).requires_grad_() for t in (x, weight, bias))
        return differentiable(lambda: loss(a, w, b, target), (a, w, b), None, direction)

    def another(name: str) -> Peer:
        loss = own.loss(name, weight)
        a, w, b = (
            t.detach().clone().requires_grad_() for t in (x, weight, bias)
        )  # copies, since a contestant may overwrite its inputs
        y = target.clone()
        with torch.no_grad():
            own.checked(loss(a, w, b, y), ())
        return differentiable(lambda: loss(a, w, b, y), (a, w, b), None, direction)

    makers: dict[str, Callable[[], Loss]] = {
        **{name: partial(ours, backend) for name, backend in OURS.items()},
        "torch.nn": lambda: textbook,
        "linear_cross_entropy": peers.torch_linear_cross_entropy,
        "linear_cross_entropy-chunked": peers.torch_chunked_cross_entropy,
        "torch.compile": lambda: peers.compiled(textbook),
        "liger-kernel": lambda: peers.liger(weight),
        "cut-cross-entropy": lambda: peers.cut_cross_entropy(weight),
    }
    truth = peer(lambda: textbook, torch.float64).result()
    read = numel_bytes(x, weight, bias, target)
    passes, bytes_ = (1, read) if direction == "forward" else (3, 2 * read - numel_bytes(target))
    return Work(
        {name: partial(peer, make) for name, make in makers.items()} | {name: partial(another, name) for name in others},
        reference=lambda name: truth,
        allowed=tolerance(peer(lambda: textbook).result(), truth, kind),
        flops=passes * 2.0 * tokens * width * vocabulary,
        bytes=float(bytes_),
    )


def textbook(x: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> Tensor:
    """nn.Linear and F.cross_entropy, as they are usually written."""
    return F.cross_entropy(F.linear(x, weight, bias), target)
