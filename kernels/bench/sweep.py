"""Compiles and checks every kernel that the plans return: ``python -m recurrent_lm.kernels.bench.sweep --help``.

Writes reports/published/compile/, row by row; a run with another version of Triton replaces only the rows of that version.
"""

import argparse
import csv
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import version
from itertools import product
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from recurrent_lm.kernels.bench import compiled, compiled_loss
from recurrent_lm.kernels.bench.compiled import Configuration
from recurrent_lm.kernels.bench.compiled_loss import Configuration as LossConfiguration
from recurrent_lm.kernels.bench.compiler import Compiler
from recurrent_lm.kernels.rnn import plan as plans
from recurrent_lm.kernels.rnn.cells import CELLS

# Of sizes that share their tiles the first is compiled: the largest W_h, and a batch that fills no tile.
BATCHES = (20, 3, 1, 16, 64, 128, 256)
HIDDEN = (2048, 1536, 1024, 768, 650, 512, 384, 256, 200, 128, 50)
TYPICAL = ((20, 200), (16, 768), (64, 1024))  # of a small model, of the target, of a large one
TYPICAL_DEVICE = "sm_90"
CHOSEN_CELLS, OTHER_CELLS = ("lstm", "gru", "rnn-tanh"), ("rnn-relu", "rnn-sigmoid", "rnn-identity")
VOCABULARIES, WIDTHS = (10_000, 32_000, 128_256, 262_144), (200, 512, 2048)
BODIES = ("rows_forward", "rows_backward", "tiles_forward", "tiles_combine", "tiles_backward")
CONFLICTS = 1.25  # wavefronts over those without bank conflicts, at most
FILES = {"scans": "scans.csv", "losses": "losses.csv"}
MODULES = {"scans": compiled, "losses": compiled_loss}


def scans(device: str) -> list[Configuration]:
    """The kernels that the planner returns for a device: each strategy that fits, each direction, no kernel twice.

    The other exchange, the switches, float16, and cells that differ from rnn-tanh only in their activation are compiled at
    ``TYPICAL`` sizes for one device.
    """
    sizes = [(batch, hidden) for hidden in HIDDEN for batch in BATCHES]
    distinct: dict[Any, Configuration] = {}
    for cell in CHOSEN_CELLS:
        for dtype in ("bfloat16", "float32"):
            distinct |= _distinct(device, cell, dtype, sizes)
    if device == TYPICAL_DEVICE:
        for cell in CHOSEN_CELLS:
            distinct |= _distinct(device, cell, "float16", TYPICAL)
            distinct |= _distinct(device, cell, "bfloat16", TYPICAL, exchange="counter")
            for switch in compiled.SWITCHES:
                distinct |= _distinct(device, cell, "bfloat16", TYPICAL, switch=switch)
        for cell in OTHER_CELLS:
            distinct |= _distinct(device, cell, "bfloat16", TYPICAL)
    return list(distinct.values())


def _distinct(
    device: str, cell: str, dtype: str, sizes: Any, exchange: str = "sentinel", switch: str = "none"
) -> dict[Any, Configuration]:
    """The first size of each distinct kernel, by the properties that distinguish kernels."""
    distinct: dict[Any, Configuration] = {}
    for batch, hidden in sizes:
        for c in configurations(device, cell, batch, hidden, dtype, exchange, switch):
            plan = plans.choose(batch, compiled.STEPS, hidden, cell, dtype, plans.DEVICES[device], c.strategy, exchange)
            if plan.exchange == exchange or exchange == "sentinel":
                distinct.setdefault(_kernel(c, plan), c)
    return distinct


def _kernel(c: Configuration, plan: plans.Plan) -> tuple[Any, ...]:
    tiles = plan.forward if c.direction == "forward" else plan.backward
    return c.cell, c.dtype, plan.strategy, plan.exchange, c.direction, tiles, c.switch


