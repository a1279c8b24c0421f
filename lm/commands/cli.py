"""The command ``lm``. Flags are made from the settings' fields; torch is imported only by commands that compute."""

import inspect
import io
import os
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from recurrent_lm.lm.base import console
from recurrent_lm.lm.base.console import say, silence
from recurrent_lm.lm.base.errors import Diverged, InputError, Stopped
from recurrent_lm.lm.base.launched import follows
from recurrent_lm.lm.base.settings import flag_of, shown
from recurrent_lm.lm.base.signals import ending_at_once
from recurrent_lm.lm.base.version import program_version
from recurrent_lm.lm.commands import ask, page
from recurrent_lm.lm.commands.ask import RunArgument
from recurrent_lm.lm.commands.sentences import sentence_of
from recurrent_lm.lm.config import RunConfig, preset_file, presets, read_toml
from recurrent_lm.lm.text import download as downloads
from recurrent_lm.lm.text.corpora import CITATION, EMBEDDED
from recurrent_lm.lm.usual import meant

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Train recurrent language models on speeches, and let them speak.",
)
corpora_app = typer.Typer(no_args_is_help=True, help="List the corpora, show what is in one, or download one.")
app.add_typer(corpora_app, name="corpora")

SOURCES = "obama, another name of lm corpora list, a text file, or a folder of .txt files (./obama for one of that name)"
PROCESSES = "processes on this machine that share the rows of each batch; across machines let torchrun start them"
# How often a waiting thread of torch's OpenMP (GNU's) looks before it sleeps: 25 to 50 microseconds, about the time between
# two parallel pieces of work. Sleeping at once costs speed on an idle machine. Longer looking stops a busy one, where the
# thread that is waited for has been put aside; with the default, a training there ran at a tenth of the speed.
SPINS = "1000"


# What lm train --help shows; --help-all shows the others, too.
MATTER = (
    "stage_directions", "kind", "rows", "bptt", "cell", "hidden_size", "layers", "dropout", "lr", "clip", "epochs", "sample",
)  # fmt: skip


def _flags(matter: tuple[str, ...] = ()) -> list[inspect.Parameter]:
    """One option for each setting; options left out are None, so that presets and files apply. ``matter`` are shown."""
    parameters = []
    for section, f in RunConfig.settings():
        flag, default = flag_of(f), f.default
        if not flag.startswith("--"):
            continue
        names = f"{flag}/--no-{flag[2:]}" if isinstance(default, bool) else flag
        shown = str(default).lower() if isinstance(default, bool) else default if default != "" else "none"
        text = f"{f.metadata['why']} [dim](default: {shown})[/dim]"
        panel, hidden = section.capitalize(), bool(matter) and f.name not in matter
        option = typer.Option(names, help=text, rich_help_panel=panel, show_default=False, hidden=hidden)
        kind: Any = type(default)
        annotation: Any = Annotated[kind | None, option]
        parameters.append(inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    return parameters


def with_settings(command: Any, matter: tuple[str, ...] = ()) -> Any:
    """Give a command that ends in ``**settings`` one flag for each setting; help shows those that ``matter``, or all."""
    signature = inspect.signature(command)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    command.__signature__ = signature.replace(parameters=[*own, *_flags(matter)])
    return command


def _help_all(context: typer.Context, wished: bool) -> None:
    if wished:
        for parameter in context.command.params:
            parameter.hidden = False  # type: ignore[attr-defined]
        print(context.get_help())
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False) -> None:
    if version:
        print(f"lm {program_version()}")
        raise typer.Exit


