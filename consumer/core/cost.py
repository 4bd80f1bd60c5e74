"""What a batch costs by its size, learned from those that ran, and the size from which on a larger one gains little.

Owns the fitted curve and the search for that size. Must not know a clock, a model or what is counted: to one caller
sizes are rows, to another padded elements.

Theory of operation. Seconds are taken to be `fixed + linear * size + square * size²`: what a call costs whatever it
holds, what each row costs, and what large ones cost more (a cache that is too small, attention). None is negative. What
is seen is averaged by octaves of the size, so that the size most used does not drown the others, and what is known of a
size stays until it is seen again. A process that is paused, or a first call that prepares something, may take a hundred
times as long: for an average what is seen is at most `SURPRISE_MAX` times as slow, and what is faster corrects it at
once.

Under a constant backlog all batches would have one size, which says nothing about the others. So now and then a batch
is half or twice as large: one in `RENEWAL_BATCHES` each, and the larger one eight times more seldom where it is known
to be a bad one. A smaller batch never takes longer than the larger one that it stands for, so what this costs is
bounded by a small part of the time.
"""

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Final

TOLERANCE: Final = 0.05
"""How much dearer a row may be than in the best batch, for the sake of smaller ones."""

SURPRISE_MAX: Final = 2.0
"""What is seen counts as this many times the average at most."""

SURPRISES_MAX: Final = 8
"""So many slow ones in a row are no pauses, and half of an average that rests on so many is no chance: the model, or
what it is asked, has changed, and what was known is forgotten."""

OBSERVATIONS_MAX: Final = 16
"""An octave's average moves by one part in so many for what is new, once it rests on as many."""

FADING_BATCHES: Final = 512
"""Batches after which what an octave says has half its weight."""

RENEWAL_BATCHES: Final = 128
"""Batches after which the sizes beside the one in use are tried again."""

REST_MAX: Final = 0.5
"""What would be left behind as a smaller part of a batch than this comes along."""

BAD: Final = 1.5
"""How much dearer than in the best batch a row is in one that is seldom tried again, ..."""

BAD_RENEWALS: Final = 8
"""... namely after so many times as many batches."""

EAGER_BATCHES: Final = 32
"""Batches from the start, and from each change, after each of which the curve is fitted anew, ..."""

FIT_BATCHES: Final = 8
"""... and the number of batches after which it is later: that takes as long as a hundred rows of a small model."""

START_SIZE: Final = 32
"""What is enough until something was seen; from there it may double each time."""

PRIOR: Final = (256.0, 1.0, 0.0)
"""What calls are taken to cost until something was seen: each as much besides as 256 of its elements."""

_TERMS: Final = 3
_SUBSETS: Final = tuple(subset for count in (2, 1, 3) for subset in combinations(range(_TERMS), count))
"""Which of the terms are not 0; of equally good fits the first one is taken: fixed and linear alone."""

_SINGULAR: Final = 1e-12
"""Below this part of its largest number a system of equations has no single solution."""

_BETTER: Final = 1e-9
"""How much less of an error makes a fit a better one."""


@dataclass(slots=True)
class _Octave:
    """What is known of sizes between a power of two and the next one."""

    size: float
    rate: float
    """Seconds by size."""
    observations: int
    seen_at: int
    """The number of the batch that was seen last."""


