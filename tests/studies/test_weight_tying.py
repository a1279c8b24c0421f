"""The lecture's table of parameters, and ratios of perplexity whose truth is known."""

import pandas as pd
import pytest

from recurrent_lm import lm
from recurrent_lm.studies import load, save, verdicts
from recurrent_lm.studies.weight_tying.sizes import SMALLER, VARIANTS, count, largest_within, lecture
from recurrent_lm.studies.weight_tying.study import Study, complaint

TEXT = "the people of the union and the people of the states stand by the union. " * 60


def table_of(perplexities, seeds=6, study=None):
    """Models of one corpus: {variant: perplexity}, a little more for each seed."""
    rows = [
        {"part": "model", "corpus": "a", "variant": variant, "seed": seed, "vocabulary": 10, "d": 2, "h": 2, "matrix": "all"}
        | {"parameters": 5, "formula": 0, "perplexity": value * (1 + 0.001 * seed * (i + 1)), "bits_per_byte": 1.0}
        | {"best_epoch": 1}
        for i, (variant, value) in enumerate(perplexities.items())
        for seed in range(1, seeds + 1)
    ]
    return (study or Study()).table(rows)


def test_the_lectures_example_by_hand():
    """|V| = 10,000, d = 256, h = 512."""
    assert lecture(10_000, 256, 512, tie=False) == {
        "E": 2_560_000,
        "W_i": 131_072,
        "W_h": 262_144,
        "projection": 0,
        "U": 5_120_000,
    }
    assert lecture(10_000, 256, 512, tie=True) == {
        "E": 2_560_000,
        "W_i": 131_072,
        "W_h": 262_144,
        "projection": 131_072,
        "U": 0,
    }


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize(("d", "h"), [(7, 7), (3, 5)])
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm", "gru"])
def test_counts_are_those_of_a_model_that_is_there(cell, d, h, tie):
    config = lm.ModelConfig(cell=cell, hidden_size=h, embedding_size=d, tie=tie)
    present = sum(p.numel() for p in lm.LanguageModel(11, config).parameters())
    assert count(11, d, h, tie, cell) == present == sum(n for _, n in lm.parameter_table(11, config, tie).values())


@pytest.mark.parametrize("budget", [200, 1_234, 99_999])
def test_the_largest_size_within_a_budget(budget):
    h = largest_within(budget, 20, "lstm")
    assert count(20, h, h, False, "lstm") <= budget < count(20, h + 1, h + 1, False, "lstm")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tying")
    (folder / "text.txt").write_text(TEXT)
    sizes = {"hidden": 8, "epochs": 1, "rows": 2, "seeds": 1, "min_count": 1}
    study = Study(corpora=str(folder / "text.txt"), vocabulary=(50, 100), sizes=(4, 8), **sizes)
    return study, study()


def test_a_run_counts_and_trains_every_variant(measured, tmp_path):
    study, table = measured
    counts, models = (table[table["part"] == part] for part in ("counts", "model"))
    assert len(counts) == 2 * 2 * 4 * 6
    exact = counts[counts["matrix"] != "biases"]
    assert (exact["parameters"] == exact["formula"]).all()
    assert set(models["variant"]) == set(VARIANTS) and models["perplexity"].between(1, 100).all()
    by = models.set_index("variant")["parameters"]
    assert by["tied, d = h"] == by["untied, d = h"] - 8 * models["vocabulary"].iloc[0]
    assert by[SMALLER] <= by["tied, d = h"] < by["untied, d = h"]
    save(table, tmp_path / "t.parquet", "weight_tying", study)
    assert list(load(tmp_path / "t.parquet")["h"]) == list(table["h"])


def test_the_exact_claims_hold_and_most_is_true_only_of_large_vocabularies(measured):
    _, table = measured
    claims = verdicts(table).set_index("key")
    assert claims.loc["formula", "verdict"] == "holds"
    saving = claims.loc["saving"]
    assert saving["verdict"] == "holds" and saving["measured"].startswith("4 of 4 are equal; ")
    narrow = Study(vocabulary=(4, 100), sizes=(8, 16))
    counts = narrow.table(narrow.measure(narrow.cells()[0]))
    most = verdicts(counts).query("key == 'most'")
    assert list(most["verdict"]) == ["fails", "holds"]
    # |V| = 4, d = h = 16: 2 * 64 of 2 * 64 + 2 * 256, two biases of 16 and one of 4
    assert most["measured"].iloc[0].startswith(f"{128 / (128 + 512 + 36):.1%} at h = 16")


def test_a_wrong_count_fails(measured):
    _, table = measured
    wrong = table.copy()
    wrong.attrs = table.attrs
    wrong.loc[wrong.index[0], "parameters"] += 1
    row = verdicts(wrong).iloc[0]
    assert row["verdict"] == "fails" and row["measured"] == "79 of 80 counts are equal"


@pytest.mark.parametrize(
    ("tied", "untied", "verdict"), [(90.0, 100.0, "holds"), (100.0, 90.0, "fails"), (100.35, 100.0, "ambiguous")]
)
def test_perplexity_decides_only_where_the_interval_does(tied, untied, verdict):
    claims = verdicts(table_of({"tied, d = h": tied, "untied, d = h": untied})).set_index("key")
    row = claims.loc["tied.same_width"]
    assert row["verdict"] == verdict
    assert float(row["measured"].split()[0]) == pytest.approx(tied / untied, rel=0.005)
    assert claims["verdict"].iloc[-1] == "not measured" and claims["measured"].iloc[-1] == "not measured"


def test_few_pairs_decide_nothing():
    claims = verdicts(table_of({"tied, d = h": 50.0, "untied, d = h": 100.0}, seeds=2))
    row = claims[claims["key"] == "tied.same_width"].iloc[0]
    assert row["verdict"] == "ambiguous" and "no interval" in row["measured"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"hidden": 4, "narrower": 5}, "at least narrower, which is 5"),
        ({"corpora": "obama, obama"}, "different names, not obama, obama"),
        ({"corpora": "nowhere"}, "no corpus 'nowhere'"),
    ],
)
def test_bad_input_is_a_sentence(values, words):
    with pytest.raises(lm.InputError, match=words):
        Study(**values).prepare()


def test_foreign_tables_are_named():
    table = table_of({"tied, d = h": 50.0})
    assert complaint(Study(), table) == ""
    assert "twice" in complaint(Study(), pd.concat([table, table]))
    assert "variant" in complaint(Study(), table.assign(variant="x"))
    assert "matrix" in complaint(Study(), table.assign(matrix="x"))
