"""The gradient trace: how much gradient reaches every time step, written down while a backward pass runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class LayerTrace:
    """One layer: ``hidden_norms`` [T, B] = ||dL/dh[t]||, ``weight_norms`` [T] = ||dL/dW_h restricted to step t||_F.

    They are right for any size of gradient, but for ``hidden_norms`` of the Triton kernels, which sum squares in the
    accumulator's type: in float32 these are inf above 1.8e19 and 0 below 2.6e-23, as is what clipping by norm goes by there.
    """

    hidden_norms: Tensor
    weight_norms: Tensor


@dataclass
class GradientTrace:
    """The layers of one backward pass, the first layer first."""

    layers: list[LayerTrace] = field(default_factory=list)

    def add(self, hidden_norms: Tensor, weight_norms: Tensor) -> None:
        """A layer; the backward pass comes to the last one first."""
        self.layers.insert(0, LayerTrace(hidden_norms, weight_norms))


_active: list[GradientTrace] = []


def tracing() -> GradientTrace | None:
    """The trace that is being written, if any."""
    return _active[-1] if _active else None


@contextmanager
def trace_gradients() -> Iterator[GradientTrace]:
    """Trace the recurrent layers of the backward pass inside the block.

    Put around ``loss.backward()``; one pass a trace. dL/dh[t] holds all that arrives at h[t], from outputs and from later
    steps, after recurrent clipping.
    """
    trace = GradientTrace()
    _active.append(trace)
    try:
        yield trace
    finally:
        _active.remove(trace)
