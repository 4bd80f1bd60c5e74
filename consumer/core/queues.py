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

    runs: deque[Run] = field(default_factory=deque)
    records: int = 0
    size: int = 0
    """Payload bytes of all records."""
    amounts: dict[TopicPartition, Amount] = field(default_factory=dict)
    """What each partition has in the queue."""
    record_cost_s: float = COST_UNKNOWN_S
    """Device time of a record, as its model's latest batches had it."""

    @property
    def is_cost_known(self) -> bool:
        """Tell whether the model has answered yet."""
        return self.record_cost_s != COST_UNKNOWN_S

    def append(self, run: Run) -> None:
        """Queue a run behind all others."""
        self.runs.append(run)
        self._count(run)

    def prepend(self, run: Run) -> None:
        """Queue a run in front of all others."""
        self.runs.appendleft(run)
        self._count(run)

    def take(self, records_max: int, bytes_max: int, *, at_least_one: bool) -> list[Run]:
        """Take runs from the front, cutting the last one to fit; one record even if it is too large, when asked."""
        taken: list[Run] = []
        while self.runs and records_max > 0:
            run = self.runs[0]
            if len(run) <= records_max and run.size <= bytes_max:
                taken.append(self.runs.popleft())
                records_max -= len(run)
                bytes_max -= run.size
                continue
            fitting = _fitting(run, records_max, bytes_max, at_least_one=at_least_one and not taken)
            if fitting:
                if fitting == len(run):
                    taken.append(self.runs.popleft())
                else:
                    head, self.runs[0] = run.divide(fitting)
                    taken.append(head)
            break
        self._forget(taken)
        return taken

    def take_oldest(self, partition: TopicPartition) -> Run | None:
        """Take the run of a partition that has waited longest."""
        for i, run in enumerate(self.runs):
            if run.partition == partition:
                del self.runs[i]
                self._forget([run])
                return run
        return None

    def drop(self, is_meant: Callable[[Run], bool]) -> list[Run]:
        """Give up some of the runs."""
        dropped = [run for run in self.runs if is_meant(run)]
        if dropped:
            self.runs = deque(run for run in self.runs if not is_meant(run))
            self._forget(dropped)
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

    def _forget(self, runs: Sequence[Run]) -> None:
        for run in runs:
            self.records -= len(run)
            self.size -= run.size
            amount = self.amounts[run.partition]
            amount.records -= len(run)
            amount.size -= run.size
            if not amount.records:
                del self.amounts[run.partition]


def _fitting(run: Run, records_max: int, bytes_max: int, *, at_least_one: bool) -> int:
    """Count the records at the front of a run that fit."""
    fitting = min(records_max, len(run))
    if run.size > bytes_max:
        sizes = (len(value) if value is not None else 0 for value in run.values[:fitting])
        fitting = bisect_right(list(accumulate(sizes)), bytes_max)
    return max(fitting, 1) if at_least_one else fitting
