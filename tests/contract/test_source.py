"""The source against a broker: what it promises the loop, whatever the group does."""

import contextlib
import statistics
import time
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import AdminClient

from consumer.core.events import Assigned, Committed, Fetched, Revoked
from consumer.core.types import TopicPartition
from consumer.demo.broker import Broker, Feature
from consumer.kafka import source as source_module
from consumer.kafka.contact import Contact
from tests import brokers
from tests.contract.clients import Reader, new_group, reader

pytestmark = pytest.mark.broker


@contextlib.contextmanager
def closing(*readers: Reader, timeout_s: float = 10) -> Any:
    """Leave the group at the end, so that the next test's members need not wait for a session to time out."""
    try:
        yield
    finally:
        for each in readers:
            each.source.close(timeout_s)


def test_records_come_as_they_were_sent(broker: Broker) -> None:
    """Keys, values, headers, tombstones and times arrive as columns; the partition was announced before."""
    topic = brokers.new_topic(broker)
    before_ms = int(time.time() * 1000) - 1000
    brokers.load(broker, topic, [(b"fraud", b"1"), (None, b"2"), (b"intent", None)])
    brokers.load(broker, topic, [(b"\xff", b"4")], headers=[("a", b"1"), ("a", b"2")])
    member = reader(broker, topic)
    with closing(member):
        member.until(lambda: member.count == 4)
    where = TopicPartition(topic, 0)
    kinds = [type(event) for event in member.events]
    assert kinds.index(Assigned) < kinds.index(Fetched)
    (assigned,) = member.of(Assigned)
    assert assigned.partitions[where].next_offset is None
    assert assigned.partitions[where].metadata == ""
    assert member.offsets == {where: [0, 1, 2, 3]}
    keys: list[Any] = []
    values: list[Any] = []
    headers: list[Any] = []
    models: list[Any] = []
    times: list[int] = []
    for part in member.slices:
        count = len(part.offsets)
        keys += part.keys
        values += part.values
        headers += part.headers or [None] * count
        models += [part.models] * count if part.models is None or isinstance(part.models, str) else part.models
        times += part.timestamps_ms
    assert keys == [b"fraud", None, b"intent", b"\xff"]
    assert values == [b"1", b"2", None, b"4"]
    assert [list(each) if each else None for each in headers] == [None, None, None, [("a", b"1"), ("a", b"2")]]
    assert models == ["fraud", None, "intent", None]
    assert all(before_ms < each <= time.time() * 1000 + 1000 for each in times)


def test_a_fetch_brings_no_more_than_asked(broker: Broker) -> None:
    """`records_max` is a budget: every fetch stays within it, and all of them together bring everything."""
    topic = brokers.new_topic(broker, 2)
    brokers.load(broker, topic, ((b"%d" % i, b"v") for i in range(500)))
    member = reader(broker, topic)
    with closing(member):
        member.until(lambda: member.count == 500, records_max=7)
    assert max(sum(len(part.offsets) for part in event.slices) for event in member.of(Fetched)) <= 7


def test_a_commit_and_its_metadata_meet_the_successor(broker: Broker) -> None:
    """A committed offset, its metadata and the topic's identity are told to the next member, which goes on there."""
    brokers.need(broker, Feature.COMMIT_METADATA)
    topic, group = brokers.new_topic(broker), new_group()
    where = TopicPartition(topic, 0)
    brokers.load(broker, topic, ((b"m", b"%d" % i) for i in range(10)))
    first = reader(broker, topic, group=group)
    with closing(first):
        first.until(lambda: first.count == 10)
        first.source.commit({where: (4, "map of what is done")})
        first.until(lambda: first.committed() == {where: 4})
    second = reader(broker, topic, group=group)
    with closing(second):
        second.until(lambda: second.count == 6)
    position = second.of(Assigned)[0].partitions[where]
    assert (position.next_offset, position.metadata) == (4, "map of what is done")
    assert position.topic_id == first.of(Assigned)[0].partitions[where].topic_id
    assert second.offsets == {where: [4, 5, 6, 7, 8, 9]}


