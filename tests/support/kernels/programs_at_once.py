"""Runs the programs of a cooperative launch truly at once, on a machine without a GPU: one process a program.

Triton's interpreter runs the programs of a grid one after another, which an exchange between them would wait for in vain. Here
every tensor of a launch lies in shared memory, and of one process a program each runs its own. Random pauses before stores,
loads and arrivals make the order of events another one each time.

A script, so that it can run against an altered copy of the package: ``python programs_at_once.py SPECS`` with SPECS a list of
JSON objects prints a list of as many; it ends at the first that hangs.
"""

import json
import os
import random
import sys
import time
import traceback
from dataclasses import replace
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import quick_interpreter  # noqa: F401
import torch
from torch import Tensor
from triton.runtime import interpreter

import recurrent_lm.kernels.rnn.launch
import recurrent_lm.kernels.rnn.ops
from recurrent_lm.kernels import CELLS, recurrence
from recurrent_lm.kernels.rnn.plan import Plan

CLIP = {recurrence: "clip_recurrent", recurrent_lm.kernels.rnn.ops.triton_recurrence: "clip"}
PAUSE = 0.1  # seconds at most, before a part of the memory operations; most are far shorter, a few longer than a step takes
WAIT = 0.0005  # seconds between two looks of a program that waits


KERNELS = (recurrent_lm.kernels.rnn.launch.scan_forward, recurrent_lm.kernels.rnn.launch.scan_backward)


class Hang(Exception):
    """Programs still ran at the deadline."""


class AtOnce:
    """Stands for a kernel: ``kernel[grid](...)`` forks one process a program and waits for all."""

    def __init__(self, kernel: Any, deadline: float) -> None:
        self.kernel, self.deadline = kernel, deadline

    def __getitem__(self, grid: tuple[int, int]) -> Any:
        def launch(*args: Any, **kwargs: Any) -> None:
            for value in args:
                if isinstance(value, Tensor):
                    value.untyped_storage().share_memory_()
            gate = torch.zeros(1, dtype=torch.int32).share_memory_()
            children = {}
            for x in range(grid[0]):
                for y in range(grid[1]):
                    pid = os.fork()
                    if pid == 0:
                        self._run_one(grid, (x, y), gate, args, kwargs)
                    children[pid] = (x, y)
            gate.fill_(1)
            self._wait(children)

        return launch

    def _run_one(self, grid: tuple[int, int], index: tuple[int, int], gate: Tensor, args: Any, kwargs: Any) -> None:
        code = 1
        try:
            builder = interpreter.interpreter_builder
            builder.set_grid_dim = lambda *_: setattr(builder, "grid_dim", (*grid, 1))
            builder.set_grid_idx = lambda *_: setattr(builder, "grid_idx", (*index, 0))
            chance = random.Random(f"{os.getpid()} {time.time_ns()}")
            for name in ("create_masked_store", "create_masked_load", "create_atomic_rmw"):
                setattr(builder, name, paused(getattr(builder, name), chance, name == "create_atomic_rmw"))
            while not gate.item():
                time.sleep(0)
            self.kernel[(1, 1)](*args, **kwargs)
            code = 0
        except BaseException:
            traceback.print_exc()  # the parent only learns that a program failed
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _wait(self, children: dict[int, tuple[int, int]]) -> None:
        end = time.monotonic() + self.deadline
        failed = []
        while children and time.monotonic() < end:
            for pid in list(children):
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    index = children.pop(pid)
                    failed += [index] if status else []
            time.sleep(0.001)
        for pid in children:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        if children:
            raise Hang(f"programs {sorted(children.values())} still ran after {self.deadline} s")
        if failed:
            raise RuntimeError(f"programs {failed} failed")


def paused(operation: Any, chance: random.Random, waits: bool) -> Any:
    """Sometimes late; and what a program waits by, a volatile load or an atomic addition, leaves the processor to others."""

    def run(*args: Any, **kwargs: Any) -> Any:
        if chance.random() < 0.2:
            time.sleep(chance.random() ** 8 * PAUSE)
        elif waits or args[-1] is True:
            time.sleep(WAIT)
        return operation(*args, **kwargs)

    return run


