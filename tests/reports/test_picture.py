"""Pictures on disk: nothing that reports did not make is written over, unless that is asked for."""

from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from recurrent_lm.reports.cli import app
from recurrent_lm.reports.images import FORMATS, check_place, save
from recurrent_lm.studies import InputError, run_app
from recurrent_lm.studies import save as save_table
from recurrent_lm.studies.gradient_lag.study import Study

SUFFIXES = pytest.mark.parametrize("suffix", FORMATS)


@pytest.fixture
def table(tmp_path):
    rows = [
        {"window": 0, "layer": 0, "lag": lag, "hidden_norm": 1.0, "weight_norm": 0.5**lag, "sum_error": 0.0} for lag in range(3)
    ]
    save_table(pd.DataFrame(rows), tmp_path / "t.parquet", "gradient_lag", Study(windows=1, lags=3))
    return tmp_path / "t.parquet"


def foreign(path: Path) -> Path:
    """A picture that matplotlib wrote for somebody else."""
    drawing = Figure()
    drawing.subplots().plot([1, 2])
    drawing.savefig(path)
    return path


@SUFFIXES
def test_its_own_picture_is_replaced_and_another_is_not(suffix, table, tmp_path, capsys):
    own, other = tmp_path / f"own{suffix}", foreign(tmp_path / f"other{suffix}")
    before = other.read_bytes()
    for _ in range(2):
        assert run_app(app, "reports", ["figure", str(table), "--out", str(own)]) == 0
    capsys.readouterr()
    assert run_app(app, "reports", ["figure", str(table), "--out", str(other)]) == 2
    error = capsys.readouterr().err
    assert error == f"reports: {other} exists and was not made by reports; choose another --out, or replace it: --force\n"
    assert other.read_bytes() == before
    assert run_app(app, "reports", ["figure", str(table), "--out", str(other), "--force"]) == 0
    check_place(other)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == sorted([".parquet", suffix, suffix])


@SUFFIXES
def test_a_file_that_only_speaks_of_the_maker_is_another(suffix, tmp_path):
    path = tmp_path / f"letter{suffix}"
    path.write_text("recurrent-lm reports made the picture that was here. Software Creator")
    with pytest.raises(InputError, match="not made by reports"):
        check_place(path)
    check_place(path, force=True)


def test_the_picture_beside_the_table_is_guarded_too(table, capsys):
    foreign(table.with_suffix(".png"))
    assert run_app(app, "reports", ["figure", str(table)]) == 2
    assert "--force" in capsys.readouterr().err


def test_png_names_its_maker_in_a_text_chunk(table, tmp_path):
    assert run_app(app, "reports", ["figure", str(table)]) == 0
    with Image.open(tmp_path / "t.png") as picture:
        assert picture.info["Software"] == "recurrent-lm reports"


def test_the_table_is_never_the_picture(table, tmp_path, capsys):
    """Not even by force, nor under a name that ends in .png."""
    named = table.rename(tmp_path / "t.png")
    before = named.read_bytes()
    for arguments in (["--force"], ["--force", "--out", str(named)]):
        assert run_app(app, "reports", ["figure", str(named), *arguments]) == 2
        assert "is the table itself" in capsys.readouterr().err
    assert named.read_bytes() == before


def test_places_that_cannot_be_written(table, tmp_path, capsys):
    folder, blocked = tmp_path / "folder.png", tmp_path / "file"
    folder.mkdir()
    blocked.write_text("in the way")
    for out in (folder, blocked / "x.png", Path("/proc/x.png")):
        assert run_app(app, "reports", ["figure", str(table), "--out", str(out), "--force"]) == 2
        assert f"{out} cannot be written" in capsys.readouterr().err
    assert blocked.read_text() == "in the way"


def test_a_folder_that_is_missing_is_made(table, tmp_path):
    assert run_app(app, "reports", ["figure", str(table), "--out", str(tmp_path / "a" / "b.svg")]) == 0
    assert (tmp_path / "a" / "b.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_picture_is_written_as_a_whole_or_not_at_all(tmp_path, error):
    class Broken:
        def savefig(self, path, **options):
            Path(path).write_bytes(b"half")
            raise error

    old = tmp_path / "old.png"
    old.write_bytes(b"old")
    with pytest.raises(InputError if isinstance(error, OSError) else KeyboardInterrupt):
        save(Broken(), old)
    assert old.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["old.png"]