def test_a_topic_made_anew_has_another_identity(broker: Broker) -> None:
    """The identity tells a topic from one of the same name that was there before."""
    brokers.need(broker, Feature.TOPIC_LIMITS)
    topic, group = brokers.new_topic(broker), new_group()
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    identities = set()
    for _ in range(2):
        member = reader(broker, topic, group=group)
        with closing(member):
            while not member.assigned:
                member.turn()
        identities.add(member.of(Assigned)[0].partitions[TopicPartition(topic, 0)].topic_id)
        admin.delete_topics([topic])[topic].result(10)
        deadline_s = time.monotonic() + 10
        while topic in admin.list_topics(timeout=10).topics:
            assert time.monotonic() < deadline_s
        brokers.new_topic(broker, name=topic)
    assert len(identities) == 2
    assert "" not in identities


def test_a_synchronous_commit_is_answered_at_once(broker: Broker) -> None:
    """`commit_now` returns the broker's answer and leaves other partitions than ours out."""
    topic, group = brokers.new_topic(broker), new_group()
    brokers.load(broker, topic, [(b"m", b"v")])
    member = reader(broker, topic, group=group)
    where, foreign = TopicPartition(topic, 0), TopicPartition(topic, 7)
    with closing(member):
        member.until(lambda: member.count == 1)
        assert member.source.commit_now({where: (1, ""), foreign: (1, "")}) == [Committed({where: 1})]
        assert member.source.commit_now({foreign: (1, "")}) == []
    assert brokers.committed(broker, group, topic) == {0: 1}


def test_metadata_too_large_is_an_answer_not_an_exception(broker: Broker) -> None:
    """What the broker refuses of a commit comes back as a value, at once or with a later fetch."""
    brokers.need(broker, Feature.TOPIC_LIMITS)
    topic = brokers.new_topic(broker)
    brokers.load(broker, topic, [(b"m", b"v")])
    member = reader(broker, topic)
    where = TopicPartition(topic, 0)
    with closing(member):
        member.until(lambda: member.count == 1)
        (refused,) = member.source.commit_now({where: (1, "x" * 5000)})
        assert refused.error == "OFFSET_METADATA_TOO_LARGE"
        member.source.commit({where: (1, "x" * 5000)})
        member.until(lambda: bool(member.of(Committed)))
    assert [event.error for event in member.of(Committed)] == ["OFFSET_METADATA_TOO_LARGE"]


def test_a_regex_never_reads_the_outputs(broker: Broker) -> None:
    """A `^regex` that matches result topics does not make them input; named and patterned exclusions both hold."""
    stem = f"r{uuid.uuid4().hex[:8]}"
    wanted, result, letters = f"{stem}.in", f"{stem}.out.fraud", f"{stem}.in.dead-letters"
    for topic in (wanted, result, letters):
        brokers.new_topic(broker, name=topic)
        brokers.load(broker, topic, [(b"m", topic.encode())])
    member = reader(broker, f"^{stem}.*", options={"never": (result, r"^.*[.]dead-letters$")})
    with closing(member):
        member.until(lambda: member.count > 0)
        for _ in range(10):
            member.turn()
    assert {partition.topic for partition in member.assigned} == {wanted}
    assert member.count == 1


def test_paused_partitions_bring_nothing_and_lose_nothing(broker: Broker) -> None:
    """While paused nothing comes, though the client is polled without a budget; resumed, every offset comes once."""
    topic = brokers.new_topic(broker, 2)
    brokers.load(broker, topic, ((b"%d" % i, b"v" * 100) for i in range(2000)))
    member = reader(broker, topic)
    with closing(member):
        member.until(lambda: member.count > 0, records_max=50)
        member.source.pause(member.assigned)
        member.source.pause(member.assigned)
        held = member.count
        assert held < 2000
        for _ in range(10):
            member.turn(records_max=0, timeout_s=0.05)
        assert member.count == held
        member.source.resume(member.assigned)
        member.source.resume(member.assigned)
        member.until(lambda: member.count >= 2000, records_max=100)
        member.turn()
    ends = brokers.end_offsets(broker, topic)
    assert member.offsets == {TopicPartition(topic, p): list(range(end)) for p, end in ends.items()}


