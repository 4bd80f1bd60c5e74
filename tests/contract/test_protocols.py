"""The source under every way a group can assign: what it promises the loop is the same."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from consumer.core.events import Committed
from consumer.core.types import TopicPartition
from consumer.demo.broker import Broker, Feature
from consumer.errors import ClientError
from consumer.kafka.source import Source
from tests import brokers
from tests.contract.clients import Reader, new_group, reader

pytestmark = pytest.mark.broker

COOPERATIVE: dict[str, Any] = {"session_timeout_ms": 6000}
EAGER: dict[str, Any] = {**COOPERATIVE, "partition_assignment_strategy": "range,roundrobin"}
CONSUMER: dict[str, Any] = {"group_protocol": "consumer"}
STATIC: dict[str, Any] = {**COOPERATIVE, "group_instance_id": "one"}
PROTOCOLS = {"cooperative": COOPERATIVE, "eager": EAGER, "consumer": CONSUMER}


@pytest.fixture(params=list(PROTOCOLS))
def protocol(request: pytest.FixtureRequest, broker: Broker) -> dict[str, Any]:
    """The settings of one way to assign."""
    if request.param == "consumer":
        brokers.need(broker, Feature.CONSUMER_PROTOCOL)
    return PROTOCOLS[request.param]


def turn_all(members: Sequence[Reader], holds: Callable[[], bool], wait_s: float = 40.0) -> None:
    """Turn every member until something holds."""
    deadline_s = time.monotonic() + wait_s
    while not holds():
        assert time.monotonic() < deadline_s, [member.assigned for member in members]
        for member in members:
            member.turn(timeout_s=0.02)


def commit_all(member: Reader, partitions: Sequence[TopicPartition]) -> None:
    """Commit inside a revocation what was handed on of these partitions."""
    offsets = {each: (member.offsets[each][-1] + 1, "") for each in partitions if each in member.offsets}
    member.events += member.source.commit_now(offsets)


def test_members_come_and_go_and_nothing_is_missed(broker: Broker, protocol: dict[str, Any]) -> None:
    """Through two rebalances every record comes to somebody; what was committed in `on_revoke` comes once."""
    topic, group = brokers.new_topic(broker, 4), new_group()
    places = {TopicPartition(topic, number) for number in range(4)}
    for number in range(4):
        brokers.load(broker, topic, ((b"m", b"%d" % i) for i in range(50)), number)
    first = reader(broker, topic, group=group, on_revoke=commit_all, **protocol)
    first.until(lambda: first.count == 200)
    assert first.assigned == places
    second = reader(broker, topic, group=group, on_revoke=commit_all, **protocol)
    turn_all([first, second], lambda: len(second.assigned) == 2 and len(first.assigned) == 2)
    assert first.assigned | second.assigned == places
    assert set(first.revoking) >= second.assigned, "taken away without a last commit"
    assert all(event.error is None for event in first.of(Committed))
    for number in range(4):
        brokers.load(broker, topic, ((b"m", b"%d" % i) for i in range(50, 100)), number)
    # An eager member loses and gets back all; uncommitted records of what it keeps would come again, and none is.
    turn_all([first, second], lambda: first.count + second.count >= 400)
    gone = list(second.assigned)
    commit_all(second, gone)
    assert second.source.close(20)
    turn_all([first], lambda: first.assigned == places)
    for number in range(4):
        brokers.load(broker, topic, [(b"m", b"last")], number)
    turn_all([first], lambda: first.count + second.count >= 404)
    assert first.source.close(20)
    seen = Counter((place, offset) for member in (first, second) for place, o in member.offsets.items() for offset in o)
    assert seen == Counter({(place, offset): 1 for place in places for offset in range(101)})


def wait_assigned(broker: Broker, group: str) -> None:
    """Wait until the group's coordinator has given partitions to its only member."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    deadline_s = time.monotonic() + 30
    while True:
        with contextlib.suppress(KafkaException):  # the group's coordinator moves in while it is made
            members = admin.describe_consumer_groups([group])[group].result(10).members
            if any(each.assignment.topic_partitions for each in members):
                return
        assert time.monotonic() < deadline_s, group
        time.sleep(0.05)


