"""The transactional sink against a broker: outcomes and offsets together, whatever happens, and once."""

import base64
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, ThrottleEvent

from consumer.core import offset_map
from consumer.core.actions import DeadLetter, Produce
from consumer.core.events import Assigned, Committed, Delivered, DeliveryFailed
from consumer.core.types import Disposition, Failure, Ticket, TopicPartition
from consumer.demo.broker import Broker, Feature, Kind, start
from consumer.errors import BrokerError, ExitCode, FencedError
from consumer.kafka import operations, transactions
from consumer.kafka.operations import Attempt, Ending, Operation
from consumer.kafka.sink import Routes
from consumer.kafka.transactions import TransactionalSink
from tests import brokers
from tests.contract.clients import Reader, Told, new_group, reader, run_of, transactional_sink

pytestmark = pytest.mark.broker

SETTINGS: dict[str, Any] = {"isolation_level": "read_committed", "session_timeout_ms": 6000}
BROKEN = Failure("inference-failed", "ValueError", "broke")


@dataclass
class Scene:
    """One member of a group, its transactional sink, and topics of their own."""

    broker: Broker
    results: str
    letters: str
    source: str
    group: str = field(default_factory=new_group)
    told: Told = field(default_factory=Told)
    ticket: int = 0

    def __post_init__(self) -> None:
        """Join, and make the sink."""
        self.mine, self.other = TopicPartition(self.source, 0), TopicPartition(self.source, 1)
        self.member = self.join()
        self.out = self.sink()

    def join(self) -> Reader:
        """Make a member that has joined."""
        member = reader(self.broker, self.source, group=self.group, **SETTINGS)
        member.until(lambda: member.source.group_metadata() is not None and bool(member.assigned))
        return member

    def sink(self, instance: str = "one", **settings: Any) -> TransactionalSink:
        """Make a transactional sink."""
        routes = Routes({"fraud": self.results}, lambda _: self.letters)
        made: TransactionalSink = transactional_sink(self.broker, routes, self.group, instance, **settings)
        return made

    def hand(self, *values: bytes, partition: TopicPartition | None = None, model: str = "fraud") -> int:
        """Hand over results; return the ticket."""
        self.ticket += 1
        run = run_of([b""] * len(values), partition=partition or self.mine)
        self.out.produce(Produce(Ticket(self.ticket), model, [run], values, [b"k"] * len(values)))
        return self.ticket

    def pass_barrier(self) -> None:
        """Flush, as the core asks for it."""
        self.out.flush()
        while not self.out.wait(0.1):
            self.told.events += self.out.events()
        self.told.events += self.out.events()
        assert self.told.delivered == self.ticket

    def commit(self, offset: int, partition: TopicPartition | None = None, metadata: bytes | None = b"") -> Committed:
        """Commit and wait for the answer."""
        known = len(self.told.of(Committed))
        found = self.member.source.group_metadata() if metadata == b"" else metadata
        self.out.commit({partition or self.mine: (offset, "map")}, found)
        deadline_s = time.monotonic() + 30
        while len(self.told.of(Committed)) == known:
            assert time.monotonic() < deadline_s, self.out.complaints()
            self.member.turn(timeout_s=0.01)
            self.told.events += self.out.events()
        answer: Committed = self.told.of(Committed)[-1]
        return answer

    def visible(self, topic: str | None = None) -> Counter[bytes | None]:
        """Count the values that a reader of committed records sees."""
        return Counter(record.value() for record in brokers.read_all(self.broker, topic or self.results))

    def account(self) -> str:
        """Tell what lies where, and what the sink told."""
        held = [
            (each.offset(), each.value(), each.timestamp()[1]) for each in brokers.read_all(self.broker, self.results)
        ]
        return f"{held}, {self.told.events}, {self.out.complaints()}"

    def offsets(self) -> dict[int, int]:
        """The group's committed offsets."""
        return brokers.committed(self.broker, self.group, self.source)


@pytest.fixture
def scene(broker: Broker) -> Iterator[Scene]:
    """A member that has joined, and its sink."""
    brokers.need(broker, Feature.TRANSACTIONS)
    made = Scene(broker, brokers.new_topic(broker), brokers.new_topic(broker), brokers.new_topic(broker, 2))
    yield made
    made.out.close()
    made.member.source.close(10)


