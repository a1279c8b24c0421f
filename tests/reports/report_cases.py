"""Tables to make pages of."""

import numpy as np
import pandas as pd

from studies import save
from studies.gradient_lag import Study as GradientLag
from studies.throughput import OFFERS
from studies.throughput import Study as Throughput
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


# Times of each variant in units of torch.nn's, and of what a sequential product is to its steps.
FACTORS = {"torch.nn": 1.0, "kernels:torch": 0.5, "kernels:eager": 3.0, "loop": 2.0, "linear_cross_entropy": 1.2, "steps": 4.0}
MEMORY = {"torch.nn": 100_000_000, "kernels:torch": 20_000_000, "linear_cross_entropy": 40_000_000}


def speeds(rounds=12, noise=0.01, **chosen):
    """A table of throughput: time grows as T H^1.5 B^0.5, or as N d V; ours takes half of torch.nn's, steps four products."""
    sizes = {"batch": (16, 1, 64), "hidden": (32, 16, 64), "steps": (64, 16, 32, 128), "cell": ("lstm", "gru")}
    sizes |= {"tokens": (64, 32), "width": (16,), "vocabulary": (2000, 500, 8000), "square": (64,)}
    study = Throughput(**(sizes | {"rounds": rounds} | chosen))
    random = np.random.default_rng(0)
    rows = []
    for cell in study.cells():
        b, t, h, v = (max(1, cell[name]) for name in ("batch", "steps", "hidden", "vocabulary"))
        law = 1e-9 * b * h * v if cell["part"] == "cross_entropy" else 1e-7 * t * h**1.5 * b**0.5 * max(1, v / 1000)
        mood = random.lognormal(0, 0.2, rounds)
        offers = (cell["cell"],) if cell["part"] == "peak" else OFFERS[cell["part"]]
        for variant in (name for name in offers if name in FACTORS or cell["part"] in ("peak", "sequential")):
            same = {"variant": variant, "mode": study.mode[0], "cache": study.cache[0], "status": "timed", "note": ""}
            same |= {"error": 1e-7, "allowed": 1e-6, "flops": 1e13 * law, "bytes": 1e6, "dropped": 0}
            same |= {"peak_bytes": MEMORY.get(variant, 0) * v // 8000, "clock_mhz": np.nan, "watts": np.nan}
            seconds = law * FACTORS.get(variant, 1.0) * mood * random.lognormal(0, noise, rounds)
            rows += [cell | same | {"round": r, "seconds": seconds[r]} for r in range(rounds)]
    return study, study.table(rows)


def stored_speeds(path, **sizes):
    study, table = speeds(**sizes)
    save(table, path, "throughput", study)
    return path
