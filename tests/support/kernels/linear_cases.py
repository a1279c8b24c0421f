"""One layer of minGRU in float64, with the gradients that arrive at its results."""

from typing import Any

import torch
from torch import Tensor

from recurrent_lm.kernels import recurrence, trace_gradients


class Layer:
    """Arguments held exactly by ``dtype``; calling it gives outputs, the final state, and the gradients of all arguments."""

    def __init__(self, steps: int, batch: int, hidden: int, dtype: torch.dtype = torch.float64, bias: bool = True) -> None:
        random = torch.Generator().manual_seed(steps + 10 * batch + 100 * hidden)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, dtype=torch.float64, generator=random).to(dtype).double()

        self.dtype = dtype
        self.tensors = [draw(steps, batch, 3), draw(batch, hidden), draw(2 * hidden, 3), *([draw(2 * hidden)] if bias else [])]
        self.upstream = [draw(steps, batch, hidden), draw(batch, hidden)]
        self.reset = torch.rand(steps, batch, generator=random) < 0.3

    def run(self, *leaves: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        """Outputs and final state from the arguments in the order of ``tensors``."""
        input, h0, weight, *bias = leaves
        output, (h,) = recurrence("mingru", input, (h0,), weight, bias_ih=bias[0] if bias else None, **options)
        return output, h

    def __call__(self, dtype: torch.dtype = torch.float64, **options: Any) -> list[Tensor]:
        leaves = [t.to(dtype, copy=True).requires_grad_() for t in self.tensors]
        results = self.run(*leaves, **options)
        upstream = [u.to(r.dtype) for r, u in zip(results, self.upstream, strict=True)]
        return [*(r.detach() for r in results), *torch.autograd.grad(results, leaves, upstream)]

    def traced(self, dtype: torch.dtype = torch.float64, **options: Any) -> list[Tensor]:
        """The same, then the two norms of the gradient trace."""
        with trace_gradients() as trace:
            results = self(dtype, **options)
        (layer,) = trace.layers
        return [*results, layer.hidden_norms, layer.weight_norms]
