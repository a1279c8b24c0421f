"""Compile the kernels of the GPU stories where there is no GPU: ``python tests/gpu/warm.py --cache DIR``.

Each call goes through the project's own launch code to a driver that launches nothing, so that Triton specialises and compiles
as it will beside the GPU. Its cache is then carried there (TRITON_CACHE_DIR=DIR), and compiling is not paid in GPU minutes. The
same Triton must read it: the cache's keys hold its version, the sources of the kernels, the architecture and all options.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS / "gpu"), str(TESTS / "support" / "kernels"), str(TESTS / "support")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--only", default="", help="only works whose name holds this")
    arguments = parser.parse_args()
    os.environ["TRITON_CACHE_DIR"] = str(arguments.cache)
    os.environ.pop("TRITON_INTERPRET", None)
    from stub import launches_nothing

    with launches_nothing():
        for name, call in works():
            if arguments.only in name:
                before, begin = compiled(arguments.cache), time.perf_counter()
                call()
                compiled_kernels = compiled(arguments.cache) - before
                print(f"{name}: {compiled_kernels} kernels compiled in {time.perf_counter() - begin:.0f} s", flush=True)
    size = sum(file.stat().st_size for file in arguments.cache.rglob("*") if file.is_file())
    print(f"{compiled(arguments.cache)} kernels, {size / 1e6:.0f} MB in {arguments.cache}")


def compiled(cache: Path) -> int:
    """How many kernels a cache holds."""
    return sum(1 for _ in cache.rglob("*.cubin"))


def works() -> Iterator[tuple[str, Callable[[], None]]]:
    """A name and a call for each size of the stories."""
    import parts_story as story
    import torch

    sizes = [("lstm", "bfloat16", story.B, story.H, story.T), ("lstm", "float16", story.B, story.H, story.T)]
    sizes += [(cell, "bfloat16", story.B, story.H, story.T) for cell in ("gru", "rnn-tanh")]
    sizes += list(story.SIZES)
    for dtype, _, hidden, _, rows, bptt in story.STEPS:
        sizes.append(("lstm", dtype, rows, hidden, bptt))
    for cell, dtype, batch, hidden, steps in dict.fromkeys(sizes):
        kind = getattr(torch, dtype)
        yield f"{cell} {dtype} B={batch} H={hidden} T={steps}", _layer(cell, kind, batch, hidden, steps)
    for n, d, v in story.LOSSES:
        for strategy in ("cut", "chunked"):
            yield (
                f"linear {strategy} N={n} d={d} V={v}",
                _loss(min(n, 256), d, v, strategy),
            )  # rows decide nothing that is compiled


def _layer(cell: str, dtype: Any, batch: int, hidden: int, steps: int) -> Callable[[], None]:
    import torch
    from scan_checks import Case

    from recurrent_lm.kernels import recurrence, trace_gradients

    def call() -> None:
        case = Case(cell, steps, batch, hidden, dtype)
        case(dtype, backend="triton")
        with trace_gradients():
            case(dtype, backend="triton")
        leaves = [t.to(dtype) for t in case.tensors]
        with torch.no_grad():
            recurrence(cell, leaves[0], tuple(leaves[1 : 1 + case.states]), *leaves[1 + case.states :], backend="triton")

    return call


def _loss(n: int, d: int, v: int, strategy: str) -> Callable[[], None]:
    import torch

    from recurrent_lm.kernels import linear_cross_entropy

    def call() -> None:
        x, w = (torch.randn(k, d).to(torch.bfloat16).requires_grad_() for k in (n, v))
        bias, target = torch.zeros(v, dtype=torch.bfloat16, requires_grad=True), torch.randint(v, (n,))
        loss = linear_cross_entropy(x, w, target, linear_bias=bias, strategy=strategy, backend="triton")
        torch.autograd.grad(loss, [x, w, bias])

    return call


if __name__ == "__main__":
    main()
