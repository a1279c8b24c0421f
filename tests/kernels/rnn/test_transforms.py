"""torch.func, forward mode and second derivatives: values are those of torch.nn or of finite differences, on every backend."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from scan_checks import one_program
from torch import Tensor, nn

from recurrent_lm.kernels import CELLS, GRU, LSTM, RNN, recurrence, trace_gradients

EVERY = pytest.mark.parametrize("cell", sorted(CELLS))
BACKENDS = pytest.mark.parametrize("backend", ["eager", "torch", "triton"])
pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script` is deprecated:DeprecationWarning"
)  # torch's own forward mode
PAIRS = pytest.mark.parametrize("pair", [(RNN, nn.RNN), (GRU, nn.GRU), (LSTM, nn.LSTM)], ids=lambda pair: pair[0].__name__)
STEPS, BATCH, FEATURES, HIDDEN = 3, 2, 2, 3


@pytest.fixture(autouse=True)
def _one_program() -> Iterator[None]:
    with one_program():
        yield


def leaves(cell: str, seed: int = 0) -> list[Tensor]:
    """Input, weights, biases, states in float64."""
    generator = torch.Generator().manual_seed(seed)
    packed = CELLS[cell].gates * HIDDEN
    shapes = [(STEPS, BATCH, FEATURES), (packed, FEATURES), (packed, HIDDEN), (packed,), (packed,)]
    shapes += [(BATCH, HIDDEN)] * CELLS[cell].states
    return [0.7 * torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes]


def layer(cell: str, **options: Any) -> Any:
    """The layer as a function of ``leaves``, with its output and its states in one vector."""

    def run(*tensors: Tensor) -> Tensor:
        output, final = recurrence(cell, tensors[0], tuple(tensors[5:]), *tensors[1:5], **options)
        return torch.cat([output.flatten(), *(s.flatten() for s in final)])

    return run


@BACKENDS
@EVERY
def test_gradients_of_torch_func(cell: str, backend: str) -> None:
    """grad and jacrev are autograd's gradients of the eager backend; jvp and vmap agree with them."""
    inputs = leaves(cell)
    run, truth = layer(cell, backend=backend), layer(cell, backend="eager")
    every = tuple(range(len(inputs)))
    expected = torch.autograd.functional.jacobian(truth, tuple(inputs))
    found = torch.func.jacrev(run, every)(*inputs)
    grads = torch.func.grad(lambda *t: run(*t).square().sum(), every)(*inputs)
    tangents = tuple(leaves(cell, seed=1))
    value, moved = torch.func.jvp(run, tuple(inputs), tangents)
    by_hand = torch.zeros_like(moved)
    for jacobian, ours, tangent, gradient in zip(expected, found, tangents, grads, strict=True):
        torch.testing.assert_close(ours, jacobian, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(gradient, 2 * torch.tensordot(value, jacobian, 1), rtol=1e-10, atol=1e-12)
        by_hand += torch.tensordot(jacobian, tangent, tangent.dim())
    torch.testing.assert_close(moved, by_hand, rtol=1e-10, atol=1e-12)
    many = torch.stack([inputs[0], inputs[0] + 1])
    at_once = torch.func.vmap(lambda x: run(x, *inputs[1:]))(many)
    torch.testing.assert_close(at_once, torch.stack([truth(x, *inputs[1:]) for x in many]), rtol=1e-12, atol=1e-12)


@BACKENDS
@EVERY
def test_forward_mode_without_torch_func(cell: str, backend: str) -> None:
    """Dual numbers give the derivative that torch.func.jvp gives."""
    inputs, tangents = leaves(cell), leaves(cell, seed=1)
    _, expected = torch.func.jvp(layer(cell, backend="eager"), tuple(inputs), tuple(tangents))
    with torch.autograd.forward_ad.dual_level():
        duals = [torch.autograd.forward_ad.make_dual(x, t) for x, t in zip(inputs, tangents, strict=True)]
        moved = torch.autograd.forward_ad.unpack_dual(layer(cell, backend=backend)(*duals)).tangent
    assert moved is not None
    torch.testing.assert_close(moved, expected, rtol=1e-12, atol=1e-14)
    assert expected.abs().max() > 1e-2


@BACKENDS
@EVERY
def test_second_derivatives(cell: str, backend: str) -> None:
    """Of every result by every argument, beside the eager backend's; a gradient asked for by some arguments alone, too."""
    found = []
    for name in (backend, "eager"):
        inputs = [t.requires_grad_() for t in leaves(cell)]
        first = torch.autograd.grad(layer(cell, backend=name)(*inputs).pow(3).sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
        found.append([*(g.detach() for g in first), *second])
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-11)
    assert found[0][-1].abs().max() > 1e-3


@pytest.mark.parametrize("cell", ["rnn-sigmoid", "lstm", "gru"])
def test_second_derivatives_with_resets(cell: str) -> None:
    """A penalty on the weights' gradients, on every backend."""
    reset = torch.tensor([[0, 0], [0, 1], [1, 0]], dtype=torch.bool)
    found = []
    for name in ("eager", "torch", "triton"):
        inputs = [t.requires_grad_() for t in leaves(cell)]
        run = layer(cell, backend=name, reset=reset)
        first = torch.autograd.grad(run(*inputs).pow(3).sum(), inputs[1:], create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in first), inputs))
    for expected, *others in zip(*found, strict=True):
        for other in others:
            torch.testing.assert_close(other, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("backend", ["torch", pytest.param("triton", marks=pytest.mark.slow)])
@EVERY
def test_gradcheck_and_gradgradcheck(cell: str, backend: str) -> None:
    """Finite differences of outputs and of gradients, forward mode and batched gradients included."""
    inputs = [t.requires_grad_() for t in leaves(cell)]
    run = layer(cell, backend=backend)
    fast: dict[str, Any] = {"fast_mode": True}
    assert torch.autograd.gradcheck(run, inputs, check_forward_ad=True, check_batched_grad=False, **fast)
    assert torch.autograd.gradgradcheck(run, inputs, **fast)


@pytest.mark.parametrize("backend", ["torch", "triton"])
@EVERY
def test_many_gradients_at_once(cell: str, backend: str) -> None:
    """autograd.grad(is_grads_batched=True) maps the backward pass over directions."""
    inputs = [t.requires_grad_() for t in leaves(cell)]
    value = layer(cell, backend=backend)(*inputs)
    directions = torch.eye(len(value), dtype=torch.float64)[:3]
    at_once = torch.autograd.grad(value, inputs, directions, is_grads_batched=True, retain_graph=True)
    for k, direction in enumerate(directions):
        one = torch.autograd.grad(value, inputs, direction, retain_graph=True)
        for many, alone in zip(at_once, one, strict=True):
            torch.testing.assert_close(many[k], alone, rtol=1e-10, atol=1e-12)


@PAIRS
def test_modules_have_the_gradients_that_torch_has(pair: Any) -> None:
    """torch.func.grad of a functional call and the gradient of a gradient norm, with torch.nn's weights."""
    ours, theirs = pair[0](4, 5, 2).double(), pair[1](4, 5, 2).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    found = []
    for module in (ours, theirs):
        parameters = dict(module.named_parameters())

        def loss(values: dict[str, Tensor], module: nn.Module = module) -> Tensor:
            return torch.func.functional_call(module, values, (x,))[0].square().sum()

        first = torch.autograd.grad(loss(parameters), list(parameters.values()), create_graph=True)
        penalty = torch.autograd.grad(sum(g.square().sum() for g in first), list(parameters.values()))
        found.append([*torch.func.grad(loss)(parameters).values(), *penalty])
    for mine, expected in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-10)