@app.command()
@partial(with_settings, matter=MATTER)
def train(
    context: typer.Context,
    corpus: Annotated[str, typer.Argument(metavar="[CORPUS]", show_default=False, help=SOURCES)] = "",
    *,
    run: Annotated[Path | None, typer.Option(help="the new run's folder; runs/NAME if left out")] = None,
    config: Annotated[Path | None, typer.Option(help="settings from a TOML file; flags override them")] = None,
    preset_name: Annotated[
        str, typer.Option("--preset", help=f"settings that come with the program: {', '.join(presets())}")
    ] = "",
    processes: Annotated[int, typer.Option(min=1, help=PROCESSES)] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress, only the result")] = False,
    help_all: Annotated[
        bool, typer.Option("--help-all", callback=_help_all, is_eager=True, help="show every setting, and exit")
    ] = False,
    **settings: Any,
) -> None:
    """Train a model and keep it in a run folder. --help-all shows the settings that are not shown here.

    [dim]lm train obama --tokens char --cell gru --epochs 20[/dim]
    [dim]lm train mine.txt --sample "My friends" --no-stage-directions[/dim]
    """
    if follows():
        _follow()
        return
    if config and preset_name:
        raise InputError("give either --config or --preset, not both")
    file = preset_file(preset_name) if preset_name else config
    base, named = read_toml(file) if file else (RunConfig(), set())
    given = {name: value for name, value in settings.items() if value is not None}
    if corpus:
        given["source"] = corpus
        given |= {name: "" for name in ("train_file", "valid_file", "test_file") if name not in given}
    elif "train_file" in given:
        given["source"] = ""
    chosen = base.replace(**given)
    kept: list[Path] = []
    with ending_at_once(lambda: f"stopped before the first step; {_left(kept)}"):
        from recurrent_lm.lm.commands import trainer

        own = None if file else given.keys()  # a file has chosen all settings
        trainer.in_processes(processes, lambda: chosen, context.obj)
        inherited = partial(trainer.start.inherit, chosen, given, named, file)
        trainer.run(lambda: trainer.start.begin(inherited(), run, own, kept.append), quiet)


@app.command()
def resume(
    context: typer.Context,
    run: RunArgument,
    epochs: Annotated[int | None, typer.Option(help="train until so many epochs are done, a finished run too")] = None,
    max_steps: Annotated[int | None, typer.Option(help="or until so many updates are made; 0 for no such limit")] = None,
    patience: Annotated[int | None, typer.Option(help="or so many epochs without a better validation loss; 0 never")] = None,
    corpus: Annotated[str, typer.Option(metavar="PATH", help="where the training text is now, if it was moved")] = "",
    device: Annotated[str, typer.Option(help="go on here instead: cpu, cuda, cuda:N")] = "",
    processes: Annotated[int, typer.Option(min=1, help=PROCESSES)] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress, only the result")] = False,
) -> None:
    """Go on with a training where its last checkpoint stands, with its own threads, or train a finished run longer.

    [dim]lm resume runs/obama-word-lstm[/dim]
    [dim]lm resume runs/obama-word-lstm --epochs 80[/dim]
    """
    if follows():
        _follow()
        return
    with ending_at_once(lambda: f"stopped before another step; {run} is as it was"):
        from recurrent_lm.lm.commands import trainer

        trainer.in_processes(processes, lambda: trainer.read_settings(run)[0], context.obj)
        wished = {"epochs": epochs, "max_steps": max_steps, "patience": patience}
        limits = {name: value for name, value in wished.items() if value is not None}
        trainer.run(lambda: trainer.start.resume(run, device, corpus, **limits), quiet)


def _left(folders: list[Path]) -> str:
    """What a training leaves that has made a step in none of these folders."""
    return f"all saved; go on with: {shlex.join(['lm', 'resume', str(folders[0])])}" if folders else "nothing was kept"


def _follow() -> None:
    """Train as a process that is not the first: the settings come from the first, and nothing is printed."""
    from recurrent_lm.lm.commands import trainer

    trainer.follow()


app.command()(ask.generate)
app.command("eval")(ask.eval_)
app.command("next")(ask.next_)
app.command()(ask.score)
app.command()(page.page)


