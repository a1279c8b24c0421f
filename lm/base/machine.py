"""The machine a run meets: device, threads, and whether bfloat16 pays there."""

import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import recurrent_lm
from recurrent_lm import kernels
from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.config import MachineConfig, ModelConfig, RunConfig, check_device
from recurrent_lm.lm.parameter_counts import GATES, parameter_table
from recurrent_lm.lm.version import program_version

PAYS = 1.3  # bfloat16 must be this much faster in the trial, so that noise does not choose
TRIALS = 40
LAYERS = {"lstm": kernels.LSTM, "gru": kernels.GRU}
GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
FAILED_ALLOCATIONS = ("allocate memory", "out of memory", "Storage size calculation overflowed")  # as torch and CUDA say it


def settle(config: MachineConfig, model: ModelConfig | None = None, rows: int = 20) -> tuple[MachineConfig, str]:
    """The settings with every ``auto`` resolved, and a sentence on the precision; sets the number of threads.

    Args:
        model: the model and the ``rows`` it reads, whose layers take part in the trial that chooses the precision.

    Raises:
        InputError: when the device or the backend cannot run here.
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
        gain = bfloat16_gain(device, model or ModelConfig(), rows)
        precision = "bf16" if gain >= PAYS else "float32"
        why = f"a trial of the products ran {gain:.1f} times as fast in bfloat16"
    settled = replace(config, device=device, threads=torch.get_num_threads(), precision=precision, backend=backend)
    return settled, why


def resolve_device(name: str) -> str:
    """cpu, cuda or cuda:N for ``auto`` or a wish."""
    check_device(name)
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        wanted = int(name.partition(":")[2] or 0)
        if wanted >= count:
            raise InputError(f"--device {name}: this machine has {count} CUDA devices; use --device cpu")
    return name


def bfloat16_gain(device: str, model: ModelConfig, rows: int) -> float:
    """Time of a decoder's product in float32 over that in bfloat16, on a CPU with a few steps of the model's layers.

    Each is the best of many short interleaved trials on one thread, so that other programs on the machine, which can only
    slow a trial down, do not decide.
    """
    steps, hidden = 8, min(model.hidden_size, 512)
    layer = LAYERS.get(model.cell, kernels.RNN)(hidden, hidden)
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

    threads, random = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    for trial in range(TRIALS):
        for dtype, (a, b) in cast.items():
            timed(dtype, "decoder", lambda a=a, b=b: torch.mm(a, b.t()))  # type: ignore[misc]
            if device == "cpu" and trial < TRIALS // 4:
                timed(dtype, "layer", lambda dtype=dtype: through_layer(dtype))  # type: ignore[misc]
    torch.set_num_threads(threads)
    torch.set_rng_state(random)
    parts = (
        {"decoder": 3, "layer": model.layers} if device == "cpu" else {"decoder": 3}
    )  # of a decoder's three products one ran
    total = {dtype: sum(times * best[dtype, part] for part, times in parts.items()) for dtype in cast}
    return total[torch.float32] / total[torch.bfloat16]


SMALLER = "take a smaller --hidden-size, --embedding-size, --layers, --vocab-size, --rows or --bptt"


@contextmanager
def enough_memory(config: RunConfig, vocabulary: int, tokens: int) -> Iterator[None]:
    """Refuse what cannot fit before it is made.

    Counted in float32 are weights, gradients, for Adam two averages of each weight, and of a batch the gates and states.

    Raises:
        InputError: says how much is needed, also where an allocation fails meanwhile.
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


def check_memory(needed: float, what: str, advice: str, device: str = "cpu") -> None:
    """Refuse what needs more bytes than a device has: the system ends a process that runs out of memory without a message.

    Args:
        what: what needs how much, and ``advice`` on what to reduce, for the sentence of the ``InputError``.
    """
    if needed > (there := memory(device)):
        raise InputError(f"{what}, and {device} has {there / 1e9:,.1f} GB; {advice}")


def memory(device: str) -> int:
    """Bytes of memory of a device; for a CPU the machine's, or the limit of a control group that this process is in."""
    if device != "cpu":
        return int(torch.cuda.get_device_properties(device).total_memory)
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for group in _groups():
        for file in ("memory.max", "memory.limit_in_bytes"):  # of version 2 and 1
            with suppress(OSError, ValueError):  # not there, or "max"
                limits.append(int((group / file).read_text()))
    return min(limits)


def _groups() -> Iterator[Path]:
    """The control groups of this process with those around them; in a container its own one is the outermost."""
    yield from (GROUPS, GROUPS / "memory")
    with suppress(OSError):
        for line in OWN_GROUPS.read_text().splitlines():  # 0::/system.slice/job, or 9:memory:/system.slice/job
            controller, _, path = line.partition(":")[2].partition(":")
            if controller in ("", "memory"):
                inner = Path(path.lstrip("/"))
                yield from (GROUPS / controller / part for part in (inner, *inner.parents))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, CUDA or Python says that an allocation failed."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(part in str(error) for part in FAILED_ALLOCATIONS)


def describe_machine() -> dict[str, Any]:
    """What a run folder records about where it was made."""
    about: dict[str, Any] = {
        "version": program_version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "command": shlex.join([_program(), *sys.argv[1:]]),
    }
    if ((root := recurrent_lm.ROOT) / ".git").exists():
        about["commit"] = _git(root, "rev-parse", "HEAD")
        about["dirty"] = bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    return about


def _program() -> str:
    """lm or studies, also where it was started with ``python -m``."""
    path = Path(sys.argv[0])
    return path.parent.name if path.name == "__main__.py" else path.name


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
