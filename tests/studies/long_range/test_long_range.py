"""The study as a whole: its cells, a tiny run of every part, and what tables decide."""

import math

import pandas as pd
import pytest

from recurrent_lm import lm
from recurrent_lm.studies import save, select, summary, verdicts
from recurrent_lm.studies.engine.tables import load
from recurrent_lm.studies.long_range.claims import left_at, longest, ninety
from recurrent_lm.studies.long_range.study import PRESETS, Study, complaint

TINY = {
    "lengths": (10,), "seeds": 2, "updates": 3, "hidden": 4, "lags": (10,), "repeats": 2, "adam_updates": 3, "gated": 4,
    "cell": ("rnn-tanh", "gru"), "models": 1, "units": 8, "epochs": 1, "context": 12, "positions": 20, "kept": (1, 4),
    "distances": (0, 3),
}  # fmt: skip


def task(counts, seeds=15, updates=30_000, **settings):
    """A table of temporal order: ``counts`` says how many solve it, by T and method, after 9,000 updates."""
    rows = [
        {"part": "clipping", "task": "temporal_order", "cell": "rnn-tanh", "method": method, "steps": steps, "seed": seed}
        | {"updates": 9_000 if seed <= n else updates, "solved": int(seed <= n), "error": 0.0, "nats": math.nan}
        for (steps, method), n in counts.items()
        for seed in range(1, seeds + 1)
    ]
    return table_of(rows, seeds=seeds, updates=updates, **settings)


def table_of(rows, **settings):
    table = pd.DataFrame(rows, columns=list(Study.COLUMNS)).astype(Study.COLUMNS)
    table.attrs = {"study": "long_range", "parameters": Study().__dict__ | settings}
    return table


def gates(tanh, lstm, gru, seeds=9):
    rows = [
        {"part": "gates", "task": "copy", "cell": cell, "method": "clipped", "steps": 20, "seed": seed}
        | {"updates": 100, "solved": int(seed <= n), "error": 0.0, "nats": math.nan}
        for cell, n in (("rnn-tanh", tanh), ("lstm", lstm), ("gru", gru))
        for seed in range(1, seeds + 1)
    ]
    return table_of(rows)


def text(part, curves):
    """``curves``: (cell, seed) -> nats by number of tokens; the last number of history is all."""
    rows = []
    for (cell, seed), curve in curves.items():
        for n, nats in curve.items():
            method = "changed" if part == "influence" else "all" if n == max(curve) else "dropped"
            key = {"part": part, "task": "obama", "cell": cell, "method": method, "steps": n, "seed": seed}
            rows.append(key | {"updates": 0, "solved": 0, "error": math.nan, "nats": nats})
    return table_of(rows)


def told(table, key):
    """(measured, verdict) of the claims of this key."""
    rows = select(verdicts(table), key)
    return list(rows[["measured", "verdict"]].itertuples(index=False, name=None))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "text.txt").write_text("the people of the union and the people of the states stand by the union. " * 60)
    study = Study(**TINY | {"corpora": str(folder / "text.txt")})
    table = study()
    path = folder / "t.parquet"
    save(table, path, "long_range", study)
    return load(path)


def test_a_tiny_run_measures_every_part(tiny):
    sizes = tiny.groupby("part").size().to_dict()
    assert sizes == {"clipping": 3 * 2, "gates": 2 * 2 * 2, "history": 2 * (1 + 2 * 2 + 1), "influence": 2 * 2}
    tasks = tiny[tiny["part"].isin(["clipping", "gates"])]
    assert (tasks["updates"] == 3).all() and tasks["error"].between(0.01, 1).all() and tasks["nats"].isna().all()
    texts = tiny[tiny["part"].isin(["history", "influence"])]
    assert (texts["nats"] > 0).all() and texts["error"].isna().all()
    words = texts[(texts["steps"] == 0) & (texts["part"] == "history")]
    assert words["nats"].nunique() == 1  # word frequencies, whatever the cell
    assert len(verdicts(tiny)) == 1 + 3 + 1 + 4 + 2 + 2 + 2


def test_a_table_that_is_not_of_this_study_is_refused(tiny):
    study = Study(**tiny.attrs["parameters"])
    assert complaint(study, tiny) == ""
    assert complaint(study, pd.concat([tiny, tiny.head(1)])) == "holds a measurement twice"
    for column, value in (("part", "other"), ("method", "sideways"), ("steps", 77), ("seed", 9), ("cell", "transformer")):
        assert "its parameters do not" in complaint(study, tiny.assign(**{column: [value, *tiny[column][1:]]})), column
    assert "neither solved nor not" in complaint(study, tiny.assign(solved=2))
    without = Study(**tiny.attrs["parameters"] | {"parts": ("gates", "text")})
    assert complaint(without, tiny) == "holds a part clipping, which its parameters do not"


