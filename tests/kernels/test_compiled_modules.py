"""torch.compile of the modules: values of the uncompiled module, and one compilation for all lengths."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from recurrent_lm.kernels import GRU, LSTM, RNN, trace_gradients

pytestmark = pytest.mark.filterwarnings("ignore")  # of Dynamo and Inductor about their own code
CELLS: dict[str, Any] = {
    "rnn-tanh": RNN,
    "rnn-relu": lambda *sizes, **how: RNN(*sizes, nonlinearity="relu", **how),
    "rnn-sigmoid": lambda *sizes, **how: RNN(*sizes, nonlinearity="sigmoid", **how),
    "rnn-identity": lambda *sizes, **how: RNN(*sizes, nonlinearity="identity", **how),
    "lstm": LSTM,
    "gru": GRU,
}
QUICK = [("rnn-tanh", "torch"), ("lstm", "torch"), ("gru", "torch"), ("rnn-sigmoid", "triton"), ("gru", "eager")]
PAIRS = pytest.mark.parametrize(
    ("cell", "backend"),
    [
        pytest.param(cell, backend, marks=[] if (cell, backend) in QUICK else pytest.mark.slow)
        for cell in CELLS
        for backend in ("eager", "torch", "triton")
    ],
)


@pytest.fixture(autouse=True)
def _nothing_compiled() -> None:
    torch._dynamo.reset()


def both(run: Any, compiled: Any, module: nn.Module, x: Tensor, wanted: bool) -> None:
    """Outputs, states and gradients of the two are close."""
    found = []
    for function in (run, compiled):
        leaf = x.clone().requires_grad_(wanted)
        output, state = function(leaf)
        states = state if isinstance(state, tuple) else (state,)
        loss = output.square().sum() + sum(s.sum() for s in states)
        found.append([output, *states, *torch.autograd.grad(loss, [*([leaf] if wanted else []), *module.parameters()])])
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wanted", [True, False], ids=["input-grad", "plain-input"])
@PAIRS
def test_one_graph_forward_and_backward(cell: str, backend: str, wanted: bool) -> None:
    """A first layer's features need no gradient; those of a later layer do."""
    module = CELLS[cell](3, 4, 2, backend=backend)
    both(module, torch.compile(module, fullgraph=True, backend="aot_eager"), module, torch.randn(5, 2, 3), wanted)


@PAIRS
def test_one_compilation_serves_every_length(cell: str, backend: str) -> None:
    """Ten lengths, more than torch compiles anew before it gives up; of the slow interpreter three."""
    module = CELLS[cell](3, 4, backend=backend)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(module, fullgraph=True, backend=counter, dynamic=True)
    counts = set()
    for steps in range(5, 8 if backend == "triton" else 15):  # no length is one of the other sizes
        x = torch.randn(steps, 2, 3)
        torch.testing.assert_close(compiled(x)[0], module(x)[0], rtol=1e-4, atol=1e-5)
        counts.add(counter.frame_count)
    assert len(counts) == 1


@pytest.mark.parametrize("how", [{}, {"clip_recurrent": ("norm", 0.1)}, {"batch_first": True}], ids=str)
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn-sigmoid"])
def test_resets_clipping_and_other_options(cell: str, how: Any) -> None:
    """A mask is an argument of the compiled graph."""
    module = CELLS[cell](3, 4, **how)
    reset = torch.rand(5, 2) < 0.4
    mask = reset.t() if module.batch_first else reset
    compiled = torch.compile(lambda x, r: module(x, reset=r), fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 5, 3) if module.batch_first else torch.randn(5, 2, 3)
    both(lambda x: module(x, reset=mask), lambda x: compiled(x, mask), module, x, True)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_no_gradients_and_autocast(cell: str) -> None:
    """Dtypes are those of the uncompiled module, values as near as halves are."""
    module = CELLS[cell](3, 4, 2)
    compiled, x = torch.compile(module, fullgraph=True, backend="aot_eager"), torch.randn(5, 2, 3)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x)[0], module(x)[0])
    with torch.autocast("cpu", torch.bfloat16):
        ours, expected = compiled(x)[0], module(x)[0]
        ours.float().sum().backward()
    assert ours.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(ours, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_compiled_backward_pass_is_traced(cell: str) -> None:
    module = CELLS[cell](3, 4)
    x, norms = torch.randn(5, 2, 3), []
    for run in (module, torch.compile(module, backend="aot_eager")):
        with trace_gradients() as trace:
            run(x)[0].sum().backward()
        (layer,) = trace.layers
        norms.append(torch.cat([layer.hidden_norms.flatten(), layer.weight_norms]))
    torch.testing.assert_close(*norms)


@pytest.mark.parametrize("cell", [pytest.param("lstm", marks=pytest.mark.slow), "gru"])
def test_forward_mode_inside_a_compiled_function(cell: str) -> None:
    """torch.func inside the graph is not answered by zeros."""
    module, x = CELLS[cell](3, 4), torch.randn(3, 2, 3)

    def run(x: Tensor) -> Any:
        return torch.func.jvp(lambda y: module(y)[0], (x,), (torch.ones_like(x),))[1]

    expected = run(x)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(torch.compile(run, backend="aot_eager")(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_export_with_a_free_length(backend: str) -> None:
    """An exported program runs at other lengths than the example's."""
    module = GRU(3, 4, backend=backend)
    steps = torch.export.Dim("steps", min=2, max=100)
    program = torch.export.export(module, (torch.randn(5, 2, 3),), dynamic_shapes=({0: steps},)).module()
    x = torch.randn(9, 2, 3)
    torch.testing.assert_close(program(x)[0], module(x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [True, False], ids=["input-grad", "plain-input"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn-tanh", "rnn-sigmoid"])
def test_inductor(cell: str, wanted: bool) -> None:
    """The default compiler, with lengths that change."""
    module = CELLS[cell](3, 4, 2)
    compiled = torch.compile(module, fullgraph=True, dynamic=True)
    for steps in (5, 7):
        both(module, compiled, module, torch.randn(steps, 2, 3), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("save", [True, False], ids=["training", "asking"])
@pytest.mark.parametrize("cell", CELLS)
def test_opcheck(cell: str, save: bool) -> None:
    """Schema, fake shapes and autograd registration of the host's operation."""
    from recurrent_lm.kernels.rnn.host import host_forward

    module = CELLS[cell](3, 4)
    weights = [w.detach().requires_grad_(save) for w in module.all_weights[0]]
    c0 = torch.randn(2, 4, requires_grad=save) if cell == "lstm" else None
    tensors = (torch.randn(5, 2, 3, requires_grad=save), torch.randn(2, 4, requires_grad=save), c0, *weights)
    torch.library.opcheck(host_forward, (*tensors, torch.rand(5, 2) < 0.3, module.cell, "none", 0.0, save))
