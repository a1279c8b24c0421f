"""Runs launches of the kernels on the PTX machine: answers each line of JSON by one.

A script, because kernels are decorated for the compiler here and for the interpreter in the tests. ``{"scan": {..}}`` gives the
errors of a layer, forward and backward; ``{"loss": {..}}`` those of the losses, ``{"exchange": {..}}`` that of the exchange
alone; ``{"mutants": {..}}`` which changes of the PTX are noticed; ``{"cost": {..}}`` what a step costs, ``{"loss cost": {..}}``
what the kernels of the losses cost. A report of the machine
comes as ``{"fault": ..}``, any other exception as ``{"raised": ..}``.
"""

import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"

import numpy as np
import torch

from recurrent_lm.kernels.bench.exchange_run import ExchangeRun
from recurrent_lm.kernels.bench.ptx.cases import Layer, relative
from recurrent_lm.kernels.bench.ptx.code.parse import Refused
from recurrent_lm.kernels.bench.ptx.cost import Loss, bodies_of, steps_of
from recurrent_lm.kernels.bench.ptx.global_memory import Fault
from recurrent_lm.kernels.bench.ptx.launch import Launch, execute, on_machine
from recurrent_lm.kernels.loss import launch as losses
from recurrent_lm.kernels.loss.terms import Decoded, Terms, Upstream
from recurrent_lm.kernels.rnn.plan import DEVICES

torch.utils.deterministic.fill_uninitialized_memory = True  # by NaN: what was never written shows
torch.use_deterministic_algorithms(True)


def loss(spec: dict[str, Any], run: Callable[[Launch], None]) -> dict[str, Any]:
    """Errors of both ways of the linear loss, ``cut`` and ``chunked``: of the loss, and of the gradients of x, w and b."""
    torch.manual_seed(spec.get("seed", 0))
    n, d, v = spec["n"], spec["d"], spec["v"]
    dtype, terms = getattr(torch, spec["dtype"]), Terms(**spec.get("terms", {}))
    x, w, b = torch.randn(n, d).to(dtype), (torch.randn(v, d) * d**-0.5).to(dtype), torch.randn(v).to(dtype)
    target, upstream = torch.randint(0, v, (n,)), torch.rand(n)
    target[::5] = terms.ignore_index
    weight = torch.rand(v) if spec.get("weight") else None
    need, eps = (True, True, True), spec.get("filter_eps")
    walk = losses.loss_plan.cut_walk
    if eps is not None:  # pieces whose blocks are those of the whole matrix, and targets in some of them only
        target %= 100
        target[::5] = terms.ignore_index
        losses.loss_plan.cut_walk = lambda n, *_: losses.loss_plan.CutWalk(256, n, 256, 0)
    with on_machine(DEVICES[spec["device"]], run):
        decoded, of = Decoded(x, w, b, target, weight), Upstream(upstream)
        cut = losses.cut_loss(decoded, terms, True)
        gradients = losses.cut_gradients(decoded, cut.top, cut.log_sum, of, terms, need, eps)
        chunked, chunked_gradients = losses.chunked_gradients(decoded, of, terms, need, True)
    losses.loss_plan.cut_walk = walk
    leaves = [t.double().requires_grad_() for t in (x, w, b)]
    logits = z = leaves[0] @ leaves[1].t() + leaves[2]
    z = terms.softcap * torch.tanh(z / terms.softcap) if terms.softcap else z
    scales = torch.ones(v, dtype=torch.float64) if weight is None else weight.double()
    live, y, lse, smooth = target >= 0, target.clamp(min=0), z.logsumexp(1), terms.label_smoothing
    rows = (1 - smooth) * scales[y] * (lse - z.gather(1, y[:, None])[:, 0]) + terms.z_loss * lse**2
    rows = rows + smooth / v * (scales * (lse[:, None] - z)).sum(1)
    rows = torch.where(live, rows, 0.0)
    (d,) = torch.autograd.grad((rows * upstream.double()).sum(), logits)
    kept = filtered(d, z.softmax(1), live, y, eps, losses.tiling(x)[0])

    def truth(d: torch.Tensor) -> list[torch.Tensor]:
        return [rows.detach(), d @ leaves[1], d.t() @ leaves[0], d.sum(0)]

    best = z.argmax(1)
    return {
        "cut": [relative(a, t) for a, t in zip((cut.loss, *gradients), truth(kept), strict=True)],
        "chunked": [relative(a, t) for a, t in zip((chunked.loss, *chunked_gradients), truth(d), strict=True)],
        "dropped": float((kept != d).double().mean()),
        "best": [float((r.best == best).double().mean()) for r in (cut, chunked)],
    }


def filtered(
    d: torch.Tensor, p: torch.Tensor, live: torch.Tensor, y: torch.Tensor, eps: float | None, tile: Any
) -> torch.Tensor:
    """d [n, v] without the blocks in which all probabilities are below eps and no row that counts has its target."""
    kept, matters = d.clone(), (p >= (eps or 0.0)) & live[:, None]
    matters[live, y[live]] = True
    for top in range(0, len(d), tile.block_n):
        for left in range(0, d.shape[1], tile.block_v):
            block = slice(top, top + tile.block_n), slice(left, left + tile.block_v)
            kept[block] *= matters[block].any()
    return kept


