"""Outcomes out, at least once: an idempotent producer for results and dead letters, and the barrier behind them.

Owns the producers and everything handed over that is not known to be delivered. Must not know offsets to commit.

Theory of operation. A report per delivered record costs as much as producing it, so the client reports errors only, and
a *barrier* tells the rest: when nothing is left in the client, everything handed over was acknowledged, but for what
was reported. While a barrier is being passed, later hand-overs wait here. A report has no headers and no number: it
finds its record by key and value within its hand-over.

A second producer, *apart*, sends single records in batches of their own and reports each. It gets the records that an
error of their whole batch hit, so that only the culprit fails; and one record at a time of each *parked* topic: one
whose deliveries fail for other reasons than the record's own (`parking`).

A barrier that makes no progress for `STALL_S` while a broker answers hangs on topics that take nothing. What the client
has not sent is called back: that names the topics, and parks them. What it has sent and not heard of cannot be called
back without the risk of a second copy: the client is *retired* with it, another one takes its place, and all records
that the retired one may still have are parked until it is empty. While no broker answers at all nothing is parked: the
client sends everything again by itself, without doubling, once they are back.
"""

import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from consumer.core.events import Delivered, DeliveryFailed, Parked, TopicParked, TopicResumed, Unparked
from consumer.core.types import Disposition, Failure, Ticket, TopicPartition
from consumer.errors import ClientError
from consumer.kafka.contact import INTERVAL_MS, Contact
from consumer.kafka.handovers import HandOver
from consumer.kafka.outlet import TOO_LARGE, UNHEARD, Outlet, send_one, send_stretch
from consumer.kafka.parking import ParkedTopic, Parking, Place
from consumer.kafka.retired import Retired
from consumer.kafka.routes import Routes
from consumer.kafka.settings import Value
from consumer.kafka.stalls import STALL_S, Stall

__all__ = ["Routes", "Sink"]

HASTEN_S = 0.001
"""How long the client is told to send what lingers: it heeds that only as long as the call lasts."""

APART = {
    "batch.num.messages": 1,
    "linger.ms": 0,
    "delivery.report.only.error": False,
    "statistics.interval.ms": INTERVAL_MS,
}
"""What the client apart has of its own."""


