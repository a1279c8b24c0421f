"""How much of the past a model uses: on models whose memory is known."""

import math
from itertools import pairwise

import pytest
import torch

from recurrent_lm import lm
from recurrent_lm.studies.long_range.context import contexts, history, influence, other

WORDS = 6


def bigram():
    """A model that looks at the last token alone: its recurrence is cut."""
    torch.manual_seed(0)
    config = lm.RunConfig().replace(cell="rnn-tanh", hidden_size=16, dropout=0.0).model
    model = lm.LanguageModel(WORDS, config).eval()
    with torch.no_grad():
        model.embedding.weight.mul_(20)
        model.layers[0].weight_hh_l0.zero_()
    return model


def remembering():
    """A model with the same weights and a recurrence that carries the state on."""
    model = bigram()
    with torch.no_grad():
        model.layers[0].weight_hh_l0.copy_(0.5 * torch.eye(16))
        model.layers[0].weight_ih_l0.mul_(0.1)
    return model


@pytest.fixture
def text():
    return torch.randint(WORDS, (400,), generator=torch.Generator().manual_seed(1))


def test_windows_lie_evenly_over_the_text_with_what_follows(text):
    windows, following = contexts(torch.arange(400), 30, 5)
    assert windows[:, 0].tolist() == [0, 92, 184, 276, 369]
    assert torch.equal(windows, windows[:, :1] + torch.arange(30)) and torch.equal(following, windows[:, -1] + 1)
    assert following[-1] == 399
    assert len(contexts(text, 396, 100)[0]) == 4  # no more than there are
    with pytest.raises(lm.InputError, match="400 tokens; take a context of less than that, not 400"):
        contexts(text, 400, 5)


def test_a_model_without_memory_loses_nothing_and_one_with_memory_does(text):
    windows, following = contexts(text, 30, 50)
    random = torch.Generator().manual_seed(2)
    losses = {(method, n): nats for method, n, nats in history(bigram(), windows, following, [1, 5], random)}
    assert losses.keys() == {("dropped", 1), ("shuffled", 1), ("dropped", 5), ("shuffled", 5), ("all", 30)}
    assert max(losses.values()) - min(losses.values()) < 1e-6
    losses = {(method, n): nats for method, n, nats in history(remembering(), windows, following, [1, 5], random)}
    for method in ("dropped", "shuffled"):
        assert abs(losses[method, 1] - losses["all", 30]) > 5 * abs(losses[method, 5] - losses["all", 30]) > 1e-5


def test_the_loss_is_that_of_the_last_n_tokens_read_from_zero(text):
    model = remembering()
    windows, following = contexts(text, 30, 3)
    (_, _, dropped), *_ = history(model, windows, following, [4], torch.Generator().manual_seed(0))
    nats = []
    with torch.no_grad():
        for window, token in zip(windows, following, strict=True):
            hidden, _ = model(window[None, -4:], model.zero_state(1))
            nats.append(float(model.logits(hidden[-1, 0]).log_softmax(0)[token].neg()))
    assert dropped == pytest.approx(sum(nats) / 3, rel=1e-5)


def test_a_changed_token_changes_what_the_model_remembers(text):
    windows, _ = contexts(text, 30, 50)
    random = torch.Generator().manual_seed(3)
    (_, near), (_, far) = influence(bigram(), windows, text, [0, 1], random)
    assert near > 0.1 and far < 1e-12
    kls = [kl for _, kl in influence(remembering(), windows, text, [0, 3, 8, 15, 29], random)]
    assert all(a > b for a, b in pairwise(kls)) and kls[-1] >= 0


def test_the_divergence_is_the_textbooks(text):
    """Two rows, by hand: sum over v of P(v) log(P(v) / P'(v))."""
    model = remembering()
    windows, _ = contexts(text, 10, 2)
    ((lag, kl),) = influence(model, windows, text, [2], torch.Generator().manual_seed(4))
    changed = windows.clone()
    changed[:, 7] = other(windows[:, 7], text, torch.Generator().manual_seed(4))
    total = 0.0
    with torch.no_grad():
        for pair in zip(windows, changed, strict=True):
            p, q = (model.logits(model(ids[None], model.zero_state(1))[0][-1, 0]).double().softmax(0).tolist() for ids in pair)
            total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert lag == 2 and kl == pytest.approx(total / 2, rel=1e-5)


def test_another_token_is_another_and_as_frequent_as_in_the_text():
    pool = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    tokens = torch.tensor([0, 1] * 5000)
    drawn = other(tokens, pool, torch.Generator().manual_seed(5))
    assert (drawn != tokens).all()
    assert float((drawn[tokens == 0] == 1).float().mean()) == pytest.approx(0.9, abs=0.02)
    assert float((drawn[tokens == 1] == 0).float().mean()) == pytest.approx(900 / 910, abs=0.01)
    with pytest.raises(lm.InputError, match="only one kind"):
        other(tokens, torch.zeros(10, dtype=torch.long), torch.Generator())
