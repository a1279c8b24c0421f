"""Several processes of torch's launcher begin one training together and print each message once.

The first process works as a single process does and sends its settings, streams and first checkpoint to the others, which read
no file. An error that ends all is printed once: the first process to claim it in torchrun's store prints it, and the others end
afterwards.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from recurrent_lm.lm.base.errors import Diverged, InputError, Stopped
from recurrent_lm.lm.base.launched import place
from recurrent_lm.lm.config import RunConfig
from recurrent_lm.lm.runs import checkpoint
from recurrent_lm.lm.training.ranks import ALONE, TIMEOUT, Alone, Ranks

if TYPE_CHECKING:
    from pathlib import Path

    from recurrent_lm.lm.text.data import Data
    from recurrent_lm.lm.training.loop import Training

LEAD, SPEAKER, SAID, HERE, MET = "lm/lead", "lm/speaker", "lm/said", "lm/here", "lm/met"  # keys in the store
GRACE = 2.0  # seconds for the first process to print an error that all have
PATIENCE = 10.0  # seconds to wait for the sentence of another process
_current: Alone = ALONE


def current() -> Alone:
    """The ranks that this process belongs to."""
    return _current


def join() -> Alone:
    """Meet the other processes, if torchrun has started several.

    Raises:
        InputError: if they cannot meet.
    """
    global _current
    rank, size = place()
    if size == 1 or _current.size > 1:
        return _current

    address, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    if not address or not port.isdecimal():
        raise InputError("RANK and WORLD_SIZE are set, MASTER_ADDR and MASTER_PORT are not; let torchrun start the processes")
    keeps = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        store = TCPStore(address, int(port), None, keeps, TIMEOUT, wait_for_workers=False)
        _all_at(HERE, store, size)
        dist.init_process_group(backend, store=PrefixStore("lm", store), rank=rank, world_size=size, timeout=TIMEOUT)
        _all_at(MET, store, size)  # one that ended before would break the others' connections
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the {size} processes cannot reach each other at {address}:{port} ({reason})") from None
    _current = Ranks(rank, size, store)
    return _current


def _all_at(key: str, store: TCPStore, size: int) -> None:
    """Wait until all processes are here; in Python, so that a signal can interrupt it."""
    store.add(key, 1)
    end = time.monotonic() + TIMEOUT.total_seconds()
    while (present := store.add(key, 0)) < size:
        if time.monotonic() > end:
            raise InputError(f"only {present} of {size} processes have joined; start the others, or fewer")
        time.sleep(0.02)


def check(config: RunConfig, size: int = 0) -> None:
    """Refuse settings that several processes cannot run.

    Args:
        config: the run's settings.
        size: the number of processes; 0 for those that this one has joined.

    Raises:
        InputError: names the setting that prevents it.
    """
    size, rows, device = size or _current.size, config.batches.rows, config.machine.device
    if rows % size:
        raise InputError(
            f"{rows} rows cannot be divided over {size} processes; start a number of processes that divides {rows}, "
            f"or in a new run take a multiple of {size} for --rows"
        )
    if size > 1 and ":" in device:
        raise InputError(f"--device {device} is one GPU, and there are {size} processes; with cuda each takes the next one")
    if size > 1 and (wish := config.training.on_divergence) != "stop":
        raise InputError(f"--on-divergence {wish} works with one process only; with several, use stop")
    if size > 1 and (config.training.ar or config.training.tar):
        raise InputError("--ar and --tar work with one process only; leave them out, or train in one process")


def lead(training: "Training") -> None:
    """Send a training at its last checkpoint to the other processes; from here on each has its own rows.

    Raises:
        InputError: if one of them cannot build it.
    """
    ranks = _current
    if not isinstance(ranks, Ranks):
        return

    data = training.data
    data = replace(data, corpus=replace(data.corpus, documents=[], presplit={}))  # they need the streams only
    ranks.store.set(LEAD, "")
    ranks.send((training.config, data, training.path, checkpoint.load(training.path, "last")))
    _settle(ranks, "")
    _divide(training, ranks)


def follow(assemble: "Callable[[RunConfig, Data, Path, str], Training]") -> "Training":
    """Build the training that the first process sends.

    Raises:
        InputError: the first error of any process.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as SIGTERM: until there is a training, a signal ends the process at once
    ranks = join()
    assert isinstance(ranks, Ranks)
    while not ranks.store.check([LEAD]):
        if ranks.store.check([SAID]):  # the first process has given up
            raise SystemExit(int(ranks.store.get(SAID)))
        time.sleep(0.02)
    config, data, path, saved = ranks.send(None)  # type: ignore[var-annotated]
    error, training = "", None
    try:
        _take_device(config)
        training = assemble(config, data, path, "")
        training.restore(saved)
    except InputError as found:
        error = f"rank {ranks.rank}: {found}"
    _settle(ranks, error)
    assert training
    _divide(training, ranks)
    return training


def _take_device(config: RunConfig) -> None:
    torch.set_num_threads(config.machine.threads)
    if config.machine.device == "cuda":
        local, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= count:
            raise InputError(
                f"this machine has {count} CUDA devices for {local + 1} processes or more; start {count}, or use --device cpu"
            )
        torch.cuda.set_device(local)


def _settle(ranks: Ranks, error: str) -> None:
    """Raise the same error on all ranks, if any has one."""
    if message := next(filter(None, ranks.collect(error)), ""):
        raise InputError(message)


def _divide(training: "Training", ranks: Ranks) -> None:
    k = training.config.batches.rows
    training.step.ranks = ranks
    training.state = ranks.part(training.state)
    training.model.share = (k, ranks.rows(k))


@contextmanager
def one_voice(sentence: Callable[[Exception], tuple[str, int] | None]) -> Iterator[None]:
    """Print an error that ends all processes once, and end with its exit code; does nothing with one process.

    Args:
        sentence: returns an error's message and exit code; None for a program's fault.
    """
    try:
        yield
    except Exception as error:
        ending = sentence(error)
        if not isinstance(_current, Ranks) or not ending:
            raise
        for number in (signal.SIGINT, signal.SIGTERM):  # torchrun ends the survivors with SIGTERM
            signal.signal(number, signal.SIG_IGN)
        if isinstance(error, (Stopped, Diverged)):  # as on all ranks: the first one's words come after its last line
            _wait_until_said(_current, 0.0 if _current.first else GRACE)
        _say(_current, *ending)
        sys.stdout.flush()
        os._exit(ending[1])  # exit at once: with the old handlers restored, a signal could change the exit code


def _wait_until_said(ranks: Ranks, seconds: float) -> None:
    end = time.monotonic() + seconds
    with suppress(RuntimeError):  # the store cannot be asked any more
        while time.monotonic() < end and not ranks.store.check([SAID]):
            time.sleep(0.02)


def _say(ranks: Ranks, message: str, code: int) -> None:
    name = str(ranks.rank)
    try:
        if ranks.store.compare_set(SPEAKER, "", name).decode() != name:
            _wait_until_said(ranks, PATIENCE)
            return
    except RuntimeError:
        pass  # the process that kept the store has ended
    print(f"lm: {message}", file=sys.stderr, flush=True)
    with suppress(RuntimeError):
        ranks.store.set(SAID, str(code))


def wait_for_the_first() -> None:
    """Wait until torchrun ends this process: the command line is wrong, and the first process reports that."""
    time.sleep(PATIENCE)
