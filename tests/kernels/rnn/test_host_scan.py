"""The CPU's own scan against the unrolled twin: outputs, gradients and traces, with nothing read that was never written."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accuracy import near
from scan_checks import Case, error
from torch import Tensor

from recurrent_lm.kernels import CELLS, recurrence, trace_gradients
from recurrent_lm.kernels.rnn import host
from recurrent_lm.kernels.rnn.cells import Weights
from recurrent_lm.kernels.rnn.host_scan import ACTIVATIONS, bfloat16_operands, kept_of_output, scan_forward

EVERY = pytest.mark.parametrize("cell", sorted(CELLS))
# One of everything; T = 1 has no product with the state backward; B = 1 is a row; 35, 20, 50 is a training length, odd sizes
# leave rows of slots unaligned.
SHAPES = pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 5), (4, 1, 7), (9, 3, 5), (35, 20, 50)], ids=str)
CLIPS = pytest.mark.parametrize("clip", [None, ("value", 0.3), ("norm", 0.5)], ids=["free", "value", "norm"])


@pytest.fixture(autouse=True)
def _nan_in_new_tensors() -> Iterator[None]:
    """torch.empty holds NaN, so that a number that nobody wrote shows."""
    deterministic, fill = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = fill


@pytest.fixture
def only_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    """The LSTM by the scan, too."""
    monkeypatch.setattr(host, "library_is_faster", lambda *_: False)


def traced(case: Case, dtype: torch.dtype, **options: Any) -> list[Tensor]:
    """Results and gradients, then the norms of the trace."""
    with trace_gradients() as trace:
        results = case(dtype, **options)
    (layer,) = trace.layers
    return [*results, layer.hidden_norms, layer.weight_norms]


@CLIPS
@pytest.mark.parametrize("resets", [False, True], ids=["plain", "resets"])
@SHAPES
@EVERY
@pytest.mark.usefixtures("only_scan")
def test_float64_is_the_unrolled_twin(cell: str, shape: tuple[int, int, int], resets: bool, clip: Any) -> None:
    """To a few roundings, and so are the norms of the trace."""
    case = Case(cell, *shape)
    options = {"reset": case.reset if resets else None, "clip_recurrent": clip}
    ours, twin = (traced(case, torch.float64, backend=name, **options) for name in ("torch", "eager"))
    assert error(ours[:-2], twin[:-2]) < 3e-15 * shape[0] ** 0.5 * shape[2] ** 0.5
    torch.testing.assert_close(ours[-2], twin[-2], rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(ours[-1], twin[-1], rtol=1e-7, atol=1e-12)  # found by products of rows


@pytest.mark.parametrize("resets", [False, True], ids=["plain", "resets"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@EVERY
@pytest.mark.usefixtures("only_scan")
def test_float32_errs_at_most_twice_as_much_as_eager(cell: str, bias: bool, resets: bool) -> None:
    case = Case(cell, 35, 20, 50, torch.float32)
    if not bias:
        case.tensors = case.tensors[:-2]
    options = {"reset": case.reset if resets else None}
    truth = case(backend="eager", **options)
    ours, eager = (case(torch.float32, backend=name, **options) for name in ("torch", "eager"))
    near(ours, eager, truth)


@EVERY
def test_the_trace_leaves_the_gradients_as_they_are(cell: str) -> None:
    """Watched or not; for the LSTM these are the scan's and oneDNN's."""
    case = Case(cell, 12, 4, 6, torch.float32)
    plain, watched = case(torch.float32, backend="torch"), traced(case, torch.float32, backend="torch")
    assert error(watched[:-2], [t.double() for t in plain]) < (2e-6 if cell == "lstm" else 1e-12)
    near(watched[-2:], traced(case, torch.float32, backend="eager")[-2:], traced(case, torch.float64, backend="eager")[-2:])


def test_a_watched_lstm_is_not_differentiated_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside the trace oneDNN's backward pass is left out, whose work the scan does."""
    ran: list[str] = []
    real = torch.lstm

    class Spy(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor | None) -> Tensor | None:
            ran.append("none" if gradient is None or not gradient.any() else "some")
            return gradient

    def spied(input: Tensor, *arguments: Any) -> Any:
        output, h, c = real(input, *arguments)
        return Spy.apply(output), h, c

    monkeypatch.setitem(host.ATEN, "lstm", spied)
    case = Case("lstm", 5, 2, 3, torch.float32)
    case(torch.float32, backend="torch")
    assert ran == ["some"]
    traced(case, torch.float32, backend="torch")
    assert ran[1:] in ([], ["none"])


