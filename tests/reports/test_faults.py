"""Damaged tables and pages: what can be read is built, what cannot is named, and no page tells another number."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from damage import hurt, retyped, run_command
from faulty_disk import fill, mounted, read_only
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_cases import stored_costs, stored_norms

from recurrent_lm.reports.cli import app

FEW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=800, deadline=None, suppress_health_check=list(HealthCheck))


def reports(*arguments):
    return run_command(app, "reports", *arguments)


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Two tables, of which the second is to be damaged, and their pages without figures, which take their time."""
    folder = tmp_path_factory.mktemp("tables")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recurrent_lm.reports.page.plots", lambda study: ())
        patch.setattr("recurrent_lm.reports.site.plots", lambda study: ())
        stored_costs(folder / "training_step.parquet")
        stored_norms(folder / "kept.parquet")
        shutil.copy(folder / "kept.parquet", folder / "hurt.parquet")
        assert reports("build", folder / "training_step.parquet", folder / "hurt.parquet", "--out", folder / "good")[0] == 0
        yield folder


def check(draw, tables):
    path, out = tables / "hurt.parquet", tables / "pages"
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    shutil.copy(tables / "kept.parquet", path)
    shutil.rmtree(out, ignore_errors=True)
    damage = hurt(draw, path, [])
    code, _, err = reports("build", tables / "training_step.parquet", path, "--out", out)
    assert (code, err.count("\n")) in ((0, 0), (2, 1)), (damage, code, err)
    good = contents(tables / "good")
    if code:
        assert "hurt.parquet" in err
        assert not (out / "hurt.html").exists()
        assert (out / "training_step.html").read_bytes() == good["training_step.html"]
    else:
        assert contents(out) == good, damage


@FEW
@given(data=st.data())
def test_a_damaged_table_is_named_or_shown_as_it_was(data, tables):
    check(data.draw, tables)


@pytest.mark.slow
@MANY
@given(data=st.data())
def test_a_damaged_table_is_named_or_shown_as_it_was_at_length(data, tables):
    check(data.draw, tables)


@FEW
@given(data=st.data())
def test_a_table_that_says_anything_of_itself_is_named_or_shown(data, tables):
    path = tables / "told.parquet"
    arrow = pq.read_table(tables / "kept.parquet")
    attrs = json.loads(arrow.schema.metadata[b"PANDAS_ATTRS"])
    attrs.pop("sha256")
    told = json.dumps(retyped(data.draw, attrs)).encode()
    pq.write_table(arrow.replace_schema_metadata({**arrow.schema.metadata, b"PANDAS_ATTRS": told}), path)
    code, _, err = reports("build", path, "--out", tables / "told")
    assert (code, err.count("\n")) in ((0, 0), (2, 1)), err


def test_a_table_that_names_no_machine_has_a_page(tables, tmp_path):
    arrow = pq.read_table(tables / "kept.parquet")
    attrs = json.loads(arrow.schema.metadata[b"PANDAS_ATTRS"])
    del attrs["sha256"], attrs["machine"]
    told = json.dumps(attrs).encode()
    pq.write_table(arrow.replace_schema_metadata({**arrow.schema.metadata, b"PANDAS_ATTRS": told}), tmp_path / "t.parquet")
    assert reports("build", tmp_path / "t.parquet", "--out", tmp_path / "pages")[0] == 0


def test_pages_on_a_full_or_read_only_disk_are_a_sentence_and_the_old_ones_stay(tables, tmp_path):
    one, both = [tables / "training_step.parquet"], [tables / "training_step.parquet", tables / "kept.parquet"]
    with mounted(tmp_path / "disk", 800_000) as disk:
        assert reports("build", *one, "--out", disk / "pages")[0] == 0
        before = contents(disk / "pages")
        filler = fill(disk, 0)
        code, _, err = reports("build", *both, "--out", disk / "pages")
        assert (code, err.count("\n")) == (2, 1)
        assert "No space left on device" in err
        with read_only(disk):
            code, _, err = reports("build", *both, "--out", disk / "pages")
            assert (code, err.count("\n")) == (2, 1)
            assert "Read-only file system" in err
        assert contents(disk / "pages") == before
        filler.unlink()
        assert reports("build", *both, "--out", disk / "pages")[0] == 0
        assert (disk / "pages" / "kept.html").exists()
