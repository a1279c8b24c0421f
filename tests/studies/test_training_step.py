from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from recurrent_lm.studies import verdicts
from recurrent_lm.studies.engine.memory import peak_bytes
from recurrent_lm.studies.engine.statistics import paired_ratio
from recurrent_lm.studies.timing.steps import PLAIN, plain, trainer
from recurrent_lm.studies.training_step.study import VARIANTS, Study

SMALL = Study(vocabulary=50, hidden=8, layers=2, rows=3, bptt=4, rounds=2)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn-tanh"])
def test_both_loops_compute_the_same_losses_from_the_same_weights(cell):
    """The comparison is fair only if the two do the same work."""
    size = replace(SMALL, cell=cell).size
    step, model = trainer(size, "float32")
    other, peer = plain(size)
    with torch.no_grad():
        for mine, theirs in zip(model.parameters(), peer.parameters(), strict=True):
            theirs.copy_(mine)
    losses = [(step(), other()) for _ in range(20)]
    assert losses[-1][0] < losses[0][0] - 0.01
    for mine, theirs in losses:
        assert mine == pytest.approx(theirs, rel=1e-5)


def test_table_has_a_row_a_variant_and_round():
    table = SMALL()
    assert len(table) == 3 * 2
    assert set(table["variant"]) == {PLAIN, "lm float32", "lm bf16"}
    assert (table["seconds"] > 0).all()


def test_peak_bytes_finds_a_known_peak():
    def step():
        kept = torch.ones(1000)  # 4,000 bytes
        large = torch.ones(5000)  # 20,000 bytes
        del large
        return kept + 1

    assert peak_bytes(step) == 24_000


def test_peak_bytes_counts_from_where_the_old_gradients_are_gone():
    kept = {"old": torch.ones(10_000)}

    def step():
        kept.clear()
        kept["old"] = torch.ones(10_000)

    assert peak_bytes(step) == 40_000


def test_verdicts_find_planted_ratios():
    rng = np.random.default_rng(0)
    rows = [
        {"variant": name, "round": r, "seconds": factor * rng.uniform(0.99, 1.01), "peak_bytes": size}
        for r in range(40)
        for name, factor, size in ((PLAIN, 3.0, 100), ("lm float32", 2.0, 40), ("lm bf16", 2.0, 60))
    ]
    table = pd.DataFrame(rows)
    table.attrs = {"study": "training_step", "parameters": {"hidden": 1}}
    assert list(verdicts(table)["verdict"]) == ["holds", "fails", "holds", "fails"]


def test_one_round_has_no_interval():
    """The ratio is told, its uncertainty is not, and so the claim is not decided."""
    table = pd.DataFrame([{"variant": v, "round": 0, "seconds": 3.0, "peak_bytes": 0} for v in VARIANTS])
    table.attrs = {"study": "training_step", "parameters": {"hidden": 1}}
    claims = verdicts(table)
    assert list(claims["measured"][:2]) == ["1.00 no interval"] * 2 and claims["measured"][2:].str.startswith("undefined").all()
    assert list(claims["verdict"]) == ["ambiguous"] * 4


def test_paired_ratio_of_what_has_none():
    """Pairs that are alike have no interval; a time of 0 has no ratio."""
    alike = pd.Series([2.0, 2.0, 2.0])
    assert paired_ratio(alike, alike / 4)[0] == 4.0
    assert np.isnan(paired_ratio(alike, alike / 4)[1:]).all()
    assert np.isnan(paired_ratio(alike, pd.Series([1.0, 0.0, 1.0]))).all()


def test_paired_ratio_of_a_known_distribution():
    rng = np.random.default_rng(3)
    drift = pd.Series(rng.uniform(1, 10, 200))  # pairs share the machine's mood
    noise = pd.Series(rng.normal(1, 0.01, 200))
    median, low, high = paired_ratio(1.5 * drift * noise, drift)
    assert low < 1.5 < high
    assert median == pytest.approx(1.5, rel=0.005)
    assert high - low < 0.02
