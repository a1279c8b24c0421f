"""A GPU that launches nothing: kernels are bound, specialised and compiled for sm_90; results are whatever memory held.

What torch.cuda offers is answered by objects that do nothing, and tensors that are sent to "cuda" stay on the CPU. So every
line that a GPU check would run is run, with its imports, arguments and paths; only the numbers are wrong.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode

from recurrent_lm.kernels import backends
from recurrent_lm.kernels.bench.ptx.launch import on_machine
from recurrent_lm.kernels.rnn import launch, ops
from recurrent_lm.kernels.rnn.plan import DEVICES

H200 = SimpleNamespace(name="a GPU that launches nothing", major=9, minor=0, multi_processor_count=132, total_memory=1 << 37,
                       L2_cache_size=1 << 20, uuid="none")  # fmt: skip


@contextmanager
def launches_nothing() -> Iterator[None]:
    """Within, Triton kernels on CPU tensors are compiled for an sm_90, by the plans that it would get, and not run."""

    def plan_for(batch: int, steps: int, hidden: int, cell: str, like: Any, strategy: str | None, exchange: str) -> Any:
        sizes = (batch, steps, hidden, cell, launch.name_of(like.dtype), DEVICES["sm_90"])
        return launch.plans.choose(*sizes, strategy or None, exchange)

    with (
        patch.object(ops, "plan_for", plan_for),
        patch.object(backends, "runs_triton", lambda device: True),
        on_machine(DEVICES["sm_90"], lambda launch: None),
    ):
        yield


@contextmanager
def stub_gpu() -> Iterator[None]:
    """``launches_nothing``, and a torch.cuda that agrees to everything."""
    nothing = lambda *_, **__: None  # noqa: E731
    answers: dict[str, Any] = {
        "is_available": lambda: True, "current_device": lambda: 0, "device_count": lambda: 1, "synchronize": nothing,
        "get_device_properties": lambda *_: H200, "get_device_capability": lambda *_: (9, 0), "Stream": _Stream,
        "Event": _Event, "CUDAGraph": _Graph, "graph": lambda *_, **__: nullcontext(), "stream": lambda *_: nullcontext(),
        "current_stream": lambda *_: _Stream(), "device_of": lambda *_: nullcontext(), "set_sync_debug_mode": nothing,
        "reset_peak_memory_stats": nothing, "max_memory_allocated": lambda *_: 0, "memory_allocated": lambda *_: 0,
        "empty_cache": nothing, "_sleep": nothing, "mem_get_info": lambda *_: (1 << 36, 1 << 37),
        "get_rng_state": torch.get_rng_state, "manual_seed_all": nothing,
    }  # fmt: skip
    generator = torch.Generator
    with ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(patch.object(torch.cuda, name, answer))
        stack.enter_context(patch.object(torch, "Generator", lambda *_: generator()))
        stack.enter_context(_StayHere())
        stack.enter_context(launches_nothing())
        yield


class _StayHere(TorchFunctionMode):
    """Tensors sent to a GPU stay on the CPU."""

    def __torch_function__(self, function: Callable[..., Any], types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = {name: _here(value) for name, value in (options or {}).items() if name != "pin_memory"}
        return function(*map(_here, arguments), **options)


def _here(value: Any) -> Any:
    if isinstance(value, torch.device) or (isinstance(value, str) and value.startswith("cuda")):
        return torch.device("cpu")
    return value


class _Stream:
    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def wait_stream(self, stream: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass


class _Event:
    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def record(self, *_: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: Any) -> float:
        return 1.0  # milliseconds


class _Graph:
    def replay(self) -> None:
        pass
