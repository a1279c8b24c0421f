"""A short timing table against what one would use instead; everything is held to float64 before it is timed.

Recurrences are one layer with the input's product on both sides. Times are of warm calls from Python, the caches as they come.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from statistics import median, quantiles
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from check import Check, Where
from scan_checks import one_program

RECURRENCES = (  # cell, dtype, B, H, T; the first two are the issue's
    ("lstm", "bfloat16", 16, 768, 1024),
    ("lstm", "float16", 16, 768, 1024),
    ("lstm", "bfloat16", 64, 1024, 128),
    ("lstm", "float16", 64, 1024, 128),
    ("lstm", "float32", 20, 200, 35),
    ("lstm", "bfloat16", 1, 512, 256),
    ("gru", "bfloat16", 16, 768, 1024),
    ("rnn-tanh", "bfloat16", 16, 768, 1024),
)
LOGITS = ((8192, 4096), (8192, 32_000), (8192, 128_256))  # N, V
LINEAR = ((8192, 512, 32_000), (8192, 2048, 32_000), (8192, 512, 128_256), (8192, 2048, 128_256))  # N, d, V
DIRECTIONS = ("forward", "forward+backward")
ROUNDS = 15


def checks(where: Where, shard: str) -> Iterator[Check]:
    parts = {"peaks": peaks, "recurrence": recurrence, "trace": trace, "logits": logits, "linear": linear}
    for check in parts[shard](where):
        yield replace(check, call=partial(_alone, check.call)) if where.tiny else check


def _alone(call: Callable[[], Any]) -> Any:
    with one_program():
        return call()


def peaks(where: Where) -> Iterator[Check]:
    """What this GPU does at its best: a copy, a product in bfloat16, and a launch."""
    yield Check("copy", partial(_peak, where, "copy"))
    if not where.tiny:
        yield Check("product", partial(_peak, where, "product"))
        yield Check("launch", partial(_peak, where, "launch"))


def recurrence(where: Where) -> Iterator[Check]:
    for cell, dtype, *size in (("lstm", "float32", 2, 50, 3),) if where.tiny else RECURRENCES:
        for direction in DIRECTIONS:
            name = f"{cell} {dtype} B={size[0]} H={size[1]} T={size[2]} {direction}"
            yield Check(name, partial(_recurrence, where, cell, direction, dtype, *size), 240)


def trace(where: Where) -> Iterator[Check]:
    for cell, dtype, *size in (("lstm", "float32", 2, 50, 3),) if where.tiny else (RECURRENCES[0], RECURRENCES[2]):
        yield Check(
            f"trace, {cell} {dtype} B={size[0]} H={size[1]} T={size[2]}", partial(_trace, where, cell, dtype, *size), 240
        )


def logits(where: Where) -> Iterator[Check]:
    for n, v in ((8, 50),) if where.tiny else LOGITS:
        for direction in DIRECTIONS:
            compiled = (n, v) == LOGITS[1]
            yield Check(f"logits N={n} V={v} {direction}", partial(_logits, where, direction, n, v, compiled), 240)


def linear(where: Where) -> Iterator[Check]:
    for n, d, v in ((8, 6, 50),) if where.tiny else LINEAR:
        compiled = (n, d, v) == LINEAR[0]
        yield Check(f"linear N={n} d={d} V={v}", partial(_linear, where, n, d, v, compiled), 240)


def _peak(where: Where, name: str) -> dict[str, Any]:
    from recurrent_lm.studies.timing import peaks

    works = {
        "copy": lambda: peaks.copy(1 if where.tiny or where.stub else 2048, where.device),
        "product": lambda: peaks.product(128 if where.stub else 8192, "bfloat16", where.device),
        "launch": lambda: peaks.launch(where.device),
    }
    return _timed(where, works[name](), [name])


def _recurrence(where: Where, cell: str, direction: str, dtype: str, batch: int, hidden: int, steps: int) -> dict[str, Any]:
    from recurrent_lm.studies.timing.recurrences import recurrence

    work = recurrence(cell, direction, dtype, batch, hidden, steps, where.device)
    timed = _timed(where, work, ["kernels:triton", "torch.nn"])
    for row in timed["rows"]:
        row["us_a_step"] = None if row["median"] is None else row["median"] / steps * 1e6
    return timed


def _trace(where: Where, cell: str, dtype: str, batch: int, hidden: int, steps: int) -> dict[str, Any]:
    """The trace's cost as a share of the backward pass: (traced - plain) / (plain - forward)."""
    from recurrent_lm import kernels
    from recurrent_lm.studies.timing.recurrences import recurrence
    from recurrent_lm.studies.timing.work import Peer, Work

    works = {d: recurrence(cell, d, dtype, batch, hidden, steps, where.device) for d in DIRECTIONS}
    plain = works["forward+backward"].peers["kernels:triton"]()

    def traced() -> Any:
        with kernels.trace_gradients() as trace:
            results = plain.call()
        assert len(trace.layers) == 1
        return results

    both = works["forward+backward"]
    peers = {"plain": lambda: plain, "traced": lambda: Peer(traced, traced)}
    timed = _timed(where, Work(peers, both.reference, both.allowed, both.flops, both.bytes), list(peers))
    timed["rows"] += _timed(where, works["forward"], ["kernels:triton"])["rows"]
    times = {row["variant"]: row["median"] for row in timed["rows"]}
    if None not in times.values():
        backward = times["plain"] - times["kernels:triton"]
        timed["share_of_backward"] = (times["traced"] - times["plain"]) / backward if backward > 0 else None
    return timed


