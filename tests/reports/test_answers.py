"""Every study answers its question from what its table holds: a table that says the opposite gets the opposite sentence."""

import json
import math
from dataclasses import asdict

import pytest
from backend_cases import planted
from flow_cases import flow
from flow_cases import study as flow_study
from parallel_cases import STUDY as PARALLEL
from parallel_cases import solved
from report_cases import CLIPPED, READ, clippings, costs, norms, reaches, readings, speech_scores, speeds, tying
from small_tables import CASES, exchanged, table_of

from recurrent_lm.studies import STUDIES, answer, finding, plots, verdicts
from recurrent_lm.studies.backends.study import Study as Backends
from recurrent_lm.studies.gradient_lag.study import Study as GradientLag
from recurrent_lm.studies.long_range.study import Study as LongRange
from recurrent_lm.studies.speeches.study import Study as Speeches
from recurrent_lm.studies.training_step.study import Study as TrainingStep
from recurrent_lm.studies.weight_tying.study import Study as WeightTying


def of(name, study, table):
    """The table as ``load`` gives it, and its claims."""
    about = {"study": name, "parameters": json.loads(json.dumps(asdict(study))), "machine": table.attrs.get("machine", {})}
    table.attrs = about
    return table, verdicts(table)


def swapped(table, column, first, second):
    """The table with two names of a column in each other's place."""
    table[column] = table[column].replace({first: second, second: first})
    return table


def explosive():
    """Random networks whose every slope is above 0, and parts that grow with the lag; tanh hears further than the LSTM."""
    table = flow()
    curves = (table["part"] == "curves") & (table["quantity"] == "slope")
    table.loc[curves, "value"] = table.loc[curves, "value"] + 1.0
    paths = (table["part"] == "paths") & table["quantity"].isin(["hidden", "part"])
    table.loc[paths, "value"] = 8 / table.loc[paths, "value"]
    models = table["part"] == "language"
    table.loc[models, "cell"] = table.loc[models, "cell"].replace({"lstm": "rnn-tanh", "rnn-tanh": "lstm"})
    return table


def growing():
    table = norms(windows=8, lags=6)
    table["weight_norm"] = 2.0 ** table["lag"]
    return table


def heavier():
    table = costs(rounds=8, faster=(0.5, 0.4))
    table.loc[table["variant"] != "torch.nn loop", "peak_bytes"] = 200_000_000
    return table


def slower(rounds=8):
    _, table = speeds(rounds=rounds, batch=(4,), hidden=(8,), cell=("lstm",), vocabulary=(50,), tokens=(8,))
    table.loc[table["variant"] == "kernels:torch", "seconds"] *= 4
    return table


def held():
    """No training diverges, and clipping ends with the larger error at the cliff."""
    table = clippings()
    lost = (table["part"] == "training") & (table["quantity"] == "loss")
    table.loc[lost, "value"] = 4.0
    return swapped(table, "kind", "plain", "clipped")


def worse():
    table = tying()
    models = table["part"] == "model"
    table.loc[models, "perplexity"] = 190 - table.loc[models, "perplexity"]
    return table


def throughput(table):
    study, _ = speeds(rounds=2, batch=(4,), hidden=(8,), cell=("lstm",), vocabulary=(50,), tokens=(8,))
    return study, table


