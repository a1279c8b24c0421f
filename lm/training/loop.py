"""Training: truncated backpropagation through time with carried state, as one readable loop.

Each update reads one [k, L] batch, goes on from the state that the batch before it left, and sends gradients back
through these L steps only. Everything that the next update depends on is in ``Position``, the model, the optimizer, the
carried state and torch's random state; a checkpoint holds exactly these.
"""

import json
import math
import shlex
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from filelock import BaseFileLock
from torch import Tensor

from recurrent_lm import kernels
from recurrent_lm.lm.base import machine
from recurrent_lm.lm.base.console import clock
from recurrent_lm.lm.base.errors import Diverged, InputError, Stopped
from recurrent_lm.lm.base.progress import Display, figures
from recurrent_lm.lm.base.signals import handled
from recurrent_lm.lm.base.storage import sealed, write_atomic
from recurrent_lm.lm.config import RunConfig, parse_clip
from recurrent_lm.lm.model import LanguageModel, State, detach, flatten, in_halves, unflatten
from recurrent_lm.lm.runs import checkpoint
from recurrent_lm.lm.runs import folder as runs
from recurrent_lm.lm.runs.logs import Log, Mark
from recurrent_lm.lm.scoring.evaluate import EXPLODED, Score, evaluate
from recurrent_lm.lm.text.batches import Batch, Batches
from recurrent_lm.lm.text.data import Data
from recurrent_lm.lm.training import optimizer
from recurrent_lm.lm.training.average import Average
from recurrent_lm.lm.training.clip import clip
from recurrent_lm.lm.training.cuda_graph import Graph
from recurrent_lm.lm.training.diagnosis import advice, first_not_finite
from recurrent_lm.lm.training.ranks import ALONE, Alone, Lost
from recurrent_lm.lm.training.rollback import Rollback


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


