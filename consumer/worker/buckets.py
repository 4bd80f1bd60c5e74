"""From the records of a batch to the calls of a model that pads: records of like lengths share one.

Owns the lengths of records and what the calls of one model were seen to take. Must not know how a call is run.
"""

import math
from collections.abc import Iterator, Sequence

from consumer.core.buckets import Lengths, Limits, divide, padded_size
from consumer.core.cost import CostCurve
from consumer.models.signature import Signature
from consumer.worker.binding import Plan
from consumer.worker.collate import Call, calls, rows_of
from consumer.worker.decoding import Loose, Portion


class Buckets:
    """The calls of one model that pads."""

    def __init__(self, takes: Signature) -> None:
        """Remember along which axes the model's inputs are padded."""
        combinations = (
            tuple(axis for axis in spec.axes if axis in takes.padded_axes)
            for spec in takes.inputs
            if spec.name not in takes.masks
        )
        self._axes = tuple(dict.fromkeys(axes for axes in combinations if axes))
        self._curve = CostCurve()

    def calls(self, portions: Sequence[Portion], limits: Limits) -> Iterator[Call]:
        """Divide portions of one group into calls."""
        places: list[tuple[int, int]] = []
        rows: list[int] = []
        lengths: list[Lengths] = []
        for number, portion in enumerate(portions):
            plans = _plans(portion)
            known = {id(plan): self._lengths(plan) for plan in plans}
            places += [(number, at) for at in range(portion.records)]
            rows += [plan.rows for plan in plans]
            lengths += [known[id(plan)] for plan in plans]
        if len(set(lengths)) == 1:
            size = padded_size(1, lengths[0])
            yield from calls(portions, max(1, min(limits.rows, limits.padded // size if size else limits.rows)))
            return
        for records in divide(rows, lengths, limits, self._curve.seconds):
            members: dict[int, list[int]] = {}
            for number, at in sorted(places[record] for record in records):
                members.setdefault(number, []).append(at)
            yield [_chosen(portions[number], positions) for number, positions in members.items()]

    def padded(self, call: Call) -> int:
        """Return the padded size of a call."""
        plans = {id(plan): plan for portion in call for plan in _plans(portion)}
        longest = tuple(map(max, *[self._lengths(plan) for plan in plans.values()], (0,) * len(self._axes)))
        return padded_size(rows_of(call), longest)

    def observe(self, call: Call, seconds: float) -> None:
        """Learn from a call that has passed."""
        self._curve.observe(self.padded(call), seconds)

    def _lengths(self, plan: Plan) -> Lengths:
        """Count the elements of one row along each combination of padded axes."""
        return tuple([math.prod([plan.lengths[axis] for axis in axes]) for axes in self._axes])


def _plans(portion: Portion) -> Sequence[Plan]:
    """Return how each record of a portion was bound."""
    if isinstance(portion, Loose):
        return [plan for _, _, _, plan in portion.entries]
    return [portion.plan] * portion.records


def _chosen(portion: Portion, positions: Sequence[int]) -> Portion:
    """Cut out records; those of a template are neighbours, for they have one length."""
    if isinstance(portion, Loose):
        entries = [portion.entries[at] for at in positions]
        return Loose(portion.sheet, portion.codec, entries, sum(plan.rows for _, _, _, plan in entries))
    return portion.part(positions[0], positions[-1] + 1)
