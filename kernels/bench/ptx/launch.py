"""Launches through Triton's own launcher, executed by the PTX machine instead of a GPU.

``on_machine`` replaces Triton's driver: arguments are bound, specialised and compiled as for a GPU of the architecture, and
``Driver`` receives the launch, with its PTX, in place of the GPU. Tensors stay on the CPU; their storages are copied to the
machine's memory before a launch and back after it. Kernels must be decorated without TRITON_INTERPRET.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import c_uint8
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from recurrent_lm.kernels.bench.ptx.code.flow import polls
from recurrent_lm.kernels.bench.ptx.code.parse import float_bits, parse
from recurrent_lm.kernels.bench.ptx.execution import Machine
from recurrent_lm.kernels.rnn import launch as rnn_launch
from recurrent_lm.kernels.rnn import plan as plans


@dataclass
class Launch:
    """The arguments of one launch. ``arguments`` are those of the PTX entry, without constexprs."""

    name: str
    ptx: str
    cubin: bytes
    shared: int
    warps: int
    grid: tuple[int, int, int]
    cooperative: bool
    arguments: list[Any] = field(default_factory=list)
    signature: list[str] = field(default_factory=list)

    def storages(self) -> dict[int, NDArray[np.uint8]]:
        """The bytes of the tensors' storages, by their addresses; writing to them writes to the tensors."""
        arrays = {}
        for value in self.arguments:
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                array = (c_uint8 * storage.nbytes()).from_address(storage.data_ptr())
                arrays[storage.data_ptr()] = np.ctypeslib.as_array(array)
        return arrays


def execute(
    launch: Launch, seed: int = 0, in_step: bool = False, counting: bool = False, text: str | None = None, alone: bool = False
) -> Machine:
    """Run a launch on its tensors, which share storage in the machine if they share it here.

    Args:
        launch: the launch.
        seed: decides the order and speeds of warps, and the times at which stores become visible.
        in_step: as in ``Machine``.
        counting: whether to count instructions and accesses.
        text: PTX to run instead of the launch's own.
        alone: run the first program only, and leave loops that poll after one round (see ``cost.py``).

    Returns:
        The machine in its final state.

    Raises:
        Fault: for an error of the kernel.
        Refused: for PTX that the machine does not know.
    """
    storages = launch.storages()
    buffers = list(storages.values())

    def arguments(bases: list[int]) -> list[int]:
        at = dict(zip(storages, bases, strict=True))
        numbers = []
        for value, kind in zip(launch.arguments, launch.signature, strict=True):
            if isinstance(value, Tensor):
                numbers.append(at[value.untyped_storage().data_ptr()] + int(value.storage_offset()) * value.element_size())
            else:
                numbers.append(float_bits(value) if kind == "fp32" else int(value))
        return numbers + [0] * (len(kernel.parameters) - len(numbers))  # of scratch memory, which no kernel here has

    kernel = parsed(text or launch.ptx)
    machine = Machine(kernel, buffers, arguments, launch.grid, launch.warps, launch.shared, seed, in_step, counting)
    if alone:
        machine.forced = {line: taken for poll in polls(kernel) for line, taken in poll.exits.items()}
        machine.run(programs=[0])
    else:
        machine.run(None if launch.cooperative else 4)
    machine.memory.read_back(buffers)
    return machine


parsed = lru_cache(maxsize=64)(parse)


class Driver:
    """A GPU of an architecture of ``plan.DEVICES``; ``run`` receives every launch.

    There is one for each architecture, with its own device index, because Triton caches compiled kernels by that index.
    """

    def __init__(self, device: plans.Device) -> None:
        self.device = device
        self.index = int(device.name.removeprefix("sm_"))
        self.run: Callable[[Launch], None] = lambda launch: None
        self.utils: Any = self
        self.files: dict[str, str] = {}

    def launcher_cls(self, source: Any, metadata: Any) -> Callable[..., None]:
        constants = set()
        for index in source.constants:
            constants.add(source.fn.arg_names[index[0]] if isinstance(index, tuple) else index)
        kept = [(i, kind) for i, (name, kind) in enumerate(source.signature.items()) if name not in constants]
        files = None

        def launch(x: int, y: int, z: int, stream: Any, function: Any, *rest: Any) -> None:
            nonlocal files
            files = files or function
            arguments = rest[-len(source.fn.arg_names) :]
            self.run(
                Launch(
                    metadata.name,
                    Path(files["ptx"]).read_text(),
                    Path(files["cubin"]).read_bytes(),
                    metadata.shared,
                    metadata.num_warps,
                    (x, y, z),
                    bool(metadata.launch_cooperative_grid),
                    [arguments[i] for i, kind in kept if kind != "constexpr"],
                    [kind for _, kind in kept if kind != "constexpr"],
                )
            )

        return launch

    def load_start(self, module: Any, function: Any, name: str, group: dict[str, str], *_: Any) -> None:
        self.files = {Path(path).suffix[1:]: str(path) for path in group.values()}

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[Any, ...]:
        return 1, self.files, 64, 0, 1024  # module, function, registers, spills, threads at most

    def unload_module(self, module: Any) -> None:
        pass

    def get_current_device(self) -> int:
        return self.index

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        return GPUTarget("cuda", self.index, 32)

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": self.device.shared, "multiprocessor_count": self.device.multiprocessors}


_driver = cache(Driver)


@contextmanager
def on_machine(device: plans.Device, run: Callable[[Launch], None]) -> Iterator[None]:
    """Send every launch of a kernel on CPU tensors in the block to ``run``.

    Raises:
        RuntimeError: if kernels are decorated for the interpreter.
    """
    if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        raise RuntimeError("the PTX machine needs kernels that Triton compiles; unset TRITON_INTERPRET")
    launch: Any = rnn_launch
    ours = _driver(device)
    ours.run = run
    before = launch.device_limits, launch.PROGRAMS_AT_ONCE, driver._active
    launch.device_limits, launch.PROGRAMS_AT_ONCE = lambda index: device, True
    knobs.runtime.kernel_load_start_hook = ours.load_start
    driver.set_active(ours)
    try:
        yield
    finally:
        driver._active = before[2]
        knobs.runtime.kernel_load_start_hook = None
        launch.device_limits, launch.PROGRAMS_AT_ONCE = before[:2]
