"""Models of speeches: what a run measures, and claims whose truth is known."""

import math

import pandas as pd
import pytest

from recurrent_lm import lm
from recurrent_lm.studies import load, save, verdicts
from recurrent_lm.studies.speeches.samples import PROMPTS, repeated
from recurrent_lm.studies.speeches.study import NOTHING, Study, complaint

UNION = "Jobs make the country strong, and the students opened their books. "
WALL = "We will build it, believe me, and we will win again and again. "


def scores(values, cell="lstm", seed=1, way="network"):
    """Rows of {(corpus, text): bits per byte}."""
    return [
        NOTHING | {"part": "score", "corpus": c, "cell": cell, "seed": seed, "way": way, "text": t, "bits_per_byte": bits}
        for (c, t), bits in values.items()
    ]


def samples(pairs, cell="lstm"):
    """Rows of (share repeated by the likeliest word, by drawn words), a pair a seed."""
    rows = []
    for seed, repeats in enumerate(pairs, start=1):
        for temperature, share in zip((0.0, 0.8), repeats, strict=True):
            of = {"part": "sample", "corpus": "a", "cell": cell, "seed": seed, "prompt": "x", "temperature": temperature}
            rows.append(NOTHING | of | {"repeated": share, "novel": 1 - share, "longest": 3})
    return rows


def claims_of(rows):
    return verdicts(Study().table(rows)).set_index("key")


def test_repeated_4_grams_by_hand():
    assert repeated("a b c d") == 0.0
    assert repeated("a b c d a b c d") == pytest.approx(1 / 5)  # abcd bcda cdab dabc abcd
    assert repeated("x " * 8) == pytest.approx(4 / 5)
    assert math.isnan(repeated("a b c"))


def test_own_texts_are_known_best_where_every_one_is():
    name = "own"
    right = {("a", "a"): 1.0, ("a", "b"): 2.0, ("b", "a"): 1.5, ("b", "b"): 1.2}
    row = claims_of(scores(right)).loc[name]
    assert row["verdict"] == "ambiguous" and row["measured"].startswith("2 of 2; another speaker's model needs 1.50 times")
    many = [row for seed in range(1, 6) for row in scores({k: v + 0.01 * seed for k, v in right.items()}, seed=seed)]
    assert claims_of(many).loc[name, "verdict"] == "holds"
    wrong = right | {("a", "b"): 1.1}
    assert claims_of(many + scores(wrong, seed=6)).loc[name, "verdict"] == "ambiguous"
    turned = [row | {"corpus": "b" if row["corpus"] == "a" else "a"} for row in many]
    assert claims_of(turned).loc[name, "verdict"] == "fails"
    assert claims_of(scores({("a", "a"): 1.0})).loc[name, "verdict"] == "not measured"


def test_gates_are_held_against_the_best_elman_network():
    """Seed by seed; with one of them nothing is decided, however far apart the numbers are."""
    own, rows = ("a", "a"), []
    bits = {"rnn-tanh": 1.5, "rnn-relu": 1.7, "lstm": 1.4, "gru": 1.6}
    for seed, verdict in ((1, ("ambiguous", "ambiguous")), (2, ("holds", "fails")), (3, ("holds", "fails"))):
        for i, (cell, value) in enumerate(bits.items()):
            rows += scores({own: value + 0.001 * seed * i}, cell, seed)
        claims = claims_of(rows)
        lstm, gru = (claims.loc[f"gates.{cell}"] for cell in ("lstm", "gru"))
        assert (lstm["verdict"], gru["verdict"]) == verdict
        assert ("one seed" in lstm["measured"]) == (seed == 1) and bool(lstm["reason"]) == (seed == 1)
    assert lstm["measured"].startswith("1.404 against 1.500 (rnn-tanh); ratio 0.936 [")


