"""What CUDA programs do around the kernels: streams, graphs, other devices, autocast, views at odd addresses, and no waiting.

A dry run on the CPU goes the same way, without the guard, the graph and the streams.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from accuracy import near
from check import Check, Skip, Where
from scan_checks import Case, agrees, one_program
from torch import Tensor

from recurrent_lm.kernels import linear_cross_entropy, trace_gradients

HOW: dict[str, dict[str, Any]] = {
    "plain": {},
    "reset, recompute": {"reset": True, "recompute": True},
    "clip norm": {"clip_recurrent": ("norm", 3.0)},
}


def checks(where: Where, shard: str) -> Iterator[Check]:
    yield from others(where) if shard == "others" else one_plan(where, shard)


def one_plan(where: Where, plan: str) -> Iterator[Check]:
    hidden = 50 if plan == "resident" or where.tiny else 200
    for cell in ("lstm",) if where.tiny else ("lstm", "gru", "rnn-sigmoid"):
        for name, how in HOW.items():
            call = partial(_waits_for_nothing, where, partial(_case, where, cell, hidden), plan, how)
            yield Check(f"{cell} {plan}, waits for nothing, traced, {name}", partial(_run, where, call))
    case = partial(_case, where, "lstm", hidden)
    for name, check in (("CUDA graph", _graphed), ("second stream", _streamed), ("second device", _elsewhere)):
        yield Check(f"{plan}, {name}", partial(_run, where, partial(check, where, case, plan)))
    yield Check(f"{plan}, autocast", partial(_run, where, partial(_autocast, where, case, plan)))


def others(where: Where) -> Iterator[Check]:
    for strategy in ("cut", "chunked"):
        yield Check(f"{strategy}, CUDA graph", partial(_run, where, partial(_loss_graphed, where, strategy)))
    for cell in ("lstm", "rnn-tanh"):
        call = partial(_odd_addresses, partial(_case, where, cell, 16 if where.tiny else 256))
        yield Check(f"{cell}, weights and gradients at odd addresses", partial(_run, where, call))
    yield Check("memory of a trace", partial(_run, where, partial(_memory_of_a_trace, where)))


def _run(where: Where, call: Callable[[], Any]) -> Any:
    with one_program() if where.tiny else nullcontext():
        return call()


def _case(where: Where, cell: str, hidden: int) -> Case:
    steps, batch = (4, 2) if where.tiny else (35, 20)
    return Case(cell, steps, batch, hidden, where.dtypes()[0], where.device)


def _of(case: Case, plan: str, **how: Any) -> list[Tensor]:
    return case(case.dtype, backend="triton", plan=plan, **how)


def _same(results: list[Tensor], expected: list[Tensor]) -> None:
    for index, (a, b) in enumerate(zip(results, expected, strict=True)):
        assert torch.equal(a, b), f"result {index} differs"


def _alike(results: list[Tensor], expected: list[Tensor]) -> None:
    """To rounding: in a graph or on another stream the library may take another of its products."""
    for index, (a, b) in enumerate(zip(results, expected, strict=True)):
        error = float((a.double() - b.double()).norm() / b.double().norm())
        assert error < 2 * torch.finfo(b.dtype).eps, f"result {index} is off by {error:.1e}"


@contextmanager
def no_waiting(where: Where) -> Iterator[None]:
    """torch's own guard: whatever waits for the device raises."""
    if not where.tiny:
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if not where.tiny:
            torch.cuda.set_sync_debug_mode("default")


def _waits_for_nothing(where: Where, make: Callable[[], Case], plan: str, how: dict[str, Any]) -> None:
    case = make()
    how = how | ({"reset": case.reset.t().contiguous().t()} if how.get("reset") else {})
    with trace_gradients():
        first = _of(case, plan, **how)  # which compiles
    with no_waiting(where), trace_gradients():
        again = _of(case, plan, **how)
    _same(again, first)


