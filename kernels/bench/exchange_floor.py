"""The time of a step's exchange alone, from the measured constants: no cooperative plan with these tiles can be faster."""

from math import ceil, nan

from recurrent_lm.kernels.rnn import plan as plans
from recurrent_lm.kernels.rnn.cells import CELLS
from recurrent_lm.kernels.rnn.plan import Device, Tiles, measured


def exchange_floor(batch: int, hidden: int, cell: str, dtype: str, device: str | Device = "sm_90") -> tuple[float, float]:
    """Time a step of the exchange alone, under the cooperative plan of these sizes.

    The time is the wait of an exchange, plus the time that L2 takes to give every program the state that it multiplies. Where
    programs share K (``Tiles.parts``), a second exchange of the partial sums is added.

    Args:
        batch, hidden, cell, dtype: as in ``plan.predict``.
        device: a name in ``plan.DEVICES`` or a ``Device``.

    Returns:
        Microseconds a step, forward and backward; nan if the device was not measured (``studies run exchange``) or no
        cooperative plan fits.
    """
    if isinstance(device, str):
        if device not in plans.DEVICES:
            return nan, nan
        device = plans.DEVICES[device]
    constants = measured(device.name)
    plan = plans.predict(batch, 1, hidden, cell, dtype, device)["cooperative"].plan if constants else None
    if plan is None:
        return nan, nan
    wait, l2 = (constants[name]["value"] for name in (f"WAIT.{plan.exchange}", "L2_BYTES"))

    def step(tiles: Tiles, k: int) -> float:
        blocks, batch_tiles = plan.hidden // tiles.block_h, ceil(batch / tiles.block_b)
        at_once = min(batch_tiles, device.multiprocessors // blocks)
        each, waits = tiles.block_b * k // tiles.parts * plans.BYTES[dtype], 1
        if tiles.parts > 1:  # the parts of a sum are a second exchange, of float32 written and read
            each, waits = each + 8 * tiles.block_b * tiles.block_h * tiles.parts, 2
        return float(ceil(batch_tiles / at_once) * (waits * wait + at_once * blocks * each / l2))

    return step(plan.forward, plan.hidden), step(plan.backward, plan.hidden * CELLS[cell].slots)
