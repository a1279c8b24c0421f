"""The choice of a recurrence's plan: a pure function of sizes and of the device's limits, which needs no GPU.

A small model of the time of a step finds each strategy's best tiles, and the cheapest strategy is taken, the library's own
kernels included. The model's constants are estimates unless ``measured.json`` has measured ones; they only decide between
strategies.
"""

import json
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from math import ceil
from pathlib import Path
from typing import Any

from recurrent_lm.kernels.rnn.cells import CELLS, EVERY_CELL, LINEAR_CELLS

MEASURED = Path(__file__).with_name("measured.json")
CONSTANTS = ("LAUNCH", "WAIT.sentinel", "WAIT.counter", "L2_BYTES")


def constant(device: str, name: str, estimate: float) -> float:
    """Look up one of ``CONSTANTS`` for a device.

    Args:
        device: the name of a GPU, as torch reports it.
        name: one of ``CONSTANTS``.
        estimate: used where the device was not measured.

    Returns:
        The measured value, else the estimate; microseconds, or bytes a microsecond for ``L2_BYTES``.
    """
    return float(measured(device).get(name, {}).get("value", estimate))


def measured(device: str) -> dict[str, Any]:
    """Everything measured on a device of this name; empty if nothing was."""
    constants: dict[str, Any] = _read().get(device, {})
    return constants


@cache
def _read() -> dict[str, Any]:
    return json.loads(MEASURED.read_text()) if MEASURED.exists() else {}


STRATEGIES = ("stepwise", "resident", "cooperative")
EXCHANGES = ("sentinel", "counter")
BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
KB = 1024

# Guesses, in microseconds unless said otherwise, for a clock of about 1.7 GHz.
LAUNCH = 6.0  # a launch from Python
WAIT = {"sentinel": 0.7, "counter": 1.4}  # from a store to its arrival in another program
CELL = 0.15  # stepwise: activations, and z and the gates to and from memory
L2_BYTES = 5.3e6  # bytes a microsecond that all programs together load from L2
SHARED_BYTES = 213e3  # bytes a microsecond that a program reads from shared memory
HMMA = 8 / 1700  # a warp's 16 x 8 x 16 product in 16 bits; a guess like clocks, bandwidths, launches and the library
FMA = 128 * 1700  # float32 products a microsecond and multiprocessor
LIBRARY_STEP = 3.0  # a step of the library: a product and an elementwise kernel
LIBRARY_PERSISTENT = 2.0  # of its persistent kernel
BACKWARD = 1.55  # the library's backward step, in forward steps
ESTIMATES = {"LAUNCH": LAUNCH, "WAIT.sentinel": WAIT["sentinel"], "WAIT.counter": WAIT["counter"], "L2_BYTES": L2_BYTES}


# Cycles of a cooperative step apart from its waits, counted in machine code (``bench.ptx``, Triton 3.9 on sm_90,
# the loads' latencies taken off); ``tests/kernels/bench`` compares them with today's count. The clock is a guess.
CLOCK = 1755.0  # cycles a microsecond
REST = 820.0  # addresses, the check of requested tiles, staging, stores
GATE = 30.0  # an activation of each thread
MEET = 120.0  # parts of sums
DRAIN = 70.0  # the wait for a wgmma and the start of the next
FMA_WAVEFRONTS = {4: 1 / 26, 8: 1 / 20.6}  # of shared memory a float32 product, by warps


@dataclass(frozen=True)
class Device:
    """The limits that a plan depends on: bytes of shared memory a program, number of multiprocessors, and whether four warps
    together multiply 64 rows from shared memory (wgmma; tcgen05 on sm_100).
    """

    name: str
    shared: int
    multiprocessors: int
    wgmma: bool = False


