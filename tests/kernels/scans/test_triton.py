"""The Triton recurrence in Triton's interpreter against the eager backend in float64."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from scan_checks import Case, agrees, clips, error, nan_stays, one_program, powers_of_rho, traces
from torch import Tensor

from recurrent_lm.kernels import CELLS, GRU, LSTM, RNN, recurrence, trace_gradients
from recurrent_lm.kernels.rnn.ops import recurrence_forward, triton_recurrence
from recurrent_lm.kernels.rnn.plan import DEVICES, predict

NAMES = sorted(CELLS)
EVERY = pytest.mark.parametrize("cell", NAMES)
PLANS = pytest.mark.parametrize("plan", ["stepwise", "resident", "cooperative"])


@pytest.fixture(autouse=True)
def _unwritten_is_nan() -> Iterator[None]:
    """Memory that nobody wrote is NaN, so that reading it shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture(autouse=True)
def _one_program() -> Iterator[None]:
    with one_program():
        yield


# T = 1 has no exchange, T = 2 one; B = 20 is more than one batch tile; H = 1 and 50 are padded, 16 is not.
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 50), (3, 20, 16)], ids=str)
@PLANS
@EVERY
def test_float64(cell: str, plan: str, shape: tuple[int, int, int]) -> None:
    """To rounding, with and without resets."""
    case = Case(cell, *shape)
    for reset in (None, case.reset):
        agrees(case, plan=plan, reset=reset)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(35, 3, 50), (2, 20, 200), (2, 1, 650), (35, 20, 1)], ids=str)
@PLANS
@EVERY
def test_float64_larger(cell: str, plan: str, shape: tuple[int, int, int]) -> None:
    """Sizes of real models, and more steps."""
    steps, batch, hidden = shape
    if plan == "resident" and predict(batch, steps, hidden, cell, "float64", DEVICES["sm_90"])["resident"].plan is None:
        pytest.skip("W_h is too large for one program")
    case = Case(cell, *shape)
    got = case(backend="triton", plan=plan if shape[2] < 650 else "stepwise", reset=case.reset)
    assert error(got, case(backend="eager", reset=case.reset)) < 1e-11


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@PLANS
@EVERY
def test_error_is_at_most_about_twice_that_of_eager(cell: str, plan: str, dtype: torch.dtype) -> None:
    """The same arguments in float64 are the truth."""
    agrees(Case(cell, 6, 3, 16 if plan == "resident" else 50, dtype), plan=plan)


@pytest.mark.parametrize("kind", ["value", "norm"])
@PLANS
@EVERY
def test_clipping(cell: str, plan: str, kind: str) -> None:
    """dL/dh[t] is clipped at every step, as autograd's own gradient is, and it bites."""
    case, limit = Case(cell, 4, 3, 20), 0.5 if kind == "value" else 3.0
    clips(case, kind, limit, plan=plan)
    options = {"clip_recurrent": (kind, limit), "reset": case.reset}
    assert error(case(backend="torch", **options), case(backend="eager", **options)) < 1e-12


@pytest.mark.parametrize("clip", [None, ("value", 0.5), ("norm", 3.0)], ids=str)
@PLANS
@EVERY
def test_trace(cell: str, plan: str, clip: Any) -> None:
    """All backends write the same norms down, and those of autograd."""
    case = Case(cell, 4, 3, 20)
    traces(case, clip, plan=plan)
    traces(case, clip, backend="torch")


def test_trace_of_two_layers_begins_with_the_first() -> None:
    """Layers come in the order of the model, on every backend, and a pass outside the block is not written down."""
    model = LSTM(3, 5, 2).double()
    input = torch.randn(4, 2, 3, dtype=torch.float64)
    found = []
    for model.backend in ("eager", "torch", "triton"):
        with trace_gradients() as trace:
            model(input)[0][-1].sum().backward()
        model(input)[0].sum().backward()
        assert len(trace.layers) == 2
        found.append(torch.stack([layer.hidden_norms for layer in trace.layers]))
    torch.testing.assert_close(found[0][1][-1], torch.full((2,), 5**0.5, dtype=torch.float64))  # the loss reads h(T) of layer 2
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])


