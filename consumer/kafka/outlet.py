"""What both sinks are: outcomes taken from the core, handed to a client of Kafka's, and events told back.

Owns the way of an outcome from the core's action into a client's queue. Must not know when it counts as delivered, nor
what follows from an error.
"""

import logging
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from itertools import repeat
from operator import length_hint
from typing import Any, TypeAlias

from confluent_kafka import KafkaException, Producer

from consumer.core.actions import DeadLetter, Produce
from consumer.core.events import Committed, Delivered, DeliveryFailed, Parked, TopicParked, TopicResumed, Unparked
from consumer.core.types import Ticket
from consumer.errors import ClientError, Complaint
from consumer.kafka.errors import Complaints
from consumer.kafka.handovers import HandOver, Report, Reporter
from consumer.kafka.routes import Routes, compresses
from consumer.kafka.settings import Value

TOO_LARGE = "the record is larger than the topic's max.message.bytes"

UNHEARD: Mapping[str, Any] = {"error_cb": lambda _: None, "logger": logging.getLogger(f"{__name__}.unheard")}
"""What a client is made with that expects to be refused: its complaints tell nobody anything."""
UNHEARD["logger"].disabled = True

LOOK_S = 0.05
"""How long a wait for a barrier waits at once."""

SinkEvent: TypeAlias = Committed | Delivered | DeliveryFailed | Parked | Unparked | TopicParked | TopicResumed


class Outlet(Reporter):
    """The way of outcomes to the broker. Every method is the loop thread's alone, and none waits for ever."""

    def __init__(self, settings: Mapping[str, Value], routes: Routes) -> None:
        """Take the producer's settings and where outcomes go; the client is the kind's own to make."""
        self._routes = routes
        self._compresses = compresses(settings)
        self._settings = {**routes.sizes(), **settings}
        self._complaints = Complaints()
        self._waiting: deque[HandOver] = deque()
        """Handed over, and not on their way: there is no room, or a barrier or a commit comes first."""
        self._events: list[SinkEvent] = []
        self._handed = self._delivered = Ticket(0)
        self._barrier: Ticket | None = None
        """The newest hand-over that the barrier on its way is to deliver."""

    def produce(self, action: Produce) -> None:
        """Take results. What the client has no room for waits here and follows with later calls."""
        self._take(self._routes.of_results(self, action))

    def dead_letter(self, action: DeadLetter) -> None:
        """Take dead letters; one too large for its topic becomes an envelope of headers."""
        self._take(self._routes.of_letters(self, action))

    def flush(self) -> None:
        """Begin a barrier behind all that was handed over; `events` will have its `Delivered`.

        It goes on with the next calls of any method.
        """
        self._barrier = self._handed
        self._turn()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the barrier on its way; tell whether there is none. Never begins one.

        Raises:
            FencedError: another instance has the same transactional.id.
            ClientError: the client is of no use any more, and cannot be made again.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            self._turn()
            left_s = deadline_s - time.monotonic()
            if self._barrier is None or left_s <= 0:
                return self._barrier is None
            self._wait(min(left_s, LOOK_S))

    def events(self) -> list[SinkEvent]:
        """Return what became known since the last call, after giving the client a turn; never waits.

        Raises:
            FencedError: another instance has the same transactional.id.
            ClientError: the client is of no use any more, and cannot be made again.
        """
        self._turn()
        events, self._events = self._events, []
        return events

    def complaints(self) -> list[Complaint]:
        """Return what the client complained about since the last call, each kind once."""
        return self._complaints.take()

    def _tell(self, event: SinkEvent) -> None:
        self._events.append(event)

    @abstractmethod
    def _turn(self) -> None:
        """Serve reports, and do what comes next."""

    @abstractmethod
    def _wait(self, timeout_s: float) -> None:
        """Wait for what the barrier waits for."""

    def _take(self, handed: HandOver) -> None:
        assert handed.ticket > self._handed, "tickets rise"
        self._handed = handed.ticket
        limit = self._routes.bytes_max.get(handed.topic)
        if limit is not None and not self._compresses:
            handed.measure(limit)
        self._waiting.append(handed)
        self._turn()

    def _make(self, settings: Mapping[str, Any]) -> Producer:
        made: dict[str, Any] = {"error_cb": self._complaints.note, "logger": logging.getLogger(__name__)}
        try:
            return Producer({**made, **self._settings, **settings})
        except KafkaException as error:
            raise ClientError(f"the producer cannot start: {error.args[0].str()}") from None

    def _call(self, client_call: Callable[[float], int], timeout_s: float) -> None:
        try:
            client_call(timeout_s)
        except Exception as error:  # flush raised SystemError after a fatal error
            if isinstance(error, KafkaException):
                self._complaints.note(error.args[0])
            elif self._complaints.fatal is None:
                raise


def send_stretch(client: Producer, handed: HandOver, stop: int) -> None:
    """Give a client the records from `handed.first` to `stop`; the loop over them is in C.

    Whatever happens, `first` is the first record that the client does not have then.

    Raises:
        BufferError: the client has no room for that one.
        KafkaException: the client refuses that one.
    """
    part = slice(handed.first, stop)
    values = iter(handed.values[part])
    columns = [repeat(handed.topic), values, handed.keys[part], repeat(-1), handed.reports()]
    if handed.headers is not None:
        columns += [repeat(None), repeat(0), handed.headers[part]]
    try:
        deque(map(client.produce, *columns), maxlen=0)
    except (BufferError, KafkaException):
        handed.first = stop - length_hint(values) - 1
        raise
    handed.first = stop


def send_one(client: Producer, handed: HandOver, index: int, report: Report) -> bool:
    """Give a client one record with a report of its own; tell whether it had room.

    Raises:
        KafkaException: the client refuses it.
    """
    key, value, headers = handed.row(index)
    try:
        client.produce(handed.topic, value, key, -1, report, None, 0, headers)
    except BufferError:
        return False
    return True