def with_programs(plan: Plan, programs: int, parts: int, w_first: bool) -> Plan:
    """The plan with that many blocks of hidden units, each step's state in at least two tiles."""
    tiles = replace(plan.forward, block_h=plan.hidden // programs, block_k=16, ahead=2, w_first=w_first)
    return replace(plan, forward=tiles, backward=replace(tiles, ahead=64, parts=parts))


def main(spec: dict[str, Any]) -> dict[str, Any]:
    torch.manual_seed(spec["seed"])
    cell, steps, batch, hidden = spec["cell"], spec["steps"], spec["batch"], spec["hidden"]
    launch: Any = recurrent_lm.kernels.rnn.launch
    ops: Any = recurrent_lm.kernels.rnn.ops
    launch.PROGRAMS_AT_ONCE = True
    torch.use_deterministic_algorithms(True)  # memory that nobody wrote is NaN
    plan_for = launch.plan_for
    launch.scan_forward, launch.scan_backward = (AtOnce(kernel, spec["deadline"]) for kernel in KERNELS)
    ops.plan_for = lambda *args: with_programs(plan_for(*args), spec["programs"], spec["parts"], spec["w_first"])
    kind, dtype = CELLS[cell], getattr(torch, spec["dtype"])
    errors, ratios = [], []
    for _ in range(spec["repetitions"]):
        shapes = [(steps, batch, 3), *[(batch, hidden)] * kind.states]
        shapes += [(kind.gates * hidden, 3), (kind.gates * hidden, hidden), (kind.gates * hidden,), (kind.gates * hidden,)]
        values = [torch.randn(s, dtype=torch.float64) * (hidden**-0.5 if i > kind.states else 1) for i, s in enumerate(shapes)]
        reset = torch.rand(steps, batch) < 0.2 if spec["reset"] else None
        if spec["nan"]:  # every bit of it is one, as is every bit of what was not written yet
            values[0].view(torch.int64)[min(3, steps - 1), 0] = -1
        results = []
        for run, to in ((ops.triton_recurrence, dtype), (recurrence, torch.float64), (recurrence, dtype)):
            leaves = [v.to(dtype).to(to, copy=True).requires_grad_() for v in values]
            ours = {"plan": "cooperative", "exchange": spec["exchange"]}
            options = {"backend": "eager"} if run is recurrence else ours
            state, weights = tuple(leaves[1 : 1 + kind.states]), leaves[1 + kind.states :]
            options[CLIP[run]] = spec["clip"] and tuple(spec["clip"])
            output, final = run(cell, leaves[0], state, *weights, reset=reset, **options)
            loss = output.square().sum() + sum(f.sum() for f in final)
            results.append([output, *final, *torch.autograd.grad(loss, leaves)])
        ours, truth, theirs = ([r.detach().double() for r in tensors] for tensors in results)
        pairs = list(zip(ours, truth, strict=True))
        same_nan = all(torch.equal(a.isnan(), b.isnan()) for a, b in pairs)
        error = max(float((a - b).nan_to_num(0.0).abs().max() / b.nan_to_num(0.0).abs().max().clamp(min=1)) for a, b in pairs)
        errors.append(error if same_nan else float("inf"))
        off = [
            [float(torch.linalg.vector_norm(a - b)) for a, b in zip(tensors, truth, strict=True)] for tensors in (ours, theirs)
        ]
        ratios.append(max(a / max(b, 1e-30) for a, b in zip(*off, strict=True)))
    return {"errors": errors, "ratios": ratios}


if __name__ == "__main__":
    outcomes: list[dict[str, Any]] = []
    try:
        for spec in json.loads(sys.argv[1]):
            outcomes.append(main(spec))
    except Hang as hang:
        outcomes.append({"hang": str(hang)})
    print(json.dumps(outcomes))