def test_a_resumed_partition_is_fetched_at_once(broker: Broker) -> None:
    """What comes first after a pause comes in milliseconds: the client by itself takes up to a second."""
    topic = brokers.new_topic(broker, 2)
    brokers.load(broker, topic, ((b"%d" % i, b"v" * 100) for i in range(2000)))
    member = reader(broker, topic)
    took_s = []
    with closing(member):
        member.until(lambda: len(member.offsets) == 2, records_max=50)
        for _ in range(5):
            member.source.pause(member.assigned)
            for _ in range(4):
                member.turn(records_max=0, timeout_s=0.05)
            held, began_s = member.count, time.monotonic()
            member.source.resume(member.assigned)
            while member.count == held:
                member.turn(records_max=10, timeout_s=0.01)
            took_s.append(time.monotonic() - began_s)
    assert statistics.median(took_s) < 0.2, took_s


def test_no_room_means_no_records(broker: Broker) -> None:
    """With no budget and partitions that are not paused the client is not asked."""
    topic = brokers.new_topic(broker)
    brokers.load(broker, topic, ((b"m", b"v") for i in range(100)))
    member = reader(broker, topic)
    with closing(member):
        member.until(lambda: member.count > 0, records_max=1)
        for _ in range(5):
            assert member.turn(records_max=0, timeout_s=0.05) == []


def test_a_second_member_takes_over_what_was_committed(broker: Broker) -> None:
    """A rebalance calls `on_revoke`, a commit inside it holds, and the new member starts exactly there."""
    topic, group = brokers.new_topic(broker, 4), new_group()
    brokers.load(broker, topic, ((b"%d" % i, b"v") for i in range(400)))

    def commit_all(member: Reader, partitions: Sequence[TopicPartition]) -> None:
        done = {each: (offsets[-1] + 1, "") for each, offsets in member.offsets.items() if each in partitions}
        answers = member.source.commit_now(done)
        assert [event.error for event in answers] == [None]

    first = reader(broker, topic, group=group, on_revoke=commit_all)
    with closing(first):
        first.until(lambda: first.count == 400)
        second = reader(broker, topic, group=group)
        with closing(second):

            def shared() -> bool:
                second.turn(timeout_s=0.05)
                return len(second.assigned) == 2

            first.until(shared)
            assert first.assigned | second.assigned == {TopicPartition(topic, p) for p in range(4)}
            assert set(first.revoking) == second.assigned
            brokers.load(broker, topic, ((b"%d" % i, b"w") for i in range(400)))
            ends = brokers.end_offsets(broker, topic)

            def done() -> bool:
                second.turn(timeout_s=0.05)
                seen = {**first.offsets, **second.offsets}
                return all(seen.get(TopicPartition(topic, p), [-1])[-1] == end - 1 for p, end in ends.items())

            first.until(done)
    for each in second.assigned:
        taken_over = first.offsets[each][-1] + 1
        assert second.of(Assigned)[0].partitions[each].next_offset == taken_over
        assert second.offsets[each] == list(range(taken_over, ends[each.partition]))


def test_a_raising_hook_is_raised_by_the_fetch(broker: Broker) -> None:
    """An error in `on_revoke` neither vanishes in the client nor destroys its batch: the fetch raises it."""
    topic, group = brokers.new_topic(broker, 2), new_group()

    def fail(member: Reader, partitions: Sequence[TopicPartition]) -> None:
        raise ZeroDivisionError

    first = reader(broker, topic, group=group, on_revoke=fail)
    first.until(lambda: len(first.assigned) == 2)
    second = reader(broker, topic, group=group)
    with closing(first, second), pytest.raises(ZeroDivisionError):
        first.until(lambda: bool(second.turn(timeout_s=0.05)) and False)


def test_records_beside_a_raising_hook_are_fetched_again(broker: Broker) -> None:
    """The batch that a fetch raises away is not lost: the next fetch brings it."""
    topic = brokers.new_topic(broker)
    brokers.load(broker, topic, ((b"m", b"v") for _ in range(50)))
    member = reader(broker, topic)
    with closing(member):
        member.until(lambda: member.count == 10, records_max=1)
        member.source._raised = ZeroDivisionError()
        with pytest.raises(ZeroDivisionError):
            member.turn()
        member.until(lambda: member.count == 50)
    assert member.offsets == {TopicPartition(topic, 0): list(range(50))}


