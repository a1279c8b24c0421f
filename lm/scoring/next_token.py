"""Predictions of a model: the distribution of the next token, P(v | prompt), and the surprise at each token of a text."""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.generation import encode_prompt
from recurrent_lm.lm.runs.folder import Run
from recurrent_lm.lm.text.advice import doubts
from recurrent_lm.lm.text.tokens import EOS, Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW = 256  # steps whose distributions are held at once


class Likely(NamedTuple):
    """A token that may come next: its text, P(v | prompt), -log2 of that, and its id."""

    word: str
    probability: float
    bits: float
    id: int


@dataclass(frozen=True)
class Next:
    """P(v | prompt): ``probabilities`` [|V|] in float64 with sum 1, and their ``entropy`` in nats."""

    probabilities: "NDArray[np.float64]"
    entropy: float
    tokenizer: Tokenizer = field(repr=False)

    @property
    def bits(self) -> float:
        """The entropy in bits."""
        return self.entropy / math.log(2)

    @property
    def unknown(self) -> float:
        """The probability of a word that the vocabulary lacks, whichever it is."""
        return math.fsum(float(self.probabilities[i]) for i in self.tokenizer.unknown_ids)

    def top(self, n: int = 10, unknown: bool = False) -> list[Likely]:
        """The n likeliest tokens, the likeliest first; <unk>, which is no word, is among them only if it is wished."""
        without = () if unknown else self.tokenizer.unknown_ids
        order = [i for i in map(int, np.argsort(-self.probabilities, kind="stable")) if i not in without][:n]
        return [self._likely(i, float(self.probabilities[i])) for i in order]

    def _likely(self, i: int, p: float) -> Likely:
        return Likely(self.tokenizer.show(i), p, -math.log2(p) if p else math.inf, i)

    def __str__(self) -> str:
        return "\n".join(f"{word!r:>16} {p:7.2%} {bits:6.2f} bits" for word, p, bits, _ in self.top())


def next_token(run: Run, prompt: str | None = None) -> Next:
    """Distribution of the token after a prompt that is read from h(0) = 0 (the lecture's P(v | "the students opened their")).

    Args:
        run: a trained model from ``lm.load``.
        prompt: the text before the token; None asks for the first token of a document.

    Returns:
        Probabilities [|V|] in float64 and their entropy.

    Raises:
        InputError: for an empty prompt.
    """
    ids = [EOS] if prompt is None else encode_prompt(run, prompt)
    log_p = deque(_windows(run, ids), maxlen=1)[0][-1]
    p = np.exp(log_p)
    return Next(p, float(-(p * np.where(p > 0, log_p, 0.0)).sum()), run.tokenizer)


@dataclass(frozen=True)
class Surprise:
    """A piece of a text and its cost: ``nats`` = -log P of its tokens, and ``spelling`` of an unknown word.

    ``tokens`` is 1, or more where a token has no text of its own, such as one byte of a character. ``rank`` counts from 1: one
    more than the number of other tokens that are likelier than the whole piece with its spelling. An unknown word therefore
    does not have the rank of <unk>, which stands for all unknown words together; other unknown words are not counted.
    ``expected`` are the three likeliest tokens at the beginning of the piece.
    """

    text: str
    nats: float
    spelling: float
    tokens: int
    rank: int
    expected: tuple[tuple[str, float], ...]

    @property
    def total(self) -> float:
        return self.nats + self.spelling


@dataclass(frozen=True)
class ScoredText:
    """A text piece by piece, with its size in ``bytes`` of ``raw_is`` ("the lower-cased text", or "" for the text itself), the
    number of tokens outside the vocabulary, and ``doubts``: warnings about the perplexity.
    """

    pieces: list[Surprise]
    bytes: int
    raw_is: str
    unknown_tokens: int = 0
    doubts: tuple[str, ...] = ()

    @property
    def nats(self) -> float:
        """-log P(text) with the spelling of unknown words."""
        return math.fsum(p.total for p in self.pieces)

    @property
    def tokens(self) -> int:
        return sum(p.tokens for p in self.pieces)

    @property
    def perplexity(self) -> float:
        """exp of the mean loss of a token, without spelling, as everywhere."""
        mean = math.fsum(p.nats for p in self.pieces) / self.tokens
        return math.exp(mean) if mean < 700 else math.inf

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / max(self.bytes, 1)


def score_text(run: Run, text: str) -> ScoredText:
    """-log P of each token of a text, read as one document with the state carried from start to end.

    Args:
        run: a trained model from ``lm.load``.
        text: the text, which need not be known to the vocabulary.

    Returns:
        The text piece by piece with its losses in nats, ranks and likeliest alternatives.

    Raises:
        InputError: for a text without tokens.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError("the text holds bytes that are not valid in this terminal's encoding; give it in UTF-8") from None
    tokenizer = run.tokenizer
    ids = tokenizer.encode(text)
    if not ids:
        raise InputError("there is no token in the text; give it some words")
    parts, unknowns = tokenizer.cut(text), tokenizer.unknowns(text)
    pieces: list[Surprise] = []
    nats, spelling, tokens = 0.0, 0.0, 0
    at, first, begin = 0, EOS, np.empty(0)
    for log_p in _windows(run, [EOS, *ids[:-1]]):
        for row in log_p:
            token, shown, unknown = ids[at], parts[at], unknowns[at]
            if unknown is not None:
                spelling += tokenizer.spelling_nats(unknown)
            nats, tokens, at = nats - float(row[token]), tokens + 1, at + 1
            if tokens == 1:
                begin, first = row, token
            if shown or at == len(ids):
                order = np.argpartition(-begin, min(3, len(begin) - 1))[:3]
                order = order[np.argsort(-begin[order], kind="stable")]
                expected = tuple((tokenizer.show(int(i)), math.exp(begin[i])) for i in order)
                likelier = begin > (begin[first] if tokens == 1 and not spelling else -nats - spelling)
                rank = 1 + int(likelier.sum()) - int(likelier[first])
                pieces.append(Surprise(shown, nats, spelling, tokens, rank, expected))
                nats, spelling, tokens = 0.0, 0.0, 0
    lacking, raw = tokenizer.unknown_tokens(text), len(tokenizer.raw(text).encode("utf-8"))
    return ScoredText(pieces, raw, tokenizer.raw_is, lacking, tuple(doubts(tokenizer, lacking, len(ids))))


def _windows(run: Run, inputs: list[int]) -> "Iterator[NDArray[np.float64]]":
    """log P(v | inputs up to here), [n, |V|], window by window."""
    model = run.model
    device = model.embedding.weight.device
    state = model.zero_state(1)
    for begin in range(0, len(inputs), WINDOW):
        with torch.no_grad():
            hidden, state = model(torch.tensor([inputs[begin : begin + WINDOW]], device=device), state)
            logits = model.logits(hidden[:, 0]).double()
            yield torch.log_softmax(logits, dim=1).cpu().numpy()
