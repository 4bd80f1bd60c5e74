"""Which records share a call of a model that pads them to the longest one.

Owns the division of what has gathered into calls, so that all of them together are predicted to take least. Must not
know records, models or what a length counts.

Theory of operation. Sorted by length, records that share a call are neighbours: whatever calls there are, exchanging
records between two of them until one holds the shorter ones makes neither longer. (With records of different rows that
hardly fit a call, or several axes that are padded independently, this is only a good guess.) So what is to be found are
the places to cut the sorted row at, and where the cost of a call depends on its padded size alone that is a shortest
path over the places. More records than `STEPS_MAX` are taken in steps of several, so that this stays small beside what
it saves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

STEPS_MAX: Final = 48
"""Steps that calls are made of, where the limits allow that few."""

Lengths: TypeAlias = tuple[int, ...]
"""One record's elements along each of the (combinations of) axes that are padded."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a call may be; a record that alone exceeds it is a call of its own."""

    rows: int
    padded: int
    """Elements along the padded axes: the rows times the longest record's."""

    def allow(self, rows: int, padded: int) -> bool:
        """Tell whether a call may be so large."""
        return rows <= self.rows and padded <= self.padded


@dataclass(slots=True)
class _Step:
    """Neighbours in the sorted row."""

    records: list[int]
    rows: int
    longest: Lengths


def padded_size(rows: int, longest: Lengths) -> int:
    """Return the padded size of a call."""
    return rows * sum(longest)


def divide(
    rows: Sequence[int], lengths: Sequence[Lengths], limits: Limits, cost: Callable[[float], float]
) -> list[list[int]]:
    """Divide records into calls.

    Args:
        rows: Of each record.
        lengths: Of each record.
        limits: Of each call.
        cost: What a call of a padded size takes, in any unit.

    Returns:
        The records of each call, by their numbers, each record once.
    """
    steps = _steps(rows, lengths, limits)
    least = [0.0]
    before: list[int] = []
    for last in range(len(steps)):
        best, best_first = float("inf"), last
        call_rows, longest = 0, steps[last].longest
        for first in range(last, -1, -1):
            call_rows += steps[first].rows
            longest = _longer(longest, steps[first].longest)
            size = padded_size(call_rows, longest)
            if first < last and not limits.allow(call_rows, size):
                break
            value = least[first] + cost(size)
            if value < best:
                best, best_first = value, first
        least.append(best)
        before.append(best_first)
    found: list[list[int]] = []
    stop = len(steps)
    while stop:
        first = before[stop - 1]
        found.append([record for step in steps[first:stop] for record in step.records])
        stop = first
    return found


def _steps(rows: Sequence[int], lengths: Sequence[Lengths], limits: Limits) -> list[_Step]:
    """Sort records by length, and take several at once where there are many."""
    rows_of_step = sum(rows) // STEPS_MAX
    steps: list[_Step] = []
    for record in sorted(range(len(rows)), key=lambda record: sum(lengths[record])):
        if steps:
            step = steps[-1]
            together, longest = step.rows + rows[record], _longer(step.longest, lengths[record])
            if together <= rows_of_step and limits.allow(together, padded_size(together, longest)):
                step.records.append(record)
                step.rows, step.longest = together, longest
                continue
        steps.append(_Step([record], rows[record], lengths[record]))
    return steps


def _longer(one: Lengths, other: Lengths) -> Lengths:
    """Return the longest of each axis."""
    return tuple(map(max, one, other))
