"""The lecture's RNN language model: y(t) = softmax(U h(t) + b), h(t) = RNN(h(t-1), e(t)), e(t) = x(t) E."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurrent_lm import kernels
from recurrent_lm.lm.config import ModelConfig

State = list[Any]  # one entry a layer: h, or (h, c) for the LSTM, each [1, k, H]


class LanguageModel(nn.Module):
    """Embedding, recurrent layers, a projection if tied sizes differ, and a decoder.

    Shapes: tokens [k, n]; hidden states [n, k, h]; the decoder's input [n, k, d] when tied, otherwise [n, k, h].
    """

    def __init__(self, vocabulary: int, config: ModelConfig, backend: str | None = None) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        self.share: tuple[int, slice] | None = None  # (k, the rows of this process), for several processes
        d, h = config.d, config.hidden_size
        self.embedding = nn.Embedding(vocabulary, d)
        sizes = [d] + [h] * (config.layers - 1)
        self.layers = nn.ModuleList([kernels.layer(config.cell, size, h, backend) for size in sizes])
        self.projection = nn.Linear(h, d, bias=False) if config.tie and d != h else None
        self.decoder = nn.Linear(d if config.tie else h, vocabulary)
        if config.tie:
            self.decoder.weight = self.embedding.weight
        self.initialise()

    def initialise(self) -> None:
        """Draw embedding and decoder from U(-0.1, 0.1) and the layers as torch does; ``init_width`` replaces both."""
        width = self.config.init_width
        for weight in {self.embedding.weight, self.decoder.weight}:
            nn.init.uniform_(weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)
        if width:
            for parameter in self.parameters():
                nn.init.uniform_(parameter, -width, width)
        if self.config.cell == "lstm":
            h = self.config.hidden_size
            for layer in self.layers:  # a gate's two biases add up, so one of them is enough
                with torch.no_grad():
                    cast(Tensor, layer.bias_ih_l0)[h : 2 * h] += self.config.forget_bias

    def know_frequencies(self, counts: Tensor) -> None:
        """Set the decoder's bias to the log frequencies of the training text.

        From a bias of 0 the recurrence learns the frequencies itself, in units that feed themselves to keep their sign.
        Starting at h(0) = 0 such a unit may take the wrong sign, and the model then predicts rare words only.

        Args:
            counts: [|V|], how often each token occurs; 1 is added to each.
        """
        with torch.no_grad():
            smoothed = (counts + 1).to(self.decoder.bias.dtype)
            self.decoder.bias.copy_((smoothed / smoothed.sum()).log())

    def zero_state(self, rows: int) -> State:
        """h(0) = 0 for ``rows`` rows."""
        zero = self.embedding.weight.new_zeros(1, rows, self.config.hidden_size)
        pair = self.config.cell == "lstm"
        return [(zero, zero) if pair else zero for _ in self.layers]

    def forward(
        self, tokens: Tensor, state: State, reset: Tensor | None = None, outputs: list[Tensor] | None = None
    ) -> tuple[Tensor, State]:
        """Read tokens.

        Args:
            tokens: [k, n] ids.
            state: from the previous batch, or ``zero_state(k)``.
            reset: optional [k, n] bool; where True the state is zero before that token.
            outputs: a list that gets the last layer's output [n, k, h] before and after dropout.

        Returns:
            Hidden states for the decoder, [n, k, d or h], and the state after the last token.
        """
        config = self.config
        x = self._embed(tokens.t())
        x = self._drop(x)
        after: State = []
        for layer, before in zip(self.layers, state, strict=True):
            raw, last = self._recur(layer, x, before, None if reset is None else reset.t())
            x = self._drop(raw)
            after.append(last)
        if outputs is not None:
            outputs += [raw, x]
        if self.projection is not None:
            x = self.projection(x)
        assert x.shape[-1] == (config.d if config.tie else config.hidden_size)
        return x, after

    def logits(self, hidden: Tensor) -> Tensor:
        """Unnormalised log probabilities of the next token, [..., |V|]."""
        return cast(Tensor, self.decoder(hidden))

    def _embed(self, tokens: Tensor) -> Tensor:
        weight = self.embedding.weight
        if self.training and self.config.embedding_dropout:
            keep = weight.new_ones(self.vocabulary, 1)
            weight = weight * F.dropout(keep, self.config.embedding_dropout)
        return F.embedding(tokens, weight)

    def _drop(self, x: Tensor) -> Tensor:
        if not (self.training and self.config.dropout):
            return x
        if not self.config.locked and not self.share:
            return F.dropout(x, self.config.dropout)
        k, rows = self.share or (
            x.shape[1],
            slice(None),
        )  # every process draws the masks of all k rows, so that they do not depend on the division
        return x * F.dropout(x.new_ones(1 if self.config.locked else len(x), k, x.shape[2]), self.config.dropout)[:, rows]

    def _recur(self, layer: nn.Module, x: Tensor, state: Any, reset: Tensor | None) -> tuple[Tensor, Any]:
        if not (self.training and self.config.weight_drop):
            return cast(tuple[Tensor, Any], layer(x, state, reset=reset))
        dropped = F.dropout(cast(Tensor, layer.weight_hh_l0), self.config.weight_drop)
        return cast(
            tuple[Tensor, Any],
            torch.func.functional_call(layer, {"weight_hh_l0": dropped}, (x, state), {"reset": reset}, strict=False),
        )


def detach(state: State) -> State:
    """The state without its graph: the place where truncated BPTT truncates."""
    return [tuple(s.detach() for s in part) if isinstance(part, tuple) else part.detach() for part in state]


def flatten(state: State) -> list[Tensor]:
    """The state's tensors in a fixed order, for checkpoints."""
    return [t for part in state for t in (part if isinstance(part, tuple) else (part,))]


def unflatten(tensors: list[Tensor], pairs: bool) -> State:
    """The inverse of ``flatten``; ``pairs`` for the LSTM."""
    return [(h, c) for h, c in zip(tensors[::2], tensors[1::2], strict=True)] if pairs else list(tensors)


def in_halves(
    model: LanguageModel, tokens: Tensor, state: State, reset: Tensor | None, outputs: list[Tensor] | None = None
) -> tuple[Tensor, State]:
    """``model(tokens, state, reset, outputs)`` with products in bfloat16; parameters, results and the state between batches are
    float32.

    The state's numbers are representable in bfloat16. On a CPU all layers but oneDNN's LSTM carry float32 within a batch, so
    their state is rounded where the text is cut into batches; for the LSTM a cut makes no difference.
    """
    with torch.autocast(tokens.device.type, torch.bfloat16, cache_enabled=False):  # a CUDA graph must not find a cached weight
        hidden, after = model(tokens, state, reset, outputs)
    return hidden.float(), unflatten([t.float() for t in flatten(after)], pairs=model.config.cell == "lstm")
