"""Scores under dropout masks against the model's own forward pass in training, with the same masks."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recurrent_lm import lm
from recurrent_lm.lm.config import ModelConfig
from recurrent_lm.lm.model import LanguageModel
from recurrent_lm.lm.scoring.dynamic import dynamic_losses
from recurrent_lm.lm.scoring.evaluate import token_losses
from recurrent_lm.lm.scoring.masks import Masks, Thinned, draw_masks, masked_losses
from recurrent_lm.lm.text.tokens import EOS

V = 7
IDS = np.random.default_rng(0).integers(0, V, 23).astype(np.int32)
DROPS = {"dropout": 0.4, "embedding_dropout": 0.3, "weight_drop": 0.5}
SHAPES: list[tuple[str, dict[str, Any]]] = [
    ("lstm", {"layers": 2}),  # tied, without a projection
    ("gru", {"embedding_size": 3}),  # with one
    ("rnn-tanh", {"tie": False, "embedding_size": 3}),
    ("mingru", {"layers": 2, "weight_drop": 0.0}),  # without W_h
]


def build(cell: str = "lstm", **settings: Any) -> LanguageModel:
    torch.manual_seed(0)
    settings = {"hidden_size": 5, "init_width": 1.5, **DROPS, **settings}
    return LanguageModel(V, ModelConfig(cell=cell, **settings)).double()


def in_training(model: LanguageModel, masks: Masks, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """-log P of each token in the training's forward pass, with these masks in the order in which it asks for them."""
    model, read = copy.deepcopy(model).train(), torch.tensor([[EOS, *IDS[:-1].tolist()]])
    names = ["embedding.weight", "layers.0.weight_ih_l0"]
    for i in range(model.config.layers):
        last = "decoder.weight" if model.projection is None else "projection.weight"
        recurrent = [f"layers.{i}.weight_hh_l0"] if model.config.weight_drop else []
        names += [*recurrent, f"layers.{i + 1}.weight_ih_l0" if i + 1 < model.config.layers else last]
    waiting = iter(names)

    def prepared(x: Tensor, share: float) -> Tensor:
        mask = masks[next(waiting)]
        factors = mask.keep.to(x.dtype) * mask.scale
        assert mask.scale == 1 / (1 - share)
        return x * factors.reshape(x.shape)

    with monkeypatch.context() as patched:
        patched.setattr("recurrent_lm.lm.model.F.dropout", prepared)
        hidden, _ = model(read, model.zero_state(1))
    assert next(waiting, None) is None
    return F.cross_entropy(model.logits(hidden[:, 0]), torch.from_numpy(IDS).long(), reduction="none").tolist()


