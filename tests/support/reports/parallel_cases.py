"""A table of parallel to draw: every part, small, with numbers that are known."""

import math

from recurrent_lm.studies.parallel.study import NOTHING, Study, costs

EXPONENTS = {0.5: -0.8, 0.7: -0.5, 1.0: -0.25, 1.2: -0.1, 1.5: 0.05, 2.0: 0.15}
STUDY = Study(
    cell=("rnn-tanh", "rnn-identity", "lstm"), scales=tuple(EXPONENTS), lengths=(64, 1_024), seeds=1, corpora="obama",
    models=("rnn-tanh", "lstm"), text_lengths=(32, 512), windows=1, epochs=1,
)  # fmt: skip


def iterations_of(exponent, steps):
    """Iterations that follow the exponent; above 0.1 a long sequence is not solved."""
    if exponent > 0.1 and steps > 500:
        return math.inf
    return 3 + round(10 * (exponent + 0.8)) + (round(steps / 8) if exponent > 0 else 0)


def solved(exponent=-0.5, parallel=True):
    """A table in which iterations follow the exponent, or with ``parallel`` False in which none does: all networks need 50 a
    sequence and exploding ones 3."""
    rows = [
        {"part": "checks", "cell": cell, "steps": 64, "quantity": quantity, "value": 1e-15}
        for cell in STUDY.cell
        for quantity in ("scan_error", "state_error", "gradient_error")
    ]

    def add(at, exponent, lengths, linear=False):
        rows.append(at | {"quantity": "exponent", "value": exponent})
        for way, dtype in (("full", "float64"), ("full", "float32"), ("diagonal", "float64"), ("damped", "float64")):
            for steps in lengths:
                count = 1.0 if linear else float(iterations_of(exponent, steps))
                if not parallel and not linear:
                    count = 3.0 if exponent > 0 else 50.0 + (steps > 500) * 50
                if way in ("diagonal", "damped"):
                    count = count * 4 if math.isfinite(count) else 900.0
                reason = "overflow" if count == math.inf else ""
                of = {"way": way, "dtype": dtype, "steps": steps, "reason": reason}
                error = 1e-9 if exponent < 0 else 1e-7
                for quantity, value in (("iterations", count), ("stopped", count), ("error", error)):
                    rows.append(at | of | {"quantity": quantity, "value": value})

    for cell in STUDY.cell:
        for i, (scale, value) in enumerate(EXPONENTS.items()):
            at = {"part": "random", "cell": cell, "scale": scale, "seed": 0}
            add(at, value - 0.01 * (cell == "lstm") + 0.001 * i, STUDY.lengths, cell == "rnn-identity")
    for cell in STUDY.models:
        for epoch in (0, 1):
            at = {"part": "language", "corpus": "obama", "cell": cell, "seed": 1, "epoch": epoch, "layer": 0}
            own = exponent + 0.2 * epoch + 0.1 * (cell == "lstm")
            rows.append(at | {"quantity": "decay", "value": own})
            add(at | {"window": 0}, own, STUDY.text_lengths)
    rows += [{"part": "cost"} | row for row in costs()]
    return STUDY.table([NOTHING | row for row in rows])
