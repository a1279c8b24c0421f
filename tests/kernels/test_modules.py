"""RNN, LSTM and GRU as modules, against torch.nn in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recurrent_lm.kernels import GRU, LSTM, RNN, recurrence

KINDS: dict[str, tuple[Any, Any, dict[str, str]]] = {
    "rnn-tanh": (RNN, nn.RNN, {}),
    "rnn-relu": (RNN, nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (LSTM, nn.LSTM, {}),
    "gru": (GRU, nn.GRU, {}),
}
EVERY = pytest.mark.parametrize("kind", KINDS)
OURS = pytest.mark.parametrize("module", [RNN, LSTM, GRU])


def pair(kind: str, *sizes: int, seed: int = 0, backend: str = "torch", **options: Any) -> tuple[Any, Any]:
    """Our module and torch's, each made from the same seed."""
    ours, theirs, more = KINDS[kind]
    options = {"dtype": torch.float64, **more, **options}
    torch.manual_seed(seed)
    mine = ours(*sizes, **options, backend=backend)
    torch.manual_seed(seed)
    return mine, theirs(*sizes, **options)


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def flat(result: Any) -> list[Tensor]:
    """(output, hx) as a list of tensors."""
    output, hx = result
    return [output, *(hx if isinstance(hx, tuple) else (hx,))]


def everything(module: Any, input: Tensor, hx: list[Tensor] | None) -> list[Tensor]:
    """Outputs, final states, and the gradients of input, hx and parameters."""
    leaves = [t.clone().requires_grad_() for t in (input, *(hx or []))]
    states = None if hx is None else leaves[1] if len(leaves) == 2 else tuple(leaves[1:])
    results = flat(module(leaves[0], states))
    loss = sum((r * draw(*r.shape, seed=9 + i)).sum() for i, r in enumerate(results))
    return [*(r.detach() for r in results), *torch.autograd.grad(loss, [*leaves, *module.parameters()])]


def same(actual: list[Tensor], expected: list[Tensor]) -> None:
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-11, atol=1e-12)


@EVERY
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
def test_same_seed_same_weights(kind: str, bias: bool) -> None:
    """Initial weights are torch.nn's, bit for bit, under the same names in the same order."""
    mine, theirs = pair(kind, 5, 4, 3, bias=bias, dtype=torch.float32)
    a, b = mine.state_dict(), theirs.state_dict()
    assert list(a) == list(b)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert max(float(v.abs().max()) for v in a.values()) <= 0.5  # 1 / sqrt(4)


@EVERY
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
def test_state_dict_both_ways(kind: str, bias: bool) -> None:
    """Checkpoints move strictly from ours to torch.nn and back, and then the modules agree."""
    mine, theirs = pair(kind, 5, 4, 2, bias=bias)
    other, _ = pair(kind, 5, 4, 2, bias=bias, seed=5)
    assert not torch.equal(other.weight_hh_l1, mine.weight_hh_l1)
    theirs.load_state_dict(other.state_dict(), strict=True)
    mine.load_state_dict(theirs.state_dict(), strict=True)
    x = draw(3, 2, 5)
    assert all(torch.equal(p, q) for p, q in zip(mine.parameters(), other.parameters(), strict=True))
    same(everything(mine, x, None), everything(theirs, x, None))


