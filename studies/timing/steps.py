"""One whole training step of a language model: this project's trainer, and the loop that everybody writes.

Both do the same: forward, loss, backward, clipping of the norm, SGD, the state carried on, on the same batch each time.
"""

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurrent_lm import kernels, lm
from recurrent_lm.studies.timing import peers
from recurrent_lm.studies.timing.work import Peer, Tensors, Unavailable, Work, tolerance

OURS = {"kernels:torch": "torch", "kernels:triton": "triton"}
GRAPH = "kernels:triton-graph"
PLAIN = "torch.nn loop"  # by which the study training_step calls the plain loop
VARIANTS = (*OURS, GRAPH, "torch.nn", "torch.compile")
PRECISIONS = {"float32": "float32", "bfloat16": "bf16"}
CLIP, LR, WIDTH = 0.25, 1.0, 0.1

Step = Callable[[], float]  # does one update and returns its mean loss


@dataclass(frozen=True)
class Size:
    """Sizes of a model and its batch: |V|, H (also of embeddings), layers, k rows of L tokens; and its cell."""

    vocabulary: int
    hidden: int
    layers: int
    rows: int
    bptt: int
    cell: str = "lstm"

    @property
    def recurrent(self) -> int:
        """Number of the recurrent layers' weights."""
        return 2 * kernels.CELLS[self.cell].gates * self.layers * self.hidden**2

    @property
    def parameters(self) -> int:
        """Number of weights: embedding and decoder with H columns, and the layers'."""
        return 2 * self.vocabulary * self.hidden + self.recurrent

    def ids(self) -> Any:
        """Random tokens, equal in each call."""
        draws = np.random.default_rng(0).integers(0, self.vocabulary, self.rows * self.bptt * 4 + 1)
        return draws.astype(np.int32)

    def flops(self) -> float:
        """Operations of the products of a forward and a backward pass."""
        return 6.0 * self.rows * self.bptt * (self.vocabulary * self.hidden + self.recurrent)


def trainer(size: Size, precision: str, backend: str = "torch", device: str = "cpu") -> tuple[Step, nn.Module]:
    """This project's update, and the model that it changes."""
    training = _training(size, precision, backend, device)
    return lambda: training.update(training.batches[0])[0], training.model


def graphed(size: Size, precision: str, backend: str, device: str) -> tuple[Step, Step, lm.Training]:
    """This project's update as a CUDA graph.

    Returns:
        The trainer's call, which begins an update and returns the loss of the one before; a call that makes an update and
        returns its own loss; and the training, whose carried state may be replaced between updates.
    """
    training = _training(size, precision, backend, device)
    training.graph = graph = lm.Graph(training)
    batch = training.batches[0]
    waiting: deque[Callable[[], tuple[float, float, bool]]] = deque()
    count = itertools.count()

    def step() -> float:
        waiting.append(graph.begin(batch, next(count)))
        return waiting.popleft()()[0] if len(waiting) > 1 else math.nan

    def at_once() -> float:
        while waiting:
            waiting.popleft()()
        return graph.begin(batch, next(count))()[0]

    return step, at_once, training


def _training(size: Size, precision: str, backend: str, device: str) -> lm.Training:
    config = lm.RunConfig(
        batches=lm.BatchConfig(rows=size.rows, bptt=size.bptt),
        model=lm.ModelConfig(
            cell=size.cell, hidden_size=size.hidden, layers=size.layers, tie=False, dropout=0.0, init_width=WIDTH
        ),
        training=lm.TrainingConfig(optimizer="sgd", lr=LR, clip=f"norm:{CLIP}"),
        machine=lm.MachineConfig(device=device, threads=torch.get_num_threads(), precision=precision, backend=backend),
    )
    ids = size.ids()
    stream = lm.Stream(ids, len(ids), 0.0)
    data = lm.Data(lm.Corpus("random", []), None, stream, stream, stream)  # type: ignore[arg-type]
    torch.manual_seed(0)
    training = lm.Training(config, data, Path(), lm.LanguageModel(size.vocabulary, config.model, backend))
    training.model.train()
    return training


