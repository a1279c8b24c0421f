"""Tables on disk: stored with study, parameters and machine, and checked when they are read."""

import io
import math
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype, is_string_dtype

from recurrent_lm import lm
from recurrent_lm.lm import InputError, check_writable, replacing
from recurrent_lm.studies.engine.catalogue import STUDIES, module_of
from recurrent_lm.studies.engine.study import Shared, label
from recurrent_lm.studies.executors.sources import digest_of, sources

if TYPE_CHECKING:
    import pandas as pd


def sealed(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with a seal of its columns and its ``attrs`` (any JSON) among the ``attrs``."""
    attrs: Any = table.attrs
    table.attrs = lm.sealed(attrs, *_bytes(table))  # type: ignore[assignment]
    return table


def damaged(table: "pd.DataFrame") -> bool:
    """Whether a table differs from what was sealed."""
    attrs: Any = table.attrs
    return not lm.intact(attrs, *_bytes(table))


def _bytes(table: "pd.DataFrame") -> Iterator[bytes]:
    """The names and values of all columns."""
    for name, column in table.items():
        yield f"\0{name}\0".encode()
        if is_numeric_dtype(column) and isinstance(column.dtype, np.dtype):
            values = column.to_numpy()
            values = np.where(values != values, np.nan, values).astype(values.dtype)  # all bit patterns of nan as one
            yield values.dtype.str.encode() + values.tobytes()
        else:
            yield "\0".join(map(str, column)).encode("utf-8", "surrogatepass")


def save(table: "pd.DataFrame", path: Path, name: str, study: Any, **more: Any) -> None:
    """Store a table as Parquet with the study's name, parameters, subject and machine, sealed against damage.

    Args:
        table: what the study measured.
        path: the file.
        name: the study's name in ``STUDIES``.
        study: the study itself, whose parameters are stored.
        more: further ``attrs``: the preset, failed cells, the machine if it is not this one.

    Raises:
        InputError: if the file cannot be written; its former content then stays.
    """

    if "machine" not in more:
        more["machine"] = lm.describe_machine() | {"sources": digest_of(sources(type(study)))}
    table.attrs |= {"study": name, "parameters": Shared(asdict(study))} | more
    with replacing(path, "--out") as temporary:
        sealed(table).to_parquet(temporary, engine="pyarrow", write_page_checksum=True)


def check_place(path: Path, name: str) -> None:
    """Refuse a path for a study's table before anything is measured.

    Args:
        path: the table's file.
        name: the study's name.

    Raises:
        InputError: if it does not end in .parquet, cannot be written, or holds anything but a table of this study.
    """
    if path.suffix != ".parquet":
        raise InputError(f"--out must be a file that ends in .parquet, not {path}")
    check_writable(path, "--out")
    if not path.exists():
        return
    try:
        study = load(path).attrs["study"]
    except InputError:
        raise InputError(f"{path} exists and is no table of a study; choose another --out") from None
    if study != name:
        raise InputError(f"{path} exists and is a table of {study}; choose another --out")


def load(path: Path) -> "pd.DataFrame":
    """Read a stored table and check that it is whole and of a study.

    Args:
        path: a Parquet file from ``save``.

    Returns:
        The table; ``attrs`` hold the study's name, parameters, subject and machine.

    Raises:
        InputError: if it is missing, damaged, or does not hold what its study writes.
    """

    if path.exists() and not path.is_file():
        raise InputError(f"{path} is no file, and so no table of a study")
    if not path.exists():
        raise InputError(f"there is no table {path}; studies run NAME --out {path} makes one")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        # From bytes, as pyarrow reads columns out of a path's folders.
        table = pd.read_parquet(io.BytesIO(data), engine="pyarrow", page_checksum_verification=True).reset_index(drop=True)
    except Exception as error:  # a parser may raise anything on a damaged file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path} is no table of a study, or damaged: {reason}") from None
    if damaged(table):
        raise InputError(f"{path} is damaged: it is not what was written; restore it from a copy, or run the study again")
    if complaint := _complaint(table):
        raise InputError(f"{path} {complaint}; studies run NAME makes a table that can be read")
    table.attrs = {key: Shared(value) if isinstance(value, dict) else value for key, value in table.attrs.items()}
    return table


def _complaint(table: "pd.DataFrame") -> str:
    """Why a table is not one that a study wrote; empty if it is one."""
    name, parameters = table.attrs.get("study"), table.attrs.get("parameters")
    if not isinstance(name, str) or name not in STUDIES:
        return "does not say which study made it"
    module = module_of(name)
    columns = module.Study.COLUMNS
    known = {f.name for f in fields(module.Study)}
    if not isinstance(parameters, dict) or not known - set(module.Study.LATER) <= parameters.keys() <= known:
        return f"does not hold the parameters of {name}"
    try:
        study = module.Study(**parameters)
    except InputError as error:
        return f"holds a parameter that {name} cannot have ({error})"
    if not isinstance(table.attrs.get("subject", ""), str):
        return "names a subject that is no text"
    if not isinstance(table.attrs.get("machine", {}), dict):
        return "names a machine that is none"
    if list(table.columns) != list(columns):
        return f"does not hold the columns of {name}: {', '.join(columns)}"
    for column, kind in columns.items():
        if wrong := _wrong_values(table[column], kind, column in module.Study.SIGNED):
            return f"holds {wrong} in the column {column}"
    if table.empty:
        return "holds no measurement"
    if hasattr(module, "complaint"):
        return str(module.complaint(study, table))
    grid = module.grid(study, table)
    inside = all(table[column].isin(list(values)).all() for column, values in grid.items())
    complete = len(table) == math.prod(map(len, grid.values())) or failures(table)
    if not inside or not complete or table.duplicated(list(grid)).any():
        return f"does not hold one row for each {', '.join(grid)}"
    return ""


def failures(table: "pd.DataFrame") -> list[tuple[str, str]]:
    """Cells that could not be measured.

    Args:
        table: a study's table.

    Returns:
        (name of the cell, error) for each of them.
    """
    failed = table.attrs.get("failed")
    if not isinstance(failed, list) or not all(isinstance(f, dict) for f in failed):
        return []
    return [(label(f.get("cell")), str(f.get("error", ""))) for f in failed]


def _wrong_values(column: "pd.Series[Any]", kind: type, signed: bool) -> str:
    """What is wrong with a column's values: the kind is int, float (at least 0 unless ``signed``, or nan), or str; empty if
    all fit.
    """

    if kind is str:
        return "" if is_string_dtype(column) and column.notna().all() else "no text"
    if column.dtype != {int: "int64", float: "float64"}[kind]:
        return f"{column.dtype}, not {kind.__name__}"
    return "numbers below 0" if kind is float and not signed and (column < 0).any() else ""