LAG, COSTS = GradientLag(run="runs/x", windows=8, lags=6), TrainingStep(rounds=8)
BACKENDS = Backends(corpora="obama", cell=("lstm", "gru"), backends=("torch", "triton"))
SAID = [
    (
        "gradient_flow",
        lambda: (flow_study(), flow()),
        "paths",
        ["The last word", "step 4, “their”", "8 times", "an LSTM", "0.82"],
    ),
    ("gradient_flow", lambda: (flow_study(), explosive()), "paths", ["furthest back", "step 1, “the”", "8 times", "not help"]),
    ("gradient_lag", lambda: (LAG, norms(windows=8, lags=6)), "norms", ["by 0.50", "from 4 words back on"]),
    ("gradient_lag", lambda: (LAG, growing()), "norms", ["does not fade", "by 2.00"]),
    ("clipping", lambda: (CLIPPED, clippings()), "surface", ["thrown to", "foot of the wall", "2 of 2 trainings", "none"]),
    ("clipping", lambda: (CLIPPED, held()), "surface", ["does not help", "no training diverges"]),
    ("long_range", lambda: (LongRange(), reaches()), "gates", ["GRU remembers longest", "40 steps", "tanh 0 of 6"]),
    ("long_range", lambda: (LongRange(), swapped(reaches(), "cell", "gru", "rnn-tanh")), "gates", ["tanh remembers longest"]),
    ("training_step", lambda: (COSTS, costs(rounds=8, faster=(2.0, 1.5))), "cost", ["costs less", "0.38 times the memory"]),
    ("training_step", lambda: (COSTS, heavier()), "cost", ["costs more", "2.50 times the memory"]),
    (
        "speeches",
        lambda: (Speeches(cell=("rnn-tanh", "lstm")), speech_scores()),
        "cells",
        ["An LSTM", "than counting", "90%"],
    ),
    (
        "speeches",
        lambda: (Speeches(cell=("rnn-tanh", "lstm")), swapped(speech_scores(), "way", "network", "n-gram")),
        "cells",
        ["not always better"],
    ),
    ("weight_tying", lambda: (WeightTying(), tying()), "perplexity", ["predicts better", "falls by 10.0%"]),
    ("weight_tying", lambda: (WeightTying(), worse()), "perplexity", ["predicts worse", "rises by 1"]),
    ("throughput", lambda: throughput(table_of("throughput").copy()), "training", ["faster than torch.nn's"]),
    ("throughput", lambda: throughput(slower()), "training", ["slower than torch.nn's"]),
    ("backends", lambda: (BACKENDS, planted()), "curves", ["same", "2 of 2 curves", "2.0 times as fast"]),
    ("backends", lambda: (BACKENDS, planted(distance=1.0)), "curves", ["do not all teach", "2 of 2 curves leave"]),
    ("reading", lambda: (READ, readings()), "next", ["“books” first", "41.0%", "saves 0.20 nats"]),
    ("reading", lambda: (READ, readings(carried=-0.2)), "next", ["saves nothing"]),
    ("exchange", exchanged, "", ["µs on this GPU"]),
    ("parallel", lambda: (PARALLEL, solved()), "exponent", ["need not be slow", "1,024 time steps in 3 to 9", "need 8 to 9"]),
    ("parallel", lambda: (PARALLEL, solved(parallel=False)), "exponent", ["does not decide", "100 to 100", "3 or more"]),
]


@pytest.mark.parametrize(("name", "make", "plot", "words"), SAID, ids=[f"{name}-{words[0]}" for name, _, _, words in SAID])
def test_the_answer_says_what_the_table_holds(name, make, plot, words):
    table, claims = of(name, *make())
    answered = answer(table, claims)
    assert answered.plot == plot and (not plot or plot in [p.name for p in plots(name)])
    assert [word for word in words if word not in answered.sentence] == [], answered.sentence
    assert answered.sentence.endswith(".") and len(answered.sentence.split()) < 60


def test_every_study_has_both_sides():
    assert {name for name, *_ in SAID} == set(STUDIES) == set(CASES)