def chosen(device: str) -> list[Configuration]:
    """Of ``scans`` those without switches that the planner takes for some size in 16 or 32 bits when the choice is its own."""
    kernels = {}
    for cell, dtype, hidden, batch in product(CHOSEN_CELLS, ("bfloat16", "float32"), HIDDEN, BATCHES):
        plan = plans.choose(batch, compiled.STEPS, hidden, cell, dtype, plans.DEVICES[device])
        for direction in ("forward", "backward"):
            c = Configuration(device, cell, batch, hidden, dtype, plan.strategy, direction)
            kernels[_kernel(c, plan)] = c
    found = []
    for c in scans(device):
        plan = plans.choose(c.batch, compiled.STEPS, c.hidden, c.cell, c.dtype, plans.DEVICES[device], c.strategy, c.exchange)
        if _kernel(c, plan) in kernels:
            found.append(c)
    return found


def conflicts(path: Path) -> Iterator[tuple[float, dict[str, str]]]:
    """The rows of a table of scans that the planner chooses and that have more than ``CONFLICTS`` times the wavefronts of none,
    with that factor.
    """
    names = list(Configuration.__dataclass_fields__)
    kept = {tuple(str(value) for value in asdict(c).values()) for device in plans.DEVICES for c in chosen(device)}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["wavefronts"] and tuple(row[name] for name in names) in kept:
                factor = int(row["wavefronts"]) / max(int(row["conflict_free"]), 1)
                if factor > CONFLICTS:
                    yield factor, row


def as_line(factor: float, row: dict[str, str]) -> str:
    """A row of ``conflicts`` as one of a table in Markdown."""
    names = ("triton", "device", "cell", "batch", "hidden", "dtype", "strategy", "direction", "wavefronts", "conflict_free")
    return "| " + " | ".join([*(row[name] for name in names), f"{factor:.2f}"]) + " |"


def configurations(
    device: str, cell: str, batch: int, hidden: int, dtype: str, exchange: str = "sentinel", switch: str = "none"
) -> Iterator[Configuration]:
    """Both directions of every strategy that fits a size, according to the planner."""
    predictions = plans.predict(batch, compiled.STEPS, hidden, cell, dtype, plans.DEVICES[device], exchange)
    for strategy in plans.STRATEGIES:
        if predictions[strategy].plan is not None:
            for direction in compiled.SWITCHES[switch]:
                yield Configuration(device, cell, batch, hidden, dtype, strategy, direction, exchange, switch)


def losses(device: str) -> list[LossConfiguration]:
    """The bodies of the losses for language models' vocabularies and widths."""
    kinds = [LossConfiguration(device, body, v, d, dtype)
             for dtype in ("bfloat16", "float32") for body in BODIES for v in VOCABULARIES
             for d in (WIDTHS if body.startswith("tiles") and dtype == "bfloat16" else (512,))]  # fmt: skip
    return kinds + [LossConfiguration(device, body, 32_000, 512, "float16") for body in BODIES]


def planned(table: str) -> list[Any]:
    """All kernels of a table ("scans" or "losses"), for every device."""
    return [c for device in plans.DEVICES for c in (scans if table == "scans" else losses)(device)]


def faults(configuration: Any, facts: Any) -> list[str]:
    """The faults of a kernel as sentences; a failure of the compiler is one."""
    if isinstance(facts, str):
        return [facts]
    name = configuration.strategy if isinstance(configuration, Configuration) else configuration.body
    return facts.faults(plans.DEVICES[configuration.device], name)