def test_a_broker_that_throttles_is_waited_for_before_the_barrier(scene: Scene) -> None:
    """While a broker does not listen no barrier passes: behind it a transaction that is too old cannot be divided."""
    scene.hand(b"1")
    scene.out._note_throttle(ThrottleEvent("broker", 1, 0.4))
    began_s = time.monotonic()
    scene.pass_barrier()
    assert time.monotonic() - began_s >= 0.4
    assert scene.commit(1).error is None
    assert scene.visible() == {b"1": 1}


def test_results_and_offsets_appear_together(scene: Scene) -> None:
    """Nothing is seen before the commit; after it all results are, once, and the offset with its metadata."""
    scene.hand(b"a", b"b")
    scene.out.dead_letter(DeadLetter(Ticket(2), run_of([b"x"], partition=scene.mine), [BROKEN]))
    scene.ticket = 2
    scene.pass_barrier()
    assert scene.told.events == [Delivered(Ticket(2))]
    assert scene.visible() + scene.visible(scene.letters) == Counter()
    assert scene.offsets() == {}
    assert scene.commit(103) == Committed({scene.mine: 103})
    assert scene.visible() == Counter([b"a", b"b"])
    assert scene.visible(scene.letters) == Counter([b"x"])
    assert scene.offsets() == {0: 103}
    assert scene.out.in_flight == 0


def test_what_comes_after_the_barrier_waits_for_the_next_transaction(scene: Scene) -> None:
    """A result whose offset the commit does not name is not in its transaction; it follows with the next."""
    scene.hand(b"first")
    scene.pass_barrier()
    scene.hand(b"second")
    assert scene.commit(101).error is None
    assert scene.visible() == Counter([b"first"])
    scene.pass_barrier()
    assert scene.commit(102).error is None
    assert scene.visible() == Counter([b"first", b"second"])


def test_waiting_for_a_barrier_begins_none(scene: Scene) -> None:
    """A loop that still waits for a barrier which has passed meanwhile adds nothing to what the next commit names."""
    scene.hand(b"first")
    scene.pass_barrier()
    scene.hand(b"second")
    scene.out.commit({scene.mine: (101, "")}, scene.member.source.group_metadata())
    assert scene.out.wait(0)
    while not scene.told.of(Committed):
        scene.told.events += scene.out.events()
        assert scene.out.wait(0)
    scene.hand(b"third")
    assert scene.out.wait(0)
    assert scene.told.of(Delivered) == [Delivered(Ticket(1))]
    scene.pass_barrier()
    assert scene.told.of(Delivered) == [Delivered(Ticket(1)), Delivered(Ticket(3))]
    assert scene.commit(103).error is None
    assert scene.visible() == Counter([b"first", b"second", b"third"])


def test_a_commit_without_outcomes_commits_offsets(scene: Scene) -> None:
    """Offsets alone make a transaction, too."""
    assert scene.commit(7) == Committed({scene.mine: 7})
    assert scene.offsets() == {0: 7}


def test_the_loop_goes_on_while_a_transaction_commits(scene: Scene) -> None:
    """No call waits for the commit: many come back while one goes on."""
    for number in range(5):
        scene.hand(b"%d" % number)
        scene.pass_barrier()
        scene.out.commit({scene.mine: (number + 1, "")}, scene.member.source.group_metadata())
        calls = 0
        while len(scene.told.of(Committed)) <= number:
            scene.told.events += scene.out.events()
            calls += 1
        assert calls > 10
    assert sum(scene.visible().values()) == 5


def test_a_member_that_has_not_joined_is_refused_here(scene: Scene) -> None:
    """Without group metadata nothing is asked of the broker, and the same outcomes are committed later, once."""
    scene.hand(b"a")
    scene.pass_barrier()
    assert scene.commit(101, metadata=None).error == "UNKNOWN_MEMBER_ID"
    assert scene.offsets() == {}
    assert scene.commit(101).error is None
    assert scene.visible() == Counter([b"a"])


