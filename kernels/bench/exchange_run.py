"""Runs the exchange alone: buffers, the launch, and the expected result."""

import torch
from torch import Tensor

from recurrent_lm.kernels.bench.exchange_only import WARPS, exchange_only, slices
from recurrent_lm.kernels.rnn.launch import device_limits, fresh
from recurrent_lm.kernels.rnn.plan import EXCHANGES


class ExchangeRun:
    """``steps`` steps in which ``programs`` programs exchange a state of ``state_bytes`` bytes.

    Args:
        exchange: one of ``plan.EXCHANGES``, or "none" to load the expected state, which ``refill`` stores, without waiting.
        state_bytes: a power of two; each program reads so many each step and writes its part of them.

    Raises:
        ValueError: for sizes that no launch can have, with the reason.
    """

    def __init__(
        self,
        exchange: str,
        programs: int,
        state_bytes: int,
        steps: int,
        dtype: torch.dtype = torch.float16,
        device: str = "cuda",
    ) -> None:
        most = device_limits(torch.cuda.current_device() if device == "cuda" else None).multiprocessors
        if exchange not in (*EXCHANGES, "none"):
            raise ValueError(f"exchange must be one of {', '.join((*EXCHANGES, 'none'))}, not {exchange!r}")
        if not 1 <= programs <= most:
            raise ValueError(f"programs must be from 1 to {most}, the multiprocessors that must run them all at once")
        if state_bytes < 64 or state_bytes & (state_bytes - 1):
            raise ValueError(f"state_bytes must be a power of two from 64 on, not {state_bytes}")
        self.exchange, self.programs, self.steps = exchange, programs, steps
        self.elements = state_bytes // dtype.itemsize
        self.h = torch.empty(steps, self.elements, dtype=dtype, device=device)
        self.arrivals = torch.zeros(1, dtype=torch.int32, device=device)

    def refill(self) -> None:
        """Prepare the buffers for another call; for "none" they get the result of an exchange."""
        self.arrivals.zero_()
        if self.exchange == "none":
            self.h.copy_(self.expected())
        else:
            self.h.copy_(fresh("sentinel", *self.h.shape, like=self.h))  # a counter needs no particular value

    def __call__(self) -> None:
        """Launch; call ``refill`` before."""
        sizes = slices(self.programs, self.elements, self.h.element_size())
        exchange_only[(self.programs, 1)](
            self.h, self.arrivals, self.steps, self.elements, sizes.own,
            SLICE=sizes.slice, BLOCK=sizes.block, COUNT=sizes.count, EXCHANGE=self.exchange,
            num_warps=WARPS, num_stages=1, launch_cooperative_grid=True, enable_fp_fusion=True,
        )  # fmt: skip

    def expected(self) -> Tensor:
        """h [T, elements], computed in float64, in the state's dtype."""
        x = torch.arange(self.elements, dtype=torch.float64, device=self.h.device) / self.elements
        added = [torch.zeros_like(x.mean())]
        for _ in range(self.steps - 1):
            added.append((x.mean() + added[-1]) / 2)
        return (x + torch.stack(added)[:, None]).to(self.h.dtype)

    def error(self) -> float:
        """The largest difference of an element from the expected one; inf for an element that was never written. h is below
        2.
        """
        distance = (self.h.double() - self.expected().double()).abs().max()
        return float(distance) if bool(distance.isfinite()) else float("inf")
