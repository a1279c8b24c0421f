"""Other people's implementations, where they are installed: each adapter gives its library what it wants, and nothing else.

A library that is not there, or cannot do a work, raises ``Unavailable`` with the reason. What an adapter computes is held
to the same reference as everything else, so an adapter that misreads its library is refused, not timed.
"""

import inspect
import os
import shutil
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurrent_lm import kernels
from recurrent_lm.studies.timing.work import Unavailable

MODULES: dict[str, Callable[..., nn.Module]] = {
    "lstm": nn.LSTM, "gru": nn.GRU, "rnn-tanh": nn.RNN, "rnn-relu": partial(nn.RNN, nonlinearity="relu"),
}  # fmt: skip
CELL_MODULES = {
    "lstm": nn.LSTMCell,
    "gru": nn.GRUCell,
    "rnn-tanh": nn.RNNCell,
    "rnn-relu": partial(nn.RNNCell, nonlinearity="relu"),
}
ALIGNED = 16  # columns added to the weights where the bias has to be a column
FLASHRNN = {"lstm": "lstm", "gru": "gru", "rnn-tanh": "elman"}

Forward = Callable[[Tensor], Tensor]  # [T, B, H] to [T, B, H]


def torch_nn(cell: str, weights: dict[str, Tensor], direction: str) -> tuple[Forward, list[nn.Parameter]]:
    """torch.nn's module: cuDNN on a GPU, ATen's loop elsewhere."""
    module = _filled(_known(MODULES, cell, "torch.nn"), weights, "_l0")
    module.train(direction != "forward")  # in evaluation mode nothing is saved for a backward pass
    return lambda x: module(x)[0], list(module.parameters())


def cell_loop(cell: str, weights: dict[str, Tensor]) -> tuple[Forward, list[nn.Parameter]]:
    """A loop over nn.LSTMCell and its siblings."""
    module = _filled(_known(CELL_MODULES, cell, "torch.nn"), weights, "")

    def forward(x: Tensor) -> Tensor:
        state = None
        outputs = []
        for row in x:
            state = module(row, state)
            outputs.append(state[0] if cell == "lstm" else state)
        return torch.stack(outputs)

    return forward, list(module.parameters())


def compiled_loop(cell: str, weights: dict[str, Tensor]) -> tuple[Forward, list[Tensor]]:
    """A step under torch.compile in a loop, with the input's product outside; compiling the whole sequence would take
    minutes.
    """
    check_compiler()
    torch.compiler.reset()  # after several shapes torch.compile would silently fall back to eager
    step = torch.compile(partial(kernels.step, cell), dynamic=False)
    leaves = [w.detach().clone().requires_grad_() for w in weights.values()]
    weight_ih, weight_hh, bias_ih, bias_hh = leaves

    def forward(x: Tensor) -> Tensor:
        state = tuple(x.new_zeros(x.shape[1], weight_hh.shape[1]) for _ in range(kernels.CELLS[cell].states))
        outputs = []
        for z in F.linear(x, weight_ih, bias_ih):
            state = step(z, state, weight_hh, bias_hh)
            outputs.append(state[0])
        return torch.stack(outputs)

    return forward, leaves


def flash_rnn(cell: str, weights: dict[str, Tensor]) -> tuple[Forward, list[Tensor]]:
    """FlashRNN's fused CUDA kernel (Poeppel et al. 2025), one head, so that W_h is dense; the input's product is ours."""
    if cell not in FLASHRNN:
        raise Unavailable(f"FlashRNN has no {cell}")
    flashrnn = _installed("flashrnn", "FlashRNN", weights["weight_hh"]).flashrnn
    leaves = [w.detach().clone().requires_grad_() for w in weights.values()]
    hidden = weights["weight_hh"].shape[1]
    dtype = str(weights["weight_hh"].dtype).removeprefix("torch.")

    def forward(x: Tensor) -> Tensor:
        weight_ih, recurrent, bias = as_flash_rnn(cell, *leaves)
        z = F.linear(x, weight_ih).view(*x.shape[:2], -1, 1, hidden).transpose(0, 1)  # [B, T, gates, heads, H]
        states, _ = flashrnn(z, recurrent, bias, function=FLASHRNN[cell], dtype=dtype)
        return states[0].squeeze(2).transpose(0, 1)

    return forward, leaves


