"""Tables to make pages of."""

import math
from itertools import product

import numpy as np
import pandas as pd

from recurrent_lm.studies import save
from recurrent_lm.studies.clipping import cliff as cliff
from recurrent_lm.studies.clipping.study import Study as Clipping
from recurrent_lm.studies.gradient_lag.study import Study as GradientLag
from recurrent_lm.studies.long_range import study as long_range
from recurrent_lm.studies.reading.study import Study as Reading
from recurrent_lm.studies.speeches.study import NOTHING
from recurrent_lm.studies.speeches.study import Study as Speeches
from recurrent_lm.studies.throughput.study import OFFERS
from recurrent_lm.studies.throughput.study import Study as Throughput
from recurrent_lm.studies.training_step.study import VARIANTS
from recurrent_lm.studies.training_step.study import Study as TrainingStep
from recurrent_lm.studies.weight_tying.study import VARIANTS as TYING
from recurrent_lm.studies.weight_tying.study import Study as WeightTying

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


def reaches(seeds=15, repeats=3, corpora=("obama",), solved=None):
    """A table of long_range, all parts: ``solved`` says how many seeds learn temporal order, by T and method."""
    solved = solved or {20: (15, 15, 15), 30: (1, 11, 15)}
    rows = []

    def add(part, task, cell, method, steps, seed, updates=0, learned=0, error=math.nan, nats=math.nan):
        values = (part, task, cell, method, steps, seed, updates, learned, error, nats)
        rows.append(dict(zip(long_range.Study.COLUMNS, values, strict=True)))

    for steps, of in solved.items():
        for method, count in zip(long_range.METHODS, of, strict=True):
            for seed in range(1, seeds + 1):
                ended = (9000, 1, 0.0) if seed <= count else (30_000, 0, 0.5)
                add("clipping", "temporal_order", "rnn-tanh", method, steps, seed, *ended)
    for task in ("adding", "copy"):
        for k, cell in enumerate(long_range.CELLS):
            for steps in (10, 20, 40):
                for seed in range(1, repeats + 1):
                    updates = 80 * steps - 400 * k + 90 * seed
                    learned = int(updates <= 3000 and (k > 0 or steps < 20))
                    updates = updates if learned else 3000
                    add("gates", task, cell, "clipped", steps, seed, updates, learned, 0.0 if learned else 0.6)
    for corpus in corpora:
        for k, cell in enumerate(long_range.CELLS):
            for seed in (1, 2):
                for n in (0, 1, 2, 3, 5, 10, 20, 50, 100):
                    loss = 4.5 + 1.5 * 0.4**n - 0.1 * k + 0.01 * seed
                    if 0 < n < 100:
                        add("history", corpus, cell, "shuffled", n, seed, nats=loss - 0.02)
                    add("history", corpus, cell, "all" if n == 100 else "dropped", n, seed, nats=loss)
                for lag in (0, 1, 2, 3, 5, 8, 12, 20, 30, 50):
                    of_seed = 0.93 + 0.08 * seed if lag else 0.9 + 0.1 * seed  # what is left differs between seeds
                    add("influence", corpus, cell, "changed", lag, seed, nats=2 * (0.6 + 0.1 * k) ** lag * of_seed)
    return pd.DataFrame(rows).astype(long_range.Study.COLUMNS)


def stored_reaches(path, **sizes):
    table = reaches(**sizes)
    lengths = tuple(sorted(set(table.loc[table["part"] == "clipping", "steps"])))
    corpora = ",".join(sizes.get("corpora", ["obama"]))
    save(table, path, "long_range", long_range.Study(lengths=lengths, corpora=corpora))
    return path


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


def speech_scores(sample=" are back. Jobs are back."):
    """A table of speeches: two corpora, two cells, one seed; own texts are known best, gates help, mixtures win."""
    rows = []
    for corpus, other in (("obama", "trump"), ("trump", "obama")):
        for cell, bits in (("rnn-tanh", 1.8), ("lstm", 1.7)):
            for way, text, value in (
                ("network", corpus, bits),
                ("n-gram", corpus, 1.75),
                ("mixture", corpus, bits - 0.15 + 0.05 * (cell == "lstm")),
                ("network", other, bits + 0.5),
                ("n-gram", other, 2.4),
            ):
                of = {"part": "score", "corpus": corpus, "cell": cell, "seed": 1, "way": way, "text": text}
                rows.append(NOTHING | of | {"tokens": 100, "perplexity": 50.0, "bits_per_byte": value})
            for temperature, repeats in ((0.8, 0.0), (0.0, 0.5)):
                of = {"part": "sample", "corpus": corpus, "cell": cell, "seed": 1, "prompt": "Jobs", "temperature": temperature}
                rows.append(NOTHING | of | {"sample": sample, "words": 5, "longest": 3, "novel": 0.9, "repeated": repeats})
    return Speeches(cell=("rnn-tanh", "lstm")).table(rows)


