"""One layer over a sequence: the torch backend against the eager one, known answers, resets."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recurrent_lm.kernels import CELLS, recurrence

NAMES = sorted(CELLS)
SCANS = ["rnn-sigmoid", "rnn-identity"]  # the two with a backward pass written out by hand
BOTH = pytest.mark.parametrize("backend", ["eager", "torch"])
EVERY = pytest.mark.parametrize("cell", NAMES)


class Case:
    """Random arguments of one layer, and the gradients of a loss that reads every output and every final state."""

    def __init__(
        self, cell: str, steps: int, batch: int, hidden: int, features: int = 3, bias: bool = True, seed: int = 0
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        packed = CELLS[cell].gates * hidden

        def draw(*shape: int, scale: float = 1.0) -> Tensor:
            return scale * torch.randn(shape, dtype=torch.float64, generator=generator)

        self.cell = cell
        self.input = draw(steps, batch, features)
        self.state = [draw(batch, hidden) for _ in range(CELLS[cell].states)]
        self.weights = [draw(packed, features), draw(packed, hidden, scale=0.7 / hidden**0.5)]
        self.weights += [draw(packed), draw(packed)] if bias else []
        self.upstream = [draw(steps, batch, hidden), *(draw(batch, hidden) for _ in self.state)]

    def leaves(self, dtype: torch.dtype = torch.float64) -> list[Tensor]:
        tensors = [self.input, *self.state, *self.weights]
        return [t.to(dtype, copy=True).requires_grad_() for t in tensors]

    def run(self, leaves: list[Tensor], **options: Any) -> list[Tensor]:
        """Outputs, then final states."""
        states = len(self.state)
        output, final = recurrence(self.cell, leaves[0], tuple(leaves[1 : 1 + states]), *leaves[1 + states :], **options)
        return [output, *final]

    def all(self, dtype: torch.dtype = torch.float64, **options: Any) -> list[Tensor]:
        """Outputs, final states, and the gradients of input, state, weights and biases."""
        leaves = self.leaves(dtype)
        results = self.run(leaves, **options)
        loss = sum((r * u.to(dtype)).sum() for r, u in zip(results, self.upstream, strict=True))
        return [*(r.detach() for r in results), *torch.autograd.grad(loss, leaves)]


def same(actual: list[Tensor], expected: list[Tensor], tolerance: float = 1e-12) -> None:
    """Each tensor's largest error, relative to its largest entry."""
    assert len(actual) == len(expected)
    for index, (a, e) in enumerate(zip((t.detach() for t in actual), (t.detach() for t in expected), strict=True)):
        assert a.shape == e.shape
        error = float((a.double() - e).abs().max())
        assert error <= tolerance * max(1e-3, float(e.abs().max())), f"tensor {index}: error {error}"


def pieces(case: Case, leaves: list[Tensor], reset: Tensor) -> list[Tensor]:
    """What a reset means: every row on its own, cut before each reset, each later piece started from zero."""
    steps, batch = reset.shape
    states = len(case.state)
    rows, finals = [], []
    for b in range(batch):
        state = tuple(s[b : b + 1] for s in leaves[1 : 1 + states])
        cuts = [t for t in range(steps) if reset[t, b]]
        outputs = []
        for begin, end in zip([0, *cuts], [*cuts, steps], strict=True):
            if begin in cuts:
                state = tuple(torch.zeros_like(s) for s in state)
            if begin < end:
                part = leaves[0][begin:end, b : b + 1]
                output, state = recurrence(case.cell, part, state, *leaves[1 + states :], backend="eager")
                outputs.append(output)
        rows.append(torch.cat(outputs))
        finals.append(state)
    return [torch.cat(rows, dim=1), *(torch.cat(parts) for parts in zip(*finals, strict=True))]


# T = 1 has no recurrent product in the backward pass, T = 2 has one, 35 is a training length; B = 20, H = 50 are a batch and
# a width where the fused kernels leave their scalar paths.
SHAPES = [(1, 1, 1), (1, 3, 50), (2, 3, 50), (2, 20, 1), (35, 1, 50), (35, 20, 50)]


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@EVERY
def test_backends_agree_in_float64(cell: str, shape: tuple[int, int, int], bias: bool) -> None:
    """Outputs, final states and every gradient, to float64 rounding."""
    case = Case(cell, *shape, bias=bias)
    same(case.all(backend="torch"), case.all(backend="eager"))


