"""A training's updates as one CUDA graph: the GPU's work of an update is recorded once and replayed by one launch.

An update of a small model is about a hundred kernels, each shorter than its launch. Recorded, they follow each other without
the host. Kernels address tensors in memory, so everything that differs between updates lies in buffers that stay in place:
tokens [k, L], targets [k, L], beginnings of documents, the carried state, the learning rate, the number of updates. No part of
an update may depend on a number that the host waits for: the update (``step.py``) has no judge, and loss and norm are read
while the next one runs. A divergence is therefore noticed one update late, when the weights are spoilt and the checkpoints are
not.

The first updates, and an epoch's last one if it is shorter than L, run without the graph.
"""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.config import RunConfig
from recurrent_lm.lm.model import flatten, unflatten
from recurrent_lm.lm.text.batches import Batch
from recurrent_lm.lm.training.step import Update

if TYPE_CHECKING:
    from recurrent_lm.lm.training.loop import Training

WARM = 3  # updates before the recording: they compile kernels, set up libraries and create the optimizer's state
AHEAD = 1  # updates that run while one is read; the host has a buffer for each, and one more


def check(config: RunConfig, processes: int) -> None:
    """Refuse settings whose updates cannot be recorded.

    Args:
        config: the run's settings.
        processes: how many train together.

    Raises:
        InputError: names the setting that prevents it.
    """
    if not config.machine.graph:
        return
    if not config.machine.device.startswith("cuda"):
        raise InputError("--graph is for a GPU, and this training is on the CPU; leave it out")
    if processes > 1:
        raise InputError("--graph works with one process only; leave it out")
    if config.batches.state == "document" and config.machine.backend == "torch":
        raise InputError(
            "--graph does not work with --state document on the torch backend, which reads where documents begin; "
            "take --backend triton, or leave --graph out"
        )


