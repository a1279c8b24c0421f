"""What Newton's method over a whole sequence costs on a GPU, on paper: operations, bytes and kernels, beside the planner's time
of the fused recurrence. Nothing here was measured on a GPU.

The parallel times are floors: published peaks, every number moved as rarely as the algorithm allows, in 16 bits. Where even
they exceed the fused recurrence's predicted time, Newton does not pay.
"""

from dataclasses import dataclass
from math import ceil, inf, log2

from recurrent_lm import kernels
from recurrent_lm.studies.scale.arithmetic import CONSTANTS, DEVICE, HALF

GPU = "H100"  # sm_90
LEVEL = 2.0  # assumed: microseconds of a kernel that waits for the one before, in a CUDA graph
HELD = 80e9  # bytes of the GPU's memory
CELL = "lstm"
BATCHES, STEPS, HIDDEN = (1, 64), (64, 256, 1_024, 4_096), (64, 256, 1_024)
WAYS = ("full", "diagonal")


@dataclass(frozen=True)
class Work:
    """A layer of ``hidden`` units n over [T, B] steps, forward and backward."""

    cell: str
    batch: int
    steps: int
    hidden: int

    @property
    def state(self) -> int:
        """S: numbers of a state."""
        return kernels.CELLS[self.cell].states * self.hidden

    @property
    def fused(self) -> float:
        """Microseconds of the fastest plan, the library's kernels included, as the planner predicts them."""
        sizes = self.batch, self.steps, self.hidden, self.cell, "bfloat16"
        return min(plan.total for plan in kernels.predict(*sizes, kernels.DEVICES[DEVICE]).values())

    def iteration(self, way: str) -> float:
        """Microseconds of an iteration at the least; inf where the Jacobians exceed the memory.

        The step for all T at once is one product with W_h. A scan of full Jacobians joins T pairs upwards, each a product of
        two [S, S] matrices that are read and a third that is written, and applies each matrix once downwards; a scan of
        diagonals reads J and r and writes d once.
        """
        places, gates = self.batch * self.steps, kernels.CELLS[self.cell].gates * self.hidden
        flops = 2 * places * self.hidden * gates
        moved = HALF * (places * (2 * self.state + gates) + self.hidden * gates)
        if way == "diagonal":
            return self._time(flops, moved + HALF * 3 * places * self.state, 2)
        jacobians = HALF * places * self.state**2
        if jacobians > HELD:
            return inf
        levels = 1 + 2 * ceil(log2(self.steps))
        return self._time(flops + 2 * places * self.state**3, moved + 5 * jacobians, levels)

    def even(self, way: str) -> float:
        """Forward iterations with which Newton takes as long as the fused recurrence; its backward pass is one scan more."""
        return self.fused / self.iteration(way) - 1

    def _time(self, flops: float, moved: float, levels: int) -> float:
        return max(flops / CONSTANTS["flops"].value, moved / CONSTANTS["memory"].value) * 1e6 + levels * LEVEL


def works() -> list[Work]:
    """The sizes of the table."""
    return [Work(CELL, batch, steps, hidden) for batch in BATCHES for hidden in HIDDEN for steps in STEPS]
