"""Medians and how sure they are: bootstrap intervals of paired ratios. Pure, and seeded."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 5_000
COVERAGE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A median, and the interval of the medians of its resamples."""

    median: float
    low: float
    high: float


def interval(values: Sequence[float]) -> Interval:
    """Return the median of values and its interval.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("a median needs a value")
    sample = np.asarray(values, np.float64)
    drawn = np.random.default_rng(0).choice(sample, (RESAMPLES, len(sample)))
    low, high = np.quantile(np.median(drawn, axis=1), [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(float(np.median(sample)), float(low), float(high))


def paired(own: Sequence[float], other: Sequence[float]) -> Interval:
    """Return the median of the ratios of the same rounds, and its interval.

    Raises:
        ValueError: the rounds differ in number, or there is none.
    """
    return interval([mine / theirs for mine, theirs in zip(own, other, strict=True)])


def slope(values: Sequence[float]) -> Interval:
    """Fit a line to values at equal steps; its rise a step, and the interval of that of their resamples.

    Raises:
        ValueError: there are fewer than three values.
    """
    if len(values) < 3:
        raise ValueError("a line with an error needs three values")
    steps, sample = np.arange(len(values), dtype=np.float64), np.asarray(values, np.float64)
    chosen = np.random.default_rng(0).integers(0, len(sample), (RESAMPLES, len(sample)))
    x, y = steps[chosen], sample[chosen]
    away = x - x.mean(axis=1, keepdims=True)
    spread = (away * away).sum(axis=1)
    drawn = (away * y).sum(axis=1)[spread > 0] / spread[spread > 0]
    low, high = np.quantile(drawn, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(float(np.polyfit(steps, sample, 1)[0]), float(low), float(high))
