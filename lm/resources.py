"""What a training takes of its machine: device, backend, threads, precision and memory."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from recurrent_lm import kernels
from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.base.machine import check_memory, out_of_memory, resolve_device
from recurrent_lm.lm.config import MachineConfig, RunConfig
from recurrent_lm.lm.parameter_counts import GATES, parameter_table

PAYS = 1.3  # bfloat16 must be this much faster in the trial, so that noise does not choose
TRIALS = 40
SMALLER = "take a smaller --hidden-size, --embedding-size, --layers, --vocab-size, --rows or --bptt"


def settle(config: MachineConfig) -> tuple[MachineConfig, str]:
    """Resolve every ``auto`` setting and set the number of threads.

    Returns:
        The settings, and the reason for the precision.

    Raises:
        InputError: if the device or the backend cannot run here.
    """
    device = resolve_device(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    try:
        backend = kernels.choose_backend(config.backend, torch.device(device))
    except ValueError as error:
        raise InputError(f"--backend: {error}") from None
    precision, why = config.precision, "as asked"
    if backend == "eager" and precision != "float32":
        if precision == "bf16":
            raise InputError("--precision bf16 needs another backend; the eager one is the float32 reference")
        precision, why = "float32", "the eager backend is the reference"
    if precision == "auto":
        gain = bfloat16_gain(device)
        precision = "bf16" if gain >= PAYS else "float32"
        why = f"a trial of the decoder's products ran {gain:.1f} times as fast in bfloat16"
    settled = replace(config, device=device, threads=torch.get_num_threads(), precision=precision, backend=backend)
    return settled, why


def bfloat16_gain(device: str) -> float:
    """Time of the decoder's product in float32 over that in bfloat16.

    Each time is the best of many short interleaved trials on one thread, because other programs can only slow a trial down.
    """
    best = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    operands = {dtype: torch.ones(256, 256, device=device, dtype=dtype) for dtype in best}
    weights = {dtype: torch.ones(2048, 256, device=device, dtype=dtype) for dtype in best}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(TRIALS):
        for dtype in best:
            begin = time.perf_counter()
            torch.mm(operands[dtype], weights[dtype].t())
            if device != "cpu":
                torch.cuda.synchronize(device)
            best[dtype] = min(best[dtype], time.perf_counter() - begin)
    torch.set_num_threads(threads)
    return best[torch.float32] / best[torch.bfloat16]


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