def captured(where: Where, call: Callable[[], list[Tensor]]) -> tuple[Callable[[], None], list[Tensor]]:
    """What replays a call from a CUDA graph, and where its results will be."""
    if where.tiny:
        results = call()
        return lambda: [r.copy_(new) for r, new in zip(results, call(), strict=True)] and None, results
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call()
    return graph.replay, results


def _graphed(where: Where, make: Callable[[], Case], plan: str) -> None:
    """Replayed on new numbers it gives what a call gives: buffers are made ready within the graph."""
    case = make()
    replay, results = captured(where, lambda: _of(case, plan))
    for _ in range(3):
        case.tensors[0].mul_(-1)
        replay()
        _alike(results, _of(case, plan))


def _loss_graphed(where: Where, strategy: str) -> None:
    n, v, d = (8, 50, 6) if where.tiny else (512, 5003, 72)
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(s, d, generator=generator).to(where.dtypes()[0]).to(where.device) for s in (n, v))
    target = torch.randint(v, (n,), generator=generator).to(where.device)

    def call() -> list[Tensor]:
        leaves = [t.detach().requires_grad_() for t in (x, w)]
        loss = linear_cross_entropy(*leaves, target, strategy=strategy, backend="triton")
        return [loss.detach(), *torch.autograd.grad(loss, leaves)]

    replay, results = captured(where, call)
    x.mul_(-1)
    target.copy_(target.flip(0))
    replay()
    _alike(results, call())


def _streamed(where: Where, make: Callable[[], Case], plan: str) -> None:
    case = make()
    expected = _of(case, plan)
    if where.tiny:
        return
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(10_000_000)  # whoever does not wait for this stream is early
        for tensor in case.tensors:
            tensor.mul_(1)
        results = _of(case, plan)
    torch.cuda.current_stream().wait_stream(side)
    _alike(results, expected)


def _elsewhere(where: Where, make: Callable[[], Case], plan: str) -> None:
    if where.tiny or torch.cuda.device_count() < 2:
        raise Skip("there is no second CUDA device")
    case = make()
    expected = _of(case, plan)
    case.tensors, case.upstream = ([t.to("cuda:1") for t in tensors] for tensors in (case.tensors, case.upstream))
    assert torch.cuda.current_device() == 0
    _alike([r.to("cuda:0") for r in _of(case, plan)], expected)


def _autocast(where: Where, make: Callable[[], Case], plan: str) -> dict[str, float]:
    """Gradients of float32 parameters, as near the truth as the textbook's in halves."""
    case = make()
    with torch.autocast(where.device, case.dtype):
        results = case(torch.float32, backend="triton", plan=plan)
    assert results[0].dtype == case.dtype
    assert {g.dtype for g in results[1 + case.states :]} == {torch.float32}
    return near([f.to(case.dtype) for f in results], case(case.dtype, backend="eager"), case(backend="eager"))


def _odd_addresses(make: Callable[[], Case]) -> Any:
    """Views whose first element is no multiple of 16 bytes into memory."""
    case = make()

    def moved(tensor: Tensor) -> Tensor:
        present = torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view(tensor.shape)
        assert present.data_ptr() % 16
        return present

    case.place = moved
    return agrees(case)


def _memory_of_a_trace(where: Where) -> dict[str, float]:
    """Less than a float32 copy of h, let alone of d."""
    steps, batch, hidden = (3, 2, 50) if where.tiny else (128, 64, 1024)
    case = Case("lstm", steps, batch, hidden, where.dtypes()[0], where.device)
    peaks = []
    for context in (nullcontext, trace_gradients, nullcontext, trace_gradients):
        if not where.tiny:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        with context():
            case(case.dtype, backend="triton", plan="resident" if where.tiny else None)
        peaks.append(0 if where.tiny else torch.cuda.max_memory_allocated())
    more = peaks[3] - peaks[2]
    assert more < 4 * steps * batch * hidden, f"{more / 1e6:.1f} MB"
    return {"more_bytes": float(more)}
