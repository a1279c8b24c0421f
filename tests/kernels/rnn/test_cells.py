"""One step of every cell against scalar formulas worked out by hand, in float64."""

from math import exp, log, tanh

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from recurrent_lm.kernels.rnn.cells import CELLS, State, step

NAMES = sorted(CELLS)
numbers = st.floats(-4, 4, allow_nan=False, width=32)


def vector(*values: float) -> Tensor:
    """One row [1, n] of float64."""
    return torch.tensor([values], dtype=torch.float64)


def close(actual: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(actual, vector(*expected), rtol=1e-14, atol=1e-15)


def sigmoid(a: float) -> float:
    return 1 / (1 + exp(-a))


def random_arguments(cell: str, batch: int, hidden: int, seed: int = 0) -> tuple[Tensor, State, Tensor, Tensor]:
    """z, state, weight_hh and bias_hh, all float64."""
    generator = torch.Generator().manual_seed(seed)
    packed = CELLS[cell].gates * hidden

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    state = tuple(draw(batch, hidden) for _ in range(CELLS[cell].states))
    return draw(batch, packed), state, draw(packed, hidden), draw(packed)


def test_table() -> None:
    """Names, numbers of gates and numbers of state tensors of the six cells."""
    table = {name: (cell.name, cell.gates, cell.states) for name, cell in CELLS.items()}
    elman = {f"rnn-{s}": (f"rnn-{s}", 1, 1) for s in ("tanh", "relu", "sigmoid", "identity")}
    assert table == elman | {"lstm": ("lstm", 4, 2), "gru": ("gru", 3, 1)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rnn-tanh", [tanh(0.55), tanh(-0.94)]),
        ("rnn-relu", [0.55, 0.0]),
        ("rnn-sigmoid", [sigmoid(0.55), sigmoid(-0.94)]),
        ("rnn-identity", [0.55, -0.94]),
    ],
)
def test_elman_two_units(name: str, expected: list[float]) -> None:
    """Row k of weight_hh feeds unit k: its pre-activations are 0.55 and -0.94 (transposed they would be 0.29, -1.045)."""
    weight = torch.tensor([[0.5, -0.25], [0.1, 0.7]], dtype=torch.float64)
    bias = torch.tensor([0.05, -0.15], dtype=torch.float64)
    # 0.2 + 0.3 * 0.5 + 0.6 * 0.25 + 0.05 = 0.55 and -0.4 + 0.3 * 0.1 - 0.6 * 0.7 - 0.15 = -0.94
    (h,) = step(name, vector(0.2, -0.4), (vector(0.3, -0.6),), weight, bias)
    close(h, expected)


def test_elman_without_bias() -> None:
    """Without bias_hh nothing is added: 0.2 + 0.3 * 0.5 = 0.35."""
    (h,) = step("rnn-identity", vector(0.2), (vector(0.3),), vector(0.5))
    close(h, [0.35])


def test_lstm_one_unit_exact() -> None:
    """Gates of exactly 3/4, 1/4, 3/5 and 1/2 give c' = 1/4 * 2 + 3/4 * 3/5 = 0.95."""
    w, b = [0.3, -0.2, 0.7, 0.1], [0.01, 0.02, -0.03, 0.04]
    h = -0.5
    gates = [log(3), -log(3), log(2), 0.0]  # sigmoid(ln 3) = 3/4, tanh(ln 2) = 3/5
    z = [a - h * w_ - b_ for a, w_, b_ in zip(gates, w, b, strict=True)]
    h1, c1 = step("lstm", vector(*z), (vector(h), vector(2.0)), vector(*w).T, vector(*b)[0])
    close(c1, [0.95])
    close(h1, [0.5 * tanh(0.95)])


def test_gru_one_unit_exact() -> None:
    """r = 3/4 scales the whole a_n = h w_n + b_n = 1.6, so that n = 3/5 and h' = 3/4 * 3/5 + 1/4 * 2 = 0.95."""
    h, w, b = 2.0, [0.3, -0.2, 0.5], [0.01, 0.02, 0.6]
    z = [log(3) - h * w[0] - b[0], -log(3) - h * w[1] - b[1], log(2) - 0.75 * 1.6]
    (h1,) = step("gru", vector(*z), (vector(h),), vector(*w).T, vector(*b)[0])
    close(h1, [0.95])


def test_lstm_two_units() -> None:
    """Gates i f g o lie side by side, two units each; rows of weight_hh in the same order."""
    z, (h, c), weight, bias = random_arguments("lstm", 1, 2)
    a = [float(z[0, k]) + sum(float(weight[k, j] * h[0, j]) for j in range(2)) + float(bias[k]) for k in range(8)]
    cs = [sigmoid(a[2 + k]) * float(c[0, k]) + sigmoid(a[k]) * tanh(a[4 + k]) for k in range(2)]
    h1, c1 = step("lstm", z, (h, c), weight, bias)
    close(c1, cs)
    close(h1, [sigmoid(a[6 + k]) * tanh(cs[k]) for k in range(2)])


