"""The sink against a broker: what is delivered, what is reported, and that nobody waits for somebody else's fault."""

import time
from typing import Any, cast

import pytest
from confluent_kafka import Message

from consumer.core.actions import DeadLetter, Produce
from consumer.core.events import Delivered, DeliveryFailed, TopicParked
from consumer.core.types import Disposition, Failure, Ticket
from consumer.demo.broker import Broker, Feature
from consumer.errors import ClientError
from consumer.kafka.sink import Routes, Sink
from schemas.headers import DeadLetter as DeadLetterFields
from schemas.headers import parse_dead_letter
from tests import brokers
from tests.contract.clients import SOURCE, run_of, settle, sink, turn_until

pytestmark = pytest.mark.broker

REPORT_ALL: dict[str, Any] = {"delivery.report.only.error": False}
BROKEN = Failure("inference-failed", "ValueError", "it\nbroke")


def routes(result: str, letters: str = "unused", **more: Any) -> Routes:
    """Send results of the model `fraud` and dead letters to these topics."""
    return Routes({"fraud": result}, lambda _: letters, **more)


def produce(ticket: int, values: list[bytes], keys: list[bytes | None] | None = None, **run: Any) -> Produce:
    """Hand over results."""
    keys = keys if keys is not None else [b"%d" % i for i in range(len(values))]
    return Produce(Ticket(ticket), "fraud", [run_of([b""] * len(values), **run)], values, keys)


def delivered(broker: Broker, topic: str) -> list[tuple[bytes | None, bytes | None]]:
    """Return key and value of everything in a topic."""
    return [(record.key(), record.value()) for record in brokers.read_all(broker, topic)]


def told(record: Message) -> DeadLetterFields:
    """Read what a dead letter says."""
    found = parse_dead_letter(cast("list[tuple[str, bytes | None]]", record.headers()))
    assert found is not None
    return found


def test_results_arrive_and_the_barrier_tells(broker: Broker) -> None:
    """Every result is in the topic once, with its key, when `Delivered` names its ticket; sources' headers only."""
    topic = brokers.new_topic(broker, 3)
    out = sink(broker, routes(topic))
    out.produce(produce(1, [b"a", b"b"]))
    headers = [[("trace", b"1"), ("dead-letter-reason", b"expired")], None]
    out.produce(produce(2, [b"c", b"d"], [b"2", b"3"], headers=headers))
    out.flush()
    assert out.wait(10)
    assert out.events()[-1] == Delivered(Ticket(2))
    assert sorted(delivered(broker, topic)) == [(b"0", b"a"), (b"1", b"b"), (b"2", b"c"), (b"3", b"d")]
    carried = {record.value(): record.headers() for record in brokers.read_all(broker, topic)}
    assert carried == {b"a": None, b"b": None, b"c": [("trace", b"1")], b"d": None}


def test_a_quiet_sink_needs_no_flush(broker: Broker) -> None:
    """When nothing is left in the client, `events` tells what was delivered without being asked to flush."""
    topic = brokers.new_topic(broker)
    out = sink(broker, routes(topic))
    out.produce(produce(1, [b"a"]))
    deadline_s = time.monotonic() + 10
    found: list[Any] = []
    while not found:
        assert time.monotonic() < deadline_s
        found += out.events()
    assert found == [Delivered(Ticket(1))]
    assert len(delivered(broker, topic)) == 1
    assert out.events() == []


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [("id", [b"0", b"1"]), ("source-key", [b"k0", b"k1"]), ("header:order", [b"o1", None])],
)
def test_the_key_rule_picks_the_key(broker: Broker, rule: str, wanted: list[bytes | None]) -> None:
    """A result's key is the record's id, its source's key, or a header's last value."""
    topic = brokers.new_topic(broker)
    out = sink(broker, routes(topic, key=rule))
    headers = [[("order", b"o0"), ("order", b"o1")], None]
    out.produce(produce(1, [b"a", b"b"], headers=headers if rule.startswith("header") else None))
    action = produce(2, [b"c", b"d"])
    action.runs[0].keys = [b"k0", b"k1"]
    if rule == "source-key":
        out.produce(action)
    assert settle(out, 2 if rule == "source-key" else 1) == []
    keys = [
        key for key, value in delivered(broker, topic) if value in ((b"c", b"d") if "source" in rule else (b"a", b"b"))
    ]
    assert keys == wanted


