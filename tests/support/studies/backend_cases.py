"""Planted trainings by two backends."""

import numpy as np

from recurrent_lm.studies.backends.study import Study


def planted(distance=0.0, spread=0.1, speed=2.0, seeds=3, epochs=3):
    """torch's curves fall by 1 a epoch, seeds ``spread`` apart; triton's lie ``distance`` higher after the second epoch."""
    study = Study(corpora="obama", cell=("lstm", "gru"), backends=("torch", "triton"), seeds=seeds, epochs=epochs)
    rows, random = [], np.random.default_rng(0)
    for cell in study.cells():
        for backend in study.backends:
            for epoch in range(1, epochs + 1):
                loss = 7.0 - epoch + spread * (cell["seed"] - 1) / max(seeds - 1, 1)
                loss += distance * (backend == "triton" and epoch == 2)
                slow = 1e3 if epoch == 1 else 1.0  # compiling
                mood = random.lognormal(0, 0.002)
                seconds = (1.0 if backend == "torch" else slow / speed) * mood
                values = {"train_loss": loss, "valid_loss": loss, "seconds": seconds, "tokens_per_second": 1e4 / seconds}
                rows.append(cell | {"backend": backend, "epoch": epoch} | values)
    return study.table(rows)
