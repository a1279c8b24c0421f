"""Timing against clocks and contestants whose truth is known."""

import gc
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from recurrent_lm.studies.engine.statistics import compare, median, paired_ratio
from recurrent_lm.studies.timing.measure import MOST, WallTimer, Weather, race, repeats_for


class Clock:
    """Time that only passes when a fake contestant works."""

    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time

    def worker(self, seconds):
        """A contestant whose calls take what ``seconds`` returns."""

        def work():
            self.time += seconds()

        return work


def timer(clock, least=0.0, warmup=0.0):
    return WallTimer(least=least, warmup=warmup, now=clock)


def by_name(result):
    names = sorted({s.name for s in result.samples})
    return {n: np.array([s.seconds for s in sorted(result.samples, key=lambda s: s.round) if s.name == n]) for n in names}


def test_a_race_finds_the_medians_that_were_planted():
    """Lognormal times, as interference makes them: the medians are known, and so is the ratio."""
    clock, random = Clock(), np.random.default_rng(0)
    truth = {"a": 0.010, "b": 0.025}
    calls = {n: clock.worker(lambda m=m: m * random.lognormal(0, 0.05)) for n, m in truth.items()}
    seconds = by_name(race(calls, timer(clock), rounds=200))
    for name, value in truth.items():
        interval = median(seconds[name])
        assert interval.low < value < interval.high
        assert interval.high - interval.low < 0.03 * value
    ratio = paired_ratio(seconds["b"], seconds["a"])
    assert ratio.low < 2.5 < ratio.high
    assert compare(ratio) == "faster"


def test_turns_hide_a_machine_that_slows_down():
    """Both become ten times slower on the way. Medians wander; the paired ratio does not, and its interval is tight."""
    clock, random = Clock(), np.random.default_rng(1)

    def mood():
        return 1 + 9 * (clock.time / 20)

    calls = {n: clock.worker(lambda m=m: m * mood() * random.normal(1, 0.01)) for n, m in {"a": 0.01, "b": 0.011}.items()}
    seconds = by_name(race(calls, timer(clock), rounds=200))
    assert seconds["a"][-1] > 3 * seconds["a"][0]
    ratio = paired_ratio(seconds["b"], seconds["a"])
    assert ratio.value == pytest.approx(1.1, rel=0.02)
    assert ratio.high - ratio.low < 0.02


def test_every_order_is_drawn_as_often_as_any_other():
    order = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    race(calls, timer(Clock(), least=0.0), rounds=600)
    turns = order[-3 * 600 :]
    orders = Counter(tuple(turns[r : r + 3]) for r in range(0, 3 * 600, 3))
    assert len(orders) == 6
    assert stats.chisquare(list(orders.values())).pvalue > 1e-3


def test_the_same_seed_draws_the_same_order():
    def orders(seed):
        clock, order = Clock(), []
        calls = {n: (lambda n=n: (order.append(n), clock.worker(lambda: 1.0)())) for n in "abcd"}
        race(calls, timer(clock), rounds=20, seed=seed)
        return order

    assert orders(3) == orders(3) != orders(4)


def test_short_work_is_repeated_and_divided():
    """A call of 1 us within samples of at least 1 ms: a thousand calls, and a thousandth of the time."""
    clock = Clock()
    calls = Counter()

    def work():
        calls["n"] += 1
        clock.time += 1e-6

    watch = timer(clock, least=1e-3)
    repeats = watch.prepare(work)
    assert repeats == pytest.approx(1000, abs=1)
    before = calls["n"]
    assert watch.sample(work, repeats) == pytest.approx(1e-6)
    assert calls["n"] - before == repeats


@pytest.mark.parametrize(("shortest", "repeats"), [(1.0, 1), (4e-4, 3), (1e-9, MOST), (0.0, MOST), (float("inf"), 1)])
def test_repeats_fill_a_sample_within_bounds(shortest, repeats):
    assert repeats_for(1e-3, shortest) == repeats


def test_warming_up_takes_two_calls_and_the_time_it_was_given():
    """The first call, which compiles, decides nothing: it is the shortest that counts."""
    clock, times = Clock(), iter([5.0, *[0.125] * 100])
    count = Counter()

    def work():
        count["n"] += 1
        clock.time += next(times)

    assert timer(clock, least=1.0, warmup=0.0).prepare(work) == 8
    assert count["n"] == 2
    clock, times = Clock(), iter([0.125] * 100)
    timer(clock, warmup=1.0).prepare(work)
    assert count["n"] - 2 == 8


def test_throttled_samples_are_dropped_and_counted():
    """A processor that is throttled in every third sample, and ten times as slow then: the median does not know."""
    clock, state = Clock(), Counter()

    def seconds():
        state["n"] += 1
        return 0.1 if state["n"] % 3 == 0 else 0.01

    result = race({"a": clock.worker(seconds)}, timer(clock), 30, weather=lambda: Weather(1000.0, 300.0, state["n"] % 3 == 0))
    assert result.dropped == {"a": 10}
    assert len(result.samples) == 20
    assert {round(s.seconds, 9) for s in result.samples} == {0.01}
    assert {(s.weather.clock_mhz, s.weather.watts) for s in result.samples} == {(1000.0, 300.0)}


def test_the_collector_waits_while_samples_are_taken():
    states = []
    assert gc.isenabled()
    race({"a": lambda: states.append(gc.isenabled())}, timer(Clock()), 1)
    assert states == [True, True, False]
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        race({"a": lambda: 1 / 0 if not gc.isenabled() else None}, timer(Clock()), 1)
    assert gc.isenabled()