@PLANS
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_recompute(cell: str, plan: str) -> None:
    """Gates rebuilt by one product give the gradients of gates kept, and the operation keeps none."""
    case = Case(cell, 3, 3, 20)
    for reset in (None, case.reset):
        agrees(case, plan=plan, recompute=True, reset=reset)
    *_, gates = forward_op(case, save=True, recompute=True)
    assert gates.numel() == 0


def forward_op(case: Case, **changed: Any) -> tuple[Tensor, ...]:
    input, h0, *rest = case.tensors
    c0 = rest.pop(0) if case.states == 2 else None
    how = {"plan": "stepwise", "exchange": "sentinel", "precision": "ieee", "clip": "none", "limit": 0.0}
    how |= {"save": False, "recompute": False} | changed
    return recurrence_forward(input, h0, c0, *rest, None, case.cell, *how.values())


@EVERY
def test_nothing_is_saved_without_gradients(cell: str) -> None:
    """Neither gates nor c of every step."""
    _, _, _, cs, gates = forward_op(Case(cell, 3, 2, 5))
    assert cs.numel() == gates.numel() == 0
    _, _, _, cs, gates = forward_op(Case(cell, 3, 2, 5), save=True)
    assert (cs.numel() > 0) == (cell == "lstm")
    assert (gates.numel() > 0) == (cell in ("lstm", "gru"))


@EVERY
def test_gradcheck(cell: str) -> None:
    """Finite differences of the Triton kernels themselves."""
    case = Case(cell, 2, 2, 2)
    leaves = [t.requires_grad_() for t in case.tensors]

    def run(*tensors: Tensor) -> list[Tensor]:
        output, final = recurrence(
            cell, tensors[0], tensors[1 : 1 + case.states], *tensors[1 + case.states :], backend="triton", plan="resident"
        )
        return [output, *final]

    torch.autograd.gradcheck(run, leaves, fast_mode=True)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm", "gru"])
def test_opcheck(cell: str) -> None:
    """Schema, fake shapes and autograd registration hold, also under torch.compile's tracing."""
    case = Case(cell, 2, 2, 5)
    input, h0, *rest = [t.requires_grad_() for t in case.tensors]
    c0 = rest.pop(0) if case.states == 2 else None
    arguments = (input, h0, c0, *rest, case.reset, cell, "stepwise", "sentinel", "ieee", "none", 0.0, True, False)
    torch.library.opcheck(recurrence_forward, arguments)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("module", [RNN, LSTM, GRU])
def test_compiles_as_one_graph(module: Any) -> None:
    """torch.compile(fullgraph=True), forward and backward, of a model around it."""
    torch.use_deterministic_algorithms(False)
    inner = module(3, 5, 2, backend="triton")
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), inner)
    compiled = torch.compile(lambda x: model(x)[0].square().sum(), fullgraph=True, backend="aot_eager")
    input = torch.randn(4, 2, 3)
    gradients = []
    for run in (compiled, lambda x: model(x)[0].square().sum()):
        model.zero_grad()
        loss = run(input)
        loss.backward()
        gradients.append([loss.detach(), *(p.grad for p in model.parameters())])
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_open_choice_is_no_graph_break() -> None:
    """What decides on CUDA tensors is a constant of the compiled graph."""
    from recurrent_lm.kernels.rnn.ops import better_than_library

    def run(x: Tensor, w: Tensor) -> Tensor:
        return x + 1 if better_than_library("lstm", x, w, True) else x - 1

    x, w = torch.zeros(100, 16, 3), torch.zeros(4 * 768, 768)
    assert torch.equal(torch.compile(run, fullgraph=True, backend="eager")(x, w), run(x, w))


@PLANS
def test_powers_of_rho(plan: str) -> None:
    """3 steps of h(t) = h(t-1) / 2, and their gradient."""
    powers_of_rho(plan=plan)


