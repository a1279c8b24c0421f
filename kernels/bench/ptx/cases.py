"""A recurrent layer through the project's own launches, forward and backward, and its errors against float64."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

import recurrent_lm.kernels.rnn.ops
from recurrent_lm.kernels.bench.ptx.launch import Launch, on_machine
from recurrent_lm.kernels.rnn.cells import CELLS
from recurrent_lm.kernels.rnn.plan import DEVICES, Plan
from recurrent_lm.kernels.rnn.recurrence import recurrence
from recurrent_lm.kernels.rnn.trace import trace_gradients


@dataclass(frozen=True)
class Layer:
    """A layer to run; ``tiles``, ``forward`` and ``backward`` replace fields of the plan's ``Tiles``, for both directions or
    one.
    """

    cell: str
    hidden: int
    plan: str | None = None  # the planner's choice
    exchange: str = "sentinel"
    dtype: str = "bfloat16"
    device: str = "sm_90"
    steps: int = 3
    batch: int = 3
    reset: bool = False
    recompute: bool = False
    trace: bool = False
    clip: tuple[str, float] | None = None
    seed: int = 0  # of the numbers
    tiles: dict[str, Any] = field(default_factory=dict)
    forward: dict[str, Any] = field(default_factory=dict)
    backward: dict[str, Any] = field(default_factory=dict)

    def with_tiles(self, plan: Plan) -> Plan:
        forward, backward = (self.tiles | direction for direction in (self.forward, self.backward))
        return replace(plan, forward=replace(plan.forward, **forward), backward=replace(plan.backward, **backward))

    def values(self) -> tuple[list[Tensor], Tensor | None]:
        """Random input, state and weights in the dtype, and the steps at which the state is reset, or None."""
        torch.manual_seed(self.seed)
        kind, (steps, batch, hidden) = CELLS[self.cell], (self.steps, self.batch, self.hidden)
        shapes = [(steps, batch, 3), *[(batch, hidden)] * kind.states]
        shapes += [(kind.gates * hidden, 3), (kind.gates * hidden, hidden), (kind.gates * hidden,), (kind.gates * hidden,)]
        scales = [hidden**-0.5 if i > kind.states else 1.0 for i in range(len(shapes))]
        values = [torch.randn(s, dtype=torch.float64) * by for s, by in zip(shapes, scales, strict=True)]
        reset = torch.rand(steps, batch) < 0.3 if self.reset else None
        return [v.to(getattr(torch, self.dtype)) for v in values], reset

    def run(self, function: Any, dtype: torch.dtype, **options: Any) -> list[Tensor]:
        """Outputs, final states and the gradients of all arguments, by an implementation in a dtype."""
        values, reset = self.values()
        leaves = [v.to(dtype, copy=True).requires_grad_() for v in values]
        states = CELLS[self.cell].states
        output, final = function(
            self.cell, leaves[0], tuple(leaves[1 : 1 + states]), *leaves[1 + states :], reset=reset, **options
        )  # fmt: skip
        loss = output.square().sum() + sum(f.sum() for f in final)
        return [t.detach() for t in (output, *final, *torch.autograd.grad(loss, leaves))]

    def launch(self, run: Callable[[Launch], None]) -> list[Tensor]:
        """As ``run``, by the kernels; their launches go to ``run``."""
        ops: Any = recurrent_lm.kernels.rnn.ops
        plan_for = ops.plan_for
        ops.plan_for = lambda *sizes: self.with_tiles(plan_for(*sizes))
        options = {"plan": self.plan, "exchange": self.exchange, "recompute": self.recompute, "clip": self.clip}
        dtype = getattr(torch, self.dtype)
        try:
            with on_machine(DEVICES[self.device], run):
                if self.trace:
                    with trace_gradients():
                        return self.run(ops.triton_recurrence, dtype, **options)
                return self.run(ops.triton_recurrence, dtype, **options)
        finally:
            ops.plan_for = plan_for

    def errors(self, run: Callable[[Launch], None]) -> tuple[list[float], list[float]]:
        """The error of each output and gradient against float64, and that of eager torch in the same dtype."""
        ours = self.launch(run)
        eager = {"backend": "eager", "clip_recurrent": self.clip}
        truth, theirs = (self.run(recurrence, dtype, **eager) for dtype in (torch.float64, getattr(torch, self.dtype)))
        first, second = ([relative(a, b) for a, b in zip(results, truth, strict=True)] for results in (ours, theirs))
        return first, second


def relative(result: Tensor, truth: Tensor) -> float:
    """The norm of the difference divided by that of the truth; inf if only one of them is NaN."""
    if not torch.equal(result.isnan(), truth.isnan()):
        return float("inf")
    result, truth = result.double().nan_to_num(0.0), truth.nan_to_num(0.0)
    return float((result - truth).norm() / truth.norm().clamp(min=1e-30))