class Watched:
    """A client that tells of its end before it goes."""

    def __init__(self, client: Any, tell: Callable[[], object]) -> None:
        """Take the client and whom to tell."""
        self._client = client
        self._tell = tell

    def __getattr__(self, name: str) -> Any:
        """Everything else is the client's."""
        return getattr(self._client, name)

    def close(self) -> None:
        """Tell, and close."""
        self._tell()
        self._client.close()


@pytest.mark.parametrize("settings", [COOPERATIVE, EAGER, STATIC], ids=["cooperative", "eager", "static"])
def test_a_client_closes_with_nothing_unheard(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """An assignment that waits to be heard is heard before the client closes: together with its end it can hang."""
    brokers.need(broker, Feature.CONSUMER_PROTOCOL)  # stands for an answer to the question about the group
    topic, group = brokers.new_topic(broker), new_group()
    heard: list[str] = []
    monkeypatch.setattr(Source, "_note_assigned", lambda *_: heard.append("assigned"))
    member = reader(broker, topic, group=group, **settings)
    before: list[str] = []
    monkeypatch.setattr(member.source, "_client", Watched(member.source._client, lambda: before.extend(heard)))
    try:
        wait_assigned(broker, group)
        assert heard == []
    finally:  # dropped with something unheard, a client could take the process with it
        assert member.source.close(10)
    assert before == heard == ["assigned"]


def test_a_transactions_metadata_is_that_of_the_member(broker: Broker, protocol: dict[str, Any]) -> None:
    """Before it has joined a member has no metadata to fence a transaction by; then it has, under every protocol."""
    topic = brokers.new_topic(broker)
    member = reader(broker, topic, **protocol)
    assert member.source.group_metadata() is None
    turn_all([member], lambda: bool(member.assigned))
    assert member.source.group_metadata() is not None
    assert member.source.close(20)


def test_a_static_member_comes_back_to_its_partitions(broker: Broker) -> None:
    """With `group.instance.id` a restart within the session moves no partition: the others notice nothing."""
    topic, group = brokers.new_topic(broker, 4), new_group()
    settings = {**COOPERATIVE, "session_timeout_ms": 20_000}
    stays = reader(broker, topic, group=group, group_instance_id="pod-0", **settings)
    goes = reader(broker, topic, group=group, group_instance_id="pod-1", **settings)
    turn_all([stays, goes], lambda: len(stays.assigned) == 2 and len(goes.assigned) == 2)
    told, had = len(stays.events), goes.assigned
    commit = dict.fromkeys(had, (0, ""))
    assert {event.error for event in goes.source.commit_now(commit)} == {None}
    assert goes.source.close(20)
    back = reader(broker, topic, group=group, group_instance_id="pod-1", **settings)
    turn_all([stays, back], lambda: len(back.assigned) == 2)
    assert back.assigned == had
    assert stays.events[told:] == []
    for number in range(4):
        brokers.load(broker, topic, [(b"m", b"v")], number)
    turn_all([stays, back], lambda: stays.count + back.count == 4)
    assert stays.source.close(20)
    assert back.source.close(20)


def test_two_static_members_of_one_name_end_with_a_clear_line(broker: Broker) -> None:
    """The older of two members with one `group.instance.id` is told so, and its close comes back or is given up."""
    topic, group = brokers.new_topic(broker), new_group()
    older = reader(broker, topic, group=group, group_instance_id="pod-0", **COOPERATIVE)
    older.until(lambda: bool(older.assigned))
    newer = reader(broker, topic, group=group, group_instance_id="pod-0", **COOPERATIVE)
    with pytest.raises(ClientError, match="Static consumer fenced by other consumer"):
        turn_all([newer, older], lambda: False, wait_s=30)
    older.source.close(2)
    turn_all([newer], lambda: bool(newer.assigned))
    assert newer.source.close(20)
