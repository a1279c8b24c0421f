"""The content of a study's page, independent of HTML and Markdown."""

import base64
import gzip
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from pandas.api.types import is_numeric_dtype

from recurrent_lm.reports import ledger as ledgers
from recurrent_lm.reports.ledger import Entry, decided_elsewhere, ledger
from recurrent_lm.reports.since import Since, since
from recurrent_lm.reports.svg import inline
from recurrent_lm.reports.values import cell, facts, first, heading, sentence
from recurrent_lm.studies import (
    NARROW,
    STUDIES,
    WIDE,
    InputError,
    Listing,
    Passage,
    Plot,
    answer,
    finding,
    headline,
    listings,
    passages,
    plots,
    subject,
    summary,
    verdicts,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Drawing

ROWS = 200  # of the data that a page lists; the CSV in it holds all
DIGITS = 9  # of a number in the CSV; the table itself holds all
PLAIN = 200_000  # characters; a longer CSV is compressed inside the page


@dataclass(frozen=True)
class Shown:
    """A figure on a page, or the sentence that says why it is missing."""

    name: str
    title: str
    caption: str
    understanding: str
    svg: str = ""  # an <svg> element
    narrow: "Callable[[], str]" = lambda: ""  # draws it for the gallery and for telephones, and gives that <svg> element
    problem: str = ""
    drawing: "Drawing | None" = None  # with its title, to be saved beside the page
    slides: tuple[str, ...] = ()  # of the lecture, that it follows
    papers: str = ""
    found: str = ""  # its finding, where the study gives one

    @property
    def finding(self) -> str:
        """What it proves in one sentence."""
        return self.found or first(self.caption)

    @property
    def local(self) -> str:
        """Its name on its page: the plot's."""
        return self.name.rpartition("-")[2]

    @property
    def rest(self) -> str:
        """The caption without its first sentence, where that is the finding."""
        return self.caption if self.found else self.caption[len(self.finding) :].strip()


@dataclass(frozen=True)
class Page:
    """The content of a page, plain text except for the figures' SVG."""

    name: str  # of its file, without the ending
    study: str
    source: str  # the table's file
    subject: str
    claims: list[Entry]
    figures: list[Shown]
    columns: list[str]
    rows: list[list[str]]
    count: int  # rows of the table, listed or not
    csv: str
    parameters: dict[str, str]
    environment: dict[str, str]
    command: str
    commit: str
    numeric: list[bool] = field(default_factory=list)  # by column
    passages: list[Passage] = field(default_factory=list)
    measured: list[str] = field(default_factory=list)  # the table's columns, where ``columns`` are those of its summary
    summed: int = 0  # rows of the summary, where rows are of one
    since: Since | None = None  # what changed, where there is an older table
    listings: list[Listing] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)  # pages of the study's other tables
    leads: bool = True  # the study's first, which shows what can be shown together
    left: int = 0  # claims that this table leaves unmeasured and those decide
    answered: str = ""  # the question, by the study, where the table decides it

    @property
    def title(self) -> str:
        """The study's name as a heading, with the subject if another page leads the study's."""
        return heading(self.study) if self.leads or not self.subject else f"{heading(self.study)}: {self.subject}"

    @property
    def slides(self) -> list[str]:
        """The lecture's slides that the figures follow."""
        return list(dict.fromkeys(slide for shown in self.drawn for slide in shown.slides))

    @property
    def drawn(self) -> list[Shown]:
        """The figures that could be drawn."""
        return [shown for shown in self.figures if not shown.problem]

    @property
    def undrawn(self) -> list[Shown]:
        """The figures that could not be drawn, with the reason."""
        return [shown for shown in self.figures if shown.problem]

    @property
    def question(self) -> str:
        """The study's question."""
        return sentence(STUDIES[self.study])

    @property
    def made(self) -> str:
        """Command, commit and machine on one line."""
        about = self.environment
        gpu = about.get("gpu", "none")
        cores = f"{about['cores']} cores" if "cores" in about else ""
        machine = ", ".join(filter(None, (about.get("cpu", ""), cores, "no GPU" if gpu == "none" else gpu)))
        command = re.sub(r" --out \S+", "", self.command)
        return "; ".join(filter(None, (command, f"commit {self.commit[:7]}", machine)))

    @property
    def packed(self) -> str:
        """The CSV as gzip in base64, where it is long; otherwise nothing."""
        return _packed(self.csv) if len(self.csv) > PLAIN else ""

    @property
    def narrow(self) -> str:
        """The figures for telephones, {name: <svg> element} in JSON, as gzip in base64."""
        return _packed(json.dumps({shown.name: shown.narrow() for shown in self.drawn}))

    @property
    def answer(self) -> str:
        """The answer to the question; where the study gives none, what the claims decide."""
        return self.answered or ledgers.answer(self.claims)

    @property
    def verdicts(self) -> str:
        """How many claims have which verdict, failing ones first."""
        return ledgers.counted(self.claims)


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def make(
    table: "pd.DataFrame",
    name: str,
    source: str,
    older: "tuple[str, pd.DataFrame] | None" = None,
    beside: "dict[str, pd.DataFrame] | None" = None,
    leads: bool = True,
) -> Page:
    """The page of a table that ``studies.load`` gave, under a name that is good for a file; ``older``, from the file of that
    name, is what it is compared with. ``beside`` are the study's other tables by their pages: what they decide is not called
    unmeasured, and where the table ``leads`` them, plots that can show all together do."""

    beside = beside or {}
    claims = verdicts(table)
    short = summary(table)
    summed = len(short) if len(short) < len(table) else 0
    seen = short if summed else table
    listed = seen.head(ROWS).astype(object)
    about = dict(table.attrs.get("machine", {}))
    command, commit, dirty = about.pop("command", ""), about.pop("commit", ""), about.pop("dirty", False)
    entries = ledger(claims, name)
    left = decided_elsewhere(entries, [c for page, other in beside.items() for c in ledger(verdicts(other), page)])
    together = [table, *beside.values()] if leads else [table]
    answered = answer(table, claims)
    figures = [_shown(plot, together, claims, name) for plot in plots(table.attrs["study"])]
    if answered:  # the plot that proves it comes first
        figures.sort(key=lambda shown: shown.name != f"{name}-{answered.plot}")
    return Page(
        name=name,
        study=table.attrs["study"],
        source=source,
        subject=subject(table),
        claims=[claim for claim in entries if claim not in left],
        figures=figures,
        columns=[str(column) for column in seen.columns],
        rows=[[cell(value) for value in row] for row in listed.where(listed.notna(), None).itertuples(index=False)],
        count=len(table),
        csv=table.to_csv(index=False, lineterminator="\n", float_format=f"%.{DIGITS}g"),
        parameters=facts(table.attrs["parameters"]),
        environment=facts(about),
        command=str(command or "unknown"),
        commit=f"{commit or 'unknown'}{', with changes that were not committed' if dirty else ''}",
        passages=passages(table),
        numeric=[is_numeric_dtype(seen[column]) for column in seen.columns],
        measured=[str(column) for column in table.columns],
        summed=summed,
        since=since(table, older[1], entries, ledger(verdicts(older[1]), name), older[0]) if older else None,
        listings=listings(table),
        elsewhere=list(beside),
        leads=leads,
        left=len(left),
        answered=answered.sentence if answered else "",
    )


def _shown(plot: Plot, tables: "list[pd.DataFrame]", claims: "pd.DataFrame", page: str) -> Shown:
    """A plot of the first table, or of all where it shows them together."""
    table = plot.joined(tables) if plot.joined and len(tables) > 1 else tables[0]
    title, caption = plot.title(table), ""
    about: dict[str, Any] = {"slides": plot.slides, "papers": plot.papers}
    name = f"{page}-{plot.name}"
    try:
        caption = plot.caption(table, claims)
        drawing = plot.draw(table, claims, WIDE)
    except InputError as error:
        return Shown(name, title, caption, plot.understanding, problem=str(error), **about)
    proved = finding(table, claims, plot.name)
    label = f"{title}. {proved or caption}"

    @cache
    def narrow() -> str:
        return inline(plot.draw(table, claims, NARROW), f"{name}-small", label)

    svg = inline(drawing, name, label)
    headline(drawing, title)
    return Shown(name, title, caption, plot.understanding, svg, narrow, drawing=drawing, found=proved, **about)