class Sink(Outlet):
    """The producer of results and dead letters. Every method is the loop thread's alone, and none waits for ever."""

    def __init__(self, settings: Mapping[str, Value], routes: Routes) -> None:
        """Make the client.

        Raises:
            ClientError: the client refuses its settings.
        """
        super().__init__(settings, routes)
        self._main = self._make({})
        self._apart: Producer | None = None
        """Made when first needed, and anew if it has forgotten all brokers; the main one is seen to hang then."""
        self._contact = Contact()
        """That of the client apart."""
        self._retired: list[Retired] = []
        self._sent: list[HandOver] = []
        """In the client since the last barrier, whole or in part."""
        self._again: deque[Place] = deque()
        """Called back, to be sent again before the barrier passes."""
        self._resumed: deque[Place] = deque()
        """Parked records whose topic is open again."""
        self._returning: set[Place] = set()
        """Parked records that are in the main client: the next barrier delivers them."""
        self._suspects: deque[Place] = deque()
        self._suspected: set[Place] = set()
        """Suspects that the client apart has, and that the barrier waits for."""
        self._parking = Parking()
        self._lingers = False
        """The client was given records since it was last told to send all that it has."""
        self._stall = Stall(partial(self._make, UNHEARD))

    @property
    def in_flight(self) -> int:
        """Outcomes handed over that are not delivered or parked; a few more than there are, at times."""
        waiting = sum(len(each.values) - each.first for each in self._waiting)
        return waiting + len(self._main) + len(self._again) + len(self._suspects) + len(self._suspected)

    @property
    def parked(self) -> int:
        """Outcomes that wait for their topic."""
        return len(self._parking)

    def flush(self) -> None:
        """Begin a barrier behind all that was handed over; later hand-overs wait for it."""
        self._stall.begin(time.monotonic())
        super().flush()

    def hasten(self) -> None:
        """Have the client send what it keeps for `linger.ms`: nothing more is to come for now.

        So results wait for others only under load, where there are others.
        """
        if self._lingers:
            self._lingers = False
            self._call(self._main.flush, HASTEN_S)

    def fence(self, partitions: Collection[TopicPartition]) -> None:
        """Send nothing more of partitions that were taken away, and forget what waits of them."""
        found = False
        for handed in {*self._waiting, *self._sent, *(each for each, _ in self._places())}:
            found = handed.fence(partitions) or found
        if not found:
            return
        if len(self._main):
            # What is on its way to the broker cannot be stopped, but what the client still holds can.
            self._main.purge(in_queue=True, in_flight=False)
            self._call(self._main.poll, 0)
        self._again = _open(self._again)
        self._suspects = _open(self._suspects)
        self._resumed = _open(self._resumed)
        self._returning = set(_open(self._returning))
        self._resume(self._parking.fence())

    def close(self) -> None:
        """Give up what is still in the client; flush first."""
        for client in (self._main, self._apart, *(retired.client for retired in self._retired)):
            if client is not None:
                client.purge()
                client.flush(0.1)

    # -- one turn ----------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Serve reports, hand on what waits, and see whether the barrier passed."""
        now_s = time.monotonic()
        self._call(self._main.poll, 0)
        if self._apart is not None:
            self._call(self._apart.poll, 0)
            if self._contact.is_lost:
                self._retired.append(Retired(self._apart, [], now_s))
                self._apart = None
        for retired in list(self._retired):
            self._look_after(retired, now_s)
        if self._complaints.fatal is not None:
            raise ClientError(f"the producer is broken for good: {self._complaints.fatal}")
        self._send_apart(now_s)
        while self._again and self._send_one(*self._again[0]):
            self._again.popleft()
        if self._is_empty():
            self._pass_barrier()
        elif self._in_barrier:
            self._look_into_stall(now_s)
        if not self._in_barrier:
            self._send_waiting(now_s)

    @property
    def _in_barrier(self) -> bool:
        """Tell whether the client has all that the barrier waits for."""
        return self._barrier is not None and not (self._waiting and self._waiting[0].ticket <= self._barrier)

    def _wait(self, timeout_s: float) -> None:
        if len(self._main):
            self._call(self._main.flush, timeout_s)
        elif self._apart is not None and self._suspected:
            self._call(self._apart.poll, timeout_s)

    def _is_empty(self) -> bool:
        return not (len(self._main) or self._again or self._suspects or self._suspected)

    def _pass_barrier(self) -> None:
        """Tell how far everything is delivered: nothing is left in the client."""
        self._lingers = False
        self._stall.begin(time.monotonic())
        for handed, index in self._returning:
            self._unpark(handed, index)
        self._returning.clear()
        # A hand-over that waits is not in the client: everything before it is delivered.
        ticket = Ticket(self._waiting[0].ticket - 1) if self._waiting else self._handed
        self._sent = self._sent[-1:] if self._waiting and self._waiting[0].first else []
        if ticket > self._delivered:
            self._delivered = ticket
            self._events.append(Delivered(ticket))
        if self._barrier is not None and self._delivered >= self._barrier:
            self._barrier = None

    def _send_waiting(self, now_s: float) -> None:
        while self._resumed:
            handed, index = self._resumed[0]
            if handed.topic in self._parking:  # closed again meanwhile
                self._parking.park(handed, index, now_s)
            elif self._send_one(handed, index):
                if index in handed.parked and index not in handed.reported:
                    self._returning.add((handed, index))
            else:
                return
            self._resumed.popleft()
        while self._waiting and not self._in_barrier and self._send(self._waiting[0]):
            self._waiting.popleft()

    def _send(self, handed: HandOver) -> bool:
        """Give the client what is left of a hand-over; tell whether it took all. The loop over records is in C."""
        if not self._sent or self._sent[-1] is not handed:
            self._sent.append(handed)
        for stretch in handed.stretches():
            handed.first = stretch.start
            if stretch.start in handed.oversized:
                handed.first = stretch.stop
                handed.condemn(stretch.start, "too-large", "MSG_SIZE_TOO_LARGE", TOO_LARGE)
            elif handed.topic in self._parking:
                handed.first = stretch.stop
                for index in stretch:
                    self._wait_for_topic(handed, index)
            elif not self._send_stretch(handed, stretch):
                return False
        handed.first = len(handed.values)
        return True

    def _send_stretch(self, handed: HandOver, stretch: range) -> bool:
        self._lingers = True
        while handed.first < stretch.stop:
            try:
                send_stretch(self._main, handed, stretch.stop)
            except BufferError:
                return False
            except KafkaException as error:
                handed.first += 1
                handed.refuse(handed.first - 1, error.args[0], is_alone=True)
                if handed.topic in self._parking:
                    for index in range(handed.first, stretch.stop):
                        self._wait_for_topic(handed, index)
                    handed.first = stretch.stop
        return True

    def _send_one(self, handed: HandOver, index: int) -> bool:
        """Give the client one record; False if it has no room."""
        if index in handed.fenced:
            return True
        handed.reported.discard(index)
        self._lingers = True
        try:
            return send_one(self._main, handed, index, partial(handed.report_one, index))
        except KafkaException as error:
            handed.refuse(index, error.args[0], is_alone=True)
            return True

    # -- a barrier that hangs ----------------------------------------------------------------------------------------

    def _look_into_stall(self, now_s: float) -> None:
        """Find out what a barrier hangs on, and go on without it."""
        match self._stall.look(len(self._main) + len(self._suspected), now_s):
            case "absent":
                self._complaints.note(KafkaError(KafkaError._ALL_BROKERS_DOWN))  # noqa: SLF001 - its name
            case "recall":
                for client in filter(None, (self._main, self._apart)):
                    client.purge(in_queue=True, in_flight=False)
            case "retire":
                self._retire(now_s)

    def _retire(self, now_s: float) -> None:
        """Go on with another client: what the present one has sent and not heard of is parked until it has."""
        places = list(self._returning)
        for handed in self._sent:
            places += [(handed, i) for i in range(handed.first) if i not in handed.reported | handed.fenced]
        for handed, index in places:
            self._tell_parked(handed, index)
        self._returning.clear()
        if len(self._main):
            self._retired.append(Retired(self._main, places, now_s))
            self._main = self._make({})
        # The client apart tells of each record, so it can stay.
        for handed, index in self._suspected:
            self._tell_parked(handed, index)
        self._suspected.clear()

    def _look_after(self, retired: Retired, now_s: float) -> None:
        """See what a retired client has heard."""
        self._call(retired.client.poll, 0)
        if not retired.is_done(now_s):
            return
        self._retired.remove(retired)
        for handed, index in retired.places:
            if index not in handed.reported:
                self._unpark(handed, index)

    # -- records apart -----------------------------------------------------------------------------------------------

    def _send_apart(self, now_s: float) -> None:
        """Send suspects, and the probes that are due, each in a batch of its own."""
        while self._suspects:
            place = self._suspects[0]
            if not self._send_alone(*place):
                return
            self._suspects.popleft()
        for handed, index in list(self._parking.due(now_s)):
            if not self._send_alone(handed, index):
                self._parking.failed(handed.topic, now_s)
                self._parking.park(handed, index, now_s)

    def _send_alone(self, handed: HandOver, index: int) -> bool:
        if self._apart is None:
            self._contact = Contact()
            self._apart = self._make({**APART, "stats_cb": self._contact.note})
        if not self._parking.is_probed(handed, index):
            self._suspected.add((handed, index))
        try:
            has_room = send_one(self._apart, handed, index, partial(self._heard_apart, handed, index))
        except KafkaException as error:
            self._refused_apart(handed, index, error.args[0])
            return True
        if not has_room:
            self._suspected.discard((handed, index))
        return has_room

    def _heard_apart(self, handed: HandOver, index: int, error: KafkaError | None, _message: Message) -> None:
        """Take the report of a record that was sent alone."""
        if error is not None:
            self._refused_apart(handed, index, error)
            return
        self._suspected.discard((handed, index))
        if index in handed.parked:
            self._unpark(handed, index)
        if self._parking.is_probed(handed, index):
            parked = self._parking.opened(handed.topic)
            self._resumed.extend(parked.records)
            self._events.append(TopicResumed(parked.topic, parked.model))

    def _refused_apart(self, handed: HandOver, index: int, error: KafkaError) -> None:
        now_s = time.monotonic()
        self._suspected.discard((handed, index))
        is_probe = self._parking.is_probed(handed, index)
        if is_probe:
            self._parking.undecided(handed.topic, now_s)
        handed.refuse(index, error, is_alone=True)
        if is_probe and handed.topic in self._parking:
            if self._parking.has(handed, index):
                self._parking.failed(handed.topic, now_s)
            self._resume(self._parking.empty())

    def _resume(self, topics: Iterable[ParkedTopic]) -> None:
        self._events.extend(TopicResumed(parked.topic, parked.model) for parked in topics)

    # -- from the hand-overs -----------------------------------------------------------------------------------------

    def suspect(self, handed: HandOver, index: int) -> None:
        """Send a record again, alone."""
        self._returning.discard((handed, index))
        self._suspects.append((handed, index))

    def recalled(self, handed: HandOver, index: int) -> None:
        """Park a record that the client had not sent, if a barrier hangs on it; else it is sent again."""
        if (handed, index) in self._returning and not self._stall.is_recalling:
            self._returning.discard((handed, index))
            self._resumed.append((handed, index))
        elif self._stall.is_recalling or index in handed.parked:
            message = f"nothing was acknowledged for {STALL_S:g} s"
            self.park(handed, index, Failure("delivery-failed", "_TIMED_OUT", message, Disposition.UNAVAILABLE))
        else:
            self._again.append((handed, index))

    def park(self, handed: HandOver, index: int, failure: Failure) -> None:
        """Have a record wait for its topic."""
        self._returning.discard((handed, index))
        if handed.topic not in self._parking:
            self._events.append(TopicParked(handed.topic, handed.model, failure))
        self._wait_for_topic(handed, index)

    def fail(self, handed: HandOver, index: int, failure: Failure) -> None:
        """Report a record as not delivered."""
        self._returning.discard((handed, index))
        handed.parked.discard(index)
        self._events.append(DeliveryFailed(handed.ticket, index, failure))

    def _wait_for_topic(self, handed: HandOver, index: int) -> None:
        handed.reported.add(index)
        self._tell_parked(handed, index)
        self._parking.park(handed, index, time.monotonic())

    def _tell_parked(self, handed: HandOver, index: int) -> None:
        if index not in handed.parked:
            handed.parked.add(index)
            self._events.append(Parked(handed.ticket, index))

    def _unpark(self, handed: HandOver, index: int) -> None:
        if index in handed.parked:
            handed.parked.discard(index)
            self._events.append(Unparked(handed.ticket, index))

    def _places(self) -> Iterable[Place]:
        """Walk the single records that are still here, wherever they wait."""
        yield from self._again
        yield from self._resumed
        yield from self._returning
        yield from self._suspects
        yield from self._suspected
        yield from self._parking.places()
        for retired in self._retired:
            yield from retired.places


def _open(places: Iterable[Place]) -> deque[Place]:
    return deque((handed, index) for handed, index in places if index not in handed.fenced)
