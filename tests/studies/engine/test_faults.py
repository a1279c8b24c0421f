"""Damaged tables and folders of studies, and disks that are full or read-only: a sentence, or the very same numbers."""

import contextlib
import io
import json
import shutil
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from damage import hurt, retyped, run_command
from faulty_disk import fill, mounted, read_only
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recurrent_lm import lm
from recurrent_lm.lm import InputError
from recurrent_lm.studies.cli import app
from recurrent_lm.studies.engine import store
from recurrent_lm.studies.engine.parameters import whole, wholes
from recurrent_lm.studies.engine.run import Run
from recurrent_lm.studies.engine.study import Sweep
from recurrent_lm.studies.engine.tables import load, save, sealed
from recurrent_lm.studies.exchange.measured_constants import record
from recurrent_lm.studies.gradient_lag.study import Study as GradientLag

TINY = [x for s in ("vocabulary=9", "hidden=2", "rows=1", "bptt=2", "rounds=1", "layers=1") for x in ("--set", s)]
FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))


def studies(*arguments):
    return run_command(app, "studies", *arguments)


# -- tables ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Two tables of one study, the first of which is to be damaged."""
    folder = tmp_path_factory.mktemp("tables")
    for name, near in (("hurt", 0.5), ("other", 0.25)):
        rows = [
            {"window": w, "layer": 0, "lag": lag, "hidden_norm": 1.0, "weight_norm": near**lag, "sum_error": 1e-15}
            for w in range(2)
            for lag in range(3)
        ]
        table = pd.DataFrame(rows)
        table.attrs["subject"] = f"a text of {name}"
        save(
            table,
            folder / f"{name}.parquet",
            "gradient_lag",
            GradientLag(f"runs/{name}", windows=2, lags=3, warmup=0),
            preset="cpu",
        )
    return folder


def check_table(draw, tables):
    kept, path = (tables / "hurt.parquet").read_bytes(), tables / "copy.parquet"
    path.write_bytes(kept)
    damage = hurt(draw, path, [])
    try:
        good = {how: studies("show", tables / "hurt.parquet", *how) for how in ((), ("--csv",))}
        for how in good:
            code, out, err = studies("show", path, *how)
            if code:
                assert code == 2 and err.count("\n") == 1 and str(path) in err, (damage, err)
                assert out == ""
            else:
                assert out == good[how][1], damage
                assert load(path).attrs == load(tables / "hurt.parquet").attrs, damage
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@FEW
@given(data=st.data())
def test_a_damaged_table_is_refused_or_as_it_was(data, tables):
    """What it says of itself too, which Parquet does not check."""
    check_table(data.draw, tables)


@pytest.mark.slow
@MANY
@given(data=st.data())
def test_a_damaged_table_is_refused_or_as_it_was_at_length(data, tables):
    check_table(data.draw, tables)


def rewritten(path, attrs):
    """The table with other ``attrs``, of which no digest tells."""
    arrow = pq.read_table(path)
    pq.write_table(arrow.replace_schema_metadata({**arrow.schema.metadata, b"PANDAS_ATTRS": json.dumps(attrs).encode()}), path)


@FEW
@given(data=st.data())
def test_a_table_that_says_anything_of_itself_is_refused_or_shown(data, tables):
    path = tables / "told.parquet"
    shutil.copy(tables / "hurt.parquet", path)
    attrs = load(path).attrs
    del attrs["sha256"]
    rewritten(path, retyped(data.draw, attrs))
    for how in ((), ("--csv",)):
        code, _, err = studies("show", path, *how)
        assert code == 0 or (code == 2 and err.count("\n") == 1), err


@pytest.mark.parametrize("change", [{"subject": "a text of hurl"}, {"preset": "smoke"}, {"machine": {}}, {"more": 1}])
def test_a_changed_word_of_a_table_is_found(change, tables, tmp_path):
    path = tmp_path / "t.parquet"
    shutil.copy(tables / "hurt.parquet", path)
    rewritten(path, load(path).attrs)
    load(path)
    rewritten(path, load(path).attrs | change)
    with pytest.raises(InputError, match="is damaged: it is not what was written"):
        load(path)


def test_a_digest_tells_apart_what_differs_and_nothing_else(tables):
    table = load(tables / "hurt.parquet")
    again = table.copy()
    again.attrs = table.attrs

    def digest(table):
        return sealed(table.copy()).attrs["sha256"]

    assert digest(table) == digest(again) == table.attrs["sha256"]
    nan = table.assign(weight_norm=np.nan)
    other_nan = table.assign(weight_norm=np.array([0xFFF8000000000001] * len(table), dtype="uint64").view("float64"))
    assert digest(nan) == digest(other_nan)
    assert digest(table.assign(lag=table["lag"].astype("int32"))) != digest(table)
    assert digest(table.rename(columns={"lag": "leg"})) != digest(table)
    assert digest(table.iloc[::-1]) != digest(table)
    assert digest(table.assign(weight_norm=-table["weight_norm"] * 0)) != digest(table.assign(weight_norm=0.0))


def test_a_file_that_holds_no_constants_is_left_alone(tmp_path, monkeypatch, tables):
    table = load(tables / "hurt.parquet")
    table.attrs["study"] = "exchange"
    result = type("Interval", (), {"value": 1.0, "low": 1.0, "high": 1.0, "_asdict": lambda self: {}})()
    monkeypatch.setattr("recurrent_lm.studies.exchange.measured_constants.constants", lambda table: {"step": result})
    monkeypatch.setattr("recurrent_lm.studies.exchange.measured_constants.device_name", lambda table: "sm_90")
    for content in (b"{", b"[]", b"\xff", b"[" * 100_000):
        (tmp_path / "c.json").write_bytes(content)
        with pytest.raises(InputError, match="holds no constants"):
            record(table, tmp_path / "c.json")
        assert (tmp_path / "c.json").read_bytes() == content


