"""The cooperative plan again and again at varied sizes, half of the time beside other work: no hang, and the same bits.

Each size is held to float64 once; every repetition must then give the very same numbers. A hang shows as silence, and is ended
by whoever started this process.
"""

import random
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial

import torch
from check import Check, Where
from scan_checks import Case, agrees, one_program

TIMES = 40  # of each size: 25 sizes, 1,000 launches of each direction
KERNELS = (  # cell, hidden, dtype, exchange: what is compiled
    ("lstm", 768, torch.bfloat16, "sentinel"),
    ("lstm", 200, torch.bfloat16, "counter"),
    ("gru", 512, torch.float16, "sentinel"),
    ("rnn-tanh", 1024, torch.bfloat16, "sentinel"),
    ("rnn-relu", 256, torch.float32, "counter"),
)
STEPS, BATCHES = (1, 2, 3, 5, 17, 64, 200), (1, 3, 7, 17, 20, 33)  # no batch fills its tiles


def checks(where: Where, shard: str) -> Iterator[Check]:
    if where.tiny:
        yield Check(
            "rnn-tanh float32 counter T=3 B=2 H=50", partial(_repeat, where, "rnn-tanh", 3, 2, 50, torch.float32, "counter", 2)
        )
        return
    draw = random.Random(0)
    for cell, hidden, dtype, exchange in KERNELS:
        for _ in range(5):
            steps, batch = draw.choice(STEPS), draw.choice(BATCHES)
            name = f"{cell} {dtype} {exchange} T={steps} B={batch} H={hidden}, {TIMES} times".replace("torch.", "")
            yield Check(name, partial(_repeat, where, cell, steps, batch, hidden, dtype, exchange, TIMES))


def _repeat(
    where: Where, cell: str, steps: int, batch: int, hidden: int, dtype: torch.dtype, exchange: str, times: int
) -> dict[str, float]:
    case = Case(cell, steps, batch, hidden, dtype, where.device)
    how = {"plan": "cooperative", "exchange": exchange, "backend": "triton"}
    with one_program() if where.tiny else nullcontext():
        numbers = agrees(case, plan="cooperative", exchange=exchange)
        first = case(dtype, **how)
        for i in range(1, times):
            with other_work() if i % 2 and not where.tiny else nullcontext():
                again = case(dtype, **how)
            for index, (a, b) in enumerate(zip(first, again, strict=True)):
                assert torch.equal(a, b), f"result {index} differs in repetition {i}"
    return numbers | {"repetitions": times}


class other_work:
    """Products on another stream, so that programs of a launch do not all start at once."""

    def __enter__(self) -> None:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            a = torch.ones(1024, 1024, device="cuda")
            for _ in range(10):
                a = a @ a * 1e-3

    def __exit__(self, *_: object) -> None:
        pass
