"""Outcomes out: an idempotent producer for results and dead letters, and the barrier that tells they arrived.

Owns the producer and everything handed over that is not known to be delivered. Must not know offsets to commit.

Theory of operation. A report per delivered record costs as much as producing it, so the client reports errors only, and
a *barrier* tells the rest: when nothing is left in the client, everything handed over was acknowledged, but for what
was reported. While a barrier is being passed, later hand-overs wait here. A report has no headers and no number: it
finds its record by key and value within its hand-over. Some errors condemn a whole batch for one record in it: those
records are sent again by a second producer that puts each into a batch of its own, so that only the culprit fails.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, repeat
from operator import itemgetter, length_hint
from typing import Any

from confluent_kafka import KafkaException, Producer

from consumer.core.actions import DeadLetter, Produce
from consumer.core.events import Delivered, DeliveryFailed
from consumer.core.types import Failure, Headers, ModelId, Run, Ticket
from consumer.errors import ClientError
from consumer.kafka.dead_letters import letter_headers
from consumer.kafka.errors import Complaint, Complaints
from consumer.kafka.handovers import HandOver, Letters
from consumer.kafka.settings import Value
from schemas.headers import DEAD_LETTER_PREFIX, without_dead_letter

STALL_S = 5.0
"""A barrier that takes longer is stuck: what the client still has not sent is given back."""
MESSAGE_BYTES_DEFAULT = 1_000_000
"""The client's own `message.max.bytes` and `batch.size`."""

TOO_LARGE = "the record is larger than the topic's max.message.bytes"


@dataclass(frozen=True, slots=True)
class Routes:
    """Where outcomes go."""

    results: Mapping[ModelId, str]
    """The topic of each model's results."""
    dead_letters: Callable[[str], str]
    """From an input topic to the topic of its dead letters."""
    key: str = "id"
    """The key of results: `id`, `source-key` or `header:NAME`."""
    bytes_max: Mapping[str, int] = field(default_factory=dict)
    """`max.message.bytes` of the output topics, where known."""