@BACKENDS
def test_what_has_no_forward_derivative_is_refused(backend: str) -> None:
    """Clipping changes the backward pass alone."""
    inputs = leaves("gru")
    run = layer("gru", backend=backend, clip_recurrent=("value", 0.1))
    with pytest.raises(NotImplementedError, match="clip_recurrent changes the backward pass alone"):
        torch.func.jvp(run, tuple(inputs), tuple(inputs))
    expected = torch.autograd.grad(run(*[t.requires_grad_() for t in inputs]).sum(), inputs)
    found = torch.func.grad(lambda *t: run(*t).sum(), tuple(range(len(inputs))))(*(t.detach() for t in inputs))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@BACKENDS
@pytest.mark.parametrize("clip", [("value", 0.5), ("norm", 1.0)], ids=str)
def test_clipped_gradients_are_not_differentiated(clip: Any, backend: str) -> None:
    """They are the gradient of nothing: the first pass has its values, a second one is refused."""
    found = []
    for name in (backend, "eager"):
        inputs = [t.requires_grad_() for t in leaves("lstm")]
        run = layer("lstm", backend=name, clip_recurrent=clip)
        found.append(torch.autograd.grad(run(*inputs).pow(3).sum(), inputs, create_graph=True))
        with pytest.raises(NotImplementedError, match="cannot be differentiated again"):
            torch.autograd.grad(sum(g.square().sum() for g in found[-1]), inputs)
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-11)


@BACKENDS
def test_a_trace_of_torch_func_is_refused(backend: str) -> None:
    """Instead of an empty trace; a trace of a pass that is differentiated again is as any other."""
    run, inputs = layer("lstm", backend=backend), leaves("lstm")
    with trace_gradients(), pytest.raises(NotImplementedError, match=r"does not see gradients of torch\.func"):
        torch.func.grad(lambda x: run(x, *inputs[1:]).sum())(inputs[0])
    norms = []
    for create_graph in (False, True):
        inputs = [t.requires_grad_() for t in leaves("lstm")]
        with trace_gradients() as trace:
            torch.autograd.grad(run(*inputs).sum(), inputs, create_graph=create_graph)
        (layer_trace,) = trace.layers
        norms.append(torch.cat([layer_trace.hidden_norms.flatten(), layer_trace.weight_norms]))
    torch.testing.assert_close(*norms)
