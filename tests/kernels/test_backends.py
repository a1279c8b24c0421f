"""Which backend runs: argument, then KERNELS_BACKEND, then torch; and what the front door shows."""

import subprocess
import sys
from typing import Any

import pytest
import torch

from recurrent_lm import kernels
from recurrent_lm.kernels import BACKENDS, GRU, LSTM, RNN, choose_backend, linear_cross_entropy, recurrence

# `kernels.recurrence` and `kernels.linear_cross_entropy` are functions; their files are found by name.
RECURRENCE = sys.modules["recurrent_lm.kernels.rnn.recurrence"]
HOST = sys.modules["recurrent_lm.kernels.rnn.host"]
CROSS_ENTROPY = sys.modules["recurrent_lm.kernels.loss.linear_cross_entropy"]


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KERNELS_BACKEND", raising=False)


def forbid(monkeypatch: pytest.MonkeyPatch, module: Any, *names: str) -> None:
    """Make implementations fail when they are called."""
    for name in names:

        def forbidden(*_: Any, _name: str = name, **__: Any) -> None:
            raise AssertionError(f"{_name} ran")

        monkeypatch.setattr(module, name, forbidden)


def one_layer(backend: str | None) -> torch.Tensor:
    output, _ = recurrence(
        "rnn-tanh", torch.ones(2, 1, 3), (torch.zeros(1, 2),), torch.ones(2, 3), torch.ones(2, 2), backend=backend
    )
    return output


def loss(backend: str | None) -> torch.Tensor:
    return linear_cross_entropy(torch.ones(2, 3), torch.ones(4, 3), torch.tensor([0, 1]), backend=backend)


def test_names() -> None:
    """The three backends, as users type them."""
    assert BACKENDS == ("eager", "torch", "triton")


@pytest.mark.parametrize("asked", [None, "", "auto"])
def test_default_is_torch(asked: str | None) -> None:
    """Nothing asked, nothing in the environment: torch."""
    assert choose_backend(asked) == "torch"
    assert choose_backend() == "torch"


