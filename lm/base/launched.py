"""Reads torch's launcher from the environment, without importing torch."""

import os


def place() -> tuple[int, int]:
    """(rank, number of processes) from torchrun's environment; (0, 1) without it."""
    rank, size = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
    return (int(rank), int(size)) if rank.isdecimal() and size.isdecimal() else (0, 1)


def follows() -> bool:
    """Whether this process is not the first of several, and gets its settings from the first."""
    return place()[0] > 0
