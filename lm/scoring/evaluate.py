"""Scores of a model on a text: loss, perplexity, bits per byte, and the loss of every token."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from recurrent_lm import kernels
from recurrent_lm.lm.model import LanguageModel
from recurrent_lm.lm.text.batches import IGNORED, Stream
from recurrent_lm.lm.text.tokens import EOS

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW = 256  # tokens a row between two calls of ``between``; does not change the result
EXPLODED = 700.0  # nats a token; exp of more exceeds float64, so there is no perplexity
AT_ONCE = 2**16  # tokens of all rows in a window, which limits memory with many rows


@dataclass(frozen=True)
class Score:
    """``loss`` in nats a token, ``perplexity`` = exp(loss), ``bits_per_byte`` of the raw text with spelling; ``unknown_tokens``
    of the ``tokens`` are outside the vocabulary.
    """

    loss: float
    perplexity: float
    bits_per_byte: float
    tokens: int
    unknown_tokens: int = 0

    def as_dict(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def of(cls, losses: "NDArray[np.float64]", stream: Stream) -> "Score":
        """The score of a stream from the losses [T] of its tokens in nats."""
        nats = float(losses.sum())
        loss = nats / len(losses)
        return cls(loss, math.exp(loss) if loss < 700 else math.inf, stream.bits_per_byte(nats), len(losses), stream.unknown)


def evaluate(
    model: LanguageModel,
    stream: Stream,
    *,
    rows: int = 1,
    warmup: int = 0,
    resets: bool = False,
    backend: str | None = None,
    between: Callable[[], None] = lambda: None,
) -> Score:
    """Score every token of a stream once, with the state carried from start to end.

    Args:
        model: the language model; dropout is off meanwhile.
        stream: T tokens and the bytes of their text.
        rows, warmup, resets, between: as in ``token_losses``.
        backend: of the recurrence and the loss; None leaves the choice open.

    Returns:
        Loss in nats a token, perplexity, bits per byte and counts.
    """
    losses = token_losses(model, stream.ids, rows=rows, warmup=warmup, resets=resets, backend=backend, between=between)
    return Score.of(losses, stream)


def parts(tokens: int, rows: int) -> tuple[int, int]:
    """Number of rows, and of tokens in each but the last; rounding up may leave fewer rows than asked for."""
    length = -(-tokens // rows)
    return -(-tokens // length), length


def token_losses(
    model: LanguageModel,
    ids: "NDArray[np.int32]",
    *,
    rows: int = 1,
    warmup: int = 0,
    resets: bool = False,
    backend: str | None = None,
    between: Callable[[], None] = lambda: None,
) -> "NDArray[np.float64]":
    """-log P of each token given all before it, [T] in nats, in float32 and without dropout.

    The first token is predicted from <eos>. With more ``rows`` the ids are cut into that many equal parts, read side by
    side. Each part begins from h = 0, which costs its first tokens their history; with ``warmup`` the n tokens before
    each part are read first and not counted. With n = all tokens before it the losses are those of one row, up to rounding.

    Args:
        ids: [T].
        rows: parts read side by side; more are faster.
        warmup: uncounted tokens read before each part, fewer where a part has fewer before it.
        resets: whether the state is zero before each <eos>, as in training with ``--state document``.
        between: called between windows; may raise to stop.
    """
    device = model.embedding.weight.device
    rows, length = parts(len(ids), rows)
    warmup = min(warmup, (rows - 1) * length)
    before = np.concatenate([[EOS], ids[:-1]])
    losses = np.empty((rows, length))
    size = max(1, min(WINDOW, AT_ONCE // rows))
    training = model.training
    model.eval()
    with torch.no_grad():
        state = model.zero_state(rows)
        for begin in range(-warmup, length, size):
            between()
            columns = np.arange(begin, min(begin + size, length))
            at = np.arange(rows)[:, None] * length + columns  # [rows, size] positions in the text
            outside = (at < 0) | (at >= len(ids))
            clipped = at.clip(0, len(ids) - 1)
            inputs = np.where(outside, EOS, before[clipped]).astype(np.int64)
            fresh = (at == 0) & (warmup > 0)  # a row with fewer than n tokens before it begins here
            if resets:
                fresh |= inputs == EOS
            reset = torch.from_numpy(fresh).to(device) if fresh.any() else None
            hidden, state = model(torch.from_numpy(inputs).to(device), state, reset)
            if columns[-1] < 0:
                continue
            target = torch.from_numpy(np.where(outside | (columns < 0), IGNORED, ids[clipped]).astype(np.int64)).to(device)
            loss = kernels.linear_cross_entropy(
                hidden.flatten(0, 1),
                model.decoder.weight,
                target.t().flatten(),
                linear_bias=model.decoder.bias,
                reduction="none",
                backend=backend,
            )
            counted = loss.reshape(target.t().shape).t().double().cpu().numpy()[:, columns >= 0]
            losses[:, columns[columns >= 0]] = counted
    model.train(training)
    return losses.flatten()[: len(ids)]