class Training:
    """One training of one model; ``run`` ends it, or saves it and raises ``Stopped`` or ``Diverged``.

    Args:
        why: the reason for the precision, for people to read.
    """

    def __init__(self, config: RunConfig, data: Data, path: Path, model: LanguageModel, why: str = "") -> None:
        self.config, self.data, self.path, self.why = config, data, path, why
        self.device = torch.device(config.machine.device)
        self.model = model.to(self.device)
        self.optimizer = optimizer.make(self.model, config.training)
        self.average = Average(self.model, config.training.average) if config.training.average else None
        self.batches = Batches(data.train.ids, config.batches.rows, config.batches.bptt)
        self.at = Position(lr=config.training.lr)
        self.state: State = self.model.zero_state(config.batches.rows)
        self.clip = parse_clip(config.training.clip)
        self.compute_dtype = torch.bfloat16 if config.machine.precision == "bf16" else None
        self.halves = self.compute_dtype is not None and self.device.type == "cuda"  # a CPU's recurrences gain nothing
        self.recent: deque[float] = deque(maxlen=8)  # gradient norms, for a diagnosis
        self.fingerprint = data.fingerprint()
        self.logs: tuple[Log, ...] = ()
        self.marks: dict[str, Mark] = {}  # of the logs, as of the last checkpoint
        self.files: dict[str, str] = {}  # {name: SHA-256} of what was written when the run was begun
        self.notes: list[str] = []  # what whoever began or resumed it should know
        self.rollback = Rollback(self)
        self.graph: Graph | None = None
        self.ranks: Alone = ALONE  # with several processes, those that have the other rows
        self.lock: BaseFileLock | None = None  # on the run folder, until ``run`` has ended
        self.signum = 0
        self.concluding = False

    # -- the loop ---------------------------------------------------------------------------------------------------

    def run(self, quiet: bool = False, each_epoch: "Callable[[Training], None] | None" = None) -> dict[str, Score]:
        """Train until the settings say so; the best model's scores on the validation and the test split.

        Args:
            each_epoch: called before the first update and after each epoch's validation. It must leave the model, the
                carried state and torch's random numbers as they are.
        """
        try:
            with self.signals():
                self._between()
                self._train(quiet, each_epoch or (lambda training: None))
                return self.conclude()
        except Lost as error:
            go_on = shlex.join(["lm", "resume", str(self.path)])
            raise InputError(f"{error} after step {self.at.step}; the last checkpoint is intact, go on with: {go_on}") from None
        except (MemoryError, RuntimeError) as error:
            if not machine.out_of_memory(error):
                raise
            raise InputError(f"memory does not suffice after step {self.at.step}; {machine.SMALLER} in a new run") from None
        finally:
            if self.lock:
                self.lock.release()

    def _train(self, quiet: bool, each_epoch: "Callable[[Training], None]") -> None:
        with Display(self.total_steps(), self.at.step, "step", quiet) as self.display:
            try:
                if self.ranks.first:
                    self.open_logs()
                each_epoch(self)
                while not self.finished():
                    try:
                        self.train_epoch()
                        self.validate()
                    except Diverged as error:
                        self.rollback.after(error)  # raises it again where there is no way back
                        continue
                    each_epoch(self)
            finally:
                for log in self.logs:
                    log.close()

    def open_logs(self) -> None:
        """The logs, cut back to where the training stands."""
        kinds = (("step", self.at.step), ("epoch", self.at.epoch))
        for key, last in kinds:
            name = f"{key}s.jsonl"
            self.logs += (Log(self.path / name, key, last, self.marks.get(name)),)

    def train_epoch(self) -> None:
        """The rest of the running epoch."""
        if self.at.batch == 0 and self.config.batches.state != "never":
            self.state = self.ranks.part(self.model.zero_state(self.config.batches.rows))
        begin, before = time.monotonic(), self.at.seconds
        self.model.train()
        if self.config.machine.graph and not self.graph:
            self.graph = Graph(self)
        for batch, loss, norm, clipped in self.graph.updates() if self.graph else self._updates():
            self.rollback.updated(loss)
            counted = int((batch.targets >= 0).sum())
            self.at.step += 1
            self.at.batch += 1
            self.at.nats += loss * counted
            self.at.tokens += counted
            self.at.seconds = before + time.monotonic() - begin
            self._log_step(loss, norm, clipped, counted)
            if self.ranks.agreed(self.signum) and not (self.graph and self.graph.ahead):
                self._stop()
            if self.at.step % self.config.training.checkpoint_every == 0:
                self.save()

    def _updates(self) -> Iterator[tuple[Batch, float, float, bool]]:
        """One update after the other, each with its batch."""
        while self.at.batch < len(self.batches) and not self.out_of_steps():
            batch = self.batches[self.at.batch]
            yield batch, *self.update(batch)

    def update(self, batch: Batch) -> tuple[float, float, bool]:
        """One step of truncated BPTT: (mean loss in nats a token, gradient norm before clipping, was it clipped)."""
        whole = int((batch.targets >= 0).sum())
        batch = batch.part(self.ranks.rows(self.config.batches.rows))
        inputs = torch.from_numpy(batch.inputs).to(self.device, torch.long)
        targets = torch.from_numpy(batch.targets).to(self.device)
        document = self.config.batches.state == "document" and batch.begins.any()
        reset = torch.from_numpy(batch.begins).to(self.device) if document else None
        self.optimizer.zero_grad()  # before the loss, which makes the decoder's gradient: two of them would be held
        loss, self.state = self.loss_of(inputs, targets, reset, detach(self.state))
        loss.backward(self.ranks.upstream(loss, whole))
        value = self.ranks.reduce(self.model, loss, int((batch.targets >= 0).sum()), self.signum)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm, clipped = clip(gradients, *self.clip)
        self.judge(value, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.at.lr
        self.optimizer.step()
        if self.average:
            self.average.update(self.model, self.at.step)
        return value, norm, clipped

    def loss_of(self, inputs: Tensor, targets: Tensor, reset: Tensor | None, state: State) -> tuple[Tensor, State]:
        """The loss of [k, n] tokens, a mean in nats or with several processes a sum, and the state after them."""
        hidden, after = in_halves(self.model, inputs, state, reset) if self.halves else self.model(inputs, state, reset)
        loss = kernels.linear_cross_entropy(
            hidden.flatten(0, 1),
            self.model.decoder.weight,
            targets.t().flatten(),
            linear_bias=self.model.decoder.bias,
            reduction=self.ranks.reduction,
            compute_dtype=self.compute_dtype,
            backend=self.config.machine.backend,
        )
        return loss, after

    def judge(self, loss: float, norm: float, counts: Sequence[float] | None = None) -> None:
        """Raise ``Diverged`` at what is no loss or no gradient; otherwise remember the norm.

        Args:
            counts: how many elements of each parameter's gradient are not finite, where that gradient is gone already.
        """
        if not loss < EXPLODED:
            self._diverged("loss", loss)
        if not math.isfinite(norm):
            self._diverged("gradient", norm, counts)
        self.recent.append(norm)

    def validate(self) -> None:
        """Score the validation split, move the learning rate, keep the best, and begin the next epoch."""
        config, at = self.config, self.at
        score = self.score("valid", config.training.valid_rows)
        if not score.loss < EXPLODED:
            self._diverged("validation loss", score.loss)
        improved = score.loss < at.best_loss
        train_loss, seconds = at.nats / max(at.tokens, 1), at.seconds
        speed = at.tokens / max(seconds, 1e-9)
        record = {
            "epoch": at.epoch + 1,
            "step": at.step,
            "train_loss": train_loss,
            "valid_loss": score.loss,
            "valid_perplexity": score.perplexity,
            "valid_bits_per_byte": score.bits_per_byte,
            "lr": at.lr,
            "improved": improved,
            "seconds": round(seconds, 3),
            "tokens_per_second": round(speed),
            "trimmed_tokens": self.batches.trimmed,
        }
        at.epoch += 1
        at.lr = optimizer.next_rate(config.training, at.lr, at.epoch, improved)
        at.stalled = 0 if improved else at.stalled + 1
        if improved:
            at.best_loss, at.best_epoch = score.loss, at.epoch
        at.batch, at.nats, at.tokens, at.seconds = 0, 0.0, 0, 0.0
        if self.ranks.first:
            self.logs[1].write(record)
        self.save(best=improved)
        shown = {"train_loss": train_loss, "valid_loss": score.loss, "perplexity": score.perplexity}
        shown |= {"bits_per_byte": score.bits_per_byte, "tokens_per_second": speed}
        verdict = "best" if improved else f"next lr {at.lr:.3g}"
        self.display.line(f"epoch {at.epoch}: {figures(shown)} {clock(seconds)} {verdict}")

    def conclude(self) -> dict[str, Score]:
        """Score the best model on both held-out splits and store the result."""
        self.concluding = True
        if self.ranks.first:
            runs.load_weights(self.scored, checkpoint.load(self.path, "best"), self.path)
        scores = {split: self.score(split) for split in ("valid", "test")}
        result: dict[str, Any] = {split: score.as_dict() for split, score in scores.items()}
        result |= {"epochs": self.at.epoch, "best_epoch": self.at.best_epoch, "steps": self.at.step}
        if self.at.rollbacks:
            result["rollbacks"] = self.at.rollbacks
        if self.files:
            result["config"] = self.files["config.toml"]  # which tells it from another run's result
        if self.ranks.first:
            write_atomic(self.path / "result.json", json.dumps(sealed(result), indent=1).encode())
        return scores

    # -- when to end ------------------------------------------------------------------------------------------------

    def finished(self) -> bool:
        """No epochs, no steps, or no patience left."""
        training = self.config.training
        stalled = training.patience and self.at.stalled >= training.patience
        over = self.out_of_steps() and self.at.epoch > 0 and self.at.batch == 0
        return self.at.epoch >= training.epochs or over or bool(stalled)

    def out_of_steps(self) -> bool:
        return 0 < self.config.training.max_steps <= self.at.step

    def total_steps(self) -> int:
        """Updates if nothing ends the training early."""
        steps = self.config.training.epochs * len(self.batches)
        return min(steps, self.config.training.max_steps or steps)

    # -- what is kept -----------------------------------------------------------------------------------------------

    @property
    def scored(self) -> LanguageModel:
        """The model that is validated and kept: the average of the weights where there is one, from the first update on."""
        return self.average.model if self.average and self.at.step else self.model

    def score(self, split: str, rows: int = 1) -> Score:
        resets = self.config.batches.state == "document"
        stream = getattr(self.data, split)
        backend = self.config.machine.backend

        def work(between: Callable[[], None]) -> Score:
            return evaluate(self.scored, stream, rows=rows, resets=resets, backend=backend, between=between)

        return self.ranks.by_first(work, self._between)

    def save(self, best: bool = False) -> None:
        """Store everything that the next update depends on."""
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            self._diverged("weights", math.nan)
        for log in self.logs:
            log.sync()
            self.marks[log.name] = log.mark
        self.ranks.check_same(self.model)
        state = {f"carried.{i}": t for i, t in enumerate(self.ranks.whole(flatten(self.state)))}
        if not self.ranks.first:
            return
        state["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            state["random.cuda"] = torch.cuda.get_rng_state(self.device)
        groups = {
            "model": runs.weights_of(self.scored),
            "optimizer": optimizer.tensors(self.optimizer),
            "state": state,
        }
        if self.average:
            groups["moving"] = runs.weights_of(self.model)  # the weights that the optimizer moves
        position = {k: (None if v == math.inf else v) for k, v in asdict(self.at).items()}
        meta = {"step": self.at.step, "position": position, "recent": list(self.recent), "data": self.fingerprint}
        meta |= {"logs": self.marks, "files": self.files}
        checkpoint.save(self.path, checkpoint.Checkpoint(groups, meta), best=best)

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Stand where a checkpoint stood."""
        if self.average:
            runs.load_weights(self.average.model, saved, self.path)
            saved = replace(saved, groups=saved.groups | {"model": saved.groups["moving"]})
        runs.load_weights(self.model, saved, self.path)
        optimizer.restore(self.optimizer, saved.groups["optimizer"])
        self.graph = None  # it knows the optimizer's former tensors
        state = dict(saved.groups["state"])
        torch.set_rng_state(state.pop("random.cpu"))
        random_cuda = state.pop("random.cuda", None)
        if self.device.type == "cuda" and random_cuda is not None:
            torch.cuda.set_rng_state(random_cuda, self.device)
        carried = [state[f"carried.{i}"].to(self.device) for i in range(len(state))]
        if [t.shape for t in carried] != [t.shape for t in flatten(self.state)]:
            raise ValueError("its carried state has another shape than the settings say")
        self.state = unflatten(carried, pairs=self.config.model.cell == "lstm")
        position = saved.meta["position"]
        self.at = replace(Position(**position), best_loss=math.inf if position["best_loss"] is None else position["best_loss"])
        self.recent = deque(saved.meta["recent"], self.recent.maxlen)
        self.marks, self.files = dict(saved.meta.get("logs", {})), saved.meta.get("files", {})

    def _log_step(self, loss: float, norm: float, clipped: bool, tokens: int) -> None:
        if not self.ranks.first:
            return
        at = self.at
        record = {"step": at.step, "epoch": at.epoch + 1, "loss": loss, "grad_norm": norm, "clipped": clipped}
        self.logs[0].write(record | {"lr": at.lr, "tokens": tokens})
        mean = at.nats / at.tokens
        shown = {
            "loss": mean,
            "perplexity": math.exp(min(mean, 700)),
            "bits_per_byte": self.data.train.bits_per_byte(mean * len(self.data.train.ids)),
            "grad_norm": norm,
            "tokens_per_second": at.tokens / max(at.seconds, 1e-9),
        }
        self.display.show(at.step, f"epoch {at.epoch + 1} {figures(shown)}")

    # -- how it may end early ---------------------------------------------------------------------------------------

    def signals(self) -> AbstractContextManager[None]:
        """Let SIGINT and SIGTERM be noticed after the running update instead of in its middle."""

        def note(signum: int, frame: FrameType | None) -> None:
            self.signum = signum

        return handled(note)

    def _between(self) -> None:
        if self.ranks.agree(self.signum):
            self._stop()

    def _stop(self) -> None:
        """Save and leave. In the middle of a validation ``batch`` is at the epoch's end, so a resume validates again."""
        if not self.concluding:  # then the model holds the best weights, and everything is saved already
            self.save()
        go_on = shlex.join(["lm", "resume", str(self.path)])
        raise Stopped(self.ranks.agreed(self.signum), f"stopped after step {self.at.step}, all saved; go on with: {go_on}")

    def _diverged(self, what: str, value: float, counts: Sequence[float] | None = None) -> None:
        at = self.at
        bad = first_not_finite(self.model, counts) if what == "gradient" else None
        where = f"; {bad[1]:,} of the {bad[2]:,} elements of {bad[0]} are inf or nan" if bad else ""
        raise Diverged(
            f"the {what} became {value:.4g} at step {at.step + 1} (epoch {at.epoch + 1}{where})",
            f"{advice(self.config, what, at.step, at.lr, self.recent)}. The last good checkpoint in {self.path} is intact",
        )