def test_cells_are_pairs_of_the_same_seeds():
    cells = Study(**TINY | {"corpora": "obama, trump", "models": 2}).cells()
    assert len(cells) == 3 + 4 + 2 * 2 * 2
    assert len({tuple(cell.values()) for cell in cells}) == len(cells)
    assert {cell["task"] for cell in cells if cell["part"] == "text"} == {"obama", "trump"}


def test_presets_measure_what_the_claims_ask_for():
    cpu, long = PRESETS["cpu"], PRESETS["cpu-long"]
    assert (
        {20, 30} <= set(cpu.lengths) and cpu.updates >= 30_000 and cpu.seeds >= 15 and set(cpu.methods) >= {"plain", "clipped"}
    )
    assert {20, 30, 50, 100} <= set(long.lengths) and long.updates >= 60_000 and long.seeds >= 15


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"context": 4}, "context must be more than the 4 tokens of kept and distances, not 4"),
        ({"context": 90_000}, "take a context of less than that"),
        ({"corpora": "nowhere"}, "nowhere"),
        ({"corpora": " , "}, "corpora names no corpus"),
        ({"seeds": 1000, "hidden": 10_000}, "reduce seeds"),
    ],
)
def test_what_cannot_be_measured_is_a_sentence(settings, words):
    with pytest.raises(lm.InputError, match=words):
        Study(**TINY | settings).prepare()


def test_clipping_raises_success_or_not():
    stated = {(30, "plain"): 1, (30, "clipped"): 11}
    assert told(task(stated), "clipping_raises") == [("plain 1/15, clipped 11/15 (Fisher p = 0.00048)", "holds")]
    for clipped, verdict in ((4, "ambiguous"), (1, "fails"), (0, "fails")):
        assert told(task(stated | {(30, "clipped"): clipped}), "clipping_raises")[0][1] == verdict
    late = task(stated, updates=60_000)
    late.loc[(late["method"] == "clipped") & (late["solved"] == 1), "updates"] = 40_000
    assert told(late, "clipping_raises")[0][0].startswith("plain 1/15, clipped 0/15")  # 30,000 updates are asked for
    for other in ({"seeds": 14}, {"updates": 20_000}, {"rate": 0.02}, {"hidden": 40}, {"threshold": 2.0}):
        assert told(task(stated, **other), "clipping_raises") == [("not measured", "not measured")], other


@pytest.mark.parametrize(
    ("plain", "clipped", "verdict"), [(0, 2, "holds"), (0, 1, "ambiguous"), (5, 2, "fails"), (0, 5, "ambiguous")]
)
def test_a_control_holds_with_the_expected_counts_only(plain, clipped, verdict):
    table = task({(50, "plain"): plain, (50, "clipped"): clipped}, seeds=5, updates=60_000)
    assert told(table, "control.50") == [(f"plain {plain}/5, clipped {clipped}/5", verdict)]
    assert told(table, "control.20") == told(table, "control.100") == [("not measured", "not measured")]


def test_controls_take_the_first_seeds():
    table = task({(20, "plain"): 5, (20, "clipped"): 14, (100, "clipped"): 1}, updates=60_000)
    assert told(table, "control.20") == [("plain 5/5, clipped 5/5", "holds")]
    assert told(table, "control.100") == [("clipped 1/10", "ambiguous")]


@pytest.mark.parametrize(
    ("clipped", "omega", "measured", "verdict"),
    [
        ((15, 5), (15, 15), "T = 20 clipped, 30 with Omega; at T = 30 5/15 and 15/15 (Fisher p = 0.0002)", "holds"),
        ((15, 11), (15, 12), "T = 20 clipped, 30 with Omega; at T = 30 11/15 and 12/15 (Fisher p = 1)", "ambiguous"),
        ((15, 15), (15, 5), "T = 30 clipped, 20 with Omega; at T = 30 15/15 and 5/15 (Fisher p = 0.0002)", "fails"),
        ((15, 15), (15, 15), "T = 30 clipped, 30 with Omega (the longest measured)", "ambiguous"),
        ((0, 0), (15, 0), "T = below 20 clipped, 20 with Omega; at T = 20 0/15 and 15/15 (Fisher p = 1.3e-08)", "holds"),
        ((0, 15), (0, 15), "T = below 20 clipped, below 20 with Omega", "ambiguous"),
    ],
)
def test_omega_moves_the_longest_lag_or_not(clipped, omega, measured, verdict):
    counts = {(t, m): of[i] for m, of in (("clipped", clipped), ("regularised", omega)) for i, t in enumerate((20, 30))}
    assert told(task(counts), "omega") == [(measured, verdict)]


def test_omega_alone_or_of_no_weight_decides_nothing():
    assert told(task({(20, "regularised"): 15}), "omega") == [("not measured", "not measured")]
    both = {(20, "clipped"): 0, (20, "regularised"): 15}
    assert told(task(both, weight=0.0), "omega") == [("not measured", "not measured")]


