"""Text from a model: feed each drawn token back."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lm.errors import InputError
from lm.runs import Run
from lm.tokens import EOS


def pick(logits: Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator) -> int:
    """Draw from softmax(logits / temperature), limited to the ``top_k`` likeliest and to the smallest set that holds
    ``top_p`` of the probability (Holtzman et al. 2020). Temperature 0 is argmax, the lowest id on a tie.

    Args:
        logits: [|V|], on the CPU.
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


def generate(
    run: Run,
    prompt: str | None = None,
    length: int = 100,
    *,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int | None = None,
) -> Iterator[str]:
    """Text after a prompt, piece by piece as it is made; the prompt itself is not repeated.

    The prompt is read from h(0) = 0 and the state carried on, so that each further token costs one step. Without a prompt
    the text begins as a document does, behind <eos>. It ends after ``length`` tokens or where the model ends the document.

    Args:
        run: what ``lm.load`` returns.
        temperature: above 0 flattens the distribution above 1 and sharpens it below; 0 takes the likeliest token.
        top_k: keep this many tokens; 0 keeps all.
        top_p: keep the smallest set of tokens with this much probability.
        seed: of the draws; None draws a fresh one.

    Raises:
        InputError: for settings out of range and for a prompt of nothing.
    """
    check(length, temperature, top_k, top_p, seed)
    ids = [EOS] if prompt is None else encode_prompt(run, prompt)
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return _generate(run, ids, length, (temperature, top_k, top_p), generator)


def _generate(
    run: Run, ids: list[int], length: int, how: tuple[float, int, float], generator: torch.Generator
) -> Iterator[str]:
    model, decoder = run.model, run.tokenizer.decoder()
    device = model.embedding.weight.device
    for i in ids:
        decoder.push(i)  # white space after the prompt depends on it
    state = model.zero_state(1)
    for _ in range(length):
        with torch.no_grad():
            hidden, state = model(torch.tensor([ids], device=device), state)
            logits = model.logits(hidden[-1, 0]).float().cpu()
        logits[list(run.tokenizer.never)] = -torch.inf
        token = pick(logits, *how, generator)
        if token == EOS:
            break
        yield decoder.push(token)
        ids = [token]
    yield decoder.flush()


def encode_prompt(run: Run, prompt: str) -> list[int]:
    """The prompt's ids; a prompt that is no text is refused with a sentence."""
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError("the prompt holds bytes that are no text in this terminal's encoding; give it in UTF-8") from None
    ids = run.tokenizer.encode(prompt)
    if not ids:
        raise InputError("the prompt is empty; leave --prompt out to begin as a document does")
    return ids


def check(length: int, temperature: float, top_k: int, top_p: float, seed: int | None = None) -> None:
    """Refuse settings that make no distribution."""
    if seed is not None and not 0 <= seed < 2**62:
        raise InputError(f"--seed must be at least 0 and less than 2**62, not {seed}")
    if length < 1:
        raise InputError(f"--length must be at least 1, not {length}")
    if not 0 <= temperature < float("inf"):
        raise InputError(f"--temperature must be 0 or more, not {temperature}")
    if top_k < 0:
        raise InputError(f"--top-k must be 0 or more, not {top_k}")
    if not 0 < top_p <= 1:
        raise InputError(f"--top-p must be more than 0 and at most 1, not {top_p}")