def test_a_full_queue_is_backpressure(broker: Broker) -> None:
    """More than the client's queue takes waits in the sink, in order, and arrives; nothing is dropped or doubled."""
    topic = brokers.new_topic(broker)
    out = sink(broker, routes(topic), queue_buffering_max_messages=50, linger_ms=0)
    values = [b"%d" % i for i in range(3000)]
    for ticket in range(1, 4):
        began_s = time.monotonic()
        out.produce(produce(ticket, values[(ticket - 1) * 1000 : ticket * 1000]))
        assert time.monotonic() - began_s < 1
    assert out.in_flight > 2000
    assert settle(out, 3) == []
    assert [value for _, value in delivered(broker, topic)] == values
    assert out.in_flight == 0


def test_a_dead_letter_tells_where_and_why(broker: Broker) -> None:
    """Key, value and headers are untouched, a tombstone's too; the added headers are the schema's."""
    topic = brokers.new_topic(broker)
    out = sink(broker, routes("unused", topic))
    headers = [[("a", b"1"), ("a", b"2"), ("dead-letter-reason", b"expired")], None]
    run = run_of([b"\x00\xffv", None], [b"k", None], headers)
    out.dead_letter(DeadLetter(Ticket(1), run, [BROKEN, Failure("no-value", "RecordError", "empty")]))
    assert settle(out, 1) == []
    first, second = brokers.read_all(broker, topic)
    assert (first.key(), first.value(), second.key(), second.value()) == (b"k", b"\x00\xffv", None, None)
    assert list(first.headers() or [])[:2] == [("a", b"1"), ("a", b"2")]
    why = told(first)
    assert (why.reason, why.error, why.message, why.attempts) == ("inference-failed", "ValueError", "it broke", 1)
    assert (why.source.topic, why.source.partition, why.source.offset) == (*SOURCE, 100)
    assert (why.timestamp_ms, why.model, why.omitted_size) == (1_700_000_000_000, "fraud", None)
    assert (told(second).reason, told(second).source.offset) == ("no-value", 101)


@pytest.mark.parametrize("is_known", [True, False])
def test_too_large_is_the_culprits_fault_only(broker: Broker, is_known: bool) -> None:
    """Of a batch that the broker refuses for one record, that record fails and every neighbour arrives once."""
    brokers.need(broker, Feature.TOPIC_LIMITS)
    topic = brokers.new_topic(broker, settings={"max.message.bytes": "2000"})
    out = sink(broker, routes(topic, bytes_max={topic: 2000} if is_known else {}), linger_ms=50)
    values = [b"%03d" % i for i in range(20)]
    values[7] = values[13] = b"x" * 3000
    out.produce(produce(1, values))
    failed = settle(out, 1)
    assert sorted(each.index for each in failed) == [7, 13]
    for each in failed:
        assert (each.failure.reason, each.failure.disposition) == ("too-large", Disposition.POISON)
        assert topic in each.failure.message
    good = [value for value in values if len(value) == 3]
    assert sorted(value or b"" for _, value in delivered(broker, topic)) == good


def test_suspects_that_find_no_room_are_not_forgotten(broker: Broker) -> None:
    """More suspects than the second producer's queue takes wait, and the barrier waits for them."""
    brokers.need(broker, Feature.TOPIC_LIMITS)
    topic = brokers.new_topic(broker, settings={"max.message.bytes": "2000"})
    out = sink(broker, routes(topic), linger_ms=50)
    out._apart = out._make({"batch.num.messages": 1, "queue.buffering.max.messages": 2, "linger.ms": 0, **REPORT_ALL})
    values = [b"x" * 3000, *(b"%03d" % i for i in range(30))]
    out.produce(produce(1, values))
    assert [each.index for each in settle(out, 1)] == [0]
    assert sorted(value or b"" for _, value in delivered(broker, topic)) == values[1:]


def test_batches_stay_below_the_topics_limit(broker: Broker) -> None:
    """Small records that together exceed the topic's limit are batched below it, when the limit is known."""
    brokers.need(broker, Feature.TOPIC_LIMITS)
    topic = brokers.new_topic(broker, settings={"max.message.bytes": "1024"})
    out = sink(broker, routes(topic, bytes_max={topic: 1024}), linger_ms=50)
    out.produce(produce(1, [b"v" * 200] * 40))
    assert settle(out, 1) == []
    assert len(delivered(broker, topic)) == 40
    assert out._apart is None


def test_a_record_above_the_clients_default_passes_where_the_topic_takes_it(broker: Broker) -> None:
    """A topic for records of several MB gets them: the client's own limit follows the topic's."""
    brokers.need(broker, Feature.TOPIC_LIMITS)
    topic = brokers.new_topic(broker, settings={"max.message.bytes": "5000000"})
    out = sink(broker, routes(topic, bytes_max={topic: 5_000_000}))
    out.produce(produce(1, [b"v" * 4_000_000]))
    assert settle(out, 1) == []
    assert [len(value or b"") for _, value in delivered(broker, topic)] == [4_000_000]


