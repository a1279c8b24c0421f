"""Text generation: draws a token and feeds it back (lecture, slide Generating text)."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.base.settings import Flags, setting
from recurrent_lm.lm.runs.folder import Run
from recurrent_lm.lm.scoring.ngram import NGram
from recurrent_lm.lm.text.tokens import EOS

MOST_SAMPLES = 10_000  # in a batch


@dataclass(frozen=True)
class Draws(Flags):
    """Settings of the draws; see ``generate``."""

    length: int = setting(100, low=1, high=10**9)
    temperature: float = setting(0.8, low=0, below=math.inf)
    top_k: int = setting(0, low=0, high=10**9)
    top_p: float = setting(1.0, above=0, high=1)
    seed: int | None = setting(None, kind=int, low=0, high=2**62 - 1)
    no_repeat_ngram: int = setting(0, low=0, high=10**9)
    stop: Sequence[str] = ()

    def check(self) -> None:
        if "" in self.stop:
            raise InputError("--stop needs some text to stop at; leave it out to stop at none")


def pick(logits: Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator) -> int:
    """Draw a token from softmax(logits / temperature), limited to likely tokens (Holtzman et al. 2020).

    Args:
        logits: [|V|], on the CPU.
        temperature: 0 is argmax, with the lowest id on a tie.
        top_k: draw from this many likeliest tokens; 0 draws from all.
        top_p: draw from the smallest set of tokens with this much probability.
        generator: of the random numbers.

    Returns:
        The token's id.
    """
    if temperature == 0:
        return int(logits.argmax())
    values, order = torch.sort(logits.double(), descending=True, stable=True)
    if top_k:
        values, order = values[:top_k], order[:top_k]
    # The best token gets logit 0, so that a tiny temperature cannot overflow.
    probabilities = torch.softmax((values - values[0]) / temperature, dim=0)
    before = probabilities.cumsum(0) - probabilities
    probabilities = torch.where(before < top_p, probabilities, 0.0)
    return int(order[torch.multinomial(probabilities, 1, generator=generator)])


class Sample:
    """A text that is being generated: ``text`` and its number of ``tokens`` so far, without the prompt.

    ``ended`` is the reason of its end: "length", "eos" (the model ended the document), "stop" (a stop text appeared), "repeats"
    (every token would have repeated an n-gram), "not finite" (the model's state overflowed), and "" until then.
    """

    def __init__(self, run: Run, prompt: list[int], draws: Draws, number: int = 0) -> None:
        self.text, self.tokens, self.ended = "", 0, ""
        self._draws, self._never = draws, list(run.tokenizer.never)
        self._ids: list[int] = []
        self._followers: dict[tuple[int, ...], set[int]] = defaultdict(set)
        self._decoder = run.tokenizer.decoder()
        self._held = ""  # text that may be the beginning of a stop text
        self._generator = torch.Generator()
        if draws.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(draws.seed + number)
        for token in prompt:
            self._decoder.push(token)  # white space after the prompt depends on it
            self._remember(token)

    @property
    def last(self) -> int:
        """The token that the model reads next."""
        return self._ids[-1]

    def recent(self, n: int) -> list[int]:
        """The last ``n`` tokens, those of the prompt included; all while there are fewer."""
        return self._ids[max(len(self._ids) - n, 0) :]

    def draw(self, logits: Tensor) -> str:
        """Draw a token from logits [|V|].

        Returns:
            The text that no later token can change.
        """
        if not bool((logits < torch.inf).all()):  # nan or inf; a logit of -inf is a token that never comes
            return self._end("not finite")
        logits[self._never] = -torch.inf
        logits[list(self._followers.get(self._history(), ()))] = -torch.inf
        if not bool((logits > -torch.inf).any()):
            return self._end("repeats")
        d = self._draws
        token = pick(logits, d.temperature, d.top_k, d.top_p, self._generator)
        if token == EOS:
            return self._end("eos")
        self._remember(token)
        self.tokens += 1
        return self._say(self._decoder.push(token))

    def finish(self) -> str:
        """End the text after the last token.

        Returns:
            The rest of the text.
        """
        return "" if self.ended else self._end("length")

    def _remember(self, token: int) -> None:
        if self._draws.no_repeat_ngram and token != EOS:
            self._followers[self._history()].add(token)
        self._ids.append(token)

    def _history(self) -> tuple[int, ...]:
        """The n-1 tokens before the next one; all tokens while there are fewer."""
        reach = self._draws.no_repeat_ngram - 1
        return tuple(self._ids[-reach:]) if reach > 0 else ()

    def _end(self, why: str) -> str:
        self.ended = why
        rest = self._say(self._decoder.flush())
        if self.ended == "stop":
            return rest
        held, self._held = self._held, ""
        self.text += held
        return rest + held

    def _say(self, piece: str) -> str:
        """The part of the held-back text and ``piece`` that can be shown: everything before a stop text, or a possible start
        of one.
        """
        stops, text = self._draws.stop, self._held + piece
        at_stop = min((at for s in stops if (at := text.find(s)) >= 0), default=-1)
        if at_stop >= 0:
            self.ended, self._held, text = "stop", "", text[:at_stop]
        else:
            keep = max((n for s in stops for n in range(1, len(s)) if text.endswith(s[:n])), default=0)
            text, self._held = text[: len(text) - keep], text[len(text) - keep :]
        self.text += text
        return text


def generate(
    run: Run,
    prompt: str | None = None,
    length: int = 100,
    *,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int | None = None,
    no_repeat_ngram: int = 0,
    stop: Sequence[str] = (),
    ngram: NGram | None = None,
) -> Iterator[str]:
    """Write text after a prompt, token by token.

    The model reads the prompt from h(0) = 0 and carries the state on, so that each further token costs one step. Without a
    prompt the text begins as a document does, after <eos>.

    Args:
        run: a trained model from ``lm.load``.
        prompt: text to go on from; it is not part of the result.
        length: tokens at most; the text ends earlier where the model ends the document.
        temperature: above 1 flattens the distribution, below 1 sharpens it; 0 takes the likeliest token.
        top_k: draw from this many likeliest tokens; 0 draws from all.
        top_p: draw from the smallest set of tokens with this much probability.
        seed: of the draws; None draws a fresh one.
        no_repeat_ngram: n > 0 never repeats n tokens in a row, the prompt included (Paulus et al. 2018).
        stop: texts before which to stop.
        ngram: a model of the run's tokens that writes instead of the network, to compare both.

    Returns:
        An iterator over pieces of text.

    Raises:
        InputError: for settings out of range and for an empty prompt.
    """
    draws = Draws(length, temperature, top_k, top_p, seed, no_repeat_ngram, stop)
    sample = Sample(run, ids := _read(run, prompt), draws)
    return (piece for (piece,) in _steps(run, ids, length, [sample], ngram))


def generate_batch(
    run: Run, prompt: str | None = None, samples: int = 10, draws: Draws | None = None, ngram: NGram | None = None
) -> list[Sample]:
    """Write several texts side by side, as rows of one batch.

    Args:
        run: a trained model from ``lm.load``.
        prompt: text to go on from; None begins as a document does.
        samples: how many texts.
        draws: how tokens are drawn; sample i uses the seed ``draws.seed`` + i.
        ngram: as in ``generate``.

    Returns:
        The samples, each with its text, its number of tokens, and what ended it.

    Raises:
        InputError: for settings out of range and for an empty prompt.
    """
    if not 1 <= samples <= MOST_SAMPLES:
        raise InputError(f"--samples must be at least 1 and at most {MOST_SAMPLES:,}, not {samples}")
    draws = draws or Draws()
    ids = _read(run, prompt)
    batch = [Sample(run, ids, draws, number) for number in range(samples)]
    for _ in _steps(run, ids, draws.length, batch, ngram):
        pass
    return batch


def _read(run: Run, prompt: str | None) -> list[int]:
    return [EOS] if prompt is None else encode_prompt(run, prompt)


def _steps(run: Run, prompt: list[int], length: int, samples: list[Sample], ngram: NGram | None = None) -> Iterator[list[str]]:
    """After each token, each sample's new text."""
    if ngram:
        yield from _counted_steps(ngram, length, samples)
        return
    model = run.model
    device = model.embedding.weight.device
    inputs, state = torch.tensor([prompt], device=device), model.zero_state(1)
    for number in range(length):
        with torch.no_grad():
            hidden, state = model(inputs, state)
            logits = model.logits(hidden[-1]).float().cpu()
        if not number:  # the prompt is read once, then each sample has its own row
            logits = logits.repeat(len(samples), 1)
            state = [_rows(part, len(samples)) for part in state]
        yield ["" if sample.ended else sample.draw(logits[row]) for row, sample in enumerate(samples)]
        if all(sample.ended for sample in samples):
            return
        inputs = torch.tensor([[sample.last] for sample in samples], device=device)
    yield [sample.finish() for sample in samples]


def _counted_steps(ngram: NGram, length: int, samples: list[Sample]) -> Iterator[list[str]]:
    for _ in range(length):
        yield [
            "" if sample.ended else sample.draw(torch.from_numpy(np.log(ngram.distribution(sample.recent(ngram.order - 1)))))
            for sample in samples
        ]
        if all(sample.ended for sample in samples):
            return
    yield [sample.finish() for sample in samples]


def _rows(state: Tensor | tuple[Tensor, ...], rows: int) -> Tensor | tuple[Tensor, ...]:
    """A layer's state [1, 1, h] (a pair for the LSTM), repeated for several rows."""
    return tuple(s.repeat(1, rows, 1) for s in state) if isinstance(state, tuple) else state.repeat(1, rows, 1)


def encode_prompt(run: Run, prompt: str, option: str = "--prompt") -> list[int]:
    """Encode a prompt.

    Args:
        run: whose tokenizer is used.
        prompt: the text.
        option: the option it came by, for the sentence of a refusal.

    Returns:
        Its ids.

    Raises:
        InputError: for a prompt without tokens, and for bytes that are not valid text.
    """
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError("the prompt holds bytes that are not valid in this terminal's encoding; give it in UTF-8") from None
    ids = run.tokenizer.encode(prompt)
    if not ids:
        raise InputError(f"the prompt is empty; leave {option} out to begin as a document does")
    return ids
