"""A source or a sink on the session's broker, and the loop's part played by hand."""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from consumer.core.events import (
    Assigned,
    Committed,
    Delivered,
    DeliveryFailed,
    Event,
    Fetched,
    Parked,
    Revoked,
    Unparked,
)
from consumer.core.types import Generation, Run, Slice, TopicPartition
from consumer.demo.broker import Broker
from consumer.kafka.admin import Admin
from consumer.kafka.options import InputOptions
from consumer.kafka.pretence import examine
from consumer.kafka.settings import compose
from consumer.kafka.sink import Routes, Sink
from consumer.kafka.source import Source
from consumer.kafka.transactions import TransactionalSink

WAIT_S = 30.0
SOURCE = TopicPartition("in", 3)
"""Where the runs of sink tests come from."""


def new_group() -> str:
    """Name a group that nobody else has."""
    return f"g-{uuid.uuid4().hex[:12]}"


@dataclass
class Reader:
    """A source with everything that it told."""

    source: Source
    events: list[Event] = field(default_factory=list)
    revoking: list[TopicPartition] = field(default_factory=list)

    def turn(self, records_max: int = 1000, timeout_s: float = 0.1) -> list[Event]:
        """Fetch once."""
        events = self.source.fetch(records_max, timeout_s)
        self.events += events
        return events

    def until(self, holds: Callable[[], bool], records_max: int = 1000) -> None:
        """Fetch until something holds."""
        deadline_s = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < deadline_s, f"not in {WAIT_S} s; {self.count} records of {self.assigned}"
            self.turn(records_max)

    def of(self, kind: type[Any]) -> list[Any]:
        """Return the events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def assigned(self) -> set[TopicPartition]:
        """The partitions that this member was told of and has not lost."""
        held: set[TopicPartition] = set()
        for event in self.events:
            if isinstance(event, Assigned):
                held |= event.partitions.keys()
            elif isinstance(event, Revoked):
                held -= set(event.partitions)
        return held

    @property
    def slices(self) -> list[Slice]:
        """Every slice, in order."""
        return [part for event in self.of(Fetched) for part in event.slices]

    @property
    def offsets(self) -> dict[TopicPartition, list[int]]:
        """Every offset per partition, in the order in which it came."""
        found: dict[TopicPartition, list[int]] = {}
        for part in self.slices:
            found.setdefault(part.partition, []).extend(part.offsets)
        return found

    @property
    def count(self) -> int:
        """How many records came."""
        return sum(map(len, self.offsets.values()))

    def committed(self) -> dict[TopicPartition, int]:
        """What was answered to commits without an error, the newest each."""
        return {
            partition: offset
            for event in self.of(Committed)
            if event.error is None
            for partition, offset in event.offsets.items()
        }


def reader(
    broker: Broker,
    *topics: str,
    group: str | None = None,
    on_revoke: Callable[[Reader, Sequence[TopicPartition]], None] | None = None,
    options: dict[str, Any] | None = None,
    **settings: Any,
) -> Reader:
    """Make a source; `settings` are the consumer's, with `_` for `.`; callables pass for callbacks of the client."""
    needs_map = bool(settings.pop("needs_map", False))
    given = {name.replace("_", "."): value for name, value in settings.items() if not callable(value)}
    callbacks = {name: value for name, value in settings.items() if callable(value)}
    composed = compose(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "group.id": group or new_group(),
            "consumer": {**broker.consumer_settings, **given},
        }
    )
    options = dict(options or {})
    never = options.pop("never", ())
    made: Reader

    def note_revoke(partitions: Sequence[TopicPartition]) -> None:
        made.revoking.extend(partitions)
        if on_revoke is not None:
            on_revoke(made, partitions)

    source = Source(
        {**composed.consumer, **callbacks},
        InputOptions(topics=topics, **options),
        note_revoke,
        never=never,
        topic_id=Admin(composed.admin).topic_id,
        needs_map=needs_map,
    )
    made = Reader(source)
    return made


def sink(broker: Broker, routes: Routes, **settings: Any) -> Sink:
    """Make a sink; `settings` are the producer's, with `_` for `.`."""
    given = {name.replace("_", "."): value for name, value in settings.items()}
    kafka = {"bootstrap.servers": broker.bootstrap_servers, "group.id": "unused", "producer": given}
    return Sink(compose(kafka).producer, routes)


def transactional_sink(broker: Broker, routes: Routes, group: str, instance: str = "one", **settings: Any) -> Any:
    """Make a transactional sink of a group; `settings` are the producer's, with `_` for `.`."""
    given = {name.replace("_", "."): value for name, value in settings.items()}
    kafka = {"bootstrap.servers": broker.bootstrap_servers, "group.id": group, "producer": given}
    composed = compose(kafka, exactly_once=True, instance=instance)
    admin = Admin(composed.admin)
    topic = next(iter(routes.results.values()), None)
    asking = partial(examine, composed.admin, f"{group}-{instance}", topic) if topic is not None else None
    return TransactionalSink(composed.producer, routes, lambda partitions: admin.committed(group, partitions), asking)


def run_of(
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None] | None = None,
    headers: Sequence[Any] | None = None,
    partition: TopicPartition = SOURCE,
) -> Run:
    """Make the run that outcomes belong to; offsets count from 100."""
    count = len(values)
    return Run(
        partition=partition,
        generation=Generation(1),
        model="fraud",
        positions=range(count),
        offsets=range(100, 100 + count),
        keys=keys or [b"fraud"] * count,
        values=values,
        headers=headers,
        timestamps_ms=[1_700_000_000_000] * count,
        size=sum(len(value or b"") for value in values),
        fetched_s=0.0,
        attempts=1,
    )


@dataclass
class Told:
    """What a sink told."""

    events: list[Any] = field(default_factory=list)

    def of(self, kind: type[Any]) -> list[Any]:
        """Return the events of a kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def delivered(self) -> int:
        """The newest ticket that a barrier has passed."""
        return max((event.ticket for event in self.of(Delivered)), default=0)

    @property
    def parked(self) -> set[tuple[int, int]]:
        """Ticket and number of what is parked; the sink tells each once, and before the barrier that leaves it out."""
        places: set[tuple[int, int]] = set()
        delivered = 0
        for event in self.events:
            if isinstance(event, Delivered):
                delivered = event.ticket
            elif isinstance(event, Parked):
                assert (event.ticket, event.index) not in places, "parked twice"
                assert event.ticket > delivered, "parked after it was said to be delivered"
                places.add((event.ticket, event.index))
            elif isinstance(event, Unparked):
                places.remove((event.ticket, event.index))
            elif isinstance(event, DeliveryFailed):
                places.discard((event.ticket, event.index))
        return places


def turn_until(
    sink: Sink | TransactionalSink, holds: Callable[[Told], bool], told: Told | None = None, wait_s: float = WAIT_S
) -> Told:
    """Play the loop for a sink, barriers included, until something holds; return what it told."""
    told = told or Told()
    deadline_s = time.monotonic() + wait_s
    while not holds(told):
        assert time.monotonic() < deadline_s, f"not in {wait_s} s: {told.events[-5:]} {sink.complaints()}"
        if sink.wait(0.05):
            sink.flush()
        told.events += sink.events()
    return told


def settle(sink: Sink, ticket: int) -> list[DeliveryFailed]:
    """Take events until everything up to the ticket is delivered or reported; return what was reported."""
    told = turn_until(sink, lambda told: told.delivered >= ticket)
    assert told.parked == set()
    return told.of(DeliveryFailed)
