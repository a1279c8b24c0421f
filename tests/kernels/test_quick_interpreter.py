"""The tests' quicker interpreter computes what Triton's own does, to the bit, and checks what it checks."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime.interpreter import TensorHandle

PROGRAM = """
import torch
from recurrent_lm.kernels import MinGRU, RNN, GRU, LSTM, cross_entropy, linear_cross_entropy

def results():
    torch.manual_seed(0)
    kinds = {LSTM: torch.float16, GRU: torch.float32, RNN: torch.float64, MinGRU: torch.float32}
    for layer, dtype in kinds.items():
        module = layer(3, 5, backend="triton").to(dtype)
        x = torch.randn(4, 2, 3, dtype=dtype, requires_grad=True)
        output = module(x)[0]
        yield from (output, *torch.autograd.grad(output.square().sum(), [x, *module.parameters()]))
    x, w = torch.randn(6, 5, requires_grad=True), torch.randn(9, 5, requires_grad=True)
    target = torch.tensor([0, 1, 8, -100, 3, 2])
    for strategy in ("cut", "chunked"):
        loss = linear_cross_entropy(x, w, target, backend="triton", strategy=strategy)
        yield from (loss, *torch.autograd.grad(loss, [x, w]))
    loss = cross_entropy(x, target % 5, backend="triton", label_smoothing=0.1)
    yield from (loss, *torch.autograd.grad(loss, [x]))
"""


def test_results_are_those_of_triton_s_own_interpreter(tmp_path: Path) -> None:
    file = tmp_path / "own.pt"
    program = f"{PROGRAM}\ntorch.save([t.detach() for t in results()], {str(file)!r})"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    namespace: dict[str, object] = {}
    exec(PROGRAM, namespace)
    with np.errstate(all="ignore"):  # of places that a mask leaves out
        here = [t.detach() for t in namespace["results"]()]  # type: ignore[operator]
    own = torch.load(file)
    assert len(here) == len(own) > 20
    for a, b in zip(here, own, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def test_data_wider_than_its_type_is_an_error() -> None:
    assert TensorHandle(np.zeros(2, np.float32), tl.float32).data.shape == (2,)
    with pytest.raises(ValueError, match="fp32"):
        TensorHandle(np.zeros(2, np.float64), tl.float32)
