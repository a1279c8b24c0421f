"""A run in Python: trained in one call, loaded from a folder, printed, and its history read while it goes on."""

from pathlib import Path
from typing import Any

import pytest

from recurrent_lm import lm
from recurrent_lm.lm.base.storage import in_use, lock

TINY = {"kind": "word", "cell": "gru", "hidden_size": 8, "rows": 4, "bptt": 8, "threads": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> tuple[lm.Run, list[dict[str, Any]], Path]:
    """What ``lm.train`` gave, what it called back with, and the run's folder."""
    epochs: list[dict[str, Any]] = []
    path = tmp_path_factory.mktemp("called") / "runs" / "one"
    run = lm.train(corpus, path, each_epoch=epochs.append, quiet=True, epochs=2, **TINY)
    return run, epochs, path


def test_one_call_trains_and_gives_the_best_model(called: Any) -> None:
    run, _, path = called
    loaded = lm.load(path, device="cpu")
    assert lm.next_token(run, "the people").entropy == lm.next_token(loaded, "the people").entropy
    assert (path / "result.json").exists()


def test_the_callback_gets_each_epoch_with_its_text(called: Any) -> None:
    _, epochs, path = called
    kept = lm.history(path)
    assert len(epochs) == len(kept.epochs) == 2
    for given, record, text in zip(epochs, kept.epochs, kept.samples, strict=True):
        assert given == record | {"prompt": text["prompt"], "text": text["text"]}


def test_a_run_prints_as_five_lines(called: Any) -> None:
    run, epochs, path = called
    lines = str(run).splitlines()
    assert len(lines) == 5
    best = min(epochs, key=lambda r: r["valid_loss"])
    assert f"{best['valid_loss']:.4f}" in lines[-1] and f"{best['valid_bits_per_byte']:.3f}" in lines[-1]
    assert f"|V| = {run.tokenizer.size:,}" in lines[2]
    assert repr(run) == f"Run({str(path)!r})"


def test_a_run_without_an_epoch_prints_as_five_lines(tmp_path: Path, corpus: Path, make_config: Any) -> None:
    training = lm.new_training(make_config(corpus), tmp_path / "run")
    assert training.lock
    training.lock.release()
    assert len(str(lm.load(tmp_path / "run", device="cpu")).splitlines()) == 5


def test_a_folder_of_one_run_is_that_run_and_of_several_is_refused(called: Any, tmp_path: Path, trained: Path) -> None:
    _, _, path = called
    assert lm.load(path.parent, device="cpu").path == path
    assert lm.runs_in(path.parent) == lm.runs_in(path) == [path]
    for name in ("a", "b"):
        (tmp_path / name).symlink_to(trained)
    assert lm.runs_in(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(lm.InputError, match="holds 2 runs"):
        lm.load(tmp_path)
    with pytest.raises(lm.InputError, match="there is no run"):
        lm.load(tmp_path / "c")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"learning_rate": 0.1}, r"\[training\] lr is meant"),
        ({"nonsense": 1}, "'nonsense'"),
        ({"preset": "nonsense"}, "no preset 'nonsense'"),
        ({"lr": "fast"}, "--lr must be a number"),
    ],
)
def test_one_call_refuses_what_it_does_not_know(tmp_path: Path, corpus: Path, settings: Any, named: str) -> None:
    with pytest.raises(lm.InputError, match=named):
        lm.train(corpus, tmp_path / "run", quiet=True, **settings)
    assert not (tmp_path / "run").exists()


def test_one_call_takes_complete_settings_as_they_are(tmp_path: Path, corpus: Path, make_config: Any) -> None:
    config = make_config(corpus, kind="word", epochs=1)
    assert lm.train(config, tmp_path / "run", quiet=True).config.batches == config.batches
    with pytest.raises(lm.InputError, match="not both"):
        lm.train(config, tmp_path / "other", preset="demo")


def test_a_history_tells_whether_the_training_goes_on(tmp_path: Path, corpus: Path, make_config: Any) -> None:
    training = lm.new_training(make_config(corpus, epochs=1), tmp_path / "run")
    before = lm.history(tmp_path / "run")
    assert (before.running, before.epochs, before.result, before.best) == (True, [], None, None)
    training.run(quiet=True)
    after = lm.history(tmp_path / "run")
    assert not after.running
    assert after.result is not None and after.best == after.epochs[0]
    assert [record["step"] for record in after.steps] == list(range(1, training.at.step + 1))


def test_whether_a_folder_is_in_use_is_asked_without_taking_it(tmp_path: Path) -> None:
    assert not in_use(tmp_path)
    held = lock(tmp_path)
    assert in_use(tmp_path) and in_use(tmp_path)
    held.release()
    assert not in_use(tmp_path)
    lock(tmp_path).release()


def test_the_history_of_what_is_no_run_is_refused(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(lm.InputError, match="there is no run"):
        lm.history(tmp_path / "nowhere")
    with pytest.raises(lm.InputError, match="is not a run folder"):
        lm.history(tmp_path)