class Table:
    """A CSV with a row for each kernel and version of Triton; the rows of the running version are written again.

    Args:
        resume: configurations whose rows are kept if they have no fault.
    """

    def __init__(self, path: Path, triton: str, module: Any, resume: Iterable[Any] = ()) -> None:
        self.path, self.triton = path, triton
        names = [*module.Configuration.__dataclass_fields__, *module.Facts.__dataclass_fields__]
        self.columns = ["triton", *dict.fromkeys(names), "faults"]
        self.named = list(module.Configuration.__dataclass_fields__)
        known, kept = {self._key(asdict(c)) for c in resume}, []
        if path.exists():
            with path.open(newline="") as file:
                kept = [row for row in csv.DictReader(file) if list(row) == self.columns and None not in row.values()]
                kept = [row for row in kept if row["triton"] != triton or (self._key(row) in known and not row["faults"])]
        self.there = {self._key(row) for row in kept if row["triton"] == triton}
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(kept)

    def __contains__(self, configuration: Any) -> bool:
        return self._key(asdict(configuration)) in self.there

    def _key(self, row: dict[str, Any]) -> tuple[str, ...]:
        return tuple(str(row[name]) for name in self.named)

    def add(self, configuration: Any, facts: Any) -> list[str]:
        """Write a configuration's row; returns its faults."""
        wrong = faults(configuration, facts)
        row = {"triton": self.triton} | asdict(configuration) | ({} if isinstance(facts, str) else asdict(facts))
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns, lineterminator="\n").writerow(row | {"faults": "; ".join(wrong)})
        return wrong


def compile_all(todo: list[Any], at_once: int = 1) -> Iterator[tuple[Any, Any]]:
    """Compile configurations on ``at_once`` servers in parallel; yields each with its facts, in order."""
    with ExitStack() as stack, ThreadPoolExecutor(at_once) as pool:
        free: SimpleQueue[Compiler] = SimpleQueue()
        for _ in range(at_once):
            free.put(stack.enter_context(Compiler()))

        def compile_one(configuration: Any) -> Any:
            compiler = free.get()
            try:
                return compiler(configuration)
            finally:
                free.put(compiler)

        yield from zip(todo, pool.map(compile_one, todo), strict=True)


def main() -> int:
    """Write the tables; returns 1 if a kernel has a fault."""
    parser = argparse.ArgumentParser(prog="python -m recurrent_lm.kernels.bench.sweep", description=__doc__.partition("\n")[0])
    parser.add_argument("--devices", nargs="+", default=list(plans.DEVICES), choices=list(plans.DEVICES))
    parser.add_argument("--what", nargs="+", default=list(FILES), choices=list(FILES))
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=list(CELLS), help="of the scans")
    parser.add_argument("--out", type=Path, default=Path("reports/published/compile"))
    parser.add_argument("--jobs", type=int, default=1, help="compilations at once")
    parser.add_argument("--resume", action="store_true", help="keep rows without faults; leave it out after a change of tiles")
    parser.add_argument("--conflicts", action="store_true", help="print the rows in --out with too many, compile nothing")
    parser.add_argument("--list", action="store_true", help="print the number of kernels, compile nothing")
    arguments = parser.parse_args()
    if arguments.conflicts:
        print("\n".join(as_line(factor, row) for factor, row in conflicts(arguments.out / FILES["scans"])))
        return 0
    jobs: dict[str, list[Any]] = {kind: [] for kind in arguments.what}
    for device in arguments.devices:
        if "scans" in jobs:
            jobs["scans"] += [c for c in scans(device) if c.cell in arguments.cells]
        if "losses" in jobs:
            jobs["losses"] += losses(device)
    print(", ".join(f"{len(todo)} {kind}" for kind, todo in jobs.items()), flush=True)
    if arguments.list:
        return 0
    bad, begin = 0, time.monotonic()
    for kind, todo in jobs.items():
        table = Table(arguments.out / FILES[kind], version("triton"), MODULES[kind], planned(kind) if arguments.resume else ())
        for configuration, facts in compile_all([c for c in todo if c not in table], arguments.jobs):
            wrong = table.add(configuration, facts)
            bad += bool(wrong)
            if wrong:
                print(*asdict(configuration).values(), "|", "; ".join(wrong), flush=True)
    total = sum(map(len, jobs.values()))
    print(f"{total} kernels with Triton {version('triton')}, {bad} with faults, {time.monotonic() - begin:.0f} s", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