# -- folders of runs ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Squares(Sweep):
    """The squares of numbers."""

    numbers: tuple[int, ...] = wholes(1, 2, 3, low=0, high=100)
    offset: int = whole(0, 0, 100)

    NAME: ClassVar = "squares"
    COLUMNS: ClassVar = {"number": int, "name": str, "square": float}

    def cells(self):
        return [{"number": n} for n in self.numbers]

    def measure(self, cell):
        n = cell["number"]
        return [{"number": n, "name": f"n{n}", "square": float(n * n + self.offset)}]


def measured(base, study=None, **how):
    """The table of a run, and what it said."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        return Run(study or Squares(), "squares", "cpu", base, **how)(), output.getvalue()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lm, "describe_machine", lambda about=lm.describe_machine(): about)  # noqa: B008
        measured(folder / "s")
        measured(folder / "other" / "s", Squares(offset=1))
        yield folder


def check_folder(draw, sweep):
    place = sweep / "place"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(sweep / "s", place / "s")
    files = sorted(p for p in (place / "s").rglob("*") if p.is_file() and p.name != ".lock")
    file = draw(st.sampled_from(files))
    before = file.read_bytes()
    others = [p for p in sorted(sweep.glob("*/**/*.parquet")) if "place" not in p.parts and p.suffix == file.suffix]
    damage = hurt(draw, file, others)
    same = file.is_file() and file.read_bytes() == before
    about = lm.describe_machine()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lm, "describe_machine", lambda: about)
        try:
            table, output = measured(place / "s")
        except InputError as error:
            assert "\n" not in str(error) and not same, damage
            return
    if file.is_dir() and file.suffix == ".parquet":
        assert "failed: " in output and "Is a directory" in output, (damage, output)
        return
    pd.testing.assert_frame_equal(table, Squares()())
    if not same and file.name != "study.json":
        gone = not damage.endswith(": gone")
        assert ("is damaged or belongs to another run" in output) is gone or "all 3 cells" in output, (damage, output)
    if file.name == "study.json":
        assert "all 3 cells" in output or "was measured with" in output, (damage, output)


@FEW
@given(data=st.data())
def test_a_damaged_folder_gives_the_same_table_or_a_sentence(data, sweep):
    check_folder(data.draw, sweep)


@pytest.mark.slow
@MANY
@given(data=st.data())
def test_a_damaged_folder_gives_the_same_table_or_a_sentence_at_length(data, sweep):
    check_folder(data.draw, sweep)


def test_a_changed_number_of_a_cell_is_found(tmp_path):
    """With checksums of its own that fit: only the digest tells."""
    measured(tmp_path / "s")
    cell = tmp_path / "s" / "cells" / "0001.parquet"
    table = pd.read_parquet(cell)
    attrs = table.attrs
    changed = table.assign(square=5.0)
    changed.attrs = attrs
    changed.to_parquet(cell, engine="pyarrow", write_page_checksum=True)
    table, output = measured(tmp_path / "s")
    assert f"{cell} is damaged or belongs to another run; its cell is measured again" in output
    assert list(table["square"]) == [1.0, 4.0, 9.0]


@pytest.mark.parametrize("name", [".lock", "cells", "study.json"])
def test_a_folder_or_a_file_in_the_wrong_place_is_a_sentence(name, tmp_path):
    measured(tmp_path / "s")
    place = tmp_path / "s" / name
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    place.write_text("") if name == "cells" else place.mkdir()
    try:
        table, output = measured(tmp_path / "s")
    except (InputError, OSError) as error:
        assert str(place) in str(error)
    else:
        assert name == "study.json" and len(table) == 3 and "was measured with settings that cannot be read" in output


# -- disks ----------------------------------------------------------------------------------------------------------


def test_a_full_disk_loses_no_cell(tmp_path):
    base = Squares(tuple(range(60)))
    with mounted(tmp_path / "disk", 2_000_000) as disk:
        filler = fill(disk, 100_000)
        try:
            measured(disk / "s", base)
        except InputError as error:
            assert "cannot be written: No space left on device" in str(error)
        present = len(list((disk / "s" / "cells").glob("*.parquet")))
        assert 0 < present < 60
        assert not list((disk / "s" / "cells").glob(".*.tmp"))
        filler.unlink()
        with pytest.MonkeyPatch.context() as patch:
            known = Squares.measure
            again = []
            patch.setattr(Squares, "measure", lambda self, cell: (again.append(cell), known(self, cell))[1])
            table, output = measured(disk / "s", base)
        assert f"{present} of 60 cells are there" in output
        assert len(again) == 60 - present
        pd.testing.assert_frame_equal(table, base())


def test_a_read_only_disk_is_a_sentence_and_its_tables_can_be_shown(tmp_path, tables):
    with mounted(tmp_path / "disk", 300_000) as disk:
        shutil.copy(tables / "hurt.parquet", disk / "t.parquet")
        measured(disk / "s")
        with read_only(disk):
            assert studies("show", disk / "t.parquet")[0] == 0
            code, out, err = studies("run", "training_step", *TINY, "--out", disk / "new.parquet")
            assert (code, out, err.count("\n")) == (2, "", 1)
            assert f"{disk / 'new.parquet'} cannot be written: Read-only file system" in err
            with pytest.raises((InputError, OSError)) as caught:
                measured(disk / "s", Squares((1, 2, 3, 4)))
            assert "Read-only" in str(caught.value) and str(disk) in str(caught.value)
            assert isinstance(store.opened(disk / "none", {}), tuple)
        assert len(measured(disk / "s")[0]) == 3
