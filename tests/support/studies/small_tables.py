"""A small table of every study, as it might have been measured."""

import json
import math
from dataclasses import asdict
from functools import cache

import numpy as np
import pandas as pd
from backend_cases import planted as trained_by_backends
from flow_cases import flow
from flow_cases import study as flow_study
from parallel_cases import STUDY as PARALLEL
from parallel_cases import solved
from report_cases import CLIPPED, READ, clippings, costs, norms, reaches, readings, speech_scores, speeds, tying

from recurrent_lm.studies import verdicts
from recurrent_lm.studies.backends.study import Study as Backends
from recurrent_lm.studies.engine.catalogue import module_of
from recurrent_lm.studies.engine.study import Shared
from recurrent_lm.studies.exchange import study as exchange
from recurrent_lm.studies.gradient_lag.study import Study as GradientLag
from recurrent_lm.studies.long_range import study as long_range
from recurrent_lm.studies.speeches.study import Study as Speeches
from recurrent_lm.studies.training_step.study import Study as TrainingStep
from recurrent_lm.studies.weight_tying.study import Study as WeightTying


def exchanged():
    random, rows, study = np.random.default_rng(0), [], exchange.Study(programs=(8, 16), kilobytes=(1, 4, 16), rounds=8)
    for cell in study.cells():
        for protocol in ("launch",) if cell["protocol"] else exchange.PROTOCOLS:
            for steps in (1,) if cell["protocol"] else (64, 32):
                us = (
                    4.0
                    if cell["protocol"]
                    else 0.8 * (1 + (protocol == "counter")) + cell["programs"] * cell["kilobytes"] / 5e3
                )
                for r in range(study.rounds):
                    seconds = us * steps * 1e-6 * random.lognormal(0, 0.005)
                    row = {"protocol": protocol, "steps": steps, "round": r, "seconds": seconds, "error": 1e-4, "dropped": 0}
                    rows.append(cell | row)
    table = study.table(rows)
    table.attrs["machine"] = {"capability": "9.0"}
    return study, table


def overflowing():
    """A table of clipping with updates of which the naive norm is infinite, and that learn from near steps alone."""
    rows = []
    for seed in (1, 2, 3):
        for kind, norm, fall in (("naive", math.inf, 0.0), ("scaled", 1e28, 0.01), ("near", 10.0, 0.3 + 0.01 * seed)):
            for step in range(1, 4 if kind == "naive" else 12):
                values = {"loss": 16 - fall * step - 0.001 * seed * step, "norm": norm, "true norm": min(norm, 1e28)}
                values["left"] = 0.0 if kind == "naive" else 1.0
                at = {"part": "overflow", "corpus": "obama", "seed": seed, "kind": kind, "step": step}
                rows += [at | {"quantity": quantity, "value": value} for quantity, value in values.items()]
    nothing = dict.fromkeys(CLIPPED.COLUMNS, 0) | dict.fromkeys(("kind", "corpus"), "")
    table = CLIPPED.table([nothing | row for row in rows])
    return pd.concat([clippings(uphill=0.2), table], ignore_index=True)


def few_offers():
    """A table of throughput without the variants that no claim is about."""
    study, table = speeds(rounds=8, batch=(4,), hidden=(8,), cell=("lstm",), vocabulary=(50,), tokens=(8,))
    return study, table[~table["variant"].isin(("loop", "kernels:eager"))].reset_index(drop=True)


# Of each study its parameters and a table that it might have measured.
CASES = {
    "training_step": lambda: (TrainingStep(rounds=8), costs(rounds=8)),
    "gradient_lag": lambda: (GradientLag(run="runs/x", windows=8, lags=6), norms(windows=8, lags=6)),
    "long_range": lambda: (long_range.Study(lengths=(20, 30)), reaches(seeds=15, repeats=2)),
    "speeches": lambda: (Speeches(cell=("rnn-tanh", "lstm")), speech_scores()),
    "weight_tying": lambda: (WeightTying(vocabulary=(100_000,), sizes=(64,)), tying()),
    "gradient_flow": lambda: (flow_study(), flow()),
    "clipping": lambda: (CLIPPED, overflowing()),
    "reading": lambda: (READ, readings()),
    "parallel": lambda: (PARALLEL, solved()),
    "backends": lambda: (Backends(corpora="obama", cell=("lstm", "gru"), backends=("torch", "triton")), trained_by_backends()),
    "exchange": exchanged,
    "throughput": few_offers,
}


@cache
def table_of(name):
    study, table = CASES[name]()
    parameters = json.loads(json.dumps(asdict(study)))
    machine = table.attrs.get("machine", {})
    table.attrs = {"study": name, "parameters": Shared(parameters), "machine": Shared(machine)}  # as load makes it
    return table


NAMES = {"seed", "round", "step", "lag", "layer", "epoch", "window", "steps", "batch", "hidden", "programs", "kilobytes", "d",
         "h", "bin", "rate", "multiple", "threshold", "w", "b", "scale", "bias", "temperature",
         "solved"}  # fmt: skip # what a row is of
PLACES = [(name, column) for name in CASES for column, kind in module_of(name).Study.COLUMNS.items()
          if kind is not str and column not in NAMES]  # fmt: skip
WRONG = {"zero": 0.0, "missing": math.nan, "tiny": 5e-324, "infinite": math.inf, "negative": -1.0, "huge": 1e300}


def changed(name, column, kind, rows):
    """The study's table with a column's value replaced in these rows; ``same`` takes its first value."""
    table = table_of(name).copy()
    table.attrs = table_of(name).attrs
    value = table[column].iloc[0] if kind == "same" else WRONG[kind]
    if pd.api.types.is_integer_dtype(table[column]):
        value = int(value) if math.isfinite(value) and abs(value) < 2**62 else 0
    table.loc[rows, column] = value
    return table


@cache
def judged(name, column, kind):
    """The study's table with a whole column replaced, and its claims; neither may be changed."""
    table = changed(name, column, kind, table_of(name).index)
    return table, verdicts(table)
