"""Topics that a transaction failed on: set aside with their outcomes, tried apart, and parked where they refuse.

Owns which topics those are, their hand-overs, and the rhythm of the tries. Must not know the transaction.

Theory of operation. A transaction that fails says which records were not acknowledged, not always whose fault that was:
one refused topic takes the others' records with it. So the topics of all of them are *suspended* until they are tried,
each with one of its records, in a transaction of a client of its own that is aborted in any case. Its id is a spare,
which the topic keeps until it takes records: an abort that gets stuck there tells nothing of other topics. A topic that
takes the record was innocent: its hand-overs go on. One that does not is *parked*, which the core is told, and tried
again with backoff. A hand-over whose delivery the core was told of cannot be parked any more: until its topic takes it,
no transaction can be committed.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Producer

from consumer.core.events import Parked, TopicParked, TopicResumed
from consumer.core.types import Disposition, Failure, Ticket, TopicPartition
from consumer.errors import BrokerError
from consumer.kafka.errors import described, one_line
from consumer.kafka.handovers import CONDEMNING, HandOver
from consumer.kafka.operations import Ending, Operation, discard
from consumer.kafka.outlet import SinkEvent, send_one
from consumer.kafka.parking import PROBE_BACKOFF_S, PROBE_BACKOFF_S_MAX, Place
from consumer.kafka.spares import Spares
from consumer.kafka.succession import START_TIMEOUT_S, at_once, end_last, is_stuck

NOT_ALLOWED = (
    "delivery: exactly-once needs spare transactional ids besides its own, such as {}, and the brokers refuse that one "
    "(allow Write and Describe for all that begin with its own id)"
)
ANSWER_S = 2.0
"""A topic that does not take a single record for so long refuses."""


@dataclass(slots=True)
class Suspended:
    """One topic that is not to be in a transaction now."""

    place: Place
    """The record to try it with."""
    is_blamed: bool
    """That record was refused, and not only given back."""
    handovers: list[HandOver] = field(default_factory=list)
    is_parked: bool = False
    """It was tried in vain, and the core was told."""
    try_at_s: float = 0.0
    backoff_s: float = PROBE_BACKOFF_S
    spare: str | None = None
    """The transactional id to try it with."""
    has_used_spare: bool = False


class Trials:
    """Every topic that is not to be in a transaction now."""

    def __init__(self, make: Callable[[str], Producer], spares: Spares, tell: Callable[[SinkEvent], None]) -> None:
        """Start with none; `make` makes the client of an id to try a topic with, `tell` takes events."""
        self._make = make
        self._spares = spares
        self._tell = tell
        self._topics: dict[str, Suspended] = {}
        self._trial: tuple[str, Operation] | None = None
        self._blamed: dict[str, Place] = {}
        """Topics that refused a record in the present transaction."""
        self._given_back: dict[str, Place] = {}
        """Topics of which the client gave back a record in the present transaction."""
        self._cleared: list[HandOver] = []

    def __len__(self) -> int:
        """Count the outcomes that wait here."""
        return sum(len(each.values) for each in self._handovers())

    @property
    def is_undecided(self) -> bool:
        """Tell whether hand-overs wait here that the core expects to be delivered."""
        return any(not each.parked for each in self._handovers())

    def prepare(self) -> None:
        """See at the start whether topics may be tried at all: else innocent ones would be parked with the guilty.

        Raises:
            BrokerError: the brokers refuse the client that tries them, or do not answer.
        """
        spare = self._spares.take()
        assert spare is not None, "nothing was taken yet"
        client = self._make(spare)
        error = end_last(client, START_TIMEOUT_S, at_once)
        discard(client)
        self._spares.put_back(spare, has_ended=error is None)
        if error is not None and not is_stuck(error):
            raise BrokerError(f"{NOT_ALLOWED.format(spare)}: {described(error)}")

    def close(self) -> None:
        """Begin nothing more."""
        if self._trial is not None:
            self._trial[1].abandon()

    # -- while a transaction goes on; in an aborting thread, too

    def blame(self, handed: HandOver, index: int) -> None:
        """Take a record that its topic refused."""
        self._blamed.setdefault(handed.topic, (handed, index))

    def give_back(self, handed: HandOver, index: int) -> None:
        """Take a record that the client gave back, perhaps for another one's sake."""
        self._given_back.setdefault(handed.topic, (handed, index))

    # -- when it has ended

    def suspend(self, retained: Iterable[HandOver], *, is_explained: bool) -> list[HandOver]:
        """Set aside what is retained for topics at fault; return the others.

        Args:
            retained: what the transaction held.
            is_explained: no topic is needed to explain the transaction's end: records that were given back say nothing.
        """
        suspects = self._blamed or ({} if is_explained else self._given_back)
        for topic, place in suspects.items():
            self._topics.setdefault(topic, Suspended(place, is_blamed=bool(self._blamed)))
        self._blamed, self._given_back = {}, {}
        left = [handed for handed in retained if not self.takes(handed)]
        self._forget_empty()
        return left

    def takes(self, handed: HandOver) -> bool:
        """Set a hand-over aside if its topic is suspended."""
        suspended = self._topics.get(handed.topic)
        if suspended is None:
            return False
        suspended.handovers.append(handed)
        if suspended.is_parked and not handed.parked:
            self._park(handed)
        return True

    def turn(self, delivered: Ticket) -> None:
        """Try the topics that are due, one after the other; the core was told of deliveries up to a ticket."""
        if self._trial is None:
            self._try_next(delivered)
            return
        topic, operation = self._trial
        if operation.wait(0):
            self._judge(topic, operation.ending.error, delivered)
        elif operation.is_hung():
            operation.abandon()
            self._judge(topic, _silence(), delivered)
        else:
            return
        self._trial = None

    def cleared(self, *, with_parked: bool) -> list[HandOver]:
        """Take the hand-overs of topics that take records again; those that were parked only if they are wanted."""
        ready = [each for each in self._cleared if with_parked or not each.parked]
        if ready:
            self._cleared = [] if with_parked else [each for each in self._cleared if each.parked]
        return ready

    def fence(self, partitions: Collection[TopicPartition]) -> None:
        """Drop what nobody may send any more."""
        for handed in self._handovers():
            handed.fence(partitions)
        self._cleared = [each for each in self._cleared if not each.is_fenced]
        for suspended in self._topics.values():
            suspended.handovers = [each for each in suspended.handovers if not each.is_fenced]
        self._forget_empty()

    # -- tries

    def _handovers(self) -> Iterator[HandOver]:
        yield from self._cleared
        for suspended in self._topics.values():
            yield from suspended.handovers

    def _try_next(self, delivered: Ticket) -> None:
        now_s = time.monotonic()
        for topic, suspended in self._topics.items():
            if now_s < suspended.try_at_s:
                continue
            handed, index = suspended.place
            if index in handed.fenced:
                handed = suspended.handovers[0]
                index = next(i for i in range(len(handed.values)) if i not in handed.fenced)
                suspended.place, suspended.is_blamed = (handed, index), False
            suspended.spare = suspended.spare or self._spares.take()
            if suspended.spare is None:
                self._judge(topic, _silence(), delivered)
                continue
            call = partial(probe, partial(self._make, suspended.spare), suspended.place, suspended.is_blamed)
            self._trial = topic, Operation(call, None)
            return

    def _judge(self, topic: str, error: KafkaError | None, delivered: Ticket) -> None:
        suspended = self._topics.get(topic)
        if suspended is None:
            return  # fenced meanwhile
        if error is not None and is_stuck(error) and not suspended.has_used_spare:
            self._put_back(suspended, has_ended=False)
            return  # by another topic, for which nothing waits any more
        suspended.has_used_spare = True
        if error is None:
            self._cleared += suspended.handovers
            self._resume(topic, is_open=True)
            return
        suspended.try_at_s = time.monotonic() + suspended.backoff_s
        suspended.backoff_s = min(PROBE_BACKOFF_S_MAX, 2 * suspended.backoff_s)
        if suspended.is_parked:
            return
        suspended.is_parked = True
        failure = Failure("delivery-failed", error.name(), one_line(error), Disposition.UNAVAILABLE)
        self._tell(TopicParked(topic, suspended.place[0].model, failure))
        for handed in suspended.handovers:
            if not handed.parked and not handed.is_resolved and handed.ticket > delivered:
                self._park(handed)

    def _park(self, handed: HandOver) -> None:
        for index in range(len(handed.values)):
            if index not in handed.fenced:
                handed.parked.add(index)
                self._tell(Parked(handed.ticket, index))

    def _forget_empty(self) -> None:
        """Take topics for which nothing waits as open: the next record will show."""
        for topic in [topic for topic, suspended in self._topics.items() if not suspended.handovers]:
            self._resume(topic, is_open=False)

    def _resume(self, topic: str, *, is_open: bool) -> None:
        suspended = self._topics.pop(topic)
        self._put_back(suspended, has_ended=is_open)
        if suspended.is_parked:
            self._tell(TopicResumed(topic, suspended.place[0].model))

    def _put_back(self, suspended: Suspended, *, has_ended: bool) -> None:
        if suspended.spare is not None:
            self._spares.put_back(suspended.spare, has_ended=has_ended)
            suspended.spare = None