@pytest.mark.parametrize("given", [True, False], ids=["hx", "zero"])
@pytest.mark.parametrize("batch_first", [True, False], ids=["batch-first", "time-first"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@EVERY
def test_agrees_with_torch(kind: str, layers: int, bias: bool, batch_first: bool, given: bool) -> None:
    """Outputs, states and gradients of a batch, then of one unbatched row, to float64 rounding."""
    mine, theirs = pair(kind, 5, 4, layers, bias=bias, batch_first=batch_first)
    states = 2 if kind == "lstm" else 1
    hx = [draw(layers, 3, 4, seed=2 + i) for i in range(states)] if given else None
    x = draw(3, 7, 5) if batch_first else draw(7, 3, 5)
    same(everything(mine, x, hx), everything(theirs, x, hx))
    row, hx_row = draw(7, 5), None if hx is None else [h[:, 0] for h in hx]
    expected = everything(theirs, row, hx_row)
    assert expected[0].shape == (7, 4) and expected[1].shape == (layers, 4)
    same(everything(mine, row, hx_row), expected)


@EVERY
def test_eager_backend_agrees_with_torch(kind: str) -> None:
    """The eager twin is the same module."""
    mine, theirs = pair(kind, 5, 4, 2, backend="eager", batch_first=True)
    x = draw(3, 6, 5)
    same(everything(mine, x, None), everything(theirs, x, None))


@pytest.mark.parametrize("nonlinearity", ["sigmoid", "identity"])
@pytest.mark.parametrize("backend", ["eager", "torch"])
def test_other_nonlinearities(nonlinearity: str, backend: str) -> None:
    """sigmoid and identity, which torch.nn does not have, against the equation written out."""
    rnn = RNN(3, 2, nonlinearity=nonlinearity, dtype=torch.float64, backend=backend)
    x, h = draw(4, 2, 3), torch.zeros(2, 2, dtype=torch.float64)
    output, final = rnn(x)
    for t in range(4):
        h = x[t] @ rnn.weight_ih_l0.T + rnn.bias_ih_l0 + h @ rnn.weight_hh_l0.T + rnn.bias_hh_l0
        h = 1 / (1 + (-h).exp()) if nonlinearity == "sigmoid" else h
        torch.testing.assert_close(output[t], h, rtol=1e-12, atol=1e-13)
    assert torch.equal(final[0], output[-1])
    assert rnn.nonlinearity == nonlinearity


def test_nonlinearity_is_the_fourth_argument() -> None:
    """Positional arguments in torch.nn's order: RNN has its nonlinearity fourth, the others go straight on to bias."""
    assert RNN(3, 4, 2, "relu", False, True).cell == "rnn-relu"
    for module in (RNN(3, 4, 2, "relu", False, True), LSTM(3, 4, 2, False, True), GRU(3, 4, 2, False, True)):
        assert (module.input_size, module.hidden_size, module.num_layers) == (3, 4, 2)
        assert not hasattr(module, "bias_ih_l0") and module.batch_first
    with pytest.raises(ValueError, match="nonlinearity must be tanh, relu, sigmoid or identity, not 'elu'"):
        RNN(3, 4, nonlinearity="elu")


def test_repr_is_that_of_torch_and_shows_what_is_ours() -> None:
    """What a printed model shows."""
    assert repr(LSTM(3, 4, 2)) == repr(nn.LSTM(3, 4, 2)) == "LSTM(3, 4, num_layers=2)"
    options: dict[str, Any] = {"bias": False, "batch_first": True, "dropout": 0.5}
    assert repr(GRU(3, 4, 2, **options)) == repr(nn.GRU(3, 4, 2, **options))
    assert repr(RNN(3, 4, nonlinearity="relu", backend="eager")) == "RNN(3, 4, nonlinearity=relu, backend=eager)"


@EVERY
def test_full_dropout_zeroes_what_layers_give_each_other(kind: str) -> None:
    """With dropout 1 the inputs of layers 2 and 3 are zero; the input, the outputs and the states are untouched."""
    mine, _ = pair(kind, 5, 4, 3, dropout=1.0)
    x = draw(6, 2, 5)
    output, hx = mine.train()(x)
    finals = hx if isinstance(hx, tuple) else (hx,)
    for layer in range(3):
        weights = [getattr(mine, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        layer_input = x if layer == 0 else torch.zeros(6, 2, 4, dtype=torch.float64)
        zero = tuple(torch.zeros(2, 4, dtype=torch.float64) for _ in finals)
        expected, state = recurrence(mine.cell, layer_input, zero, *weights, backend="eager")
        same([f[layer] for f in finals], list(state))
    same([output], [expected])
    assert output.abs().max() > 1e-3 and finals[0][0].abs().max() > 1e-3


@EVERY
def test_full_dropout_stops_gradients_below(kind: str) -> None:
    """Nothing of the last layer's outputs reaches the first layer through a dropout of 1."""
    mine, _ = pair(kind, 5, 16, 2, dropout=1.0)
    mine.train()(draw(6, 2, 5))[0].sum().backward()
    assert not mine.weight_ih_l0.grad.any() and not mine.weight_ih_l1.grad.any()
    assert mine.bias_ih_l1.grad.any()


def test_dropout_keeps_or_doubles() -> None:
    """At one half, each number between the layers is either zero or doubled: a second layer that copies shows it."""
    torch.manual_seed(3)
    rnn = RNN(5, 8, 2, nonlinearity="identity", bias=False, dropout=0.5, dtype=torch.float64)
    with torch.no_grad():
        rnn.weight_ih_l1.copy_(torch.eye(8))
        rnn.weight_hh_l1.zero_()
    x = draw(30, 4, 5)
    below = rnn.eval()(x)[0]
    ratio = rnn.train()(x)[0] / below
    kept = (ratio - 2).abs() < 1e-12
    assert (kept | (ratio == 0)).all()
    assert 0.4 < float(kept.double().mean()) < 0.6  # 960 coins: six standard deviations
    assert not torch.equal(rnn(x)[0], rnn(x)[0])  # a new mask at each call


@EVERY
def test_no_dropout_in_eval_or_in_one_layer(kind: str) -> None:
    """eval() gives torch.nn's numbers; a single layer has nothing between layers, even in training."""
    mine, theirs = pair(kind, 5, 4, 3, dropout=0.7)
    x = draw(6, 2, 5)
    same(everything(mine.eval(), x, None), everything(theirs.eval(), x, None))
    single, plain = pair(kind, 5, 4, 1)[1], KINDS[kind]
    with pytest.warns(UserWarning, match="dropout=1.0 does nothing in one layer"):
        one = plain[0](5, 4, 1, dropout=1.0, dtype=torch.float64, backend="torch", **plain[2]).train()
    one.load_state_dict(single.state_dict())
    same(everything(one, x, None), everything(single, x, None))


@pytest.mark.parametrize("backend", ["eager", "torch"])
@EVERY
def test_reset_starts_every_layer_again(kind: str, backend: str) -> None:
    """A reset before step 3 of row 1 makes that row two runs; row 0 and all shapes of the mask follow suit."""
    mine, theirs = pair(kind, 5, 4, 2, backend=backend)
    x = draw(6, 2, 5)
    reset = torch.zeros(6, 2, dtype=torch.bool)
    reset[3, 1] = True
    output, hx = mine(x, reset=reset)
    whole, early, late = theirs(x), theirs(x[:3]), theirs(x[3:])
    same([output[:, 0], output[:3, 1], output[3:, 1]], [whole[0][:, 0], early[0][:, 1], late[0][:, 1]])
    for h, w, z in zip(flat((output, hx))[1:], flat(whole)[1:], flat(late)[1:], strict=True):
        same([h[:, 0], h[:, 1]], [w[:, 0], z[:, 1]])
    mine.batch_first = True
    turned, hx_turned = mine(x.transpose(0, 1), reset=reset.T)
    same([turned.transpose(0, 1), *flat((output, hx_turned))[1:]], flat((output, hx)))
    single, hx_single = mine(x[:, 1], reset=reset[:, 1])
    same([single, *flat((single, hx_single))[1:]], [output[:, 1], *(h[:, 1] for h in flat((output, hx))[1:])])


@OURS
def test_what_is_not_supported(module: Any) -> None:
    """Options of torch.nn that this room leaves out are refused in words."""
    with pytest.raises(NotImplementedError, match="bidirectional"):
        module(3, 4, bidirectional=True)
    with pytest.raises(NotImplementedError if module is LSTM else ValueError, match="proj_size"):  # as torch.nn has it
        module(3, 4, proj_size=2)
    packed = nn.utils.rnn.pack_padded_sequence(torch.zeros(5, 2, 3), torch.tensor([5, 4]))
    with pytest.raises(NotImplementedError, match="packed"):
        module(3, 4)(packed)


@OURS
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": 0}, "input_size must be at least 1, not 0"),
        ({"hidden_size": -1}, "hidden_size must be at least 1, not -1"),
        ({"num_layers": 0}, "num_layers must be at least 1, not 0"),
        ({"dropout": 1.5}, "dropout must be a probability between 0 and 1, not 1.5"),
        ({"dropout": -0.1}, "dropout must be a probability between 0 and 1, not -0.1"),
    ],
    ids=str,
)
def test_wrong_options(module: Any, options: dict[str, Any], message: str) -> None:
    """Constructor arguments out of range."""
    with pytest.raises(ValueError) as caught:
        module(**({"input_size": 3, "hidden_size": 4} | options))
    assert str(caught.value) == message


@OURS
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3,), "input must be [T, B, I] or [T, I], not [3]"),
        ((5, 2, 1, 3), "input must be [T, B, I] or [T, I], not [5, 2, 1, 3]"),
        ((5, 2, 4), "input must have 3 features, not [5, 2, 4]"),
        ((5, 2), "input must have 3 features, not [5, 2]"),
        ((0, 2, 3), "input must have at least one time step, not be [0, 2, 3]"),
    ],
    ids=str,
)
def test_wrong_inputs(module: Any, shape: tuple[int, ...], message: str) -> None:
    """Ranks and features that do not fit are named before anything runs, by an exception of torch.nn's class."""
    with pytest.raises(Exception) as theirs:
        getattr(nn, module.__name__)(3, 4)(torch.zeros(shape))
    with pytest.raises(theirs.type) as caught:
        module(3, 4)(torch.zeros(shape))
    assert str(caught.value) == message