@pytest.mark.slow
def test_lost_partitions_are_dropped_without_a_commit(broker: Broker) -> None:
    """A member that stopped polling is told that its partitions are gone; `on_revoke` is not called for them."""
    topic = brokers.new_topic(broker)
    brokers.load(broker, topic, [(b"m", b"v")])
    member = reader(broker, topic, session_timeout_ms=6000, max_poll_interval_ms=6000)
    where = TopicPartition(topic, 0)
    with closing(member):
        member.until(lambda: member.count == 1)
        time.sleep(7)  # longer than max.poll.interval.ms: that is what is tested
        member.until(lambda: bool(member.of(Revoked)))
        assert member.revoking == []
        assert {"_MAX_POLL_EXCEEDED"} <= {each.name for each in member.source.complaints()}
        member.until(lambda: len(member.of(Assigned)) == 2)
        member.until(lambda: member.count == 2)
    assert member.offsets == {where: [0, 0]}


def test_an_exception_in_the_client_skips_nothing(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a raising callback destroys is fetched again: the client's position moved on, ours did not."""
    topic = brokers.new_topic(broker)
    brokers.load(broker, topic, ((b"m", b"%d" % i) for i in range(3000)))
    raised: list[bool] = []

    def raise_now_and_then(_contact: Contact, _statistics: str) -> None:
        if len(raised) < 5 and len(member.offsets) > 0:
            raised.append(True)
            raise ZeroDivisionError

    monkeypatch.setattr(Contact, "note", raise_now_and_then)
    member = reader(broker, topic, statistics_interval_ms=50)
    # The client keeps what it destroyed, and so never comes back from its close.
    with closing(member, timeout_s=0.5):
        while member.count < 3000 or len(raised) < 5:
            with contextlib.suppress(ZeroDivisionError):
                member.until(lambda: member.count == 3000 and len(raised) == 5, records_max=5)
        member.turn()
    assert member.offsets == {TopicPartition(topic, 0): list(range(3000))}


def test_positions_skipped_by_retention_are_counted(broker: Broker) -> None:
    """Records deleted before they were read are no silent gap."""
    brokers.need(broker, Feature.TOPIC_LIMITS)
    topic, group = brokers.new_topic(broker), new_group()
    where = TopicPartition(topic, 0)
    brokers.load(broker, topic, ((b"m", b"v") for _ in range(100)))
    first = reader(broker, topic, group=group)
    with closing(first):
        first.until(lambda: first.count == 100)
        assert first.source.commit_now({where: (10, "")})[0].error is None
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    asked = ClientPartition(topic, 0, 60)
    next(iter(admin.delete_records([asked]).values())).result(10)
    second = reader(broker, topic, group=group)
    with closing(second):
        second.until(lambda: second.count == 40)
        assert second.source.skipped == {where: 50}
        assert first.source.skipped == {}
    assert second.offsets == {where: list(range(60, 100))}


def test_gaps_of_transactions_are_no_skips(broker: Broker) -> None:
    """A transaction's marker takes an offset that no record has: it is passed over and not counted."""
    brokers.need(broker, Feature.TRANSACTIONS)
    topic = brokers.new_topic(broker)
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "transactional.id": topic})
    producer.init_transactions(30)
    for _ in range(5):
        producer.begin_transaction()
        producer.produce(topic, b"v", b"m")
        producer.commit_transaction(30)
    member = reader(broker, topic)
    with closing(member):
        member.until(lambda: member.count == 1, records_max=1)
        member.until(lambda: member.count == 5)
        assert member.source.skipped == {}
    assert member.offsets == {TopicPartition(topic, 0): [0, 2, 4, 6, 8]}


def test_an_unknown_topic_is_a_complaint(broker: Broker) -> None:
    """A misspelt topic is told once, with its name and what to do, and the source goes on."""
    brokers.need(broker, Feature.TOPIC_LIMITS)
    topic, missing = brokers.new_topic(broker), f"missing-{uuid.uuid4().hex[:8]}"
    brokers.load(broker, topic, [(b"m", b"v")])
    member = reader(broker, topic, missing)
    with closing(member):
        member.until(lambda: member.count == 1)
        complaints = {each.name: each for each in member.source.complaints()}
    assert complaints["UNKNOWN_TOPIC_OR_PART"].topic == missing
    assert "create the topic, or correct its name" in complaints["UNKNOWN_TOPIC_OR_PART"].message