def _logits(where: Where, direction: str, n: int, v: int, compiled: bool) -> dict[str, Any]:
    """The loss on logits in bfloat16; its bytes are the logits read once, and backward read once more and written once."""
    from recurrent_lm import kernels
    from recurrent_lm.studies.timing import peers
    from recurrent_lm.studies.timing.work import Unavailable, Work, differentiable, tolerance

    kind = torch.float32 if where.tiny else torch.bfloat16
    generator = torch.Generator(where.device).manual_seed(0)
    z = (2 * torch.randn(n, v, device=where.device, generator=generator)).to(kind)
    target = torch.randint(0, v, (n,), device=where.device, generator=generator)

    def peer(loss: Any, kind: torch.dtype = kind) -> Any:
        leaf = z.to(kind).requires_grad_()
        return differentiable(lambda: loss(leaf, target), (leaf,), None, direction)

    def liger() -> Any:
        try:
            from liger_kernel.transformers import LigerCrossEntropyLoss
        except ImportError as error:
            raise Unavailable(f"liger-kernel cannot be imported ({error})") from None
        loss = LigerCrossEntropyLoss()
        # it writes the gradient over the logits in the forward pass, so each call gets a copy, which is not its fault
        return peer(lambda leaf, target: loss(leaf * 1, target))

    makers = {
        "kernels:triton": lambda: peer(partial(kernels.cross_entropy, backend="triton")),
        "torch": lambda: peer(F.cross_entropy),
        "liger-kernel, with a copy": liger,
    }
    if compiled:
        makers["torch.compile"] = lambda: peer(peers.compiled(F.cross_entropy))
    truth = peer(F.cross_entropy, torch.float64).result()
    passes = 1 if direction == "forward" else 3
    allowed = tolerance(peer(F.cross_entropy).result(), truth, kind)
    return _timed(
        where, Work(makers, lambda name: truth, allowed, 0.0, float(passes * z.numel() * z.element_size())), list(makers)
    )


def _linear(where: Where, n: int, d: int, v: int, compiled: bool) -> dict[str, Any]:
    """The decoder's product and the loss, forward and backward, with the memory of each beyond inputs."""
    from recurrent_lm.studies.timing.losses import cross_entropy
    from recurrent_lm.studies.timing.work import Work

    work = cross_entropy("forward+backward", "float32" if where.tiny else "bfloat16", n, d, v, where.device)
    ours = {f"kernels:{strategy}": partial(_strategy, work, strategy) for strategy in ("cut", "chunked")}
    names = ["kernels:triton", *ours, "torch.nn", "linear_cross_entropy", "liger-kernel", "cut-cross-entropy"]
    names += ["torch.compile"] if compiled else []
    return _timed(where, Work(work.peers | ours, work.reference, work.allowed, work.flops, work.bytes), names)


def _strategy(work: Any, strategy: str) -> Any:
    """``kernels:triton`` of a work with its strategy given by name."""
    from recurrent_lm.studies.timing.work import Peer

    room: Any = import_module("recurrent_lm.kernels.loss.linear_cross_entropy")  # the attribute of this name is the function
    peer = work.peers["kernels:triton"]()
    choose = room.choose_loss_plan

    def call() -> Any:
        with patch.object(room, "choose_loss_plan", lambda *a, **how: choose(*a, **how | {"strategy": strategy})):
            return peer.call()

    return Peer(call, call)


def _timed(where: Where, work: Any, names: list[str]) -> dict[str, Any]:
    """A row a variant: the median and quartiles in seconds, error, memory; and why it was not timed, where it was not."""
    from recurrent_lm.studies.timing.trial import Entry, trial

    items = [name for name in names if name in work.peers]
    samples = trial(work, [Entry(name) for name in items], ("hot",), 2 if where.tiny else ROUNDS, where.device)
    rows = []
    for name in items:
        own = [s for s in samples if s["variant"] == name]
        seconds = [s["seconds"] for s in own if s["status"] == "timed"]
        spread = quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else [None] * 3
        first = own[0]
        rows.append({
            "variant": name, "status": first["status"], "median": median(seconds) if seconds else None,
            "lower_quartile": spread[0], "upper_quartile": spread[2], "error": first["error"], "allowed": first["allowed"],
            "peak_bytes": first["peak_bytes"], "bytes": work.bytes, "flops": work.flops, "note": first["note"],
        })  # fmt: skip
    wrong = [f"{r['variant']}: {r['note']}" for r in rows
             if r["status"] in ("failed", "disagrees") and r["variant"].startswith(("kernels", "plain", "traced"))]  # fmt: skip
    return {"rows": rows, "wrong": wrong}
