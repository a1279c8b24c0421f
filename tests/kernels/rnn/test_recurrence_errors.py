"""One layer over a sequence: arguments that do not fit are refused, and in which words."""

from typing import Any

import pytest
import torch

from recurrent_lm.kernels import CELLS, GRU, recurrence

BOTH = pytest.mark.parametrize("backend", ["eager", "torch"])


def arguments(cell: str = "gru") -> dict[str, Any]:
    """Arguments that fit: T = 5, B = 2, I = 3, H = 4."""
    packed = 4 * CELLS[cell].gates
    return {
        "cell": cell,
        "input": torch.zeros(5, 2, 3),
        "state": tuple(torch.zeros(2, 4) for _ in range(CELLS[cell].states)),
        "weight_ih": torch.zeros(packed, 3),
        "weight_hh": torch.zeros(packed, 4),
        "bias_ih": torch.zeros(packed),
        "bias_hh": torch.zeros(packed),
        "reset": torch.zeros(5, 2, dtype=torch.bool),
    }


def refused(message: str, backend: str, **changed: Any) -> None:
    """A ValueError with exactly this sentence; the unchanged arguments run."""
    good = arguments(changed.get("cell", "gru") if changed.get("cell") in CELLS else "gru")
    recurrence(**good, backend=backend)
    with pytest.raises(ValueError) as caught:
        recurrence(**(good | changed), backend=backend)
    assert str(caught.value) == message


@BOTH
@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("weight_ih", (12, 4), (12, 3)),  # another number of features
        ("weight_ih", (8, 3), (12, 3)),  # another number of gates
        ("weight_ih", (12,), (12, 3)),
        ("weight_hh", (16, 4), (12, 4)),  # an LSTM's weights in a GRU
        ("weight_hh", (4, 12), (36, 12)),  # transposed
        ("bias_ih", (4,), (12,)),
        ("bias_ih", (12, 1), (12,)),
        ("bias_hh", (16,), (12,)),
        ("reset", (2, 5), (5, 2)),
        ("reset", (5,), (5, 2)),
        ("state[0]", (1, 4), (2, 4)),
        ("state[0]", (2, 3), (2, 4)),
        ("state[0]", (1, 2, 4), (2, 4)),
    ],
    ids=str,
)
def test_wrong_shapes(name: str, shape: tuple[int, ...], expected: tuple[int, ...], backend: str) -> None:
    """The sentence names the argument, the expected shape and the given one."""
    value: Any = torch.zeros(shape, dtype=torch.bool if name == "reset" else None)
    changed = {"state": (value,)} if name == "state[0]" else {name: value}
    if (name, shape) == ("weight_hh", (4, 12)):  # H is read off weight_hh, so weight_ih is the first that does not fit
        name, shape, expected = "weight_ih", (12, 3), (36, 3)
    refused(f"{name} must be {list(expected)}, not {list(shape)}", backend, **changed)


@BOTH
def test_wrong_cell_state_of_the_lstm(backend: str) -> None:
    """The second state is checked as the first."""
    state = (torch.zeros(2, 4), torch.zeros(3, 4))
    refused("state[1] must be [2, 4], not [3, 4]", backend, cell="lstm", state=state)


@BOTH
@pytest.mark.parametrize(("cell", "count", "expected"), [("lstm", 1, 2), ("lstm", 3, 2), ("gru", 2, 1), ("rnn-tanh", 0, 1)])
def test_wrong_number_of_states(cell: str, count: int, expected: int, backend: str) -> None:
    """(h,) for most cells, (h, c) for the LSTM."""
    state = (torch.zeros(2, 4),) * count
    refused(f"state of {cell} must hold {expected} tensors, not {count}", backend, cell=cell, state=state)


@BOTH
@pytest.mark.parametrize("shape", [(0, 2, 3), (5, 3), (5, 2, 3, 1)], ids=str)
def test_empty_sequences_and_wrong_ranks(shape: tuple[int, ...], backend: str) -> None:
    """There is no state after no steps."""
    refused(f"input must be [T, B, I] with T >= 1, not {list(shape)}", backend, input=torch.zeros(shape))


@BOTH
@pytest.mark.parametrize("shape", [(), (4,), (12, 4, 1)], ids=str)
def test_weights_of_the_wrong_rank(shape: tuple[int, ...], backend: str) -> None:
    """H is read off weight_hh, so that is the one to name."""
    refused(f"weight_hh must be [3 * H, H], not {list(shape)}", backend, weight_hh=torch.zeros(shape))


@BOTH
def test_integers(backend: str) -> None:
    """Token ids that nobody embedded."""
    refused("input must hold floating point numbers, not torch.int64", backend, input=torch.zeros(5, 2, 3, dtype=torch.int64))


@pytest.mark.parametrize(
    "clip", ["norm", ("norm", "1"), ("size", 1.0), ("value", 0), ("norm", float("nan")), ("norm",), 1.0], ids=str
)
def test_wrong_clipping(clip: Any) -> None:
    """A function refuses it before it runs, a module where it is made."""
    message = f'clip_recurrent must be ("value", c) or ("norm", c) with c > 0, not {clip!r}'
    refused(message, "eager", clip_recurrent=clip)
    with pytest.raises(ValueError) as caught:
        GRU(3, 4, clip_recurrent=clip)
    assert str(caught.value) == message


@BOTH
def test_unknown_cell(backend: str) -> None:
    """The sentence lists the cells there are."""
    expected = "cell must be one of rnn-tanh, rnn-relu, rnn-sigmoid, rnn-identity, lstm, gru, mingru, not 'elman'"
    refused(expected, backend, cell="elman")


@BOTH
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_reset_must_be_bool(dtype: torch.dtype, backend: str) -> None:
    """A mask of numbers would be inverted bit by bit; it is refused."""
    refused(f"reset must be bool, not {dtype}", backend, reset=torch.zeros(5, 2, dtype=dtype))


def test_unknown_backend() -> None:
    """The backend's name is checked for every cell."""
    for cell in CELLS:
        with pytest.raises(ValueError, match="backend must be one of auto, eager, torch, triton, not 'cudnn'"):
            recurrence(**arguments(cell), backend="cudnn")


def test_a_step_too_large_for_32_bits() -> None:
    """2^31 numbers, d of an LSTM, are refused before anything runs, and one row fewer are not; the open choice avoids them."""
    from recurrent_lm.kernels.rnn.ops import better_than_library, too_large

    rows, zero = 2**21, torch.zeros(())
    state = (zero.expand(rows, 256), zero.expand(rows, 256))
    input, weight_ih, weight_hh = (zero.expand(size) for size in ((1, rows, 3), (1024, 3), (1024, 256)))
    with pytest.raises(ValueError, match="a step of 2,097,152 rows and 256 lstm units is too large for the triton backend"):
        recurrence("lstm", input, state, weight_ih, weight_hh, backend="triton")
    assert not better_than_library("lstm", input, weight_hh, training=True)
    assert not too_large("lstm", input[:, 1:], weight_hh)
    assert not too_large("rnn-tanh", input, weight_hh)