@app.command("ask")
def ask_(run: RunArgument, device: ask.Device = "auto") -> None:
    """Load a model once and ask it line by line: the next word, texts, and how surprising a text of yours is.

    [dim]lm ask runs/obama-word-lstm[/dim]
    """
    from recurrent_lm.lm.commands.dialogue import talk

    talk(run, device)


@app.command("runs")
def list_runs(
    folder: Annotated[Path, typer.Argument(help="where to look", show_default=False)] = Path("runs"),
    as_csv: Annotated[bool, typer.Option("--csv", help="every column, as CSV")] = False,
) -> None:
    """List the runs below a folder (runs, if left out) with their validation figures.

    [dim]lm runs --csv[/dim]
    """
    from recurrent_lm.lm.commands.display import runs_table

    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; lm train makes the first run")
    runs_table(folder, as_csv)


@app.command()
@with_settings
def params(
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", show_default=False, help="a run, to count its model")] = None,
    *,
    vocabulary: Annotated[
        int | None,
        typer.Option(min=2, max=10**9, help="|V| to count with, where no run is given; 10000 if left out", show_default=False),
    ] = None,
    **settings: Any,
) -> None:
    """Print the lecture's table of parameters: E, U, W_i, W_h, biases, projection; tied and not.

    [dim]lm params --vocabulary 10000 --hidden-size 200 --layers 2[/dim]
    """
    from recurrent_lm.lm.commands.display import params_table

    given = {name: value for name, value in settings.items() if value is not None}
    if run:
        if vocabulary is not None:
            raise InputError("give either a RUN or --vocabulary, not both: a run has its own vocabulary")
        from recurrent_lm.lm.runs import folder as runs

        config, tokenizer = runs.read_settings(run)
        params_table(tokenizer.size, config.replace(**given).model)
    else:
        if given.get("vocab_size"):
            raise InputError("--vocab-size limits a tokenizer, and none is made here; give |V| itself with --vocabulary")
        params_table(vocabulary or 10_000, RunConfig().replace(**given).model)


@corpora_app.command("list")
def list_corpora() -> None:
    """The corpora that come with the program or can be downloaded, and what else can be given.

    [dim]lm corpora list[/dim]
    """
    for name, description in EMBEDDED.items():
        print(f"{name:11}{description}")
    for name, remote in downloads.REMOTE.items():
        missing = "" if os.path.lexists(downloads.place(name)) else f" (not downloaded yet: lm corpora download {name})"
        print(f"{name:11}{remote.what}{missing}")
    print(f"{'PATH':11}a text file, or a folder of .txt files, one document each, in name order")
    print(f"{CITATION}\nDownloaded corpora are kept in {downloads.data_folder()}")


@corpora_app.command()
def download(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="robotrump or obama-rnn")],
    to: Annotated[Path | None, typer.Option("--to", help="keep it in this folder, to be given as a path")] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="take this copy that you have, where it is the right one; fetch nothing")
    ] = None,
) -> None:
    """Download a corpus once; from then on its name can be given. It is kept in $LM_DATA, or in your cache folder.

    [dim]lm corpora download robotrump[/dim]
    """
    if remote := downloads.REMOTE.get(name):
        say(f"{name}: {remote.what}\n{remote.citation}")
    path, new = downloads.download(name, to, source)
    say(f"{'kept' if new else 'here already'}: {path}, {path.stat().st_size:,} bytes, checked")
    say(f"try it: lm train {name if path.resolve() == downloads.place(name).resolve() else path}")


@corpora_app.command()
@with_settings
def show(
    corpus: Annotated[str, typer.Argument(metavar="[CORPUS]", show_default=False, help=SOURCES)] = "",
    *,
    top: Annotated[int, typer.Option(min=0, help="how many frequent words")] = 20,
    **settings: Any,
) -> None:
    """Documents, tokens, types, characters, bytes, splits and frequent words of a corpus.

    [dim]lm corpora show obama[/dim]
    """
    from recurrent_lm.lm.commands.display import corpus_report

    given = {name: value for name, value in settings.items() if value is not None}
    corpus_report(RunConfig().replace(source=corpus, **given), top)


