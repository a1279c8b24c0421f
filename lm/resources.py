"""What a training takes of its machine: device, backend, threads, precision and memory."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from recurrent_lm import kernels
from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.base.machine import check_memory, out_of_memory, resolve_device
from recurrent_lm.lm.config import MachineConfig, ModelConfig, RunConfig
from recurrent_lm.lm.parameter_counts import GATES, parameter_table

PAYS = 1.3  # bfloat16 must be this much faster in the trial, so that noise does not choose
TRIALS = 40
LEAST = 64  # hidden units of a layer that is part of the trial
SMALLER = "take a smaller --hidden-size, --embedding-size, --layers, --vocab-size, --rows or --bptt"


def settle(config: MachineConfig, model: ModelConfig | None = None, rows: int = 20) -> tuple[MachineConfig, str]:
    """Resolve every ``auto`` setting and set the number of threads.

    Returns:
        The settings, and the reason for the precision.

    Raises:
        InputError: if the device or the backend cannot run here, or the backend not in this precision.
    """
    device = resolve_device(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    try:
        backend = kernels.choose_backend(config.backend, torch.device(device))
    except ValueError as error:
        raise InputError(f"--backend: {error}") from None
    precision, why = config.precision, "as asked"
    obstacle = {"eager": "the eager backend is the reference"}.get(backend, "")
    if backend == "triton" and device == "cpu":
        obstacle = "Triton's interpreter, which runs here, computes bfloat16 wrongly"
    if obstacle and precision != "float32":
        if precision == "bf16":
            raise InputError(f"--precision bf16 needs another backend: {obstacle}")
        precision, why = "float32", obstacle
    if precision == "auto":
        gain = bfloat16_gain(device, model or ModelConfig(), rows)
        precision = "bf16" if gain >= PAYS else "float32"
        why = f"a trial of the products ran {gain:.1f} times as fast in bfloat16"
    settled = replace(config, device=device, threads=torch.get_num_threads(), precision=precision, backend=backend)
    return settled, why


def bfloat16_gain(device: str, model: ModelConfig, rows: int) -> float:
    """Time of a decoder's product in float32 over that in bfloat16, on a CPU with a few steps of the model's layers.

    Each is the best of many short interleaved trials on one thread, so that other programs on the machine, which can only
    slow a trial down, do not decide.
    """
    steps, hidden, rows = 8, min(model.hidden_size, 512), min(rows, 64)  # a trial takes little time and memory at any size
    layers = model.layers if device == "cpu" and hidden >= LEAST else 0  # products of fewer units are too small to matter
    threads, random = torch.get_num_threads(), torch.get_rng_state()
    layer = kernels.layer(model.cell, hidden, hidden, backend="torch")  # on a CPU no other one has bfloat16
    x = torch.ones(steps, rows, hidden)
    operands = torch.ones(steps * rows if device == "cpu" else 256, 256, device=device)
    weights = torch.ones(2048, 256, device=device)
    cast = {dtype: (operands.to(dtype), weights.to(dtype)) for dtype in (torch.float32, torch.bfloat16)}
    best = {(dtype, part): float("inf") for dtype in cast for part in ("decoder", "layer")}

    def timed(dtype: torch.dtype, part: str, work: Callable[[], object]) -> None:
        begin = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize(device)
        best[dtype, part] = min(best[dtype, part], time.perf_counter() - begin)

    def through_layer(dtype: torch.dtype) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            output, _ = layer(x)
        output.sum().backward()

    torch.set_num_threads(1)
    for trial in range(TRIALS):
        for dtype, (a, b) in cast.items():
            timed(dtype, "decoder", lambda a=a, b=b: torch.mm(a, b.t()))  # type: ignore[misc]
            if layers and trial < TRIALS // 4:
                timed(dtype, "layer", lambda dtype=dtype: through_layer(dtype))  # type: ignore[misc]
    torch.set_num_threads(threads)
    torch.set_rng_state(random)
    parts = {"decoder": 3} | ({"layer": layers} if layers else {})  # of a decoder's three products one ran
    total = {dtype: sum(times * best[dtype, part] for part, times in parts.items()) for dtype in cast}
    return total[torch.float32] / total[torch.bfloat16]


@contextmanager
def enough_memory(config: RunConfig, vocabulary: int, tokens: int) -> Iterator[None]:
    """Refuse a training that does not fit into memory, before and while the block allocates it.

    Counted in float32: weights, gradients, Adam's two averages, and a batch's gates and states.

    Raises:
        InputError: in a sentence with the needed memory.
    """
    model, rows, device = config.model, config.batches.rows, config.machine.device
    parameters = sum(count for _, count in parameter_table(vocabulary, model, model.tie).values())
    copies = (2 if config.training.optimizer == "sgd" else 4) + (config.training.average > 0)
    weights = 4 * parameters * copies
    read = rows * min(config.batches.bptt, -(-tokens // rows))
    batch = 4 * read * (model.d + model.layers * (GATES.get(model.cell, 1) + 1) * model.hidden_size)
    needed = (
        f"{parameters:,} parameters take {weights / 1e9:,.1f} GB with gradients and optimizer, a batch of {read:,} tokens "
        f"{batch / 1e9:,.1f} GB"
    )
    check_memory(weights + batch, needed, SMALLER, device)
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise InputError(f"{needed}, and {device} has not that much to give; {SMALLER}") from None
