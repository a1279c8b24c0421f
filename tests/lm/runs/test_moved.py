"""A training text that was moved: who needs it names the option that takes its new place, and takes no other text there."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.config import CorpusConfig
from recurrent_lm.lm.runs import folder as runs
from recurrent_lm.lm.text.data import missing, moved
from recurrent_lm.lm.training import start as launch


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory, make_text: Callable[..., str], fit: Any) -> tuple[Path, Path, Path]:
    """A finished run of words, its text at a new place, and another text."""
    folder = tmp_path_factory.mktemp("away")
    text, other = folder / "old.txt", folder / "other.txt"
    text.write_text(make_text(1500))
    other.write_text(make_text(1500, seed=5))
    fit(folder / "run", text, epochs=1, kind="word")
    text.rename(folder / "new.txt")
    return folder / "run", folder / "new.txt", other


def test_a_training_goes_on_with_the_moved_text_and_remembers_it(
    tmp_path: Path, make_text: Callable[..., str], make_config: Any, fit: Any, refused: Any, lm_command: Any
) -> None:
    old, new, other, run = (tmp_path / name for name in ("old.txt", "new.txt", "other.txt", "run"))
    old.write_text(make_text(800))
    other.write_text(make_text(800, seed=5))
    fit(tmp_path / "whole", old)
    launch.new_training(make_config(old), run).lock.release()  # type: ignore[union-attr]
    old.rename(new)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert "--corpus PATH" in refused("resume", run)
    assert "--corpus PATH" in refused("resume", run, "--corpus", other)
    assert "--corpus PATH" in refused("resume", run, "--corpus", tmp_path / "nowhere")
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before
    assert lm_command("resume", run, "--corpus", new, "--quiet")[0] == 0
    assert (run / "steps.jsonl").read_bytes() == (tmp_path / "whole" / "steps.jsonl").read_bytes()
    assert runs.read_settings(run)[0].corpus.source == str(new)
    assert lm_command("eval", run)[2] == "", "neither edited nor gone"


def test_eval_takes_the_moved_text(away: tuple[Path, Path, Path], refused: Any, lm_command: Any) -> None:
    run, new, other = away
    assert "--corpus PATH" in refused("eval", run)
    result = json.loads((run / "result.json").read_text())["test"]
    for option in ("--corpus", "--trained-on"):
        code, out, _ = lm_command("eval", run, option, new, "--json")
        assert code == 0
        assert [s["name"] for s in json.loads(out)["scores"]] == ["model", "5-gram"]
        assert json.loads(out)["scores"][0]["loss"] == pytest.approx(result["loss"], rel=1e-6)
    assert "--trained-on PATH" in refused("eval", run, "--trained-on", other)


def test_eval_of_another_text_asks_for_the_moved_one(away: tuple[Path, Path, Path], refused: Any, lm_command: Any) -> None:
    run, new, other = away
    assert "--ngram 0" in refused("eval", run, "--corpus", other)
    assert "--trained-on PATH" in refused("eval", run, "--corpus", other, "--interpolate")
    assert lm_command("eval", run, "--corpus", other, "--ngram", 0)[0] == 0
    code, out, _ = lm_command("eval", run, "--corpus", other, "--trained-on", new, "--interpolate", "--json")
    assert code == 0
    assert json.loads(out)["corpus"] == "other"
    assert len(json.loads(out)["scores"]) == 3


def test_generate_compares_with_the_moved_text(away: tuple[Path, Path, Path], refused: Any, lm_command: Any) -> None:
    run, new, other = away
    how = ("generate", run, "--length", 5, "--seed", 1)
    assert "--corpus PATH" in lm_command(*how)[2]
    assert "overlap" in lm_command(*how, "--corpus", new)[2]
    assert json.loads(lm_command(*how, "--corpus", new, "--json")[1])["samples"][0]["copied"]["words"] > 0
    assert "--corpus PATH" in refused(*how, "--corpus", other)
    assert "--no-copied" in refused(*how, "--corpus", new, "--no-copied")


@pytest.mark.parametrize("command", [("score", "we want jobs"), ("next",)])
def test_who_needs_no_training_text_does_not_ask_for_it(away: tuple[Path, Path, Path], lm_command: Any, command: Any) -> None:
    code, out, err = lm_command(command[0], away[0], *command[1:])
    assert (code, err) == (0, "")
    assert out


def test_a_text_in_three_files_moves_as_a_folder(tmp_path: Path, make_text: Callable[..., str], fit: Any, refused: Any) -> None:
    old = tmp_path / "old"
    files = {}
    for number, (name, path) in enumerate({"train_file": "a/t.txt", "valid_file": "b/t.txt", "test_file": "t.txt"}.items()):
        files[name] = old / path
        files[name].parent.mkdir(parents=True, exist_ok=True)
        files[name].write_text(make_text(400, seed=number))
    run = tmp_path / "run"
    fit(run, "", epochs=1, **{name: str(path) for name, path in files.items()})
    shutil.move(old, tmp_path / "new")
    assert "--corpus PATH" in refused("resume", run, "--epochs", 2)
    assert "t.txt" in refused("resume", run, "--epochs", 2, "--corpus", tmp_path)
    launch.resume(run, corpus=str(tmp_path / "new"), epochs=2).run(quiet=True)
    assert runs.read_settings(run)[0].corpus.valid_file == str(tmp_path / "new" / "b" / "t.txt")


def test_what_was_not_moved_is_left_as_it_is(tmp_path: Path) -> None:
    config = CorpusConfig(source=str(tmp_path))
    assert moved(config, "") == config
    assert moved(moved(config, "x"), "x") == moved(config, "x")
    assert not missing(config)
    assert not missing(CorpusConfig(source="obama"))
    assert missing(CorpusConfig(source=str(tmp_path / "x"))) == str(tmp_path / "x")


def test_a_study_of_a_run_takes_the_moved_text(away: tuple[Path, Path, Path]) -> None:
    from recurrent_lm.studies.engine.study import make

    run, new, other = away
    sizes = {"run": str(run), "windows": "1", "lags": "2", "warmup": "1"}
    for wrong in ({}, {"corpus": str(other)}):
        with pytest.raises(InputError, match="--set corpus=PATH"):
            make("gradient_lag", sizes | wrong).prepare()
    make("gradient_lag", sizes | {"corpus": str(new)}).prepare()