def tying(seeds=6):
    """A table of weight_tying: real counts at one size, and models of one corpus in which tying helps by a tenth."""
    study = WeightTying(vocabulary=(100_000,), sizes=(64,))
    counts = study.measure(study.cells()[0])
    models = [
        {"part": "model", "corpus": "obama", "variant": variant, "seed": seed, "vocabulary": 100, "d": 2, "h": 4}
        | {"matrix": "all", "parameters": 900 - 100 * i, "formula": 0, "best_epoch": 1, "bits_per_byte": 1.7}
        | {"perplexity": (90.0 if variant.startswith("tied") else 100.0) + 0.1 * seed}
        for seed in range(1, seeds + 1)
        for i, variant in enumerate(TYING)
    ]
    return study.table([*counts, *models])


READ = Reading(words=3, seeds=2, bptt=4, cut_tau=6, cut_bptt=4)


def readings(carried=0.2, misplaced=0):
    """A table of reading: three words of falling probability, a cut with so many tokens out of place, and a state whose
    carrying saves so many nats at the first position and nothing later."""
    blank = {"token": "", "row": -1, "column": -1, "place": -1, "way": ""}
    rows = [blank | {"part": "cut", "seed": 1, "value": 1.0} | row for row in _cut(misplaced)]
    for seed in (1, 2):
        rows += [
            blank | {"part": "next", "seed": seed, "token": word, "place": place, "value": 0.4 / place + 0.01 * seed}
            for place, word in enumerate(("books", "minds", "doors"), start=1)
        ]
        rows += [blank | {"part": "whole", "seed": seed, "way": way, "value": v} for way, v in (("sum", 1.0), ("unknown", 0.1))]
        for column in range(1, 5):
            about = blank | {"part": "state", "seed": seed, "column": column}
            rows.append(about | {"way": "carried", "value": 4.0})
            rows.append(about | {"way": "zero", "value": 4.0 + (carried + 0.001 * seed) * (column == 1)})
    return READ.table(rows)


def _cut(misplaced):
    for row in (1, 2):
        for at in range(6):
            place = 6 * (row - 1) + at + 1 + (row == 1 and at < misplaced)
            yield {"token": f"w{place}", "row": row, "column": at % 4 + 1, "place": place, "way": f"pass {at // 4 + 1}"}


CLIPPED = Clipping(grid=15, descent_steps=40, corpora="obama", seeds=2, rates=(1.0, 8.0), multiples=(0.5, 10.0))


def clippings(uphill=0.0):
    """A table of clipping: the real cliff; trainings that end at a loss of 4 or a little more, without clipping at the rate 8
    in none; steps of which a share ``uphill`` points there under the hardest clipping of each step's part."""
    rows = [{"part": "cliff"} | row for row in cliff.rows(15, (4.7, -2.1), 0.2, 0.1, 40)]
    for seed, rate, multiple in product((1, 2), (1.0, 8.0), (0.5, 10.0, np.inf)):
        about = {"corpus": "obama", "seed": seed, "rate": rate, "multiple": multiple, "threshold": 0.3 * multiple}
        lost = rate == 8 and multiple == np.inf
        loss = np.inf if lost else 4.004 if (seed, multiple) == (2, 0.5) else 4.0  # seeds that are all alike decide nothing
        told = {"loss": loss, "clipped": 0.5 * (multiple < 1), "mean norm": 0.3, "frequencies": 5.0}
        rows += [about | {"part": "training", "quantity": name, "value": value} for name, value in told.items()]
        for quantity, bins in (("before", (30, 34, 36)), ("after", (30, 31, 32))):
            rows += [about | {"part": "norms", "quantity": quantity, "bin": b, "value": 10.0} for b in bins]
    for quantity, value in (("sum", 0.1), ("temporal", -0.4), ("norm", 0.1), ("value", 0.1)):
        rows.append({"part": "kinds", "kind": "example", "quantity": quantity, "value": value})
    for kind, multiple, step in product(("norm", "value", "temporal", "hidden"), (1.0, 0.01), range(10)):
        cosine = 1.0 if kind == "norm" else 1 - 0.1 * (multiple < 1) - 0.01 * step
        if kind == "temporal" and multiple < 1 and step < 10 * uphill:
            cosine = -0.1
        about = {"part": "kinds", "corpus": "obama", "seed": 1, "kind": kind, "multiple": multiple, "threshold": multiple}
        rows.append(about | {"quantity": "cosine", "step": 10 * step, "value": cosine})
        if not step:
            rows.append(about | {"quantity": "touched", "value": 0.5 if multiple == 1 else 1.0})
    nothing = dict.fromkeys(Clipping.COLUMNS, 0) | dict.fromkeys(("kind", "corpus"), "")
    return CLIPPED.table([nothing | row for row in rows])


def stored_clippings(path, **how):
    save(clippings(**how), path, "clipping", CLIPPED)
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