def test_metadata_of_an_old_generation_is_refused_and_nothing_inferred_again(scene: Scene) -> None:
    """A commit with metadata from before a rebalance aborts; with that of now the retained outcomes are committed."""
    scene.hand(b"a", b"b")
    scene.pass_barrier()
    old = scene.member.source.group_metadata()
    second = reader(scene.broker, scene.source, group=scene.group)
    try:
        while not second.assigned:
            second.turn(timeout_s=0.02)
            scene.member.turn(timeout_s=0.02)
    finally:
        second.source.close(10)
    scene.member.until(lambda: scene.member.assigned == {scene.mine, scene.other})
    assert scene.commit(102, metadata=old).error in {"ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID"}
    assert scene.visible() == Counter()
    assert scene.commit(102) == Committed({scene.mine: 102})
    assert scene.visible() == Counter([b"a", b"b"])


def test_fenced_partitions_leave_the_transaction(scene: Scene) -> None:
    """What is in the transaction of a partition that was taken away is never seen; the rest is committed, once."""
    scene.hand(b"gone", partition=scene.other)
    scene.hand(b"mine")
    scene.pass_barrier()
    scene.hand(b"gone", partition=scene.other)
    scene.hand(b"later")
    scene.out.fence([scene.other])
    assert scene.commit(101).error is None
    assert scene.visible() == Counter([b"mine"])
    scene.pass_barrier()
    assert scene.commit(102).error is None
    assert scene.visible() == Counter([b"mine", b"later"])


def test_a_commit_that_was_not_begun_is_answered_by_a_fence(scene: Scene) -> None:
    """A commit that names a fenced partition and waits for an abort is refused; the core asks again."""
    scene.hand(b"gone", partition=scene.other)
    scene.pass_barrier()
    scene.out._condemn()
    scene.out.commit({scene.other: (101, "")}, scene.member.source.group_metadata())
    scene.out.fence([scene.other])
    scene.told.events += scene.out.events()
    assert scene.told.of(Committed) == [Committed({scene.other: 101}, "REBALANCE_IN_PROGRESS")]
    assert scene.commit(1).error is None
    assert scene.visible() == Counter()
    assert scene.offsets() == {0: 1}


def test_too_large_costs_a_transaction_but_only_the_culprit_fails(broker: Broker, scene: Scene) -> None:
    """A record that the topic refuses aborts, and is reported; its neighbours are committed once, the letter too."""
    brokers.need(broker, Feature.TOPIC_LIMITS)
    scene.results = brokers.new_topic(broker, settings={"max.message.bytes": "2000"})
    scene.letters = brokers.new_topic(broker, settings={"max.message.bytes": "1500"})
    scene.out.close()
    scene.out = scene.sink()
    values = [b"%02d" % i for i in range(12)]
    values[5] = b"x" * 3000
    scene.hand(*values)
    scene.out.dead_letter(DeadLetter(Ticket(2), run_of([b"y" * 3000, b"z"], partition=scene.mine), [BROKEN] * 2))
    scene.ticket = 2
    scene.pass_barrier()
    (failed,) = scene.told.of(DeliveryFailed)
    assert (failed.ticket, failed.index, failed.failure.reason) == (1, 5, "too-large")
    assert failed.failure.disposition is Disposition.POISON
    assert scene.commit(112).error is None
    assert scene.visible() == Counter(value for value in values if len(value) == 2)
    assert scene.visible(scene.letters) == Counter([None, b"z"])


def end_by(scene: Scene, how: str) -> None:
    """Do something that needs the coordinator."""
    if how == "commit":
        scene.commit(101)
    elif how in {"abort", "leave"}:
        scene.out._condemn()
        scene.out._is_explained = how == "abort"
        scene.pass_barrier()
    else:
        scene.hand(b"more")
        scene.pass_barrier()
        scene.commit(102)


