"""A table of gradient_flow to draw: every part, small, with numbers that are known."""

import math

import pandas as pd

from recurrent_lm.studies import save
from recurrent_lm.studies.gradient_flow.study import NONE, Study

BLANK = NONE | {"step": -1, "lag": -1, "token": ""}
SCALES = (0.7, 1.2, 2.0)
LAGS = 12


def study(**more):
    return Study(scales=SCALES, lags=LAGS, units=8, others=8, seeds=1, model_seeds=1, epochs=2, reach=LAGS, map_steps=4, **more)


def bands(slope, lags=LAGS):
    for lag in range(lags + 1):
        for name, factor in (("low", 0.5), ("median", 1.0), ("high", 2.0)):
            yield {"lag": lag, "quantity": name, "value": factor * math.exp(slope * lag)}


def flow():
    """Curves of slope log(g) - 0.5; models of slope -0.5 (tanh) and -0.2 (the LSTM); parts 8, 4, 2, 1 over the four steps."""
    rows = []

    def add(at, *values):
        rows.extend(BLANK | at | row for row in values)

    for cell in ("rnn-tanh", "lstm"):
        error = {"sum_error": 1e-15, "beyond": 0.0, "first": 0.0, "trace_error": 1e-15}
        add({"part": "certificate", "cell": cell, "seed": 0}, *({"quantity": q, "value": v} for q, v in error.items()))
        for scale in SCALES:
            at = {"part": "curves", "cell": cell, "scale": scale}
            slope = math.log(scale) - 0.5
            add(at, *bands(slope))
            values = {"slope": slope, "early_slope": slope, "exponent": slope}
            if cell == "rnn-tanh":
                values |= {"log_radius": math.log(scale), "log_singular": math.log(2 * scale), "half_log_chi": slope - 0.01}
            add(at | {"seed": 0}, *({"quantity": q, "value": v} for q, v in values.items()))
    for cell in ("lstm", "gru"):
        for bias in (0.0, 1.0, 3.0):
            slope = -math.log1p(math.exp(-bias))
            add({"part": "gates", "cell": cell, "bias": bias}, *bands(slope), {"seed": 0, "quantity": "slope", "value": slope})
    for value in (0.5, 0.9, 0.99):
        exact = (1 + value**2) / (1 - value**2) ** 3
        values = {
            "exact": exact,
            "state": 1 / (1 - value**2),
            "sampled": exact,
            "sampled_low": exact / 2,
            "sampled_high": exact * 2,
        }
        add({"part": "memory", "scale": value}, *({"quantity": q, "value": v} for q, v in values.items()))
    for corpus in ("obama", "trump"):
        for cell, slope in (("rnn-tanh", -0.5), ("lstm", -0.2)):
            for epoch in range(3):
                at = {"part": "language", "corpus": corpus, "cell": cell, "seed": 1, "epoch": epoch, "layer": 0}
                values = {"horizon": 2.0 + epoch, "cancellation": 0.5, "vanishing": 1.0, "exploding": 0.0, "slope": slope}
                add(at, *({"quantity": q, "value": v} for q, v in (values | {"sum_error": 1e-15}).items()))
                if epoch != 1:
                    add(at, *bands(slope))
    words = ["the", "students", "opened", "their"]
    for cell in ("rnn-tanh", "lstm"):
        at = {"corpus": "obama", "cell": cell, "seed": 1, "epoch": 2}
        for t in range(1, 5):
            for i in range(1, t + 1):
                here = {"step": t, "lag": t - i, "token": words[i - 1]}
                add(at | {"part": "map"}, here | {"quantity": "part", "value": 0.0 if i == 1 else 0.5 ** (t - i)})
        for i in range(1, 5):
            here = {"step": 4, "lag": 4 - i, "token": words[i - 1]}
            add(at | {"part": "paths"}, here | {"quantity": "hidden", "value": 2.0 ** (i - 1)})
            add(at | {"part": "paths"}, here | {"quantity": "part", "value": 2.0 ** (i - 1)})
        end = {"step": 4, "lag": 0, "token": "schools"}
        add(at | {"part": "paths"}, end | {"quantity": "sum", "value": 7.5}, end | {"quantity": "probability", "value": 0.5})
    return pd.DataFrame(rows, columns=list(Study.COLUMNS)).astype(Study.COLUMNS)


def stored_flow(path, table=None):
    save(flow() if table is None else table, path, "gradient_flow", study())
    return path