def probe(make: Callable[[], Producer], place: Place, is_blamed: bool, operation: Operation) -> Ending:
    """Produce one record in a transaction that is then aborted; the ending's error is why its topic did not take it."""
    handed, index = place
    refused: list[KafkaError] = []
    client = make()
    error = end_last(client, ANSWER_S, operation.repeat)
    if error is None:
        try:
            client.begin_transaction()
            send_one(client, handed, index, lambda why, _message: refused.append(why) if why is not None else None)
            if client.flush(ANSWER_S):
                error = _silence()
            elif refused:
                error = refused[0]
                client.begin_transaction()  # raises why the one that is open has failed
        except KafkaException as raised:
            error = raised.args[0]
        with suppress(KafkaException):
            operation.repeat(client.abort_transaction, time.monotonic() + ANSWER_S)
    if error is not None and error.code() == KafkaError._TIMED_OUT:  # noqa: SLF001 - its name
        error = _silence()
    if refused and refused[0].code() in CONDEMNING:
        error = refused[0] if is_blamed else None  # the record's own fault says nothing of the topic
    discard(client)
    return Ending(error=error)


def _silence() -> KafkaError:
    return KafkaError(KafkaError._TIMED_OUT, f"nothing was acknowledged for {ANSWER_S:g} s")  # noqa: SLF001 - its name