def test_gru_two_units() -> None:
    """Gates r u n lie side by side; bias_hh of the candidate is inside the reset gate's product."""
    z, (h,), weight, bias = random_arguments("gru", 1, 2)
    a = [sum(float(weight[k, j] * h[0, j]) for j in range(2)) + float(bias[k]) for k in range(6)]
    expected = []
    for k in range(2):
        r, u = sigmoid(float(z[0, k]) + a[k]), sigmoid(float(z[0, 2 + k]) + a[2 + k])
        n = tanh(float(z[0, 4 + k]) + r * a[4 + k])
        expected.append((1 - u) * n + u * float(h[0, k]))
    (h1,) = step("gru", z, (h,), weight, bias)
    close(h1, expected)


@pytest.mark.parametrize(
    ("name", "module"), [("rnn-tanh", nn.RNNCell), ("lstm", nn.LSTMCell), ("gru", nn.GRUCell)], ids=["rnn", "lstm", "gru"]
)
def test_agrees_with_torch_cells(name: str, module: type[nn.RNNCellBase]) -> None:
    """The step is that of torch.nn's cell once z = x W_e + b_ih is given to it."""
    torch.manual_seed(1)
    reference = module(3, 4, dtype=torch.float64)
    x, (_, state, _, _) = torch.randn(5, 3, dtype=torch.float64), random_arguments(name, 5, 4)
    expected = reference(x, state if len(state) > 1 else state[0])
    z = nn.functional.linear(x, reference.weight_ih, reference.bias_ih)
    actual = step(name, z, state, reference.weight_hh, reference.bias_hh)
    for a, e in zip(actual, expected if len(state) > 1 else (expected,), strict=True):
        torch.testing.assert_close(a, e, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_independent(name: str) -> None:
    """A batch of three gives what its rows give alone."""
    z, state, weight, bias = random_arguments(name, 3, 4)
    together = step(name, z, state, weight, bias)
    for row in range(3):
        here = slice(row, row + 1)
        alone = step(name, z[here], tuple(s[here] for s in state), weight, bias)
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[here], b, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name: str, bias: bool) -> None:
    """Autograd's gradients of a step are those of finite differences, for every argument and every state."""
    z, state, weight, bias_hh = random_arguments(name, 2, 3, seed=2)
    if name == "rnn-relu":  # the finite difference must not straddle the kink
        assert (z + state[0] @ weight.T + bias * bias_hh).abs().min() > 1e-3
    inputs = [t.requires_grad_() for t in (z, weight, *state, *([bias_hh] if bias else []))]

    def run(z: Tensor, weight: Tensor, *rest: Tensor) -> State:
        states = CELLS[name].states
        return step(name, z, rest[:states], weight, rest[states] if bias else None)

    assert torch.autograd.gradcheck(run, inputs)


@given(z=numbers, h=numbers, w=numbers, factor=numbers)
@settings(max_examples=30, deadline=None)
def test_identity_is_linear(z: float, h: float, w: float, factor: float) -> None:
    """rnn-identity: z + w h, and scaling z and h scales the step."""
    weight = vector(w)
    (one,) = step("rnn-identity", vector(z), (vector(h),), weight)
    (scaled,) = step("rnn-identity", vector(factor * z), (vector(factor * h),), weight)
    close(one, [z + w * h])
    torch.testing.assert_close(scaled, factor * one, rtol=1e-12, atol=1e-12)


@given(z=st.lists(numbers, min_size=3, max_size=3), h=numbers, w=st.lists(numbers, min_size=3, max_size=3))
@settings(max_examples=30, deadline=None)
def test_gru_lies_between_state_and_candidate(z: list[float], h: float, w: list[float]) -> None:
    """The new state is a weighted mean: never further out than the old state and the candidate."""
    (h1,) = step("gru", vector(*z), (vector(h),), vector(*w).T)
    n = tanh(z[2] + sigmoid(z[0] + w[0] * h) * w[2] * h)
    assert min(h, n) - 1e-12 <= float(h1) <= max(h, n) + 1e-12


@given(h=numbers, c=numbers, g=numbers, o=numbers)
@settings(max_examples=30, deadline=None)
def test_lstm_remembers_with_open_forget_gate(h: float, c: float, g: float, o: float) -> None:
    """i = 0 and f = 1 keep the cell's content for ever, whatever arrives: c' = c."""
    h1, c1 = step("lstm", vector(-1000.0, 1000.0, g, o), (vector(h), vector(c)), torch.zeros(4, 1, dtype=torch.float64))
    close(c1, [c])
    close(h1, [sigmoid(o) * tanh(c)])