def test_the_longest_lag_ends_at_the_first_that_fails():
    about = summary(task({(20, "clipped"): 12, (30, "clipped"): 11, (50, "clipped"): 15}))
    assert longest(about, "clipped") == 20 and longest(about, "plain") == 0
    row = about.iloc[1]
    assert (row["solved"], row["seeds"], row["updates"]) == (11, 15, 9_000)
    assert (row["low"], row["high"]) == pytest.approx((0.4805, 0.8910), abs=1e-4)  # Wilson's, by hand


def test_gates_learn_more_or_not():
    assert told(gates(3, 9, 9), "gates_learn") == [
        ("tanh 3/9, lstm 9/9 (Fisher p = 0.009)", "holds"),
        ("tanh 3/9, gru 9/9 (Fisher p = 0.009)", "holds"),
    ]
    assert [v for _, v in told(gates(9, 3, 8), "gates_learn")] == ["fails", "ambiguous"]
    assert told(task({(20, "plain"): 1}), "gates_learn") == [("not measured", "not measured")]


def test_ninety_percent_of_the_gain():
    """A loss of 10 falls to 2 at n = 1 and to 0 at n = 3: 90% is half the way between, on log(1 + n): sqrt(2 * 4) - 1."""
    table = text("history", {("lstm", 1): {0: 10.0, 1: 2.0, 3: 0.0, 8: 0.0}})
    assert ninety(table) == pytest.approx(math.sqrt(8) - 1)
    assert math.isnan(ninety(table.assign(nats=[1.0, 2.0, 3.0, 4.0])))


def test_a_model_leans_on_recent_tokens_or_not():
    near, far = {0: 5.0, 1: 4.5, 5: 4.0, 100: 4.0}, {0: 5.0, 1: 4.99, 5: 4.98, 100: 4.0}
    nearly, further = near | {1: 4.45}, far | {5: 4.97}
    claims = told(
        text("history", {("lstm", 1): near, ("lstm", 2): far, ("gru", 1): near, ("gru", 2): nearly}), "recent.history"
    )
    assert [verdict for _, verdict in claims] == ["ambiguous", "holds"]
    assert " tokens, mean " in claims[1][0]
    assert told(text("history", {("lstm", 1): far, ("lstm", 2): further}), "recent.history")[0][1] == "fails"
    assert told(text("history", {("lstm", 1): near}), "recent.history")[0][1] == "ambiguous"  # one seed
    fall = {("lstm", 1): {0: 2.0, 5: 1.0, 10: 0.009, 20: 0.01}, ("gru", 1): {0: 2.0, 5: 1.0, 10: 0.05, 20: 0.05}}
    assert told(text("influence", fall), "recent.influence") == [
        ("0.0047, one seed", "ambiguous"),
        ("0.025, one seed", "ambiguous"),
    ]
    more = {(cell, 2): {n: kl * (1.01 if n else 1) for n, kl in curve.items()} for (cell, _), curve in fall.items()}
    assert [verdict for _, verdict in told(text("influence", fall | more), "recent.influence")] == ["holds", "fails"]


def test_gates_keep_what_lies_back_or_not():
    def curve(x):
        return {0: 2.0, 5: x, 20: x, 30: 99.0}

    curves = {("rnn-tanh", 1): curve(0.2), ("rnn-tanh", 2): curve(0.4), ("lstm", 1): curve(0.6), ("lstm", 2): curve(0.8)}
    curves |= {("lstm", 2): curve(0.81), ("gru", 1): curve(0.3), ("gru", 2): curve(0.8)}
    table = text("influence", curves)
    assert told(table, "gates_keep") == [
        ("0.3 to 0.41; tanh 0.1 to 0.2, difference 0.2 [0.17, 0.23]", "holds"),
        ("0.15 to 0.4; tanh 0.1 to 0.2, difference 0.12 [-0.83, 1.1]", "ambiguous"),
    ]
    less = text("influence", {("rnn-tanh", 1): curve(0.6), ("lstm", 1): curve(0.2)})
    assert told(less, "gates_keep") == [("0.1; tanh 0.3, one seed", "ambiguous"), ("not measured", "not measured")]
    both = {("rnn-tanh", 1): curve(0.6), ("lstm", 1): curve(0.2), ("rnn-tanh", 2): curve(0.61), ("lstm", 2): curve(0.2)}
    assert told(text("influence", both), "gates_keep")[0][1] == "fails"
    one = table[(table["cell"] == "gru") & (table["seed"] == 1)]
    assert left_at(one, 5, 20) == pytest.approx(0.15)
    assert math.isnan(left_at(one.assign(nats=0.0), 5)) and math.isnan(left_at(one, 40))


def test_an_empty_part_is_not_measured():
    claims = verdicts(gates(1, 2, 3))
    assert (claims.loc[claims["key"] != "gates_learn", "verdict"] == "not measured").all()
