"""Tables on disk: what is stored comes back, and whatever else lies there is refused in a sentence."""

import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recurrent_lm.lm import InputError, run_app
from recurrent_lm.studies import load, save, verdicts
from recurrent_lm.studies.cli import app
from recurrent_lm.studies.engine.tables import check_place
from recurrent_lm.studies.gradient_lag.study import Study as GradientLag
from recurrent_lm.studies.throughput.study import Study as Throughput
from recurrent_lm.studies.training_step.study import VARIANTS
from recurrent_lm.studies.training_step.study import Study as TrainingStep

PARAMETERS = {"run": "runs/x", "corpus": "", "windows": 2, "lags": 3, "warmup": 0}
TINY = [x for s in ("vocabulary=9", "hidden=2", "rows=1", "bptt=2", "rounds=1", "layers=1") for x in ("--set", s)]


def gradient_lag() -> pd.DataFrame:
    """What the study would measure with ``PARAMETERS`` on two layers, norms that halve at each step back."""
    rows = [
        {"window": w, "layer": i, "lag": lag, "hidden_norm": 1.0, "weight_norm": 0.5**lag, "sum_error": 1e-15}
        for w in range(2)
        for i in range(2)
        for lag in range(3)
    ]
    return pd.DataFrame(rows)


def training_step() -> pd.DataFrame:
    rows = [{"variant": v, "round": r, "seconds": 1.0 + r, "peak_bytes": 10} for r in range(3) for v in VARIANTS]
    return pd.DataFrame(rows)


SMALL = {"parts": ("recurrence",), "cell": ("gru",), "direction": ("forward",), "batch": (2,), "hidden": (4,), "steps": (3,)}


def throughput() -> pd.DataFrame:
    """Two variants of one recurrence, six rounds each."""
    row = {
        "part": "recurrence", "cell": "gru", "direction": "forward", "dtype": "float32", "batch": 2, "steps": 3, "hidden": 4,
        "vocabulary": 0, "mode": "eager", "cache": "hot", "status": "timed", "note": "", "error": 1e-7, "allowed": 1e-6,
        "flops": 1e3, "bytes": 1e3, "peak_bytes": 10, "dropped": 0, "clock_mhz": np.nan, "watts": np.nan,
    }  # fmt: skip
    measured = [{"variant": v, "round": r, "seconds": 1 + r / 10} for v in ("kernels:torch", "torch.nn") for r in range(6)]
    columns = Throughput.COLUMNS
    return pd.DataFrame([row | m for m in measured], columns=list(columns)).astype(columns)


GOOD = {
    "throughput": (throughput(), json.loads(json.dumps(asdict(Throughput(**SMALL))))),
    "gradient_lag": (gradient_lag(), PARAMETERS),
    "training_step": (training_step(), {**vars(TrainingStep()), "rounds": 3}),
}


def written(path: Path, table: pd.DataFrame, attrs: object) -> Path:
    """A Parquet file as somebody else might write it; ``attrs`` is any JSON, or bytes that are none."""
    arrow = pa.Table.from_pandas(table)
    raw = attrs if isinstance(attrs, bytes) else json.dumps(attrs).encode()
    pq.write_table(arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), b"PANDAS_ATTRS": raw}), path)
    return path


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "deep" / "t.parquet"
    table = gradient_lag()
    table.attrs["subject"] = "a text, word tokens, gru 1 x 8"
    save(table, path, "gradient_lag", GradientLag(**PARAMETERS))
    return path


def test_a_table_comes_back_with_what_made_it(stored):
    table = load(stored)
    pd.testing.assert_frame_equal(table, gradient_lag())
    assert table.attrs["study"] == "gradient_lag"
    assert table.attrs["parameters"] == PARAMETERS
    assert table.attrs["subject"] == "a text, word tokens, gru 1 x 8"
    assert table.attrs["machine"]["torch"]
    assert [p.name for p in stored.parent.iterdir()] == ["t.parquet"]


@pytest.mark.parametrize("name", GOOD)
def test_a_table_may_have_been_written_by_other_means(name, tmp_path):
    """The certificate for the refusals below: nothing but the fault that each plants is wrong with their files."""
    table, parameters = GOOD[name]
    path = written(tmp_path / "t.parquet", table, {"study": name, "parameters": parameters})
    assert len(verdicts(load(path))) > 0


