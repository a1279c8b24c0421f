"""Says which plan runs and why."""

from recurrent_lm.kernels.rnn import plan as plans
from recurrent_lm.kernels.rnn.cells import CELLS
from recurrent_lm.kernels.rnn.constants import measured
from recurrent_lm.kernels.rnn.plan import Device, Tiles


def explain(
    batch: int,
    steps: int,
    hidden: int,
    cell: str = "lstm",
    dtype: str = "bfloat16",
    device: str | Device = "sm_90",
    plan: str | None = None,
    tf32: bool = True,
) -> None:
    """Print the predicted time of each plan for a sequence of [steps, batch] and ``hidden`` units, and which one runs.

    Args:
        batch, steps, hidden: B, T, H.
        cell: a key of ``kernels.CELLS``.
        dtype: "float16", "bfloat16" or "float32".
        device: "sm_80", "sm_90", "sm_100" or a ``Device``.
        plan: one to ask for by name.
        tf32: whether the library multiplies float32 as TF32, as torch lets cuDNN unless it is told otherwise.

    Raises:
        ValueError: for unknown names and for a plan that does not fit.
    """
    if isinstance(device, str):
        if device not in plans.DEVICES:
            raise ValueError(f"device must be one of {', '.join(plans.DEVICES)}, not {device!r}")
        device = plans.DEVICES[device]
    for name, value, known in (("cell", cell, CELLS), ("dtype", dtype, plans.BYTES)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")
    found = plans.predict(batch, steps, hidden, cell, dtype, device, tf32=tf32)
    chosen = plans.choose(batch, steps, hidden, cell, dtype, device, plan)
    weights = plans.padded(hidden) ** 2 * CELLS[cell].slots * plans.BYTES[dtype] / plans.KB
    sizes = f"B = {batch}, T = {steps}, H = {hidden} (padded to {chosen.hidden})"
    print(f"{cell}, {sizes}, {dtype}, {device.name}: W_h {weights:.0f} KB")
    source = "predicted from measured constants" if measured(device.name) else "estimated"
    for prediction in sorted(found.values(), key=lambda p: p.total):
        if prediction.forward is None or prediction.backward is None:
            print(f"  {prediction.strategy:12} does not fit")
            continue
        forward, backward = prediction.forward / steps, prediction.backward / steps
        print(f"  {prediction.strategy:12} {forward:7.2f} us a step forward, {backward:7.2f} backward ({source})")
    print(f"  triton runs {chosen.strategy}: forward {_tiles(chosen.forward)}; backward {_tiles(chosen.backward)}")
    if plan is None and plans.faster_than_library(batch, steps, hidden, cell, dtype, device, tf32=tf32):
        print("  with the choice left open, triton runs: it is predicted to be faster than the library")
    elif plan is None:
        print("  with the choice left open, torch runs: the library is predicted to be faster")


def _tiles(tiles: Tiles) -> str:
    how = f"{tiles.block_b} rows x {tiles.block_h} units, K by {tiles.block_k} x {tiles.split}, {tiles.warps} warps"
    how += f", {tiles.parts} programs share K" if tiles.parts > 1 else ""
    return how + ", W first" * tiles.w_first
