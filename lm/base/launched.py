"""What torch's launcher says of this process in its environment; light, for commands that begin."""

import os


def place() -> tuple[int, int]:
    """(rank, number of processes) as torchrun says in the environment; (0, 1) without it."""
    rank, size = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
    return (int(rank), int(size)) if rank.isdecimal() and size.isdecimal() else (0, 1)


def follows() -> bool:
    """Whether this process takes over what the first one sends."""
    return place()[0] > 0
