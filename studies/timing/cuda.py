"""Timing on a CUDA GPU: events, a cold or a hot L2 cache, CUDA graphs, and the GPU's own word on clock, power and throttling.

Written after nvbench and triton.testing; nothing here has met a GPU yet.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from recurrent_lm.studies.timing.measure import Weather, repeats_for
from recurrent_lm.studies.timing.work import Peer, Tensors, Unavailable

# Reasons for a lower clock that spoil a sample (nvml.h). That the power limit caps the clock is how large products run.
SPOILING = {0x8: "hardware slowdown", 0x20: "software thermal", 0x40: "hardware thermal", 0x80: "power brake"}


@dataclass(frozen=True)
class EventTimer:
    """CUDA events around calls on the current stream.

    Args:
        cold: empty the L2 cache before each call; then each call is timed alone. Otherwise calls follow each other, and
            what fits in the cache stays there.
        least: seconds of work in a sample.
        warmup: seconds.
    """

    cold: bool = False
    least: float = 2e-3
    warmup: float = 0.1

    def prepare(self, call: Callable[[], object]) -> int:
        spent, shortest, calls = 0.0, math.inf, 0
        while calls < 3 or spent < self.warmup:
            seconds = self.sample(call, 1)
            spent += seconds
            shortest = min(shortest, seconds)
            calls += 1
        return min(100, repeats_for(self.least, shortest))

    def sample(self, call: Callable[[], object], repeats: int) -> float:
        if not self.cold:
            return _between(lambda: [call() for _ in range(repeats)]) / repeats
        total = 0.0
        for _ in range(repeats):
            self._filler.zero_()
            total += _between(call)
        return total / repeats

    @cached_property
    def _filler(self) -> Tensor:
        """Twice the L2 cache: writing it pushes everything else out."""
        size = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
        return torch.empty(2 * max(size, 1 << 20), dtype=torch.int8, device="cuda")


@dataclass(frozen=True)
class FreshTimer(EventTimer):
    """Times each call alone, after its own ``refill``, which does not count."""

    def sample(self, call: Any, repeats: int) -> float:
        total = 0.0
        for _ in range(repeats):
            call.refill()
            total += _between(call)
        return total / repeats


def _between(call: Callable[[], object]) -> float:
    """Seconds between two events around a call."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def graphed(peer: Peer) -> Peer:
    """A contestant whose call is replayed from a CUDA graph, without the host's launches."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(side):
            for _ in range(3):
                peer.call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results: Any = peer.call()
    except RuntimeError as error:
        torch.cuda.synchronize()
        raise Unavailable(f"it cannot be captured in a CUDA graph: {str(error).splitlines()[0]}") from None

    def result() -> Tensors:
        for tensor in results:
            tensor.fill_(math.nan)  # what the graph does not write must show
        graph.replay()
        torch.cuda.synchronize()
        return tuple(tensor.clone() for tensor in results)

    return Peer(graph.replay, result)


class Gpu:
    """The driver's data on the current GPU, from nvidia-ml-py if it is installed."""

    def __init__(self) -> None:
        self._nvml: Any = None
        try:
            pynvml = import_module("pynvml")
        except ImportError:
            return
        uuid = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
        try:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
        except pynvml.NVMLError:
            return
        self._nvml = pynvml

    def weather(self) -> Weather:
        """Clock and power now, and whether the clock is throttled."""
        nvml = self._nvml
        if nvml is None:
            return Weather()
        try:
            clock = float(nvml.nvmlDeviceGetClockInfo(self._handle, nvml.NVML_CLOCK_SM))
            watts = nvml.nvmlDeviceGetPowerUsage(self._handle) / 1e3
            reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle)
        except nvml.NVMLError:
            return Weather()
        return Weather(clock, watts, any(reasons & bit for bit in SPOILING))


def exact_float32() -> None:
    """Turn TF32 off in float32; cuDNN uses it by default, and computes something else then."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
