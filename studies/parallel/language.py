"""Newton's iterations on a language model while it is trained, beside the decay of the gradient that backpropagation meets."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recurrent_lm import kernels, lm
from recurrent_lm.studies.engine.language_models import trained
from recurrent_lm.studies.gradient_flow import language
from recurrent_lm.studies.gradient_flow.parts import along_lags, slope
from recurrent_lm.studies.gradient_flow.textbook import exponent
from recurrent_lm.studies.parallel.newton import Layer, counts

Row = dict[str, Any]


def layers(model: lm.LanguageModel, tokens: Tensor) -> list[Layer]:
    """The model's layers, each with what it reads over the tokens [T], from h(0) = 0; the first layer first."""
    x, reading = model.embedding.weight.detach()[tokens], []
    for layer in model.layers:
        of = {name: p.detach() for name, p in layer.named_parameters()}
        weight, cell = of["weight_hh_l0"], model.config.cell
        start = x.new_zeros(kernels.CELLS[cell].states * weight.shape[1])
        reading.append(Layer(cell, F.linear(x, of["weight_ih_l0"], of["bias_ih_l0"]), weight, of["bias_hh_l0"], start))
        x = reading[-1].sequential()[:, : weight.shape[1]]
    return reading


def decay(model: lm.LanguageModel, text: Tensor, reach: int) -> list[float]:
    """Nats by which log ||dL(t)/dh(t - l)|| changes per lag l, of each layer: the line through its medians over the last
    positions of the windows.

    Args:
        model: in float64.
        text: [T + 1, windows].
        reach: the largest lag.
    """
    backs = language.flows(model, language.layers(model, text[:-1]), text[-language.LOSSES :])
    norms = [along_lags(kernels.vector_norm(back.d_h, dim=-1), reach).flatten(1) for back in backs]
    return [slope(of.median(dim=1).values, 0, reach) for of in norms]


def look(
    model: lm.LanguageModel, ids: Tensor, windows: int, lengths: tuple[int, ...], most: int, reach: int, all_ways: bool
) -> Iterator[Row]:
    """Measure a model on windows of a text, each read from h(0) = 0.

    Args:
        model: in float64.
        ids: the text.
        windows: number of windows, spread evenly.
        lengths: numbers of steps T.
        most: iterations after which a sequence is given up.
        reach: lags of ``decay``.
        all_ways: also the Jacobian's diagonal and the damped way, up to the second largest length.

    Yields:
        Rows as ``counted`` of the study makes them, with layer and window.
    """
    span = max(lengths) + 1
    starts = torch.linspace(0, len(ids) - span, windows).long()
    text = ids[starts + torch.arange(span)[:, None]]  # [span, windows]
    for i, value in enumerate(decay(model, text, reach)):
        yield {"layer": i, "quantity": "decay", "value": value}
    for window in range(windows):
        for i, layer in enumerate(layers(model, text[:-1, window])):
            at = {"layer": i, "window": window}
            value = exponent(layer.cell, layer.weight_hh, layer.z, 0, max(lengths) // 4, layer.bias_hh)
            yield at | {"quantity": "exponent", "value": value}
            for row in counted(layer, lengths, most, all_ways and window == 0):
                yield at | row


def counted(layer: Layer, lengths: tuple[int, ...], most: int, all_ways: bool) -> Iterator[Row]:
    """Newton's iterations as rows: full Jacobians in float64 and float32; where wanted the other ways, in float64 and without
    the largest length."""
    shorter = tuple(sorted(lengths))[: max(1, len(lengths) - 1)]
    plan = [("full", torch.float64, lengths), ("full", torch.float32, lengths)]
    if all_ways:
        plan += [("diagonal", torch.float64, shorter), ("damped", torch.float64, shorter)]
    for way, dtype, over in plan:
        for count in counts(layer.to(dtype), way, over, most):
            at = {"way": way, "dtype": str(dtype).removeprefix("torch."), "steps": count.steps, "reason": count.reason}
            for quantity in ("iterations", "stopped", "error"):
                yield at | {"quantity": quantity, "value": getattr(count, quantity)}


def course(
    config: lm.RunConfig, epochs: tuple[int, ...], windows: int, lengths: tuple[int, ...], most: int, reach: int
) -> list[Row]:
    """Train a model and ``look`` at it at these epochs (0 is the initialisation), in all ways at the last.

    Raises:
        InputError: if the validation text is shorter than a window.
    """
    rows: list[Row] = []

    def watch(training: lm.Training) -> None:
        epoch = training.at.epoch
        if epoch not in epochs:
            return
        ids = torch.from_numpy(training.data.valid.ids).long()
        if len(ids) <= max(lengths):
            raise lm.InputError(f"the validation text has {len(ids)} tokens; take smaller text_lengths, or more text")
        model = deepcopy(training.model).double().eval()
        rows.extend({"epoch": epoch} | row for row in look(model, ids, windows, lengths, most, reach, epoch == max(epochs)))

    trained(config, watch)
    return rows
