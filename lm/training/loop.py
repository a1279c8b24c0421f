"""Training: truncated backpropagation through time with carried state, as one readable loop.

Each update (``step.py``) reads one [k, L] batch, continues from the state of the batch before it, and backpropagates through
these L steps only. The next update depends on ``Position``, the model, the optimizer, the carried state and torch's random
state; a checkpoint (``journal.py``) holds exactly these.
"""

import json
import math
import shlex
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from filelock import BaseFileLock

from recurrent_lm.lm.base.errors import Diverged, InputError, Stopped
from recurrent_lm.lm.base.machine import out_of_memory
from recurrent_lm.lm.base.signals import handled
from recurrent_lm.lm.base.storage import sealed, write_atomic
from recurrent_lm.lm.config import RunConfig
from recurrent_lm.lm.model import LanguageModel, State
from recurrent_lm.lm.resources import SMALLER
from recurrent_lm.lm.runs import checkpoint
from recurrent_lm.lm.runs import folder as runs
from recurrent_lm.lm.scoring.evaluate import EXPLODED, Score, evaluate
from recurrent_lm.lm.text.batches import Batch, Batches
from recurrent_lm.lm.text.data import Data
from recurrent_lm.lm.training import journal, optimizer
from recurrent_lm.lm.training.cuda_graph import Graph
from recurrent_lm.lm.training.diagnosis import advice, first_not_finite
from recurrent_lm.lm.training.journal import Journal, Position
from recurrent_lm.lm.training.ranks import Alone, Lost
from recurrent_lm.lm.training.rollback import Rollback
from recurrent_lm.lm.training.step import Step, Update


