"""What programs written for torch.nn's modules touch beside the forward pass: attributes, exceptions, tracing, meta tensors."""

import inspect
import io
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurrent_lm import kernels
from recurrent_lm.kernels import GRU, LSTM, RNN

PAIRS = {"RNN": (RNN, nn.RNN), "GRU": (GRU, nn.GRU), "LSTM": (LSTM, nn.LSTM)}
EVERY = pytest.mark.parametrize("name", PAIRS)
BACKENDS = pytest.mark.parametrize("backend", ["eager", "torch", "triton"])


class Net(nn.Module):
    """A recurrent module inside another one."""

    def __init__(self, recurrent: nn.Module) -> None:
        super().__init__()
        self.recurrent, self.linear = recurrent, nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        output, state = self.recurrent(x)
        return self.linear(output), state


def states(state: Any) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


def close(found: Any, expected: Any) -> None:
    for ours, theirs in zip((found[0], *states(found[1])), (expected[0], *states(expected[1])), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
@EVERY
def test_attributes(name: str, bias: bool) -> None:
    """Their values are those of torch.nn's module with the same weights."""
    ours, theirs = (kind(3, 4, 2, bias=bias) for kind in PAIRS[name])
    ours.load_state_dict(theirs.state_dict())
    ours.flatten_parameters()
    for attribute in ("mode", "bidirectional", "proj_size", "_all_weights", "bias", "batch_first", "dropout", "num_layers"):
        assert getattr(ours, attribute) == getattr(theirs, attribute), attribute
    for mine, expected in zip(ours.all_weights, theirs.all_weights, strict=True):
        assert [w.shape for w in mine] == [w.shape for w in expected]
        assert all(torch.equal(a, b) for a, b in zip(mine, expected, strict=True))
    assert [w.shape for w in ours._flat_weights] == [w.shape for w in theirs._flat_weights]
    assert ours.all_weights[1][0] is ours.weight_ih_l1
    for attribute in ("bidirectional", "proj_size"):
        with pytest.raises(AttributeError):
            setattr(ours, attribute, 1)


@EVERY
def test_signatures_name_every_argument(name: str) -> None:
    """In torch.nn's documented order, ours by keyword alone."""
    parameters = inspect.signature(getattr(kernels, name)).parameters
    positional = [
        "input_size",
        "hidden_size",
        "num_layers",
        *(["nonlinearity"] if name == "RNN" else []),
        "bias",
        "batch_first",
    ]
    positional += ["dropout", "bidirectional", *(["proj_size"] if name == "LSTM" else []), "device", "dtype"]
    kinds = {kind: [n for n, p in parameters.items() if p.kind == kind] for kind in {p.kind for p in parameters.values()}}
    assert kinds[inspect.Parameter.POSITIONAL_OR_KEYWORD] == positional
    assert {"backend", "clip_recurrent", "recompute"} <= set(kinds[inspect.Parameter.KEYWORD_ONLY])
    assert inspect.Parameter.VAR_KEYWORD not in kinds


@pytest.mark.parametrize(
    "changed",
    [
        {"bias": "False"}, {"bias": 0}, {"batch_first": "no"}, {"input_size": 3.0}, {"hidden_size": "4"}, {"input_size": 0},
        {"hidden_size": -1}, {"num_layers": 0}, {"num_layers": 1.5}, {"dropout": 2}, {"dropout": True}, {"dropout": "0.1"},
    ],
    ids=str,
)  # fmt: skip
@EVERY
def test_wrong_arguments_raise_what_torch_raises(name: str, changed: dict[str, Any]) -> None:
    ours, theirs = PAIRS[name]
    arguments = {"input_size": 3, "hidden_size": 4, "num_layers": 2} | changed
    with pytest.raises(Exception) as expected:
        theirs(**arguments)
    with pytest.raises(expected.type, match=next(iter(changed))):
        ours(**arguments)


@pytest.mark.parametrize(
    "call",
    [
        lambda m, x, h: m(x[0, 0]),  # one dimension
        lambda m, x, h: m(x[..., :2]),  # features
        lambda m, x, h: m(x[:0]),  # no steps
        lambda m, x, h: m(x.double()),
        lambda m, x, h: m(x, (h[:, :1], h[:, :1]) if isinstance(m, LSTM | nn.LSTM) else h[:, :1]),  # rows
        lambda m, x, h: m(x, (h[0], h[0]) if isinstance(m, LSTM | nn.LSTM) else h[0]),  # rank
    ],
)
@EVERY
def test_wrong_inputs_raise_what_torch_raises(name: str, call: Any) -> None:
    x, h = torch.randn(5, 2, 3), torch.zeros(1, 2, 4)
    ours, theirs = (kind(3, 4) for kind in PAIRS[name])
    with pytest.raises(Exception) as expected:
        call(theirs, x, h)
    with pytest.raises(expected.type):
        call(ours, x, h)


@EVERY
def test_dropout_in_one_layer_warns_where_the_module_is_made(name: str) -> None:
    for kind in PAIRS[name]:
        with pytest.warns(UserWarning, match="dropout") as caught:
            kind(3, 4, dropout=0.5)
        assert len(caught) == 1
    assert caught[0].filename.endswith(".py")
    with pytest.warns(UserWarning) as caught:
        PAIRS[name][0](3, 4, dropout=0.5)
    assert caught[0].filename == __file__


@BACKENDS
@pytest.mark.parametrize("change", [F.relu, F.dropout])
@pytest.mark.parametrize("name", ["RNN", "GRU"])
def test_outputs_may_be_changed_in_place(name: str, change: Any, backend: str) -> None:
    """By ReLU or dropout behind the module, as those of torch.nn; gradients are those of a copy."""
    module = PAIRS[name][0](3, 4, 2, backend=backend)
    x, gradients = torch.randn(5, 2, 3), []
    for in_place in (True, False):
        torch.manual_seed(0)
        output = change(module(x)[0], inplace=in_place)
        gradients.append(torch.autograd.grad(output.square().sum(), list(module.parameters())))
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)
    assert gradients[0][0].any()


