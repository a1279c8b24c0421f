"""Triton's interpreter is refused beside a NumPy with which its loops fail."""

import pytest
import torch

from recurrent_lm.kernels import backends


@pytest.mark.parametrize(("triton", "numpy", "refused"), [
    ((3, 6), (2, 3), False), ((3, 6), (2, 4), True), ((3, 6), (2, 10), True), ((3, 7), (2, 4), False), ((3, 10), (2, 4), False),
])  # fmt: skip
def test_triton_3_6_needs_an_older_numpy(
    monkeypatch: pytest.MonkeyPatch, triton: tuple[int, int], numpy: tuple[int, int], refused: bool
) -> None:
    monkeypatch.setattr(backends, "_release", {"triton": triton, "numpy": numpy}.__getitem__)
    monkeypatch.setattr(backends, "interpreted", lambda: True)
    if refused:
        with pytest.raises(RuntimeError):
            backends.check_interpreter(torch.float32)
    else:
        backends.check_interpreter(torch.float32)
    monkeypatch.setattr(backends, "interpreted", lambda: False)
    backends.check_interpreter(torch.float32)
