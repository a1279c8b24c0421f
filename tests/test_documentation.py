"""README and docs: size, links, and every command and program in them, parsed as written and run with tiny sizes."""

import argparse
import ast
import contextlib
import inspect
import io
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
import webbrowser
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from paths import ROOT

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:lm|studies|reports) [^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
APPS = {"lm": "lm.commands.cli", "studies": "studies.cli", "reports": "reports.cli"}

# Words of a command that need a GPU, a network, other machines or other processes: such a command is parsed and not run.
NOT_RUN = {"cuda", "triton", "--graph", "gpu", "exchange", "constants", "--executor", "--processes", "download", "--watch"}
CORPORA = {"obama", "trump", "sotu", "robotrump"}
TINY_RUN = shlex.split(
    "--hidden-size 8 --embedding-size 0 --layers 1 --rows 2 --bptt 5 --epochs 1 --max-steps 4 --threads 1 --device cpu "
    "--precision float32 --quiet"
)
WHICH = ("parts", "variants", "cell")  # parameters that say what is measured, not how large it is
TINY_STUDIES = {
    "gradient_lag": {"run": "runs/demo/obama-lstm", "windows": 1, "lags": 3, "warmup": 2},
    "reading": {"corpus": "speeches/obama", "cell": "gru", "hidden": 4, "words": 2, "seeds": 1, "epochs": 1, "bptt": 3},
    "training_step": {"vocabulary": 20, "hidden": 4, "rows": 2, "bptt": 3, "rounds": 2, "layers": 1},
    "throughput": {"parts": "recurrence", "variants": "kernels:torch,torch.nn", "cell": "lstm", "batch": 1, "hidden": 4,
                   "steps": 2, "tokens": 4, "width": 4, "vocabulary": 8, "rounds": 1, "copied": 1, "square": 8, "threads": 1},
    "clipping": {"parts": "cliff", "grid": 5, "descent_steps": 3},
    "gradient_flow": {"parts": "memory", "eigenvalues": 0.5, "samples": 8, "seeds": 1, "scales": 0.7, "units": 6, "others": 6,
                      "lags": 8, "positions": 2, "qr_steps": 5},
    "parallel": {"parts": "random", "cell": "gru", "scales": 0.5, "lengths": 8, "others": 4, "seeds": 1},
    "long_range": {"parts": "clipping", "lengths": 10, "hidden": 4, "updates": 2, "seeds": 1, "methods": "plain"},
    "speeches": {"corpora": "speeches/obama", "hidden": 4, "epochs": 1, "seeds": 1, "cell": "lstm", "length": 3},
    "backends": {"corpora": "speeches/obama", "hidden": 4, "epochs": 1, "seeds": 1, "cell": "gru", "min_count": 1},
}  # fmt: skip
TEXT = "The people want jobs. We love the country! " * 40 + "The students opened their schools. " * 20


@dataclass(frozen=True)
class Written:
    """A command of a page: its words, without the comment behind it, and whether it stands in a line of its own."""

    page: str
    words: tuple[str, ...]
    block: bool

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def commands(page: Path) -> Iterator[Written]:
    """Every command of a page's blocks of ``sh``, and those of its sentences that begin with one of the three programs."""
    text = page.read_text()
    for _, language, code in FENCE.findall(text):
        if language == "sh":
            for line in code.splitlines():
                if words := shlex.split(line, comments=True):
                    yield Written(page.name, tuple(words), True)
    for command in INLINE.findall(FENCE.sub("", text)):
        yield Written(page.name, tuple(shlex.split(command)), False)


COMMANDS = list(dict.fromkeys(command for page in PAGES for command in commands(page)))
PROGRAMS = [
    pytest.param(page, number, code, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, (_, language, code) in enumerate(FENCE.findall(page.read_text()))
    if language == "python"
]


def application(name: str) -> typer.Typer:
    return import_module(f"recurrent_lm.{APPS[name]}").app


def parse(words: tuple[str, ...], block: bool) -> None:
    """A command line as its program reads it, nothing called. In a sentence a command may stand without what it needs."""
    command: Any = typer.main.get_command(application(words[0]))
    rest = list(words[1:])
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    if rest or block:
        with contextlib.suppress(typer.Exit):  # of --help
            command.make_context(shlex.join(words), rest)


def parse_arguments(call: Callable[[], Any], words: list[str], patch: pytest.MonkeyPatch) -> argparse.Namespace:
    """What a program's argparse reads from ``words``; the program ends there."""

    class Parsed(BaseException):
        pass

    def parse_only(parser: argparse.ArgumentParser, *_: Any) -> None:
        raise Parsed(read(parser, words))

    read = argparse.ArgumentParser.parse_args
    patch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    with pytest.raises(Parsed) as parsed:
        call()
    patch.undo()
    return parsed.value.args[0]


@pytest.mark.parametrize("written", COMMANDS, ids=str)
def test_every_command_is_parsed_as_it_is_written(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    words = list(written.words)
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):  # environment
        words.pop(0)
    if words[:2] == ["python", "-m"] and words[2].rpartition(".")[2] in APPS:
        words = [words[2].rpartition(".")[2], *words[3:]]
    if words[0] in APPS:
        parse(tuple(words), written.block)
    elif words[0] == "python":
        path = words[2] if words[1] == "-m" else words[1]
        run = runpy.run_module if words[1] == "-m" else runpy.run_path
        rest = words[3:] if words[1] == "-m" else words[2:]
        monkeypatch.chdir(ROOT)
        monkeypatch.setenv("TRITON_INTERPRET", "1")  # a program may set another, and later tests must not find that
        monkeypatch.delitem(sys.modules, path, raising=False)  # runpy warns of a module that another test imported
        parse_arguments(lambda: run(path, run_name="__main__"), rest, monkeypatch)
    elif words[0] == "torchrun":
        from torch.distributed.run import get_args_parser

        arguments = get_args_parser().parse_args(words[1:])
        assert arguments.no_python
        parse((arguments.training_script, *arguments.training_script_args), True)
    elif words[0] == "make":
        targets = (ROOT / "Makefile").read_text().partition(".PHONY: ")[2].splitlines()[0].split()
        assert {word for word in words[1:] if "=" not in word} <= set(targets)
    elif words[0] == "pip":
        assert words[1] == "install"
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert all(name in extras for word in words for name in re.findall(r"\[(\w+)\]", word))
    else:
        assert words[0] == "bash" and subprocess.run(["bash", "-n", ROOT / words[1]], check=False).returncode == 0, words


def complete(written: Written) -> bool:
    """Whether a command can be run here and now: one of the three programs, with all it needs."""
    words = set(re.split(r"[ =:,]", " ".join(written.words)))
    return written.words[0] in APPS and (written.block or len(written.words) > 2 + (written.words[1] == "corpora")) and not (
        words & NOT_RUN or {"--help", "--help-all"} & words
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages name: texts, one trained run under every name, a variant, a study's table."""
    folder = tmp_path_factory.mktemp("documentation")
    for name in (
        "speeches/obama/1.txt",
        "speeches/trump-campaign/1.txt",
        "path/to/speeches/1.txt",
        "mine.txt",
        "cut.txt",
        "all.txt",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(TEXT)
    for name in ("mine", "ptb"):
        for split in ("train", "valid", "test"):
            (folder / f"{name}.{split}.txt").write_text(TEXT)
    (folder / "speech.txt").write_text("The people\n")
    blocks = FENCE.findall((ROOT / "docs" / "benchmarks.md").read_text())
    (folder / "my_rnn.py").write_text(next(code for _, language, code in blocks if language == "python"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(os, "fsync", lambda descriptor: None)
        assert run_in_process("lm", ["train", "path/to/speeches/", *TINY_RUN, "--run", "runs/mine"]) == 0
        for name in ("all", "two", "demo/obama-lstm", "demo/trump-lstm"):
            shutil.copytree("runs/mine", f"runs/{name}")
        assert run_in_process("studies", study("reading", "--out", "runs/studies/reading.parquet")) == 0
        for out in ("runs/studies/gradient_lag.parquet", "runs/demo/gradient_lag.parquet"):
            assert run_in_process("studies", study("gradient_lag", "--out", out)) == 0
    return folder


def study(name: str, *arguments: str) -> list[str]:
    """``studies run`` of tiny sizes; the parts and variants are those that are asked for, or few."""
    asked = [word.partition("=")[0] for word in arguments] + ["parts", "cell"] * ("--variant" in arguments)
    settings = {key: value for key, value in TINY_STUDIES[name].items() if key not in WHICH or key not in asked}
    preset = arguments.index("--preset") if "--preset" in arguments else len(arguments)
    words = [*arguments[:preset], *arguments[preset + 2 :], "--preset", "smoke"]
    return ["run", name, *words, *(word for key, value in settings.items() for word in ("--set", f"{key}={value}"))]


def run_in_process(name: str, arguments: list[str]) -> int:
    from recurrent_lm.lm import run_app

    before = torch.get_num_threads()
    try:
        return run_app(application(name), name, arguments)
    finally:
        torch.set_num_threads(before)


def tiny(words: tuple[str, ...]) -> list[str]:
    """A command's arguments with tiny sizes behind them, which win, and texts of a few hundred words in place of corpora."""
    program, name, *rest = words
    rest = ["speeches/obama" if word in CORPORA and name != "corpora" else word for word in rest]
    rest = [word.replace("RUN/", "runs/mine/").replace("FOLDER", "speeches/obama") for word in rest]
    if (program, name) == ("lm", "train"):
        text = [] if any(word in ("--train", "--config") or not word.startswith("--") for word in rest[:1]) else ["mine.txt"]
        return [name, *text, *rest, *TINY_RUN, "--run", "runs/new"]
    if (program, name) == ("lm", "resume"):
        return [name, *rest, "--quiet", "--epochs", "2", "--max-steps", "5"]
    if (program, name) == ("lm", "generate"):
        return [name, *rest, "--length", "3"]
    if (program, name) == ("studies", "run"):
        return study(rest[0], *rest[1:])
    if (program, name) == ("studies", "show"):
        return [name, "runs/studies/gradient_lag.parquet", *rest[1:]]
    if (program, name) == ("reports", "build"):
        return [name, *[word.replace("reports/published/cpu", "runs/demo") for word in rest], "--png"]
    return [name, *rest]


RUN = {(written.words[0], *tiny(written.words)): str(written) for written in COMMANDS if complete(written)}


@pytest.mark.parametrize("words", [pytest.param(words, id=name) for words, name in RUN.items()])
def test_every_command_runs_with_tiny_sizes(
    words: tuple[str, ...], tiny_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_runs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRITON_INTERPRET", "0")  # kernels in the interpreter are never timed
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(webbrowser, "open", lambda url: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("The people\n/quit\n"))  # what somebody types who is asked for lines
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    if words == ("reports", "open"):
        (tmp_path / "runs" / "reports").mkdir()
        (tmp_path / "runs" / "reports" / "index.html").touch()
    assert run_in_process(words[0], list(words[1:])) == 0, capsys.readouterr().err


@pytest.mark.parametrize(("page", "number", "code"), PROGRAMS)
def test_every_program_runs(page: Path, number: int, code: str, tiny_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_runs)
    threads = torch.get_num_threads()
    names: dict[str, Any] = {}
    try:
        exec(compile(code.replace("range(25)", "range(1)"), f"{page.name}, block {number}", "exec"), names)
    finally:
        torch.set_num_threads(threads)
    if "Tagger" in names:
        assert names["Tagger"]()(torch.zeros(5, 2, 64)).shape == (5, 2, 10)


def test_the_readme_is_read_in_minutes() -> None:
    assert len(README.read_text().splitlines()) <= 180
    assert README.stat().st_size <= 12 * 1024


def test_every_page_is_one_click_from_the_readme() -> None:
    linked = {(ROOT / target.partition("#")[0]).resolve() for target in LINK.findall(README.read_text()) if "://" not in target}
    assert set(PAGES[1:]) <= linked


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


def test_every_finding_is_listed_and_its_command_is_given() -> None:
    page = (ROOT / "docs" / "findings.md").read_text()
    for program in (ROOT / "findings").iterdir():
        assert f"(../findings/{program.name})" in page and f"bash findings/{program.name}" in page, program.name


WORDS = 12  # so many words in a row are a sentence that stands twice


def test_nothing_is_said_twice() -> None:
    """Of sentences, not of tables and code, in which a setting may be named again."""
    runs = {}
    for page in PAGES:
        lines = [line for line in FENCE.sub("", page.read_text()).splitlines() if "|" not in line]
        words = re.findall(r"\w+", re.sub(r"\]\([^)]*\)", "]", "\n".join(lines)).lower())
        runs[page.name] = {tuple(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)}
    for one, other in combinations(runs, 2):
        assert not runs[one] & runs[other], f"{one} and {other} say the same"


# What somebody comes for: the page whose first command with these words does it, after the README up to the link to that page.
JOBS = {
    "own text": ("README.md", "lm train path/to/speeches/"),
    "next word": ("README.md", "lm next"),
    "pages for a course": ("README.md", "reports build"),
    "kernels.LSTM in a model": ("README.md", "return self.out(self.lstm(x)[0])"),
    "a benchmark of one's own kernel": ("docs/benchmarks.md", "studies run throughput --variant"),
}


def words_before(page: str, command: str) -> int:
    """Words from the top of the README to the end of the command, by way of the link where it stands on another page."""
    readme, target = README.read_text(), (ROOT / page).read_text()
    way = readme.partition(f"]({page})")[0] if page != "README.md" else ""
    assert command in target and (way or page == "README.md")
    text = way + " " + target.partition(command)[0] + command
    return len(re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text).split())


@pytest.mark.parametrize("job", JOBS)
def test_a_job_is_done_after_300_words(job: str) -> None:
    assert words_before(*JOBS[job]) <= 300


ROOMS = ("kernels", "lm", "studies", "reports")
FRONT_DOORS = {
    f"{room}.{name}": value
    for room in ROOMS
    for name in import_module(f"recurrent_lm.{room}").__all__
    if inspect.isfunction(value := getattr(import_module(f"recurrent_lm.{room}"), name))
}


@pytest.mark.parametrize("name", FRONT_DOORS)
def test_a_function_of_a_front_door_says_what_it_takes_returns_and_raises(name: str) -> None:
    function = inspect.unwrap(FRONT_DOORS[name])
    text, signature = inspect.getdoc(function) or "", inspect.signature(function)
    entries = re.findall(r"^    ([\w, ]+): ", text.partition("Args:\n")[2].partition("\n\n")[0], re.MULTILINE)
    documented = {parameter for entry in entries for parameter in entry.split(", ")}
    assert documented >= set(signature.parameters), set(signature.parameters) - documented
    assert "Returns:" in text or "Yields:" in text or str(signature.return_annotation) == "None"
    if any(isinstance(node, ast.Raise) for node in ast.walk(ast.parse(inspect.getsource(function)))):
        assert "Raises:" in text
