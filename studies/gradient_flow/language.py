"""The gradient of a language model by lag while it is trained: real text, and the trainer's model copied to float64."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recurrent_lm import kernels, lm
from recurrent_lm.studies.engine.language_models import trained
from recurrent_lm.studies.gradient_flow.parts import (
    Backward,
    Forward,
    along_lags,
    at_own_step,
    backward,
    forward,
    horizon,
    part_norms,
    slope,
    sum_norms,
    sums,
)
from recurrent_lm.studies.gradient_flow.textbook import bands
from recurrent_lm.studies.timing.work import distance

WARM = 60  # tokens read before a window, so that its first state is a usual one
STEPS = 4  # of the lecture's picture
LOSSES = 20  # positions t of a window
FAR = 10.0  # a part has vanished (exploded) if it is this many times smaller (larger) at the last lag than at lag 0
SHOWN = [0, 1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 28, 32, 36, 40]

Row = dict[str, Any]
State = list[tuple[Tensor, ...]]  # of each layer (h,) or (h, c), each [B, H]


def layers(model: lm.LanguageModel, tokens: Tensor, state: State | None = None) -> list[Forward]:
    """Run the model's layers over tokens.

    Args:
        model: a language model.
        tokens: [T, B].
        state: the state before the first step; None is h(0) = 0.

    Returns:
        The forward pass of each layer, the first layer first.
    """
    x, unrolled = model.embedding.weight.detach()[tokens], []
    for i, layer in enumerate(model.layers):
        of = {name: p.detach() for name, p in layer.named_parameters()}
        cell, zero = model.config.cell, x.new_zeros(tokens.shape[1], model.config.hidden_size)
        before = state[i] if state else (zero, zero) if cell == "lstm" else (zero,)
        z = F.linear(x, of["weight_ih_l0"], of["bias_ih_l0"])
        unrolled.append(forward(cell, z, before, of["weight_hh_l0"], of["bias_hh_l0"]))
        x = unrolled[-1].after[0]
    return unrolled


def last(unrolled: list[Forward]) -> State:
    """The state after the last step."""
    return [tuple(part[-1] for part in layer.after) for layer in unrolled]


def flows(model: lm.LanguageModel, unrolled: list[Forward], targets: Tensor) -> list[Backward]:
    """Backpropagate the losses L(t) = -log y(t)[x(t+1)] of the last N steps through all layers.

    Args:
        model: a language model.
        unrolled: its layers' forward passes.
        targets: [N, B].

    Returns:
        The gradients of each layer, the first layer first.
    """
    top = unrolled[-1].after[0]
    h = top[len(top) - len(targets) :].clone().requires_grad_()
    logits = model.logits(h if model.projection is None else model.projection(h))
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")  # each loss depends on its own h(t) only
    arriving = at_own_step(torch.autograd.grad(loss, h)[0], len(top))
    backs: list[Backward] = []
    for layer, of in zip(reversed(model.layers), reversed(unrolled), strict=True):
        backs.insert(0, backward(of, arriving))
        arriving = backs[0].d_z @ dict(layer.named_parameters())["weight_ih_l0"].detach()
    return backs


def sum_error(model: lm.LanguageModel, tokens: Tensor, targets: Tensor, state: State, backs: list[Backward]) -> float:
    """Compare the sum of the last loss's parts with autograd's gradient through the model itself, in the first window.

    Returns:
        The largest relative distance of any layer.
    """
    starts: list[Any] = [tuple(s[None, :1].contiguous() for s in part) for part in state]
    starts = starts if model.config.cell == "lstm" else [part[0] for part in starts]
    hidden, _ = model(tokens[:, :1].t(), starts)
    weights: list[Any] = [layer.weight_hh_l0 for layer in model.layers]
    truth = torch.autograd.grad(F.cross_entropy(model.logits(hidden[-1]), targets[-1, :1]), weights)
    worst = 0.0
    for of, back, true in zip(layers(model, tokens, state), backs, truth, strict=True):
        own = torch.einsum("tg,th->gh", back.d_a[:, -1, 0], of.before[0][:, 0])
        worst = max(worst, distance(own, true))
    return worst


def snapshot(model: lm.LanguageModel, ids: Tensor, windows: int, lags: int) -> Iterator[Row]:
    """Measure a model in float64 over ``windows`` windows of a text, with ``LOSSES`` losses each.

    Yields, by layer: median and quartiles of ||dL(t)/dW_h at step t - l|| by lag; over positions the median ``horizon`` (lags
    that hold 90% of the summed norms) and ``cancellation`` = ||sum g_i|| / sum ||g_i||; the shares ``vanishing`` and
    ``exploding``; the ``slope`` of the log median over the lags; and ``sum_error`` of the whole model, in layer 0.
    """
    span = WARM + lags + LOSSES
    starts = torch.linspace(0, len(ids) - span - 1, windows).long()
    text = ids[starts + torch.arange(span + 1)[:, None]]  # [span + 1, windows]
    state = last(layers(model, text[:WARM]))
    tokens, targets = text[WARM:-1], text[-LOSSES:]
    unrolled = layers(model, tokens, state)
    backs = flows(model, unrolled, targets)
    yield {"layer": 0, "quantity": "sum_error", "value": sum_error(model, tokens, targets, state, backs)}
    for i, (of, back) in enumerate(zip(unrolled, backs, strict=True)):
        norms = along_lags(part_norms(of, back), lags)  # [lags + 1, N, B]
        by_lag = norms.flatten(1)
        middle = by_lag.median(dim=1).values
        ratio = by_lag[-1] / by_lag[0]
        statistics = {
            "horizon": float(horizon(by_lag).double().median()),
            "cancellation": float((sum_norms(of, back).flatten() / part_norms(of, back).sum(dim=0).flatten()).median()),
            "vanishing": float((ratio < 1 / FAR).double().mean()),
            "exploding": float((ratio > FAR).double().mean()),
            "slope": slope(middle, 0, lags),
        }
        yield from ({"layer": i, "quantity": name, "value": value} for name, value in statistics.items())
        yield from ({"layer": i} | row for row in bands(by_lag, [lag for lag in SHOWN if lag <= lags]))


def text_map(model: lm.LanguageModel, ids: Tensor, words: list[str]) -> Iterator[Row]:
    """The T x T map of the last layer over the first T tokens of a text, from h(0) = 0.

    Args:
        model: a language model.
        ids: [T + 1].
        words: the T words that the model reads.

    Yields:
        ||dL(t)/dW_h at step i|| with the word x(i), for each pair t >= i.
    """
    tokens, targets = ids[:-1, None], ids[1:, None]
    unrolled = layers(model, tokens)
    norms = part_norms(unrolled[-1], flows(model, unrolled, targets)[-1])[..., 0]
    for t in range(len(tokens)):
        for i in range(t + 1):
            yield {"step": t + 1, "lag": t - i, "token": words[i], "quantity": "part", "value": float(norms[i, t])}


def four_steps(model: lm.LanguageModel, ids: Tensor, words: list[str], before: Tensor) -> Iterator[Row]:
    """The lecture's picture of four steps on a real text (slide BPTT).

    Args:
        model: a language model.
        ids: [5], four words and the next one.
        words: these five words.
        before: tokens that the model reads first, so that h(0) is not 0.

    Yields:
        Of the last layer ``hidden`` = ||dL(4)/dh(i)|| and ``part`` = ||dL(4)/dW_h at step i||; ``sum``, the norm of the parts'
        sum; ``probability`` = y(4)[x(5)].
    """
    tokens, target = ids[:-1, None], ids[-1:, None]
    unrolled = layers(model, tokens, last(layers(model, before[:, None])))
    back = flows(model, unrolled, target)[-1]
    hidden, parts = kernels.vector_norm(back.d_h, dim=-1)[:, 0, 0], part_norms(unrolled[-1], back)[:, 0, 0]
    steps = len(tokens)
    for i in range(steps):
        here = {"step": steps, "lag": steps - 1 - i, "token": words[i]}
        yield here | {"quantity": "hidden", "value": float(hidden[i])}
        yield here | {"quantity": "part", "value": float(parts[i])}
    top = unrolled[-1].after[0][-1]
    logits = model.logits(top if model.projection is None else model.projection(top)).detach()
    here = {"step": steps, "lag": 0, "token": words[-1]}
    yield here | {"quantity": "sum", "value": float(sums(unrolled[-1], back).norm())}
    yield here | {"quantity": "probability", "value": float(torch.softmax(logits, dim=-1)[0, target[0, 0]])}


def course(config: lm.RunConfig, windows: int, lags: int, steps: int, sentence: str) -> list[Row]:
    """Train a model and measure it with ``snapshot`` at initialisation and after each epoch; curves and pictures at both ends.

    Args:
        config: the training's settings.
        windows, lags: as in ``snapshot``.
        steps: size of the map; 0 draws neither map nor four steps.
        sentence: four words and the next one.

    Returns:
        The rows of all measurements.

    Raises:
        InputError: if the validation text is shorter than a window.
    """
    rows: list[Row] = []
    pictures: dict[int, list[Row]] = {}
    done = [0]

    def watch(training: lm.Training) -> None:
        epoch = done[0] = training.at.epoch
        model = deepcopy(training.model).double().eval()
        ids = torch.from_numpy(training.data.valid.ids).long()
        if len(ids) <= WARM + lags + LOSSES:
            raise lm.InputError(f"the validation text has {len(ids)} tokens; take fewer language_lags, or more text")
        seen = [{"part": "language"} | row for row in snapshot(model, ids, windows, lags)]
        rows.extend({"epoch": epoch} | row for row in seen if "lag" not in row)
        drawn = [row for row in seen if "lag" in row]
        if steps:
            show = training.data.tokenizer.show
            begin = ids[: steps + 1]
            drawn += [{"part": "map"} | row for row in text_map(model, begin, [show(int(i)) for i in begin[:-1]])]
            four = torch.tensor(training.data.tokenizer.encode(sentence))
            words = [show(int(i)) for i in four]
            drawn += [{"part": "paths"} | row for row in four_steps(model, four, words, ids[:WARM])]
        pictures[epoch] = [{"epoch": epoch} | row for row in drawn]

    trained(config, watch)
    return rows + [row for epoch in sorted({0, done[0]}) for row in pictures[epoch]]
