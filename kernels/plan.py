"""Which plan runs a recurrence: a pure function of sizes and of what the device holds. No GPU is needed to call it."""

from dataclasses import dataclass

from kernels.cells import CELLS

STRATEGIES = ("stepwise", "resident", "cooperative")
EXCHANGES = ("sentinel", "counter")
BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
KB = 1024


@dataclass(frozen=True)
class Device:
    """What a plan depends on: shared memory a program may use, in bytes, and the number of multiprocessors."""

    name: str
    shared: int
    multiprocessors: int


DEVICES = {
    device.name: device
    for device in (Device("sm_80", 163 * KB, 108), Device("sm_90", 227 * KB, 132), Device("sm_100", 227 * KB, 148))
}


@dataclass(frozen=True)
class Tiles:
    """One direction's tiles.

    Rows of the batch, hidden units, rows of W in one product; K in how many parts at once (``split``), how many tiles of the
    state requested before the first product (``ahead``), warps a program.
    """

    block_b: int
    block_h: int
    block_k: int
    split: int = 1
    ahead: int = 1
    warps: int = 4


@dataclass(frozen=True)
class Plan:
    """How one sequence runs: ``hidden`` is the padded number of units."""

    strategy: str
    exchange: str
    hidden: int
    forward: Tiles
    backward: Tiles


def padded(hidden: int) -> int:
    """Hidden units in whole tiles: a power of two up to 256, beyond that a multiple of 64."""
    if hidden <= 256:
        return max(16, 1 << (hidden - 1).bit_length())
    return -(-hidden // 64) * 64


def choose(
    batch: int, hidden: int, cell: str, dtype: str, device: Device, strategy: str | None = None, exchange: str = "sentinel"
) -> Plan:
    """The plan for a sequence.

    Args:
        batch: rows, B.
        hidden: units, H.
        cell: a key of ``kernels.CELLS``.
        dtype: "float16", "bfloat16" or "float32" ("float64" for the interpreter).
        device: see ``DEVICES``.
        strategy: one of ``STRATEGIES``, or None to choose.
        exchange: one of ``EXCHANGES``.

    Raises:
        ValueError: for an unknown name, and for a strategy that cannot fit the device, with those that can.
    """
    if strategy is not None and strategy not in STRATEGIES:
        raise ValueError(f"plan must be one of {', '.join(STRATEGIES)}, not {strategy!r}")
    if exchange not in EXCHANGES:
        raise ValueError(f"exchange must be one of {', '.join(EXCHANGES)}, not {exchange!r}")
    slots, size, units = CELLS[cell].slots, BYTES[dtype], padded(hidden)
    fitting = {
        "resident": _resident(batch, units, slots, size, device),
        "cooperative": _cooperative(batch, units, slots, size, device),
        "stepwise": _stepwise(batch, units, slots, size),
    }
    if strategy is not None and fitting[strategy] is None:
        others = ", ".join(name for name, tiles in fitting.items() if tiles is not None)
        raise ValueError(
            f"plan {strategy!r} does not fit {device.name}: {cell} of {hidden} units in {dtype} has "
            f"{units * units * slots * size / KB:.0f} KB of W_h, and a program at most {device.shared // KB} KB; "
            f"these do: {others}"
        )
    name = strategy or next(name for name, tiles in fitting.items() if tiles is not None)
    tiles = fitting[name]
    assert tiles is not None
    return Plan(name, exchange if name == "cooperative" else "none", units, *tiles)


def _rows(batch: int) -> int:
    return 16 if batch <= 16 else 32


def _stepwise(batch: int, units: int, slots: int, size: int) -> tuple[Tiles, Tiles]:
    block_b, block_k = _rows(batch), min(units, 64 if size == 2 else 32)
    block_h = min(units, 64 // slots)
    return Tiles(block_b, block_h, block_k), Tiles(block_b, min(units, 32), block_k)


def _resident(batch: int, units: int, slots: int, size: int, device: Device) -> tuple[Tiles, Tiles] | None:
    staged = 16 * units * slots * size  # the state's tile on its way into the product
    if units > 256 or units * slots > 512 or units * units * slots * size + staged > device.shared:
        return None
    return Tiles(16, units, units, warps=8), Tiles(16, units, units * slots, warps=8)


def _cooperative(batch: int, units: int, slots: int, size: int, device: Device) -> tuple[Tiles, Tiles] | None:
    block_b = _rows(batch)
    found = []
    for k, per_unit in ((units, slots), (units * slots, 1)):
        block_k = min(k, 128 if k % 128 == 0 else 64)
        for block_h in (16 // per_unit, 32 // per_unit, 64 // per_unit):
            programs = units // block_h
            shared = k * per_unit * block_h * size + block_b * k * size
            if units % block_h == 0 and programs <= device.multiprocessors and shared <= device.shared:
                found.append(Tiles(block_b, block_h, block_k, ahead=k // block_k))
                break
        else:
            return None
    return found[0], found[1]