class Graph:
    """The updates of one training on one device; a restored optimizer needs a new graph.

    On a CPU nothing is recorded: the same work is done in the same buffers, one update after the other.
    """

    def __init__(self, training: "Training") -> None:
        self._training = training
        device, cuda = training.device, training.device.type == "cuda"
        config = training.config.batches
        size = (config.rows, config.bptt)
        self._tokens = torch.zeros(2, *size, dtype=torch.long, device=device)  # inputs and targets
        self._begins = torch.zeros(size, dtype=torch.bool, device=device) if config.state == "document" else None
        self._state = [torch.zeros_like(t, memory_format=torch.contiguous_format) for t in flatten(training.state)]
        self._rate = torch.zeros((), device=device)
        self._count = torch.zeros((), dtype=torch.float64, device=device)  # of the updates before
        results = 3 + len(list(training.model.parameters()))
        self._results = torch.zeros(results, dtype=torch.float64, device=device)  # a norm may be beyond float32
        self._host = [_Host(size, results, cuda) for _ in range(AHEAD + 1)]
        self._waiting: deque[tuple[Batch, Callable[[], Update]]] = deque()
        self._warm = 0
        self._side = torch.cuda.Stream(device) if cuda else None
        self._graph: torch.cuda.CUDAGraph | None = None
        for group in training.step.optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = cuda

    @property
    def ahead(self) -> int:
        """Number of updates that were begun and not read; the weights are that far ahead of the training's step."""
        return len(self._waiting)

    @property
    def recorded(self) -> bool:
        """Whether updates are being replayed."""
        return self._graph is not None

    def updates(self) -> Iterator[tuple[Batch, Update]]:
        """Make the remaining updates of the epoch in order, each with its batch.

        No update runs ahead of one after which a checkpoint is due, nor after a signal, so that weights and step agree there.
        """
        while True:
            while (batch := self._next()) is not None:
                self._waiting.append((batch, self.begin(batch, self._training.at.step + self.ahead)))
            if not self._waiting:
                return
            batch, read = self._waiting.popleft()
            yield batch, read()

    def _next(self) -> Batch | None:
        """The next batch, if it may begin now."""
        training, at = self._training, self._training.at
        before, settings = at.step + self.ahead, training.config.training
        if at.batch + self.ahead >= len(training.batches) or 0 < settings.max_steps <= before:
            return None
        batch = training.batches[at.batch + self.ahead]
        if self.ahead and (
            self.ahead > AHEAD or training.signum or before % settings.checkpoint_every == 0 or not self._fits(batch)
        ):
            return None
        return batch

    def _fits(self, batch: Batch) -> bool:
        return batch.inputs.shape == self._tokens.shape[1:]

    def begin(self, batch: Batch, before: int) -> Callable[[], Update]:
        """Begin an update after ``before`` others; returns a function that waits for it and returns its figures.

        At most ``AHEAD`` others may be unread.
        """
        training = self._training
        if not self._fits(batch):
            done = training.update(batch)
            return lambda: done
        host = self._host[before % len(self._host)]
        host.tokens[0].copy_(torch.from_numpy(batch.inputs))
        host.tokens[1].copy_(torch.from_numpy(batch.targets))
        self._tokens.copy_(host.tokens, non_blocking=True)
        if self._begins is not None:
            host.begins.copy_(torch.from_numpy(batch.begins))
            self._begins.copy_(host.begins, non_blocking=True)
        for mine, carried in zip(self._state, flatten(training.state), strict=True):
            if mine is not carried:  # zero, or the state of a checkpoint or of a shorter update
                mine.copy_(carried.detach())
        training.state = unflatten(self._state, pairs=training.config.model.cell == "lstm")
        self._rate.fill_(training.at.lr)
        self._count.fill_(before)
        self._run()
        host.results.copy_(self._results, non_blocking=True)
        host.record()
        return partial(self._read, host)

    def _read(self, host: "_Host") -> Update:
        loss, norm, clipped, *counts = host.wait()
        self._training.judge(loss, norm, counts)
        return Update(loss, norm, bool(clipped))

    def _run(self) -> None:
        """Run the update, recorded or not."""
        if self._side is None:
            self._update()
            return
        if self._warm == WARM:
            self._graph = self._record(torch.cuda.CUDAGraph())
        self._warm += 1
        if self._graph is not None:
            self._graph.replay()
            return
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            self._update()
        torch.cuda.current_stream().wait_stream(self._side)

    def _record(self, graph: torch.cuda.CUDAGraph) -> torch.cuda.CUDAGraph | None:
        """Record the update without running it; None, and a line for the user, if it cannot be recorded."""
        try:
            with torch.cuda.graph(graph):
                self._update()
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            self._training.journal.line(f"updates cannot be recorded as a CUDA graph ({reason}); continuing without one")
            return None
        return graph

    def _update(self) -> None:
        """The update from buffers to buffers."""
        training = self._training
        inputs, targets = self._tokens
        figures, after = training.step(inputs, targets, self._begins, training.state, self._rate, self._count)
        for mine, last in zip(self._state, flatten(after), strict=True):
            mine.copy_(last)
        self._results[:3].copy_(torch.stack([number.double() for number in figures[:3]]))
        assert figures.not_finite is not None
        self._results[3 : 3 + len(figures.not_finite)].copy_(figures.not_finite)


class _Host:
    """An update's inputs and results in pinned memory of the host."""

    def __init__(self, size: tuple[int, int], results: int, cuda: bool) -> None:
        self.tokens = torch.zeros(2, *size, dtype=torch.long, pin_memory=cuda)
        self.begins = torch.zeros(size, dtype=torch.bool, pin_memory=cuda)
        self.results = torch.zeros(results, dtype=torch.float64, pin_memory=cuda)
        self._done = torch.cuda.Event() if cuda else None

    def record(self) -> None:
        if self._done is not None:
            self._done.record()

    def wait(self) -> list[float]:
        if self._done is not None:
            self._done.synchronize()
        return self.results.tolist()
