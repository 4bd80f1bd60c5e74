"""Which transactional id goes on while the coordinator has not ended the last transaction, on clients of fakes."""

from collections import defaultdict
from functools import partial
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from consumer.core.types import TopicPartition
from consumer.errors import BrokerError, FencedError
from consumer.kafka.errors import Complaints
from consumer.kafka.operations import Attempt, Ending, Operation
from consumer.kafka.spares import SPARES, Spares
from consumer.kafka.succession import STUCK, Succession

AT_WORK = KafkaError(KafkaError.CONCURRENT_TRANSACTIONS, "at work", False, True)
AWAY = KafkaError(KafkaError._TRANSPORT, "away", False, True)
FORBIDDEN = KafkaError(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "forbidden")
FENCED = KafkaError(KafkaError._FENCED, "fenced", True)
ATTEMPT = Attempt({TopicPartition("in", 0): (7, "map")}, b"")


class Coordinator:
    """Answers to each id's clients in turn; when they are used up, it lets the id begin."""

    def __init__(self, answers: dict[str, list[KafkaError]]) -> None:
        self.answers = defaultdict(list, answers)
        self.begun: list[str] = []

    def make(self, transactional_id: str) -> Any:
        """Make a client."""
        return Client(self, transactional_id)


class Client:
    """A client that begins when its coordinator lets it."""

    def __init__(self, coordinator: Coordinator, transactional_id: str) -> None:
        self.coordinator, self.id = coordinator, transactional_id

    def init_transactions(self, _timeout_s: float) -> None:
        """Raise the coordinator's next answer."""
        if self.coordinator.answers[self.id]:
            raise KafkaException(self.coordinator.answers[self.id].pop(0))
        self.coordinator.begun.append(self.id)

    def purge(self) -> None:
        """Have nothing to forget."""

    def poll(self, _timeout_s: float) -> int:
        """Have nothing to tell."""
        return 0


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take what is not done at once for stuck."""
    monkeypatch.setattr("consumer.kafka.succession.STUCK_S", 0.0)
    monkeypatch.setattr("consumer.kafka.succession.HANG_S", 0.0)
    monkeypatch.setattr("consumer.kafka.succession.ASK_AGAIN_S", 0.0)


def line_of(coordinator: Coordinator, committed: Any = dict) -> tuple[Succession, Spares]:
    """Make the succession of `g-one`, and its spares."""
    spares = Spares("g-one")
    return Succession(coordinator.make, "g-one", spares, lambda _: committed()), spares


def taken_over(line: Succession, attempt: Attempt | None = None) -> tuple[Ending, list[str]]:
    """Have another client take over; return how that ended, and what was said meanwhile."""
    operation = Operation(partial(line.take_over, attempt), attempt)
    assert operation.wait(10)
    return operation.ending, list(operation.words)


def test_the_same_id_goes_on_where_it_may() -> None:
    """Without anything stuck no spare is used, also when the coordinator was away for a while."""
    coordinator = Coordinator({"g-one": [AWAY, AWAY]})
    line, _ = line_of(coordinator)
    assert taken_over(line)[1] == []
    assert coordinator.begun == ["g-one"]


def test_a_spare_goes_on_for_one_that_is_stuck() -> None:
    """The first spare that may begin goes on; those that are stuck come last when one is needed again."""
    coordinator = Coordinator({"g-one": [AT_WORK], "g-one.spare-1": [AT_WORK]})
    line, spares = line_of(coordinator)
    ending, words = taken_over(line)
    assert coordinator.begun == [line.id] == ["g-one.spare-2"]
    assert ending.client is not None
    assert words == [STUCK.format("g-one", "g-one.spare-2 goes on")]
    assert [spares.take() for _ in range(SPARES)][-2:] == ["g-one.spare-1", "g-one"]


@pytest.mark.parametrize("found", [{TopicPartition("in", 0): (7, "map")}, {TopicPartition("in", 0): (6, "map")}, {}])
def test_what_became_of_a_stuck_commit_is_asked(found: dict[TopicPartition, tuple[int, str]]) -> None:
    """A spare that goes on for a commit whose end is not known asks for the offsets, until they are stable."""
    answers: list[Any] = [BrokerError("not stable"), BrokerError("not stable"), found]

    def committed() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    line, _ = line_of(Coordinator({"g-one": [AT_WORK]}), committed)
    ending, words = taken_over(line, ATTEMPT)
    assert ending.is_committed == (found == ATTEMPT.offsets)
    assert len(words) == 3


@pytest.mark.parametrize("refusal", [FORBIDDEN, AWAY])
def test_without_a_spare_the_own_id_is_waited_for(refusal: KafkaError) -> None:
    """Where the brokers refuse the spare, everything waits for the own id's transaction, and a line says so."""
    coordinator = Coordinator({"g-one": [AT_WORK, AT_WORK], "g-one.spare-1": [refusal], "g-one.spare-2": [refusal]})
    line, _ = line_of(coordinator)
    words = taken_over(line)[1]
    assert coordinator.begun == ["g-one"]
    assert len(words) == 2
    assert "g-one.spare-1 cannot go on" in words[0]


def test_a_rival_ends_the_program() -> None:
    """An id that another instance has is not replaced by a spare."""
    line, _ = line_of(Coordinator({"g-one": [FENCED]}))
    with pytest.raises(FencedError, match="g-one"):
        taken_over(line)


def test_a_start_goes_around_a_stuck_predecessor() -> None:
    """The first client of a process is a spare's where its predecessor's transaction has no end, and that is said."""
    complaints = Complaints()
    line, _ = line_of(Coordinator({"g-one": [AT_WORK]}))
    line.begin(complaints)
    assert line.id == "g-one.spare-1"
    assert [each.message for each in complaints.take()] == [STUCK.format("g-one", "g-one.spare-1 goes on")]


def test_a_start_without_an_answer_ends() -> None:
    """Where nothing may begin within the time for it, the start ends with a line."""
    line, _ = line_of(Coordinator({"g-one": [AT_WORK] * 1000, "g-one.spare-1": [FORBIDDEN] * 1000}))
    with pytest.raises(BrokerError, match="exactly-once needs transactions"):
        line.begin(Complaints(), timeout_s=0.0)
