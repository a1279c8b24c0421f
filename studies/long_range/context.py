"""How much of the past a language model uses: its loss without it, and the effect of one changed token on its prediction.

Contexts are windows of text, [P, M] tokens, with the token that follows each, [P]. A window is read from h = 0.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recurrent_lm import lm
from recurrent_lm.studies.engine.language_models import converged

RATES = {"rnn-tanh": 0.002}  # Adam's; the others take 0.003


def measure(corpus: str, cell: str, seed: int, study: Any) -> list[dict[str, Any]]:
    """Train one model and measure it on its test text.

    Args:
        corpus, cell, seed: of the model.
        study: with ``units``, ``epochs``, ``context``, ``positions``, ``kept`` (n) and ``distances`` (l).

    Returns:
        Rows of the parts history and influence.

    Raises:
        InputError: if the training diverges or the test text is too short.
    """
    training = converged(config(corpus, cell, seed, study))
    ids, before = (torch.from_numpy(part.ids).long() for part in (training.data.test, training.data.train))
    windows, following = contexts(ids, study.context, study.positions)
    random = torch.Generator().manual_seed(seed)
    rows = []
    model = training.run.model
    frequencies = torch.bincount(before, minlength=model.vocabulary) + 1.0
    nothing = float(-(frequencies / frequencies.sum()).log()[following].mean())
    for method, n, loss in (("dropped", 0, nothing), *history(model, windows, following, study.kept, random)):
        rows.append({"part": "history", "method": method, "steps": n, "nats": loss})
    for lag, kl in influence(model, windows, before, study.distances, random):
        rows.append({"part": "influence", "method": "changed", "steps": lag, "nats": kl})
    return rows


def config(corpus: str, cell: str, seed: int, study: Any) -> lm.RunConfig:
    """A model's settings; words that occur fewer than three times are unknown."""
    sizes = {"kind": "word", "min_count": 3, "cell": cell, "hidden_size": study.units, "epochs": study.epochs}
    return lm.RunConfig().replace(source=corpus, lr=RATES.get(cell, 0.003), seed=seed, **sizes)


def check_length(tokens: int, length: int) -> None:
    """Refuse a test text that is shorter than a window and the token after it."""
    if tokens <= length:
        raise lm.InputError(f"the test text has {tokens} tokens; take a context of less than that, not {length}")


def contexts(ids: Tensor, length: int, count: int) -> tuple[Tensor, Tensor]:
    """Windows spread evenly over a text.

    Args:
        ids: [N].
        length: M, tokens of a window.
        count: windows at most.

    Returns:
        The windows [P, M] and the token after each [P].
    """
    check_length(len(ids), length)
    places = len(ids) - length
    starts = torch.linspace(0, places - 1, min(count, places)).long()
    windows = ids[starts[:, None] + torch.arange(length + 1)]
    return windows[:, :-1], windows[:, -1]


def history(
    model: lm.LanguageModel, windows: Tensor, following: Tensor, kept: Iterable[int], random: torch.Generator
) -> list[tuple[str, int, float]]:
    """Loss of the next token when tokens more than n steps back are removed or shuffled (Khandelwal et al. 2018).

    Args:
        model: a trained model.
        windows, following: from ``contexts``.
        kept: the numbers n.
        random: of the orders.

    Returns:
        (method, n, mean -log P in nats): ``dropped`` reads the last n tokens from h = 0; ``shuffled`` first reads the others in
        an order drawn for each window, which leaves the state in the range that the model knows; ``all`` reads the window.
    """
    length = windows.shape[1]
    losses = []
    for n in kept:
        last = windows[:, length - n :]
        order = torch.rand(windows.shape[0], length - n, generator=random).argsort(dim=1)
        mixed = torch.cat([windows[:, : length - n].gather(1, order), last], dim=1)
        losses += [("dropped", n, _loss(model, last, following)), ("shuffled", n, _loss(model, mixed, following))]
    return [*losses, ("all", length, _loss(model, windows, following))]


def influence(
    model: lm.LanguageModel, windows: Tensor, pool: Tensor, distances: Iterable[int], random: torch.Generator
) -> list[tuple[int, float]]:
    """Effect of one changed token on the prediction after a window.

    Args:
        model: a trained model.
        windows: [P, M].
        pool: [N], a text from which the replacing tokens are drawn.
        distances: lags l of the changed token; lag 0 is the token read last.
        random: of the draws.

    Returns:
        (l, mean KL(P || P') in nats).
    """
    length = windows.shape[1]
    truth = _predictions(model, windows)
    divergences = []
    for lag in distances:
        changed = windows.clone()
        changed[:, length - 1 - lag] = other(windows[:, length - 1 - lag], pool, random)
        guess = _predictions(model, changed)
        divergences.append(
            (lag, float((truth.exp() * (truth - guess)).sum(dim=-1).clamp_min(0).mean()))
        )  # rounding may make it negative
    return divergences


def other(tokens: Tensor, pool: Tensor, random: torch.Generator) -> Tensor:
    """Draw a different token for each of ``tokens`` [P], with the frequencies of a text [N].

    Raises:
        InputError: if the text has fewer than two kinds of tokens.
    """
    if len(pool.unique()) < 2:
        raise lm.InputError("the training text has only one kind of token, and no other can take its place")
    drawn = tokens.clone()
    while (same := drawn == tokens).any():
        drawn[same] = pool[torch.randint(len(pool), (int(same.sum()),), generator=random)]
    return drawn


def _predictions(model: lm.LanguageModel, tokens: Tensor) -> Tensor:
    """log P of the token after each row, [P, |V|] in float64, the state zero before the row."""
    with torch.no_grad():
        hidden, _ = model(tokens, model.zero_state(len(tokens)))
        return model.logits(hidden[-1]).double().log_softmax(dim=-1)


def _loss(model: lm.LanguageModel, tokens: Tensor, following: Tensor) -> float:
    return float(F.nll_loss(_predictions(model, tokens), following))