@PLANS
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_a_nan_stays_in_its_row_and_after_its_step(plan: str) -> None:
    """What a NaN at step 3 of row 1 can reach is NaN, nothing else."""
    nan_stays(Case("lstm", 5, 2, 5), plan=plan)


@EVERY
def test_any_layout(cell: str) -> None:
    """Transposed inputs and resets, strided states and a broadcast gradient."""
    case = Case(cell, 4, 3, 5)
    options = {"backend": "triton", "plan": "stepwise"}
    plain, reset = case(**options), case(reset=case.reset, **options)
    strided = Case(cell, 4, 3, 5)
    strided.tensors = [t.mT.contiguous().mT if t.dim() > 1 else t.repeat(2, 1).T.reshape(-1)[::2] for t in strided.tensors]
    assert error(strided(**options), plain) == 0
    turned = case.reset.t().contiguous().t()
    assert not turned.is_contiguous()
    assert error(strided(reset=turned, **options), reset) == 0
    strided.upstream = case.upstream = [torch.ones((), dtype=torch.float64).expand(u.shape) for u in case.upstream]
    assert error(strided(**options), case(backend="eager")) < 1e-12


@pytest.mark.parametrize("used", [0, 1, 2])
def test_gradients_of_one_result_alone(used: int) -> None:
    """Only the outputs, only h(T), or only c(T) may reach the loss."""
    case = Case("lstm", 3, 2, 5)
    case.upstream = [u if i == used else torch.zeros_like(u) for i, u in enumerate(case.upstream)]
    expected = case(backend="eager")
    leaves = [t.requires_grad_() for t in case.tensors]
    output, final = triton_recurrence("lstm", leaves[0], (leaves[1], leaves[2]), *leaves[3:], None)
    loss = ([output, *final][used] * case.upstream[used]).sum()
    assert error(list(torch.autograd.grad(loss, leaves, materialize_grads=True)), expected[3:]) < 1e-12


@pytest.mark.parametrize("backend", ["eager", "torch", "triton"])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weight_hh": torch.zeros(20, 5)}, "weight_hh must be torch.float64 as input is, not torch.float32"),
        (
            {"input": torch.zeros(2, 2, 3, dtype=torch.float32)},
            "weight_ih must be torch.float32 as input is, not torch.float64",
        ),
        ({"bias_hh": torch.zeros(20, device="meta")}, "bias_hh must be on cpu as input is, not on meta"),
        ({"clip_recurrent": ("value", 0.0)}, r'clip_recurrent must be \("value", c\) or \("norm", c\) with c > 0'),
        ({"clip_recurrent": ("size", 1.0)}, "clip_recurrent must be"),
        ({"precision": "fp8"}, "precision must be ieee, tf32 or tf32x3, not 'fp8'"),
    ],
    ids=["weight", "input", "device", "limit", "kind", "precision"],
)
def test_bad_input(changed: dict[str, Any], message: str, backend: str) -> None:
    """The sentence names the argument, what was expected and what was given, before anything runs."""
    input, h0, c0, *weights = Case("lstm", 2, 2, 5).tensors
    good = {"input": input, "state": (h0, c0)}
    good |= dict(zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), weights, strict=True))
    recurrence("lstm", **good, backend=backend)
    with pytest.raises(ValueError, match=message):
        recurrence("lstm", **(good | changed), backend=backend)


def test_a_plan_by_name() -> None:
    """Another backend has no plans, an unknown name and a plan too large are refused, and so is bfloat16 in the interpreter."""
    case = Case("lstm", 2, 2, 200)
    with pytest.raises(ValueError, match="plan 'resident' belongs to the triton backend, and the torch backend was chosen"):
        case(plan="resident")
    with pytest.raises(ValueError, match="plan must be one of stepwise, resident, cooperative, not 'fast'"):
        case(plan="fast", backend="triton")
    with pytest.raises(ValueError, match=r"plan 'resident' does not fit the interpreter.*these fit"):
        case(plan="resident", backend="triton")
    with pytest.raises(ValueError, match="input must be float16, float32, float64 for the triton backend here, not bfloat16"):
        case(torch.bfloat16, backend="triton")