DEVICES = {
    device.name: device
    for device in (Device("sm_80", 163 * KB, 108), Device("sm_90", 227 * KB, 132, True), Device("sm_100", 227 * KB, 148, True))
}
# Consumer GPUs, by the limits of the CUDA programming guide's table of compute capabilities alone: no kernel was compiled for
# one, and the estimates above are a data center's. Multiprocessors are those of an RTX 3090, 4090 and 5090.
GUESSED = {
    device.name: device
    for device in (Device("sm_86", 99 * KB, 82), Device("sm_89", 99 * KB, 128), Device("sm_120", 99 * KB, 170))
}


@dataclass(frozen=True)
class Tiles:
    """One direction's tiles.

    ``block_b`` rows of the batch, ``block_h`` hidden units, ``block_k`` rows of W in one product; ``ahead`` tiles of the state
    requested before the first product, ``warps`` a program, ``stages`` tiles in flight in a loop over K, ``parts`` programs
    that share K and exchange partial sums; ``w_first`` makes W the product's first operand.
    """

    block_b: int
    block_h: int
    block_k: int
    ahead: int = 1
    warps: int = 4
    stages: int = 1
    parts: int = 1
    w_first: bool = False


@dataclass(frozen=True)
class Plan:
    """How one sequence runs: ``hidden`` is the padded number of units, ``exchange`` is "none" unless cooperative."""

    strategy: str
    exchange: str
    hidden: int
    forward: Tiles
    backward: Tiles

    def product(self, direction: str, slots: int) -> tuple[int, int]:
        """K, and the number of columns of W that a program multiplies each step."""
        if direction == "forward":
            return self.hidden, self.forward.block_h * slots
        return self.hidden * slots // self.backward.parts, self.backward.block_h * self.backward.parts


