"""Memory of a computation: its peak, and a sentence where the machine has too little."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from recurrent_lm import lm
from recurrent_lm.lm import InputError


def check_memory(needed: float, smaller: str) -> None:
    """Refuse parameters that need more memory than the machine has.

    Args:
        needed: bytes.
        smaller: the parameters to reduce, for the error's sentence.

    Raises:
        InputError: if ``needed`` exceeds the machine's memory.
    """
    lm.check_memory(needed, f"this needs {needed / 1e9:,.0f} GB of memory or more", f"reduce {smaller}")


@contextmanager
def allocation_failures() -> Iterator[None]:
    """Turn the failure of an allocation into an ``InputError``."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if lm.out_of_memory(error):
            raise InputError("the machine's memory is not enough for these parameters; take smaller ones with --set") from None
        raise


def peak_bytes(call: Callable[[], object], device: str = "cpu") -> int:
    """Peak of tensor memory during the second call, in bytes above the lowest level before the peak."""

    call()  # allocates the buffers that persist
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return max(0, torch.cuda.max_memory_allocated() - before)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    assert profile.profiler is not None
    events = profile.profiler.kineto_results.events()
    changes = [(event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"]
    held = peak = lowest = 0
    for _, size in sorted(changes, key=lambda c: c[0]):
        held += size
        # A training step first frees the old gradients, so memory counts from the lowest level before the peak.
        lowest = min(lowest, held)
        peak = max(peak, held - lowest)
    return peak
