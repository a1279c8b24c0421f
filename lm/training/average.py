"""A running average of the weights (Polyak & Juditsky 1992), which predicts better than the weights of any one update.

With a rate that is still high the weights wander around a minimum; their average is near its middle. AWD-LSTM's NT-ASGD
(Merity et al. 2018) averages the end of a training for the same reason.
"""

import copy

import torch

from recurrent_lm.lm.model import LanguageModel


class Average:
    """``model``, a copy of a model whose weights follow ``a <- keep a + (1 - keep) w``.

    As long as that is less, n / (10 + n) is kept at the update after n others: nothing of the initial weights, and little of
    the early ones, which a slow average would remember too long.
    """

    def __init__(self, model: LanguageModel, keep: float) -> None:
        self.keep = keep
        self.model = copy.deepcopy(model).requires_grad_(False)

    def update(self, model: LanguageModel, n: int) -> None:
        """Take in the weights that ``model`` has after an update which ``n`` others came before."""
        share = 1 - min(self.keep, n / (10 + n))
        torch._foreach_lerp_(list(self.model.parameters()), [p.detach() for p in model.parameters()], share)
