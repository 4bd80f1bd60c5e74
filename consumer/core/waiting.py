"""Records that wait for something other than a worker: for their next attempt, or for a broken model.

Owns the heap of retries and the limit to what may wait for a broken model. Must not know why an attempt failed.
"""

from collections.abc import Collection, Iterator
from heapq import heapify, heappop, heappush

from consumer.core.partitions import Partitions
from consumer.core.scheduling import Scheduler
from consumer.core.types import ModelId, Run, TopicPartition

FILLED_MAX = 0.8
"""The part of what a partition may hold that records of a broken model may take up."""


class Retries:
    """Records between two attempts, the next one due first."""

    def __init__(self) -> None:
        """Start with none."""
        self._heap: list[tuple[float, int, Run]] = []
        self._last = 0

    def put(self, run: Run, due_s: float) -> None:
        """Keep a run until `due_s`."""
        self._last += 1
        heappush(self._heap, (due_s, self._last, run))

    def due(self, now: float) -> Iterator[Run]:
        """Take the runs whose time has come."""
        while self._heap and self._heap[0][0] <= now:
            yield heappop(self._heap)[2]

    def drop(self, partitions: Collection[TopicPartition]) -> list[Run]:
        """Give up the runs of partitions that are being taken away."""
        dropped = [run for _, _, run in self._heap if run.partition in partitions]
        if dropped:
            self._heap = [entry for entry in self._heap if entry[2].partition not in partitions]
            heapify(self._heap)
        return dropped


class Waiting:
    """The limit to what waits for broken models."""

    def __init__(self, dead_lettered: Collection[ModelId]) -> None:
        """Take the models whose records become dead letters rather than stop a partition."""
        self._dead_lettered = frozenset(dead_lettered)

    def overflow(self, model: ModelId, scheduler: Scheduler, partitions: Partitions) -> Iterator[Run]:
        """Take the oldest records of a broken model out of its queue while they fill a partition.

        The caller settles each run before it asks for the next.
        """
        if model not in self._dead_lettered:
            return
        held: dict[TopicPartition, tuple[int, int]] = {}
        for run in scheduler.waiting_runs(model):
            records, size = held.get(run.partition, (0, 0))
            held[run.partition] = records + len(run), size + run.size
        for partition, (held_records, held_size) in held.items():
            records, size = held_records, held_size
            while partitions.filled(partition, records, size) >= FILLED_MAX:
                oldest = scheduler.take_oldest(model, partition)
                if oldest is None:
                    break
                records, size = records - len(oldest), size - oldest.size
                yield oldest


def split_expired(run: Run, now: float) -> tuple[Run | None, Run | None]:
    """Divide a run into the records that are still worth inferring and those that are not; None for an empty part."""
    if run.deadlines_s is None:
        return run, None
    expired = [i for i, deadline_s in enumerate(run.deadlines_s) if deadline_s is not None and deadline_s <= now]
    if not expired:
        return run, None
    if len(expired) == len(run):
        return None, run
    late = set(expired)
    return run.pick([i for i in range(len(run)) if i not in late]), run.pick(expired)