@pytest.mark.parametrize("is_known", [True, False])
def test_an_oversized_dead_letter_becomes_an_envelope(broker: Broker, is_known: bool) -> None:
    """A dead letter that its topic cannot take is sent without key and value, with the place of the source."""
    brokers.need(broker, Feature.TOPIC_LIMITS)
    topic = brokers.new_topic(broker, settings={"max.message.bytes": "1500"})
    out = sink(broker, routes("unused", topic, bytes_max={topic: 1500} if is_known else {}), linger_ms=50)
    run = run_of([b"small", b"x" * 3000, b"small"], headers=[None, [("own", b"h")], None])
    out.dead_letter(DeadLetter(Ticket(1), run, [BROKEN] * 3))
    assert settle(out, 1) == []
    records = brokers.read_all(broker, topic)
    places = {told(each).source.offset: (each.value(), told(each).omitted_size) for each in records}
    assert len(records) == 3
    assert places == {100: (b"small", None), 101: (None, 3000), 102: (b"small", None)}


def test_a_dead_letter_that_never_fits_is_not_dropped(broker: Broker) -> None:
    """If even the envelope is refused, the record waits in the sink, neither delivered nor called poison."""
    brokers.need(broker, Feature.TOPIC_LIMITS)
    topic = brokers.new_topic(broker, settings={"max.message.bytes": "100"})
    out = sink(broker, routes("unused", topic))
    out.dead_letter(DeadLetter(Ticket(1), run_of([b"x" * 300]), [BROKEN]))
    told = turn_until(out, lambda told: told.delivered == 1)
    assert told.parked == {(1, 0)}
    (parked,) = told.of(TopicParked)
    assert (parked.topic, parked.model, parked.failure.disposition) == (topic, None, Disposition.UNAVAILABLE)
    assert delivered(broker, topic) == []
    assert told.of(DeliveryFailed) == []


def test_hand_overs_behind_a_barrier_wait_for_it(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A barrier that did not pass at once is not pushed back by what is handed over meanwhile."""
    topic = brokers.new_topic(broker)
    out = sink(broker, routes(topic), linger_ms=200)
    out.produce(produce(1, [b"a"]))
    out.flush()
    assert not out.wait(0)
    out.produce(produce(2, [b"b"]))
    found: list[Any] = []
    deadline_s = time.monotonic() + 10
    while not found:
        assert time.monotonic() < deadline_s
        found = out.events()
    assert found == [Delivered(Ticket(1))]
    assert settle(out, 2) == []


def test_a_sink_that_is_hastened_does_not_linger(broker: Broker) -> None:
    """What the client would keep for a minute is delivered at once when there is nothing more to come, every time."""
    out = sink(broker, routes(brokers.new_topic(broker)), linger_ms=60_000)
    ticket = 0
    for _ in range(3):
        assert out._is_empty()
        delivered_events: list[object] = []
        deadline_s = time.monotonic() + 20.0
        while not delivered_events and time.monotonic() < deadline_s:
            ticket += 1
            out.produce(produce(ticket, [b"a"]))
            assert out._lingers
            out.hasten()  # on a busy machine the client may not wake up in time for one call
            time.sleep(0.05)
            delivered_events = list(out.events())
        assert delivered_events == [Delivered(Ticket(ticket))]
    out.close()


def test_settings_that_the_client_refuses_are_one_line(broker: Broker) -> None:
    """A producer that cannot be made says why."""
    with pytest.raises(ClientError, match="the producer cannot start"):
        Sink({"bootstrap.servers": broker.bootstrap_servers, "batch.size": 0}, routes("any"))


def test_a_fatal_error_ends_it(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an error that the client calls fatal, every call says so instead of waiting for deliveries."""
    out = sink(broker, routes(brokers.new_topic(broker)))
    monkeypatch.setattr(out._complaints, "fatal", "_FATAL: sequence numbers broke")
    with pytest.raises(ClientError, match="sequence numbers broke"):
        out.events()


def test_no_report_is_left_behind(broker: Broker) -> None:
    """A closed sink gives up at once what could not be delivered."""
    out = sink(broker, routes("missing-" + brokers.new_topic(broker)))
    out.produce(produce(1, [b"a"]))
    began_s = time.monotonic()
    out.close()
    assert time.monotonic() - began_s < 2
