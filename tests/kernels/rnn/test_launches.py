"""What is launched around a layer's scan: each is some microseconds of the host, whatever its size."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import recurrent_lm.kernels.rnn.launch
import recurrent_lm.kernels.rnn.ops
from recurrent_lm.kernels.rnn import plan as plans
from recurrent_lm.kernels.rnn.cells import CELLS

FREE = (
    "alias", "as_strided", "detach", "empty", "empty_like", "expand", "lift_fresh", "new_empty", "permute", "promote_types",
    "select", "slice", "split", "squeeze", "t", "transpose", "unbind", "unsqueeze", "_unsafe_view",
)  # fmt: skip


class Launches(TorchDispatchMode):
    """The operations of torch that a GPU would launch a kernel for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(function).removeprefix("aten.").split(".")[0]
        if name not in FREE and not name.startswith(("recurrent_lm", "is_", "_reshape", "view")):
            self.names.append(name)
        return function(*args, **kwargs or {})


BUDGET = {  # kernels forward and backward beside the scans themselves
    "lstm": (2, 7), "lstm counter": (2, 7), "lstm reset": (2, 9), "lstm padded": (2, 7),
    "lstm without biases": (2, 6), "gru": (3, 7), "rnn-tanh": (2, 7),
}  # fmt: skip


@pytest.fixture
def bodies(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of launched Triton kernels, which do nothing; planned as for an H100."""
    launch: Any = recurrent_lm.kernels.rnn.launch
    names: list[str] = []

    class Body:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getitem__(self, grid: Any) -> Any:
            return lambda *args, **kwargs: names.append(self.name)

    for name in ("prepare", "finish", "scan_forward", "scan_backward"):
        monkeypatch.setattr(launch, name, Body(name))
    monkeypatch.setattr(launch, "PROGRAMS_AT_ONCE", True)
    monkeypatch.setattr(launch, "device_limits", lambda index: plans.DEVICES["sm_90"])
    return names


@pytest.mark.parametrize("what", BUDGET)
def test_a_layer_launches_few_kernels(bodies: list[str], what: str) -> None:
    """Of torch and of Triton, for a layer in 16 bits that fills its tiles unless it is padded."""
    cell, *_ = what.split()
    kind, dtype, hidden = CELLS[cell], torch.float16, 50 if "padded" in what else 128
    rows = kind.gates * hidden
    weights: list[Any] = [torch.randn(rows, n).to(dtype) for n in (64, hidden)]
    weights += [None if "without" in what else torch.randn(rows).to(dtype) for _ in range(2)]
    state = [torch.zeros(16, hidden).to(dtype) if i < kind.states else None for i in range(2)]
    reset = torch.zeros(4, 16, dtype=torch.bool) if "reset" in what else None
    given = [torch.randn(4, 16, 64).to(dtype), *state, *weights, reset]
    plan, exchange = "cooperative" if hidden > 50 else "resident", "counter" if "counter" in what else "sentinel"
    how = (cell, plan, exchange, "ieee", "none", 0.0)
    operations: Any = recurrent_lm.kernels.rnn.ops
    with Launches() as first:
        hs, _, _, cs, gates = operations.recurrence_forward._init_fn(*given, *how, True, False)
    forward = [*first.names, *bodies]
    bodies.clear()
    gradient, last = torch.ones_like(hs), torch.ones(16, hidden, dtype=dtype)
    with Launches() as second:
        operations.recurrence_backward._init_fn(
            gradient, last, last if kind.states == 2 else None, *given, hs, cs, gates, *how, False, True, False
        )
    backward = [*second.names, *bodies]
    assert forward.count("scan_forward") == backward.count("scan_backward") == 1
    assert (len(forward) - 1, len(backward) - 1) == BUDGET[what], (forward, backward)