def test_lag_is_what_lies_behind_the_commit(broker: Broker) -> None:
    """Lag counts from the committed offset to the known end, for partitions of this member."""
    topic = brokers.new_topic(broker)
    where = TopicPartition(topic, 0)
    brokers.load(broker, topic, ((b"m", b"v") for _ in range(50)))
    member = reader(broker, topic)
    with closing(member):
        member.until(lambda: member.count == 50)
        member.source.commit_now({where: (20, "")})
        assert member.source.lag() == {where: 30}
        member.source.commit({where: (50, "")})
        member.until(lambda: member.source.lag() == {where: 0})


def test_latest_starts_at_the_end(broker: Broker) -> None:
    """On request a new group starts with what comes, not with what is there."""
    brokers.need(broker, Feature.END_OFFSETS)
    topic = brokers.new_topic(broker)
    brokers.load(broker, topic, ((b"m", b"old") for _ in range(10)))
    member = reader(broker, topic, auto_offset_reset="latest")
    with closing(member):
        member.until(lambda: bool(member.assigned))
        brokers.load(broker, topic, [(b"m", b"new")])
        member.until(lambda: member.count == 1)
    assert member.offsets == {TopicPartition(topic, 0): [10]}


def test_a_client_that_goes_back_is_placed_again(broker: Broker) -> None:
    """Offsets never go back within an assignment: the core is told of a new one, from the committed position."""
    topic, group = brokers.new_topic(broker), new_group()
    where = TopicPartition(topic, 0)
    brokers.load(broker, topic, ((b"m", b"v") for _ in range(50)))
    member = reader(broker, topic, group=group)
    with closing(member):
        member.until(lambda: member.count == 50)
        member.source.commit_now({where: (20, "")})
        member.source._client.seek(ClientPartition(topic, 0, 5))
        member.until(lambda: member.count == 80)
    assert [type(event) for event in member.events if not isinstance(event, Fetched)] == [Assigned, Revoked, Assigned]
    assert member.of(Assigned)[1].partitions[where].next_offset == 20
    assert member.offsets == {where: [*range(50), *range(20, 50)]}


def test_a_topic_cut_short_does_not_strand_its_partition(broker: Broker) -> None:
    """A committed offset beyond the end, as after the loss of a log, starts the partition anew instead of never."""
    topic, group = brokers.new_topic(broker), new_group()
    where = TopicPartition(topic, 0)
    brokers.load(broker, topic, ((b"m", b"v") for _ in range(10)))
    first = reader(broker, topic, group=group)
    with closing(first):
        first.until(lambda: first.count == 10)
        assert first.source.commit_now({where: (500, "")})[0].error is None
    second = reader(broker, topic, group=group)
    with closing(second):
        second.until(lambda: second.count == 10)
    assert second.offsets == {where: list(range(10))}
    assert second.of(Assigned)[-1].partitions[where].next_offset is None


@pytest.mark.parametrize("strategy", ["cooperative-sticky", "range"])
@pytest.mark.parametrize("how", ["paused", "dropped"])
def test_a_partition_that_fell_silent_is_fetched_anew(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, strategy: str, how: str
) -> None:
    """A partition whose fetcher the client lost is noticed by its silence, told of, and brought back."""
    monkeypatch.setattr(source_module, "STALL_S", 0.5)
    monkeypatch.setattr(source_module, "LOOK_INTERVAL_S", 0.1)
    topic = brokers.new_topic(broker, 2)
    lost, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    brokers.load(broker, topic, [(b"m", b"v")], partition=0)
    brokers.load(broker, topic, [(b"m", b"v")], partition=1)
    member = reader(broker, topic, partition_assignment_strategy=strategy)
    with closing(member):
        member.until(lambda: member.count == 2)
        client = member.source._client
        if how == "paused":
            client.pause([ClientPartition(*lost)])
        elif strategy == "range":
            client.assign([ClientPartition(*other, 1)])
        else:
            client.incremental_unassign([ClientPartition(*lost)])
        brokers.load(broker, topic, [(b"m", b"v")], partition=0)
        member.until(lambda: member.count == 3)
        assert [each.topic for each in member.source.complaints()] == [topic]
        brokers.load(broker, topic, [(b"m", b"v")], partition=1)
        member.until(lambda: member.count == 4)
    assert member.offsets == {lost: [0, 1], other: [0, 1]}


