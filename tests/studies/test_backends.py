"""Whole trainings by each backend: real ones, tiny, and planted curves whose verdicts are known."""

import pytest
from backend_cases import planted

from recurrent_lm import studies
from recurrent_lm.studies.backends.claims import apart
from recurrent_lm.studies.backends.study import Study, complaint

TINY = Study(corpora="trump", cell=("gru",), hidden=4, epochs=2, seeds=2, min_count=50)


def claim(table, key):
    claims = studies.verdicts(table)
    return studies.select(claims, key).iloc[0]


def test_real_trainings_by_two_backends_are_the_same_and_seeds_are_not():
    table = TINY()
    assert len(table) == 2 * 2 * 2
    assert complaint(TINY, table) == ""
    row = apart(table, "torch", "eager").iloc[0]
    assert 0 <= row["distance"] < 1e-4 < row["noise"]
    assert (table["seconds"] > 0).all()
    assert claim(table, "curve")["verdict"] == "holds"
    losses = table.groupby("epoch")["valid_loss"].mean()
    assert losses[2] < losses[1], "something was learnt"


@pytest.mark.parametrize(
    ("distance", "seeds", "verdict"), [(0.0, 3, "holds"), (0.09, 3, "holds"), (0.11, 3, "fails"), (0.0, 1, "ambiguous")]
)
def test_curves_are_the_same_within_the_spread_of_seeds_at_the_epoch_where_they_differ_most(distance, seeds, verdict):
    table = planted(distance, seeds=seeds)
    row = claim(table, "curve")
    assert row["verdict"] == verdict
    assert row["setting"] == f"gru on obama, {seeds} seeds"
    if distance:
        assert "after epoch 2" in row["measured"]


@pytest.mark.parametrize(("speed", "verdict"), [(2.0, "holds"), (1.0, "holds"), (0.5, "fails")])
def test_speed_is_of_the_epochs_after_the_one_that_compiles(speed, verdict):
    row = claim(planted(speed=speed, seeds=4), "speed.triton")
    assert row["verdict"] == verdict
    assert float(row["measured"].split()[0]) == pytest.approx(speed, rel=0.01)


def test_what_does_not_hold_has_a_reason():
    table = planted(0.11, speed=0.5, seeds=4)
    curve, speed = claim(table, "curve"), claim(table, "speed")
    assert (curve["verdict"], speed["verdict"]) == ("fails", "fails")
    assert "computes something else" in curve["reason"]
    assert "differ by up to 1.0" in speed["reason"]
    assert "one seed" in claim(planted(seeds=1), "curve")["reason"]


def test_a_backend_that_was_not_measured_is_said():
    table = planted()
    attrs = table.attrs
    table = table[table["backend"] == "torch"]
    table.attrs = attrs
    claims = studies.verdicts(table)
    assert list(claims["verdict"]) == ["not measured"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"backends": ("torch",)}, "two or more"),
        ({"device": "cuda"}, "needs a CUDA GPU"),
        ({"graph": "yes"}, "is for a GPU"),
        ({"corpora": "obama,obama"}, "different names"),
    ],
)
def test_what_cannot_be_measured_here_is_refused(settings, words, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(studies.InputError, match=words):
        Study(**settings).prepare()


def test_triton_without_a_gpu_or_the_interpreter_is_refused(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(studies.InputError, match="backends: "):
        Study(backends=("torch", "triton")).prepare()
