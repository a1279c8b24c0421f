"""What is launched around a layer's scan: each is some microseconds of the host, whatever its size."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import recurrent_lm.kernels.rnn.launch
import recurrent_lm.kernels.rnn.ops
from recurrent_lm.kernels.rnn import plan as plans

FREE = (
    "alias", "as_strided", "detach", "empty", "expand", "lift_fresh", "new_empty", "permute", "promote_types", "select",
    "slice", "split", "squeeze", "t", "transpose", "unbind", "unsqueeze", "_unsafe_view",
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


@pytest.mark.parametrize(("exchange", "forward", "backward"), [("sentinel", 9, 22), ("counter", 9, 22)])
def test_a_layer_launches_few_kernels(monkeypatch: pytest.MonkeyPatch, exchange: str, forward: int, backward: int) -> None:
    """LSTM, unpadded, planned as for an H100; the scans themselves do nothing here and are not counted."""

    class Nothing:
        def __getitem__(self, grid: Any) -> Any:
            return lambda *args, **kwargs: None

    launch: Any = recurrent_lm.kernels.rnn.launch
    monkeypatch.setattr(launch, "scan_forward", Nothing())
    monkeypatch.setattr(launch, "scan_backward", Nothing())
    monkeypatch.setattr(launch, "PROGRAMS_AT_ONCE", True)
    monkeypatch.setattr(launch, "device_limits", lambda index: plans.DEVICES["sm_90"])
    dtype, hidden = torch.float16, 128
    weights = [torch.randn(512, n).to(dtype) if n else torch.randn(512).to(dtype) for n in (64, hidden, 0, 0)]
    given = [torch.randn(4, 16, 64).to(dtype), torch.zeros(16, hidden).to(dtype), torch.zeros(16, hidden).to(dtype), *weights]
    how = ("cooperative", exchange, "ieee", "none", 0.0)
    operations: Any = recurrent_lm.kernels.rnn.ops
    with Launches() as first:
        hs, _, _, cs, gates = operations.recurrence_forward._init_fn(*given, None, "lstm", *how, True, False)
    gradient = torch.ones_like(hs)
    with Launches() as second:
        operations.recurrence_backward._init_fn(
            gradient, None, None, *given, None, hs, cs, gates, "lstm", *how, False, True, False
        )
    assert 0 < len(first.names) <= forward, first.names
    assert 0 < len(second.names) <= backward, second.names