@pytest.mark.parametrize("cell, settings", SHAPES)
def test_the_mean_probability_of_networks_that_training_would_see(
    cell: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(cell, **settings)
    each = [in_training(model, masks, monkeypatch) for masks in draw_masks(model, 3, 5)]
    assert masked_losses(model, IDS, masks=1, seed=5) == pytest.approx(each[0], rel=1e-9)
    assert masked_losses(model, IDS, masks=3, seed=5) == pytest.approx(-np.log(np.exp(-np.array(each)).mean(0)), rel=1e-9)
    assert len({round(losses[-1], 9) for losses in each}) == 3, "the masks differ"


@pytest.mark.parametrize("cell, settings", SHAPES)
def test_learning_on_with_masks_has_one_weight_vector(
    cell: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first segment is read by the model as it is, the next one by a model that has made dynamic evaluation's step."""
    model, bptt = build(cell, **settings), 10
    losses = dynamic_losses(model, IDS, lr=0.5, bptt=bptt, masks=3, seed=5)
    assert losses[:bptt] == pytest.approx(masked_losses(model, IDS[:bptt], masks=3, seed=5), rel=1e-9)
    assert dynamic_losses(model, IDS, lr=0.0, bptt=bptt, masks=3, seed=5) == pytest.approx(
        masked_losses(model, IDS, masks=3, seed=5), rel=1e-9
    )
    learnt: list[dict[str, Tensor]] = []
    by = Thinned.by

    def noted(self: Thinned, masks: Masks, whole: LanguageModel) -> LanguageModel:
        learnt.append({name: value.clone() for name, value in whole.state_dict().items()})
        return by(self, masks, whole)

    monkeypatch.setattr(Thinned, "by", noted)
    dynamic_losses(model, IDS, lr=0.5, bptt=bptt, masks=3, seed=5)
    assert len(learnt) == 3 * 3  # segments times masks
    for first in (0, 3, 6):
        assert all(torch.equal(learnt[first][name], learnt[first + 2][name]) for name in learnt[first])
    assert not torch.equal(learnt[0]["decoder.bias"], learnt[3]["decoder.bias"])


def test_without_dropout_it_is_the_whole_network() -> None:
    model = build(dropout=0.0, embedding_dropout=0.0, weight_drop=0.0)
    assert masked_losses(model, IDS, masks=4, seed=1) == pytest.approx(token_losses(model, IDS), rel=1e-12)
    learning = dynamic_losses(model, IDS, lr=0.5, bptt=6)
    assert dynamic_losses(model, IDS, lr=0.5, bptt=6, masks=4) == pytest.approx(learning, rel=1e-12)


def test_the_same_seed_has_the_same_masks_and_fewer_sets_are_the_first() -> None:
    model = build()
    three, two, other = (list(draw_masks(model, n, seed)) for n, seed in ((3, 5), (2, 5), (1, 6)))
    for one, same in zip(two, three, strict=False):
        assert all(torch.equal(one[name].keep, same[name].keep) for name in one)
    assert not torch.equal(other[0]["embedding.weight"].keep, three[0]["embedding.weight"].keep) or not torch.equal(
        other[0]["layers.0.weight_hh_l0"].keep, three[0]["layers.0.weight_hh_l0"].keep
    )


def test_each_mask_drops_the_share_of_the_settings() -> None:
    model = build(hidden_size=40, layers=2)
    sets = list(draw_masks(model, 50, 1))
    shares = {name: 1 - float(torch.stack([s[name].keep for s in sets]).double().mean()) for name in sets[0]}
    wanted = {"embedding.weight": 0.3, "decoder.weight": 0.4}
    wanted |= {f"layers.{i}.weight_{which}_l0": share for i in (0, 1) for which, share in (("ih", 0.4), ("hh", 0.5))}
    assert shares.keys() == wanted.keys()
    assert shares == pytest.approx(wanted, abs=0.06)


def test_rows_side_by_side_read_with_the_same_masks() -> None:
    """With enough tokens before each part the rows are the text as a whole."""
    model = build()
    assert masked_losses(model, IDS, masks=2, seed=3, rows=3, warmup=len(IDS)) == pytest.approx(
        masked_losses(model, IDS, masks=2, seed=3), rel=1e-6
    )


def test_the_model_stays_as_it_was() -> None:
    model = build().train()
    before = copy.deepcopy(model.state_dict())
    masked_losses(model, IDS, masks=5, seed=1)
    dynamic_losses(model, IDS, lr=0.5, bptt=6, masks=2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training and model.decoder.weight is model.embedding.weight


@pytest.mark.parametrize("dynamic", [False, True])
def test_compare_scores_and_mixes_what_the_masks_give(trained: Path, dynamic: bool) -> None:
    run = lm.load(trained)
    run.model.config = ModelConfig(**{**vars(run.model.config), "dropout": 0.3})
    notes: list[str] = []
    how = lm.How(dynamic=dynamic, dynamic_lr=0.1 if dynamic else None, masks=2, mask_seed=4, ngram=2, interpolate=True)
    compared = lm.compare(run, how, note=notes.append)
    names = [name for name, _ in compared.scores]
    masked = masked_losses(run.model, compared.stream.ids, masks=2, seed=4)
    assert dict(compared.scores)["mean of 2 dropout masks"].loss == pytest.approx(masked.mean())
    assert len(names) == (6 if dynamic else 4)
    if dynamic:
        bptt = run.config.batches.bptt
        losses = dynamic_losses(run.model, compared.stream.ids, lr=0.1, bptt=bptt, masks=2, seed=4)
        assert dict(compared.scores)["learning on, mean of 2 dropout masks"].loss == pytest.approx(losses.mean())
    assert names[-1].endswith("2-gram") and "mean of 2 dropout masks" in names[-1]
    assert any("without dropout" in note for note in notes) is not run.config.model.drops