def test_network_counts_and_their_mixture():
    own = ("a", "a")
    rows = []
    for seed, words in ((1, ("ambiguous", "ambiguous")), (2, ("fails", "holds"))):
        for i, (way, value) in enumerate((("network", 1.5), ("n-gram", 1.4), ("mixture", 1.3))):
            rows += scores({own: value + 0.001 * seed * i}, seed=seed, way=way)
        claims = claims_of(rows)
        mixture = claims.loc["mixture"]
        assert (claims.loc["network", "verdict"], mixture["verdict"]) == words
    assert mixture["measured"].startswith("1.303 against 1.401; ratio 0.930 [")


@pytest.mark.parametrize(
    ("pairs", "verdict"),
    [
        ([(0.5 + i / 100, 0.1) for i in range(8)], "holds"),
        ([(0.1, 0.5 + i / 100) for i in range(8)], "fails"),
        ([(0.5, 0.1)], "ambiguous"),
        ([], "not measured"),
    ],
)
def test_repetition_is_compared_pair_by_pair(pairs, verdict):
    assert claims_of(samples(pairs) + scores({("a", "a"): 1.0})).loc["repeats", "verdict"] == verdict


def test_copying_is_judged_model_by_model():
    good, bad = samples([(0.0, 0.2)] * 5), samples([(0.0, 0.9)] * 5, cell="gru")
    assert claims_of(good).loc["novel", "verdict"] == "holds"
    assert claims_of(good[:6]).loc["novel", "verdict"] == "ambiguous"  # three of three are new, of which chance gives an eighth
    assert claims_of(good + bad).loc["novel", "verdict"] == "ambiguous"
    assert claims_of(bad).loc["novel", "verdict"] == "fails"


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speeches")
    for name, text in (("union", UNION), ("wall", WALL)):
        (folder / f"{name}.txt").write_text(text * 60)
    corpora = ",".join(str(folder / f"{name}.txt") for name in ("union", "wall"))
    study = Study(
        corpora=corpora, cell=("rnn-tanh", "lstm"), hidden=16, epochs=3, rows=2, bptt=10, length=20, dropout=0.0, lr=0.02
    )
    return study, study()


def test_a_run_scores_every_model_on_every_text(measured, tmp_path):
    study, table = measured
    result = table[table["part"] == "score"].set_index(["corpus", "cell", "text", "way"])["bits_per_byte"]
    assert len(result) == 2 * 2 * (3 + 2) and result.gt(0).all()
    for corpus, other in (("union", "wall"), ("wall", "union")):
        assert result[corpus, "lstm", corpus, "network"] < result[corpus, "lstm", other, "network"]
        counted = result.loc[corpus, :, corpus, "n-gram"]
        assert counted.nunique() == 1, "counts do not depend on the network"
    claims = verdicts(table).set_index("key")
    own = claims.loc["own"]
    assert own["measured"].startswith("4 of 4; ") and own["verdict"] == "ambiguous"  # four pairs have no interval
    save(table, tmp_path / "t.parquet", "speeches", study)
    assert list(load(tmp_path / "t.parquet")["sample"]) == list(table["sample"])


def test_samples_stand_behind_each_prompt_and_copies_are_found(measured):
    _, table = measured
    result = table[table["part"] == "sample"]
    assert set(result["prompt"]) == set(PROMPTS) and len(result) == 2 * 2 * 3 * 2
    likely = result.query("corpus == 'union' and cell == 'lstm' and temperature == 0 and prompt == 'make the country'").iloc[0]
    assert likely["sample"].strip(), "a model of one sentence has something to say"
    text = "make the country" + likely["sample"]
    assert likely["words"] == len(likely["sample"].split())
    longest = lm.TrainingText([UNION * 60]).compare(likely["sample"], "make the country").longest
    assert likely["longest"] == longest, text


def test_bad_input_is_a_sentence():
    with pytest.raises(lm.InputError, match="different names, not trump, trump"):
        Study(corpora="trump,trump").prepare()


def test_foreign_tables_are_named():
    table = Study().table(scores({("a", "a"): 1.0}))
    assert complaint(Study(), table) == ""
    assert "twice" in complaint(Study(), pd.concat([table, table]))
    assert "way" in complaint(Study(), table.assign(way="x"))
    assert "cell" in complaint(Study(), table.assign(cell="x"))
