"""Faults that were once accepted without a word, or ended in a traceback: one example of each."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty_disk import cut_off, losses

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.base.storage import digest, intact, sealed, unseal
from recurrent_lm.lm.runs import checkpoint
from recurrent_lm.lm.runs.logs import Log, check
from recurrent_lm.lm.text.tokens import from_json
from recurrent_lm.lm.training import start as launch

Make = Callable[..., Any]
Command = Callable[..., tuple[int, str, str]]

SHORT = {"rows": 8, "bptt": 16, "epochs": 3, "checkpoint_every": 3, "kind": "word"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, corpus: Path, make_config: Make, fit: Any) -> Path:
    """A finished run, and one of the same settings in its second epoch."""
    folder = tmp_path_factory.mktemp("runs")
    fit(folder / "done", corpus, **SHORT)
    training = launch.new_training(make_config(corpus, **SHORT), folder / "begun")
    cut_off(training, lambda: training.at.epoch == 1 and training.at.batch == 2, save=True)
    return folder


@pytest.fixture
def run(runs: Path, tmp_path: Path) -> Path:
    shutil.copytree(runs / "begun", tmp_path / "begun")
    return tmp_path / "begun"


@pytest.fixture
def done(runs: Path, tmp_path: Path) -> Path:
    shutil.copytree(runs / "done", tmp_path / "done")
    return tmp_path / "done"


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


# -- the best checkpoint ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["best.json", "model.safetensors"])
def test_a_training_goes_on_beside_a_damaged_best_checkpoint_and_says_so(run: Path, name: str) -> None:
    folder = run / "checkpoints" / json.loads((run / "best.json").read_text())["folder"]
    assert folder != run / "checkpoints" / json.loads((run / "last.json").read_text())["folder"]
    training = launch.resume(run)
    assert training.lock
    training.lock.release()
    assert training.notes == []
    (run / name if name == "best.json" else folder / name).write_bytes(b"{")
    (note,) = launch.resume(run).notes
    assert str(run / name if name == "best.json" else folder / name) in note
    assert note.endswith("restore it from a copy, before the training ends without a better one")


# -- logs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["steps.jsonl", "epochs.jsonl"])
@pytest.mark.parametrize("way", ["a figure", "a line gone", "a line before", "cut", "empty", "zeros"])
def test_a_log_that_is_not_as_the_checkpoint_knows_it_is_refused(run: Path, refused: Any, name: str, way: str) -> None:
    log = run / name
    whole = log.read_bytes()
    first = whole.splitlines(keepends=True)[0]
    damaged = {
        "a figure": whole.replace(b"0.", b"1.", 1),
        "a line gone": whole.removeprefix(first),
        "a line before": b"{}\n" + whole,
        "cut": whole[:-5],
        "empty": b"",
        "zeros": bytes(len(whole)),
    }[way]
    log.write_bytes(damaged)
    message = refused("resume", run)
    assert f"{log} is damaged: its first {len(whole):,} bytes are not those that were written" in message
    assert log.read_bytes() == damaged
    if name == "epochs.jsonl":
        assert "damaged" in _listed(run)


def test_an_epoch_that_is_listed_twice_is_damage(run: Path) -> None:
    """Behind what the checkpoint knows, where the next epoch may stand already."""
    log = run / "epochs.jsonl"
    log.write_bytes(log.read_bytes() * 2)
    assert "damaged: the epochs in epochs.jsonl do not follow each other" in _listed(run)


def test_a_log_that_was_removed_is_named_and_the_training_goes_on(run: Path, runs: Path, lm_command: Command) -> None:
    step = checkpoint.load(run).meta["step"]
    (run / "steps.jsonl").unlink()
    code, _, err = lm_command("resume", run, "--quiet")
    assert code == 0
    assert err == f"lm: {run / 'steps.jsonl'} is gone, so it holds no record of what was trained before step {step + 1}\n"
    kept = losses(runs / "done")["steps"].splitlines(keepends=True)
    assert (run / "steps.jsonl").read_bytes() == b"".join(kept[step:])
    assert losses(run)["epochs"] == losses(runs / "done")["epochs"]


def test_a_mark_is_of_what_was_written(tmp_path: Path) -> None:
    log = Log(tmp_path / "l.jsonl", "step", 0)
    log.write({"step": 1})
    mark = log.mark
    log.write({"step": 2})
    log.close()
    assert mark == {"bytes": len(b'{"step": 1}\n'), "sha256": mark["sha256"]}
    check(tmp_path / "l.jsonl", mark)
    again = Log(tmp_path / "l.jsonl", "step", 99, mark)
    assert again.mark == mark
    again.write({"step": 3})
    again.close()
    assert (tmp_path / "l.jsonl").read_text() == '{"step": 1}\n{"step": 3}\n'
    (tmp_path / "l.jsonl").write_bytes(b'{"step": 1}')
    with pytest.raises(InputError, match="its first 12 bytes"):
        Log(tmp_path / "l.jsonl", "step", 99, mark)
    assert (tmp_path / "l.jsonl").read_bytes() == b'{"step": 1}', "it is not filled up"


def test_a_signal_before_the_first_step_keeps_the_marks(run: Path, runs: Path) -> None:
    """The logs are not open then."""
    training = launch.resume(run)
    marks = dict(training.journal.marks)
    training.signum = 15
    with pytest.raises(Exception, match="all saved"):
        training.run(quiet=True)
    assert checkpoint.load(run).meta["logs"] == marks
    launch.resume(run).run(quiet=True)
    assert losses(run) == losses(runs / "done")


# -- tokens, settings, and what is beside them ----------------------------------------------------------------------


@pytest.mark.parametrize("command", ["generate", "next", "eval", "resume", "score", "train"])
def test_a_changed_tokenizer_is_refused(run: Path, corpus: Path, refused: Any, command: str) -> None:
    types = json.loads((run / "tokens.json").read_text())["types"]
    word = next(t for t in types if len(t) > 3)
    replace(run / "tokens.json", f'"{word}"', f'"{word[:-1]}q"')
    more = {"score": ["We want"], "train": ["--init-from", run, "--run", run.parent / "new"]}.get(command, [])
    message = refused(command, corpus if command == "train" else run, *more)
    assert f"{run / 'tokens.json'} is damaged: it is not what was written" in message


@pytest.mark.parametrize("command", ["generate", "next", "eval", "resume", "score"])
def test_edited_settings_are_told(run: Path, lm_command: Command, command: str) -> None:
    replace(run / "config.toml", "seed = 1", "seed = 2")
    more = {"score": ["We want"], "resume": ["--quiet"]}.get(command, [])
    code, _, err = lm_command(command, run, *more)
    assert code == 0
    assert f"lm: {run / 'config.toml'} has changed since the run was begun; it is read as it is now\n" in err
    assert "config.toml was edited" in _listed(run)


WORDS = {"kind": "word", "types": ["a", "b"], "rare": ["c"], "split": "punctuation", "lower": False, "literal": 0, "version": 1}
CHARACTERS = {"kind": "char", "characters": ["a", "b"]}


@pytest.mark.parametrize(
    "change",
    [
        *({"types": value} for value in (["a", 1], ["a", "a"], ["a", ""], "ab", None, ["a", "\ud800"])),
        *({"rare": value} for value in ([1], 3, [None])),
        *({"literal": value} for value in (-1, "1", 1, True)),
        *({"split": "none"}, {"lower": 1}, {"kind": "ward"}, {"kind": None}),
        *({"characters": value} for value in (["ab"], ["a", "a"], [1], "ab")),
    ],
    ids=str,
)
def test_tokens_that_no_tokenizer_wrote_are_refused(change: dict[str, Any]) -> None:
    good = CHARACTERS if "characters" in change else WORDS
    assert from_json(good).to_json() == good
    with pytest.raises((ValueError, TypeError, KeyError)):
        from_json(good | change)


def _listed(run: Path) -> str:
    from damage import run_command

    from recurrent_lm.lm.commands.cli import app

    code, out, err = run_command(app, "lm", "runs", run.parent)
    assert (code, err) == (0, "")
    return next(line for line in out.splitlines() if line.startswith(str(run)))


@pytest.mark.parametrize(
    "name, words",
    [("config.toml", "there is no settings file"), ("about.json", "No such file"), ("last.json", "holds no checkpoint")],
)
def test_a_run_that_lacks_a_file_is_listed_as_damaged(run: Path, name: str, words: str) -> None:
    (run / name).unlink()
    assert "damaged: " in _listed(run)
    assert words in _listed(run)


def test_a_changed_word_of_about_json_is_listed_as_damage(run: Path) -> None:
    replace(run / "about.json", '"parameters": ', '"parameters": 1')
    assert "about.json is not what was written" in _listed(run)


# -- results --------------------------------------------------------------------------------------------------------


def test_a_changed_figure_of_a_result_is_found(done: Path, runs: Path, refused: Any, lm_command: Command) -> None:
    content = json.loads((done / "result.json").read_text())["test"]["perplexity"]
    replace(done / "result.json", repr(content), repr(content / 2))
    assert "damaged: result.json is not what was written" in _listed(done)
    message = refused("resume", done)
    assert "result.json is damaged (is not what was written); remove it, and lm resume scores the finished model" in message
    (done / "result.json").unlink()
    assert lm_command("resume", done, "--quiet")[0] == 0
    assert losses(done) == losses(runs / "done")


def test_the_result_of_another_run_is_found(done: Path, tmp_path: Path, corpus: Path, fit: Any) -> None:
    fit(tmp_path / "other", corpus, **SHORT, seed=7)
    shutil.copy(tmp_path / "other" / "result.json", done / "result.json")
    assert "damaged: result.json is of another run" in _listed(done)


def test_a_sealed_object_opens_and_a_changed_one_does_not() -> None:
    content = {"a": 1.5, "b": {"c": [1, None, "é"]}, "nan": float("inf")}
    raw = json.dumps(sealed(content)).encode()
    assert unseal(raw) == content
    assert unseal(json.dumps(content).encode()) == content, "older versions wrote no seal"
    for old, new in ((b"1.5", b"1.6"), (b'"c"', b'"d"'), (b"null", b"true")):
        with pytest.raises(ValueError, match="is not what was written"):
            unseal(raw.replace(old, new))
    for other in (b"", b"{", b"[" * 100_000, b"\xff"):
        with pytest.raises(ValueError, match="is no JSON"):
            unseal(other)
    with pytest.raises(ValueError, match="is no JSON object"):
        unseal(b"[]")


@pytest.mark.parametrize("name", ["sha256", "digest"])
def test_a_seal_is_the_sha256_of_the_sorted_object_and_its_data(name: str) -> None:
    content: dict[str, Any] = {"b": [1.5, None], "a": {"d": "é", "c": 2}}
    text = b'{"a": {"c": 2, "d": "\\u00e9"}, "b": [1.5, null]}'
    assert sealed(content, b"12", b"3")["sha256"] == hashlib.sha256(text + b"123").hexdigest() == digest(text, b"123")
    old = content | {name: hashlib.sha256(text + b"123").hexdigest()}
    assert intact(old, b"123")
    assert sealed(old, b"123") | content == sealed(content, b"123") | old, "a seal is no part of what is sealed"
    assert not intact(old, b"12")
    assert not intact(old | {"b": 1}, b"123")


# -- pointers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["generate", "next", "eval"])
def test_a_missing_pointer_to_the_best_is_no_reason_to_take_the_last(run: Path, refused: Any, command: str) -> None:
    (run / "best.json").unlink()
    assert f"{run / 'best.json'}, which names the best checkpoint, is missing" in refused(command, run)


@pytest.mark.parametrize("command", ["generate", "next", "eval"])
def test_a_pointer_to_the_best_that_names_the_last_is_refused(run: Path, refused: Any, command: str) -> None:
    shutil.copy(run / "last.json", run / "best.json")
    assert "it names a checkpoint that is not the best" in refused(command, run)


def test_a_good_checkpoint_is_kept_until_another_is_good(run: Path) -> None:
    checkpoint.keep_as_good(run)
    good = json.loads((run / "good.json").read_text())["folder"]
    saved = checkpoint.load(run)
    for step in (100, 101):
        checkpoint.save(run, checkpoint.Checkpoint(saved.groups, saved.meta | {"step": step}))
    assert checkpoint.load(run, "good").meta["step"] == saved.meta["step"]
    checkpoint.keep_as_good(run)
    checkpoint.save(run, saved)
    assert not (run / "checkpoints" / good).exists()
    assert checkpoint.load(run, "good").meta["step"] == 101
