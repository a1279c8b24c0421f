"""Dynamic evaluation: a model that keeps learning while it reads (Mikolov et al. 2010; Krause et al. 2018).

Each segment of L tokens is scored first and learnt from afterwards, so no token is known before it is predicted. Words that the
speaker has just used become likelier.

With dropout masks (``masks.py``) one weight vector learns, by the gradient of the whole network, and each set of masks thins
the weights as they are then. So the weights are the same with and without masks, and only the prediction differs.
"""

import copy
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from recurrent_lm import kernels
from recurrent_lm.lm.model import LanguageModel, State, detach
from recurrent_lm.lm.scoring.masks import Thinned, draw_masks
from recurrent_lm.lm.text.tokens import EOS
from recurrent_lm.lm.training.clip import clip

if TYPE_CHECKING:
    from numpy.typing import NDArray

RATES = (0.03, 0.1, 0.3, 1.0, 3.0)  # tried on the validation split if no rate is given
THRESHOLD = 1.0  # of the gradient's norm, so that one strange segment cannot spoil the model


def dynamic_losses(
    model: LanguageModel,
    ids: "NDArray[np.int32]",
    *,
    lr: float,
    bptt: int,
    resets: bool = False,
    masks: int = 0,
    seed: int = 1,
    backend: str | None = None,
    between: Callable[[], None] = lambda: None,
) -> "NDArray[np.float64]":
    """-log P of each token, [T] in nats, under a copy of the model that takes one step of SGD behind each segment.

    Args:
        ids: [T], read as one row; the first token is predicted from <eos>.
        lr: learning rate of the plain SGD on a segment's mean loss, its gradient clipped to norm 1. 0 is ``token_losses``.
        bptt: L, tokens in a segment; gradients go no further back.
        resets: whether the state is zero before each <eos>.
        masks: sets of dropout masks whose mean probability is the prediction; 0 predicts with the whole network.
        seed: of the masks.
        between: called between segments; may raise to stop.
    """
    device = model.embedding.weight.device
    model = copy.deepcopy(model).eval()
    thinned, sets = Thinned(model), list(draw_masks(model, masks, seed))
    states = [model.zero_state(1) for _ in sets]
    read = np.concatenate([[EOS], ids[:-1]]).astype(np.int64)
    losses = np.empty(len(ids))
    state = model.zero_state(1)
    parameters = list(model.parameters())
    for begin in range(0, len(ids), bptt):
        between()
        segment = slice(begin, begin + bptt)
        inputs = torch.from_numpy(read[None, segment]).to(device)
        reset = inputs == EOS if resets else None
        targets = torch.from_numpy(ids[segment].astype(np.int64)).to(device)
        loss, state = _segment(model, inputs, targets, detach(state), reset, backend)
        losses[segment] = loss.detach().double().cpu().numpy()
        if sets:
            total = torch.full(targets.shape, -torch.inf, dtype=torch.float64)
            for number, one in enumerate(sets):
                network = thinned.by(one, model)
                masked, states[number] = _segment(network, inputs, targets, states[number], reset, backend)
                total = torch.logaddexp(total, -masked.double().cpu())
            losses[segment] = math.log(masks) - total.numpy()
        gradients = torch.autograd.grad(loss.mean(), parameters)
        clip(list(gradients), "norm", THRESHOLD)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(gradient, alpha=lr)
    return losses


def _segment(
    model: LanguageModel, inputs: Tensor, targets: Tensor, state: State, reset: Tensor | None, backend: str | None
) -> tuple[Tensor, State]:
    """-log P of each target [L] after the inputs [1, L], and the state after them."""
    hidden, after = model(inputs, state, reset)
    loss = kernels.linear_cross_entropy(
        hidden.flatten(0, 1),
        model.decoder.weight,
        targets,
        linear_bias=model.decoder.bias,
        reduction="none",
        backend=backend,
    )
    return loss, after