@BACKENDS
@EVERY
def test_symbolic_trace_keeps_the_module_whole(name: str, backend: str) -> None:
    """torch.fx sees a call of the module, as it does with torch.nn's."""
    net = Net(PAIRS[name][0](3, 4, 2, backend=backend))
    graph = torch.fx.symbolic_trace(net)
    assert [node.target for node in graph.graph.nodes if node.op == "call_module"] == ["recurrent", "linear"]
    x = torch.randn(6, 2, 3)
    close(graph(x), net(x))


def saved_trace(net: nn.Module, x: Tensor) -> Any:
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(net, x), file)
    file.seek(0)
    return torch.jit.load(file)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@BACKENDS
@EVERY
def test_a_trace_can_be_saved_and_runs_at_other_lengths(name: str, backend: str) -> None:
    """Without a warning about sizes; each backend leaves ATen's operation in the trace."""
    net = Net(PAIRS[name][0](3, 4, 2, batch_first=True, backend=backend))
    loaded = saved_trace(net, torch.randn(2, 5, 3))
    x = torch.randn(3, 9, 3)
    close(loaded(x), net(x))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_what_a_trace_cannot_hold_is_refused() -> None:
    """Cells that ATen does not have, resets and clipping need a loop, which a trace would unroll at one length."""
    x = torch.randn(5, 2, 3)
    for module in (RNN(3, 4, nonlinearity="sigmoid"), GRU(3, 4, clip_recurrent=("value", 1.0))):
        with pytest.raises(NotImplementedError, match=r"torch\.jit\.trace keeps no loop"):
            torch.jit.trace(module, x)


@pytest.mark.filterwarnings("ignore")  # the exporter's own
@EVERY
def test_onnx_export_by_trace(name: str, tmp_path: Any) -> None:
    """One node a layer, right at other lengths, as torch.nn's; needs the onnx package."""
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    net, path = Net(PAIRS[name][0](3, 4, 2)), str(tmp_path / "net.onnx")
    torch.onnx.export(
        net, (torch.randn(5, 2, 3),), path, dynamo=False, input_names=["x"], output_names=["y"], dynamic_axes={"x": [0, 1]}
    )
    model = onnx.load(path)
    assert [node.op_type for node in model.graph.node].count(name) == 2
    x = torch.randn(9, 2, 3)
    found = ReferenceEvaluator(model).run(["y"], {"x": x.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), net(x)[0], rtol=1e-4, atol=1e-5)


@BACKENDS
@EVERY
def test_meta_tensors(name: str, backend: str) -> None:
    """Shapes of results and of gradients without numbers, with and without a mask."""
    module = PAIRS[name][0](3, 4, 2, backend=backend, device="meta")
    x = torch.empty(5, 2, 3, device="meta", requires_grad=True)
    for reset in (None, torch.empty(5, 2, dtype=torch.bool, device="meta")):
        output, state = module(x, reset=reset)
        assert output.shape == (5, 2, 4)
        assert all(s.shape == (2, 2, 4) for s in states(state))
        gradients = torch.autograd.grad(output.sum(), [x, *module.parameters()])
        assert [g.shape for g in gradients] == [x.shape, *(p.shape for p in module.parameters())]
        with torch.no_grad():
            assert module(x, reset=reset)[0].is_meta


@BACKENDS
@EVERY
def test_results_are_contiguous(name: str, backend: str) -> None:
    """Also where the kernels pad the units."""
    output, state = PAIRS[name][0](3, 5, backend=backend)(torch.randn(4, 2, 3))
    assert output.is_contiguous()
    assert all(s.is_contiguous() for s in states(state))
