"""A quarter of an hour on a GPU in three calls, the most valuable first: ``python tests/gpu_check.py --story 1``, then 2, 3.

1. Is the recurrence right, how many microseconds does a step take, and how much of that is waiting for other programs?
2. What the exchange costs, other sizes, losses beside their peers, the gradient trace.
3. Whole training steps, a language model by two backends, the sanitizer.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import parts_repeat
import parts_sanitize
import parts_timing
import torch
from check import Check, Skip, Where
from scan_checks import Case, agrees, one_program

T, B, H = 1024, 16, 768
SIZES = (  # cell, dtype, B, H, T: of REFERENCES of the kernels' plans, beyond the headline
    ("lstm", "bfloat16", 64, 1024, 128),
    ("lstm", "float16", 64, 1024, 128),
    ("lstm", "bfloat16", 1, 512, 256),
    ("lstm", "bfloat16", 256, 512, 128),
    ("lstm", "float32", 20, 200, 35),
)
LOSSES = ((8192, 2048, 32_000), (8192, 2048, 128_256))  # N, d, V
STEPS = (("bfloat16", 10_000, 200, 2, 20, 35), ("bfloat16", 32_000, 1024, 1, 64, 128), ("float32", 10_000, 200, 2, 20, 35))
BESIDE = 200_000_000  # bytes of a copy that runs beside an exchange: more than the L2 of any GPU so far
BUILD_SECONDS = 120
UPDATES = 300


# Story 1


def machine(where: Where) -> Iterator[Check]:
    yield Check("clocks, driver and versions", partial(_machine, where))


def _machine(where: Where) -> dict[str, Any]:
    from recurrent_lm import lm

    facts: dict[str, Any] = {"threads": os.cpu_count(), "carried_kernels": _carried()}
    if not where.tiny and shutil.which("nvidia-smi"):
        query = "clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu"
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
        facts["clocks"] = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    versions = {name: version for name, version in lm.describe_machine()["versions"].items() if version}
    return facts | versions


def _carried() -> int:
    """Compiled kernels that came with the cache: each that is missing takes seconds."""
    folder = os.environ.get("TRITON_CACHE_DIR")
    return sum(1 for _ in Path(folder).rglob("*.cubin")) if folder and Path(folder).is_dir() else 0


def headline(where: Where) -> Iterator[Check]:
    for dtype in ("float32",) if where.tiny else ("bfloat16", "float16"):
        yield from _recurrence(where, "lstm", dtype, *((2, 50, 3) if where.tiny else (B, H, T)))


def cells(where: Where) -> Iterator[Check]:
    for cell in ("gru", "rnn-tanh"):
        yield from _recurrence(where, cell, *(("float32", 2, 50, 3) if where.tiny else ("bfloat16", B, H, T)))


def sizes(where: Where) -> Iterator[Check]:
    for cell, *size in (("lstm", "float32", 2, 33, 3),) if where.tiny else SIZES:
        yield from _recurrence(where, cell, *size)


def _recurrence(where: Where, cell: str, dtype: str, batch: int, hidden: int, steps: int) -> Iterator[Check]:
    """Right against float64, then its time a step beside torch.nn, in each direction."""
    name = f"{cell} {dtype} B={batch} H={hidden} T={steps}"
    case = partial(Case, cell, steps, batch, hidden, getattr(torch, dtype), where.device)
    yield Check(f"{name} right", partial(_alone, where, lambda: agrees(case())), 100)
    for direction in parts_timing.DIRECTIONS:
        call = partial(parts_timing._recurrence, where, cell, direction, dtype, batch, hidden, steps)
        yield Check(f"{name} {direction}", partial(_alone, where, call), 100)


def waits(where: Where) -> Iterator[Check]:
    for direction in parts_timing.DIRECTIONS:
        yield Check(f"waiting, lstm {direction}", partial(_alone, where, partial(_waits, where, direction)), 60)


def _waits(where: Where, direction: str) -> dict[str, Any]:
    """Microseconds a step as it is, and where all that a program polls for is there before it asks; the difference is waiting.

    For the second time each launch gets the buffer that it had filled before, so no poll has to look twice.
    """
    from recurrent_lm.kernels.rnn import launch
    from recurrent_lm.studies.timing.recurrences import recurrence

    dtype, batch, hidden, steps = ("float32", 2, 50, 3) if where.tiny else ("bfloat16", B, H, T)
    call = recurrence("lstm", direction, dtype, batch, hidden, steps, where.device).peers["kernels:triton"]().call
    buffers: list[Any] = []
    exchanged = launch.exchanged

    def keep(*arguments: Any, **options: Any) -> Any:
        buffers.append(exchanged(*arguments, **options))
        return buffers[-1]

    def again(*arguments: Any, **options: Any) -> Any:
        buffer, words, _ = buffers.pop(0)
        buffers.append((buffer, words[:0], 0))  # of which nothing is filled again
        return buffers[-1]

    whole = _seconds(where, call)
    with patch.object(launch, "exchanged", keep):
        call()
    assert buffers, "the launch asks for no buffer of an exchange"
    with patch.object(launch, "exchanged", again):
        ready = _seconds(where, call)
    named = {"us_a_step": whole, "us_a_step_ready": ready, "us_waiting": whole - ready}
    return {name: seconds / steps * 1e6 for name, seconds in named.items()}


def launches(where: Where) -> Iterator[Check]:
    dtype, (steps, batch, hidden) = (torch.float32, (3, 2, 50)) if where.tiny else (torch.bfloat16, (T, B, H))
    times = 2 if where.tiny else 3 if where.stub else 200
    call = partial(parts_repeat._repeat, where, "lstm", steps, batch, hidden, dtype, "sentinel", times)
    yield Check(f"{times} launches of each direction: no hang, the same bits", call, 100)


# Story 2


def flashrnn_build(where: Where) -> Iterator[Check]:
    yield Check("FlashRNN's compilation is begun", partial(_begin_flashrnn, where))


def _folder() -> Path:
    """Where files of this story lie that nobody takes home."""
    folder = Path(tempfile.gettempdir()) / "recurrent-lm-story"
    folder.mkdir(exist_ok=True)
    return folder


def _flag() -> Path:
    return _folder() / "flashrnn.log"


def _begin_flashrnn(where: Where) -> None:
    """In a session of its own, so that it goes on beside the checks; it is ended after ``BUILD_SECONDS``."""
    if where.tiny:
        raise Skip("FlashRNN needs a CUDA GPU")
    code = (
        "from recurrent_lm.studies.timing.recurrences import recurrence\n"
        f"recurrence('lstm', 'forward+backward', 'bfloat16', {B}, {H}, 8, 'cuda').peers['FlashRNN']().call()\n"
        "print('built')"
    )
    command = ["timeout", str(BUILD_SECONDS), sys.executable, "-c", code]
    with _flag().open("w") as log:
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def flashrnn(where: Where) -> Iterator[Check]:
    yield Check("FlashRNN beside the recurrence", partial(_flashrnn, where), BUILD_SECONDS + 60)


def _flashrnn(where: Where) -> dict[str, Any]:
    from recurrent_lm.studies.timing.recurrences import recurrence

    if where.tiny:
        raise Skip("FlashRNN needs a CUDA GPU")
    end = time.monotonic() + BUILD_SECONDS
    while "built" not in (log := _flag().read_text() if _flag().exists() else ""):
        if "Error" in log or time.monotonic() > end:
            lines = log.strip().splitlines() or ["it took too long"]
            raise Skip(f"FlashRNN was not built: {lines[-1]}")
        time.sleep(1)
    work = recurrence("lstm", "forward+backward", "bfloat16", B, H, T, where.device)
    return parts_timing._timed(where, work, ["kernels:triton", "FlashRNN"])


def exchange(where: Where) -> Iterator[Check]:
    sizes = ((2, 1),) if where.tiny else ((48, 24), (96, 24), (132, 16), (132, 64), (132, 256))
    for programs, kilobytes in sizes:
        yield Check(f"exchange, {programs} programs, {kilobytes} KB", partial(_exchange, where, programs, kilobytes), 60)


def _exchange(where: Where, programs: int, kilobytes: int) -> dict[str, Any]:
    """Microseconds a step of each protocol and of loads that wait for nobody, alone and beside a copy larger than L2.

    Timed over all steps and over half of them: the difference is that of steps alone.
    """
    from recurrent_lm import kernels

    dtype = torch.float32 if where.tiny else torch.bfloat16
    state = 1 << (kilobytes * 1024).bit_length() - 1  # a power of two
    steps = 4 if where.tiny else 512
    numbers: dict[str, Any] = {}
    for protocol in ("none",) if where.tiny else ("sentinel", "counter", "none"):
        runs = [kernels.ExchangeRun(protocol, programs, state, count, dtype, where.device) for count in (steps, steps // 2)]
        for beside in (False,) if where.tiny else (False, True):
            seconds = [median(_exchange_seconds(where, run, beside) for _ in range(2 if where.tiny else 9)) for run in runs]
            name = f"us_{protocol}{'_beside_a_copy' if beside else ''}"
            numbers[name] = (seconds[0] - seconds[1]) / (steps - steps // 2) * 1e6
            assert runs[0].error() < 1e-1, f"{protocol} leaves a wrong state"
    return numbers


def _exchange_seconds(where: Where, run: Any, beside: bool) -> float:
    run.refill()
    if where.tiny:
        begin = time.perf_counter()
        run()
        return time.perf_counter() - begin
    stream = torch.cuda.Stream()
    if beside:
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            source = torch.ones(BESIDE // 4, device=where.device)
            for _ in range(20):  # some 2 ms: longer than the exchange
                source.clone()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end) / 1e3)


def losses(where: Where) -> Iterator[Check]:
    for n, d, v in ((8, 6, 50),) if where.tiny else LOSSES:
        yield Check(f"linear N={n} d={d} V={v}", partial(_alone, where, partial(_loss, where, n, d, v)), 120)


def _loss(where: Where, n: int, d: int, v: int) -> dict[str, Any]:
    """Forward and backward with the memory of each; CCE with its gradient filter, its default, and without."""
    from recurrent_lm.studies.timing import peers
    from recurrent_lm.studies.timing.losses import cross_entropy
    from recurrent_lm.studies.timing.work import Peer, Unavailable, Work

    work = cross_entropy("forward+backward", "float32" if where.tiny else "bfloat16", n, d, v, where.device)
    cut = peers.cut_cross_entropy

    def unfiltered() -> Peer:
        if where.tiny:
            raise Unavailable("cut-cross-entropy needs a CUDA GPU")
        with patch.object(peers, "cut_cross_entropy", partial(cut, filter_eps=None)):
            return work.peers["cut-cross-entropy"]()

    more = {"cut-cross-entropy, no filter": unfiltered}
    more |= {f"kernels:{strategy}": partial(parts_timing._strategy, work, strategy) for strategy in ("cut", "chunked")}
    names = ["kernels:triton", "kernels:cut", "kernels:chunked", "torch.nn", "linear_cross_entropy", "liger-kernel",
             "cut-cross-entropy", "cut-cross-entropy, no filter"]  # fmt: skip
    return parts_timing._timed(where, Work(work.peers | more, work.reference, work.allowed, work.flops, work.bytes), names)


# Story 3


def steps(where: Where) -> Iterator[Check]:
    for dtype, *size in (("float32", 30, 8, 1, 2, 4),) if where.tiny else STEPS:
        v, h, layers, rows, bptt = size
        name = f"training step {dtype} V={v} H={h} layers={layers} B={rows} T={bptt}"
        yield Check(name, partial(_alone, where, partial(_step, where, dtype, *size)), 120)


def _step(where: Where, dtype: str, *size: int) -> dict[str, Any]:
    from recurrent_lm.studies.timing.steps import GRAPH, Size, training

    return parts_timing._timed(where, training(Size(*size), dtype, where.device), [GRAPH, "kernels:triton", "torch.nn"])


def capture(where: Where) -> Iterator[Check]:
    yield Check("a step that cannot be captured goes on without a graph", partial(_alone, where, partial(_capture, where)), 90)


def _capture(where: Where) -> dict[str, Any]:
    """A hook that reads a number back breaks the capture; the training says so, and its losses are those without a graph."""
    from recurrent_lm.studies.timing.steps import Size, graphed, trainer

    size = Size(30, 8, 1, 2, 4) if where.tiny else Size(1000, 64, 1, 8, 16)
    step, _ = trainer(size, "float32", "triton", where.device)
    expected = [step() for _ in range(8)]
    _, at_once, training = graphed(size, "float32", "triton", where.device)
    next(training.model.parameters()).register_hook(lambda gradient: gradient * float(gradient.isfinite().all()))
    losses = [at_once() for _ in range(8)]
    assert torch.allclose(torch.tensor(losses), torch.tensor(expected), rtol=1e-4), f"{losses} are not {expected}"
    assert where.tiny or not training.graph.recorded, "a graph was recorded in spite of the hook"
    return {"last_loss": losses[-1]}


def language(where: Where) -> Iterator[Check]:
    yield Check("a language model by triton and torch: one curve", partial(_language, where), 150)


def _language(where: Where) -> dict[str, Any]:
    """Train on the Obama speeches by both backends: losses agree to rounding at first; tokens a second of each."""
    folder = _folder() / "language"
    updates = 12 if where.tiny else UPDATES
    size: list[str] = []
    corpus = "obama"
    if where.tiny:
        size = ["--hidden-size", "16", "--embedding-size", "8", "--layers", "1", "--bptt", "5", "--rows", "2"]
        corpus = str(folder / "text.txt")
        folder.mkdir(exist_ok=True)
        Path(corpus).write_text("\n\n".join(["one and two are three . " * 3] * 5))
    curves, speeds = {}, {}
    for backend in ("triton", "torch"):
        for count in (2, updates):  # the first run compiles
            run = folder / f"{backend}-{count}"
            shutil.rmtree(run, ignore_errors=True)
            options = f"--max-steps {count} --dropout 0 --backend {backend} --device {where.device} --precision float32".split()
            command = [sys.executable, "-m", "recurrent_lm.lm", "train", corpus, "--run", str(run), *options, *size]
            done = subprocess.run(command, capture_output=True, text=True, timeout=140)
            assert done.returncode == 0, " ".join((done.stdout + done.stderr).split()[-40:])
        curves[backend] = [row["loss"] for row in _rows(run / "steps.jsonl")]
        speeds[f"tokens_a_second_{backend}"] = _rows(run / "epochs.jsonl")[-1]["tokens_per_second"]
    pairs = list(zip(curves["triton"], curves["torch"], strict=True))
    early = max(abs(a - b) / b for a, b in pairs[:20])
    late = abs(pairs[-1][0] - pairs[-1][1]) / pairs[-1][1]
    assert early < 1e-3, f"the losses of the first updates differ by {early:.1e}"
    assert late < 2e-2, f"the last losses differ by {late:.1e}"
    return speeds | {"early_difference": early, "late_difference": late, "last_loss": pairs[-1][0]}


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def sanitize(where: Where) -> Iterator[Check]:
    for shard in ("memcheck cooperative sentinel", "racecheck cooperative sentinel", "memcheck losses", "memcheck resident"):
        yield from parts_sanitize.checks(where, shard)


def _alone(where: Where, call: Callable[[], Any]) -> Any:
    """In the interpreter one program after the other, so that none waits for another."""
    with one_program() if where.tiny else nullcontext():
        return call()


def _seconds(where: Where, call: Callable[[], Any]) -> float:
    """The median of some calls."""
    from recurrent_lm.studies.timing.cuda import EventTimer
    from recurrent_lm.studies.timing.measure import WallTimer

    timer: Any = WallTimer(least=0.0) if where.tiny else EventTimer()
    repeats = timer.prepare(call)
    return float(median(timer.sample(call, repeats) for _ in range(2 if where.tiny else 9)))


SHARDS: dict[str, Callable[[Where], Iterator[Check]]] = {
    "machine": machine, "peaks": partial(parts_timing.checks, shard="peaks"), "headline": headline, "waits": waits,
    "launches": launches, "cells": cells, "flashrnn-build": flashrnn_build, "exchange": exchange, "sizes": sizes,
    "losses": losses, "trace": partial(parts_timing.checks, shard="trace"), "flashrnn": flashrnn, "steps": steps,
    "capture": capture, "language": language, "sanitize": sanitize,
}  # fmt: skip


def checks(where: Where, shard: str) -> Iterator[Check]:
    if where.stub:
        shrink()
    yield from SHARDS[shard](where)


def shrink() -> None:
    """Sizes at which what runs on the CPU beside a stub takes seconds."""
    global T, B, H, SIZES, LOSSES, STEPS, UPDATES, BESIDE
    T, B, H, UPDATES, BESIDE = 16, 16, 128, 3, 4_000
    SIZES, LOSSES = tuple((cell, dtype, 4, 128, 8) for cell, dtype, *_ in SIZES[:2]), ((64, 32, 1000),)
    STEPS = tuple((dtype, 100, 128, layers, 4, 8) for dtype, _, _, layers, _, _ in STEPS)
    parts_timing.RECURRENCES = (("lstm", "bfloat16", 4, 128, 8),) * 3
    parts_timing.ROUNDS = 2
