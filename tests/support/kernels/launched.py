"""Launches through Triton's own launcher, up to where a GPU would begin: binding, specialisation, compiling, launch options.

python launched.py     without TRITON_INTERPRET; prints the launches as JSON: name, grid, whether cooperative, kernel number
"""

import json
import os
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

import recurrent_lm.kernels.rnn.launch
from recurrent_lm.kernels import CELLS, trace_gradients
from recurrent_lm.kernels.bench.exchange_run import ExchangeRun
from recurrent_lm.kernels.loss import launch as losses
from recurrent_lm.kernels.loss.terms import Decoded, Terms, Upstream
from recurrent_lm.kernels.rnn.ops import triton_recurrence

LAUNCHES: list[tuple[str, Any, bool, int]] = []
KERNELS: list[Any] = []


class Launcher:
    """Notes a launch down, and does nothing."""

    def __init__(self, source: Any, metadata: Any) -> None:
        self.about = metadata
        KERNELS.append(self)

    def __call__(self, *arguments: Any) -> None:
        about = self.about
        LAUNCHES.append((about.name, arguments[:2], bool(about.launch_cooperative_grid), KERNELS.index(self)))


class Driver:
    """An sm_90 of 132 multiprocessors that cannot run anything."""

    launcher_cls = Launcher
    utils: Any

    def __init__(self) -> None:
        self.utils = self

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 227 * 1024, "multiprocessor_count": 132}

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[int, ...]:
        return 1, 1, 64, 0, 1024  # module, function, registers, spills, threads at most


def scan(cell: str, steps: int, batch: int, hidden: int, reset: bool = False, **how: Any) -> None:
    gates = CELLS[cell].gates
    sizes = ((gates * hidden, 3), (gates * hidden, hidden), (gates * hidden,), (gates * hidden,))
    weights = [torch.randn(size).bfloat16().requires_grad_() for size in sizes]
    state = tuple(torch.zeros(batch, hidden).bfloat16() for _ in range(CELLS[cell].states))
    starts = torch.zeros(steps, batch, dtype=torch.bool) if reset else None
    output, _ = triton_recurrence(cell, torch.randn(steps, batch, 3).bfloat16(), state, *weights, starts, **how)
    with trace_gradients():
        output.sum().backward()


def main() -> None:
    driver.set_active(Driver())  # type: ignore[arg-type]
    recurrent_lm.kernels.rnn.launch.PROGRAMS_AT_ONCE = True
    for steps in (16, 17):
        scan("lstm", steps, 20, 200, plan="cooperative")
    scan("gru", 3, 1, 200, reset=True, plan="cooperative", exchange="counter", clip=("norm", 1.0))
    scan("rnn-tanh", 2, 3, 50, plan="resident", clip=("value", 1.0))
    scan("lstm", 2, 3, 50, plan="stepwise", recompute=True)
    for exchange in ("sentinel", "counter", "none"):
        ExchangeRun(exchange, 132, 65536, 4, device="cpu")()
    ExchangeRun("sentinel", 1, 64, 1, device="cpu")()
    x, w, target, terms = torch.randn(300, 72), torch.randn(2055, 72), torch.zeros(300, dtype=torch.long), Terms(softcap=2.0)
    decoded = Decoded(x.bfloat16(), w.bfloat16(), None, target, None)
    rows = losses.cut_loss(decoded._replace(class_weight=torch.ones(2055)), terms, True)
    losses.cut_gradients(decoded, rows.top, rows.log_sum, Upstream(rows.loss), Terms(), (True, True, True))
    losses.cut_gradients(decoded, rows.top, rows.log_sum, Upstream(rows.loss), Terms(), (True, True, False), 2**-12)
    losses.chunked_gradients(decoded, Upstream(rows.loss, rows.top), terms, (True, True, False), False)
    print(json.dumps(LAUNCHES))


if __name__ == "__main__":
    main()
