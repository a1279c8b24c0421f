"""Samples of time: contestants are checked before they are timed, and take turns in random order.

The clock is a parameter, so that tests can use one whose truth is known.
"""

import gc
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

MOST = 10_000  # calls in a sample


@dataclass(frozen=True)
class Weather:
    """The processor's state around a sample; nan if unknown."""

    clock_mhz: float = math.nan
    watts: float = math.nan
    throttled: bool = False


class Timer(Protocol):
    """Takes samples."""

    def prepare(self, call: Callable[[], object]) -> int:
        """Warm up; returns the number of calls in a sample."""

    def sample(self, call: Callable[[], object], repeats: int) -> float:
        """Seconds a call."""


@dataclass(frozen=True)
class WallTimer:
    """Wall-clock time, for calls that return when their work is done.

    Args:
        least: minimum duration of a sample in seconds; shorter calls are repeated, so that the clock's own cost and resolution
            do not count.
        warmup: seconds; at least two calls.
        now: the clock.
    """

    least: float = 1e-3
    warmup: float = 0.05
    now: Callable[[], float] = time.perf_counter

    def prepare(self, call: Callable[[], object]) -> int:
        begin, shortest, calls = self.now(), math.inf, 0
        while calls < 2 or self.now() - begin < self.warmup:
            shortest = min(shortest, self._once(call))
            calls += 1
        return repeats_for(self.least, shortest)

    def sample(self, call: Callable[[], object], repeats: int) -> float:
        begin = self.now()
        for _ in range(repeats):
            call()
        return (self.now() - begin) / repeats

    def _once(self, call: Callable[[], object]) -> float:
        begin = self.now()
        call()
        return self.now() - begin


def repeats_for(least: float, shortest: float) -> int:
    """Number of calls that fill ``least`` seconds at ``shortest`` seconds a call."""
    if least <= shortest:
        return 1
    return min(MOST, math.ceil(least / shortest)) if shortest > 0 else MOST


@dataclass(frozen=True)
class Sample:
    """Seconds a call of one contestant, by the key that ``race`` knows it by, in one round."""

    name: Any
    round: int
    seconds: float
    weather: Weather = Weather()


@dataclass
class Race:
    """The valid samples, and for each contestant the number dropped because the processor was throttled."""

    samples: list[Sample] = field(default_factory=list)
    dropped: Counter[Any] = field(default_factory=Counter)


def race(
    calls: Mapping[Any, Callable[[], object]],
    timer: Timer,
    rounds: int,
    seed: int = 0,
    weather: Callable[[], Weather] = Weather,
) -> Race:
    """Time all contestants in each round, in a new random order each time.

    Slow phases of the machine then affect all contestants alike, and ratios within a round cancel them.

    Args:
        calls: name to function.
        timer: takes the samples.
        rounds: samples of each contestant.
        seed: of the order.
        weather: reports the processor's state after each sample.

    Returns:
        The samples.
    """

    random = np.random.default_rng(seed)
    names = list(calls)
    repeats = {name: timer.prepare(calls[name]) for name in names}
    result = Race()
    with _no_collection():
        for round_ in range(rounds):
            for i in random.permutation(len(names)):
                name = names[i]
                seconds = timer.sample(calls[name], repeats[name])
                seen = weather()
                if seen.throttled:
                    result.dropped[name] += 1
                else:
                    result.samples.append(Sample(name, round_, seconds, seen))
    return result


@contextmanager
def _no_collection() -> Iterator[None]:
    """Switch Python's garbage collector off in the block, since it would strike a random contestant."""
    gc.collect()
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