def exchange(spec: dict[str, Any], run: Callable[[Launch], None]) -> dict[str, Any]:
    """The error of the exchange alone."""
    alone = ExchangeRun(spec["exchange"], spec["programs"], spec["bytes"], 4, getattr(torch, spec["dtype"]), device="cpu")
    alone.refill()
    with on_machine(DEVICES[spec["device"]], run):
        alone()
    return {"error": alone.error()}


# Mutants: changes of the PTX that a machine must notice

KINDS: dict[str, tuple[str, str]] = {  # a pattern whose matches are changed one after the other, and what each becomes
    "barrier dropped": (r"bar\.sync\s+0;", ""),
    "acquire relaxed": (r"ld\.global\.gpu\.acquire", "ld.global.gpu.relaxed"),
    "release relaxed": (r"(red|atom)\.global\.gpu\.release", r"\1.global.gpu.relaxed"),
    "volatile weak": (r"ld\.volatile\.global", "ld.global"),
    "trans dropped": (r"(ldmatrix|stmatrix)(\S+)\.trans", r"\1\2"),
    "fence dropped": (r"fence\.proxy\.async\S*;", ""),
    "swizzle changed": (r"(?<=, )-?(?:46116|92233)\d{14}(?=;)", "mode"),
    "wait dropped": (r"cp\.async\.wait_group\s+\d+;", ""),
    "product not waited for": (r"wgmma\.wait_group\S*\s+\d+;", ""),
    "branch inverted": (r"^\s*@%(p\d+) bra", r"@!%\1 bra"),
    "other branch inverted": (r"^\s*@!%(p\d+) bra", r"@%\1 bra"),
}


def mutants(spec: dict[str, Any]) -> dict[str, Any]:
    """Of each kind the lines of the changes that are noticed, and of those that are not, over some seeds."""
    launches: list[tuple[Launch, list[Any]]] = []

    def keep(launch: Launch) -> None:
        before = [b.copy() for b in launch.storages().values()]
        execute(launch, 0, spec.get("in_step", False))
        launches.append((launch, before))

    Layer(**spec["layer"]).launch(keep)
    signal.signal(signal.SIGALRM, too_long)
    outcome: dict[str, dict[str, list[str]]] = {}
    for number, (launch, before) in enumerate(launches):
        after = [b.copy() for b in launch.storages().values()]
        for kind in spec["kinds"]:
            pattern, into = KINDS[kind]
            result = list(re.finditer(pattern, launch.ptx, re.MULTILINE))
            for match in result[:: max(1, len(result) // spec.get("most", 1000))]:
                new = str(int(match[0]) ^ (1 << 62)) if into == "mode" else match.expand(into)
                text = launch.ptx[: match.start()] + new + launch.ptx[match.end() :]
                line = launch.ptx[: match.start()].count("\n") + 1
                report = noticed(launch, before, after, text, spec.get("seeds", [1, 2]), spec.get("in_step", False))
                key = "noticed" if report else "missed"
                outcome.setdefault(kind, {"noticed": [], "missed": []})[key].append(
                    f"{launch.name} {number} line {line}: {report}"
                )
    return outcome


def too_long(*_: object) -> None:
    raise Fault("no end")


def noticed(launch: Launch, before: list[Any], after: list[Any], text: str, seeds: list[int], in_step: bool) -> str:
    """How a changed kernel shows, or nothing."""
    for seed in seeds:
        for buffer, value in zip(launch.storages().values(), before, strict=True):
            buffer[:] = value
        signal.alarm(60)
        try:
            execute(launch, seed, in_step, text=text)
        except (Fault, Refused) as error:
            return str(error)
        finally:
            signal.alarm(0)
        if not all(np.array_equal(buffer, value) for buffer, value in zip(launch.storages().values(), after, strict=True)):
            return "other numbers"
    return ""


def answer(question: dict[str, Any]) -> dict[str, Any]:
    ((kind, spec),) = question.items()
    if kind == "mutants":
        return mutants(spec)
    if kind == "cost":
        return {name: asdict(step) for name, step in steps_of(Layer(**spec)).items()}
    if kind == "loss cost":
        return {name: asdict(body) for name, body in bodies_of(Loss(**spec)).items()}
    how = {"seed": spec.pop("schedule", 0), "in_step": spec.pop("in_step", False)}
    start = time.process_time()

    def run(launch: Launch) -> None:
        execute(launch, **how)

    try:
        if kind == "scan":
            errors, eager = Layer(**spec).errors(run)
            return {"errors": errors, "eager": eager, "seconds": time.process_time() - start}
        return exchange(spec, run) if kind == "exchange" else loss(spec, run)
    except (Fault, Refused) as error:
        return {"fault": str(error)}


if __name__ == "__main__":
    for line in sys.stdin:
        try:
            found = answer(json.loads(line))
        except Exception:  # fails the test that asked; those after it have a process still
            found = {"raised": traceback.format_exc()}
        print(json.dumps(found), flush=True)
