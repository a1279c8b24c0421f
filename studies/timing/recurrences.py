"""Recurrences as works: one layer over a whole sequence, and the bare question of what it costs that steps depend on steps.

The input's product is part of the work of everybody, since cuDNN cannot leave it out.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from recurrent_lm import kernels
from recurrent_lm.studies.timing import own, peers
from recurrent_lm.studies.timing.work import DTYPES, SLACK, Peer, Tensors, Work, differentiable, numel_bytes, tolerance

OURS = {"kernels:eager": "eager", "kernels:torch": "torch", "kernels:triton": "triton"}
VARIANTS = (*OURS, "torch.nn", "loop", "torch.compile", "FlashRNN")
TRACED = ("untraced", "traced")


def recurrence(
    cell: str,
    direction: str,
    dtype: str,
    batch: int,
    hidden: int,
    steps: int,
    device: str = "cpu",
    others: tuple[str, ...] = (),
) -> Work:
    """x [T, B, H] through one layer of H units from a zero state; backward: gradients of x and all weights.

    ``others`` are recurrences of ``own``, by ``module:factory``.
    """
    kind = DTYPES[dtype]
    x, grad, weights = _numbers(cell, kind, batch, hidden, steps, device)

    def peer(make: Callable[[], tuple[Callable[[Tensor], Tensor], list[Tensor]]]) -> Peer:
        forward, leaves = make()
        return differentiable(lambda: forward(x), (x, *leaves), grad, direction)

    def another(name: str) -> Peer:
        forward, leaves = own.recurrence(name, cell, weights, direction)
        input = x.detach().clone().requires_grad_()  # a copy, since a contestant may overwrite its input
        with torch.no_grad():
            own.checked(forward(input), tuple(x.shape))
        return differentiable(lambda: forward(input), (input, *leaves), grad, direction)

    def ours(backend: str, weights: dict[str, Tensor]) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
        module = _filled(cell, backend, weights)
        return lambda x: module(x)[0], list(module.parameters())

    makers: dict[str, Callable[[], tuple[Callable[[Tensor], Tensor], list[Tensor]]]] = {
        **{name: partial(ours, backend, weights) for name, backend in OURS.items()},
        "torch.nn": partial(peers.torch_nn, cell, weights, direction),  # type: ignore[dict-item]
        "loop": partial(peers.cell_loop, cell, weights),  # type: ignore[dict-item]
        "torch.compile": partial(peers.compiled_loop, cell, weights),
        "FlashRNN": partial(peers.flash_rnn, cell, weights),
    }
    wide = {name: w.double() for name, w in weights.items()}
    wide_x = x.detach().double().requires_grad_()
    forward, leaves = ours("eager", wide)
    truth = differentiable(lambda: forward(wide_x), (wide_x, *leaves), grad.double(), direction).result()
    textbook = peer(makers["kernels:eager"]).result()
    moved = numel_bytes(x, *weights.values()) + numel_bytes(grad)  # the output is as large as its gradient
    passes, bytes_ = (1, moved) if direction == "forward" else (3, 2 * moved)
    return Work(
        {name: partial(peer, make) for name, make in makers.items()} | {name: partial(another, name) for name in others},
        reference=lambda name: truth,
        allowed=tolerance(textbook, truth, kind),
        flops=passes * _flops(cell, batch, hidden, steps),
        bytes=float(bytes_),
    )


def backward(cell: str, dtype: str, batch: int, hidden: int, steps: int, device: str = "cpu") -> Work:
    """The backward pass of ``recurrence`` alone, of the backend that the device gets: ``untraced``, and ``traced`` inside
    ``trace_gradients``.
    """
    kind = DTYPES[dtype]
    x, grad, weights = _numbers(cell, kind, batch, hidden, steps, device)

    def gradients(backend: str | None, kind: torch.dtype) -> Callable[[], Tensors]:
        module = _filled(cell, backend, {name: w.to(kind) for name, w in weights.items()})
        leaves = (x.detach().to(kind).requires_grad_(), *module.parameters())
        output, upstream = module(leaves[0])[0], grad.to(kind)
        return lambda: torch.autograd.grad(output, leaves, upstream, retain_graph=True)

    def untraced() -> Peer:
        call = gradients(None, kind)
        return Peer(call, call)

    def traced() -> Peer:
        bare = gradients(None, kind)

        def call() -> Tensors:
            with kernels.trace_gradients():
                return bare()

        return Peer(call, call)

    truth = gradients("eager", torch.float64)()
    moved = numel_bytes(x, *weights.values())
    return Work(
        {"untraced": untraced, "traced": traced},
        reference=lambda name: truth,
        allowed=tolerance(gradients("eager", kind)(), truth, kind),
        flops=2 * _flops(cell, batch, hidden, steps),
        bytes=float(2 * moved + numel_bytes(grad)),
    )


def sequential(dtype: str, batch: int, hidden: int, steps: int, device: str = "cpu") -> Work:
    """The same multiplications as one product and as steps that wait for each other.

    ``product`` is [T B, H] x [H, H]; ``steps`` is h(t) = h(t-1) W, T times [B, H] x [H, H]. Nothing else is done in either.
    W is orthogonal, so that h neither vanishes nor explodes.
    """
    kind = DTYPES[dtype]
    random = torch.Generator().manual_seed(1)
    square = torch.randn(hidden, hidden, generator=random, dtype=torch.float64)
    weight = torch.linalg.qr(square).Q.contiguous().to(device, kind)
    rows = torch.randn(steps * batch, hidden, generator=random).to(device, kind)
    out = torch.empty_like(rows)
    by_step = out.view(steps, batch, hidden).unbind(0)

    def product() -> Tensors:
        return (torch.mm(rows, weight, out=out),)

    def chain() -> Tensors:
        before = rows[:batch]
        for h in by_step:
            before = torch.mm(before, weight, out=h)
        return (out,)

    def truth(name: str) -> Tensors:
        wide, w = rows.double(), weight.double()
        if name == "product":
            return (wide @ w,)
        hidden_states = [wide[:batch] @ w]
        while len(hidden_states) < steps:
            hidden_states.append(hidden_states[-1] @ w)
        return (torch.cat(hidden_states),)

    return Work(
        {"product": lambda: Peer(product, product), "steps": lambda: Peer(chain, chain)},
        reference=truth,
        allowed=product_error(kind, hidden) * steps**0.5,
        flops=2.0 * steps * batch * hidden * hidden,
        bytes=float(2 * numel_bytes(rows) + numel_bytes(weight)),
    )


def product_error(dtype: torch.dtype, summands: int) -> float:
    """The relative error that a product may have: float32 sums whose roundings add up like a random walk, one rounding to
    ``dtype`` at the end (Higham & Mary 2019)."""
    return SLACK * (torch.finfo(torch.float32).eps * summands**0.5 + torch.finfo(dtype).eps)


def _numbers(
    cell: str, dtype: torch.dtype, batch: int, hidden: int, steps: int, device: str
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """An input and a gradient of the output [T, B, H], and torch.nn's weights by name; equal in each call."""
    gates = kernels.EVERY_CELL[cell].gates
    random = torch.Generator().manual_seed(1)
    bound = hidden**-0.5

    def uniform(*shape: int) -> Tensor:
        return torch.empty(shape).uniform_(-bound, bound, generator=random).to(device, dtype)

    x = torch.randn(steps, batch, hidden, generator=random).to(device, dtype).requires_grad_()
    grad = torch.randn(steps, batch, hidden, generator=random).to(device, dtype)
    sizes = {
        "weight_ih": (gates * hidden, hidden),
        "weight_hh": (gates * hidden, hidden),
        "bias_ih": (gates * hidden,),
        "bias_hh": (gates * hidden,),
    }
    linear = cell in kernels.LINEAR_CELLS  # without W_h
    return x, grad, {name: uniform(*size) for name, size in sizes.items() if not (linear and name.endswith("_hh"))}


def _flops(cell: str, batch: int, hidden: int, steps: int) -> float:
    """Operations of a forward pass's products."""
    products = 1 if cell in kernels.LINEAR_CELLS else 2
    return 2.0 * steps * batch * kernels.EVERY_CELL[cell].gates * hidden * products * hidden


def _filled(cell: str, backend: str | None, weights: dict[str, Tensor]) -> torch.nn.Module:
    """This project's layer with the given weights."""
    hidden = len(weights["weight_ih"]) // kernels.EVERY_CELL[cell].gates
    module = kernels.layer(cell, hidden, hidden, backend).to(weights["weight_ih"])
    module.load_state_dict({f"{name}_l0": value for name, value in weights.items()})
    return module