def as_flash_rnn(
    cell: str, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """torch.nn's weights as FlashRNN's W [gates H, in], R [gates, heads, H out, H in] and b [gates, heads, H], one head.

    Its GRU takes the recurrent products in the order n, r, z and four biases: b_hn, of r, of z, b_in (flashrnn 1.0.8).
    """
    hidden = weight_hh.shape[1]
    recurrent = weight_hh.view(-1, 1, hidden, hidden)
    of_input, of_state = bias_ih.view(-1, 1, hidden), bias_hh.view(-1, 1, hidden)
    if cell != "gru":
        return weight_ih, recurrent, of_input + of_state
    r, z = (of_input + of_state)[:2]
    return weight_ih, recurrent.roll(1, 0), torch.stack((of_state[2], r, z, of_input[2]))


def liger(weight: Tensor) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Liger's fused linear cross-entropy: (input, weight, bias, target) to the mean loss."""
    loss = _installed("liger_kernel.transformers", "liger-kernel", weight).LigerFusedLinearCrossEntropyLoss()
    return lambda x, w, b, target: loss(w, x, target, b)


def cut_cross_entropy(weight: Tensor, **options: Any) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Apple's cut cross-entropy (Wijmans et al. 2025). Its release 25.1.1 takes no bias, so there the bias becomes a column of
    the weights beside a column of ones, with zeros that keep rows aligned: the same loss, at the cost of two copies.

    ``options`` are of its function; ``filter_eps=None`` turns the filter of small gradients off."""
    function = _installed("cut_cross_entropy", "cut-cross-entropy", weight).linear_cross_entropy
    loss = partial(function, **options)
    if "bias" in inspect.signature(function).parameters:
        return lambda x, w, b, target: loss(x, w, target, bias=b)

    def with_bias(x: Tensor, w: Tensor, b: Tensor, target: Tensor) -> Tensor:
        one = F.pad(x.new_ones(len(x), 1), (0, ALIGNED - 1))
        return loss(torch.cat((x, one), dim=1), torch.cat((w, F.pad(b[:, None], (0, ALIGNED - 1))), dim=1), target)

    return with_bias


def torch_linear_cross_entropy() -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """torch's own function, with its defaults: all logits."""
    function = getattr(F, "linear_cross_entropy", None)
    if function is None:
        raise Unavailable(f"torch {torch.__version__} has no linear_cross_entropy; 2.13 has")
    return lambda x, w, b, target: function(x, w, target, linear_bias=b)


def torch_chunked_cross_entropy() -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """torch's own function with chunks of rows whose size it chooses itself, which is what saves it memory."""
    options = getattr(nn, "LinearCrossEntropyOptions", None)
    if options is None:
        raise Unavailable(f"torch {torch.__version__} has no LinearCrossEntropyOptions; 2.13 has")
    chosen = options()
    return lambda x, w, b, target: F.linear_cross_entropy(x, w, target, linear_bias=b, options=chosen)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function under torch.compile."""
    check_compiler()
    torch.compiler.reset()
    return torch.compile(function, dynamic=False)


def check_compiler() -> None:
    """Refuse torch.compile where it would find no C++ compiler."""
    wanted = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([wanted] if wanted else ["g++", "clang++", "c++"])):
        raise Unavailable("torch.compile needs a C++ compiler (g++, or the one that CXX names), and there is none")


def _installed(module: str, name: str, where: Tensor) -> Any:
    if where.device.type != "cuda":
        raise Unavailable(f"{name} needs a CUDA GPU")
    try:
        return import_module(module)
    except ImportError as error:
        raise Unavailable(
            f"{name} cannot be imported ({error}); pip install {name.lower()} where it is to be compared"
        ) from None


def _known(modules: dict[str, Any], cell: str, name: str) -> Any:
    if cell not in modules:
        raise Unavailable(f"{name} has no {cell}")
    return modules[cell]


def _filled(make: Any, weights: dict[str, Tensor], suffix: str) -> nn.Module:
    weight = weights["weight_ih"]
    hidden = weights["weight_hh"].shape[1]
    module: nn.Module = make(weight.shape[1], hidden, device=weight.device, dtype=weight.dtype)
    module.load_state_dict({f"{name}{suffix}": value for name, value in weights.items()})
    return module