class Training:
    """One training of one model; ``run`` finishes it, or saves it and raises ``Stopped`` or ``Diverged``.

    Args:
        why: the reason for the precision, for people.
    """

    def __init__(self, config: RunConfig, data: Data, path: Path, model: LanguageModel, why: str = "") -> None:
        self.config, self.data, self.path, self.why = config, data, path, why
        self.device = torch.device(config.machine.device)
        self.model = model.to(self.device)
        self.step = Step(self.model, config)
        self.graph: Graph | None = None  # if there is one, it makes the updates
        self.batches = Batches(data.train.ids, config.batches.rows, config.batches.bptt)
        self.at = Position(lr=config.training.lr)
        self.state: State = self.model.zero_state(config.batches.rows)
        self.recent: deque[float] = deque(maxlen=8)  # gradient norms, for a diagnosis
        self.journal = Journal(self)
        self.rollback = Rollback(self)
        self.fingerprint = data.fingerprint()
        self.files: dict[str, str] = {}  # {name: SHA-256} of the files written when the run was begun
        self.notes: list[str] = []  # messages for the user who began or resumed it
        self.lock: BaseFileLock | None = None  # on the run folder, until ``run`` has ended
        self.signum = 0
        self.concluding = False

    @property
    def ranks(self) -> Alone:
        """The processes that share the rows."""
        return self.step.ranks

    # -- the loop ---------------------------------------------------------------------------------------------------

    def run(self, quiet: bool = False, each_epoch: "Callable[[Training], None] | None" = None) -> dict[str, Score]:
        """Train until the settings' limits.

        Args:
            quiet: print nothing.
            each_epoch: called before the first update and after each epoch's validation. It must not change the model, the
                carried state or torch's random numbers.

        Returns:
            The best model's scores on the validation and the test split.

        Raises:
            Stopped: after a signal, saved.
            Diverged: if a loss or gradient is not finite.
        """
        try:
            with self.signals():
                self._between()
                with self.journal.kept(quiet):
                    self._train(each_epoch or (lambda training: None))
                return self.conclude()
        except Lost as error:
            raise InputError(f"{error} after step {self.at.step}; the last checkpoint is intact, {self._go_on()}") from None
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise InputError(f"memory does not suffice after step {self.at.step}; {SMALLER} in a new run") from None
        finally:
            if self.lock:
                self.lock.release()

    def _train(self, each_epoch: "Callable[[Training], None]") -> None:
        each_epoch(self)
        while not self.finished():
            try:
                self.train_epoch()
                self.validate()
            except Diverged as error:
                self.rollback.after(error)  # raises it again if there is no good checkpoint
                continue
            each_epoch(self)

    def train_epoch(self) -> None:
        """Make the remaining updates of the running epoch."""
        at, config = self.at, self.config
        if at.batch == 0 and config.batches.state != "never":
            self.state = self.ranks.part(self.model.zero_state(config.batches.rows))
        begin, before = time.monotonic(), at.seconds
        self.model.train()
        if config.machine.graph and not self.graph:
            self.graph = Graph(self)
        for batch, update in self.graph.updates() if self.graph else self._updates():
            self.rollback.updated(update.loss)
            counted = _counted(batch)
            at.step += 1
            at.batch += 1
            at.nats += update.loss * counted
            at.tokens += counted
            at.seconds = before + time.monotonic() - begin
            self.journal.step(update, counted)
            if self.ranks.agreed(self.signum) and not (self.graph and self.graph.ahead):
                self._stop()
            if at.step % config.training.checkpoint_every == 0:
                self.save()

    def _updates(self) -> Iterator[tuple[Batch, Update]]:
        """Make one update after the other, each with its batch."""
        while self.at.batch < len(self.batches) and not self.out_of_steps():
            batch = self.batches[self.at.batch]
            yield batch, self.update(batch)

    def update(self, batch: Batch) -> Update:
        """Make one update, checked before the weights move; returns its figures."""
        mine = batch.part(self.ranks.rows(self.config.batches.rows))
        inputs = torch.from_numpy(mine.inputs).to(self.device, torch.long)
        targets = torch.from_numpy(mine.targets).to(self.device)
        document = self.config.batches.state == "document" and mine.begins.any()
        reset = torch.from_numpy(mine.begins).to(self.device) if document else None
        at, share = self.at, (_counted(batch), self.signum)
        figures, self.state = self.step(inputs, targets, reset, self.state, at.lr, at.step, self.judge, *share)
        return Update(float(figures.loss), float(figures.norm), bool(figures.clipped))

    def judge(self, loss: float, norm: float, counts: Sequence[float] | None = None) -> None:
        """Raise ``Diverged`` for a loss or norm that is not finite; otherwise remember the norm.

        Args:
            counts: non-finite elements of each parameter's gradient, if the gradient is gone already.
        """
        if not loss < EXPLODED:
            raise self.diverged("loss", loss)
        if not math.isfinite(norm):
            raise self.diverged("gradient", norm, counts)
        self.recent.append(norm)

    def validate(self) -> None:
        """Score the validation split, update the learning rate, keep the best model, and begin the next epoch."""
        at, training = self.at, self.config.training
        score = self.score("valid", training.valid_rows)
        if not score.loss < EXPLODED:
            raise self.diverged("validation loss", score.loss)
        improved = score.loss < at.best_loss
        line = self.journal.epoch(score, improved)
        self.journal.text(improved)
        at.epoch += 1
        at.lr = optimizer.next_rate(training, at.lr, at.epoch, improved)
        at.stalled = 0 if improved else at.stalled + 1
        if improved:
            at.best_loss, at.best_epoch = score.loss, at.epoch
        at.batch, at.nats, at.tokens, at.seconds = 0, 0.0, 0, 0.0
        self.save(best=improved)
        self.journal.line(f"{line} {'best' if improved else f'next lr {at.lr:.3g}'}")
        if training.sample:
            self.journal.line(f"  {' '.join((training.sample + self.journal.latest.get('text', '')).split())}")

    def conclude(self) -> dict[str, Score]:
        """Score the best model on both held-out splits, store the result and return it."""
        self.concluding = True
        if self.ranks.first:
            runs.load_weights(self.scored, checkpoint.load(self.path, "best"), self.path)
        scores = {split: self.score(split) for split in ("valid", "test")}
        result: dict[str, Any] = {split: score.as_dict() for split, score in scores.items()}
        result |= {"epochs": self.at.epoch, "best_epoch": self.at.best_epoch, "steps": self.at.step}
        if self.at.rollbacks:
            result["rollbacks"] = self.at.rollbacks
        if self.files:
            result["config"] = self.files["config.toml"]  # distinguishes it from another run's result
        if self.ranks.first:
            write_atomic(self.path / "result.json", json.dumps(sealed(result), indent=1).encode())
        return scores

    @property
    def scored(self) -> LanguageModel:
        """The model that is validated and kept: the average of the weights if there is one."""
        return self.step.average.model if self.step.average and self.at.step else self.model

    def score(self, split: str, rows: int = 1) -> Score:
        """The scored model's loss on a split, computed by the first rank; a signal meanwhile stops the training."""
        resets, backend = self.config.batches.state == "document", self.config.machine.backend
        stream = getattr(self.data, split)

        def work(between: Callable[[], None]) -> Score:
            return evaluate(self.scored, stream, rows=rows, resets=resets, backend=backend, between=between)

        return self.ranks.by_first(work, self._between)

    # -- when it ends, and what is kept -----------------------------------------------------------------------------

    def finished(self) -> bool:
        """Whether the limit of epochs, updates or patience is reached."""
        training = self.config.training
        stalled = training.patience and self.at.stalled >= training.patience
        over = self.out_of_steps() and self.at.epoch > 0 and self.at.batch == 0
        return self.at.epoch >= training.epochs or over or bool(stalled)

    def out_of_steps(self) -> bool:
        """Whether the limit of updates is reached."""
        return 0 < self.config.training.max_steps <= self.at.step

    def total_steps(self) -> int:
        """Updates of the whole training unless it ends early."""
        steps = self.config.training.epochs * len(self.batches)
        return min(steps, self.config.training.max_steps or steps)

    def save(self, best: bool = False) -> None:
        """Save everything that the next update depends on."""
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            raise self.diverged("weights", math.nan)
        journal.save(self, best)

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Return to a checkpoint."""
        journal.restore(self, saved)
        self.graph = None  # it holds the optimizer's former tensors

    # -- how it may end early ---------------------------------------------------------------------------------------

    def signals(self) -> AbstractContextManager[None]:
        """Note SIGINT and SIGTERM in the block and react after the running update."""

        def note(signum: int, frame: FrameType | None) -> None:
            self.signum = signum

        return handled(note)

    def _between(self) -> None:
        if self.ranks.agree(self.signum):
            self._stop()

    def _stop(self) -> None:
        """Save and raise ``Stopped``. During a validation ``batch`` is at the epoch's end, so that a resumed run validates
        again.
        """
        if not self.concluding:  # then the model holds the best weights, and everything is saved already
            self.save()
        raise Stopped(self.ranks.agreed(self.signum), f"stopped after step {self.at.step}, all saved; {self._go_on()}")

    def _go_on(self) -> str:
        return f"go on with: {shlex.join(['lm', 'resume', str(self.path)])}"

    def diverged(self, quantity: str, value: float, counts: Sequence[float] | None = None) -> Diverged:
        """The error for a quantity that is not finite, with its step and advice."""
        at = self.at
        bad = first_not_finite(self.model, counts) if quantity == "gradient" else None
        where = f"; {bad[1]:,} of the {bad[2]:,} elements of {bad[0]} are inf or nan" if bad else ""
        return Diverged(
            f"the {quantity} became {value:.4g} at step {at.step + 1} (epoch {at.epoch + 1}{where})",
            f"{advice(self.config, quantity, at.step, at.lr, self.recent)}. The last good checkpoint in {self.path} is intact",
        )


def _counted(batch: Batch) -> int:
    """The number of targets that count."""
    return int((batch.targets >= 0).sum())
