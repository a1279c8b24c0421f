"""Documents as one stream of ids, and the stream as the lecture's [k, L] batches."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.text.corpora import Piece
from recurrent_lm.lm.text.tokens import EOS, Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

IGNORED = -100  # a target that does not count, as in torch's cross_entropy


@dataclass(frozen=True)
class Stream:
    """A split as tokens: ``ids`` [T], the bytes of its raw text, the spelling cost of its unknown words in nats, and the number
    of unknown tokens.
    """

    ids: "NDArray[np.int32]"
    bytes: int
    spelling_nats: float
    unknown: int = 0

    def bits_per_byte(self, nats: float) -> float:
        """Bits per byte of the raw text, for a loss of ``nats`` on all T tokens."""
        return float((nats + self.spelling_nats) / np.log(2) / max(self.bytes, 1))


def encode(pieces: list[Piece], tokenizer: Tokenizer, eos_bytes: int = 0) -> Stream:
    """Encode a split's pieces as one stream, with <eos> after each document that ends in the split.

    Args:
        pieces: of the split, in order.
        tokenizer: of the run.
        eos_bytes: bytes of the raw text that an <eos> stands for, such as a newline.

    Returns:
        The stream.
    """
    ids: list[int] = []
    size, nats, unknown = 0, 0.0, 0
    for piece in pieces:
        encoded = tokenizer.read(piece.text)
        ids += encoded.ids
        size += len(tokenizer.raw(piece.text).encode("utf-8"))
        nats += encoded.spelling_nats
        unknown += encoded.unknown
        if piece.ends:
            ids.append(EOS)
            size += eos_bytes
    return Stream(np.asarray(ids, dtype=np.int32), size, nats, unknown)


@dataclass(frozen=True)
class Batch:
    """Inputs and targets [k, n] (n = L except in a short last batch), and whether a document begins, [k, n] bool."""

    inputs: "NDArray[np.int32]"
    targets: "NDArray[np.int64]"
    begins: "NDArray[np.bool_]"

    def part(self, rows: slice) -> "Batch":
        """The batch of some of its rows."""
        return Batch(self.inputs[rows], self.targets[rows], self.begins[rows])


class Batches:
    """The lecture's mini-batches of a stream x(1) .. x(T) (slide Mini batches, data preparation).

    The stream is cut into k sub-corpora of tau = T // k tokens. Batch s (from 0) is a [k, L] tensor whose row j (from 0) is x(j
    tau + s L + 1) .. x(j tau + (s+1) L); if L does not divide tau the last batch is shorter. Targets are the same shifted by
    one: the last target of a row is the first token of the next row, and that of the last row is the first trimmed token. If
    none was trimmed this one target does not exist and does not count (-100; with k = 1 that position is left out). The last
    ``trimmed`` = T - k tau tokens are not read as inputs.

    Args:
        ids: [T].
        rows: k.
        bptt: L.

    Raises:
        InputError: if the stream is too short to give every row a token.
    """

    def __init__(self, ids: "NDArray[np.int32]", rows: int, bptt: int) -> None:
        if len(ids) < max(rows, 2):
            raise InputError(
                f"a text of {len(ids)} tokens is too short for --rows {rows}, which needs at least {max(rows, 2)}; "
                "take fewer rows, or more text"
            )
        self.rows, self.bptt = rows, bptt
        self.tau = len(ids) // rows
        self.trimmed = len(ids) - rows * self.tau
        used = rows * self.tau
        targets = ids[1 : used + 1].astype(np.int64)
        if not self.trimmed:
            targets = np.append(targets, IGNORED)
        columns = self.tau if rows > 1 else self.tau - 1
        self._inputs = ids[:used].reshape(rows, self.tau)[:, :columns]
        self._targets = targets.reshape(rows, self.tau)[:, :columns]

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-self._inputs.shape[1] // self.bptt)

    def __getitem__(self, s: int) -> Batch:
        if not 0 <= s < len(self):
            raise IndexError(f"pass {s} of {len(self)}")
        columns = slice(s * self.bptt, (s + 1) * self.bptt)
        inputs = self._inputs[:, columns]
        # <eos> opens the document that follows it, as it does in generation, so the state is zero before it.
        return Batch(inputs, self._targets[:, columns], inputs == EOS)

    def __iter__(self) -> Iterator[Batch]:
        return (self[s] for s in range(len(self)))