@pytest.mark.parametrize(
    ("cell", "dtype", "resets", "clip", "library"),
    [
        ("lstm", torch.float32, False, None, True),
        ("lstm", torch.bfloat16, False, None, True),
        ("lstm", torch.float16, False, None, False),
        ("lstm", torch.float64, False, None, False),
        ("lstm", torch.float32, True, None, False),
        ("lstm", torch.float32, False, ("value", 1.0), False),
        ("gru", torch.float32, False, None, False),
        ("rnn-tanh", torch.float32, False, None, False),
        ("rnn-identity", torch.float32, False, None, False),
    ],
)
def test_what_onednn_does(cell: str, dtype: torch.dtype, resets: bool, clip: Any, library: bool) -> None:
    """The LSTM that nothing is done to on the way, in the dtypes that oneDNN fuses."""
    reset = torch.ones(2, 3, dtype=torch.bool) if resets else None
    assert host.library_is_faster(cell, torch.zeros(2, 3, 4, dtype=dtype), reset, clip) is library


@EVERY
@pytest.mark.usefixtures("only_scan")
def test_a_graph_that_is_kept_gives_the_same_gradients_again(cell: str) -> None:
    """The backward pass writes into buffers of its own."""
    case = Case(cell, 6, 2, 3)
    leaves = [t.clone().requires_grad_() for t in case.tensors]
    states = case.states
    results = recurrence(
        cell, leaves[0], tuple(leaves[1 : 1 + states]), *leaves[1 + states :], reset=case.reset, backend="torch"
    )
    first, second = (torch.autograd.grad(results[0].sum(), leaves, retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@EVERY
@pytest.mark.usefixtures("only_scan")
def test_a_nan_stays_in_its_row(cell: str) -> None:
    """In the row and from the step where it came in, forward and backward."""
    case = Case(cell, 6, 3, 4)
    case.tensors[0][2, 1, 0] = torch.nan
    ours, twin = (case(backend=name) for name in ("torch", "eager"))
    assert all(torch.equal(a.isnan(), b.isnan()) for a, b in zip(ours, twin, strict=True))
    assert ours[0][2:, 1].isnan().all()
    assert not ours[0][:, [0, 2]].isnan().any()


@EVERY
@pytest.mark.usefixtures("only_scan")
def test_products_of_bfloat16_operands_have_float32_sums(cell: str) -> None:
    """Under autocast the state stays float32, so that 200 steps are hardly further off than one; results are of bfloat16."""
    case = Case(cell, 200, 8, 32, torch.float32)
    truth = case(backend="eager")
    with torch.autocast("cpu", torch.bfloat16):
        found = case(torch.float32, backend="torch")
    assert found[0].dtype == torch.bfloat16
    assert error(found[:1], truth[:1]) < 2 * torch.finfo(torch.bfloat16).eps
    last = [found[0][-1:]], [truth[0][-1:]]
    assert error(*last) < 2 * torch.finfo(torch.bfloat16).eps


def test_the_precision_of_products_is_given_back() -> None:
    """Also when a product fails, and a program's own choice stays."""
    switch: Any = torch.backends.mkldnn.matmul
    before = switch.fp32_precision
    with pytest.raises(RuntimeError), bfloat16_operands(True):
        assert switch.fp32_precision == "bf16"
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert switch.fp32_precision == before
    with bfloat16_operands(False):
        assert switch.fp32_precision == before


@pytest.mark.parametrize("resets", [False, True], ids=["plain", "resets"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@EVERY
def test_states_and_gates_follow_from_the_output(cell: str, bias: bool, resets: bool) -> None:
    """What a library does not tell is what the scan would have kept."""
    case = Case(cell, 7, 3, 5)
    input, *more = (t.detach() for t in case.tensors)
    state, weights = tuple(more[: case.states]), more[case.states :]
    own = Weights(*(weights if bias else (*weights[:2], None, None)))
    reset = case.reset if resets else None
    kept = scan_forward(cell, input, state, own, reset)
    found = kept_of_output(cell, input, kept.hs[1:].clone(), state, own, reset, False)
    for ours, expected in zip(found, kept, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-13, atol=1e-15)


def test_every_cell_has_a_scan() -> None:
    assert {*ACTIVATIONS, "gru", "lstm"} == set(CELLS)
