"""A study's table as a page: what stands on it, apart from how HTML and Markdown write it."""

import base64
import gzip
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reports.drawing import Passage, Plot, passages, plots
from reports.figures.style import NARROW, WIDE, headline
from reports.ledger import Claim, answer, ledger
from reports.since import Since, since
from reports.svg import inline
from reports.text import cell, facts, heading, sentence
from studies import STUDIES, InputError, summary, verdicts

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Drawing

ROWS = 2_000  # of the data that a page lists; the CSV in it holds all
PLAIN = 200_000  # characters of CSV up to which it stands in a page as text, and from which on it is compressed


@dataclass(frozen=True)
class Shown:
    """A figure on a page, or the sentence that says why there is none."""

    name: str
    title: str
    caption: str
    understanding: str
    wide: str = ""  # <svg> elements
    narrow: str = ""
    problem: str = ""
    drawing: "Drawing | None" = None  # with its title, to be saved beside the page


@dataclass(frozen=True)
class Page:
    """Everything that a page says. All of it is plain text, but for the figures' SVG."""

    name: str  # of its file, without the ending
    study: str
    source: str  # the table's file
    subject: str
    claims: list[Claim]
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

    @property
    def title(self) -> str:
        """The study's name as a heading."""
        return heading(self.study)

    @property
    def question(self) -> str:
        """What the study asks."""
        return sentence(STUDIES[self.study])

    @property
    def packed(self) -> str:
        """The CSV as gzip in base64, where it is long; otherwise nothing."""
        if len(self.csv) <= PLAIN:
            return ""
        return base64.b64encode(gzip.compress(self.csv.encode(), mtime=0)).decode()

    @property
    def answer(self) -> str:
        """What the claims decide."""
        return answer(self.claims)


def make(table: "pd.DataFrame", name: str, source: str, older: "tuple[str, pd.DataFrame] | None" = None) -> Page:
    """The page of a table that ``studies.load`` gave, under a name that is good for a file; ``older``, from the file of that
    name, is what it is compared with."""
    from pandas.api.types import is_numeric_dtype

    claims = verdicts(table)
    short = summary(table)
    summed = len(short) if len(short) < len(table) else 0
    seen = short if summed else table
    listed = seen.head(ROWS).astype(object)
    about = dict(table.attrs.get("machine", {}))
    command, commit, dirty = about.pop("command", ""), about.pop("commit", ""), about.pop("dirty", False)
    return Page(
        name=name,
        study=table.attrs["study"],
        source=source,
        subject=table.attrs.get("subject") or "",
        claims=(made := ledger(claims, name)),
        figures=[_shown(plot, table, claims, name) for plot in plots(table.attrs["study"])],
        columns=[str(column) for column in seen.columns],
        rows=[[cell(value) for value in row] for row in listed.where(listed.notna(), None).itertuples(index=False)],
        count=len(table),
        csv=table.to_csv(index=False, lineterminator="\n"),
        parameters=facts(table.attrs["parameters"]),
        environment=facts(about),
        command=str(command or "unknown"),
        commit=f"{commit or 'unknown'}{', with changes that were not committed' if dirty else ''}",
        passages=passages(table),
        numeric=[is_numeric_dtype(seen[column]) for column in seen.columns],
        measured=[str(column) for column in table.columns],
        summed=summed,
        since=since(table, older[1], made, ledger(verdicts(older[1]), name), older[0]) if older else None,
    )


def _shown(plot: Plot, table: "pd.DataFrame", claims: "pd.DataFrame", page: str) -> Shown:
    title, caption = plot.title(table), ""
    name = f"{page}-{plot.name}"
    try:
        caption = plot.caption(table, claims)
        drawings = [plot.draw(table, claims, size) for size in (NARROW, WIDE)]
    except InputError as error:
        return Shown(name, title, caption, plot.understanding, problem=str(error))
    narrow, wide = (inline(drawing, f"{plot.name}{i}", f"{title}. {caption}") for i, drawing in enumerate(drawings))
    headline(drawings[1], title)
    return Shown(name, title, caption, plot.understanding, wide, narrow, drawing=drawings[1])
