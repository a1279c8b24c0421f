"""Works that find the peaks of a machine: a copy, a product and a launch.

Peaks are measured, not looked up: tables hold boost clocks and the best case of another shop's cooling.
"""

from collections.abc import Callable

import torch

from recurrent_lm.studies.timing.recurrences import product_error
from recurrent_lm.studies.timing.work import DTYPES, Peer, Tensors, Work, numel_bytes


def copy(megabytes: int, device: str = "cpu") -> Work:
    """A copy of ``megabytes``: the memory's bandwidth, counting bytes read and written."""
    source = torch.arange(megabytes * 250_000, dtype=torch.float32, device=device)
    here = torch.empty_like(source)

    def call() -> Tensors:
        return (here.copy_(source),)

    return _alone("copy", call, lambda: (source.double(),), 0.0, 0.0, float(2 * numel_bytes(source)))


def product(size: int, dtype: str, device: str = "cpu") -> Work:
    """A product of two square matrices: the peak of arithmetic."""
    kind = DTYPES[dtype]
    random = torch.Generator().manual_seed(1)
    a, b = (torch.randn(size, size, generator=random).to(device, kind) for _ in range(2))
    out = torch.empty_like(a)

    def call() -> Tensors:
        return (torch.mm(a, b, out=out),)

    return _alone(
        "product",
        call,
        lambda: (a.double() @ b.double(),),
        product_error(kind, size),
        2.0 * size**3,
        float(3 * numel_bytes(a)),
    )


def launch(device: str) -> Work:
    """The smallest kernel: the cost of a launch on a GPU."""
    one = torch.zeros(1, device=device)

    def call() -> Tensors:
        return (one.fill_(1.0),)

    return _alone("launch", call, lambda: (torch.ones(1, dtype=torch.float64, device=device),), 0.0, 0.0, 0.0)


def _alone(name: str, call: Callable[[], Tensors], truth: Callable[[], Tensors], allowed: float, *counts: float) -> Work:
    return Work({name: lambda: Peer(call, call)}, lambda _: truth(), allowed, *counts)
