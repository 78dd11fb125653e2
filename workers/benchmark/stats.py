"""What may be said about two sets of latencies, measured in the same rounds: pure functions of arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.benchmark import Verdict

Medians = NDArray[np.float64]
"""Median latency of one arm in each round, shape [rounds]."""

CONFIDENCE = 0.95
RESAMPLES = 4000
"""Efron and Tibshirani 1993, section 13.3: 1000 or more for the ends of a percentile interval."""

UNSTABLE_ABOVE = 0.10
"""Noise above which nothing is said. Pruning moves latency by some ten percent where it moves it at all; a
machine on which the dense model differs that much from itself shows neither the gain nor its absence."""


@dataclass(frozen=True)
class Interval:
    """A ratio of latencies and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def speedup(slow: Medians, fast: Medians, *, seed: int) -> Interval:
    """How many times as fast `fast` is: ratio of the medians over the rounds, with a percentile bootstrap.

    Each resample draws whole rounds, so that pairs stay together and a load which slows both arms of a round
    cancels out (Efron and Tibshirani 1993, chapter 13; Kalibera and Jones 2013, "Rigorous benchmarking in
    reasonable time"). Both arrays have shape [rounds]; the same seed gives the same interval.
    """
    rounds = len(slow)
    assert rounds == len(fast)
    drawn = np.random.default_rng(seed).integers(0, rounds, size=(RESAMPLES, rounds))
    ratios = np.median(slow[drawn], axis=1) / np.median(fast[drawn], axis=1)
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(np.median(slow) / np.median(fast)), float(low), float(high))


def noise_of(control: Interval) -> float:
    """How far from 1 the interval of dense against dense reaches: its half-width, plus its bias."""
    return max(abs(control.high - 1), abs(1 - control.low))


def judge(measured: Interval, noise: float) -> Verdict:
    """A difference is claimed only where the whole interval lies outside of the noise around 1."""
    if noise > UNSTABLE_ABOVE:
        return Verdict.unstable
    if measured.low > 1 + noise:
        return Verdict.faster
    if measured.high < 1 - noise:
        return Verdict.slower
    return Verdict.no_difference
