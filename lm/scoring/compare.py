"""Compares a trained model on a text with itself under dynamic evaluation, an n-gram model, and a mixture of both."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.base.settings import Flags, setting
from recurrent_lm.lm.config import SEEDS, CorpusConfig
from recurrent_lm.lm.runs.folder import Run
from recurrent_lm.lm.scoring.dynamic import RATES, dynamic_losses
from recurrent_lm.lm.scoring.evaluate import EXPLODED, Score, token_losses
from recurrent_lm.lm.scoring.interpolate import fit_weight, mix
from recurrent_lm.lm.scoring.masks import masked_losses
from recurrent_lm.lm.scoring.ngram import NGram
from recurrent_lm.lm.text.advice import doubts, little_text, seen_in_training, twice
from recurrent_lm.lm.text.batches import Stream, encode
from recurrent_lm.lm.text.corpora import EMBEDDED, SPLITS, Corpus, Piece, open_corpus
from recurrent_lm.lm.text.data import Data, missing, trained_on
from recurrent_lm.lm.text.tokens import Tokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Losses = NDArray[np.float64]


@dataclass(frozen=True)
class How(Flags):
    """Settings of ``compare``, checked when they are created."""

    split: str = setting("test", choices=(*SPLITS, "all"))
    rows: int = setting(1, low=1, high=10**9)
    warmup: int = setting(0, low=0, high=10**9)
    dynamic: bool = False
    dynamic_lr: float | None = setting(None, kind=float, low=0, below=math.inf)
    ngram: int = setting(5, low=0, high=20)  # 0 leaves the n-gram model out
    interpolate: bool = False
    masks: int = setting(0, low=0, high=10**4)  # 0 leaves them out
    mask_seed: int = setting(1, low=0, high=SEEDS)

    def check(self) -> None:
        if self.dynamic_lr is not None and not self.dynamic:
            raise InputError("--dynamic-lr goes with --dynamic")
        if self.mask_seed != 1 and not self.masks:
            raise InputError("--mask-seed goes with --masks")
        if self.interpolate and not self.ngram:
            raise InputError("--interpolate mixes with the n-gram model, which --ngram 0 leaves out")

    @property
    def fits(self) -> bool:
        """Whether a parameter is fitted on the validation split."""
        return self.interpolate or (self.dynamic and self.dynamic_lr is None)


@dataclass(frozen=True)
class Compared:
    """The scored text, (name, score) of each method, warnings, and the network's weight in the mixture (nan without a
    mixture).
    """

    corpus: str
    stream: Stream
    scores: list[tuple[str, Score]]
    warnings: list[str]
    weight: float = math.nan


def compare(
    run: Run, how: How, other: CorpusConfig | None = None, note: Callable[[str], None] = print, place: str = ""
) -> Compared:
    """Score one split of the run's own corpus, or of another text, in every way that ``how`` asks for.

    The n-gram model counts the run's training split. The mixture's weight and the rate of dynamic evaluation are fitted on its
    validation split. Both therefore need the run's own corpus, whatever text is scored.

    Args:
        run: a trained model from ``lm.load``.
        how: split, rows, dynamic evaluation, n-gram order, mixture.
        other: another text to score; None scores the run's own corpus.
        note: called with each remark that belongs beside the figures.
        place: where the run's own text is now, if it was moved. If it is missing at its former place and ``other`` is the same
            text, ``other`` is used.

    Returns:
        The scores by name, with the scored stream and warnings.

    Raises:
        InputError: if a text that is needed cannot be read.
    """
    option = "--trained-on PATH" if place or other else "--corpus PATH"
    if other and not how.fits:
        option += ", or leave the n-gram model out: --ngram 0"
    if other and not place and missing(run.config.corpus) and _is_own(run, other.source):
        place, other = other.source, None
    judge = _Judge(run, how, note, place, option)
    if how.dynamic and how.rows > 1:
        note("learning on reads the text as one row, whatever --rows says")
    if how.masks and not run.config.model.drops:
        note("the model was trained without dropout, so all masks are alike and change nothing")
    if how.fits and how.split in ("valid", "all") and not other:
        note("what is fitted on the validation split is scored on it, too, so these figures flatter")
    if other:
        corpus = open_corpus(other)
        for sentence in (*corpus.notes, *twice(corpus)):
            note(sentence)
        if how.ngram or how.fits:  # these read the run's own corpus anyway
            for sentence in seen_in_training(pieces_of(corpus, how.split), judge.data.corpus.splits()["train"]):
                note(sentence)
        stream = stream_of(corpus, run.tokenizer, how.split)
    else:
        corpus, stream = judge.data.corpus, judge.split(how.split)
    plain = judge.losses(stream)
    scores = [("model", Score.of(plain, stream))]
    best, lr, weight, name = plain, None, math.nan, "model"

    def better(losses: "Losses", called: str) -> None:
        nonlocal best, name
        best, name = losses, called
        scores.append((called, Score.of(losses, stream)))

    if how.masks:
        better(judge.losses(stream, masks=how.masks), judge.masked)
    if how.dynamic:
        lr = how.dynamic_lr if how.dynamic_lr is not None else judge.rate()
        better(judge.losses(stream, lr), f"learning on, rate {lr:g}")
        name = "learning on"
    if how.dynamic and how.masks:
        better(judge.losses(stream, lr, how.masks), f"learning on, {judge.masked}")
    if how.ngram:
        counted = judge.ngram()
        losses = -counted.log_probs(stream.ids)
        scores.append((f"{how.ngram}-gram", Score.of(losses, stream)))
        if how.interpolate:
            own = judge.losses(judge.data.valid, lr, how.masks)
            weight = fit_weight(-own, counted.log_probs(judge.data.valid.ids))
            mixture = f"{weight:.2f} {name} + {1 - weight:.2f} {how.ngram}-gram"
            scores.append((mixture, Score.of(-mix(-best, -losses, weight), stream)))
    warnings = little_text(corpus, run.config.tokens) + doubts(run.tokenizer, stream.unknown, len(stream.ids))
    return Compared(corpus.name, stream, scores, warnings, weight)


class _Judge:
    """The run's own corpus, read when it is first needed, and the parameters fitted on it."""

    def __init__(self, run: Run, how: How, note: Callable[[str], None], place: str, option: str) -> None:
        self.run, self.how, self.note = run, how, note
        self.place, self.option = place, option  # of the run's own text, and how it is given
        self.resets = run.config.batches.state == "document"

    @cached_property
    def data(self) -> Data:
        run = self.run
        data = trained_on(run.config, run.tokenizer, run.path, run.meta, self.place, self.option)
        if self.run.meta.get("data") != data.fingerprint():
            self.note(f"the corpus {data.corpus.name} has changed since {self.run.path} was trained; its splits may be others")
        return data

    def split(self, name: str) -> Stream:
        if name == "all":
            return stream_of(self.data.corpus, self.run.tokenizer, name)
        return {"train": self.data.train, "valid": self.data.valid, "test": self.data.test}[name]

    def ngram(self) -> NGram:
        return NGram.fit(self.data.train.ids, self.run.tokenizer.size, self.how.ngram)

    @property
    def masked(self) -> str:
        return f"mean of {self.how.masks} dropout mask{'' if self.how.masks == 1 else 's'}"

    def losses(self, stream: Stream, lr: float | None = None, masks: int = 0) -> "Losses":
        """-log P of each token [T]: read by the model as it is, or learning on at a rate, with or without dropout masks."""
        run, how, model, ids = self.run, self.how, self.run.model, stream.ids
        if lr is not None:
            bptt = run.config.batches.bptt
            losses = dynamic_losses(model, ids, lr=lr, bptt=bptt, resets=self.resets, masks=masks, seed=how.mask_seed)
            if how.dynamic_lr is not None and not losses.mean() < EXPLODED:  # of searched rates the best one is taken
                raise InputError(f"learning on diverges at the rate {lr:g}; take a smaller --dynamic-lr, or leave it out")
            return losses
        if masks:
            read = {"rows": how.rows, "warmup": how.warmup, "resets": self.resets}
            return masked_losses(model, ids, masks=masks, seed=how.mask_seed, **read)
        return token_losses(model, ids, rows=how.rows, warmup=how.warmup, resets=self.resets)

    def rate(self) -> float:
        """The rate with the lowest loss on the validation split; rates are tried upwards until the loss rises."""
        best, least = 0.0, float("inf")
        for lr in RATES:
            nats = float(self.losses(self.data.valid, lr).sum())
            if not nats < least:
                break
            best, least = lr, nats
        return best


