"""What is published says all that it should: every claim about gradients is measured, and what does not hold has a reason."""

from collections import Counter
from pathlib import Path

import pytest
from published_verdicts import VERDICTS

from recurrent_lm import reports
from recurrent_lm.reports.ledger import ledger, united
from recurrent_lm.studies import load, verdicts

PUBLISHED = Path(reports.__file__).parent / "published" / "cpu"
# each claim about gradients by the words of its rows
WANTED = (
    "the parts of dL(t)/dW_h over steps i sum to autograd's",
    "on the line b* = 0.5 - s(0.5) w the error is a cliff",
    "fixed points appear or vanish",
    "linear RNN: the log gradient norm changes by log(rho)",
    "the slope of the log gradient norm is the largest Lyapunov exponent",
    "the largest Lyapunov exponent is about log(chi)/2",
    "never above log(sigma_max)",
    "rho > 1 does not imply explosion",
    "gates set the decay",
    "curse of memory",
    "clipping raises success",
    "a short lag is learned with clipping and without",
    "at a longer lag clipping helps some",
    "clipping cannot cure vanishing",
    "any threshold of 0.5 to 10 times the mean norm",
    "clipping by norm keeps the gradient's direction",
    "clipping by value does not keep it",
    "clipping temporal components can point uphill",
    "the T where success is 80% grows with Omega",
)


def claims_of(*names):
    tables = [(name, load(PUBLISHED / f"{name}.parquet")) for name in names]
    return united([(table.attrs["study"], claim) for name, table in tables for claim in ledger(verdicts(table), name)])


@pytest.fixture(scope="module")
def claims():
    """Of all tables but throughput's, whose intervals take their time."""
    return claims_of(*(path.stem for path in sorted(PUBLISHED.glob("*.parquet")) if path.stem != "throughput"))


@pytest.mark.parametrize("words", WANTED)
def test_every_claim_about_gradients_is_a_row_with_a_measured_value(words, claims):
    rows = [claim for claim in claims if words in claim.claim]
    assert any(claim.verdict != "not measured" and any(c.isdigit() for c in claim.measured) for claim in rows)


def explained(claims):
    asked = [claim for claim in claims if claim.verdict in ("fails", "ambiguous")]
    assert asked and [claim.claim for claim in asked if not claim.reason] == []
    assert not any(claim.reason for claim in claims if claim.verdict not in ("fails", "ambiguous"))


def test_what_fails_or_is_ambiguous_has_a_likely_reason_and_nothing_else_has(claims):
    explained(claims)


@pytest.mark.slow
def test_so_have_the_claims_on_times():
    explained(claims_of("throughput"))


def verdicts_of(name):
    """{claim: {verdict: in how many settings}} of a published table."""
    found = verdicts(load(PUBLISHED / f"{name}.parquet"))
    return {claim: dict(Counter(group["verdict"])) for claim, group in found.groupby("claim", sort=False)}


@pytest.mark.parametrize("name", [name for name in VERDICTS if name != "throughput"])
def test_a_published_table_gives_the_verdicts_that_were_found_right(name):
    """A number of one seed, or of two whose interval reaches across, is ambiguous; all else is as when it was published."""
    assert verdicts_of(name) == VERDICTS[name]


@pytest.mark.slow
def test_so_does_the_one_of_times():
    assert verdicts_of("throughput") == VERDICTS["throughput"]


def test_every_published_table_is_held_to_its_verdicts():
    assert set(VERDICTS) == {path.stem for path in PUBLISHED.glob("*.parquet")}


def test_reasons_say_what_the_tables_hold(claims):
    def of(words, setting=""):
        return [claim.reason for claim in claims if words in claim.claim and setting in claim.setting and claim.reason]

    assert (
        "3 of 3 trainings diverge; thresholds up to 1 times the mean norm hold it"
        in of("any threshold", "obama, learning rate 4")[0]
    )
    assert "the lowest threshold shortens 90% of the steps" in of("any threshold", "trump, learning rate 2")[0]
    assert "smallest spectral radius (0.70) is off by 0.004, that with the largest (0.73) by 0.035" in of("log(chi)/2")[0]
    assert of("gates learn", "copy, lstm")[0].endswith("at T = 40 tanh 0, lstm 1, of 5 seeds with 4,000 updates each")
    assert "Fisher p = 0.44" in of("at a longer lag")[0]
    assert "obama 0.968, trump 1.039" in of("tying through a projection")[0]
