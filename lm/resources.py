"""What a training takes of its machine: device, backend, threads, precision and memory."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from statistics import median

import torch

from recurrent_lm import kernels
from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.base.machine import check_memory, out_of_memory, resolve_device
from recurrent_lm.lm.config import MachineConfig, RunConfig
from recurrent_lm.lm.model import LanguageModel, in_halves
from recurrent_lm.lm.parameter_counts import GATES, parameter_table

PAYS = 1.15  # bfloat16 must be this much faster in the trial, whose few tokens show less of its gain than a whole batch
ROUNDS, SECONDS = (5, 41), 0.3  # of the trial: it ends after so many seconds, but not outside these numbers of rounds
SMALLER = "take a smaller --hidden-size, --embedding-size, --layers, --vocab-size, --rows or --bptt"


def settle(config: MachineConfig) -> tuple[MachineConfig, str]:
    """Resolve every ``auto`` setting and set the number of threads; ``precision`` stays ``auto`` where a trial is to choose it.

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
    return replace(config, device=device, threads=torch.get_num_threads(), precision=precision, backend=backend), why


def with_precision(config: RunConfig, why: str, vocabulary: int) -> tuple[RunConfig, str]:
    """Choose the precision that ``settle`` left open, by a trial.

    Args:
        config: settled settings.
        why: the reason that ``settle`` gave.
        vocabulary: |V|.

    Returns:
        The settings, and the reason for the precision.
    """
    if config.machine.precision != "auto":
        return config, why
    gain = bfloat16_gain(trial(config, vocabulary))
    machine = replace(config.machine, precision="bf16" if gain >= PAYS else "float32")
    return replace(config, machine=machine), f"a trial of the products ran {gain:.1f} times as fast in bfloat16"


def bfloat16_gain(rounds: Sequence[tuple[float, float]]) -> float:
    """How many times as fast bfloat16 is, estimated cautiously.

    The smaller of two estimates, since other programs on the machine spoil them in different ways: the ratio of the shortest
    times is wrong where no time of float32 was undisturbed, the median of the ratios where most rounds were disturbed.

    Args:
        rounds: seconds in float32 and in bfloat16, measured one after the other; at least one round.
    """
    float32, bfloat16 = zip(*rounds, strict=True)
    return min(min(float32) / min(bfloat16), median(a / b for a, b in rounds))


def trial(config: RunConfig, vocabulary: int) -> list[tuple[float, float]]:
    """Seconds in float32 and bfloat16 of a few steps of the model with their gradients, or on a GPU of a decoder's product.

    The precisions take turns in going first, on one thread. Sizes are bounded, so that any model takes little time and memory.
    """
    threads, random = torch.get_num_threads(), torch.get_rng_state()
    work = _product(config.machine.device) if config.machine.device != "cpu" else _few_steps(config, vocabulary)
    least, most = ROUNDS
    rounds: list[tuple[float, float]] = []
    torch.set_num_threads(1)
    for halves in (False, True):  # the libraries prepare each product at its first call
        work(halves)
    begin = time.perf_counter()
    while len(rounds) < least or (len(rounds) < most and time.perf_counter() - begin < SECONDS):
        order = (False, True) if len(rounds) % 2 else (True, False)
        seconds = {halves: _seconds(work, halves) for halves in order}
        rounds.append((seconds[False], seconds[True]))
    torch.set_num_threads(threads)
    torch.set_rng_state(random)
    return rounds


def _seconds(work: Callable[[bool], object], halves: bool) -> float:
    begin = time.perf_counter()
    work(halves)
    return time.perf_counter() - begin


def _few_steps(config: RunConfig, vocabulary: int) -> Callable[[bool], object]:
    """The loss of a short batch and its gradients, in bfloat16 or not."""
    model = config.model
    hidden, d, layers = min(model.hidden_size, 256), min(model.d, 256), min(model.layers, 2)
    small = replace(model, hidden_size=hidden, embedding_size=d, layers=layers)
    classes, rows, steps = min(vocabulary, 10_000), min(config.batches.rows, 20), min(config.batches.bptt, 12)
    network = LanguageModel(classes, small, config.machine.backend).eval()
    tokens = (torch.arange(rows * steps) % classes).view(rows, steps)
    state = network.zero_state(rows)

    def work(halves: bool) -> object:
        hidden, _ = in_halves(network, tokens, state, None) if halves else network(tokens, state)
        loss = kernels.linear_cross_entropy(
            hidden.flatten(0, 1),
            network.decoder.weight,
            tokens.t().flatten(),
            linear_bias=network.decoder.bias,
            compute_dtype=torch.bfloat16 if halves else None,
            backend=config.machine.backend,
        )
        return torch.autograd.grad(loss, list(network.parameters()))

    return work


def _product(device: str) -> Callable[[bool], object]:
    """The product of a decoder on a GPU, in bfloat16 or not."""
    operands, weights = torch.ones(256, 256, device=device), torch.ones(2048, 256, device=device)
    cast = {halves: (operands.to(d), weights.to(d)) for halves, d in ((False, torch.float32), (True, torch.bfloat16))}

    def work(halves: bool) -> object:
        x, w = cast[halves]
        torch.mm(x, w.t())
        torch.cuda.synchronize(device)
        return None

    return work


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