def test_a_partition_that_never_starts_is_noticed_soon(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was just assigned and brings nothing is looked at long before a partition that did bring something."""
    monkeypatch.setattr(source_module, "START_S", 0.5)
    monkeypatch.setattr(source_module, "LOOK_INTERVAL_S", 0.1)
    topic = brokers.new_topic(broker)
    member = reader(broker, topic)
    with closing(member):
        member.until(lambda: bool(member.assigned))
        member.source._client.incremental_unassign([ClientPartition(topic, 0)])
        brokers.load(broker, topic, [(b"m", b"v")])
        member.until(lambda: member.count == 1)
        assert [each.topic for each in member.source.complaints()] == [topic]


def test_silence_without_records_is_no_stall(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition that has nothing to bring, or is paused, is left alone."""
    monkeypatch.setattr(source_module, "STALL_S", 0.1)
    monkeypatch.setattr(source_module, "LOOK_INTERVAL_S", 0.05)
    topic = brokers.new_topic(broker, 2)
    brokers.load(broker, topic, [(b"m", b"v")], partition=0)
    brokers.load(broker, topic, [(b"m", b"v")], partition=1)
    member = reader(broker, topic)
    with closing(member):
        member.until(lambda: member.count == 2)
        member.source.pause([TopicPartition(topic, 1)])
        brokers.load(broker, topic, [(b"m", b"v")], partition=1)
        until_s = time.monotonic() + 1
        while time.monotonic() < until_s:
            member.turn()
        assert member.source.complaints() == []
        assert member.count == 2


def test_the_end_is_where_the_core_was_told(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client looks for the end by itself, at another moment: it is brought to the one that was noted."""
    topic = brokers.new_topic(broker)
    brokers.load(broker, topic, ((b"m", b"v") for _ in range(10)))
    member = reader(broker, topic, auto_offset_reset="latest")
    monkeypatch.setattr(member.source, "_watermarks", lambda _: (0, 7))
    with closing(member):
        member.until(lambda: member.count == 3)
    assert member.offsets == {TopicPartition(topic, 0): [7, 8, 9]}


def test_a_client_that_forgot_all_brokers_is_made_anew(broker: Broker) -> None:
    """Its partitions count as lost, its commit is answered, what it tells later is not heard, and all goes on."""
    topic, group = brokers.new_topic(broker), new_group()
    place = TopicPartition(topic, 0)
    brokers.load(broker, topic, [(b"m", b"v")] * 3)
    member = reader(broker, topic, group=group, session_timeout_ms=6000)
    with closing(member):
        member.until(lambda: member.count == 3)
        first, contact = member.source._client, member.source._contact
        member.source.commit({place: (2, "")})
        contact.note('{"brokers":{"GroupCoordinator":{"source":"logical"}}}')
        member.turn(timeout_s=0)
        assert member.source._client is first, "one list without brokers is no reason"
        contact.note('{"brokers":{"a:9092/1":{"source":"learned"}}}')
        for _ in range(2):
            contact.note('{"brokers":{}}')
        member.source.commit({place: (3, "")})
        member.turn(timeout_s=0)
        assert member.source._client is not first
        assert member.revoking == []
        assert member.of(Committed)[-1] == Committed({place: 3}, "_DESTROY")
        assert member.of(Revoked) == [Revoked([place])]
        assert [each.name for each in member.source.complaints()] == ["_ALL_BROKERS_DOWN"]
        member.source._note_revoked(first, [ClientPartition(*place)])
        member.until(lambda: member.assigned == {place})
        at = member.of(Assigned)[-1].partitions[place].next_offset or 0
        member.until(lambda: member.offsets[place][-1] == 2 and member.count == 3 + 3 - at)
    assert member.of(Revoked) == [Revoked([place])]


def test_statistics_tell_of_brokers_that_are_known(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the client says of the brokers it knows is read as it is written, before it has met one and after."""
    misses: list[int] = []
    note = Contact.note

    def watched(contact: Contact, statistics: str) -> None:
        note(contact, statistics)
        misses.append(contact._misses)

    monkeypatch.setattr(Contact, "note", watched)
    member = reader(broker, brokers.new_topic(broker), statistics_interval_ms=20)
    with closing(member):
        member.until(lambda: bool(member.assigned) and len(misses) > 10)
    assert set(misses) == {0}


def test_a_source_may_be_closed_twice(broker: Broker) -> None:
    """The second close finds nothing to do, and says so."""
    member = reader(broker, brokers.new_topic(broker))
    member.until(lambda: bool(member.assigned))
    assert member.source.close(10)
    assert member.source.close(10)