def test_a_table_from_before_a_parameter_came_is_read(tmp_path):
    older = {key: value for key, value in PARAMETERS.items() if key != "corpus"}
    path = written(tmp_path / "t.parquet", gradient_lag(), {"study": "gradient_lag", "parameters": older})
    assert len(verdicts(load(path))) > 0
    without = {key: value for key, value in older.items() if key != "lags"}
    path = written(tmp_path / "u.parquet", gradient_lag(), {"study": "gradient_lag", "parameters": without})
    with pytest.raises(InputError, match="parameters"):
        load(path)


def test_a_folders_name_adds_no_column(stored, tmp_path):
    folder = tmp_path / "layer=7"
    folder.mkdir()
    stored.rename(folder / "t.parquet")
    assert set(load(folder / "t.parquet")["layer"]) == {0, 1}


LAG, STEP = gradient_lag(), training_step()
FAULTS = {
    "a column is missing": (LAG.drop(columns="lag"), {}, "columns of gradient_lag"),
    "a column too many": (LAG.assign(more=1), {}, "columns of gradient_lag"),
    "other columns": (pd.DataFrame({"a": [1]}), {}, "columns of gradient_lag"),
    "numbers as text": (LAG.assign(weight_norm="1.0"), {}, "not float in the column weight_norm"),
    "whole numbers with a fraction": (LAG.assign(lag=LAG["lag"] + 0.5), {}, "not int in the column lag"),
    "a lag is missing": (LAG.assign(lag=LAG["lag"].astype("Int64").where(LAG["lag"] > 0)), {}, "not int in the column lag"),
    "a norm below 0": (LAG.assign(hidden_norm=-1.0), {}, "below 0 in the column hidden_norm"),
    "no rows": (LAG.head(0), {}, "no measurement"),
    "a row is missing": (LAG.iloc[1:], {}, "one row for each window, layer, lag"),
    "a row twice": (LAG.iloc[[0, 0, *range(2, len(LAG))]], {}, "one row for each"),
    "lags that begin at 1": (LAG.assign(lag=LAG["lag"] + 1), {}, "one row for each"),
    "a study that is not there": (LAG, {"study": "nothing"}, "does not say which study"),
    "a list of studies": (LAG, {"study": ["gradient_lag"]}, "does not say which study"),
    "a number for a study": (LAG, {"study": 3}, "does not say which study"),
    "no parameters": (LAG, {"parameters": None}, "the parameters of gradient_lag"),
    "a list of parameters": (LAG, {"parameters": ["run"]}, "the parameters of gradient_lag"),
    "a parameter is missing": (LAG, {"parameters": {"run": "x"}}, "the parameters of gradient_lag"),
    "a parameter too many": (LAG, {"parameters": PARAMETERS | {"more": 1}}, "the parameters of gradient_lag"),
    "a parameter of another type": (LAG, {"parameters": PARAMETERS | {"lags": "3"}}, "lags must be a whole number from 1"),
    "a parameter that is true": (LAG, {"parameters": PARAMETERS | {"windows": True}}, "windows must be a whole number"),
    "a parameter out of range": (LAG, {"parameters": PARAMETERS | {"lags": 10**20}}, "lags must be a whole number"),
    "a run that is no text": (LAG, {"parameters": PARAMETERS | {"run": 3}}, "run must be text"),
    "a subject that is no text": (LAG, {"subject": ["a"]}, "subject"),
    "a variant is missing": (STEP[STEP["variant"] != VARIANTS[0]], {}, "one row for each variant"),
    "an unknown variant": (STEP.replace("lm bf16", "mine"), {}, "one row for each variant"),
    "variants in lists": (STEP.assign(variant=[["a"]] * 9), {}, "no text in the column variant"),
    "a variant is null": (STEP.assign(variant=STEP["variant"].replace("lm bf16", None)), {}, "no text"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_table_with_a_fault_is_refused(fault, tmp_path, capsys):
    table, attrs, words = FAULTS[fault]
    name = "training_step" if "variant" in table else "gradient_lag"
    attrs = {"study": name, "parameters": GOOD[name][1]} | attrs
    path = written(tmp_path / "t.parquet", table, attrs)
    assert run_app(app, "studies", ["show", str(path)]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert str(path) in error
    assert error.count("\n") == 1


ATTRS = {
    "nothing": {},
    "null": None,
    "a list": [1, 2],
    "a text": "gradient_lag",
    "no JSON": b"{",
    "no text": b"\xff\xfe",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("attrs", ATTRS)
def test_foreign_metadata_are_refused(attrs, tmp_path):
    path = written(tmp_path / "t.parquet", LAG, ATTRS[attrs])
    with pytest.raises(InputError, match=r"no table of a study|does not say which study"):
        load(path)


def test_a_parquet_without_metadata_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_pandas(LAG).replace_schema_metadata(None), path)
    with pytest.raises(InputError, match="does not say which study"):
        load(path)


def test_what_is_no_parquet_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    for data in (b"", b"hello\n", b"PAR1", b"PAR1" * 100):
        path.write_bytes(data)
        with pytest.raises(InputError, match="no table of a study, or damaged"):
            load(path)
    with pytest.raises(InputError, match="is no file"):
        load(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a stored table."""
    path = tmp_path_factory.mktemp("whole") / "t.parquet"
    save(gradient_lag(), path, "gradient_lag", GradientLag(**PARAMETERS))
    return path.read_bytes()


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_table_is_refused_or_as_it_was(data, whole, tmp_path_factory):
    """Cut anywhere, or with any byte changed: a sentence, or a table whose numbers are those that were measured."""
    path = tmp_path_factory.getbasetemp() / "damaged.parquet"
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :]
    path.write_bytes(whole[:place] + (changed if data.draw(st.booleans()) else b""))
    try:
        table = load(path)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        np.testing.assert_array_equal(table.to_numpy(), gradient_lag().to_numpy())


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(
    VALUES, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3), max_leaves=6
)
NAMES = st.sampled_from([*LAG.columns, *STEP.columns, *Throughput.COLUMNS, "else"])
COLUMN = st.one_of(
    st.lists(st.floats(), min_size=12, max_size=12),
    st.lists(st.floats(0), min_size=12, max_size=12),
    st.lists(st.integers(-2, 3), min_size=12, max_size=12),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=12, max_size=12),
    st.lists(st.none() | st.integers(0, 3), min_size=12, max_size=12),
    st.lists(st.sampled_from([*VARIANTS, "", "else"]), min_size=12, max_size=12),
    st.lists(st.lists(st.integers(0, 3), max_size=2), min_size=12, max_size=12),
    st.lists(st.booleans(), min_size=12, max_size=12),
)


@given(data=st.data(), name=st.sampled_from(sorted(GOOD)))
@settings(max_examples=120, deadline=None)
def test_any_table_is_refused_or_decides_claims(data, name, tmp_path_factory):
    """Columns, rows and metadata changed at will: a sentence, or claims with one of the four verdicts."""
    table, parameters = GOOD[name]
    attrs = {"study": name, "parameters": dict(parameters)}
    for column, values in data.draw(st.dictionaries(NAMES, COLUMN, max_size=2)).items():
        table = table.assign(**{column: (values * 2)[: len(table)]})
    if data.draw(st.booleans()):
        rows = data.draw(st.lists(st.integers(0, len(table) - 1), max_size=15))
        table = table.iloc[rows]
    if data.draw(st.booleans()):
        attrs |= data.draw(st.dictionaries(st.sampled_from(["study", "parameters", "subject"]), JSON, max_size=2))
    if data.draw(st.booleans()) and isinstance(attrs["parameters"], dict):
        attrs["parameters"] |= data.draw(st.dictionaries(st.sampled_from([*parameters, "else"]), JSON, max_size=2))
    path = tmp_path_factory.getbasetemp() / "any.parquet"
    written(path, table, attrs)
    try:
        loaded = load(path)
    except InputError as error:
        assert "\n" not in str(error)
        return
    claims = verdicts(loaded)
    assert set(claims["verdict"]) <= {"holds", "fails", "ambiguous", "not measured"}
    assert not claims["measured"].str.contains("nan").any()


EXTREME = st.sampled_from([0.0, 5e-324, 1e-300, 1.0, 1.7e308, float("inf"), float("nan")]) | st.floats(0)


@given(data=st.data(), name=st.sampled_from(sorted(GOOD)))
@settings(max_examples=60, deadline=None)
def test_extreme_measurements_decide_claims(data, name, tmp_path_factory):
    """Tables that are whole but hold 0, infinity, nan and the ends of float64: every claim has a verdict, and no nan in it."""
    table, parameters = GOOD[name]
    for column in table.columns[table.dtypes == "float64"]:
        table = table.assign(**{column: data.draw(st.lists(EXTREME, min_size=len(table), max_size=len(table)))})
    if name == "training_step":
        table = table.assign(peak_bytes=data.draw(st.lists(st.integers(-5, 2**62), min_size=len(table), max_size=len(table))))
    path = written(tmp_path_factory.getbasetemp() / "extreme.parquet", table, {"study": name, "parameters": parameters})
    claims = verdicts(load(path))
    assert set(claims["verdict"]) <= {"holds", "fails", "ambiguous", "not measured"}
    assert not claims["measured"].str.contains("nan").any()
    assert ((claims["measured"] == "not measured") == (claims["verdict"] == "not measured")).all()


def test_nothing_but_a_table_of_the_same_study_is_written_over(stored, tmp_path, monkeypatch):
    """The refusal comes before the study is run."""
    monkeypatch.setattr(TrainingStep, "measure", lambda self, cell: pytest.fail("the study was run"))
    letter = tmp_path / "letter.parquet"
    letter.write_text("dear reader")
    before = stored.read_bytes()
    for path, words in ((letter, "no table of a study"), (stored, "a table of gradient_lag"), (tmp_path, "ends in .parquet")):
        with pytest.raises(InputError, match=words):
            check_place(path, "training_step")
        assert run_app(app, "studies", ["run", "training_step", *TINY, "--out", str(path)]) == 2
    assert letter.read_text() == "dear reader"
    assert stored.read_bytes() == before
    check_place(stored, "gradient_lag")
    check_place(tmp_path / "new" / "t.parquet", "gradient_lag")


def test_a_place_that_cannot_be_written_is_refused_before_the_study_is_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(TrainingStep, "measure", lambda self, cell: pytest.fail("the study was run"))
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    folder = tmp_path / "folder.parquet"
    folder.mkdir()
    for out in (blocked / "t.parquet", folder, Path("/proc/t.parquet")):
        assert run_app(app, "studies", ["run", "training_step", "--out", str(out), *TINY]) == 2
        error = capsys.readouterr().err
        assert f"{out} cannot be written" in error
        assert error.count("\n") == 1
    assert blocked.read_text() == "in the way"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_table_is_stored_as_a_whole_or_not_at_all(stored, monkeypatch, error):
    """A full disk or Ctrl-C in the middle leaves the old table, and nothing beside it."""

    def broken(self, path, **options):
        Path(path).write_bytes(b"half")
        raise error

    before = stored.read_bytes()
    monkeypatch.setattr(pd.DataFrame, "to_parquet", broken)
    with pytest.raises(InputError if isinstance(error, OSError) else KeyboardInterrupt):
        save(gradient_lag(), stored, "gradient_lag", GradientLag(**PARAMETERS))
    assert stored.read_bytes() == before
    assert [p.name for p in stored.parent.iterdir()] == ["t.parquet"]


def test_changed_bytes_of_a_page_are_seen(stored):
    """Parquet's own checksums are written and verified: a flipped bit of a norm does not become another norm."""
    data = stored.read_bytes()
    metadata = pq.read_metadata(io.BytesIO(data)).row_group(0).column(4)  # weight_norm
    start = metadata.dictionary_page_offset or metadata.data_page_offset
    refused = 0
    for place in range(start, start + metadata.total_compressed_size):
        stored.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            assert np.array_equal(load(stored)["weight_norm"], gradient_lag()["weight_norm"])
        except InputError:
            refused += 1
    assert refused > metadata.total_compressed_size / 3
