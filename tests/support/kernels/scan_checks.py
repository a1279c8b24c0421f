"""Checks of the Triton recurrence that hold in the interpreter (float64 on the CPU) and compiled (on a GPU): plain functions.

The truth is always the eager backend in float64. A check raises ``AssertionError``, or returns the numbers it looked at.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from accuracy import Numbers, near
from torch import Tensor

import recurrent_lm.kernels.rnn.launch
import recurrent_lm.kernels.rnn.ops
from recurrent_lm.kernels import CELLS, recurrence, trace_gradients
from recurrent_lm.kernels.rnn.ops import triton_recurrence

TRITON_ONLY = ("plan", "exchange", "recompute", "precision")


class Case:
    """Arguments of one layer in float64, held exactly by ``dtype``, and the gradients that arrive at every result."""

    def __init__(
        self, cell: str, steps: int, batch: int, hidden: int, dtype: torch.dtype = torch.float64, device: str = "cpu"
    ) -> None:
        generator = torch.Generator().manual_seed(steps + 10 * batch + 100 * hidden)
        packed = CELLS[cell].gates * hidden

        def draw(*shape: int, scale: float = 1.0) -> Tensor:
            return (scale * torch.randn(shape, dtype=torch.float64, generator=generator)).to(dtype).double().to(device)

        self.cell, self.states, self.dtype = cell, CELLS[cell].states, dtype
        self.tensors = [draw(steps, batch, 3), *(draw(batch, hidden) for _ in range(self.states))]
        self.tensors += [draw(packed, 3), draw(packed, hidden, scale=0.7 / hidden**0.5), draw(packed), draw(packed)]
        self.upstream = [draw(steps, batch, hidden), *(draw(batch, hidden) for _ in range(self.states))]
        self.reset = (torch.rand(steps, batch, generator=generator) < 0.3).to(device)
        self.place: Callable[[Tensor], Tensor] = lambda tensor: tensor  # where the numbers of an argument lie

    def __call__(self, dtype: torch.dtype = torch.float64, **options: Any) -> list[Tensor]:
        """Outputs, final states, and the gradients of input, states, weights and biases."""
        leaves = [self.place(t.to(dtype, copy=True)).requires_grad_() for t in self.tensors]
        state, weights = tuple(leaves[1 : 1 + self.states]), leaves[1 + self.states :]
        if "exchange" in options:  # no option of the public function
            how = {name: value for name, value in options.items() if name not in ("backend", "clip_recurrent", "reset")}
            clip, reset = options.get("clip_recurrent"), options.get("reset")
            output, final = triton_recurrence(self.cell, leaves[0], state, *weights, reset, clip=clip, **how)
        else:
            output, final = recurrence(self.cell, leaves[0], state, *weights, **options)
        results = [output, *final]
        upstream = [self.place(u.to(r.dtype)) for r, u in zip(results, self.upstream, strict=True)]
        return [*(r.detach() for r in results), *torch.autograd.grad(results, leaves, upstream)]


def error(actual: list[Tensor], expected: list[Tensor]) -> float:
    """The largest error of any tensor, relative to its largest entry."""
    assert [a.shape for a in actual] == [e.shape for e in expected]
    worst = [(a.double() - e).abs().max() / e.abs().max().clamp(min=1e-3) for a, e in zip(actual, expected, strict=True)]
    return float(torch.stack(worst).nan_to_num(nan=torch.inf).max())


def agrees(case: Case, **options: Any) -> Numbers:
    """Outputs, states and gradients by Triton: in float64 to rounding, else no worse than eager torch in the case's dtype."""
    shared = {name: value for name, value in options.items() if name not in TRITON_ONLY}
    truth = case(backend="eager", **shared)
    got = case(case.dtype, backend="triton", **options)
    assert all(g.dtype == case.dtype for g in got)
    if case.dtype == torch.float64:
        result = error(got, truth)
        assert result < 1e-12, f"error {result:.1e}"
        return {"error": result}
    return near(got, case(case.dtype, backend="eager", **shared), truth)


def clips(case: Case, kind: str, limit: float, **options: Any) -> Numbers:
    """``agrees`` under clipping, which bites: without it the gradients are others."""
    clip = {"clip_recurrent": (kind, limit), "reset": case.reset}
    assert error(case(backend="eager", reset=case.reset), case(backend="eager", **clip)) > 1e-2, "nothing was clipped"
    return agrees(case, **clip, **options)