@pytest.mark.parametrize("shape", [(2, 3, 50), (35, 20, 50)], ids=str)
@EVERY
def test_float32_is_near_the_float64_truth(cell: str, shape: tuple[int, int, int]) -> None:
    """Both backends in float32 stay within float32 rounding of the same arguments in float64."""
    case = Case(cell, *shape)
    for name in ("input", "state", "weights", "upstream"):  # the truth of numbers that float32 can hold
        value = getattr(case, name)
        setattr(case, name, value.float().double() if name == "input" else [v.float().double() for v in value])
    truth = case.all(backend="eager")
    for backend in ("eager", "torch"):
        results = case.all(torch.float32, backend=backend)
        assert all(r.dtype == torch.float32 for r in results)
        same(results, truth, tolerance=5e-6)


@BOTH
@EVERY
def test_gradients_of_output_and_of_final_state_add_up(cell: str, backend: str) -> None:
    """The gradient that arrives at both is the sum of those that arrive at one, and neither is zero."""
    case = Case(cell, 5, 2, 3)

    def gradients(*which: int) -> list[Tensor]:
        leaves = case.leaves()
        results = case.run(leaves, backend=backend)
        return list(torch.autograd.grad(sum((results[i] * case.upstream[i]).sum() for i in which), leaves))

    states = range(1, 1 + len(case.state))
    parts = [gradients(i) for i in (0, *states)]
    same(gradients(0, *states), [torch.stack(p).sum(0) for p in zip(*parts, strict=True)])
    assert all(p[0].abs().max() > 1e-3 for p in parts)


@BOTH
def test_final_state_is_the_last_output(backend: str) -> None:
    """For every cell h after the last step is the last output, and c of the LSTM is not."""
    for cell in NAMES:
        case = Case(cell, 3, 2, 4)
        output, h, *c = case.run(case.leaves(), backend=backend)
        assert torch.equal(output[-1], h)
        assert not c or not torch.allclose(c[0], h)


