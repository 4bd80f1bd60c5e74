"""Records that wait for something other than a worker: for their next attempt, or for a broken model.

Owns the heap of retries, and the end of records that have waited in vain: they have expired, or a broken model's fill
their partition. Must not know why an attempt failed.

A model that its limits hold back is not broken: its records wait for as long as it takes, and where they fill what
their partition may hold, the partition waits with them. Who would rather lose them than wait lets them expire.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from heapq import heapify, heappop, heappush
from typing import Final

from consumer.core.actions import DeadLetter, Note
from consumer.core.expiry import EXPIRED, Expiry, split_expired
from consumer.core.outcomes import Outcomes
from consumer.core.partitions import Partitions
from consumer.core.scheduling import Scheduler
from consumer.core.types import Amount, Failure, ModelId, Run, TopicPartition

FILLED_MAX = 0.8
"""The part of what a partition may hold that records of a broken model may take up."""

SWEEP_INTERVAL_S: Final = 0.5
"""How often the records that are held back are looked through for those that have expired."""


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
    """What becomes of records that have waited in vain."""

    def __init__(
        self,
        dead_lettered: Collection[ModelId],
        expiry: Expiry,
        scheduler: Scheduler,
        partitions: Partitions,
        outcomes: Outcomes,
    ) -> None:
        """Take the parts that hold them.

        Args:
            dead_lettered: The models whose records become dead letters rather than stop a partition.
            expiry: The deadlines.
            scheduler: The queues.
            partitions: The memory that waiting records take up.
            outcomes: Where dead letters go.
        """
        self._dead_lettered = frozenset(dead_lettered)
        self._expiry = expiry
        self._scheduler = scheduler
        self._partitions = partitions
        self._outcomes = outcomes
        self._sweep_at_s = 0.0

    def expire(self, run: Run) -> Iterator[DeadLetter | Note]:
        """Be done with records that are not worth inferring any more."""
        if self._expiry.is_dropped(run.model):
            self._outcomes.skip(run)
            yield Note("records.expired", {"model": run.model, "records": len(run)})
        else:
            yield from self._outcomes.letters(run, [EXPIRED] * len(run))
        self._partitions.drop([run])

    def relieve(self, unavailable: Mapping[ModelId, Failure], now: float) -> Iterator[DeadLetter | Note]:
        """Be done with records that expired while they were held back, and with the oldest of a broken model's.

        The latter only where they fill a partition.
        """
        if now >= self._sweep_at_s:
            self._sweep_at_s = now + SWEEP_INTERVAL_S
            for model in dict.fromkeys([*unavailable, *self._scheduler.limited_models()]):
                yield from self._sweep(model, now)
        for model, failure in unavailable.items():
            if model in self._dead_lettered:
                for run in self._overflow(model):
                    yield from self._give_up(run, failure, now)

    def weigh(self, held: Iterable[ModelId]) -> None:
        """Have partitions wait that have too much for models that take nothing now: these, or those at their limits."""
        waiting: dict[TopicPartition, Amount] = {}
        for model in {*held, *self._scheduler.limited_models()}:
            for partition, amount in self._scheduler.waiting_amounts(model).items():
                whole = waiting.setdefault(partition, Amount())
                whole.records += amount.records
                whole.size += amount.size
        self._partitions.wait(waiting)

    def _sweep(self, model: ModelId, now: float) -> Iterator[DeadLetter | Note]:
        for run in self._scheduler.take(model, lambda run: split_expired(run, now)[1] is not None):
            fresh, expired = split_expired(run, now)
            assert expired is not None, "only such runs are taken"
            yield from self.expire(expired)
            if fresh is not None:
                self._scheduler.requeue(fresh)

    def _give_up(self, run: Run, failure: Failure, now: float) -> Iterator[DeadLetter | Note]:
        fresh, expired = split_expired(run, now)
        if expired is not None:
            yield from self.expire(expired)
        if fresh is not None:
            yield from self._outcomes.letters(fresh, [failure] * len(fresh))
            self._partitions.drop([fresh])

    def _overflow(self, model: ModelId) -> Iterator[Run]:
        """Take the oldest records of a model out of its queue while they fill a partition.

        The caller settles each run before it asks for the next.
        """
        held: dict[TopicPartition, tuple[int, int]] = {}
        for run in self._scheduler.waiting_runs(model):
            records, size = held.get(run.partition, (0, 0))
            held[run.partition] = records + len(run), size + run.size
        for partition, (held_records, held_size) in held.items():
            records, size = held_records, held_size
            while self._partitions.filled(partition, records, size) >= FILLED_MAX:
                oldest = self._scheduler.take_oldest(model, partition)
                if oldest is None:
                    break
                records, size = records - len(oldest), size - oldest.size
                yield oldest
