"""The records of a training: steps.jsonl, epochs.jsonl, samples.jsonl, its lines on the screen, and its checkpoints.

A checkpoint holds everything that the next update depends on: the position, the weights, the optimizer's tensors, the carried
state, torch's random state, and the length of each log, so that records after a crash can be cut off.
"""

import json
import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from recurrent_lm.lm.base.console import clock
from recurrent_lm.lm.base.errors import Diverged
from recurrent_lm.lm.base.progress import Display, figures
from recurrent_lm.lm.base.storage import write_atomic
from recurrent_lm.lm.generation import Draws, generate_batch
from recurrent_lm.lm.model import flatten, unflatten
from recurrent_lm.lm.runs import checkpoint
from recurrent_lm.lm.runs import folder as runs
from recurrent_lm.lm.runs.logs import Log, Mark
from recurrent_lm.lm.scoring.evaluate import Score
from recurrent_lm.lm.text.prompt import prompt_of
from recurrent_lm.lm.training import optimizer
from recurrent_lm.lm.training.step import Update

if TYPE_CHECKING:
    from recurrent_lm.lm.training.loop import Training

DIVERGED = "diverged.json"
LENGTHS = {"word": 60, "bpe": 90, "char": 300}  # tokens of a recorded text, a few lines
TEMPERATURE = 0.8


@dataclass
class Position:
    """The position of a training; ``batch`` is the next batch of the running epoch."""

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
    """The logs and the display of one training; with several processes, of the first."""

    def __init__(self, training: "Training") -> None:
        self._training = training
        self._logs: tuple[Log, ...] = ()
        self.marks: dict[str, Mark] = {}  # of the logs, as of the last checkpoint
        self.latest: dict[str, Any] = {}  # the last epoch's record, its text included

    @contextmanager
    def kept(self, quiet: bool) -> Iterator[None]:
        """Keep logs and display open during the block."""
        with Display(self._training.total_steps(), self._training.at.step, "step", quiet) as self._display:
            try:
                self.open()
                if self._logs:
                    (self._training.path / DIVERGED).unlink(missing_ok=True)  # of a training that continues now
                yield
            except Diverged as error:
                self._diverged(error)
                raise
            finally:
                self.close()

    def open(self) -> None:
        """Open the logs, cut back to the training's position."""
        training = self._training
        if training.ranks.first:
            names = ("steps.jsonl", "epochs.jsonl", "samples.jsonl")[: 3 if training.config.training.texts else 2]
            for name in names:
                key, last = ("step", training.at.step) if name == "steps.jsonl" else ("epoch", training.at.epoch)
                self._logs += (Log(training.path / name, key, last, self.marks.get(name)),)

    def close(self) -> None:
        """Close the logs; checkpoints until ``open`` keep their marks."""
        for log in self._logs:
            log.close()
        self._logs = ()

    def sync(self) -> None:
        """Flush the logs to the disk and mark their ends."""
        for log in self._logs:
            log.sync()
            self.marks[log.name] = log.mark

    def line(self, text: str) -> None:
        """Print a line."""
        self._display.line(text)

    def step(self, update: Update, tokens: int) -> None:
        """Record the last update."""
        if not self._training.ranks.first:
            return
        at = self._training.at
        record = {"step": at.step, "epoch": at.epoch + 1, "loss": update.loss, "grad_norm": update.norm}
        self._logs[0].write(record | {"clipped": update.clipped, "lr": at.lr, "tokens": tokens})
        mean = at.nats / at.tokens
        shown = {
            "loss": mean,
            "perplexity": math.exp(min(mean, 700)),
            "bits_per_byte": self._bits_per_byte(mean),
            "grad_norm": update.norm,
            "tokens_per_second": at.tokens / max(at.seconds, 1e-9),
        }
        self._display.show(at.step, f"epoch {at.epoch + 1} {figures(shown)}")

    def epoch(self, score: Score, improved: bool) -> str:
        """Record the running epoch with its validation, and print its line."""
        at = self._training.at
        train_loss, speed = at.nats / max(at.tokens, 1), at.tokens / max(at.seconds, 1e-9)
        record = {
            "epoch": at.epoch + 1,
            "step": at.step,
            "train_loss": train_loss,
            "train_bits_per_byte": self._bits_per_byte(train_loss),
            "valid_loss": score.loss,
            "valid_perplexity": score.perplexity,
            "valid_bits_per_byte": score.bits_per_byte,
            "lr": at.lr,
            "improved": improved,
            "seconds": round(at.seconds, 3),
            "tokens_per_second": round(speed),
            "trimmed_tokens": self._training.batches.trimmed,
        }
        self.latest = record
        if self._training.ranks.first:
            self._logs[1].write(record)
        shown = {"train_loss": train_loss, "valid_loss": score.loss, "perplexity": score.perplexity}
        if score.unknown_tokens:
            shown["unknown"] = score.unknown_tokens / score.tokens
        shown |= {"bits_per_byte": score.bits_per_byte, "tokens_per_second": speed}
        return f"epoch {at.epoch + 1}: {figures(shown)} {clock(at.seconds)}"

    def text(self, improved: bool) -> None:
        """Let the validated model write a text, and record it: the same prompt and the same draws after every epoch.

        The draws come from a separate generator, and the carried state is not touched, so no loss depends on the text.
        """
        training = self._training
        if not (training.ranks.first and training.config.training.texts):
            return
        config, tokenizer, model = training.config, training.data.tokenizer, training.scored
        prompt = config.training.sample or prompt_of(training.data) or None
        draws = Draws(LENGTHS[config.tokens.kind], TEMPERATURE, seed=config.training.seed % 2**62)
        learning = model.training
        model.eval()
        (sample,) = generate_batch(runs.Run(training.path, config, tokenizer, model, {}), prompt, 1, draws)
        model.train(learning)
        record: dict[str, Any] = {"epoch": training.at.epoch + 1, "step": training.at.step, "improved": improved}
        record |= {"prompt": prompt or "", "text": sample.text, "temperature": TEMPERATURE, "ended": sample.ended}
        self._logs[2].write(record)
        self.latest |= {"prompt": record["prompt"], "text": sample.text}

    def _bits_per_byte(self, loss: float) -> float:
        """Bits per byte of the training text, from its mean loss in nats a token."""
        train = self._training.data.train
        return train.bits_per_byte(loss * len(train.ids))

    def _diverged(self, error: Diverged) -> None:
        """Record the quantity that is not finite, and the norms before it."""
        training = self._training
        if training.ranks.first:
            record = {"step": training.at.step + 1, "epoch": training.at.epoch + 1, "what": error.what, "advice": error.advice}
            record |= {"grad_norms": list(training.recent)}
            write_atomic(training.path / DIVERGED, json.dumps(record, indent=1).encode())


def save(training: "Training", best: bool) -> None:
    """Save a checkpoint of the training; each of several ranks contributes its part of the carried state."""
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
    """Return the training to a checkpoint."""
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
