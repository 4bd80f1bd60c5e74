"""What the source makes of a client's answers that no broker gives on demand."""

from collections.abc import Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as ClientPartition

from consumer.core.events import Assigned, Fetched, Position
from consumer.core.types import TopicPartition
from consumer.errors import ClientError
from consumer.kafka.options import InputOptions
from consumer.kafka.settings import compose
from consumer.kafka.source import Source

WHERE = TopicPartition("t", 0)


class FakeClient:
    """Hands out what a test put in, and keeps what it was asked."""

    def __init__(self) -> None:
        """Start with nothing to hand out."""
        self.queue: list[Message] = []
        self.committed_answers: list[Any] = []
        self.limits: list[int] = []
        self.only_poll_wakes = False

    def consume(self, count: int, timeout: float) -> list[Message]:
        """Hand out up to `count`; nothing before a poll, if the test wants that."""
        self.limits.append(count)
        if self.only_poll_wakes:
            return []
        taken, self.queue = self.queue[:count], self.queue[count:]
        return taken

    def poll(self, timeout: float) -> Message | None:
        """Hand out one."""
        self.only_poll_wakes = False
        return self.queue.pop(0) if self.queue else None

    def committed(self, partitions: Sequence[ClientPartition], timeout: float) -> list[ClientPartition]:
        """Give the next prepared answer, or the error."""
        answer = self.committed_answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        found = ClientPartition("t", 0, answer)
        return [found]


def record(offset: int, **more: Any) -> Message:
    """Make what the client would hand out."""
    return Message(topic="t", partition=0, offset=offset, key=b"m", value=b"v", timestamp=(1, 1), **more)


@pytest.fixture
def client() -> FakeClient:
    """Return the client."""
    return FakeClient()


@pytest.fixture
def source(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> Source:
    """Return a source of that client, with one partition assigned."""
    settings = compose({"bootstrap.servers": "127.0.0.1:1", "group.id": "g"}).consumer
    made = Source(settings, InputOptions(topics=("t",)), lambda _: None)
    monkeypatch.setattr(made, "_client", client)
    made._note_assigned(client, [ClientPartition("t", 0)])  # type: ignore[arg-type]
    return made


def offsets(events: Sequence[Any]) -> list[int]:
    """Return the fetched offsets."""
    return [
        offset for event in events if isinstance(event, Fetched) for part in event.slices for offset in part.offsets
    ]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask again at once for what was refused."""
    monkeypatch.setattr("consumer.kafka.source.ASK_AGAIN_S", 0.0)


def test_what_was_refused_is_not_asked_again_at_once(source: Source, client: FakeClient) -> None:
    """A coordinator that refuses quickly is asked twice a second, not with every turn."""
    client.committed_answers = [KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)), 5]
    for _ in range(5):
        assert source.fetch(10, 0) == []
    assert client.committed_answers == [5]


@pytest.mark.usefixtures("at_once")
def test_partitions_wait_for_the_identity_of_their_topic(source: Source, client: FakeClient) -> None:
    """While no broker tells which topic of its name it is, nothing is assigned: the map would not be believed."""
    answers: list[str | KafkaException] = [KafkaException(KafkaError(KafkaError._TIMED_OUT)), "its id"]

    def topic_id(_: str) -> str:
        answer = answers.pop(0)
        if isinstance(answer, KafkaException):
            raise answer
        return answer

    source._topic_id = topic_id
    client.committed_answers, client.queue = [5, 5], [record(5)]
    assert source.fetch(10, 0) == []
    (complaint,) = source.complaints()
    assert (complaint.name, complaint.topic) == ("_TIMED_OUT", "t")
    assert "which topic of its name it is, is not told" in complaint.message
    events = source.fetch(10, 0)
    assert events[0] == Assigned({WHERE: Position(5, topic_id="its id")})
    assert offsets(events) == [5]


@pytest.mark.usefixtures("at_once")
def test_records_wait_for_their_position(source: Source, client: FakeClient) -> None:
    """Records that come before the coordinator told the committed offset are kept, and handed on after `Assigned`."""
    client.queue = [record(5), record(6)]
    client.committed_answers = [KafkaException(KafkaError(KafkaError._TIMED_OUT)), 5]
    assert source.fetch(10, 0) == []
    client.queue = [record(7)]
    events = source.fetch(10, 0)
    assert [type(event) for event in events] == [Assigned, Fetched]
    assert offsets(events) == [5, 6, 7]
    assert [each.name for each in source.complaints()] == ["_TIMED_OUT"]


def test_an_error_of_one_partitions_position_is_asked_again(source: Source, client: FakeClient) -> None:
    """A partition whose committed offset is refused stays unplaced; it does not start at the beginning."""

    class Refused:
        topic, partition, offset, error = "t", 0, -1001, KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)

    def refuse(partitions: Sequence[ClientPartition], timeout: float) -> list[Any]:
        return [Refused]

    right, client.committed = client.committed, refuse  # type: ignore[method-assign]
    assert source.fetch(10, 0) == []
    client.committed, client.committed_answers = right, [3]  # type: ignore[method-assign]
    assert source.fetch(10, 0) == [Assigned({WHERE: Position(3)})]
    assert [each.name for each in source.complaints()] == ["GROUP_AUTHORIZATION_FAILED"]


def test_errors_among_records_are_complaints(source: Source, client: FakeClient) -> None:
    """An error that the client hands out in place of a record is told, and the records around it are handed on."""
    client.committed_answers = [0]
    error = Message(topic="t", partition=0, error=KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    client.queue = [record(0), error, record(1), error]
    assert offsets(source.fetch(10, 0)) == [0, 1]
    (complaint,) = source.complaints()
    assert (complaint.name, complaint.topic, complaint.count) == ("TOPIC_AUTHORIZATION_FAILED", "t", 2)
    assert "permission (ACL)" in complaint.message


def test_the_budget_holds_when_a_record_ends_the_wait(source: Source, client: FakeClient) -> None:
    """The record that the source waited for counts: what is taken beside it stays within the budget."""
    client.committed_answers = [0]
    client.queue, client.only_poll_wakes = [record(i) for i in range(9)], True
    assert offsets(source.fetch(4, 1)) == [0, 1, 2, 3]
    assert client.limits == [4, 3]


def test_a_fatal_error_ends_the_source(source: Source) -> None:
    """After an error that the client calls fatal, a fetch raises it instead of waiting for records."""
    source._complaints.note(KafkaError(KafkaError.FENCED_INSTANCE_ID, "another member has this id", fatal=True))
    with pytest.raises(ClientError, match="broken for good: FENCED_INSTANCE_ID: another member has this id"):
        source.fetch(10, 0)
