"""What is in a transaction, or was in one that was aborted: every outcome that no commit has confirmed yet.

Owns those hand-overs, and the order in which a client is given them. Must not know when a transaction begins or ends,
nor which topics are at fault.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from consumer.core.events import Unparked
from consumer.core.types import TopicPartition
from consumer.kafka.handovers import HandOver
from consumer.kafka.outlet import TOO_LARGE, send_one, send_stretch
from consumer.kafka.parking import Place


class Contents:
    """The hand-overs of one transaction after the other."""

    def __init__(self) -> None:
        """Start with none."""
        self.retained: list[HandOver] = []
        """All of them, in the order of their tickets but for those that were tried apart."""
        self._unsent: deque[HandOver] = deque()
        """Those that are not (all) in the client."""
        self._suspects: deque[Place] = deque()
        """Records, each to be sent when nothing else is on its way."""
        self._returning: list[HandOver] = []
        """Those that were parked, and that a client has again."""

    @property
    def is_all_sent(self) -> bool:
        """Tell whether a client was given everything."""
        return not self._unsent and not self._suspects

    @property
    def has_unsent(self) -> bool:
        """Tell whether there is something to send that need not be alone."""
        return bool(self._unsent)

    @property
    def has_suspects(self) -> bool:
        """Tell whether the next that is to be sent is one record alone."""
        return bool(self._suspects) and not self._unsent

    def add(self, handed: HandOver) -> None:
        """Take one hand-over more."""
        self.retained.append(handed)
        self._enlist(handed)

    def restart(self, retained: Iterable[HandOver]) -> None:
        """Have these, and nothing else, sent from the beginning."""
        self.clear()
        for handed in retained:
            self.add(handed)

    def clear(self) -> None:
        """Be done with everything."""
        self.retained = []
        self._unsent.clear()
        self._suspects.clear()
        self._returning.clear()

    def fence(self, partitions: Collection[TopicPartition]) -> bool:
        """Let nobody send what is of these partitions any more; tell whether there is some."""
        found = [handed.fence(partitions) for handed in self.retained]
        return any(found)

    def suspect(self, handed: HandOver, index: int) -> None:
        """Have a record sent alone, when everything else is."""
        self._suspects.append((handed, index))

    def send(self, client: Producer) -> None:
        """Give a client what need not be alone, as far as it has room.

        Raises:
            KafkaException: the client refuses a record, which has its report by then.
        """
        while self._unsent and _send(client, self._unsent[0]):
            self._unsent.popleft()

    def send_alone(self, client: Producer) -> None:
        """Give a client, which has nothing else, the next record that is to be alone."""
        handed, index = self._suspects.popleft()
        try:
            send_one(client, handed, index, partial(_heard_alone, handed, index))
        except KafkaException as error:
            handed.refuse(index, error.args[0], is_alone=True)

    def unpark(self) -> Iterator[Unparked]:
        """Tell of what was parked and is acknowledged now: the next commit may name it."""
        for handed in self._returning:
            handed.is_resolved = True
            for index in sorted(handed.parked - handed.fenced):
                yield Unparked(handed.ticket, index)
            handed.parked.clear()
        self._returning.clear()

    def _enlist(self, handed: HandOver) -> None:
        """Have all of a hand-over sent."""
        handed.restart()
        self._unsent.append(handed)
        self._suspects.extend((handed, index) for index in sorted(handed.apart - handed.fenced))
        if handed.parked:
            self._returning.append(handed)


def _send(client: Producer, handed: HandOver) -> bool:
    """Give a client what is left of a hand-over; tell whether it had room for all."""
    for stretch in handed.stretches():
        handed.first = stretch.start
        if stretch.start in handed.oversized:
            handed.first = stretch.stop
            handed.condemn(stretch.start, "too-large", "MSG_SIZE_TOO_LARGE", TOO_LARGE)
            continue
        try:
            send_stretch(client, handed, stretch.stop)
        except BufferError:
            return False
        except KafkaException as error:
            handed.refuse(handed.first, error.args[0], is_alone=True)
            raise
    handed.first = len(handed.values)
    return True


def _heard_alone(handed: HandOver, index: int, error: KafkaError | None, _message: Message) -> None:
    if error is not None:
        handed.refuse(index, error, is_alone=True)