def plain(
    size: Size, device: str = "cpu", dtype: torch.dtype = torch.float32, autocast: bool = False, compiled: bool = False
) -> tuple[Step, nn.Module]:
    """The loop around torch.nn's layers, nn.Linear and F.cross_entropy; weights are drawn in float32 whatever ``dtype`` is."""
    torch.manual_seed(0)
    layers = {
        "embedding": nn.Embedding(size.vocabulary, size.hidden),
        "rnn": peers.MODULES[size.cell](size.hidden, size.hidden, size.layers),
        "decoder": nn.Linear(size.hidden, size.vocabulary),
    }
    model = nn.ModuleDict(layers)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -WIDTH, WIDTH)
    model.to(device, dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    batch = lm.Batches(size.ids(), size.rows, size.bptt)[0]
    zero = torch.zeros(size.layers, size.rows, size.hidden, device=device, dtype=dtype)
    state: Any = (zero, zero) if size.cell == "lstm" else zero

    def loss_of(inputs: Tensor, targets: Tensor, state: Any) -> tuple[Tensor, Any]:
        hidden, carried = model["rnn"](model["embedding"](inputs), state)
        return F.cross_entropy(model["decoder"](hidden.flatten(0, 1)), targets), carried

    forward = peers.compiled(loss_of) if compiled else loss_of

    def step() -> float:
        nonlocal state
        inputs = torch.from_numpy(batch.inputs.T).to(device, torch.long)
        targets = torch.from_numpy(batch.targets.T).flatten().to(device)
        optimizer.zero_grad()
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=autocast):
            loss, carried = forward(inputs, targets, state)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        state = tuple(s.detach() for s in carried) if size.cell == "lstm" else carried.detach()
        return loss.item()

    return step, model


def training(size: Size, dtype: str, device: str = "cpu") -> Work:
    """A step as a work: from the same weights, the loss and the change of every parameter must be those of float64.

    In bfloat16 each side does what it offers: the trainer's bf16 products, autocast around the plain loop.
    """
    autocast = dtype == "bfloat16"

    def peer(make: Callable[[], tuple[Step, nn.Module]]) -> Peer:
        step, model = make()
        _copy(start, model.parameters())
        return Peer(step, lambda: _first(step, model))

    def precision() -> str:
        if dtype not in PRECISIONS:
            raise Unavailable(f"the trainer has no {dtype}; it has {', '.join(PRECISIONS)}")
        return PRECISIONS[dtype]

    def ours(backend: str) -> tuple[Step, nn.Module]:
        return trainer(size, precision(), backend, device)

    def recorded() -> Peer:
        if not device.startswith("cuda"):
            raise Unavailable("a CUDA graph needs a GPU")
        step, at_once, graph = graphed(size, precision(), "triton", device)

        def result() -> Tensors:
            for _ in range(5):  # until it is recorded
                at_once()
            _copy(start, graph.model.parameters())
            graph.state = graph.model.zero_state(size.rows)
            return _first(at_once, graph.model)

        return Peer(step, result)

    start = [p.detach().clone() for p in plain(size, device)[1].parameters()]
    makers: dict[str, Callable[[], tuple[Step, nn.Module]]] = {
        **{name: partial(ours, backend) for name, backend in OURS.items()},
        "torch.nn": lambda: plain(size, device, autocast=autocast),
        "torch.compile": lambda: plain(size, device, autocast=autocast, compiled=True),
    }
    truth = peer(lambda: plain(size, device, torch.float64)).result()
    textbook = peer(makers["torch.nn"]).result()
    return Work(
        {name: partial(peer, make) for name, make in makers.items()} | {GRAPH: recorded},
        reference=lambda name: truth,
        allowed=tolerance(textbook, truth, torch.bfloat16 if autocast else torch.float32),
        flops=size.flops(),
        bytes=float("nan"),  # the least traffic of a step is not defined
    )


def _first(step: Step, model: nn.Module) -> Tensors:
    """The loss of a step, and the change of each parameter."""
    before = [p.detach().to(torch.float64, copy=True) for p in model.parameters()]
    loss = step()
    moved = tuple(p.detach().double() - b for p, b in zip(model.parameters(), before, strict=True))
    return (torch.tensor(loss, dtype=torch.float64), *moved)


def _copy(values: Iterable[Tensor], parameters: Iterable[Tensor]) -> None:
    with torch.no_grad():
        for value, parameter in zip(values, parameters, strict=True):
            parameter.copy_(value)