def _of_typer(error: Any, arguments: list[str]) -> str:
    """A usage error as a sentence; typer's own messages speak of parsing."""
    if (name := getattr(error, "option_name", "")) and error.ctx:
        if not name.startswith("--"):  # -rnn_size, of which typer names -r
            name = next((a.partition("=")[0] for a in arguments if a.startswith(name)), name)
        path, params = error.ctx.command_path, error.ctx.command.params
        has = {opt for p in params if p.param_type_name == "option" for opt in p.opts}
        has |= {(p.metavar or "").strip("[]") for p in params if p.param_type_name == "argument"}
        if here := meant(name, path.split()[-1], has):
            meaning = f"the command {here}" if here.startswith("lm ") else f"the argument {here}" if here.isupper() else here
            every = "--help-all" if path.endswith(" train") else "--help"
            return f"{name} is {meaning} here; {path} {every} lists every option"
    param, cause = getattr(error, "param", None), error.__cause__
    if param and hasattr(cause, "errors"):
        detail = cause.errors()[0]
        kind = {"int": "a whole number", "float": "a number"}.get(detail["type"].partition("_")[0])
        if kind:
            few = " of fewer digits" if detail["type"].endswith("_size") else ""
            name = param.opts[0] if param.param_type_name == "option" else param.make_metavar()
            return f"{name} must be {kind}{few}, not {shown(detail['input'])}"
        bounds = {"greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most")}
        if detail["type"] in bounds:
            key, words = bounds[detail["type"]]
            return f"{param.opts[0]} must be {words} {detail['ctx'][key]:,}, not {shown(detail['input'])}"
    return str(error.format_message() if hasattr(error, "format_message") else error)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line: exit code 0, 2 for bad input, 3 for divergence, 130 and 143 for SIGINT and SIGTERM."""
    sys.exit(run_app(app, "lm", arguments))


def run_app(application: typer.Typer, name: str, arguments: list[str] | None = None) -> int:
    """Run a typer application; errors that a user can mend are printed to stderr in one sentence.

    Args:
        application: the commands.
        name: the program's name in messages.
        arguments: the command line without the program; None takes ``sys.argv``.

    Returns:
        The exit code: 0, 2 for bad input, 3 for divergence, 130 and 143 for SIGINT and SIGTERM.
    """
    console.program = name
    if "OMP_WAIT_POLICY" not in os.environ:  # the user's wish; the finer setting would override it
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read when torch is loaded
    # Buffers of 2 MB and more in pages of 2 MB: an update of 2 x 200 units and 10,000 words makes 6,000 page faults otherwise.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read by torch
    for closed in [name for name in ("stdout", "stderr") if getattr(sys, name) is None]:
        # The next file that is opened would get this descriptor, and so the output.
        setattr(sys, closed, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # characters that the terminal lacks are replaced
    # The only class that all of typer's usage errors share.
    usage_error: Any = typer.BadParameter.__mro__[2]
    typed = sys.argv[1:] if arguments is None else arguments
    try:
        code = application(args=arguments, prog_name=name, standalone_mode=False, obj=typed)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (BrokenPipeError, SystemExit) as error:  # typer makes a SystemExit of a broken pipe
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            return int(error.code or 0)
        silence()  # the reader closed the pipe
        return 0
    except KeyboardInterrupt:  # while typer was still reading the command line
        return 130
    except (InputError, OSError, Diverged, Stopped) as error:
        message, code = sentence_of(error) or ("", 1)
    except usage_error as error:
        message, code = _of_typer(error, typed), 2
        if not message:  # only the help was asked for
            return 2
        if follows():
            from recurrent_lm.lm.training.process_group import wait_for_the_first

            wait_for_the_first()
            return code
    print(f"{name}: {message}", file=sys.stderr)
    return code