@pytest.mark.parametrize("how", ["commit", "produce", "abort", "leave"])
def test_a_second_instance_fences_the_first_for_good(scene: Scene, how: str) -> None:
    """The older of two with one transactional.id ends with a line that names it, and its results are never seen."""
    scene.hand(b"old")
    scene.pass_barrier()
    successor = scene.sink()
    with pytest.raises(FencedError, match=f"{scene.group}-one") as raised:
        end_by(scene, how)
    assert raised.value.exit_code is ExitCode.FENCED
    assert scene.visible() == Counter()
    scene.out = successor


ABANDON = """
import os, sys
sys.path.insert(0, os.getcwd())
from consumer.demo.broker import start
from tests.contract.test_transactions import Scene
scene = Scene(start(), *sys.argv[1:4], group=sys.argv[4])
scene.hand(b"dead")
scene.pass_barrier()
if sys.argv[5] == "offsets":
    from consumer.kafka.operations import Attempt, _positions
    attempt = Attempt({scene.mine: (101, "")}, scene.member.source.group_metadata())
    scene.out._client.send_offsets_to_transaction(_positions(attempt.offsets), attempt.metadata)
os.kill(os.getpid(), 9)
"""


def abandon(scene: Scene, how: str) -> None:
    """Let another process of the group die with an open transaction."""
    command = [sys.executable, "-c", ABANDON, scene.results, scene.letters, scene.source, scene.group, how]
    environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": scene.broker.bootstrap_servers}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_a_successor_ends_what_the_dead_left_open(scene: Scene) -> None:
    """With the same id the open transaction of a killed process is aborted at once, and nothing of it is seen."""
    scene.member.source.close(10)
    scene.out.close()
    abandon(scene, "results")
    scene.out = scene.sink()
    scene.member = scene.join()
    scene.hand(b"alive")
    scene.pass_barrier()
    assert scene.commit(101).error is None
    assert scene.visible() == Counter([b"alive"])


def test_partitions_wait_for_the_offsets_of_a_dead_members_transaction(scene: Scene) -> None:
    """While a dead member's offsets are undecided its partitions are not placed, and a complaint says why."""
    scene.member.source.close(10)
    scene.out.close()
    abandon(scene, "offsets")
    heir = reader(scene.broker, scene.source, group=scene.group, **SETTINGS)
    longest_s, said = 0.0, ""
    try:
        deadline_s = time.monotonic() + 60
        while not heir.assigned:
            assert time.monotonic() < deadline_s
            began_s = time.monotonic()
            heir.turn(timeout_s=0.05)
            longest_s = max(longest_s, time.monotonic() - began_s)
            said += "".join(each.message for each in heir.source.complaints())
    finally:
        heir.source.close(10)
    assert "an earlier member died within a transaction" in said
    assert longest_s < 2
    positions = {tp: found.next_offset for event in heir.of(Assigned) for tp, found in event.partitions.items()}
    assert positions == {scene.mine: None, scene.other: None}


@pytest.mark.parametrize("was_committed", [True, False])
def test_a_client_that_breaks_in_a_commit_asks_what_became_of_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, was_committed: bool
) -> None:
    """After a fatal error in a commit the committed offsets decide: nothing is lost, and nothing doubled."""
    scene.hand(b"a")
    scene.pass_barrier()
    end = operations.end

    def break_down(client: Any, attempt: Attempt | None, operation: Operation) -> Ending:
        monkeypatch.setattr(transactions, "end", end)
        if was_committed:
            assert end(client, attempt, operation) == Ending()
        return Ending(fatal=KafkaError(KafkaError._FATAL))

    monkeypatch.setattr(transactions, "end", break_down)
    answer = scene.commit(101)
    if was_committed:
        assert answer.error is None
    else:
        assert answer.error is not None
        assert scene.offsets() == {}
        assert scene.commit(101).error is None
    assert scene.offsets() == {0: 101}
    scene.hand(b"b")
    scene.pass_barrier()
    assert scene.commit(102).error is None
    assert scene.visible() == Counter([b"a", b"b"])


