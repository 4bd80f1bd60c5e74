"""The transactional sink against every error that a step of a transaction can be answered with, each once."""

import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, KafkaError

from consumer.core.actions import Produce
from consumer.core.events import Committed, DeliveryFailed, Event
from consumer.core.types import Ticket, TopicPartition
from consumer.errors import BrokerError, FencedError
from consumer.kafka.admin import Admin
from consumer.kafka.routes import Routes
from consumer.kafka.settings import compose
from consumer.kafka.transactions import TransactionalSink
from tests.contract.clients import run_of
from tests.contract.mock import MockCluster

PRODUCE, INIT_PRODUCER_ID, ADD_PARTITIONS, ADD_OFFSETS, END_TXN, TXN_OFFSET_COMMIT = 0, 22, 24, 25, 26, 28
"""API keys of the protocol."""
MINE = TopicPartition("in", 0)
WAIT_S = 30.0
COMMITS_MAX = 3

PASSES = "passes"
"""Nobody notices: the commit is confirmed."""
AGAIN = "again"
"""The commit is refused, what it held is produced again, and the next commit is confirmed."""
FAILS = "fails"
"""Answered so again when it is alone, the record is at fault: it is reported, and the commit is confirmed."""
FENCED = "fenced"
"""Another instance is suspected, and this one ends."""

COORDINATOR = dict.fromkeys(("COORDINATOR_LOAD_IN_PROGRESS", "COORDINATOR_NOT_AVAILABLE", "NOT_COORDINATOR"), PASSES)
ANSWERS: dict[int, dict[str, str]] = {
    PRODUCE: {
        "NOT_LEADER_FOR_PARTITION": PASSES,
        "UNKNOWN_TOPIC_OR_PART": PASSES,
        "REQUEST_TIMED_OUT": PASSES,
        "NOT_ENOUGH_REPLICAS": PASSES,
        "NOT_ENOUGH_REPLICAS_AFTER_APPEND": PASSES,
        "KAFKA_STORAGE_ERROR": PASSES,
        "INVALID_MSG": PASSES,
        "OUT_OF_ORDER_SEQUENCE_NUMBER": PASSES,
        "UNKNOWN_PRODUCER_ID": PASSES,
        "INVALID_TXN_STATE": PASSES,
        "TRANSACTION_ABORTABLE": PASSES,
        "TOPIC_AUTHORIZATION_FAILED": PASSES,
        "MSG_SIZE_TOO_LARGE": FAILS,
        "INVALID_RECORD": FAILS,
        "INVALID_PRODUCER_EPOCH": FENCED,
    },
    ADD_PARTITIONS: {
        **COORDINATOR,
        "CONCURRENT_TRANSACTIONS": PASSES,
        "UNKNOWN_TOPIC_OR_PART": PASSES,
        "TOPIC_AUTHORIZATION_FAILED": PASSES,
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": PASSES,
        "INVALID_TXN_STATE": PASSES,
        "INVALID_PRODUCER_ID_MAPPING": PASSES,
        "TRANSACTION_ABORTABLE": PASSES,
        "INVALID_PRODUCER_EPOCH": FENCED,
        "PRODUCER_FENCED": FENCED,
    },
    ADD_OFFSETS: {
        **COORDINATOR,
        "CONCURRENT_TRANSACTIONS": PASSES,
        "GROUP_AUTHORIZATION_FAILED": AGAIN,
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": AGAIN,
        "INVALID_TXN_STATE": AGAIN,
        "INVALID_PRODUCER_ID_MAPPING": AGAIN,
        "TRANSACTION_ABORTABLE": AGAIN,
        "PRODUCER_FENCED": AGAIN,
        "INVALID_PRODUCER_EPOCH": FENCED,
    },
    TXN_OFFSET_COMMIT: {
        **COORDINATOR,
        "UNKNOWN_TOPIC_OR_PART": PASSES,
        "ILLEGAL_GENERATION": AGAIN,
        "UNKNOWN_MEMBER_ID": AGAIN,
        "FENCED_INSTANCE_ID": AGAIN,
        "REBALANCE_IN_PROGRESS": AGAIN,
        "OFFSET_METADATA_TOO_LARGE": AGAIN,
        "GROUP_AUTHORIZATION_FAILED": AGAIN,
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": AGAIN,
        "TRANSACTION_ABORTABLE": AGAIN,
        "PRODUCER_FENCED": AGAIN,
        "INVALID_PRODUCER_EPOCH": FENCED,
    },
    END_TXN: {
        **COORDINATOR,
        "CONCURRENT_TRANSACTIONS": PASSES,
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": AGAIN,
        "INVALID_TXN_STATE": AGAIN,
        "INVALID_PRODUCER_ID_MAPPING": AGAIN,
        "TRANSACTION_ABORTABLE": AGAIN,
        "INVALID_PRODUCER_EPOCH": FENCED,
        "PRODUCER_FENCED": FENCED,
    },
}
"""What follows from each error. An ADD_OFFSETS or TXN_OFFSET_COMMIT that is answered with PRODUCER_FENCED the client
takes for a failure of the transaction alone; a real coordinator refuses the abort as well, which then fences."""

