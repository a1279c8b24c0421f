"""One training on several processes, which divide the k rows of a batch and are equal in everything else.

Each process (rank) reads its k / N rows and carries their state. An update exchanges one buffer of 4 (P + 4) bytes, P being the
number of parameters: a rank's part of the mean loss's gradient, the sum of its losses, the number of its tokens, and whether
SIGINT or SIGTERM has arrived. A ring sends and receives 2 (N - 1) / N of that at each rank. Afterwards every rank has the same
mean gradient over the tokens of the whole batch, clips it by its own norm and makes the same update; the weights stay equal bit
by bit, which is checked at each checkpoint. All ranks draw the dropout masks of all rows and use their own, so losses and
checkpoints depend on N only through the order of float32 sums.

Only the first rank prepares the text, makes the run folder, validates, logs and writes; its checkpoints are those of one
process. Gradients travel by NCCL between GPUs, everything else by gloo on the CPU. This has never run on GPUs: there torchrun
is expected to end a rank that waits for a dead one after 30 seconds, without a sentence.
"""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.model import flatten, unflatten

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    from recurrent_lm.lm.model import State

T = TypeVar("T")
TIMEOUT = timedelta(minutes=10)  # for a machine that does not answer; a process that ended is noticed at once
BEAT = 1.0  # seconds between the first rank's messages to the waiting ones, however long its work takes
SIGNALS = (2, 15)  # SIGINT, SIGTERM


class Lost(InputError):
    """Another process of this training has ended or does not answer."""


class Alone:
    """A single process: each exchange returns its input. ``Ranks`` is the same for several."""

    rank, size = 0, 1
    reduction = "mean"  # of the loss that ``reduce`` takes

    @property
    def first(self) -> bool:
        """Whether this is the rank that prepares, validates, logs and writes."""
        return self.rank == 0

    def rows(self, k: int) -> slice:
        """This rank's part of the k rows."""
        return slice(None)

    def part(self, state: "State") -> "State":
        """The carried state of this rank's rows, from that of all k."""
        return state

    def whole(self, tensors: "list[Tensor]") -> "list[Tensor]":
        """The carried state of all k rows, from this rank's: [1, k / N, H] tensors to [1, k, H]."""
        return tensors

    def upstream(self, loss: "Tensor", whole: int) -> "Tensor | None":
        """The factor of a rank's loss in its backward pass, for the mean over the tokens of the ``whole`` batch."""
        return None

    def reduce(self, model: "nn.Module", loss: "Tensor", targets: "Tensor", signum: int) -> "Tensor":
        """Replace each gradient by that of the mean loss over the tokens of all ranks, and return that loss, a scalar.

        With several ranks this also exchanges signals.
        """
        return loss

    def agree(self, signum: int) -> int:
        """The signal that any rank has received, or 0; equal on all ranks."""
        return signum

    def agreed(self, signum: int) -> int:
        """The result of the last ``reduce`` or ``agree``, without an exchange."""
        return signum

    def by_first(self, work: Callable[[Callable[[], None]], T], between: Callable[[], None]) -> T:
        """The result of ``work`` on the first rank; it calls ``between`` now and then, which may raise to stop."""
        return work(between)

    def check_same(self, model: "nn.Module") -> None:
        """Refuse to continue if the weights differ between ranks in any bit."""


ALONE = Alone()


class Ranks(Alone):
    """The process group that this process has joined."""

    reduction = "sum"

    def __init__(self, rank: int, size: int, store: "TCPStore") -> None:
        self.rank, self.size, self.store = rank, size, store
        self._agreed = 0
        self._done = self._over = False

    def rows(self, k: int) -> slice:
        return slice(self.rank * k // self.size, (self.rank + 1) * k // self.size)

    def part(self, state: "State") -> "State":
        pairs = bool(state) and isinstance(state[0], tuple)
        return unflatten([t[:, self.rows(t.shape[1])] for t in flatten(state)], pairs)

    def whole(self, tensors: "list[Tensor]") -> "list[Tensor]":
        gathered = []
        for tensor in tensors:
            mine = tensor.detach().cpu().contiguous()
            parts = [torch.empty_like(mine) for _ in range(self.size)]
            self._exchange(dist.all_gather, parts, mine)
            gathered.append(torch.cat(parts, dim=1))
        return gathered

    def upstream(self, loss: "Tensor", whole: int) -> "Tensor | None":
        return torch.full_like(loss, 1 / whole)  # before the backward pass: gradients of sums over all tokens overflow earlier

    def reduce(self, model: "nn.Module", loss: "Tensor", targets: "Tensor", signum: int) -> "Tensor":
        parameters = [p for p in model.parameters() if p.grad is not None]
        counted = (targets >= 0).sum().to(loss.dtype)
        gradients = [p.grad.flatten() for p in parameters if p.grad is not None]
        buffer = torch.cat([*gradients, torch.stack([loss, counted]), loss.new_tensor([signum == s for s in SIGNALS])])
        self._exchange(dist.all_reduce, buffer)
        nats, tokens, *signals = buffer[-4:].tolist()
        self._note(signals)
        at = 0
        for p in parameters:
            p.grad = buffer[at : at + p.numel()].view_as(p)
            at += p.numel()
        return torch.tensor(nats / tokens, dtype=torch.float64)

    def agree(self, signum: int) -> int:
        flags = torch.tensor([float(self._done), *(float(signum == s) for s in SIGNALS)])
        self._exchange(dist.all_reduce, flags)
        done, *signals = flags.tolist()
        self._over = done > 0
        self._note(signals)
        return self._agreed

    def agreed(self, signum: int) -> int:
        return self._agreed

    def by_first(self, work: Callable[[Callable[[], None]], T], between: Callable[[], None]) -> T:
        self._done = self._over = False
        if not self.first:
            while not self._over:
                between()
            return self.send(None)
        beat = time.monotonic()

        def tick() -> None:
            nonlocal beat
            if time.monotonic() - beat > BEAT:
                between()
                beat = time.monotonic()

        result = work(tick)
        self._done = True
        between()
        return self.send(result)

    def check_same(self, model: "nn.Module") -> None:
        bits = [int(p.detach().view(torch.int32).sum(dtype=torch.int64)) for p in model.parameters()]
        sums = self.collect(bits)
        if other := [rank for rank, checksum in enumerate(sums) if checksum != sums[0]]:
            raise InputError(
                f"rank {other[0]} no longer has the same weights as rank 0; the last checkpoint is intact. Train on machines "
                "with the same processors and the same versions of everything"
            )

    def send(self, thing: T | None) -> T:
        """The first rank's value, on every rank."""

        box: list[Any] = [thing]
        self._exchange(dist.broadcast_object_list, box, src=0, device=torch.device("cpu"))
        return box[0]

    def collect(self, thing: T) -> list[T]:
        """Each rank's value, on every rank."""

        box: list[Any] = [None] * self.size
        self._exchange(dist.all_gather_object, box, thing)
        return box

    def _note(self, signals: list[float]) -> None:
        self._agreed = next((s for s, count in zip(SIGNALS, signals, strict=True) if count), 0)

    def _exchange(self, collective: Callable[..., Any], *arguments: Any, **how: Any) -> None:
        try:
            collective(*arguments, **how)
        except RuntimeError as error:
            silent = "imed out" in str(error)
            raise Lost(f"another process of this training {'does not answer' if silent else 'has ended'}") from None