@OURS
@pytest.mark.parametrize("shape", [(1, 2, 4), (2, 1, 4), (2, 2, 3), (2, 4), (4, 2, 2)], ids=str)
@pytest.mark.parametrize("batch_first", [True, False], ids=["batch-first", "time-first"])
def test_wrong_states(module: Any, shape: tuple[int, ...], batch_first: bool) -> None:
    """hx is [layers, B, H] whatever batch_first says; both states of the LSTM are checked."""
    made, wrong, right = module(3, 4, 2, batch_first=batch_first), torch.zeros(shape), torch.zeros(2, 2, 4)
    x = torch.zeros(2, 5, 3) if batch_first else torch.zeros(5, 2, 3)
    made(x, (right, right) if module is LSTM else right)
    with pytest.raises(RuntimeError) as caught:
        made(x, (wrong, right) if module is LSTM else wrong)
    assert str(caught.value) == f"h_0 must be [2, 2, 4], not {list(shape)}"
    if module is LSTM:
        with pytest.raises(RuntimeError) as caught:
            made(x, (right, wrong))
        assert str(caught.value) == f"c_0 must be [2, 2, 4], not {list(shape)}"
        with pytest.raises(RuntimeError, match=r"hx must be a pair \(h_0, c_0\), not 1 of them"):
            made(x, (right,))


