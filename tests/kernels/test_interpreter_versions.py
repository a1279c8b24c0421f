"""Triton's interpreter is refused beside a NumPy with which its loops fail."""

import pytest
import torch

from recurrent_lm.kernels import backends, cross_entropy, recurrence

CPU = torch.device("cpu")


@pytest.mark.parametrize(("triton", "numpy", "fails"), [
    ("3.6.0", "2.3.5", False), ("3.6.0", "2.4.6", True), ("3.6.1", "2.10.0", True), ("3.7.0", "2.4.6", False),
    ("3.10.0", "2.4.6", False),
])  # fmt: skip
def test_loops_fail_in_the_interpreter_of_triton_3_6_beside_numpy_2_4(
    monkeypatch: pytest.MonkeyPatch, triton: str, numpy: str, fails: bool
) -> None:
    monkeypatch.setattr(backends, "version", {"triton": triton, "numpy": numpy}.__getitem__)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert backends.loops_fail() == fails
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert not backends.loops_fail()


def test_where_loops_fail_recurrence_and_loss_refuse_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "LOOPS_FAIL", True)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    zeros = torch.zeros
    with pytest.raises(ValueError, match="NumPy"):
        recurrence("rnn-tanh", zeros(2, 1, 3), (zeros(1, 2),), zeros(2, 3), zeros(2, 2), backend="triton")
    with pytest.raises(ValueError, match="NumPy"):
        cross_entropy(zeros(2, 3), torch.tensor([0, 1]), backend="triton")
    assert backends.choose_backend("torch", CPU) == "torch"
