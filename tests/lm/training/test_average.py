"""The running average of the weights: by hand, beside a training that it must not disturb, and in what a run keeps."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recurrent_lm.lm.config import ModelConfig
from recurrent_lm.lm.model import LanguageModel
from recurrent_lm.lm.runs import checkpoint
from recurrent_lm.lm.runs import folder as runs
from recurrent_lm.lm.scoring.evaluate import evaluate
from recurrent_lm.lm.training.start import new_training, resume
from recurrent_lm.lm.training.step import Average

Log = Callable[[Path], list[dict[str, Any]]]
Fit = Callable[..., Any]
Make = Callable[..., Any]


@pytest.mark.parametrize("keep", [0.9, 0.05])
def test_the_average_by_hand(keep: float) -> None:
    model = LanguageModel(5, ModelConfig(hidden_size=4)).double()
    average = Average(model, keep)
    draw = torch.Generator().manual_seed(0)
    expected: list[torch.Tensor] = []
    for n in range(12):
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.rand(p.shape, generator=draw, dtype=torch.double))
        average.update(model, n)
        kept = min(keep, n / (n + 10))
        old = expected or [torch.full_like(p, torch.nan) for p in model.parameters()]  # of the first weights nothing is left
        new = [p.detach() for p in model.parameters()]
        expected = [(kept * a + (1 - kept) * w) if n else w.clone() for a, w in zip(old, new, strict=True)]
        for a, e in zip(average.model.parameters(), expected, strict=True):
            torch.testing.assert_close(a.detach(), e, rtol=1e-13, atol=0)
    assert average.model.decoder.weight is average.model.embedding.weight, "tied as the model is"
    assert not any(p.requires_grad for p in average.model.parameters())
    assert all(p.requires_grad for p in model.parameters())


def test_averaging_changes_what_is_validated_and_nothing_of_the_training(
    tmp_path: Path, corpus: Path, fit: Fit, read_log: Log
) -> None:
    how = {"schedule": "constant", "dropout": 0.3, "patience": 0, "epochs": 3, "lr": 0.02}
    plain, averaged = fit(tmp_path / "a", corpus, **how), fit(tmp_path / "b", corpus, average=0.9, **how)
    steps = [(path / "steps.jsonl").read_bytes() for path in (plain.path, averaged.path)]
    assert steps[0] == steps[1]
    losses = [[r["valid_loss"] for r in read_log(path / "epochs.jsonl")] for path in (plain.path, averaged.path)]
    assert losses[0] != losses[1]
    for which, record in (("best", min(losses[1])), ("last", losses[1][-1])):
        score = evaluate(runs.load(averaged.path, which, device="cpu").model, averaged.data.valid)
        assert score.loss == pytest.approx(record, rel=1e-6), which
    result = json.loads((averaged.path / "result.json").read_text())
    assert result["valid"]["loss"] == pytest.approx(min(losses[1]), rel=1e-6)
    last = checkpoint.load(averaged.path).groups
    assert last.keys() == {"model", "moving", "optimizer", "state"}
    for name, moved in checkpoint.load(plain.path).groups["model"].items():
        assert torch.equal(moved, last["moving"][name]), name
        assert not torch.equal(moved, last["model"][name]), name


def test_what_starts_from_an_average_starts_from_its_weights(tmp_path: Path, corpus: Path, fit: Fit, make_config: Make) -> None:
    source = fit(tmp_path / "a", corpus, average=0.9).path
    best = checkpoint.load(source, "best").groups["model"]
    begun = new_training(make_config(corpus, average=0.9, init_from=str(source)), tmp_path / "b")
    begun.lock.release()
    for training in (begun, resume(tmp_path / "b")):  # before any update, too
        for group in (runs.weights_of(training.model), runs.weights_of(training.scored)):
            assert all(torch.equal(best[name], group[name]) for name in best)
    assert all(torch.equal(best[name], w) for name, w in checkpoint.load(tmp_path / "b").groups["model"].items())