@OURS
@pytest.mark.parametrize("shape", [(2, 1, 4), (1, 4), (4,)], ids=str)
def test_wrong_states_of_one_row(module: Any, shape: tuple[int, ...]) -> None:
    """Without a batch hx is [layers, H]; a batched one is an error that names it."""
    wrong = torch.zeros(shape)
    with pytest.raises(RuntimeError, match=r"^h_0 must be"):
        module(3, 4, 2)(torch.zeros(5, 3), (wrong, wrong) if module is LSTM else wrong)


@OURS
@pytest.mark.parametrize("shape", [(2, 5), (5,), (5, 2, 1)], ids=str)
@pytest.mark.parametrize("batch_first", [True, False], ids=["batch-first", "time-first"])
def test_wrong_resets(module: Any, shape: tuple[int, ...], batch_first: bool) -> None:
    """A mask of another shape is a ValueError that names it, on both layouts."""
    shape = shape[::-1] if batch_first and len(shape) == 2 else shape
    x = torch.zeros(2, 5, 3) if batch_first else torch.zeros(5, 2, 3)
    with pytest.raises(ValueError, match=r"^reset must "):
        module(3, 4, batch_first=batch_first)(x, reset=torch.zeros(shape, dtype=torch.bool))


@pytest.mark.parametrize(("kind", "words"), [(GRU, "a tensor, not tuple"), (LSTM, r"a pair .*, not Tensor")])
def test_a_state_of_the_other_kind_is_named(kind, words):
    zero = torch.zeros(1, 2, 4)
    with pytest.raises(RuntimeError, match=words):
        kind(3, 4)(torch.zeros(5, 2, 3), (zero, zero) if kind is GRU else zero)
