"""Nothing is read back, copied to the device or made in vain around the scans: on the meta device reading a value raises."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from recurrent_lm.kernels import CELLS
from recurrent_lm.kernels.rnn import launch
from recurrent_lm.kernels.rnn.ops import recurrence_backward, recurrence_forward
from recurrent_lm.kernels.rnn.plan import DEVICES

STEPS, BATCH, HIDDEN = 48, 4, 200
DEVICE = torch.device("meta")
HOW: dict[str, dict[str, Any]] = {
    "plain": {},
    "reset": {"reset": True},
    "clip value": {"clip": "value"},
    "clip norm": {"clip": "norm"},
    "trace": {"trace": True},
    "trace, reset, clip norm": {"trace": True, "reset": True, "clip": "norm"},
    "recompute": {"recompute": True},
}


class Made(TorchDispatchMode):
    """Every tensor that an operation reads or makes lies on the device; the numbers of elements of float32 ones are kept.

    Nothing is indexed by a list, which comes from the host, or by a mask, whose number of elements goes there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.float32: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket not in (torch.ops.aten.index, torch.ops.aten.index_put_), "a list or a mask for an index"
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, result)):
            assert not isinstance(tensor, Tensor) or tensor.device == DEVICE, f"{func} waits for a copy from {tensor.device}"
        self.float32 += [t.numel() for t in tree_leaves(result) if isinstance(t, Tensor) and t.dtype == torch.float32]
        return result


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the bodies in the order of their launches, which must happen on the tensors' device and do nothing."""
    current: list[torch.device] = []
    names: list[str] = []

    @contextmanager
    def device_of(tensor: Tensor) -> Iterator[None]:
        current.append(tensor.device)
        yield
        current.pop()

    class Body:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getitem__(self, grid: tuple[int, int]) -> Any:
            assert current == [DEVICE], "Triton launches on the current device, not on that of the tensors"
            assert not self.name.startswith("scan") or grid[0] * grid[1] <= DEVICES["sm_90"].multiprocessors
            return lambda *arguments, **constants: names.append(self.name)

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    monkeypatch.setattr(launch, "PROGRAMS_AT_ONCE", True)
    for name in ("prepare", "scan_forward", "scan_backward", "finish"):
        monkeypatch.setattr(launch, name, Body(name))
    return names


def both_ways(
    cell: str, plan: str, dtype: torch.dtype = torch.bfloat16, hidden: int = HIDDEN, *,
    reset: bool = False, clip: str = "none", trace: bool = False, recompute: bool = False,
) -> tuple[list[int], tuple[Tensor, ...]]:  # fmt: skip
    """The bodies of both operations; float32 elements of each tensor that the backward pass made, and its results."""
    kind = CELLS[cell]
    packed = kind.gates * hidden

    def empty(*size: int) -> Tensor:
        return torch.empty(size, dtype=dtype, device=DEVICE)

    starts = torch.empty(BATCH, STEPS, dtype=torch.bool, device=DEVICE).t() if reset else None
    tensors = (empty(STEPS, BATCH, 3), empty(BATCH, hidden), empty(BATCH, hidden) if kind.states == 2 else None,
               empty(packed, 3), empty(packed, hidden), empty(packed), empty(packed), starts)  # fmt: skip
    how = (cell, plan, "sentinel", "ieee", clip, 1.0)
    with Made():
        hs, _, _, cs, gates = recurrence_forward._init_fn(*tensors, *how, True, recompute)
    with Made() as made:
        results = recurrence_backward._init_fn(
            torch.empty_like(hs), None, None, *tensors, hs, cs, gates, *how, recompute, True, trace
        )
    return made.float32, results


@pytest.mark.parametrize("index", [[0, 2], torch.empty(3, dtype=torch.bool, device=DEVICE)], ids=["list", "mask"])
def test_such_an_index_raises(index: Any) -> None:
    """The control."""
    with pytest.raises(AssertionError, match="a list or a mask"), Made():
        torch.empty(3, device=DEVICE)[index]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("plan", ["stepwise", "resident", "cooperative"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn-sigmoid"])
def test_nothing_is_read_back_or_copied_to_the_device(cell: str, plan: str, how: str, launches: list[str]) -> None:
    both_ways(cell, plan, hidden=50 if plan == "resident" else HIDDEN, **HOW[how])
    count = STEPS if plan == "stepwise" else 1
    backward = count + (plan == "stepwise")  # and one for what comes before the first step
    assert launches == ["prepare", *["scan_forward"] * count, "prepare", *["scan_backward"] * backward, "finish"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn-tanh"])
def test_a_trace_of_halves_makes_no_copy_in_float32(cell: str, dtype: torch.dtype, launches: list[str]) -> None:
    """Neither of h nor of d, nor of W_h: the largest number of elements is that of h [T, B, H]."""
    made, results = both_ways(cell, "cooperative", dtype, trace=True)
    assert [r.shape for r in results[-2:]] == [(STEPS, BATCH), (STEPS,)]
    assert [r.dtype for r in results[-2:]] == [torch.float32] * 2
    assert max(made) < min(STEPS * BATCH, HIDDEN) * HIDDEN