def _is_own(run: Run, place: str) -> bool:
    """Whether a text is the one that the run was trained on."""
    try:
        trained_on(run.config, run.tokenizer, run.path, run.meta, place)
    except InputError:
        return False
    return True


def pieces_of(corpus: Corpus, split: str) -> list[Piece]:
    return [Piece(text) for _, text in corpus.documents] if split == "all" else corpus.splits()[split]


def stream_of(corpus: Corpus, tokenizer: Tokenizer, split: str) -> Stream:
    """One split of a corpus, or "all" of it."""
    stream = encode(pieces_of(corpus, split), tokenizer, corpus.eos_bytes)
    if not len(stream.ids):
        raise InputError(f"the {split} text of {corpus.name} holds no token, only white space; take another --split or text")
    return stream


def other_corpus(run: Run, source: str, encoding: str) -> CorpusConfig:
    """Settings to read another text than the run's own; lines count as documents if they do in the run.

    Args:
        run: the trained model whose settings count.
        source: a corpus's name, a file or a folder.
        encoding: of its files.

    Returns:
        Settings for ``compare``.
    """
    lines = run.config.corpus.eos_at_newline and source not in EMBEDDED
    own = replace(run.config.corpus, train_file="", valid_file="", test_file="")
    return replace(own, source=source, encoding=encoding, eos_at_newline=lines)
