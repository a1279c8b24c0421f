"""Prediction with dropout on: the mean probability of N networks, each thinned by its own masks (Gal & Ghahramani 2016).

A text is read once for each set of masks, with a recurrent state of its own, and the set stays the same from the first token
to the last, as locked dropout keeps it for a batch in training. A mask on a layer's input is the same as a mask on the columns
of the weights that read it. A set of masks therefore turns the model into an ordinary one with fewer weights, and every way of
scoring applies to that.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from recurrent_lm.lm.model import LanguageModel
from recurrent_lm.lm.scoring.evaluate import token_losses

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Mask:
    """What is kept of a weight, and the factor 1 / (1 - p) of what is kept; ``keep`` [rows or 1, columns or 1] is bool."""

    keep: Tensor
    scale: float


Masks = dict[str, Mask]  # one set, by the name of the weight


def draw_masks(model: LanguageModel, sets: int, seed: int) -> Iterator[Masks]:
    """Draw sets of masks one after the other from one stream of random numbers, so that fewer sets are the first of more.

    The shares are those of the model's settings: ``embedding_dropout`` of the word types, ``dropout`` of the input and the
    output of each layer, ``weight_drop`` of each W_h. They are drawn on the CPU, so that a GPU has the same masks.

    Args:
        model: whose settings and sizes count.
        sets: how many.
        seed: of the random numbers.
    """
    config, generator = model.config, torch.Generator().manual_seed(seed)
    columns = [*(f"layers.{i}.weight_ih_l0" for i in range(config.layers))]
    columns.append("decoder.weight" if model.projection is None else "projection.weight")
    recurrent = [name for name, _ in model.named_parameters() if name.endswith("weight_hh_l0")]  # minGRU has none

    def mask(name: str, rows: bool, columns: bool, share: float) -> dict[str, Mask]:
        weight = model.get_parameter(name)
        size = (weight.shape[0] if rows else 1, weight.shape[1] if columns else 1)
        keep = torch.rand(size, generator=generator) >= share
        return {name: Mask(keep.to(weight.device), 1 / (1 - share))} if share else {}

    for _ in range(sets):
        masks = mask("embedding.weight", True, False, config.embedding_dropout)
        for name in columns:
            masks |= mask(name, False, True, config.dropout)
        for name in recurrent:
            masks |= mask(name, True, True, config.weight_drop)
        yield masks


class Thinned:
    """A copy of a model whose weights are those of the original times a set of masks; one copy serves all sets in turn.

    Attributes:
        network: the copy. Its decoder has weights of its own, because the masks of a tied embedding are not the decoder's.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.network = copy.deepcopy(model).eval().requires_grad_(False)
        self.network.embedding.weight = nn.Parameter(self.network.embedding.weight.clone(), requires_grad=False)
        self._thinned = dict(self.network.named_parameters())

    def by(self, masks: Masks, model: LanguageModel) -> LanguageModel:
        """``network`` with the weights that ``model`` has now, times the masks."""
        with torch.no_grad():
            for name, weight in self._thinned.items():
                weight.copy_(model.get_parameter(name))
                if name in masks:
                    weight.mul_(masks[name].keep).mul_(masks[name].scale)
        return self.network


def masked_losses(
    model: LanguageModel, ids: "NDArray[np.int32]", *, masks: int, seed: int, **how: Any
) -> "NDArray[np.float64]":
    """-log of the mean over sets of masks of P of each token, [T] in nats.

    Args:
        model: the language model, which stays as it is.
        ids: [T].
        masks: N >= 1 sets. They are used one after the other, so that memory holds one thinned copy of the model.
        seed: of the masks.
        how: as in ``token_losses``; with several rows all of them have the same masks.
    """
    thinned, total = Thinned(model), np.full(len(ids), -np.inf)
    for one in draw_masks(model, masks, seed):
        total = np.logaddexp(total, -token_losses(thinned.by(one, model), ids, **how))
    return np.log(masks) - total