FOUND = [
    ("gradient_flow", "theory", lambda: (flow_study(), flow()), "radius above 1 does not mean explosion"),
    ("gradient_flow", "theory", lambda: (flow_study(), explosive()), "with a spectral radius above 1 explodes"),
    ("gradient_flow", "paths", lambda: (flow_study(), flow()), "step 4 brings 8 times what the path through step 1"),
    ("gradient_flow", "paths", lambda: (flow_study(), explosive()), "step 1 brings 8 times what the path through step 4"),
    ("gradient_flow", "slopes", lambda: (flow_study(), flow()), "within 0.000"),
    ("gradient_flow", "slopes", lambda: (flow_study(), explosive()), "is 1 away"),
    ("parallel", "exponent", lambda: (PARALLEL, solved()), "follow the Lyapunov exponent: rank correlation 0.9"),
    ("parallel", "exponent", lambda: (PARALLEL, solved(parallel=False)), "do not follow"),
    (
        "parallel",
        "lengths",
        lambda: (PARALLEL, solved()),
        "3 iterations become 3 at g = 0.5, and 21 iterations turn into no solution",
    ),
    (
        "parallel",
        "lengths",
        lambda: (PARALLEL, solved(parallel=False)),
        "50 iterations become 100 at g = 0.5, and 3 iterations",
    ),
    ("parallel", "training", lambda: (PARALLEL, solved()), "needs more iterations once it is trained: 6 at"),
    ("parallel", "training", lambda: (PARALLEL, solved(parallel=False)), "as many iterations once"),
    ("reading", "cut", lambda: (READ, readings()), "row 2 at word 7; each pass reads the next 4"),
    ("reading", "cut", lambda: (READ, readings(misplaced=2)), "2 tokens are not where"),
    ("reading", "state", lambda: (READ, readings(carried=-0.3)), "saves nothing"),
    ("long_range", "clipping", lambda: (LongRange(), reaches()), "Over 30 steps tanh networks learn"),
    ("long_range", "clipping", lambda: (LongRange(), reaches(solved={100: (0, 0, 0)})), "no tanh network learns"),
    ("long_range", "history", lambda: (LongRange(), reaches()), "from the last 3 words"),
    ("clipping", "cliff", lambda: (CLIPPED, clippings()), "falls 662 times as fast as b grows, at w = 5"),
    ("clipping", "kinds", lambda: (CLIPPED, clippings()), "keeps the gradient's direction (cosine 1.00)"),
    ("clipping", "kinds", lambda: (CLIPPED, swapped(clippings(), "kind", "norm", "value")), "does not keep"),
    ("backends", "speed", lambda: (BACKENDS, planted(speed=0.5)), "0.5 to 0.5 times as fast"),
    ("throughput", "waiting", lambda: throughput(table_of("throughput").copy()), "times as long as the same arithmetic"),
]


@pytest.mark.parametrize(("name", "plot", "make", "words"), FOUND, ids=[f"{n}-{p}-{w[:12]}" for n, p, _, w in FOUND])
def test_a_finding_says_what_the_table_holds(name, plot, make, words):
    table, claims = of(name, *make())
    assert words in finding(table, claims, plot)


def test_a_cell_that_few_seeds_do_not_prove_is_called_uncertain():
    table, claims = of("gradient_flow", flow_study(), flow())
    assert set(claims[claims["key"] == "gates_help"]["verdict"]) <= {"ambiguous", "not measured"}
    assert "uncertain" in answer(table, claims).sentence
    claims.loc[claims["key"] == "gates_help", "verdict"] = "holds"
    assert "uncertain" not in answer(table, claims).sentence


def test_where_a_number_is_missing_the_study_says_nothing():
    table, claims = of("weight_tying", WeightTying(), tying())
    table.loc[table["part"] == "model", "perplexity"] = math.nan
    answered = answer(table, claims)
    assert answered is None or "perplexity" not in answered.sentence


def test_factors_have_the_digits_that_make_their_product_true():
    from recurrent_lm.studies.gradient_flow.figures.paths import Steps, _number

    hidden, part = {4: 0.688, 3: 0.374, 2: 0.1735, 1: 0.0803}, {4: 2.88, 3: 1.512, 2: 0.8207, 1: 0.2778}
    picture = Steps(hidden, part, ["a"] * 5, 1.0, 0.5, "rnn-tanh", "obama")
    assert picture.digits > 2  # with two digits a product shown would be false
    for i in (1, 2, 3, 4):
        shown = [float(_number(factor, picture.digits)) for factor in picture.chain(i)]
        assert _number(math.prod(shown)) == _number(part[i])
