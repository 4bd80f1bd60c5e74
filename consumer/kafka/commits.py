"""Commits by the consumer: what may be asked for, and what the broker answered.

Owns the sorting of answers. Must not know which offsets are due.
"""

from collections.abc import Iterable, Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from consumer.core.events import Committed, Event
from consumer.core.types import TopicPartition
from consumer.kafka.assignment import Assignment


class Commits:
    """The commits of one member of the group."""

    def __init__(self, assignment: Assignment, events: list[Event]) -> None:
        """Take the member's partitions, and the list to which answers are added."""
        self._assignment = assignment
        self._events = events
        self._asked: list[ClientPartition] = []
        """Not answered yet."""
        self._has_ended = False

    def end(self) -> None:
        """Take no answer any more: the client is given up."""
        self._has_ended = True
        if self._asked:
            self._events.append(_refused(self._asked, KafkaError(KafkaError._DESTROY)))  # noqa: SLF001 - its name

    def ask(self, client: Consumer, offsets: Mapping[TopicPartition, tuple[int, str]]) -> None:
        """Ask for a commit of next offsets with metadata; the answer comes to `note`."""
        wanted = self._committable(offsets)
        if not wanted:
            return
        try:
            client.commit(offsets=wanted, asynchronous=True)
        except KafkaException as error:
            self._events.append(_refused(wanted, error.args[0]))
        else:
            self._asked = wanted

    def ask_now(self, client: Consumer, offsets: Mapping[TopicPartition, tuple[int, str]]) -> list[Committed]:
        """Commit and wait for the answer."""
        wanted = self._committable(offsets)
        if not wanted:
            return []
        try:
            answered = client.commit(offsets=wanted, asynchronous=False)
        except KafkaException as error:
            return [_refused(wanted, error.args[0])]
        return self._answers(answered or [])

    def note(self, error: KafkaError | None, answered: list[ClientPartition]) -> None:
        """Take the client's answer, as its `on_commit`: it never raises."""
        if self._has_ended:
            return
        self._asked = []
        if error is not None:
            self._events.append(_refused(answered, error))
        else:
            self._events.extend(self._answers(answered))

    def _committable(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> list[ClientPartition]:
        """Leave out partitions that are not ours: the broker checks the generation of a commit, not ownership."""
        return [
            ClientPartition(each.topic, each.partition, offset, metadata)
            for each, (offset, metadata) in offsets.items()
            if each in self._assignment.owned
        ]

    def _answers(self, answered: Iterable[ClientPartition]) -> list[Committed]:
        """Sort a commit's answer by what the broker said of each partition."""
        by_error: dict[str | None, dict[TopicPartition, int]] = {}
        for each in answered:
            name = each.error.name() if each.error is not None else None
            by_error.setdefault(name, {})[TopicPartition(each.topic, each.partition)] = each.offset
        for partition, offset in by_error.get(None, {}).items():
            if partition in self._assignment.owned:
                self._assignment.committed[partition] = offset
        return [Committed(offsets, name) for name, offsets in by_error.items()]


def _refused(wanted: Iterable[ClientPartition], error: KafkaError) -> Committed:
    return Committed({TopicPartition(each.topic, each.partition): each.offset for each in wanted}, error.name())