class CostCurve:
    """Seconds by size."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._octaves: dict[int, _Octave] = {}
        self._terms: tuple[float, ...] | None = None
        self._surprises = 0
        """In a row, until now."""
        self._eager_until = EAGER_BATCHES
        self.observations = 0
        """How often something was seen."""

    def observe(self, size: int, seconds: float) -> bool:
        """Take note that a batch of `size` took so long; tell whether it is time to draw conclusions anew."""
        if size <= 0 or seconds <= 0:
            return False  # nothing is learned from an empty one
        self.observations += 1
        rate = seconds / size
        octave = self._octaves.get(size.bit_length())
        if octave is not None and self._is_change(octave, rate):
            self._octaves.clear()
            self._surprises = 0
            self._eager_until = self.observations + EAGER_BATCHES
            octave = None
        if octave is None:
            self._octaves[size.bit_length()] = _Octave(size, rate, 1, self.observations)
        else:
            octave.observations = min(octave.observations + 1, OBSERVATIONS_MAX)
            octave.seen_at = self.observations
            known = min(octave.rate, SURPRISE_MAX * rate)
            octave.rate = known + (min(rate, SURPRISE_MAX * known) - known) / octave.observations
            octave.size += (size - octave.size) / octave.observations
        is_time = self.observations <= self._eager_until or self.observations % FIT_BATCHES == 0
        if is_time:
            self._terms = None
        return is_time

    def _is_change(self, octave: _Octave, rate: float) -> bool:
        """Tell whether what is seen shows that the past is over: nothing is ever faster by chance."""
        if SURPRISE_MAX * rate < octave.rate:
            return octave.observations >= SURPRISES_MAX
        self._surprises = self._surprises + 1 if rate > SURPRISE_MAX * octave.rate else 0
        return self._surprises >= SURPRISES_MAX

    def unseen(self, size: int) -> int:
        """Count the batches since one of about this size was seen last; since the start if none was."""
        octave = self._octaves.get(size.bit_length())
        return self.observations - (octave.seen_at if octave else -RENEWAL_BATCHES)

    def rate(self, size: int) -> float | None:
        """Return the seconds by size that batches of about this size were seen to take; None if there was none."""
        octave = self._octaves.get(size.bit_length())
        return octave.rate if octave else None

    def seconds(self, size: float) -> float:
        """Predict what a batch takes; before anything was seen, in units of what an element of it does."""
        fixed, linear, square = self._fitted()
        return fixed + (linear + square * size) * size

    def best(self, size_max: int, seconds_min: float = 0.0) -> int:
        """Find the smallest batch in which a row costs little more than in the best one.

        Args:
            size_max: What is too large in any case, at least 1.
            seconds_min: What takes less is not made smaller for the sake of the time that it takes.

        Returns:
            A size from 1 to `size_max`, and no further from what was seen than half or double; `START_SIZE` at most
            before anything was seen.
        """
        if not self._octaves:
            return min(size_max, START_SIZE)
        fixed, linear, square = self._fitted()
        top = min(size_max, int(2 * max(octave.size for octave in self._octaves.values())))
        bottom = min(top, max(1, int(min(octave.size for octave in self._octaves.values()) / 2)))
        cheapest = top if square * top * top <= fixed else max(bottom, int(math.sqrt(fixed / square)))
        spare = (1 + TOLERANCE) * self.seconds(cheapest) / cheapest - linear
        # Where fixed / size + square * size is `spare`: the smaller one of both solutions.
        root = math.sqrt(max(0.0, spare * spare - 4 * fixed * square))
        smallest = math.ceil(2 * fixed / (spare + root)) if spare + root > 0 else bottom
        size = min(max(smallest, bottom), cheapest)
        if self.seconds(size) < seconds_min:
            size = min(cheapest, self._reached(seconds_min, cheapest))
        return max(1, size)

    def _reached(self, seconds: float, size_max: int) -> int:
        """Find the smallest size that takes so long."""
        low, high = 1, size_max
        while low < high:
            middle = (low + high) // 2
            if self.seconds(middle) < seconds:
                low = middle + 1
            else:
                high = middle
        return low

    def _fitted(self) -> tuple[float, ...]:
        """Return the curve's terms: those that least miss what was seen, by their parts of it."""
        if self._terms is None:
            self._terms = self._fit() if self._octaves else PRIOR
        return self._terms

    def _fit(self) -> tuple[float, ...]:
        """Solve the weighted least squares problem under the condition that no term is negative."""
        unit = max(octave.size for octave in self._octaves.values())
        normal = [[0.0] * _TERMS for _ in range(_TERMS)]
        target = [0.0] * _TERMS
        for octave in self._octaves.values():
            weight = octave.observations * 0.5 ** ((self.observations - octave.seen_at) / FADING_BATCHES)
            size, took = octave.size / unit, octave.size * octave.rate
            row = (1 / took, size / took, size * size / took)
            for i, left in enumerate(row):
                target[i] += weight * left
                for j, right in enumerate(row):
                    normal[i][j] += weight * left * right
        best: tuple[float, ...] = (0.0,) * _TERMS
        least = math.inf
        for subset in _SUBSETS:
            found = _solve([[normal[i][j] for j in subset] for i in subset], [target[i] for i in subset])
            if found is None or min(found) < 0:
                continue
            # Of the squared error only what depends on the terms; at the solution it is -(terms * target).
            error = -sum(value * target[i] for value, i in zip(found, subset, strict=True))
            if error < least - _BETTER * abs(error):
                least = error
                values = dict(zip(subset, found, strict=True))
                best = tuple(values.get(i, 0.0) / unit**i for i in range(_TERMS))
        return best


class LearnedSize:
    """How large the batches of one kind should be."""

    def __init__(self, size_max: int, seconds_min: float = 0.0) -> None:
        """Begin with a small size: what a row costs is not known.

        Args:
            size_max: Never more than this, at least 1.
            seconds_min: Batches that take less are not made smaller.
        """
        self._size_max = size_max
        self._seconds_min = seconds_min
        self._curve = CostCurve()
        self.size = self._curve.best(size_max, seconds_min)
        """What is enough: a larger batch would gain little, or is not allowed."""

    def choose(self, waiting: int) -> int:
        """Say how large the next batch may be where so much waits: mostly `size`, else one that tells more."""
        size, curve = self.size, self._curve
        if waiting <= min(size * (1 + REST_MAX), self._size_max):
            return min(max(waiting, size), self._size_max)
        if not curve.observations:
            return size
        if size > 1 and curve.unseen(size // 2) >= RENEWAL_BATCHES:
            return size // 2
        twice = min(2 * size, self._size_max)
        if waiting >= twice and twice.bit_length() > size.bit_length():
            rate, known = curve.rate(twice), curve.rate(size)
            is_bad = rate is not None and known is not None and rate > BAD * known
            if curve.unseen(twice) >= (BAD_RENEWALS * RENEWAL_BATCHES if is_bad else RENEWAL_BATCHES):
                return twice
        return size

    def observe(self, size: int, seconds: float) -> None:
        """Take note of what a batch took."""
        if self._curve.observe(size, seconds):
            self.size = self._curve.best(self._size_max, self._seconds_min)


def _solve(matrix: list[list[float]], target: list[float]) -> list[float] | None:
    """Solve a small symmetric system of equations; None where it has no single solution."""
    count = len(target)
    rows = [[*row, value] for row, value in zip(matrix, target, strict=True)]
    for at in range(count):
        pivot = max(range(at, count), key=lambda row: abs(rows[row][at]))
        if abs(rows[pivot][at]) <= _SINGULAR * max(abs(value) for row in matrix for value in row):
            return None
        rows[at], rows[pivot] = rows[pivot], rows[at]
        for row in range(at + 1, count):
            factor = rows[row][at] / rows[at][at]
            rows[row] = [value - factor * above for value, above in zip(rows[row], rows[at], strict=True)]
    found = [0.0] * count
    for at in reversed(range(count)):
        rest = sum(rows[at][other] * found[other] for other in range(at + 1, count))
        found[at] = (rows[at][count] - rest) / rows[at][at]
    return found
