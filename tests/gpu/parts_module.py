"""The modules beside torch.nn's, the operation under torch's own checks and torch.compile, and the trainer on the kernels."""

import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from accuracy import near
from check import Check, Skip, Where
from scan_checks import Case, one_program
from torch import nn

from recurrent_lm import kernels
from recurrent_lm.kernels.rnn.ops import recurrence_forward

PAIRS = {"LSTM": (kernels.LSTM, nn.LSTM), "GRU": (kernels.GRU, nn.GRU), "RNN": (kernels.RNN, nn.RNN)}


def checks(where: Where, shard: str) -> Iterator[Check]:
    for name in list(PAIRS)[: 1 if where.tiny else None]:
        for dtype in where.dtypes():
            yield Check(f"{name}, torch.nn's weights, {dtype}".replace("torch.f", "f").replace("torch.b", "b"),
                        partial(_drop_in, name, dtype, where))  # fmt: skip
        if not where.tiny:
            yield Check(f"{name}, opcheck", partial(_opcheck, name, where), 300)
        yield Check(f"{name}, one graph under torch.compile", partial(_one_graph, name, where), 300)
    yield Check("the trainer, 30 steps by triton and by eager", partial(_trains, where), 300)
    for backend in ("triton",) if where.tiny else ("triton", "torch"):
        for precision in ("float32",) if where.tiny else ("float32", "bf16"):
            name = f"the trainer, 30 steps as a CUDA graph, {backend}, {precision}"
            yield Check(name, partial(_replays, backend, precision, where), 300)


def _drop_in(name: str, dtype: torch.dtype, where: Where) -> dict[str, float]:
    """A state_dict of torch.nn loads strictly, and outputs, states and gradients are as near the truth as torch.nn's."""
    ours, theirs = PAIRS[name]
    torch.manual_seed(0)
    sizes = (3, 5, 2) if where.tiny else (100, 200, 2)
    steps, batch = (3, 2) if where.tiny else (35, 20)
    reference = theirs(*sizes).to(dtype).to(where.device)
    input = torch.randn(steps, batch, sizes[0]).to(dtype).to(where.device)
    upstream = torch.randn(steps, batch, sizes[1]).to(dtype).to(where.device)

    def found(module: nn.Module) -> list[torch.Tensor]:
        kind = next(module.parameters()).dtype
        leaf = input.to(kind).requires_grad_()
        output, state = module(leaf)
        states = state if isinstance(state, tuple) else (state,)
        loss = (output * upstream.to(kind)).sum() + sum(s.sum() for s in states)
        return [output.detach(), *(s.detach() for s in states), *torch.autograd.grad(loss, [leaf, *module.parameters()])]

    rows = []
    for backend, kind in (("triton", dtype), ("eager", torch.float64)):
        module = ours(*sizes, backend=backend).to(dtype).to(where.device)
        module.load_state_dict(reference.state_dict(), strict=True)
        rows.append(found(module.to(kind)))
    return near(rows[0], found(reference), rows[1])


def _opcheck(name: str, where: Where) -> None:
    """Schema, fake shapes and autograd registration, with tensors of this device."""
    cell = {"LSTM": "lstm", "GRU": "gru", "RNN": "rnn-tanh"}[name]
    case = Case(cell, 2, 2, 5, device=where.device)
    input, h0, *rest = [t.float().requires_grad_() for t in case.tensors]
    c0 = rest.pop(0) if case.states == 2 else None
    how = (case.reset, cell, "stepwise", "sentinel", "ieee", "none", 0.0, True, False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.library.opcheck(recurrence_forward, (input, h0, c0, *rest, *how))


def _one_graph(name: str, where: Where) -> None:
    """fullgraph=True, forward and backward, gives what is given without."""
    if where.tiny:
        raise Skip("the interpreter's kernels are tested under torch.compile elsewhere")
    torch.manual_seed(0)
    inner = PAIRS[name][0](64, 128, 2, backend="triton").cuda()
    model = nn.Sequential(nn.Linear(64, 64).cuda(), inner)

    def loss(x: Any) -> Any:
        return model(x)[0].square().sum()

    input, results = torch.randn(12, 20, 64, device="cuda"), []
    for function in (torch.compile(loss, fullgraph=True, backend="aot_eager"), loss):
        model.zero_grad()
        value = function(input)
        value.backward()
        results.append([value.detach(), *(p.grad.clone() for p in model.parameters())])
    torch.testing.assert_close(results[0], results[1])


def _trains(where: Where) -> dict[str, float]:
    """The same losses within 1e-4, and less at the end than at the beginning."""
    try:
        from recurrent_lm.lm import Training  # noqa: F401  # which needs more than torch and Triton
        from recurrent_lm.studies.timing.steps import Size, trainer
    except ImportError as error:
        raise Skip(f"the trainer needs what is not installed here: {error}") from None
    size = Size(50, 8, 1, 3, 4) if where.tiny else Size(1000, 200, 2, 20, 35)
    losses: dict[str, list[float]] = {}
    for backend in ("triton", "eager"):
        with one_program() if where.tiny else nullcontext():
            step, _ = trainer(size, "float32", backend, where.device)
            losses[backend] = [step() for _ in range(3 if where.tiny else 30)]
    worst = max(abs(a - b) for a, b in zip(losses["triton"], losses["eager"], strict=True))
    assert worst < 1e-4, f"losses differ by {worst:.1e}"
    assert losses["triton"][-1] < losses["triton"][0], "nothing was learnt"
    return {"difference": worst, "first": losses["triton"][0], "last": losses["triton"][-1]}


def _replays(backend: str, precision: str, where: Where) -> dict[str, float]:
    """Updates from buffers, with a GPU recorded and replayed, have the losses and norms of plain ones; batches differ, the
    state is carried, the rate changes, and one update is always under way. A dry run records nothing."""
    try:
        from recurrent_lm.studies.timing.steps import Size, graphed
    except ImportError as error:
        raise Skip(f"the trainer needs what is not installed here: {error}") from None
    size, steps = (Size(50, 8, 1, 3, 4), 3) if where.tiny else (Size(1000, 200, 2, 20, 35), 30)
    rows = []
    for recorded in (False, True):
        _, _, training = graphed(size, precision, backend, where.device)
        graph, batches, results, waiting = training.graph, training.batches, [], []
        with one_program() if where.tiny else nullcontext():
            for n in range(steps):
                training.at.lr = 1.0 if n < steps // 2 else 0.25
                batch = batches[n % len(batches)]
                if not recorded:
                    results.append(training.update(batch)[:2])
                    continue
                waiting.append(graph.begin(batch, n))
                if len(waiting) > 1:
                    results.append(waiting.pop(0)()[:2])
            results += [read()[:2] for read in waiting]
        rows.append(torch.tensor(results))
        assert where.tiny or graph.recorded == recorded, "nothing was recorded"
    plain, ours = rows
    assert len({round(float(loss), 4) for loss in plain[:, 0]}) > 1, "losses that are all the same prove nothing"
    worst = float((plain - ours).abs().max())
    assert worst < (1e-3 if precision == "float32" else 2e-2), f"losses or norms differ by {worst:.1e}"
    return {"difference": worst, "last": float(ours[-1, 0])}