BEGINNINGS: dict[str, type[Exception] | None] = {
    **dict.fromkeys((*COORDINATOR, "CONCURRENT_TRANSACTIONS")),
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": BrokerError,
    "CLUSTER_AUTHORIZATION_FAILED": BrokerError,
    "INVALID_TRANSACTION_TIMEOUT": BrokerError,
}
"""What a start ends with."""

CODES = {KafkaError(code).name(): code for code in range(1, 130)}


class Scene:
    """A transactional sink on a cluster of its own; the group's metadata are of a member that has not joined."""

    def __init__(self, cluster: MockCluster) -> None:
        """Make the sink."""
        self.cluster = cluster
        kafka = {"bootstrap.servers": cluster.bootstrap_servers, "group.id": "g"}
        composed = compose(kafka, exactly_once=True, instance="one")
        admin = Admin(composed.admin)
        member = Consumer(kafka)
        self.metadata = member.consumer_group_metadata()
        member.close()
        routes = Routes({"fraud": "out"}, lambda _: "letters")
        self.out = TransactionalSink(composed.producer, routes, lambda partitions: admin.committed("g", partitions))
        self.events: list[Event] = []
        self.ticket = 0

    def hand(self, value: bytes) -> None:
        """Hand a result over."""
        self.ticket += 1
        run = run_of([b""], partition=MINE)
        self.out.produce(Produce(Ticket(self.ticket), "fraud", [run], [value], [b"k"]))

    def pass_barrier(self) -> None:
        """Flush, as the core asks for it."""
        self.out.flush()
        deadline_s = time.monotonic() + WAIT_S
        while not self.out.wait(0.05):
            assert time.monotonic() < deadline_s, self.out.complaints()
            self.events += self.out.events()
        self.events += self.out.events()

    def commit(self, offset: int) -> str | None:
        """Commit, wait for the answer and return its error."""
        known = len(self.of(Committed))
        self.out.commit({MINE: (offset, "")}, self.metadata)
        deadline_s = time.monotonic() + WAIT_S
        while len(self.of(Committed)) == known:
            assert time.monotonic() < deadline_s, self.out.complaints()
            self.out.wait(0.01)
            self.events += self.out.events()
        answer = self.of(Committed)[-1]
        assert isinstance(answer, Committed)
        return answer.error

    def deliver(self, value: bytes, offset: int) -> tuple[list[str | None], int]:
        """Deliver and commit a result; return each commit's error, and how much was asked before the last one."""
        self.hand(value)
        self.pass_barrier()
        errors: list[str | None] = []
        while not errors or (errors[-1] is not None and len(errors) < COMMITS_MAX):
            asked = len(self.cluster.asked())
            errors.append(self.commit(offset))
        return errors, asked

    def of(self, kind: type[Event]) -> list[Event]:
        """Return the events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    """A cluster that answers with errors to order."""
    with MockCluster(["in", "out", "letters"]) as made:
        yield made


@pytest.mark.parametrize(
    ("api_key", "name", "outcome"),
    [(api_key, name, outcome) for api_key, answers in ANSWERS.items() for name, outcome in answers.items()],
)
def test_every_error_has_its_answer(cluster: MockCluster, api_key: int, name: str, outcome: str) -> None:
    """One error at one step: a commit is confirmed after a whole transaction only, and all goes on as before."""
    scene = Scene(cluster)
    assert scene.deliver(b"before", 101)[0] == [None]
    cluster.refuse(api_key, *[CODES[name]] * (2 if outcome == FAILS else 1))
    if outcome == FENCED:
        with pytest.raises(FencedError):
            scene.deliver(b"it", 102)
        return
    errors, asked = scene.deliver(b"it", 102)
    assert len(errors) == (2 if outcome == AGAIN else 1)
    assert errors[-1] is None
    steps = [each for each in cluster.asked()[asked:] if each in (PRODUCE, ADD_OFFSETS, TXN_OFFSET_COMMIT, END_TXN)]
    assert steps[-1] == END_TXN
    assert TXN_OFFSET_COMMIT in steps
    if outcome == AGAIN:
        assert steps[0] == PRODUCE, "the result is produced again"
    assert len(scene.of(DeliveryFailed)) == (outcome == FAILS)
    assert scene.deliver(b"after", 103)[0] == [None]
    assert scene.out.in_flight == 0
    scene.out.close()


@pytest.mark.parametrize(("name", "raised"), list(BEGINNINGS.items()))
def test_every_error_at_the_start_has_its_answer(
    cluster: MockCluster, name: str, raised: type[Exception] | None
) -> None:
    """What passes by itself is waited for; what does not ends the start with a line."""
    cluster.refuse(INIT_PRODUCER_ID, CODES[name])
    if raised is not None:
        with pytest.raises(raised, match="exactly-once needs transactions"):
            Scene(cluster)
        return
    scene = Scene(cluster)
    assert scene.deliver(b"it", 101)[0] == [None]
    scene.out.close()
