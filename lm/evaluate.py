"""How well a model predicts a text: loss, perplexity, bits per byte."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch

import kernels
from lm.model import LanguageModel
from lm.streams import IGNORED, Stream
from lm.tokens import EOS

WINDOW = 256  # tokens a row between two looks at the clock; does not change the result


@dataclass(frozen=True)
class Score:
    """``loss`` in nats a token, ``perplexity`` = exp(loss), ``bits_per_byte`` of the raw text, spelling included."""

    loss: float
    perplexity: float
    bits_per_byte: float
    tokens: int

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def evaluate(
    model: LanguageModel,
    stream: Stream,
    *,
    rows: int = 1,
    resets: bool = False,
    backend: str | None = None,
    between: Callable[[], None] = lambda: None,
) -> Score:
    """Score every token of a stream once, the state carried from start to end, in float32.

    The first token is predicted from <eos>, the last from all before it. With more ``rows`` the stream is cut into that
    many parts, each begun from h = 0 behind the token before it, which costs those tokens their history.

    Args:
        resets: whether the state is zero before each <eos>, as in training with ``--state document``.
        between: called between windows; may raise to stop.
    """
    device = model.embedding.weight.device
    inputs = np.concatenate([[EOS], stream.ids[:-1]]).astype(np.int64)
    length = -(-len(inputs) // rows)
    missing = rows * length - len(inputs)
    inputs = np.pad(inputs, (0, missing)).reshape(rows, length)
    targets = np.pad(stream.ids.astype(np.int64), (0, missing), constant_values=IGNORED).reshape(rows, length)
    training = model.training
    model.eval()
    nats = 0.0
    with torch.no_grad():
        state = model.zero_state(rows)
        for begin in range(0, length, WINDOW):
            between()
            window = torch.from_numpy(inputs[:, begin : begin + WINDOW]).to(device)
            target = torch.from_numpy(targets[:, begin : begin + WINDOW]).to(device)
            hidden, state = model(window, state, window == EOS if resets else None)
            loss = kernels.linear_cross_entropy(
                hidden.flatten(0, 1),
                model.decoder.weight,
                target.t().flatten(),
                linear_bias=model.decoder.bias,
                reduction="sum",
                backend=backend,
            )
            nats += float(loss)
    model.train(training)
    loss_per_token = nats / len(stream.ids)
    perplexity = math.exp(loss_per_token) if loss_per_token < 700 else math.inf
    return Score(loss_per_token, perplexity, stream.bits_per_byte(nats), len(stream.ids))
