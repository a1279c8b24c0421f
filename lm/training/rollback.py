"""Undoes a divergence: returns to the last good checkpoint and continues with half the learning rate.

A checkpoint is good once the update after it had a finite gradient and a loss of at most log |V| + 1 nats a token, one more
than guessing. ``good.json`` names it. Weights that are finite but already spoilt, so that the next loss explodes at any rate,
are therefore never returned to. The first checkpoint needs a finite update only.

Everything that the update depends on is restored, random state included, so a rollback repeats bit for bit where the run does.
The undone steps leave the logs; ``rollbacks.jsonl`` records them. The checkpoint is stored again with its new rate before the
logs are cut, so a run that is killed in between continues from before the rollback or after it.
"""

import math
from typing import TYPE_CHECKING

from recurrent_lm.lm.base.errors import Diverged
from recurrent_lm.lm.runs import checkpoint
from recurrent_lm.lm.runs.logs import Log

if TYPE_CHECKING:
    from recurrent_lm.lm.training.loop import Training

MOST = 8  # rollbacks of one run; the rate is 1/256 then
RECORD = "rollbacks.jsonl"


class Rollback:
    """Reacts to divergence as the settings say: roll back, or do nothing."""

    def __init__(self, training: "Training") -> None:
        self._training = training
        self._on = training.config.training.on_divergence == "rollback"

    def updated(self, loss: float) -> None:
        """Note an update with a finite loss and gradient."""
        training, at = self._training, self._training.at
        # Every run has a checkpoint here; a run that was stopped has more of them, which must make no difference.
        stored = at.batch == 0 or at.step % training.config.training.checkpoint_every == 0
        guessing = math.log(training.data.tokenizer.size)
        if self._on and stored and (loss <= guessing + 1 or not (training.path / "good.json").exists()):
            checkpoint.keep_as_good(training.path)

    def after(self, error: Diverged) -> None:
        """Return to the last good checkpoint with half of its rate, and half again for each earlier return to it.

        Raises:
            Diverged: the error itself, if the settings say stop, no update has been good yet, or ``MOST`` rollbacks were made.
        """
        training, at = self._training, self._training.at
        if not self._on:
            raise error
        if at.rollbacks >= MOST:
            raise Diverged(f"{error.what}, after {MOST} rollbacks that halved the rate each", error.advice)
        if not (training.path / "good.json").exists():
            raise Diverged(f"{error.what}, and no checkpoint is known to be good", error.advice)
        good = checkpoint.load(training.path, "good")
        position = good.meta["position"]
        count, step = at.rollbacks + 1, good.meta["step"]
        lr = position["lr"] / 2 ** (count - position.get("rollbacks", 0))
        record = {"rollback": count, "what": error.what, "step": at.step, "epoch": at.epoch + 1, "lr": at.lr}
        log = Log(training.path / RECORD, "rollback", at.rollbacks, training.journal.marks.get(RECORD))
        log.write(record | {"grad_norms": list(training.recent), "back_to_step": step, "next_lr": lr})
        log.sync()
        log.close()
        training.journal.close()  # so that the marks of the good checkpoint are stored
        training.restore(good)
        # A model that validated better stays the best one, even if the steps to it are undone.
        training.at.best_loss, training.at.best_epoch = at.best_loss, at.best_epoch
        training.at.lr, training.at.rollbacks = lr, count
        training.journal.marks[RECORD] = log.mark
        training.save()
        training.journal.open()
        training.journal.line(f"{error.what}; back to step {step} with rate {lr:.3g} (rollback {count} of at most {MOST})")
