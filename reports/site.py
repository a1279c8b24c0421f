"""A folder of pages from tables: one page a table, their figures, and an index with all claims."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from recurrent_lm.reports.images import FORMATS, PAGES, replaceable, save
from recurrent_lm.reports.lecture import LECTURE, guide
from recurrent_lm.reports.ledger import answer, counted, united
from recurrent_lm.reports.page import Page, make
from recurrent_lm.reports.render import part, render
from recurrent_lm.reports.svg import image
from recurrent_lm.reports.touch import NAME as TOUCH
from recurrent_lm.reports.touch import as_json, example
from recurrent_lm.reports.values import heading
from recurrent_lm.studies import STUDIES, InputError, check_writable, load, plots, replacing

if TYPE_CHECKING:
    import pandas as pd

FIGURES = "figures"
CLAIMS = "claims"  # the page of all claims
OWN = ("index", CLAIMS, TOUCH)  # pages that are no table's


@dataclass(frozen=True)
class Built:
    """The index, the pages, and a sentence for each table that could not be read."""

    index: Path
    pages: list[Page]
    problems: list[str]


def build(
    sources: list[Path],
    out: Path,
    tell: Callable[[str], None] = lambda line: None,
    against: Path | None = None,
    formats: tuple[str, ...] = tuple(FORMATS),
) -> Built:
    """Make a page for each table, and an index.

    A table that cannot be read is named on the index, and the other pages are made. Pages of earlier calls are replaced or left
    alone; nothing is deleted.

    Args:
        sources: tables, or folders of tables, also one folder down.
        out: the folder of the pages.
        tell: called with a line for each step.
        against: an older table, or a folder of older tables: the pages then show what changed.
        formats: file formats of the figures that a page links to.

    Returns:
        The paths of the index and the pages, and a sentence for each table that could not be read.

    Raises:
        InputError: before anything is written, if no table can be read, a place cannot be written, or it holds files that this
            program did not make.
    """
    tables: dict[str, tuple[Path, pd.DataFrame]] = {}
    read, problems = _read(sources)
    for path, table in read:
        tables[name_of(path, tables)] = path, table
    if problems and not tables:
        raise InputError("; ".join(problems))
    older, only = _older(tables, against, problems) if against else ({}, [])
    places = [out / f"{name}{ending}" for name in ("index", CLAIMS, *tables) for ending in PAGES]
    places.append(out / f"{TOUCH}.html")
    for name, (_, table) in tables.items():
        places += [
            picture for plot in plots(table.attrs["study"]) for picture in _pictures(out, f"{name}-{plot.name}", formats)
        ]
    for place in places:
        _check(place)
    pages = []
    for name, (path, table) in tables.items():
        alike = {other: t for other, (_, t) in tables.items() if t.attrs["study"] == table.attrs["study"]}
        beside = {other: t for other, t in alike.items() if other != name}
        page = make(table, name, path.name, older.get(name), beside, leads=name == next(iter(alike)))
        for shown in page.figures:
            if shown.drawing:
                for picture in _pictures(out, shown.name, formats):
                    save(shown.drawing, picture)
        for ending in PAGES:
            _write(out / f"{name}{ending}", render(f"page{ending}", page=page, figures=FIGURES, formats=formats))
        pages.append(page)
        tell(f"{name}: {page.answer}")
        if page.since:
            tell(f"{name} since {page.since.source}: {page.since.answer}")
    _write(out / f"{TOUCH}.html", _touch())
    _index(out, pages, problems, against, only)
    return Built(out / "index.html", pages, problems)


def _read(sources: list[Path]) -> "tuple[list[tuple[Path, pd.DataFrame]], list[str]]":
    """The tables that can be read, and a sentence for each that cannot."""
    tables: list[tuple[Path, pd.DataFrame]] = []
    problems: list[str] = []
    for path in find(sources):
        try:
            tables.append((path, load(path)))
        except InputError as error:
            problems.append(str(error))
    return tables, problems


def _older(
    tables: "dict[str, tuple[Path, pd.DataFrame]]", against: Path, problems: list[str]
) -> "tuple[dict[str, tuple[str, pd.DataFrame]], list[str]]":
    """The older table of each page, by its name, and the files of those that belong to none.

    Of several of one study that with the same file name is it, else the only one where there is one table of that study now.
    """
    read, unread = _read([against])
    if not read:
        raise InputError("; ".join(unread) or f"there is no table in {against}")
    problems += unread
    left = dict(read)
    pairs: dict[str, tuple[str, pd.DataFrame]] = {}
    for alike in (True, False):
        for name, (path, table) in tables.items():
            study = table.attrs["study"]
            fitting = [p for p, t in left.items() if t.attrs["study"] == study and (not alike or p.name == path.name)]
            alone = sum(t.attrs["study"] == study for _, t in tables.values()) == 1
            if name not in pairs and fitting and (alike or (len(fitting) == 1 and alone)):
                near = next((p for p in fitting if p.absolute().parent.name == path.absolute().parent.name), fitting[0])
                pairs[name] = "/".join(near.absolute().parts[-2:]), left.pop(near)
    if tables and not pairs:
        older_names, here = (
            ", ".join(dict.fromkeys(t.attrs["study"] for t in side))
            for side in (left.values(), [t for _, t in tables.values()])
        )
        raise InputError(
            f"{against} holds {older_names}, and what it is to be compared with {here}; a study is compared with itself"
        )
    return pairs, ["/".join(path.absolute().parts[-2:]) for path in left]


def find(sources: list[Path]) -> list[Path]:
    """All named tables and those in named folders, each once, in order."""
    tables: dict[Path, Path] = {}
    for source in sources:
        folder = source.is_dir() and source.suffix != ".parquet"  # one of that name stands where a table should
        inside = [*source.glob("*.parquet"), *source.glob("[!.]*/*.parquet")] if folder else [source]
        for path in sorted(p for p in inside if p == source or not p.name.startswith(".")):
            tables.setdefault(path.resolve(), path)
    return list(tables.values())


def name_of(path: Path, taken: "dict[str, tuple[Path, pd.DataFrame]]") -> str:
    """A page name that is safe in file names and links, and unique."""
    used = {*OWN, *map(str.lower, taken)}
    stem, parent = (re.sub(r"[^A-Za-z0-9_-]+", "-", text)[:60].strip("-") for text in (path.stem, path.absolute().parent.name))
    names = [stem or "table", f"{parent}-{stem}".strip("-") or "table"]
    names += [f"{names[0]}-{number}" for number in range(2, len(used) + 3)]
    return next(name for name in names if name.lower() not in used)


def _index(out: Path, pages: list[Page], problems: list[str], against: Path | None, only: list[str]) -> None:
    run = {page.study for page in pages}
    claims = united([(page.study, claim) for page in pages for claim in page.claims])
    moved = [(page.name, change) for page in pages if page.since for change in page.since.moved]
    rows = guide(pages)
    values = {
        "against": against.name if against else "",
        "moved": sorted(moved, key=lambda pair: pair[1].rank),
        "as_before": sum(len(page.since.claims) for page in pages if page.since) - len(moved),
        "only": only,
        "pages": pages,
        "problems": problems,
        "claims": claims,
        "titles": {page.name: page.title for page in pages},
        "answer": answer(claims),
        "verdicts": counted(claims),
        "guide": rows,
        "lecture": LECTURE,
        "figures": FIGURES,
        "ledger": CLAIMS,
        "touch": TOUCH,
        "missing": [(heading(s), f"studies run {s}") for s in STUDIES if s not in run],
    }
    pictures = {row.name: image(row.picture[1].narrow()) for row in rows if row.picture}
    for ending in PAGES:
        _write(out / f"index{ending}", render(f"index{ending}", pictures=pictures, **values))
        _write(out / f"{CLAIMS}{ending}", render(f"{CLAIMS}{ending}", **values))


def _touch() -> bytes:
    """The page whose sliders move a small network's gradients."""
    values = example()
    return render(f"{TOUCH}.html", example=values, data=as_json(values), script=Markup(part(f"{TOUCH}.js")))


def _pictures(out: Path, name: str, formats: tuple[str, ...]) -> list[Path]:
    return [out / FIGURES / f"{name}{ending}" for ending in formats]


def _check(place: Path) -> None:
    check_writable(place, "--out")
    if not replaceable(place):
        raise InputError(f"{place} exists and was not made by reports; choose another --out")


def _write(place: Path, content: bytes) -> None:
    with replacing(place, "--out") as temporary:
        temporary.write_bytes(content)
