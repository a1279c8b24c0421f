"""The cost of a step of a scan, or of a loss's kernel, for one program, counted in the PTX of its launch, which is executed for
that program alone.

Nothing makes the program wait: buffers are zeros, which no sentinel is, and counters are high. A loop that polls is left after
its first round. The numbers are therefore garbage, and the counts are those of a step in which all others are in time; filtered
gradients keep all tiles.
"""

from collections import Counter
from dataclasses import asdict, dataclass, replace

import torch

from recurrent_lm.kernels.bench.compiled import spills_in_loops
from recurrent_lm.kernels.bench.compiler import machine_code
from recurrent_lm.kernels.bench.ptx.cases import Layer
from recurrent_lm.kernels.bench.ptx.code.flow import polls
from recurrent_lm.kernels.bench.ptx.counts import Total
from recurrent_lm.kernels.bench.ptx.execution import Machine
from recurrent_lm.kernels.bench.ptx.launch import Launch, execute, on_machine, parsed
from recurrent_lm.kernels.bench.walk import innermost, walk
from recurrent_lm.kernels.loss import launch as losses
from recurrent_lm.kernels.loss.terms import Decoded, Terms, Upstream
from recurrent_lm.kernels.rnn.plan import DEVICES

STEPS = (2, 4)  # the difference is two steps, without the first one and the code before the loop
MORE = STEPS[1] - STEPS[0]


@dataclass(frozen=True)
class Step:
    """The cost of a step of one program, summed over its batch tiles if it has several.

    ``instructions`` are of warps, by kind; ``look`` the barriers of each further look of the costliest poll; ``spills`` the
    accesses to spilled registers in the machine code of the loop over time, as ``bench.compiled`` counts them; ``cycles`` those
    of one iteration by a single warp (``bench.walk``), of which ``waits`` were spent on the result of each opcode, and
    ``crowded`` with all warps' wavefronts, one a cycle.
    """

    grid: tuple[int, int, int]
    warps: int
    instructions: dict[str, float]
    memory: Total
    look: int
    spills: int
    cycles: int
    crowded: int
    waits: dict[str, int]

    @property
    def barriers(self) -> float:
        return self.instructions.get("barriers", 0.0) / self.warps


def alone(launch: Launch) -> Machine:
    """Run program 0 of a launch by itself, counting."""
    for value in launch.arguments:
        if hasattr(value, "untyped_storage"):
            value.detach().fill_({"torch.int32": 1 << 20, "torch.int8": 1}.get(str(value.dtype), 0))
    return execute(launch, in_step=True, counting=True, alone=True)


def executed(machine: Machine) -> Counter[str]:
    """Instructions of warps, by kind."""
    total: Counter[str] = Counter()
    for gang in (gang for gangs in machine.gangs for gang in gangs):
        for times, kinds in zip(gang.entered, machine.code.kinds, strict=True):
            for kind, count in kinds.items():
                total[kind] += times * count * gang.warps
    return total


def steps_of(layer: Layer) -> dict[str, Step]:
    """The cost of a step of a resident or cooperative layer, for each direction, by the kernel's name."""
    launches: dict[str, list[tuple[Launch, Counter[str], Total]]] = {}

    def run(launch: Launch) -> None:
        if not launch.name.startswith("scan_"):  # packing, once a sequence
            return
        machine = alone(launch)
        launches.setdefault(launch.name, []).append((launch, executed(machine), machine.counts.total()))

    for steps in STEPS:
        replace(layer, steps=steps).launch(run)
    costs = {}
    for name, ((launch, few, before), (_, many, after)) in launches.items():
        instructions = {kind: (many[kind] - few[kind]) / MORE for kind in sorted(many) if many[kind] > few[kind]}
        memory = {access: (number - asdict(before)[access]) / MORE for access, number in asdict(after).items()}
        loops = polls(parsed(launch.ptx))
        look = max((sum(ins.parts[:2] == ["bar", "sync"] for ins in poll.instructions) for poll in loops), default=0)
        code = machine_code(launch.cubin, "-sass")
        total, single = Total(**memory), walk(code)
        costs[name] = Step(
            launch.grid, launch.warps, instructions, total, look, spills_in_loops(code, depth=2),
            single.cycles, walk(code, wavefronts=total.wavefronts).cycles, single.waits,
        )  # fmt: skip
    return costs


@dataclass(frozen=True)
class Loss:
    """A linear cross-entropy of ``rows`` rows, ``features`` features and ``classes`` classes, with a bias."""

    device: str = "sm_90"
    dtype: str = "bfloat16"
    rows: int = 128
    features: int = 512
    classes: int = 4096


@dataclass(frozen=True)
class Body:
    """The cost of one program of a loss's kernel; fields as in ``Step``, ``cycles`` of its innermost loop."""

    grid: tuple[int, int, int]
    warps: int
    instructions: dict[str, float]
    memory: Total
    spills: int
    cycles: int

    @property
    def barriers(self) -> float:
        return self.instructions.get("barriers", 0.0) / self.warps


def bodies_of(loss: Loss) -> dict[str, Body]:
    """The cost of each kernel of the losses, with their gradients, by its name; of several launches the first."""
    bodies: dict[str, Body] = {}

    def run(launch: Launch) -> None:
        if launch.name in bodies:
            return
        machine, code = alone(launch), machine_code(launch.cubin, "-sass")
        bodies[launch.name] = Body(
            launch.grid, launch.warps, dict(sorted(executed(machine).items())), machine.counts.total(),
            spills_in_loops(code, depth=1), innermost(code).cycles,
        )  # fmt: skip

    dtype, need = getattr(torch, loss.dtype), (True, True, True)
    x, w, b = (
        torch.zeros(size, dtype=dtype) for size in ((loss.rows, loss.features), (loss.classes, loss.features), loss.classes)
    )
    decoded = Decoded(x, w, b, torch.zeros(loss.rows, dtype=torch.long), None)
    with on_machine(DEVICES[loss.device], run):
        of, terms = Upstream(torch.ones(loss.rows)), Terms()
        rows = losses.cut_loss(decoded, terms, False)
        for eps in (None, 2**-12):
            losses.cut_gradients(decoded, rows.top, rows.log_sum, of, terms, need, eps)
        losses.chunked_gradients(decoded, of, terms, need, False)
    return bodies