def test_what_a_new_client_waits_for_is_said(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the committed offsets cannot be had everything waits, and one line says for what; then it goes on."""
    monkeypatch.setattr("consumer.kafka.succession.ASK_AGAIN_S", 0.05)
    answers = scene.out._succession._committed
    refused = iter([BrokerError("the committed offsets of group g are not known: timed out")] * 2)

    def committed(partitions: Any) -> Any:
        for error in refused:
            raise error
        return answers(partitions)

    scene.out._succession._committed = committed
    scene.hand(b"a")
    scene.pass_barrier()
    monkeypatch.setattr(transactions, "end", lambda *_: Ending(fatal=KafkaError(KafkaError._FATAL)))
    answer = scene.commit(101)
    monkeypatch.undo()
    assert answer.error is not None
    (said,) = [each for each in scene.out.complaints() if each.name == "_WAIT_COORD"]
    assert said.count == 2
    assert said.message.startswith("the committed offsets of group g are not known: timed out: they tell whether")
    assert scene.commit(101).error is None
    assert scene.visible() == Counter([b"a"])


@pytest.mark.parametrize("was_committed", [True, False])
def test_a_client_that_never_comes_back_is_left_behind(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, was_committed: bool
) -> None:
    """A call that does not return costs its deadline; another client goes on, and a late return changes nothing."""
    monkeypatch.setattr(operations, "OVERDUE_S", 0.5)
    scene.hand(b"a")
    scene.pass_barrier()
    end = operations.end
    may_return = threading.Event()
    late: list[Operation] = []

    def hang(client: Any, attempt: Attempt | None, operation: Operation) -> Ending:
        monkeypatch.setattr(transactions, "end", end)
        late.append(operation)
        if was_committed:
            assert end(client, attempt, operation) == Ending()
        operation.repeat(lambda _: may_return.wait(), time.monotonic())
        return end(client, attempt, operation)

    monkeypatch.setattr(transactions, "end", hang)
    answer = scene.commit(101)
    assert (answer.error is None) == was_committed
    if not was_committed:
        assert scene.commit(101).error is None
    may_return.set()
    assert late[0].wait(10)
    scene.hand(b"b")
    scene.pass_barrier()
    assert scene.commit(102).error is None
    assert scene.offsets() == {0: 102}
    assert scene.visible() == Counter([b"a", b"b"])


def test_a_transaction_that_outlived_its_timeout_is_made_anew(scene: Scene) -> None:
    """A process that was frozen for long is fenced like one with a rival, but comes back: its outcomes appear once."""
    scene.out.close()
    scene.out = scene.sink(transaction_timeout_ms=1000)
    scene.hand(b"a")
    while len(scene.out._client):
        scene.out._client.flush(0.1)
    time.sleep(12)  # the broker looks for dead transactions every 10 s
    scene.pass_barrier()
    assert scene.commit(101).error is None
    assert scene.visible() == Counter([b"a"])


def test_brokers_without_transactions_are_refused_with_a_clear_line(broker: Broker) -> None:
    """Where transactions cannot be had, the start fails and the line says what is missing."""
    routes = Routes({}, str)
    with pytest.raises(BrokerError, match="exactly-once needs transactions") as raised:
        transactional_sink(broker, routes, new_group(), transaction_timeout_ms=2_000_000_000, socket_timeout_ms=1000)
    assert "transaction.max.timeout.ms" in str(raised.value)


def test_brokers_that_only_pretend_are_refused_with_a_clear_line() -> None:
    """A broker that takes every step of a transaction and keeps nothing of it is found out at the start."""
    with start(Kind.EMBEDDED) as pretender:
        routes = Routes({"fraud": brokers.new_topic(pretender)}, str)
        with pytest.raises(BrokerError, match="only pretend to have them: use Apache Kafka") as raised:
            transactional_sink(pretender, routes, new_group())
        assert raised.value.exit_code is ExitCode.BROKER


def test_an_examination_leaves_nothing_behind(scene: Scene) -> None:
    """The question whether a broker pretends is asked of a group of its own, which has no offsets afterwards."""
    assert brokers.committed(scene.broker, f"{scene.group}-one", scene.results) == {}


@pytest.mark.parametrize(("first", "commits"), [("fraud", 2), ("other", 1)])
def test_what_was_tried_apart_keeps_to_the_ration(scene: Scene, first: str, commits: int) -> None:
    """Outcomes of a topic that was tried and found innocent go into a transaction in their turn, before a barrier.

    Else a transaction made again with less holds some whose barrier has not passed, and its commit does not name them.
    """
    innocent = brokers.new_topic(scene.broker)
    cast("dict[str, str]", scene.out._routes.results)["other"] = innocent
    second = "fraud" if first == "other" else "other"
    for model, size in ((first, 100), (second, 100), (first, 500), (second, 100)):
        scene.hand(b"x" * size + b"%d" % scene.ticket, model=model)
    guilty = next(each for each in scene.out._contents.retained if each.topic == innocent)
    scene.out._trials.blame(guilty, 0)
    scene.out._ration.outlived(scene.out._contents.retained, Ticket(0))
    scene.out._is_condemned = True
    offset = 0
    while scene.told.delivered < scene.ticket:
        scene.out.flush()
        while not scene.out.wait(0.1):
            pass
        scene.told.events += scene.out.events()
        offset += 1
        assert scene.commit(offset).error is None
        seen = sum((scene.visible() + scene.visible(innocent)).values())
        assert seen == scene.told.delivered, "a commit names all that is in its transaction, and nothing else"
    assert offset == commits


def test_a_damaged_offset_map_stops_its_partition_where_it_is_data(scene: Scene) -> None:
    """Where the map is data, a partition with a damaged one is not read, and a complaint says so; the other is."""
    whole = offset_map.encode(1, b"\0\1", "")
    damaged = base64.b64encode(base64.b64decode(whole)[:-1] + b"!").decode()
    scene.member.source.commit_now({scene.mine: (1, damaged), scene.other: (0, "")})
    scene.member.source.close(10)
    for partition in (0, 1):
        brokers.load(scene.broker, scene.source, [(b"k", b"v")] * 3, partition)
    scene.member = reader(scene.broker, scene.source, group=scene.group, needs_map=True, **SETTINGS)
    said = ""
    while scene.member.count < 3 or "is not read" not in said:
        scene.member.turn()
        said += "".join(each.message for each in scene.member.source.complaints())
    for _ in range(10):
        scene.member.turn()
    assert scene.member.assigned == {scene.other}
    assert scene.member.offsets == {scene.other: [0, 1, 2]}
    assert scene.member.source._assignment._stash == []


@pytest.mark.parametrize("fault", ["freeze", "kill"])
def test_an_outage_of_the_broker_loses_and_doubles_nothing(own_broker: Broker, fault: str) -> None:
    """Frozen past the transaction's timeout, or killed and started again: all outcomes appear, and once."""
    made = Scene(
        own_broker, brokers.new_topic(own_broker), brokers.new_topic(own_broker), brokers.new_topic(own_broker)
    )
    node = own_broker.node
    assert node is not None
    made.hand(b"before")
    made.pass_barrier()
    assert made.commit(101).error is None
    made.hand(b"in the transaction")
    made.pass_barrier()
    made.out.commit({made.mine: (102, "")}, made.member.source.group_metadata())
    if fault == "freeze":
        brokers.freeze(node)
    else:
        node.kill()
    made.hand(b"while it was away")
    until_s = time.monotonic() + 13
    while time.monotonic() < until_s:
        made.member.turn(timeout_s=0.05)
        made.told.events += made.out.events()
    if fault == "freeze":
        node.kill(signal.SIGCONT)
    else:
        node.start()
    made.member.until(lambda: made.member.source.group_metadata() is not None)
    deadline_s = time.monotonic() + 60
    while len(made.told.of(Committed)) < 2:
        assert time.monotonic() < deadline_s
        made.member.turn(timeout_s=0.05)
        made.told.events += made.out.events()
    answer = made.told.of(Committed)[-1]
    while answer.error is not None:
        assert time.monotonic() < deadline_s, answer
        answer = made.commit(102)
    made.pass_barrier()
    answer = Committed({}, "not asked yet")
    while answer.error is not None:
        assert time.monotonic() < deadline_s, answer
        answer = made.commit(103)
    assert made.visible() == Counter([b"before", b"in the transaction", b"while it was away"]), made.account()
    assert made.offsets() == {0: 103}
    made.member.source.close(10)
    made.out.close()