def traces(case: Case, clip: Any = None, **options: Any) -> Numbers:
    """The norms that the backward pass writes down are those that autograd has, by the rule of ``agrees``."""
    results = []
    how = {"clip_recurrent": clip, "reset": case.reset}
    for dtype, backend in ((case.dtype, {"backend": "triton"} | options), (case.dtype, {"backend": "eager"}),
                           (torch.float64, {"backend": "eager"})):  # fmt: skip
        with trace_gradients() as trace:
            case(dtype, **how, **backend)
        (layer,) = trace.layers
        results.append([layer.hidden_norms, layer.weight_norms])
    assert results[0][0].shape == case.upstream[0].shape[:2]
    assert results[0][1].shape == case.upstream[0].shape[:1]
    if case.dtype == torch.float64:
        torch.testing.assert_close(results[0][0], results[2][0], rtol=1e-12, atol=0)
        torch.testing.assert_close(results[0][1], results[2][1], rtol=1e-7, atol=0)
        return {}
    # Norms are of one dtype with the accumulator, and only gradients in the case's dtype make them wrong: one rounding each.
    rounded = [[t.to(case.dtype) for t in norms] for norms in results[:2]]
    return near(*rounded, results[2])


def nan_stays(case: Case, **options: Any) -> Numbers:
    """A NaN in the input of the last row at step 3 ends, and is NaN wherever autograd would have it and nowhere else."""
    kept = case.tensors[0].clone()
    case.tensors[0][3, -1, 0] = torch.nan
    got, expected = case(case.dtype, backend="triton", **options), case(backend="eager")
    case.tensors[0] = kept
    assert got[0][3:, -1].isnan().all(), "a NaN was lost"
    for index, (ours, exact) in enumerate(zip(got[: 1 + case.states], expected, strict=False)):
        assert torch.equal(ours.isnan(), exact.isnan()), f"result {index}: another pattern of NaN"
    reached = [[bool(g.isnan().any()) for g in gradients[-4:]] for gradients in (got, expected)]
    assert reached[0] == reached[1], "other gradients of the weights are NaN"
    return {}


def powers_of_rho(device: str = "cpu", dtype: torch.dtype = torch.float64, **options: Any) -> Numbers:
    """h(t) = rho h(t-1), by hand: 3 steps of rho = 1/2 from (8, -16), and dL/dh(0) = rho^3; exact in every dtype."""
    h0 = torch.tensor([[8.0, -16.0]], dtype=dtype, device=device, requires_grad=True)
    weight_hh, weight_ih = 0.5 * torch.eye(2).to(h0), torch.zeros(2, 1).to(h0)
    output, (h,) = recurrence(
        "rnn-identity", torch.zeros(3, 1, 1).to(h0), (h0,), weight_ih, weight_hh, backend="triton", **options
    )
    assert output[:, 0].tolist() == [[4.0, -8.0], [2.0, -4.0], [1.0, -2.0]]
    h.sum().backward()
    assert h0.grad is not None
    assert h0.grad.tolist() == [[0.125, 0.125]]
    return {}


def same_bits(case: Case, times: int = 2, **options: Any) -> Numbers:
    """The same call gives the same bits each time."""
    first = case(case.dtype, backend="triton", **options)
    for i in range(1, times):
        again = case(case.dtype, backend="triton", **options)
        for index, (a, b) in enumerate(zip(first, again, strict=True)):
            assert torch.equal(a, b), f"result {index} differs in repetition {i}"
    return {"repetitions": times}


@contextmanager
def one_program() -> Iterator[None]:
    """The interpreter runs programs in turn, so a cooperative launch gets one block of units: it waits for itself alone."""
    ops: Any = recurrent_lm.kernels.rnn.ops
    plan_for, kept = recurrent_lm.kernels.rnn.launch.plan_for, ops.plan_for

    def plan(*args: Any) -> Any:
        chosen = plan_for(*args)
        if chosen.strategy != "cooperative":
            return chosen
        slots, units = CELLS[args[3]].slots, chosen.hidden
        pieces = 2 if units > 16 else 1
        forward = replace(chosen.forward, block_h=units, block_k=units // pieces)
        return replace(chosen, forward=forward, backward=replace(forward, block_k=units * slots // 4 // pieces, ahead=3))

    ops.plan_for = plan
    try:
        yield
    finally:
        ops.plan_for = kept