@pytest.mark.parametrize("asked", [None, "", "auto"])
def test_variable_beats_default(asked: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open choice is made by the environment."""
    monkeypatch.setenv("KERNELS_BACKEND", "eager")
    assert choose_backend(asked) == "eager"


@pytest.mark.parametrize(("argument", "variable"), [("torch", "eager"), ("eager", "torch"), ("eager", "nonsense")])
def test_argument_beats_variable(argument: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name in the call wins, and the variable is then not even looked at."""
    monkeypatch.setenv("KERNELS_BACKEND", variable)
    assert choose_backend(argument) == argument


@pytest.mark.parametrize("open_choice", ["", "auto"])
def test_open_variable_means_default(open_choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable may leave the choice open in the same words as the argument."""
    monkeypatch.setenv("KERNELS_BACKEND", open_choice)
    assert choose_backend() == "torch"


@pytest.mark.parametrize("by", ["argument", "variable"])
@pytest.mark.parametrize("name", ["cuda", "Torch", "eager "])
def test_unknown_name_is_refused(name: str, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence lists what may be asked for and quotes what was."""
    if by == "variable":
        monkeypatch.setenv("KERNELS_BACKEND", name)
    with pytest.raises(ValueError, match=f"^backend must be one of auto, eager, torch, triton, not '{name}'$"):
        choose_backend(name if by == "argument" else None)


@pytest.mark.parametrize("by", ["argument", "variable"])
@pytest.mark.parametrize("device", [None, torch.device("cpu")])
def test_triton_is_refused_with_a_way_out(by: str, device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Triton cannot run the sentence says why and what to use instead."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    if by == "variable":
        monkeypatch.setenv("KERNELS_BACKEND", "triton")
    with pytest.raises(ValueError, match=r"'triton' cannot run (on cpu|without).*'torch' or 'eager'.*TRITON_INTERPRET=1"):
        choose_backend("triton" if by == "argument" else None, device)


@pytest.mark.parametrize(
    ("device", "interpret", "runs"), [("cuda", "0", True), ("cpu", "1", True), ("cpu", "0", False), (None, "1", False)]
)
def test_where_triton_runs(device: str | None, interpret: str, runs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA, in the interpreter anywhere, and never for a caller that holds no kernels."""
    monkeypatch.setenv("TRITON_INTERPRET", interpret)
    where = None if device is None else torch.device(device)
    if runs:
        assert choose_backend("triton", where) == "triton"
    else:
        with pytest.raises(ValueError, match="cannot run"):
            choose_backend("triton", where)


def test_a_layer_without_a_gpu_refuses_triton_when_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module may be made before it is moved to the GPU; called on the CPU it says so."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ValueError, match="'triton' cannot run on cpu tensors"):
        LSTM(2, 3, backend="triton")(torch.ones(4, 1, 2))


@pytest.mark.parametrize(
    "build", [lambda b: RNN(2, 3, backend=b), lambda b: LSTM(2, 3, backend=b), lambda b: GRU(2, 3, backend=b)]
)
def test_modules_refuse_at_construction(build: Any) -> None:
    """A wrong name is an error where the module is made, not at its first batch."""
    with pytest.raises(ValueError, match="backend"):
        build("nonsense")


@pytest.mark.parametrize("run", [one_layer, loss])
def test_functions_refuse(run: Any) -> None:
    """The functions check the name too."""
    with pytest.raises(ValueError, match="backend must be one of"):
        run("nonsense")


FAST = ("fused", "scan_forward")  # oneDNN's LSTM, and this project's scan for the other cells
OTHERS = pytest.mark.parametrize(("backend", "others"), [("eager", FAST), ("torch", ("unrolled",))])


@OTHERS
@pytest.mark.parametrize("by", ["argument", "variable"])
def test_recurrence_runs_what_was_asked(
    backend: str, others: tuple[str, ...], by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the asked implementation is called."""
    forbid(monkeypatch, HOST, *others)
    if by == "variable":
        monkeypatch.setenv("KERNELS_BACKEND", backend)
    assert one_layer(backend if by == "argument" else None).shape == (2, 1, 2)
    with pytest.raises(AssertionError, match=f"({'|'.join(others)}) ran"):
        one_layer("torch" if backend == "eager" else "eager")


@pytest.mark.parametrize("module", [RNN, LSTM, GRU])
@OTHERS
def test_modules_run_what_was_asked(
    module: Any, backend: str, others: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module passes its backend to every layer; one without a backend follows the environment at each call."""
    asked, free = module(2, 3, 2, backend=backend), module(2, 3, 2)
    forbid(monkeypatch, HOST, *others)
    monkeypatch.setenv("KERNELS_BACKEND", "torch" if backend == "eager" else "eager")
    asked(torch.ones(4, 1, 2))
    with pytest.raises(AssertionError, match=f"({'|'.join(others)}) ran"):
        free(torch.ones(4, 1, 2))
    monkeypatch.setenv("KERNELS_BACKEND", backend)
    free(torch.ones(4, 1, 2))


@pytest.mark.parametrize("by", ["argument", "variable"])
def test_loss_runs_what_was_asked(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The eager loss never enters the chunks; the torch loss does."""
    forbid(monkeypatch, sys.modules["recurrent_lm.kernels.loss.chunks"], "_logits")
    if by == "variable":
        monkeypatch.setenv("KERNELS_BACKEND", "eager")
    assert loss("eager" if by == "argument" else None).isfinite()
    with pytest.raises(AssertionError, match="_logits ran"):
        loss("torch")


def test_front_door_keeps_functions() -> None:
    """A function keeps its name although its file has the same one."""
    assert kernels.recurrence is RECURRENCE.recurrence
    assert kernels.linear_cross_entropy is CROSS_ENTROPY.linear_cross_entropy
    assert all(hasattr(kernels, name) for name in kernels.__all__)
    assert set(kernels.__all__) <= set(dir(kernels)), "names are found before they are used"
    with pytest.raises(AttributeError, match=r"module 'recurrent_lm\.kernels' has no attribute 'nonsense'"):
        _ = kernels.nonsense


def test_import_costs_nothing() -> None:
    """The front door alone does not import torch, nor does the choice of a backend."""
    code = (
        "import sys\nfrom recurrent_lm import kernels\nassert 'torch' not in sys.modules\n"
        "import recurrent_lm.kernels.backends; assert callable(kernels.choose_backend) and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
