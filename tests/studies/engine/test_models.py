"""Models that a study trains: what the trainer makes, and nothing left behind."""

import os
import signal
import tempfile

import pytest
import torch

from recurrent_lm import lm
from recurrent_lm.studies.engine.language_models import trained

TEXT = "the people of the union and the people of the states stand by the union. " * 60


@pytest.fixture
def config(tmp_path, monkeypatch):
    corpus = tmp_path / "text.txt"
    corpus.write_text(TEXT)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    sizes = {"kind": "char", "hidden_size": 8, "rows": 4, "bptt": 10, "epochs": 2, "dropout": 0.2}
    return lm.RunConfig().replace(source=str(corpus), **sizes)


def left(tmp_path):
    return list((tmp_path / "tmp").glob("studies-*"))


def test_it_is_the_model_that_the_trainer_makes(config, tmp_path):
    model_of_study = trained(config)
    training = lm.new_training(config.replace(device="cpu", precision="float32"), tmp_path / "run")
    scores = training.run(quiet=True)
    assert model_of_study.scores == scores
    loaded = lm.load(tmp_path / "run", device="cpu").model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model_of_study.run.model.state_dict().items())
    assert (
        list(model_of_study.epochs["epoch"]) == [1, 2]
        and model_of_study.epochs["valid_loss"].iloc[0] > model_of_study.epochs["valid_loss"].iloc[1]
    )
    assert list(model_of_study.steps["step"]) == list(range(1, len(model_of_study.steps) + 1)) and not model_of_study.diverged
    assert left(tmp_path) == []


def test_watching_sees_the_start_and_each_epoch_and_changes_nothing(config):
    seen = []
    watched = trained(config, lambda training: seen.append((training.at.epoch, training.model.decoder.bias.detach().clone())))
    assert [epoch for epoch, _ in seen] == [0, 1, 2]
    assert not torch.equal(seen[0][1], seen[1][1])
    assert watched.scores == trained(config).scores


def test_a_training_that_explodes_says_so_and_leaves_the_last_good_model(config, tmp_path):
    training = trained(config.replace(optimizer="sgd", lr=1e6, clip="none"))
    assert "Try a smaller --lr" in training.diverged and training.scores == {}
    assert all(p.isfinite().all() for p in training.run.model.parameters())
    assert left(tmp_path) == []


def test_a_signal_reaches_whoever_waits_for_it_after_the_folder_is_gone(config, tmp_path):
    got = []

    def stop(training):
        if training.at.epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with (
        lm.handled(lambda signum, frame: got.append((signum, left(tmp_path)))),
        pytest.raises(lm.InputError, match="signal 15"),
    ):
        trained(config, stop)
    assert got == [(signal.SIGTERM, [])]


def test_a_corpus_that_cannot_be_trained_on_is_refused(config, tmp_path):
    with pytest.raises(lm.InputError, match="rows"):
        trained(config.replace(rows=100_000))
    assert left(tmp_path) == []
