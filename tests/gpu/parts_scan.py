"""The recurrence: every cell, plan, exchange and type, and what callers turn on, by the checks of the interpreter's tests."""

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from check import Check, Skip, Where
from scan_checks import Case, agrees, clips, nan_stays, one_program, powers_of_rho, same_bits, traces

from recurrent_lm.kernels.rnn import plan as plans
from recurrent_lm.kernels.rnn.launch import device_limits, name_of

PLANS = (("stepwise", "sentinel"), ("resident", "sentinel"), ("cooperative", "sentinel"), ("cooperative", "counter"))
LARGE = ((100, 64, 1024), (64, 16, 768), (35, 256, 512), (35, 20, 650))  # T, B, H


def checks(where: Where, shard: str) -> Iterator[Check]:
    """All checks of a cell; ``types`` varies sizes and dtypes, ``options`` what a caller may turn on."""
    cell, half = shard.split()
    yield from (types if half == "types" else options)(where, cell)


def types(where: Where, cell: str) -> Iterator[Check]:
    for dtype in where.dtypes():
        for plan, exchange in PLANS:
            # no exchange, one exchange, and two batch tiles of a size where several programs meet
            shapes = [(1, 1, 1), (2, 3, 50), (35, 20, 200)] if dtype == where.dtypes()[0] else [(12, 20, 200)]
            for steps, batch, hidden in [(2, 3, 50)] if where.tiny else shapes:
                yield _check("agrees", cell, dtype, plan, exchange, steps, batch, hidden, where, agrees)
    for steps, batch, hidden in [(2, 3, 33)] if where.tiny else LARGE:
        for plan in ("cooperative", None):
            yield _check("large", cell, where.dtypes()[0], plan, "sentinel", steps, batch, hidden, where, agrees)
    if cell == "rnn-identity":
        for plan in ("stepwise", "resident"):
            call = partial(powers_of_rho, where.device, where.dtypes()[0], plan=plan)
            yield Check(f"powers of rho, {plan}", partial(_run, where, call))


def options(where: Where, cell: str) -> Iterator[Check]:
    dtype = where.dtypes()[0]
    steps, batch, hidden = (4, 2, 50) if where.tiny else (35, 20, 200)

    def each(name: str, function: Any, **how: Any) -> Iterator[Check]:
        for plan, exchange in PLANS:
            yield _check(name, cell, dtype, plan, exchange, steps, batch, hidden, where, function, **how)

    yield from each("reset", lambda case, **how: agrees(case, reset=case.reset, **how))
    yield from each("clip value", partial(clips, kind="value", limit=0.5))
    yield from each("clip norm", partial(clips, kind="norm", limit=3.0))
    yield from each("trace", traces)
    yield from each("NaN", nan_stays)
    yield from each("same bits", same_bits)
    if cell in ("lstm", "gru"):
        yield from each("recompute", lambda case, **how: agrees(case, reset=case.reset, recompute=True, **how))
    if not where.tiny:
        for precision, most in (("tf32", 5e-3), ("tf32x3", 2e-5)):
            call = partial(_precision, precision=precision, most=most)
            yield _check(precision, cell, torch.float32, "stepwise", "sentinel", steps, batch, hidden, where, call)


def _check(
    name: str, cell: str, dtype: torch.dtype, plan: str | None, exchange: str, steps: int, batch: int, hidden: int,
    where: Where, function: Any, **how: Any,
) -> Check:  # fmt: skip
    """A check of one case; a plan asked for that does not fit gets another size, unless the size is the point of it."""

    def call() -> Any:
        device = device_limits(None if where.tiny else torch.cuda.current_device())
        units = hidden
        if plan is not None:
            sizes = (hidden,) if hidden > 200 else (hidden, 50, 200, 16)
            fits = [h for h in sizes if plans.predict(batch, steps, h, cell, name_of(dtype), device)[plan].plan is not None]
            if not fits:
                raise Skip(f"no {plan} plan of {hidden} units fits {device.name}")
            units = fits[0]
        case = Case(cell, steps, batch, units, dtype, where.device)
        chosen = how if plan is None else how | {"plan": plan}
        if plan == "cooperative":
            chosen = chosen | {"exchange": exchange}
        return (function(case, **chosen) or {}) | {"hidden": units}

    kind = plan if plan != "cooperative" else f"{plan} {exchange}"
    label = f"{name}, {cell} {name_of(dtype)} {kind or 'auto'} T={steps} B={batch} H={hidden}"
    return Check(label, partial(_run, where, call))


def _run(where: Where, call: Any) -> Any:
    with one_program() if where.tiny else nullcontext():
        return call()


def _precision(case: Case, precision: str, most: float, **how: Any) -> dict[str, float]:
    """float32 products on tensor cores: as far off as that is, and no farther."""
    truth, got = case(backend="eager"), case(torch.float32, backend="triton", precision=precision, **how)
    worst = max(float((g.double() - t).norm() / t.norm()) for g, t in zip(got, truth, strict=True))
    assert worst < most, f"relative error {worst:.1e}"
    return {"error": worst}
