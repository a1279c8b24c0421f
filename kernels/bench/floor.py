"""Three lower bounds of a recurrent layer's time, to be known before any tuning.

``python -m recurrent_lm.kernels.bench.floor --help``; no GPU is needed.

A recurrent layer, its input's product included, takes at least the time to move its bytes, the time to do its operations, and,
if W_h is spread over programs, T exchanges of the state, each of which waits for the one before. Rates are those of a datasheet
unless measured ones are given; the exchange's time is measured if ``studies constants`` recorded it, otherwise an estimate.
"""

import argparse
import math
import os
import sys
from dataclasses import dataclass

from recurrent_lm.kernels.bench.exchange_floor import exchange_floor
from recurrent_lm.kernels.rnn import plan as plans
from recurrent_lm.kernels.rnn.cells import CELLS

BATCHES, HIDDEN = (1, 16, 64, 256), (256, 512, 768, 1024, 2048)
TERABYTES, TERAFLOPS = 3.35, 989.0  # a second, bfloat16 without sparsity: NVIDIA H100 SXM datasheet


@dataclass(frozen=True)
class Floor:
    """The least microseconds of a whole sequence, for one layer with inputs as wide as its state.

    ``exchange`` is nan if W_h does not fit the programs together; ``measured`` says whether its constants were measured.
    """

    bytes: float
    operations: float
    exchange: float
    measured: bool

    @property
    def total(self) -> float:
        """The largest of the three; without an exchange the larger of the other two."""
        return max(v for v in (self.bytes, self.operations, self.exchange) if not math.isnan(v))


def floor(
    batch: int,
    steps: int,
    hidden: int,
    cell: str,
    dtype: str,
    device: str = "sm_90",
    backward: bool = False,
    terabytes: float = TERABYTES,
    teraflops: float = TERAFLOPS,
) -> Floor:
    """The floor of a forward pass, or of a forward and a backward pass.

    Bytes: forward x, both weights and the outputs; backward x, the outputs, their gradients and the weights are read, the
    gradients of x and of the weights written. Operations: two for each multiplication of the products, [T B, H] x [H, G H] of
    the input and of the state; three times as many with a backward pass.

    Args:
        batch, steps, hidden, cell, dtype: as in ``plan.predict``.
        device: a name in ``plan.DEVICES``.
        backward: whether to include the backward pass.
        terabytes, teraflops: rates of the device, a second.

    Returns:
        The three bounds in microseconds.
    """
    size, gates = plans.BYTES[dtype], CELLS[cell].gates
    state, weights = steps * batch * hidden * size, 2 * gates * hidden * hidden * size
    moved = 2 * state + weights
    if backward:
        moved += 4 * state + 2 * weights
    done = 2.0 * steps * batch * gates * hidden * 2 * hidden * (3 if backward else 1)
    waits = exchange_floor(batch, hidden, cell, dtype, device)
    measured = not math.isnan(waits[0])
    if not measured:
        fits = plans.predict(batch, steps, hidden, cell, dtype, plans.DEVICES[device])["cooperative"].plan is not None
        waits = (plans.WAIT["sentinel"],) * 2 if fits else (math.nan,) * 2
    exchange = steps * (waits[0] + (waits[1] if backward else 0.0))
    return Floor(moved / terabytes / 1e6, done / teraflops / 1e6, exchange, measured)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m recurrent_lm.kernels.bench.floor", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--cell", default="lstm", choices=list(CELLS))
    parser.add_argument("--dtype", default="bfloat16", choices=("float16", "bfloat16", "float32"))
    parser.add_argument("--steps", type=int, default=1024)
    parser.add_argument("--device", default="sm_90", choices=list(plans.DEVICES))
    parser.add_argument("--terabytes", type=float, help="a second, as measured by a copy, bytes read and written")
    parser.add_argument("--teraflops", type=float, help="a second, as measured by a large product in this dtype")
    arguments = parser.parse_args()
    terabytes, teraflops = arguments.terabytes or TERABYTES, arguments.teraflops or TERAFLOPS
    how = (arguments.cell, arguments.dtype, arguments.device)
    origin = "measured" if arguments.terabytes and arguments.teraflops else "of the H100's datasheet unless given"
    print(f"{how[0]}, {how[1]}, {how[2]}, T = {arguments.steps}; microseconds a step, forward | forward and backward")
    print(f"{terabytes} TB/s and {teraflops} TFLOP/s, {origin}; * an estimate: the wait alone")
    print("predicted is what the planner expects of the recurrence without the input's product\n")
    print(f"{'B':>4} {'H':>5}  {'bytes':>15}  {'operations':>15}  {'exchange':>16}  {'floor':>15}  {'predicted':>17}")
    for batch in BATCHES:
        for hidden in HIDDEN:
            sizes = (batch, arguments.steps, hidden)
            pair = [floor(*sizes, *how, backward, terabytes, teraflops) for backward in (False, True)]
            predictions = plans.predict(batch, arguments.steps, hidden, *how[:2], plans.DEVICES[how[2]])
            best = min(predictions.values(), key=lambda p: p.total)
            columns = [
                " | ".join(f"{getattr(f, name) / arguments.steps:6.2f}" for f in pair)
                for name in ("bytes", "operations", "exchange", "total")
            ]
            columns[2] += " " if pair[0].measured else "*"
            predicted = f"{(best.forward or 0) / arguments.steps:6.2f} | {best.total / arguments.steps:6.2f}"
            print(f"{batch:4} {hidden:5}  {'  '.join(columns)}  {predicted} {best.strategy}")


if __name__ == "__main__":
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the pipe has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
