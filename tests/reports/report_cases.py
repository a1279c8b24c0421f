"""Tables to make pages of."""

import numpy as np
import pandas as pd

from studies import save
from studies.gradient_lag import Study as GradientLag
from studies.training_step import VARIANTS
from studies.training_step import Study as TrainingStep

EVIL = '<script>document.title = "x"</script> **b** | [a](b) `c` & <img src=x onerror=alert(1)>'


def norms(windows=3, lags=20, layers=2, near=1.0):
    """A table of gradient_lag whose norms are ``near`` at lag 0 and halve at every step back."""
    rows = [
        {"window": w, "layer": layer, "lag": lag, "hidden_norm": 1.0}
        | {"weight_norm": near * 0.5**lag * (1 + w), "sum_error": 1e-15}
        for w in range(windows)
        for layer in range(layers)
        for lag in range(lags)
    ]
    return pd.DataFrame(rows)


def costs(rounds=6, faster=(2.0, 0.5)):
    """A table of training_step in which the plain loop takes about a second and ours are so many times as fast."""
    rng = np.random.default_rng(0)
    speeds = dict(zip(VARIANTS, (1.0, *faster), strict=True))
    memory = dict(zip(VARIANTS, (80_000_000, 30_000_000, 70_000_000), strict=True))
    rows = [
        {"variant": v, "round": r, "seconds": 1 / s * rng.uniform(0.9, 1.1), "peak_bytes": memory[v]}
        for r in range(rounds)
        for v, s in speeds.items()
    ]
    return pd.DataFrame(rows)


def stored_norms(path, run="runs/x", subject="", **sizes):
    table = norms(**sizes)
    if subject:
        table.attrs["subject"] = subject
    save(table, path, "gradient_lag", GradientLag(run=run, windows=table["window"].nunique(), lags=table["lag"].nunique()))
    return path


def stored_costs(path, **sizes):
    table = costs(**sizes)
    save(table, path, "training_step", TrainingStep(rounds=table["round"].nunique()))
    return path
