"""One update of truncated backpropagation through time, on tensors.

The plain loop, several processes and the CUDA graph share this update; they differ in when they read its numbers. With a
``judge`` the loss and the norm are read before the weights move, so that a divergence leaves the weights as they were. Without
one no number is read back: a GPU can run a whole update ahead, or replay a recording.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from recurrent_lm import kernels
from recurrent_lm.lm.config import RunConfig, parse_clip
from recurrent_lm.lm.model import LanguageModel, State, detach, in_halves
from recurrent_lm.lm.training import optimizer
from recurrent_lm.lm.training.clip import clip, not_finite
from recurrent_lm.lm.training.ranks import ALONE, Alone


class Update(NamedTuple):
    """The numbers of one update: mean loss in nats a token, gradient norm before clipping, whether it was clipped."""

    loss: float
    norm: float
    clipped: bool


class Figures(NamedTuple):
    """The same numbers as scalars on the device, the norm in float64; without a judge also the number of inf or NaN elements of
    each parameter's gradient, [parameters] float64.
    """

    loss: Tensor
    norm: Tensor
    clipped: Tensor
    not_finite: Tensor | None


def activation_penalty(raw: Tensor, dropped: Tensor, ar: float, tar: float) -> Tensor:
    """AR and TAR (Merity, McCann & Socher 2017, "Revisiting Activation Regularization for Language RNNs").

    ar mean(dropped^2) + tar mean((raw_t - raw_{t-1})^2), as AWD-LSTM's program takes their norms. A batch of one step has no
    differences, and the step from the batch before does not count.

    Args:
        raw: the last layer's output [n, k, h] before dropout.
        dropped: the same after dropout.
        ar: weight of large outputs.
        tar: weight of fast changes.

    Returns:
        A scalar, in float32 if the outputs are in bfloat16.
    """
    total = torch.zeros((), device=raw.device)
    if ar:
        total = total + ar * _precise(dropped).square().mean()
    if tar and len(raw) > 1:
        total = total + tar * _precise(raw).diff(dim=0).square().mean()
    return total


def _precise(x: Tensor) -> Tensor:
    return x.float() if x.dtype == torch.bfloat16 else x


class Average:
    """A running average of the weights (Polyak & Juditsky 1992), which predicts better than the weights of a single update.

    While the rate is high the weights move around a minimum; their average is near its middle. AWD-LSTM's NT-ASGD (Merity et
    al. 2018) averages the end of a training for the same reason. The copy ``model`` has the weights a, which follow
    ``a <- keep a + (1 - keep) w``. At update n, ``keep`` is at most n / (10 + n): a slow average would otherwise remember the
    initial weights too long.
    """

    def __init__(self, model: LanguageModel, keep: float) -> None:
        self.keep = keep
        self.model = copy.deepcopy(model).requires_grad_(False)

    def update(self, model: LanguageModel, n: int | Tensor) -> None:
        """Add the weights of ``model`` to the average, after an update which ``n`` others came before; a tensor is not read."""
        averages, weights = ([p.detach() for p in m.parameters()] for m in (self.model, model))
        if isinstance(n, Tensor):
            share = 1 - (n / (10 + n)).clamp(max=self.keep)
            for average, weight in zip(averages, weights, strict=True):
                average.lerp_(weight, share.to(weight.dtype))
        else:
            torch._foreach_lerp_(averages, weights, 1 - min(self.keep, n / (10 + n)))


class Step:
    """The update of one model: the model, its optimizer, the average of its weights, and the ranks that share its rows."""

    def __init__(self, model: LanguageModel, config: RunConfig) -> None:
        self.model = model
        self.optimizer = optimizer.make(model, config.training)
        self.average = Average(model, config.training.average) if config.training.average else None
        self.clip = parse_clip(config.training.clip)
        self.ar, self.tar = config.training.ar, config.training.tar
        self.backend = config.machine.backend
        self.compute_dtype = torch.bfloat16 if config.machine.precision == "bf16" else None
        self.halves = self.compute_dtype is not None
        self.ranks: Alone = ALONE

    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
        reset: Tensor | None,
        state: State,
        lr: float | Tensor,
        n: int | Tensor,
        judge: Callable[[float, float], None] | None = None,
        counted: int = 0,
        signum: int = 0,
    ) -> tuple[Figures, State]:
        """Update the model after ``n`` other updates.

        Args:
            inputs: [k, L] ids.
            targets: [k, L] ids; those below 0 do not count.
            reset: [k, L] bool, True where the state is zero before that token; None for nowhere.
            state: the carried state.
            lr: the learning rate; like ``n`` a scalar tensor for a recording, which is replayed with other values.
            judge: called with loss and norm before the weights move; it may raise.
            counted: with several processes, the targets of the whole batch that count, and the ``signum`` that has arrived.

        Returns:
            The figures, and the state after the last token.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()  # before the loss, which allocates the decoder's gradient: two of them would be held
        outputs: list[Tensor] | None = [] if self.ar or self.tar else None
        loss, after = self.loss(inputs, targets, reset, detach(state), outputs)
        if outputs:  # of one process; the loss that is reported is that of the text alone
            raw, dropped = outputs
            (loss + activation_penalty(raw, dropped, self.ar, self.tar)).backward()
        else:
            loss.backward(self.ranks.upstream(loss, counted))
        loss = self.ranks.reduce(self.model, loss.detach(), targets, signum)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        bad = None if judge else not_finite(gradients)
        norm, clipped = clip(gradients, *self.clip, look=judge is not None)
        if judge:
            loss = loss.cpu()  # read now: a later read would wait for the work that is queued in between
            judge(float(loss), float(norm))
        self.optimizer.step()
        if self.average:
            self.average.update(self.model, n)
        return Figures(loss, norm, clipped, bad), detach(after)

    def loss(
        self, inputs: Tensor, targets: Tensor, reset: Tensor | None, state: State, outputs: list[Tensor] | None = None
    ) -> tuple[Tensor, State]:
        """The loss of [k, n] tokens (a mean in nats, with several processes a sum), and the state after them.

        ``outputs`` is the model's.
        """
        read = (inputs, state, reset, outputs)
        hidden, after = in_halves(self.model, *read) if self.halves else self.model(*read)
        loss = kernels.linear_cross_entropy(
            hidden.flatten(0, 1),
            self.model.decoder.weight,
            targets.t().flatten(),
            linear_bias=self.model.decoder.bias,
            reduction=self.ranks.reduction,
            compute_dtype=self.compute_dtype,
            backend=self.backend,
        )
        return loss, after
