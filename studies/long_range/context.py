"""How much of the past a language model uses: what it loses without it, and what one changed token does to its prediction.

Contexts are windows of text, [P, M] tokens, each with the token that comes next, [P]; a window is read from h = 0.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recurrent_lm import lm
from recurrent_lm.studies.engine.language_models import trained

RATES = {"rnn-tanh": 0.002}  # Adam's; the others take 0.003


def measure(corpus: str, cell: str, seed: int, study: Any) -> list[dict[str, Any]]:
    """Train one model and measure it on its test text: rows of the parts history and influence.

    Args:
        study: has ``units``, ``epochs``, ``context``, ``positions``, ``kept`` (n) and ``distances`` (l).
    """
    training = trained(config(corpus, cell, seed, study))
    if training.diverged:
        raise lm.InputError(f"the model diverged: {training.diverged}")
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
    """The settings of a model: words that occur three times or more."""
    sizes = {"kind": "word", "min_count": 3, "cell": cell, "hidden_size": study.units, "epochs": study.epochs}
    return lm.RunConfig().replace(source=corpus, lr=RATES.get(cell, 0.003), seed=seed, **sizes)


def check_length(tokens: int, length: int) -> None:
    """Refuse a test text that holds no window with a token after it."""
    if tokens <= length:
        raise lm.InputError(f"the test text has {tokens} tokens; take a context of less than that, not {length}")


def contexts(ids: Tensor, length: int, count: int) -> tuple[Tensor, Tensor]:
    """At most ``count`` windows [P, length] spread evenly over a text [N], and the token after each, [P]."""
    check_length(len(ids), length)
    places = len(ids) - length
    starts = torch.linspace(0, places - 1, min(count, places)).long()
    windows = ids[starts[:, None] + torch.arange(length + 1)]
    return windows[:, :-1], windows[:, -1]


def history(
    model: lm.LanguageModel, windows: Tensor, following: Tensor, kept: Iterable[int], random: torch.Generator
) -> list[tuple[str, int, float]]:
    """Mean -log P of the next token, in nats, when what lies more than n tokens back is ``dropped`` (the state is zeroed and
    filled again from the last n) or ``shuffled`` (read first, in an order drawn for each window); and with ``all`` M.

    The latter leaves the state as the model knows it: Khandelwal et al. 2018, "Sharp nearby, fuzzy far away".
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
    """Mean KL(P || P'), in nats, of the prediction after a window when the token at lag l in it is another one, for each l.

    Lag 0 is the token read last. The other token is drawn from ``pool`` [N], a text, and is never the one that stood there.
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
        )  # rounding may dip below 0
    return divergences


def other(tokens: Tensor, pool: Tensor, random: torch.Generator) -> Tensor:
    """For each of ``tokens`` [P] a different one, drawn from a text [N] as often as it stands there.

    Raises:
        InputError: when the text has fewer than two kinds of tokens.
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
