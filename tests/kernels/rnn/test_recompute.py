"""``recompute=True``: what it saves, and that nothing else changes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from recurrent_lm.kernels import CELLS, GRU, LSTM, RNN, recurrence


def saved_bytes(run: Any) -> tuple[int, Tensor]:
    """Bytes that autograd keeps for the backward pass of what ``run`` returns, each memory once; and that."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    assert result.requires_grad
    kept.pop(0, None)  # empty tensors
    return sum(kept.values()), result


@pytest.mark.parametrize("cell", sorted(CELLS))
def test_the_gates_are_saved_bytes(cell: str) -> None:
    """Exactly the gates, four numbers a padded unit and step, are not kept; an Elman network has none beside its outputs."""
    steps, batch, hidden, packed = 4, 3, 20, CELLS[cell].gates * 20
    input, state = torch.randn(steps, batch, 5), tuple(torch.zeros(batch, hidden) for _ in range(CELLS[cell].states))
    weights = [torch.randn(packed, 5, requires_grad=True), torch.randn(packed, hidden, requires_grad=True)]
    kept, rebuilt = (
        saved_bytes(lambda r=r: recurrence(cell, input, state, *weights, backend="triton", plan="stepwise", recompute=r)[0])[0]
        for r in (False, True)
    )
    gates = steps * batch * 4 * 32 * 4 if cell in ("lstm", "gru") else 0  # 20 units are padded to 32, a number has 4 bytes
    assert kept - rebuilt == gates


@pytest.mark.parametrize("cell", sorted(CELLS))
def test_gradients_are_those_of_the_eager_twin(cell: str) -> None:
    """To rounding of float64, with resets and clipping, for every cell."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    packed, states = CELLS[cell].gates * 5, CELLS[cell].states
    tensors = [draw(4, 3, 2), *(draw(3, 5) for _ in range(states)), draw(packed, 2), draw(packed, 5) / 5]
    tensors += [draw(packed), draw(packed)]
    reset = torch.rand(4, 3, generator=generator) < 0.3
    found = []
    for options in ({"backend": "triton", "plan": "stepwise", "recompute": True}, {"backend": "eager"}):
        leaves = [t.clone().requires_grad_() for t in tensors]
        state, weights = tuple(leaves[1 : 1 + states]), leaves[1 + states :]
        output, final = recurrence(cell, leaves[0], state, *weights, reset=reset, clip_recurrent=("norm", 1.0), **options)
        loss = output.square().sum() + sum(f.sum() for f in final)
        found.append(torch.autograd.grad(loss, leaves))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("module", [RNN, LSTM, GRU])
def test_a_module_hands_it_on(module: Any) -> None:
    """Every layer of a module made with ``recompute=True`` keeps less, and its gradients stay."""
    input = torch.randn(4, 2, 3)
    kept, gradients = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = module(3, 20, 2, backend="triton", recompute=recompute)
        saved, output = saved_bytes(lambda m=model: m(input)[0])
        kept.append(saved)
        output.square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert kept[0] - kept[1] == (0 if module is RNN else 2 * 4 * 2 * 4 * 32 * 4)
    torch.testing.assert_close(gradients[1], gradients[0])
