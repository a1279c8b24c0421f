"""Memory that is not there: a sentence before the measurement where it can be foreseen, and one where it cannot."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from lm import InputError


def check_memory(needed: float, smaller: str) -> None:
    """Refuse what needs more bytes than the machine has; ``smaller`` names the parameters to reduce."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise InputError(
            f"this needs {needed / 1e9:,.0f} GB of memory or more, and the machine has {there / 1e9:,.0f}; reduce {smaller}"
        )


@contextmanager
def allocation_failures() -> Iterator[None]:
    """Turn the failure of an allocation into an ``InputError``."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise InputError("the machine's memory is not enough for these parameters; take smaller ones with --set") from None
        raise
