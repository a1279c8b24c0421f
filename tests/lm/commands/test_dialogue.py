"""``lm ask``: one model, many lines."""

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from recurrent_lm import lm
from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.commands import dialogue as module
from recurrent_lm.lm.commands.dialogue import Dialogue

Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ask(trained_words: Path, lm_command: Any, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """``ask(*lines)`` types these lines: (exit code, stdout, stderr)."""

    def run(*lines: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return lm_command("ask", trained_words)

    return run


@pytest.fixture
def dialogue(trained_words: Path) -> Dialogue:
    return Dialogue(lm.load(trained_words, device="cpu"))


def test_the_model_is_loaded_once_and_each_line_is_answered(ask: Ask, monkeypatch: pytest.MonkeyPatch, lm_command: Any) -> None:
    loads = []
    load = module.opened
    monkeypatch.setattr(module, "opened", lambda *arguments: loads.append(1) or load(*arguments))
    code, out, err = ask("/seed 3", "/length 5", "the people", "", "/score the people", "/quit", "never read")
    assert (code, err, loads) == (0, "", [1])
    assert out.count("P(v | ") == 1
    assert "# " in out and "bits per byte" in out
    assert "never read" not in out


def test_a_text_grows_with_each_empty_line(dialogue: Dialogue, capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("/seed 1", "/length 4", "we want", "", ""):
        dialogue.answer(line)
    *_, first, second = capsys.readouterr().out.strip("\n").split("\nwe want")
    assert second.startswith(first.split("\n")[0])
    assert len(second) > len(first)
    whole = "".join(lm.generate(dialogue.run, "we want", 4, seed=1))
    assert first.startswith(whole.split("\n")[0])


def test_settings_stay_for_the_lines_after_them(dialogue: Dialogue, capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("/temperature 0", "/top 3", "/top-k 2", "/unknown"):
        dialogue.answer(line)
    assert (dialogue.draws.temperature, dialogue.draws.top_k, dialogue.top, dialogue.unknown) == (0, 2, 3, True)
    capsys.readouterr()
    dialogue.answer("we want")
    assert len(capsys.readouterr().out.splitlines()) == 1 + 3 + 2, "a heading, three bars, the others, the entropy"
    dialogue.answer("/seed none")
    assert dialogue.draws.seed is None


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("/temperature", "/temperature"),
        ("/temperature warm", "/temperature"),
        ("/temperature -1", "/temperature"),
        ("/top 0", "/top"),
        ("/top 1.5", "/top"),
        ("/length 0", "/length"),
        ("/nonsense", "/nonsense"),
        ("/", "/help"),
        ("/stop .", "/stop"),
    ],
)
def test_what_makes_no_sense_is_one_sentence_and_changes_nothing(dialogue: Dialogue, line: str, named: str) -> None:
    before = dialogue.draws, dialogue.top
    with pytest.raises(InputError) as error:
        dialogue.answer(line)
    assert named in str(error.value)
    assert "--" not in str(error.value)
    assert (dialogue.draws, dialogue.top) == before


def test_an_error_does_not_end_the_dialogue(ask: Ask) -> None:
    code, out, err = ask("/nonsense", "the people")
    assert code == 0
    assert err.count("lm: ") == 1
    assert "P(v | the people)" in out


def test_an_interrupt_stops_the_text_and_keeps_it(dialogue: Dialogue, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Iterator[str]:
        yield " jobs"
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "generate", interrupted)
    dialogue.answer("/write we want")
    assert dialogue.text == "we want jobs"


def test_an_interrupt_at_the_prompt_asks_again(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter([KeyboardInterrupt(), "the people", EOFError()])

    def answer(prompt: str) -> str:
        line = next(typed)
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("builtins.input", answer)
    code, out, _ = ask()
    assert code == 0
    assert "P(v | the people)" in out


def test_no_run_is_refused(refused: Any) -> None:
    assert "nowhere" in refused("ask", "nowhere")