@BOTH
@given(rho=st.floats(-1.3, 1.3), steps=st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_linear_case_gives_powers_of_rho(backend: str, rho: float, steps: int) -> None:
    """h(t) = rho h(t-1): outputs rho^t h(0), and dL(T)/dh(0) = rho^T, the textbook's vanishing and exploding gradient."""
    h0 = torch.tensor([[1.0, -2.0]], dtype=torch.float64, requires_grad=True)
    weight = rho * torch.eye(2, dtype=torch.float64)
    zeros = torch.zeros(steps, 1, 1, dtype=torch.float64)
    output, (h,) = recurrence("rnn-identity", zeros, (h0,), torch.zeros(2, 1, dtype=torch.float64), weight, backend=backend)
    powers = torch.tensor([rho ** (t + 1) for t in range(steps)], dtype=torch.float64)
    torch.testing.assert_close(output.detach(), powers.view(-1, 1, 1) * h0.detach(), rtol=1e-12, atol=1e-300)
    (gradient,) = torch.autograd.grad(h.sum(), h0)
    torch.testing.assert_close(gradient, torch.full_like(h0, rho**steps), rtol=1e-12, atol=1e-300)


@BOTH
def test_linear_case_with_a_shear(backend: str) -> None:
    """W = [[1, 1], [0, 1]] adds h_2 to h_1 at each step, so the orientation of every product shows."""
    h0 = torch.tensor([[5.0, 2.0]], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    zeros = torch.zeros(3, 1, 1, dtype=torch.float64)
    output, (h,) = recurrence("rnn-identity", zeros, (h0,), torch.zeros(2, 1, dtype=torch.float64), weight, backend=backend)
    assert output[:, 0].tolist() == [[7.0, 2.0], [9.0, 2.0], [11.0, 2.0]]
    d_h0, d_weight = torch.autograd.grad(h[0, 0], (h0, weight))
    assert d_h0.tolist() == [[1.0, 3.0]]
    # d h_1(3) / d W: sum over t of (dh_1(3)/dh(t)) h(t-1)^T, with dh_1(3)/dh(3..1) = (1, 0), (1, 1), (1, 2)
    assert d_weight.tolist() == [[5.0 + 7.0 + 9.0, 2.0 * 3], [2 * 5.0 + 7.0, 2 * 2.0 + 2.0]]


@BOTH
def test_input_part_and_both_biases(backend: str) -> None:
    """One step from zero state: W_e x + b_ih + b_hh = 2 * 3 + 5 + 7, and without a state the bias alone is W-free."""
    one = torch.ones(1, dtype=torch.float64)
    output, _ = recurrence(
        "rnn-identity", 3 * one.view(1, 1, 1), (0 * one.view(1, 1),), 2 * one.view(1, 1), one.view(1, 1), 5 * one, 7 * one,
        backend=backend,
    )  # fmt: skip
    assert output.item() == 18.0


@pytest.mark.parametrize("side", ["bias_ih", "bias_hh"])
@EVERY
def test_one_bias_alone_counts(cell: str, side: str) -> None:
    """A missing bias is zero; the other one is not dropped with it, on any backend."""
    case = Case(cell, 3, 2, 4, bias=False)
    bias = Case(cell, 3, 2, 4).weights[2]
    leaves, zero = case.leaves(), torch.zeros_like(bias)
    both = {"bias_ih": zero, "bias_hh": zero, side: bias}
    expected = case.run(leaves, backend="eager", **both)
    for backend in ("eager", "torch"):
        same(case.run(leaves, backend=backend, **{side: bias}), expected)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize("cell", SCANS)
def test_gradcheck_of_the_scan(cell: str, bias: bool, steps: int) -> None:
    """The backward pass written out by hand is that of finite differences."""
    case = Case(cell, steps, 2, 3, features=2, bias=bias)
    assert torch.autograd.gradcheck(lambda *leaves: tuple(case.run(list(leaves), backend="torch")), case.leaves())


@pytest.mark.parametrize("cell", SCANS)
def test_scan_keeps_its_arguments(cell: str) -> None:
    """Nothing given is written to, and gradients arrive when only some arguments ask for them."""
    case = Case(cell, 3, 2, 4)
    expected = case.all(backend="eager")
    for index in range(len(case.leaves())):
        leaves = [t.requires_grad_(i == index) for i, t in enumerate(t.detach() for t in case.leaves())]
        results = case.run(leaves, backend="torch")
        loss = sum((r * u).sum() for r, u in zip(results, case.upstream, strict=True))
        same(list(torch.autograd.grad(loss, leaves[index])), [expected[len(results) + index]])
        assert all(torch.equal(a, b) for a, b in zip(leaves, case.leaves(), strict=True))


@EVERY
def test_outputs_may_be_changed_in_place(cell: str) -> None:
    """The output is the caller's: neither the final state nor any gradient notices what is done to it, as with eager."""
    case = Case(cell, 4, 2, 3)
    gained = {}
    for backend in ("eager", "torch"):
        leaves = case.leaves()
        output, *state = case.run(leaves, backend=backend)
        output *= case.upstream[0]
        loss = output.pow(2).sum() + sum((s * u).sum() for s, u in zip(state, case.upstream[1:], strict=True))
        gained[backend] = [output, *state, *torch.autograd.grad(loss, leaves)]
    same(gained["torch"], gained["eager"])


@EVERY
def test_strided_arguments(cell: str) -> None:
    """Views (a batch-first input, a column-major weight, a slice of states) give what their copies give."""
    case = Case(cell, 4, 3, 5)
    expected = case.all(backend="eager")
    case.input = case.input.transpose(0, 1).contiguous().transpose(0, 1)
    case.state = [torch.stack([s, s], dim=1)[:, 0] for s in case.state]
    case.weights = [w.T.contiguous().T if w.dim() == 2 else w for w in case.weights]
    assert not case.input.is_contiguous() and not case.state[0].is_contiguous() and not case.weights[1].is_contiguous()
    leaves = [t.detach().requires_grad_() for t in (case.input, *case.state, *case.weights)]
    results = case.run(leaves, backend="torch")
    loss = sum((r * u).sum() for r, u in zip(results, case.upstream, strict=True))
    same([*(r.detach() for r in results), *torch.autograd.grad(loss, leaves)], expected)


@BOTH
@EVERY
def test_without_gradients(cell: str, backend: str) -> None:
    """Under no_grad the numbers are the same and nothing is recorded."""
    case = Case(cell, 4, 2, 3)
    expected = [r.detach() for r in case.run(case.leaves(), backend="eager")]
    with torch.no_grad():
        results = case.run(case.leaves(), backend=backend)
    assert not any(r.requires_grad for r in results)
    same(results, expected)


# Row 0 is reset before the first step and in the middle, row 1 twice in a row and before the last step, row 2 never.
RESET = torch.tensor([[1, 0, 0], [0, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0]], dtype=torch.bool)


@BOTH
@EVERY
def test_reset_is_running_the_pieces(cell: str, backend: str) -> None:
    """Outputs, final states and all gradients are those of separate runs from zero state, row by row."""
    case = Case(cell, *RESET.shape, 4)
    leaves = case.leaves()
    results = pieces(case, leaves, RESET)
    loss = sum((r * u).sum() for r, u in zip(results, case.upstream, strict=True))
    expected = [*(r.detach() for r in results), *torch.autograd.grad(loss, leaves)]
    same(case.all(backend=backend, reset=RESET), expected)


@BOTH
@EVERY
def test_no_gradient_crosses_a_reset(cell: str, backend: str) -> None:
    """What comes after a reset has exactly zero gradient for what came before, and other rows keep theirs."""
    case = Case(cell, *RESET.shape, 4)
    if cell == "rnn-relu":  # units that are never off, so that a zero gradient can only be the reset's
        case.input, case.state, case.weights = case.input.abs(), [s.abs() for s in case.state], [w.abs() for w in case.weights]
    leaves = case.leaves()
    output = case.run(leaves, backend=backend, reset=RESET)[0]
    d_input, *d_state = torch.autograd.grad(output[4].sum(), leaves[: 1 + len(case.state)])
    assert all(not d[:2].any() and d[2].any() for d in d_state)  # the final row alone reaches the first state
    reached = d_input.abs().sum(dim=2) > 0
    assert reached.T.tolist() == [
        [False, False, False, True, True, False],
        [False, False, False, True, True, False],
        [True, True, True, True, True, False],
    ]


@BOTH
@EVERY
def test_reset_everywhere_and_nowhere(cell: str, backend: str) -> None:
    """All False changes nothing; all True makes every step a first step from zero."""
    case = Case(cell, 4, 2, 3)
    nowhere = torch.zeros(4, 2, dtype=torch.bool)
    same(case.all(backend=backend, reset=nowhere), case.all(backend="eager"))
    leaves = case.leaves()
    output, *final = case.run(leaves, backend=backend, reset=~nowhere)
    states = len(case.state)
    zero = tuple(torch.zeros_like(s) for s in case.state)
    alone = [recurrence(cell, leaves[0][t : t + 1], zero, *leaves[1 + states :], backend="eager") for t in range(4)]
    same([output, *final], [torch.cat([o for o, _ in alone]), *alone[-1][1]])


@given(data=st.data(), cell=st.sampled_from(NAMES), steps=st.integers(1, 6), batch=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_backends_agree_for_any_reset(data: st.DataObject, cell: str, steps: int, batch: int) -> None:
    """Any mask: the run that stops at resets gives what the step-by-step one gives, gradients too."""
    flags = data.draw(st.lists(st.booleans(), min_size=steps * batch, max_size=steps * batch))
    reset = torch.tensor(flags).view(steps, batch)
    case = Case(cell, steps, batch, 2, features=2)
    same(case.all(backend="torch", reset=reset), case.all(backend="eager", reset=reset))


@given(cell=st.sampled_from(NAMES), cut=st.integers(1, 7), backend=st.sampled_from(["eager", "torch"]))
@settings(max_examples=40, deadline=None)
def test_a_sequence_may_be_cut_anywhere(cell: str, cut: int, backend: str) -> None:
    """Two calls, the second from the first one's state, are one call, gradients through the seam included."""
    case = Case(cell, 8, 2, 3)
    leaves, states = case.leaves(), len(case.state)
    first, state = recurrence(cell, leaves[0][:cut], tuple(leaves[1 : 1 + states]), *leaves[1 + states :], backend=backend)
    second, final = recurrence(cell, leaves[0][cut:], state, *leaves[1 + states :], backend=backend)
    results = [torch.cat([first, second]), *final]
    loss = sum((r * u).sum() for r, u in zip(results, case.upstream, strict=True))
    same([*(r.detach() for r in results), *torch.autograd.grad(loss, leaves)], case.all(backend="eager"))
