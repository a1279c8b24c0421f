"""A user's recurrence or loss, named ``module:factory``, as a contestant.

A recurrence's factory takes ``input_size`` and ``hidden_size``, a loss's ``width`` and ``vocabulary``; either may take
``device`` and ``dtype``, and a recurrence's ``cell``. It returns one of

* a module with torch.nn's parameters weight_ih, weight_hh, bias_ih and bias_hh, with or without ``_l0``: x [T, B, H] to h
  [T, B, H], or to a tuple that begins with h, as nn.LSTM's;
* a function h = f(x, weight_ih, weight_hh, bias_ih, bias_hh) with torch.nn's shapes;
* a function or module of a loss, f(input [N, d], weight [V, d], bias [V], target [N]), which returns the mean loss.

States begin at zero. Autograd must be able to compute the gradients.
"""

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recurrent_lm import kernels
from recurrent_lm.lm import InputError, digest
from recurrent_lm.studies.timing.work import Unavailable

SIZES = {"recurrence": ("input_size", "hidden_size"), "cross_entropy": ("width", "vocabulary")}
OPTIONAL = {"recurrence": ("cell", "device", "dtype"), "cross_entropy": ("device", "dtype")}
CONTRACT = "a recurrence's factory takes (input_size, hidden_size) and may take cell, a loss's takes (width, vocabulary)"
LONGEST = 200  # characters of an error in a sentence


@dataclass(frozen=True)
class Own:
    """An imported factory: the part of the study it belongs to, its optional arguments, and its file."""

    name: str
    part: str
    factory: Callable[..., Any]
    optional: tuple[str, ...]
    file: Path | None

    def made(self, sizes: tuple[int, int], **more: Any) -> Any:
        """Call the factory for these sizes, with those of ``more`` that it takes."""
        given = dict(zip(SIZES[self.part], sizes, strict=True)) | {key: more[key] for key in self.optional}
        result = self.factory(**given)
        if not callable(result):
            raise TypeError(f"the factory gives {_kind(result)}, which cannot be called")
        return result

    def digest(self) -> str:
        """Digest of the source, so that an edited factory is measured again."""
        return digest(self.file.read_bytes()) if self.file else ""


@cache
def load(name: str) -> Own:
    """Import ``module:factory``, also from the working folder.

    Raises:
        InputError: if it cannot be imported or takes other arguments.
    """
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")) or not attribute.isidentifier():
        raise InputError(f"--variant must be module:factory, such as my_rnn:MyLSTM, not {name!r}")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's file may raise anything
        raise InputError(f"{name} cannot be imported: {told(error)}") from None
    factory = getattr(module, attribute, None)
    if not callable(factory):
        fault = "is not a callable" if hasattr(module, attribute) else f"is not there: {module_name} has no {attribute}"
        raise InputError(f"{name} {fault}; it must be a factory: {CONTRACT}")
    file = getattr(module, "__file__", None)
    return Own(name, *_taken(name, factory), Path(file) if file else None)


def _taken(name: str, factory: Callable[..., Any]) -> tuple[str, Callable[..., Any], tuple[str, ...]]:
    """The part whose sizes a factory takes, the factory, and its optional arguments."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        raise InputError(f"{name} does not tell its arguments; wrap it in a function: {CONTRACT}") from None
    for part, sizes in SIZES.items():
        optional = tuple(key for key in OPTIONAL[part] if key in signature.parameters)
        try:
            signature.bind(**dict.fromkeys((*sizes, *optional)))
        except TypeError:
            continue
        return part, factory, optional
    raise InputError(f"{name} takes {signature}; {CONTRACT}, and either may take device and dtype")


def recurrence(
    name: str, cell: str, weights: dict[str, Tensor], direction: str
) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    """Prepare a user's recurrence with the given weights.

    Args:
        name: ``module:factory``.
        cell: a key of ``kernels.EVERY_CELL``.
        weights: torch.nn's weights by name.
        direction: "forward" puts a module into evaluation mode.

    Returns:
        The forward pass, and the weights as leaves.
    """
    weight = weights["weight_ih"]
    sizes = weight.shape[1], len(weight) // kernels.EVERY_CELL[cell].gates
    variant = load(name).made(sizes, cell=cell, device=weight.device, dtype=weight.dtype)
    if isinstance(variant, nn.Module):
        variant.to(weight.device, weight.dtype).train(direction != "forward")
        leaves = _filled(variant, weights, cell)
    else:
        leaves = [w.detach().clone().requires_grad_() for w in weights.values()]

    call = variant if isinstance(variant, nn.Module) else lambda x: variant(x, *leaves)

    def forward(x: Tensor) -> Tensor:
        output = call(x)
        return output[0] if isinstance(output, (tuple, list)) else output

    return forward, leaves


def loss(name: str, weight: Tensor) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """A user's loss for weights [V, d]: (input, weight, bias, target) to the mean loss."""
    vocabulary, width = weight.shape
    variant = load(name).made((width, vocabulary), device=weight.device, dtype=weight.dtype)
    return variant.to(weight.device) if isinstance(variant, nn.Module) else variant


def checked(output: Any, shape: tuple[int, ...]) -> None:
    """Refuse an output that is no tensor of this shape."""
    if not isinstance(output, Tensor):
        raise TypeError(f"it gives {_kind(output)}, not a tensor")
    if tuple(output.shape) != shape:
        raise ValueError(f"it gives {list(output.shape)}, and {list(shape)} is wanted")


def told(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:LONGEST]}"


def _filled(module: nn.Module, weights: dict[str, Tensor], cell: str) -> list[Tensor]:
    """Copy weights into a module; returns its parameters in the order of ``weights``."""
    parameters = {key.removesuffix("_l0"): parameter for key, parameter in module.named_parameters()}
    shapes = {key: list(parameter.shape) for key, parameter in parameters.items()}
    wanted = {key: list(value.shape) for key, value in weights.items()}
    if shapes != wanted:
        listed = ", ".join(f"{key} {shape}" for key, shape in shapes.items()) or "none"
        needed = ", ".join(f"{key} {shape}" for key, shape in wanted.items())
        raise Unavailable(f"it has the parameters {listed}; {cell} has {needed}")
    with torch.no_grad():
        for key, value in weights.items():
            parameters[key].copy_(value)
    return [parameters[key] for key in weights]


def _kind(value: object) -> str:
    return f"a {type(value).__name__}" if value is not None else "None"