class Sink:
    """The producer of results and dead letters. Every method is the loop thread's alone, and none waits for ever."""

    def __init__(self, settings: Mapping[str, Value], routes: Routes) -> None:
        """Make the client.

        Raises:
            ClientError: the client refuses its settings.
        """
        self._routes = routes
        self._compresses = any(settings.get(n, "none") != "none" for n in ("compression.type", "compression.codec"))
        self._settings = {**_sizes(routes.bytes_max), **settings}
        self._complaints = Complaints()
        self._main = self._make({})
        self._alone: Producer | None = None
        """Made when first needed: sends every record in a batch of its own."""
        self._waiting: deque[HandOver] = deque()
        """Handed over, and not (all) in the client yet: its queue is full, or a barrier is being passed."""
        self._suspects: list[tuple[HandOver, int]] = []
        self._events: list[Delivered | DeliveryFailed] = []
        self._handed = self._delivered = Ticket(0)
        self._barrier_since_s: float | None = None

    @property
    def in_flight(self) -> int:
        """Outcomes handed over that the client has not sent or heard of; a few more than there are, at times."""
        waiting = sum(len(each.values) - each.first for each in self._waiting)
        return waiting + len(self._main) + (len(self._alone) if self._alone is not None else 0)

    def produce(self, action: Produce) -> None:
        """Take results. What the client has no room for waits here and follows with later calls."""
        headers: list[Any] | None = None
        if any(run.headers is not None for run in action.runs):
            headers = _carried([each for run in action.runs for each in _headers(run)])
        topic = self._routes.results[action.model]
        self._take(HandOver(self, action.ticket, topic, self._keys(action), action.values, headers))

    def dead_letter(self, action: DeadLetter) -> None:
        """Take dead letters; one too large for its topic becomes an envelope of headers."""
        run = action.run
        headers = [letter_headers(run, i, failure) for i, failure in enumerate(action.failures)]
        topic = self._routes.dead_letters(run.partition.topic)
        self._take(
            Letters(self, action.ticket, topic, run.keys, run.values, headers, run=run, failures=action.failures)
        )

    def events(self) -> list[Delivered | DeliveryFailed]:
        """Return what became known since the last call, after giving the client a turn; never waits.

        Raises:
            ClientError: the client met a fatal error.
        """
        self._turn()
        events, self._events = self._events, []
        return events

    def flush(self, timeout_s: float) -> bool:
        """Pass a barrier behind all that was handed over, waiting up to `timeout_s`; tell whether it passed.

        One that did not pass yet goes on with the next calls of any method, and hand-overs wait behind it. `events`
        has its `Delivered`.

        Raises:
            ClientError: the client met a fatal error.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            self._turn()
            if self._delivered == self._handed:
                return True
            if self._barrier_since_s is None and not self._waiting:
                self._barrier_since_s = time.monotonic()
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return False
            for client in filter(None, (self._main, self._alone)):
                self._call(client.flush, min(left_s, 0.1))

    def complaints(self) -> list[Complaint]:
        """Return what the client complained about since the last call, each kind once."""
        return self._complaints.take()

    def close(self) -> None:
        """Give up what is still in the client; flush first."""
        for client in filter(None, (self._main, self._alone)):
            client.purge()
            client.flush(0.1)

    # -- towards the client ------------------------------------------------------------------------------------------

    def _make(self, settings: Mapping[str, Value]) -> Producer:
        made: dict[str, Any] = {**self._settings, **settings}
        made |= {"error_cb": self._complaints.note, "logger": logging.getLogger(__name__)}
        try:
            return Producer(made)
        except KafkaException as error:
            raise ClientError(f"the producer cannot start: {error.args[0].str()}") from None

    def _take(self, handed: HandOver) -> None:
        assert handed.ticket > self._handed, "tickets rise"
        self._handed = handed.ticket
        limit = self._routes.bytes_max.get(handed.topic)
        if limit is not None and not self._compresses:
            handed.measure(limit)
        self._waiting.append(handed)
        self._turn()

    def _turn(self) -> None:
        """Serve reports, hand on what waits, and see whether the barrier passed."""
        for client in filter(None, (self._main, self._alone)):
            self._call(client.poll, 0)
        if self._complaints.fatal is not None:
            raise ClientError(f"the producer is broken for good: {self._complaints.fatal}")
        if self._suspects:
            self._send_suspects()
        if self._barrier_since_s is None or self._is_empty():
            self._pass_barrier()
            while self._waiting and self._send(self._waiting[0]):
                self._waiting.popleft()
        elif time.monotonic() - self._barrier_since_s > STALL_S:
            # A topic without a leader, or one that refuses for now, would hold everybody's commits back.
            self._main.purge(in_queue=True, in_flight=False)
            self._barrier_since_s = time.monotonic()

    def _is_empty(self) -> bool:
        return not self._suspects and len(self._main) == 0 and (self._alone is None or len(self._alone) == 0)

    def _pass_barrier(self) -> None:
        """Tell how far everything is delivered, if nothing is left in the client."""
        if self._delivered == self._handed or not self._is_empty():
            return
        self._barrier_since_s = None
        # A hand-over that waits is not in the client: everything before it is delivered.
        ticket = Ticket(self._waiting[0].ticket - 1) if self._waiting else self._handed
        if ticket > self._delivered:
            self._delivered = ticket
            self._events.append(Delivered(ticket))

    def _send(self, handed: HandOver) -> bool:
        """Give the client what is left of a hand-over; tell whether it took all. The loop over records is in C."""
        while handed.first < len(handed.values):
            stop = handed.oversized[0] if handed.oversized else len(handed.values)
            part = slice(handed.first, stop)
            values = iter(handed.values[part])
            columns = [repeat(handed.topic), values, handed.keys[part], repeat(-1), handed.reports()]
            if handed.headers is not None:
                columns += [repeat(None), repeat(0), handed.headers[part]]
            try:
                deque(map(self._main.produce, *columns), maxlen=0)
            except BufferError:
                handed.first = stop - length_hint(values) - 1
                return False
            except KafkaException as error:
                refused = stop - length_hint(values) - 1
                handed.first = refused + 1
                handed.refuse(refused, error.args[0], is_alone=True)
                continue
            handed.first = stop
            if handed.oversized:
                handed.condemn(handed.oversized.popleft(), "too-large", "MSG_SIZE_TOO_LARGE", TOO_LARGE)
                handed.first += 1
        return True

    def _send_suspects(self) -> None:
        """Send records that an error of their whole batch hit, each in a batch of its own."""
        if self._alone is None:
            self._alone = self._make({"batch.num.messages": 1, "linger.ms": 0})
        suspects, self._suspects = self._suspects, []
        for number, (handed, index) in enumerate(suspects):
            key, value, headers = handed.row(index)
            report = partial(handed.report_alone, index)
            try:
                self._alone.produce(handed.topic, value, key, -1, report, None, 0, headers)
            except BufferError:
                self._suspects = suspects[number:]
                return
            except KafkaException as error:
                handed.refuse(index, error.args[0], is_alone=True)

    def _call(self, client_call: Callable[[float], int], timeout_s: float) -> None:
        try:
            client_call(timeout_s)
        except Exception as error:  # flush raised SystemError after a fatal error
            if isinstance(error, KafkaException):
                self._complaints.note(error.args[0])
            elif self._complaints.fatal is None:
                raise

    def _keys(self, action: Produce) -> Sequence[bytes | None]:
        if self._routes.key == "id":
            return action.keys
        if self._routes.key == "source-key":
            return [key for run in action.runs for key in run.keys]
        name = self._routes.key.partition(":")[2]
        return [
            next((value for each, value in reversed(headers or ()) if each == name), None)
            for run in action.runs
            for headers in _headers(run)
        ]

    # -- from the hand-overs -----------------------------------------------------------------------------------------

    def suspect(self, handed: HandOver, index: int) -> None:
        """Send a record again, alone."""
        self._suspects.append((handed, index))

    def fail(self, ticket: Ticket, index: int, failure: Failure) -> None:
        """Report a record as not delivered."""
        self._events.append(DeliveryFailed(ticket, index, failure))


def _carried(column: list[Headers | None]) -> list[Any]:
    """Drop the headers of an earlier failure, which replayed records have, from a column of headers."""
    names = set(map(itemgetter(0), chain.from_iterable(filter(None, column))))
    if not any(name.startswith(DEAD_LETTER_PREFIX) for name in names):
        return column
    return [without_dead_letter(each) or None for each in column]


def _headers(run: Run) -> Sequence[Headers | None]:
    return run.headers if run.headers is not None else [None] * len(run)


def _sizes(bytes_max: Mapping[str, int]) -> dict[str, Value]:
    """Keep a batch below what every topic takes, and let a record be as large as any topic takes."""
    if not bytes_max:
        return {}
    return {
        "batch.size": min(MESSAGE_BYTES_DEFAULT, *bytes_max.values()),
        "message.max.bytes": max(MESSAGE_BYTES_DEFAULT, *bytes_max.values()),
    }
