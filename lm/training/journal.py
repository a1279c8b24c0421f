"""What a training writes down: steps.jsonl, epochs.jsonl, its lines on the screen, and checkpoints to go on from.

A checkpoint holds everything that the next update depends on: the position, the weights, the optimizer's tensors, the carried
state and torch's random state; and how far each log counts, so that what a crash leaves behind that is cut off.
"""

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import torch

from recurrent_lm.lm.base.console import clock
from recurrent_lm.lm.base.progress import Display, figures
from recurrent_lm.lm.model import flatten, unflatten
from recurrent_lm.lm.runs import checkpoint
from recurrent_lm.lm.runs import folder as runs
from recurrent_lm.lm.runs.logs import Log, Mark
from recurrent_lm.lm.scoring.evaluate import Score
from recurrent_lm.lm.training import optimizer
from recurrent_lm.lm.training.step import Update

if TYPE_CHECKING:
    from recurrent_lm.lm.training.loop import Training


@dataclass
class Position:
    """Where a training stands; ``batch`` is the next pass of the running epoch."""

    lr: float
    step: int = 0
    epoch: int = 0
    batch: int = 0
    nats: float = 0.0  # of the running epoch, with its tokens
    tokens: int = 0
    seconds: float = 0.0
    best_loss: float = math.inf
    best_epoch: int = 0
    stalled: int = 0
    rollbacks: int = 0


class Journal:
    """The logs and the display of one training; of several processes the first one's."""

    def __init__(self, training: "Training") -> None:
        self._training = training
        self._logs: tuple[Log, ...] = ()
        self.marks: dict[str, Mark] = {}  # of the logs, as of the last checkpoint

    @contextmanager
    def kept(self, quiet: bool) -> Iterator[None]:
        """Logs and display are open meanwhile."""
        with Display(self._training.total_steps(), self._training.at.step, "step", quiet) as self._display:
            try:
                self.open()
                yield
            finally:
                self.close()

    def open(self) -> None:
        """The logs, cut back to where the training stands."""
        training = self._training
        if training.ranks.first:
            for key, last in (("step", training.at.step), ("epoch", training.at.epoch)):
                name = f"{key}s.jsonl"
                self._logs += (Log(training.path / name, key, last, self.marks.get(name)),)

    def close(self) -> None:
        """Close the logs; checkpoints until ``open`` leave their marks as they are."""
        for log in self._logs:
            log.close()
        self._logs = ()

    def sync(self) -> None:
        """Let the logs reach the disk, and mark where they end."""
        for log in self._logs:
            log.sync()
            self.marks[log.name] = log.mark

    def line(self, text: str) -> None:
        """A line for people."""
        self._display.line(text)

    def step(self, update: Update, tokens: int) -> None:
        """Record the update that has brought the training where it stands."""
        if not self._training.ranks.first:
            return
        at, train = self._training.at, self._training.data.train
        record = {"step": at.step, "epoch": at.epoch + 1, "loss": update.loss, "grad_norm": update.norm}
        self._logs[0].write(record | {"clipped": update.clipped, "lr": at.lr, "tokens": tokens})
        mean = at.nats / at.tokens
        shown = {
            "loss": mean,
            "perplexity": math.exp(min(mean, 700)),
            "bits_per_byte": train.bits_per_byte(mean * len(train.ids)),
            "grad_norm": update.norm,
            "tokens_per_second": at.tokens / max(at.seconds, 1e-9),
        }
        self._display.show(at.step, f"epoch {at.epoch + 1} {figures(shown)}")

    def epoch(self, score: Score, improved: bool) -> str:
        """Record the running epoch with its validation; its line for people."""
        at = self._training.at
        train_loss, speed = at.nats / max(at.tokens, 1), at.tokens / max(at.seconds, 1e-9)
        record = {
            "epoch": at.epoch + 1,
            "step": at.step,
            "train_loss": train_loss,
            "valid_loss": score.loss,
            "valid_perplexity": score.perplexity,
            "valid_bits_per_byte": score.bits_per_byte,
            "lr": at.lr,
            "improved": improved,
            "seconds": round(at.seconds, 3),
            "tokens_per_second": round(speed),
            "trimmed_tokens": self._training.batches.trimmed,
        }
        if self._training.ranks.first:
            self._logs[1].write(record)
        shown = {"train_loss": train_loss, "valid_loss": score.loss, "perplexity": score.perplexity}
        if score.unknown_tokens:
            shown["unknown"] = score.unknown_tokens / score.tokens
        shown |= {"bits_per_byte": score.bits_per_byte, "tokens_per_second": speed}
        return f"epoch {at.epoch + 1}: {figures(shown)} {clock(at.seconds)}"


def save(training: "Training", best: bool) -> None:
    """A checkpoint of where the training stands; each of several ranks gives its part of the carried state."""
    training.journal.sync()
    training.ranks.check_same(training.model)
    state = {f"carried.{i}": t for i, t in enumerate(training.ranks.whole(flatten(training.state)))}
    if not training.ranks.first:
        return
    state["random.cpu"] = torch.get_rng_state()
    if training.device.type == "cuda":
        state["random.cuda"] = torch.cuda.get_rng_state(training.device)
    groups = {
        "model": runs.weights_of(training.scored),
        "optimizer": optimizer.tensors(training.step.optimizer),
        "state": state,
    }
    if training.step.average:
        groups["moving"] = runs.weights_of(training.model)  # the weights that the optimizer moves
    at = training.at
    position = {k: (None if v == math.inf else v) for k, v in asdict(at).items()}
    meta = {"step": at.step, "position": position, "recent": list(training.recent), "data": training.fingerprint}
    meta |= {"logs": training.journal.marks, "files": training.files}
    checkpoint.save(training.path, checkpoint.Checkpoint(groups, meta), best=best)


def restore(training: "Training", saved: checkpoint.Checkpoint) -> None:
    """Let the training stand where a checkpoint stood."""
    if average := training.step.average:
        runs.load_weights(average.model, saved, training.path)
        saved = replace(saved, groups=saved.groups | {"model": saved.groups["moving"]})
    runs.load_weights(training.model, saved, training.path)
    optimizer.restore(training.step.optimizer, saved.groups["optimizer"])
    state = dict(saved.groups["state"])
    torch.set_rng_state(state.pop("random.cpu"))
    random_cuda = state.pop("random.cuda", None)
    if training.device.type == "cuda" and random_cuda is not None:
        torch.cuda.set_rng_state(random_cuda, training.device)
    carried = [state[f"carried.{i}"].to(training.device) for i in range(len(state))]
    if [t.shape for t in carried] != [t.shape for t in flatten(training.state)]:
        raise ValueError("its carried state has another shape than the settings say")
    training.state = unflatten(carried, pairs=training.config.model.cell == "lstm")
    position = saved.meta["position"]
    best_loss = math.inf if position["best_loss"] is None else position["best_loss"]
    training.at = replace(Position(**position), best_loss=best_loss)
    training.recent = deque(saved.meta["recent"], training.recent.maxlen)
    training.journal.marks, training.files = dict(saved.meta.get("logs", {})), saved.meta.get("files", {})
