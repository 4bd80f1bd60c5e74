"""The records of one model that wait for a worker.

Owns their order, and how much of each partition is among them. Must not know workers, nor whose turn it is.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from consumer.core.types import Amount, Run, TopicPartition

COST_UNKNOWN_S = 1e-4
"""What a record is taken to cost until its model has answered once."""
COST_SMOOTHING = 0.2
"""Weight of the newest batch in a model's cost per record."""


@dataclass(slots=True)
class ModelQueue:
    """Records of one model, oldest first."""

    records: int = 0
    size: int = 0
    """Payload bytes of all records."""
    amounts: dict[TopicPartition, Amount] = field(default_factory=dict)
    """What each partition has in the queue."""
    record_cost_s: float = COST_UNKNOWN_S
    """Device time of a record, as its model's latest batches had it."""
    rows_enough: int = 0
    """Records of a batch beyond which a larger one gains little, as the worker that answered last knows; 0: unknown."""
    _runs: deque[Run] = field(default_factory=deque)
    _first: int = 0
    """Records of the oldest run that were taken already. It is cut when somebody asks for it: to move what is left of
    it with every chunk would touch each record several times, which costs more than to read what it holds."""

    @property
    def runs(self) -> Sequence[Run]:
        """Show what waits."""
        self._cut()
        return self._runs

    @property
    def is_cost_known(self) -> bool:
        """Tell whether the model has answered yet."""
        return self.record_cost_s != COST_UNKNOWN_S

    def append(self, run: Run) -> None:
        """Queue a run behind all others."""
        self._runs.append(run)
        self._count(run)

    def prepend(self, run: Run) -> None:
        """Queue a run in front of all others."""
        self._cut()
        self._runs.appendleft(run)
        self._count(run)

    def take(self, records_max: int, bytes_max: int, *, at_least_one: bool) -> list[Run]:
        """Take runs from the front, cutting the last one to fit; one record even if it is too large, when asked."""
        taken: list[Run] = []
        while self._runs and records_max > 0:
            run = self._take_part(records_max, bytes_max, at_least_one=at_least_one and not taken)
            if run is None:
                break
            self._forget(run)
            taken.append(run)
            records_max -= len(run)
            bytes_max -= run.size
        return taken

    def take_oldest(self, partition: TopicPartition) -> Run | None:
        """Take the run of a partition that has waited longest."""
        self._cut()
        for i, run in enumerate(self._runs):
            if run.partition == partition:
                del self._runs[i]
                self._forget(run)
                return run
        return None

    def drop(self, is_meant: Callable[[Run], bool]) -> list[Run]:
        """Give up some of the runs."""
        self._cut()
        dropped = [run for run in self._runs if is_meant(run)]
        if dropped:
            self._runs = deque(run for run in self._runs if not is_meant(run))
            for run in dropped:
                self._forget(run)
        return dropped

    def learn(self, count: int, infer_s: float) -> None:
        """Take note of what `count` records cost, in seconds of inference."""
        cost_s = infer_s / count
        known_s = self.record_cost_s if self.is_cost_known else cost_s
        self.record_cost_s = (1 - COST_SMOOTHING) * known_s + COST_SMOOTHING * cost_s

    def _count(self, run: Run) -> None:
        self.records += len(run)
        self.size += run.size
        amount = self.amounts.get(run.partition)
        if amount is None:
            amount = self.amounts[run.partition] = Amount()
        amount.records += len(run)
        amount.size += run.size

    def _forget(self, run: Run) -> None:
        self.records -= len(run)
        self.size -= run.size
        amount = self.amounts[run.partition]
        amount.records -= len(run)
        amount.size -= run.size
        if not amount.records:
            del self.amounts[run.partition]

    def _take_part(self, records_max: int, bytes_max: int, *, at_least_one: bool) -> Run | None:
        """Take of the oldest run what fits; None if not one record does."""
        run, first = self._runs[0], self._first
        if not first and len(run) <= records_max and run.size <= bytes_max:
            return self._runs.popleft()
        stop = first + _fitting(run, first, records_max, bytes_max, at_least_one=at_least_one)
        if stop == first:
            return None
        if stop < len(run):
            self._first = stop
            return run.part(first, stop)
        self._runs.popleft()
        self._first = 0
        return run.part(first, stop) if first else run

    def _cut(self) -> None:
        """Leave out what was taken of the oldest run."""
        if self._first:
            self._runs[0] = self._runs[0].part(self._first, len(self._runs[0]))
            self._first = 0


def _fitting(run: Run, first: int, records_max: int, bytes_max: int, *, at_least_one: bool) -> int:
    """Count the records of a run that fit, from `first` on."""
    fitting = min(records_max, len(run) - first)
    if run.size > bytes_max:
        values = run.values[first : first + fitting]
        if sum(map(len, filter(None, values))) > bytes_max:
            fitting = bisect_right(list(accumulate(len(value or b"") for value in values)), bytes_max)
    return max(fitting, 1) if at_least_one else fitting
