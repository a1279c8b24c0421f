"""Answers of a trained model when a page is built: the next word after some prompts, and the reach of its gradient."""

from dataclasses import dataclass, field
from pathlib import Path

from recurrent_lm import lm
from recurrent_lm.lm import History
from recurrent_lm.studies import InputError, lag_profile

TOP = 8  # bars of a distribution


@dataclass(frozen=True)
class Bars:
    """P(v | prompt): (word, probability, width of its bar in percent), most probable first; the probability of <unk>; the
    entropy.
    """

    prompt: str
    words: list[tuple[str, float, float]] = field(default_factory=list)
    unknown: float = 0.0
    bits: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class Answers:
    """A model's answers; ``lags`` are (lag, norm), or ``problem`` says why there are none."""

    bars: list[Bars] = field(default_factory=list)
    lags: list[tuple[int, float]] = field(default_factory=list)
    problem: str = ""


class Models:
    """Models of runs, asked once for each of their checkpoints: a page that is written again does not ask again."""

    def __init__(self) -> None:
        self._bars: dict[tuple[Path, str, bytes], Bars] = {}
        self._lags: dict[tuple[Path, bytes], tuple[list[tuple[int, float]], str]] = {}

    def answers(self, history: History, prompts: list[str]) -> Answers:
        """The answers of a run's best model; empty before the first epoch has ended.

        The gradient is computed after the end of the training, so that it does not slow the training down.
        """
        if not history.epochs:
            return Answers()
        try:
            best = (history.path / "best.json").read_bytes()
            bars = self._bars_of(history.path, prompts, best)
            if history.running:
                return Answers(bars, problem="the gradient by lag is shown when the training has ended")
            lags, problem = self._lags_of(history.path, best)
        except (InputError, OSError) as error:  # a checkpoint that is replaced while it is read, or damaged
            return Answers(problem=str(error))
        return Answers(bars, lags, problem)

    def _bars_of(self, path: Path, prompts: list[str], best: bytes) -> list[Bars]:
        if new := [prompt for prompt in prompts if (path, prompt, best) not in self._bars]:
            run = lm.load(path, device="cpu")
            self._bars |= {(path, prompt, best): _bars(run, prompt) for prompt in new}
        return [self._bars[path, prompt, best] for prompt in prompts]

    def _lags_of(self, path: Path, best: bytes) -> tuple[list[tuple[int, float]], str]:
        key = (path, best)
        if key not in self._lags:
            try:
                self._lags[key] = lag_profile(str(path)), ""
            except InputError as error:
                self._lags[key] = [], str(error)
        return self._lags[key]


def _bars(run: lm.Run, prompt: str) -> Bars:
    try:
        distribution = lm.next_token(run, prompt)
    except InputError as error:
        return Bars(prompt, problem=str(error))
    likely = distribution.top(TOP)
    words = [(word, p, 100 * p / max(likely[0].probability, 1e-300)) for word, p, _, _ in likely]
    return Bars(prompt, words, distribution.unknown, distribution.bits)
