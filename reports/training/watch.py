"""The page of some trainings: built once, or repeatedly while they run."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from markupsafe import Markup

from recurrent_lm.lm import History, history
from recurrent_lm.reports.images import replaceable
from recurrent_lm.reports.render import part, render_beside
from recurrent_lm.reports.touch import as_json
from recurrent_lm.reports.training import told
from recurrent_lm.reports.training.asked import Answers, Models
from recurrent_lm.reports.training.curves import curves, numbers
from recurrent_lm.studies import InputError, check_writable, replacing

PACKAGE = "recurrent_lm.reports.training"
PROMPT = "the students opened their"  # the lecture's own example
EVERY = 3.0  # seconds between two looks at the logs, and between two reloads of the page


@dataclass(frozen=True)
class Shown:
    """One run on the page."""

    name: str
    history: History
    answers: Answers
    texts: list[told.Text]
    troubles: list[tuple[str, list[float]]]

    @property
    def chosen(self) -> list[told.Text]:
        """The texts that are always shown."""
        return told.chosen(self.texts)


def place_of(runs: list[Path]) -> Path:
    """The default place of the page: the run's folder, or the folder that holds all runs."""
    if len(runs) == 1:
        return runs[0] / "training.html"
    folders = [run.parent for run in runs]
    if len({folder.is_absolute() for folder in folders}) > 1:
        folders = [folder.absolute() for folder in folders]
    return Path(os.path.commonpath(folders)) / "training.html"


def write_page(runs: list[Path], out: Path, prompts: list[str], models: Models, refresh: bool = False) -> list[History]:
    """Write the page of some runs.

    Args:
        runs: their folders.
        out: the HTML file.
        prompts: for the bars of the next word; without any, the prompts of the runs' own texts and the lecture's.
        models: asks the models, and remembers their answers.
        refresh: let the page reload itself every ``EVERY`` seconds.

    Returns:
        The history of each run.

    Raises:
        InputError: if a run is missing or damaged, or the place cannot be written or holds another program's file.
    """
    histories = [history(run) for run in runs]
    check_place(out)
    names = told.labels([h.path for h in histories])
    own = [h.samples[0]["prompt"] for h in histories if h.samples]
    asked = prompts or list(dict.fromkeys([*filter(None, own), PROMPT]))
    shown = [
        Shown(name, h, models.answers(h, asked), told.texts(h), told.troubles(h))
        for h, name in zip(histories, names, strict=True)
    ]
    data = {
        "refresh": EVERY if refresh else 0,
        "runs": [
            {"name": s.name} | curves(s.history) | {"lags": [[lag, *numbers([n])] for lag, n in s.answers.lags]} for s in shown
        ],
    }
    content = render_beside(
        PACKAGE,
        "training.html",
        runs=shown,
        answer=told.answer(histories, names),
        differences=told.differences(histories),
        facts=told.facts(histories),
        prompts=asked,
        data=Markup(as_json(data)),
        style=Markup(part("style.css") + _part("training.css")),
        script=Markup(_part("training.js")),
        refresh=refresh,
    )
    with replacing(out, "--out") as temporary:
        temporary.write_bytes(content)
    return histories


def check_place(out: Path) -> None:
    """Refuse a place where the page cannot or must not be written."""
    if out.suffix != ".html":
        raise InputError(f"--out must end in .html, not {out.name!r}")
    check_writable(out, "--out")
    if not replaceable(out):
        raise InputError(f"{out} exists and was not made by reports; choose another --out")


def watch(
    runs: list[Path],
    out: Path,
    prompts: list[str],
    tell: Callable[[str], None],
    show: Callable[[str], object] | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Write the page whenever a training has written something, until all of them have ended; Ctrl-C ends it, too.

    It waits for runs that do not exist yet. The last page does not reload itself.

    Args:
        runs, out, prompts: as in ``write_page``.
        tell: prints a line.
        show: called with the page's address once it exists, to open it.
        wait: sleeps for some seconds.
    """
    check_place(out)
    models, reported = Models(), False
    before: tuple[object, ...] | None = None
    existing: list[Path] = []
    try:
        while True:
            existing = [run for run in runs if (run / "best.json").exists() or (run / "last.json").exists()]
            if existing and (now := _state(existing)) != before:
                written = write_page(existing, out, prompts, models, refresh=True)
                if not reported:
                    reported = True
                    tell(f"page: {out}; it is written again while the training runs; Ctrl-C ends that")
                    if show:
                        show(out.absolute().as_uri())
                before = now
                if len(existing) == len(runs) and not any(h.running for h in written):
                    break
            elif not existing and before is None:
                tell(f"waiting for {', '.join(map(str, runs))}; Ctrl-C ends that")
                before = ()
            wait(EVERY)
    except KeyboardInterrupt:
        tell("")
    if existing:
        write_page(existing, out, prompts, models)


def _state(runs: list[Path]) -> tuple[object, ...]:
    """A value that changes when a run has written something: the sizes of the logs, and whether each training runs."""
    logs = [run / name for run in runs for name in ("steps.jsonl", "epochs.jsonl", "samples.jsonl", "result.json")]
    sizes = [file.stat().st_size if file.exists() else 0 for file in logs]
    return (*sizes, *(history(run).running for run in runs))


def _part(name: str) -> str:
    return (files(PACKAGE) / "templates" / name).read_text(encoding="utf-8")
