"""A training that a command asks for, in one process or in several."""

import sys
from collections.abc import Callable
from typing import Any

import typer

from recurrent_lm.lm.base.console import say
from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.base.launched import place
from recurrent_lm.lm.commands.display import introduction, result
from recurrent_lm.lm.commands.sentences import sentence_of
from recurrent_lm.lm.config import RunConfig
from recurrent_lm.lm.runs.folder import read_settings as read_settings
from recurrent_lm.lm.training import launcher, process_group
from recurrent_lm.lm.training import start as start


def in_processes(processes: int, config: Callable[[], RunConfig], typed: list[str]) -> None:
    """If several processes are asked for and not started yet: run this command line in each, and exit with them."""
    started = place()[1]
    if processes == 1 or processes == started:
        return
    if started > 1:
        raise InputError(f"--processes {processes}, but torchrun has started {started}; leave --processes out")
    process_group.check(config(), processes)
    raise typer.Exit(launcher.launch(processes, typed))


def run(make: Callable[[], Any], quiet: bool) -> None:
    """Make a training and run it to its end; say what is trained, and how well."""
    with process_group.one_voice(sentence_of):
        process_group.join()
        training = make()
        with training.signals():
            for note in training.notes:
                print(f"lm: {note}", file=sys.stderr)
            if not quiet:
                say(introduction(training))
            scores = training.run(quiet)
            say(result(training, scores))


def follow() -> None:
    """A process of several that is not the first: its settings come from there, and it prints nothing."""
    with process_group.one_voice(sentence_of):
        training = start.follow()
        with training.signals():
            training.run(quiet=True)