@dataclass(frozen=True)
class Sizes:
    """Sizes for the model of one direction: the product is [batch, k] x [k, per_unit * hidden]."""

    batch: int
    hidden: int
    k: int
    per_unit: int
    bytes: int

    @property
    def slots(self) -> int:
        """Numbers a unit: the product's columns a unit in the forward pass, its K a unit in the backward pass."""
        return max(self.per_unit, self.k // self.hidden)


@dataclass(frozen=True)
class Prediction:
    """Predicted microseconds of a strategy for a whole sequence, forward and backward; None if it does not fit."""

    strategy: str
    forward: float | None
    backward: float | None
    plan: Plan | None

    @property
    def total(self) -> float:
        """Microseconds of both directions; inf if the strategy does not fit."""
        return float("inf") if self.forward is None or self.backward is None else self.forward + self.backward


def padded(hidden: int) -> int:
    """The padded number of hidden units: a power of two up to 256, beyond that a multiple of 64."""
    if hidden <= 256:
        return max(16, 1 << (hidden - 1).bit_length())
    return -(-hidden // 64) * 64


def predict(
    batch: int, steps: int, hidden: int, cell: str, dtype: str, device: Device, exchange: str = "sentinel", tf32: bool = False
) -> dict[str, Prediction]:
    """Predict the time of every strategy, and of the library's kernels as "torch".

    Args:
        batch, steps, hidden: B, T, H; an empty batch is planned as one row.
        cell: a key of ``kernels.CELLS``.
        dtype: "float16", "bfloat16" or "float32" ("float64" for the interpreter).
        device: one of ``DEVICES``.
        exchange: one of ``EXCHANGES``.
        tf32: whether the library multiplies float32 as TF32, which is torch's default for cuDNN.

    Returns:
        A ``Prediction`` for each strategy, forward and backward in microseconds; without times if no plan fits.
    """
    batch, slots, size, units = max(batch, 1), CELLS[cell].slots, BYTES[dtype], padded(hidden)
    directions = (Sizes(batch, units, units, slots, size), Sizes(batch, units, units * slots, 1, size))
    launch = constant(device.name, "LAUNCH", LAUNCH)
    predictions = {}
    for strategy, best in (("resident", _resident), ("cooperative", _cooperative), ("stepwise", _stepwise)):
        forward, backward = (best(sizes, device, exchange) for sizes in directions)
        if forward is None or backward is None:
            predictions[strategy] = Prediction(strategy, None, None, None)
            continue
        plan = Plan(strategy, exchange if strategy == "cooperative" else "none", units, forward[1], backward[1])
        launches = launch * (steps if strategy == "stepwise" else 1)
        first, second = (launches + steps * us for us in (forward[0], backward[0]))
        predictions[strategy] = Prediction(strategy, first, second, plan)
    step = _library(batch, hidden, cell, dtype, device, tf32)
    predictions["torch"] = Prediction("torch", launch + steps * step, launch + steps * step * BACKWARD, None)
    return predictions


def choose(
    batch: int,
    steps: int,
    hidden: int,
    cell: str,
    dtype: str,
    device: Device,
    strategy: str | None = None,
    exchange: str = "sentinel",
) -> Plan:
    """The cheapest plan among the Triton strategies, or the one asked for; arguments as in ``predict``.

    Raises:
        ValueError: for an unknown name, and for a strategy that does not fit the device; names those that do.
    """
    if strategy is not None and strategy not in STRATEGIES:
        raise ValueError(f"plan must be one of {', '.join(STRATEGIES)}, not {strategy!r}")
    if exchange not in EXCHANGES:
        raise ValueError(f"exchange must be one of {', '.join(EXCHANGES)}, not {exchange!r}")
    predictions = predict(batch, steps, hidden, cell, dtype, device, exchange)
    fitting = {name: prediction.plan for name, prediction in predictions.items() if prediction.plan is not None}
    if strategy is None:
        return fitting[min(fitting, key=lambda name: predictions[name].total)]
    if strategy not in fitting:
        weights = padded(hidden) ** 2 * CELLS[cell].slots * BYTES[dtype] // KB
        raise ValueError(
            f"plan {strategy!r} does not fit {device.name}: W_h of {hidden} {cell} units in {dtype} takes {weights} KB, "
            f"and there are {device.multiprocessors} multiprocessors of {device.shared // KB} KB; "
            f"these fit: {', '.join(fitting)}"
        )
    return fitting[strategy]


def faster_than_library(
    batch: int, steps: int, hidden: int, cell: str, dtype: str, device: Device, training: bool = True, tf32: bool = False
) -> bool:
    """Whether the chosen Triton strategy is predicted to beat the library's kernels, with its backward pass if ``training``."""
    predictions = predict(batch, steps, hidden, cell, dtype, device, tf32=tf32)
    ours = predictions[choose(batch, steps, hidden, cell, dtype, device).strategy]
    theirs = predictions["torch"]
    assert ours.forward is not None
    assert theirs.forward is not None
    return ours.total < theirs.total if training else ours.forward < theirs.forward


# The best tiles of one direction, with the microseconds of a step; None if nothing fits

Found = tuple[float, Tiles] | None


def _stepwise(sizes: Sizes, device: Device, _: str) -> Found:
    block_b = 16 if sizes.batch <= 16 else 32
    block_k = min(sizes.k, 64 if sizes.bytes == 2 else 32)
    block_h = min(sizes.hidden, (64 if sizes.bytes == 2 else 32) // sizes.slots)
    tiles = Tiles(block_b, block_h, block_k, stages=3)
    programs = sizes.hidden // block_h * ceil(sizes.batch / block_b)
    traffic = programs * (block_b + block_h * sizes.per_unit) * sizes.k * sizes.bytes
    waves = ceil(programs / device.multiprocessors)
    latency = 0.02 * sizes.k / block_k  # each tile of W waits for the one before
    return CELL + waves * (latency + _product(sizes, tiles)) + traffic / constant(device.name, "L2_BYTES", L2_BYTES), tiles


def _resident(sizes: Sizes, device: Device, _: str) -> Found:
    columns = sizes.hidden * sizes.per_unit
    weights, staged = sizes.k * columns * sizes.bytes, 16 * sizes.k * sizes.bytes
    # The largest product a program can do at once; float32 has no tensor cores to keep the tile in, and spills sooner.
    most = 64 if sizes.bytes == 4 else 512
    if max(sizes.k, columns) > most or weights + staged > device.shared:
        return None
    tiles = Tiles(16, sizes.hidden, sizes.k, warps=8 if columns > 64 else 4)
    waves = ceil(sizes.batch / (16 * device.multiprocessors))
    return waves * (CELL + weights / SHARED_BYTES + _product(sizes, tiles)), tiles


def _cooperative(sizes: Sizes, device: Device, exchange: str) -> Found:
    candidates = []
    shares = (1, sizes.slots) if sizes.k > sizes.hidden else (1,)  # of K, if several numbers a unit are gathered
    for warps, block_b, block_h, parts, w_first in product((4, 8), (16, 32, 64), (8, 16, 32), shares, (False, True)):
        k, columns, blocks = sizes.k // parts, block_h * sizes.per_unit * parts, sizes.hidden // block_h
        if not 8 <= columns <= 64 or sizes.hidden % (block_h * parts) or blocks > device.multiprocessors:
            continue
        if block_b > 16 and block_b >= 2 * sizes.batch:
            continue
        if sizes.bytes == 4 and (block_b > 16 or columns > 32 or k > 1024 or (parts > 1 and warps < 8)):
            continue  # products without tensor cores keep operands in registers, and more of them spills
        # Gates live in registers, and backward their gradients and the states beside them.
        threads = warps * 32
        gates = block_b * block_h * sizes.slots / threads
        if gates > (8 if sizes.k > sizes.hidden else 16):
            continue
        # Sums live there, too; with them, those of wgmma for 64 rows, or for two groups of warps, spill.
        if (parts > 1 and block_b > 32) or (w_first and (block_b, warps, columns, sizes.bytes) != (16, 4, 64, 2)):
            continue
        if k > 1024 and (w_first or gates > 8):  # more than eight tiles: rounds of requests that the compiler keeps all at once
            continue
        if not device.wgmma and (w_first or block_b > 32):  # eight warps of 16 rows each share no columns
            continue
        if not device.wgmma and sizes.slots == 1 and sizes.bytes == 2 and columns < 16:  # some compilers widen these to 16
            continue
        # Sixteen rows of narrow tiles are fewer products than warps, which then multiply the same numbers.
        if sizes.bytes == 2 and not w_first and block_b // 16 * ceil(columns / 8) < warps:
            continue
        # Where a row has as many words as the product columns, the compiler loads 32 bytes a thread side by side, in two loads,
        # each of which touches all their sectors.
        blocks_of_k: tuple[int, ...] = (128, 64, 32, 16) if sizes.bytes == 4 or columns != 64 else (256, 64, 128, 32, 16)
        if w_first:
            blocks_of_k = (256, 128, 64) if device.name == "sm_90" else (128, 64)  # each product is waited for
        elif sizes.bytes == 4 and warps == 4:
            blocks_of_k = (64, 32, 16)  # of float32, 128 rows spill
        block_k = next((block for block in blocks_of_k if k % block == 0), None)
        if block_k is None:
            continue
        if w_first and device.name != "sm_90" and k > 6 * block_k:  # with tcgen05 fewer tiles fit than with wgmma
            continue
        # All tiles of the state at once, but no more than a quarter of the registers (an eighth beside many gates) and what is
        # left of shared memory.
        tile, weights = block_b * block_k * sizes.bytes, k * columns * sizes.bytes
        free = min(threads * (64 if gates <= 8 else 32) * 4, device.shared - weights - 2 * KB)
        ahead = min(free // tile, k // block_k)
        narrow = sizes.bytes == 2 and parts > 1 and block_b * columns * 4 < threads * 16
        rounds = ceil(k / (block_k * max(ahead, 1)))
        if rounds > 1 and sizes.bytes == 4:  # a second round spills
            continue
        # 16 bytes a thread, so that loads are of 128 bits. Fewer than 32 units (64 in 16 bits) have less: resident serves them.
        if ahead < 1 or tile < threads * 16 or narrow:
            continue
        tiles = Tiles(block_b, block_h, block_k, ahead, warps, parts=parts, w_first=w_first)
        batch_tiles = ceil(sizes.batch / block_b)
        at_once = min(batch_tiles, device.multiprocessors // blocks)
        waits = 1 + 0.75 * (rounds - 1)  # counted: each further check takes 900 cycles
        traffic = block_b * k * sizes.bytes
        if parts > 1:  # the sums' parts, written and read
            waits, traffic = waits + 1, traffic + 2 * block_b * columns * 4
        wait = constant(device.name, f"WAIT.{exchange}", WAIT[exchange])
        step = wait * waits + at_once * blocks * traffic / constant(device.name, "L2_BYTES", L2_BYTES)
        step += step_cycles(sizes, tiles) / CLOCK
        candidates.append((ceil(batch_tiles / at_once) * step, tiles))
    return min(candidates, key=lambda f: f[0]) if candidates else None


def step_cycles(sizes: Sizes, tiles: Tiles) -> float:
    """Cycles of a step apart from its waits: as ``bench.ptx.cost`` counts them, without the latency of its loads."""
    k, columns = sizes.k // tiles.parts, tiles.block_h * sizes.per_unit * tiles.parts
    gates = tiles.block_b * tiles.block_h * sizes.slots / (32 * tiles.warps)
    rest = REST + GATE * gates + MEET * (tiles.parts > 1)
    if tiles.w_first:  # each 16 of K: 64 x 16 numbers of W and the state's, 128 bytes a cycle
        return rest + k / 16 * (16 + tiles.block_b / 4) + DRAIN * k / tiles.block_k
    if sizes.bytes > 2:
        return rest + tiles.block_b * columns * k * FMA_WAVEFRONTS[tiles.warps]
    across = min(tiles.warps, ceil(columns / 8))  # warps beside each other, each of which reads the state's whole tile
    state, weights = tiles.block_b * k * 2 / 128, k * columns * 2 / 128
    return rest + max(state * (1 + across) + weights * tiles.warps / across, _product(sizes, tiles) * CLOCK)


def _product(sizes: Sizes, tiles: Tiles) -> float:
    """Microseconds of a program's product [block_b, k] x [k, columns]."""
    k, columns = sizes.k // tiles.parts, tiles.block_h * sizes.per_unit * tiles.parts
    if sizes.bytes > 2:
        return tiles.block_b * columns * k / FMA
    pieces = tiles.block_b // 16 * ceil(columns / 8)
    return ceil(pieces / tiles.warps) * k / 16 * HMMA


def _library(batch: int, hidden: int, cell: str, dtype: str, device: Device, tf32: bool) -> float:
    """Microseconds of a forward step of the library, which has a persistent kernel for a few sizes only."""
    persistent = dtype == "float16" and cell != "gru" and hidden <= 1024 and hidden % 128 == 0
    if persistent and batch % 8 == 0 and batch <= 128 and cell not in ("rnn-sigmoid", "rnn-identity"):
        return LIBRARY_PERSISTENT
    work = 2 * batch * hidden * hidden * CELLS[cell].gates
    rate = (4e6 if BYTES[dtype] == 2 else 2e6 if tf32 and dtype == "float32" else 2 * FMA) * device.multiprocessors / 2
    weights = hidden * hidden * CELLS[cell].gates * BYTES[dtype] / constant(device.name, "L2_BYTES", L2_BYTES)
    return LIBRARY_STEP + weights + work / rate


def explain(
    batch: int,
    steps: int,
    hidden: int,
    cell: str = "lstm",
    dtype: str = "bfloat16",
    device: str | Device = "sm_90",
    plan: str | None = None,
    tf32: bool = True,
    multiprocessors: int | None = None,
) -> None:
    """Print the predicted time of each plan for a sequence of [steps, batch] and ``hidden`` units, and the plan that runs.

    Args:
        batch, steps, hidden: B, T, H.
        cell: a key of ``kernels.EVERY_CELL``; a linear cell has no plans, and the bytes that its scan moves are printed.
        dtype: "float16", "bfloat16" or "float32".
        device: "sm_80", "sm_90", "sm_100", a consumer GPU ("sm_86", "sm_89", "sm_120": times are guesses), or a ``Device``.
        plan: a strategy by name; None for the cheapest.
        tf32: whether the library multiplies float32 as TF32, which is torch's default for cuDNN.
        multiprocessors: of this GPU, if it differs from the ``device`` of that name: 132 of an H100 SXM (sm_90), 82 of an RTX
            3090 (sm_86), 128 of an RTX 4090 (sm_89), 170 of an RTX 5090 (sm_120).

    Raises:
        ValueError: for unknown names, for a plan that does not fit, and for fewer than one multiprocessor.
    """
    if isinstance(device, str):
        known_devices = DEVICES | GUESSED
        if device not in known_devices:
            raise ValueError(f"device must be one of {', '.join(known_devices)}, not {device!r}")
        device = known_devices[device]
    if multiprocessors is not None:
        if multiprocessors < 1:
            raise ValueError(f"multiprocessors must be at least 1, not {multiprocessors}")
        device = replace(device, multiprocessors=multiprocessors)
    names: tuple[tuple[str, str, dict[str, Any]], ...] = (("cell", cell, EVERY_CELL), ("dtype", dtype, BYTES))
    for name, value, known in names:
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")
    if cell in LINEAR_CELLS:
        if plan is not None:
            raise ValueError(f"plan {plan!r} is of kernels that multiply by W_h, which {cell} does not have; leave it out")
        _explain_scan(batch, steps, hidden, cell, dtype)
        return
    predictions = predict(batch, steps, hidden, cell, dtype, device, tf32=tf32)
    chosen = choose(batch, steps, hidden, cell, dtype, device, plan)
    weights = padded(hidden) ** 2 * CELLS[cell].slots * BYTES[dtype] / KB
    sizes = f"B = {batch}, T = {steps}, H = {hidden} (padded to {chosen.hidden})"
    print(f"{cell}, {sizes}, {dtype}, {device.name}: W_h {weights:.0f} KB")
    estimate = "guessed" if device.name in GUESSED else "estimated"
    source = "predicted from measured constants" if measured(device.name) else estimate
    if source == "guessed":
        print(f"  a guess: of {device.name} only limits are known ({device.shared // KB} KB a program, ", end="")
        print(f"{device.multiprocessors} multiprocessors); no kernel was compiled for it or run on it")
    for prediction in sorted(predictions.values(), key=lambda p: p.total):
        if prediction.forward is None or prediction.backward is None:
            print(f"  {prediction.strategy:12} does not fit")
            continue
        forward, backward = prediction.forward / steps, prediction.backward / steps
        print(f"  {prediction.strategy:12} {forward:7.2f} us a step forward, {backward:7.2f} backward ({source})")
    print(f"  triton runs {chosen.strategy}: forward {_tiles(chosen.forward)}; backward {_tiles(chosen.backward)}")
    if plan is None and faster_than_library(batch, steps, hidden, cell, dtype, device, tf32=tf32):
        print("  with the choice left open, triton runs: it is predicted to be faster than the library")
    elif plan is None:
        print("  with the choice left open, torch runs: the library is predicted to be faster")


def _explain_scan(batch: int, steps: int, hidden: int, cell: str, dtype: str) -> None:
    """Print what the scan of a linear cell moves: forward z, c and h; backward z twice, c, h, dL/dh and two gradients."""
    numbers = steps * batch * hidden * BYTES[dtype] / 1e6
    print(f"{cell}, B = {batch}, T = {steps}, H = {hidden}, {dtype}: no W_h; steps are scanned, one launch a direction")
    print(f"  forward moves {3 * numbers:.1f} MB, backward {7 * numbers:.1f} MB; no time is predicted")


def _tiles(tiles: Tiles) -> str:
    how = f"{tiles.block_b} rows x {tiles.block_h} units, K by {tiles.block_k}, {tiles.warps} warps"
    how += f", {tiles.parts} programs share K" if tiles.parts > 1 else ""
    return how + ", W first" * tiles.w_first
