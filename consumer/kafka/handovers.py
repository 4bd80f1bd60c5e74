"""Outcomes handed over at once, on their way to one topic: what is sent, and what a report means for which record.

Owns the columns of one hand-over and the verdict on each failed record. Must not know the producer.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from typing import Any, Protocol, TypeAlias

from confluent_kafka import KafkaError, Message

from consumer.core.types import Disposition, Failure, ModelId, Run, Ticket, TopicPartition
from consumer.kafka.dead_letters import envelope_headers
from consumer.kafka.errors import one_line

CONDEMNING = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD})
"""Errors that the broker gives a whole batch for one record in it, and that no retry mends."""

BATCH_OVERHEAD_BYTES = 68
"""The least that a batch of one record weighs beside key, value and headers."""

Report: TypeAlias = Callable[[KafkaError | None, Message], None]
Row: TypeAlias = tuple[bytes | None, bytes | None, Any]
"""Key, value and headers of one record."""


class Reporter(Protocol):
    """Whom a hand-over tells of its failed records."""

    def suspect(self, handed: "HandOver", index: int) -> None:
        """Take a record that may only have been the neighbour of a bad one: it is to be sent alone."""

    def recalled(self, handed: "HandOver", index: int) -> None:
        """Take a record that the client gave back unsent because it was asked to."""

    def park(self, handed: "HandOver", index: int, failure: Failure) -> None:
        """Take a record that its topic does not take for now, through no fault of the record."""

    def fail(self, handed: "HandOver", index: int, failure: Failure) -> None:
        """Take a record that is not delivered, for good and through its own fault."""


@dataclass(slots=True, eq=False)
class HandOver:
    """Results handed over at once: columns of equal length, over the records of `runs`."""

    reporter: Reporter
    ticket: Ticket
    topic: str
    model: ModelId | None
    """Whose results these are; None for dead letters."""
    runs: Sequence[Run]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Any] | None
    first: int = 0
    """The first record that the client does not have yet."""
    size_max: int | None = None
    """Bytes of keys and values together at most, where known."""
    oversized: set[int] = field(default_factory=set)
    """Records that the topic cannot take, known before they are sent."""
    fenced: set[int] = field(default_factory=set)
    """Records of partitions that were taken away: nobody may send them any more."""
    parked: set[int] = field(default_factory=set)
    """Records of which the core was told that no barrier delivers them."""
    is_resolved: bool = False
    """The core was told that what was parked is delivered."""
    reported: set[int] = field(default_factory=set)
    """Records that a client gave back or failed: it has them no more."""
    apart: set[int] = field(default_factory=set)
    """Records that are sent one by one."""
    _places: dict[tuple[bytes | None, bytes | None], deque[int]] | None = None
    """Where each key and value is, made when the first error is reported."""

    def reports(self) -> Iterable[Report]:
        """Return a callback for each record from `first`: one object for all, since the client holds one per record."""
        return repeat(self._report)

    @property
    def size(self) -> int:
        """Count the bytes of the values."""
        return sum(map(len, filter(None, self.values)))

    def row(self, index: int) -> Row:
        """Return a record as it is to be sent alone."""
        return self.keys[index], self.values[index], self.headers[index] if self.headers is not None else None

    def measure(self, bytes_max: int) -> None:
        """Find the records that a topic with this `max.message.bytes` refuses whatever else is in their batch."""
        limit = bytes_max - BATCH_OVERHEAD_BYTES
        if self.size_max is not None and self.size_max <= limit:
            return  # even all of them together would fit
        if _longest(self.keys) + _longest(self.values) <= limit:
            return
        sizes = (len(value or b"") + len(key or b"") for key, value in zip(self.keys, self.values, strict=True))
        self.oversized.update(i for i, size in enumerate(sizes) if size > limit)

    def fence(self, partitions: Collection[TopicPartition]) -> bool:
        """Let nobody send the records of these partitions any more; tell whether there are any."""
        first, found = 0, False
        for run in self.runs:
            if run.partition in partitions:
                self.fenced.update(range(first, first + len(run)))
                found = True
            first += len(run)
        return found

    @property
    def is_fenced(self) -> bool:
        """Tell whether nothing of it may be sent."""
        return len(self.fenced) == len(self.values)

    def restart(self) -> None:
        """Have everything sent once more: the transaction that it was in is aborted."""
        self.first = 0
        self.reported.clear()
        self._places = None

    def stretches(self) -> Iterator[range]:
        """Cut the records from `first` into what can be sent at once, in order; each oversized one stands alone."""
        start, count = self.first, len(self.values)
        for stop in sorted(self.fenced | self.oversized | self.apart):
            if stop < start:
                continue
            if stop > start:
                yield range(start, stop)
            if stop not in self.fenced | self.apart:
                yield range(stop, stop + 1)
            start = stop + 1
        if start < count:
            yield range(start, count)

    def refuse(self, index: int, error: KafkaError, *, is_alone: bool) -> None:
        """Take the error of one record; `is_alone` says that no neighbour can have caused it."""
        self.reported.add(index)
        if index in self.fenced:
            return
        if error.code() == KafkaError._PURGE_QUEUE:  # noqa: SLF001 - its name
            self.reporter.recalled(self, index)
        elif error.code() not in CONDEMNING:
            failure = Failure("delivery-failed", error.name(), one_line(error), Disposition.UNAVAILABLE)
            self.reporter.park(self, index, failure)
        elif is_alone:
            is_too_large = error.code() == KafkaError.MSG_SIZE_TOO_LARGE
            self.condemn(index, "too-large" if is_too_large else "delivery-failed", error.name(), one_line(error))
        else:
            self.reporter.suspect(self, index)

    def condemn(self, index: int, reason: str, error: str, message: str) -> None:
        """Take the verdict that the record itself cannot be delivered."""
        self.reporter.fail(self, index, Failure(reason, error, f"{self.topic}: {message}"))

    def report_one(self, index: int, error: KafkaError | None, _message: Message) -> None:
        """Take the report of a record that was sent by itself, in a batch with others."""
        if error is not None:
            self.refuse(index, error, is_alone=False)

    def _report(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            return
        if self._places is None:
            self._places = {}
            for i, row in enumerate(zip(self.keys, self.values, strict=True)):
                self._places.setdefault(row, deque()).append(i)
        # Equal rows are interchangeable: whichever of them failed, one of them is to be sent again.
        self.refuse(self._places[message.key(), message.value()].popleft(), error, is_alone=False)


@dataclass(slots=True, eq=False)
class Letters(HandOver):
    """Dead letters: they may be equal in key and value and yet tell of different records, so each has its report."""

    run: Run | None = None
    failures: Sequence[Failure] = ()
    _emptied: set[int] = field(default_factory=set)
    """Records whose value is left out, since the topic cannot take it."""

    def reports(self) -> Iterable[Report]:
        """Return a callback for each record from `first`."""
        return [partial(self.report_one, i) for i in range(self.first, len(self.values))]

    def row(self, index: int) -> Row:
        """Return a record as it is to be sent alone: whole, or an envelope."""
        if index not in self._emptied:
            return HandOver.row(self, index)
        assert self.run is not None
        return None, None, envelope_headers(self.run, index, self.failures[index])

    def condemn(self, index: int, reason: str, error: str, message: str) -> None:
        """Send an envelope; if even that is refused, the record waits: a dead letter is never dropped."""
        if index not in self._emptied:
            self._emptied.add(index)
            self.reporter.suspect(self, index)
        else:
            failure = Failure(reason, error, f"{self.topic}: {message}", Disposition.UNAVAILABLE)
            self.reporter.park(self, index, failure)


def _longest(column: Sequence[bytes | None]) -> int:
    """Find the size of a column's largest cell, at C speed: this is done for every record."""
    return max(map(len, filter(None, column)), default=0)
