"""The sink and topics that take nothing: others go on, nothing is lost, and what waited arrives by itself."""

import signal
import time
from collections import Counter

import pytest
from confluent_kafka.admin import AdminClient

from consumer.core.actions import Produce
from consumer.core.events import DeliveryFailed, Parked, TopicParked, TopicResumed
from consumer.core.types import Ticket, TopicPartition
from consumer.demo.broker import Broker, Feature
from consumer.kafka import sink as sink_module
from consumer.kafka.sink import Routes
from tests import brokers
from tests.contract.clients import SOURCE, Told, run_of, sink, turn_until

pytestmark = pytest.mark.broker

STUCK_S = 1.0
OUTAGE_STALL_S = 4.0
"""A node that was started again needs a moment before it takes records."""
OTHER = TopicPartition("in", 4)


@pytest.fixture(autouse=True)
def _short_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look into barriers sooner than in production."""
    monkeypatch.setattr(sink_module, "STALL_S", STUCK_S)


def produce(ticket: int, model: str, values: list[bytes], partition: TopicPartition | None = None) -> Produce:
    """Hand over results of a model."""
    run = run_of([b""] * len(values), partition=partition or SOURCE)
    return Produce(Ticket(ticket), model, [run], values, [b"%d" % i for i in range(len(values))])


def values_of(broker: Broker, topic: str) -> Counter[bytes | None]:
    """Count the values in a topic."""
    return Counter(record.value() for record in brokers.read_all(broker, topic))


def two(broker: Broker) -> tuple[Routes, str, str]:
    """Give routes to a topic that is there, for `good`, and to one that is not, for `bad`."""
    good = brokers.new_topic(broker)
    bad = f"not-yet-{good}"
    return Routes({"good": good, "bad": bad}, lambda _: "unused"), good, bad


def test_a_missing_topic_is_parked_and_heals(broker: Broker) -> None:
    """Its records wait, the others' barriers pass meanwhile, and once it is there all of them arrive, once."""
    brokers.need(broker, Feature.TOPIC_LIMITS)
    routes, good, bad = two(broker)
    out = sink(broker, routes)
    out.produce(produce(1, "good", [b"g1"]))
    out.produce(produce(2, "bad", [b"b1", b"b2", b"b3"]))
    told = turn_until(out, lambda told: told.delivered == 2)
    assert told.parked == {(2, 0), (2, 1), (2, 2)}
    assert [(each.topic, each.model) for each in told.of(TopicParked)] == [(bad, "bad")]
    began_s = time.monotonic()
    out.produce(produce(3, "good", [b"g2"]))
    out.produce(produce(4, "bad", [b"b4"]))
    turn_until(out, lambda told: told.delivered == 4, told)
    assert time.monotonic() - began_s < STUCK_S, "a parked topic held a barrier up"
    assert told.parked == {(2, 0), (2, 1), (2, 2), (4, 0)}
    assert out.parked >= 3
    brokers.new_topic(broker, name=bad)
    turn_until(out, lambda told: not told.parked, told)
    assert [(each.topic, each.model) for each in told.of(TopicResumed)] == [(bad, "bad")]
    assert told.of(DeliveryFailed) == []
    assert values_of(broker, bad) == Counter([b"b1", b"b2", b"b3", b"b4"])
    assert values_of(broker, good) == Counter([b"g1", b"g2"])
    out.produce(produce(5, "bad", [b"b5"]))
    turn_until(out, lambda told: told.delivered == 5, told)
    assert told.parked == set()


def test_a_client_that_forgot_all_brokers_tries_no_topic(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it was given to try a parked topic with is called back and given to another one; the topic heals."""
    brokers.need(broker, Feature.TOPIC_LIMITS)
    routes, _, bad = two(broker)
    out = sink(broker, routes)
    make, lost = out._make, {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}
    monkeypatch.setattr(out, "_make", lambda settings: make({**settings, **lost}))
    out.produce(produce(1, "bad", [b"b1", b"b2"]))
    told = turn_until(out, lambda told: told.delivered == 1)
    brokers.new_topic(broker, name=bad)
    turn_until(out, lambda _: out._apart is not None and len(out._apart) == 1, told)
    monkeypatch.setattr(out, "_make", make)
    for _ in range(2):
        out._contact.note('{"brokers":{}}')
    turn_until(out, lambda told: not told.parked, told)
    assert told.of(DeliveryFailed) == []
    assert values_of(broker, bad) == Counter([b"b1", b"b2"])


def test_a_topic_deleted_under_way_heals_when_it_is_made_anew(broker: Broker) -> None:
    """A topic that worked, is deleted and made again takes its records again, in the client that knew the old one."""
    brokers.need(broker, Feature.TOPIC_LIMITS)
    topic = brokers.new_topic(broker)
    out = sink(broker, Routes({"m": topic}, lambda _: "unused"))
    out.produce(produce(1, "m", [b"a"]))
    told = turn_until(out, lambda told: told.delivered == 1)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    admin.delete_topics([topic])[topic].result(10)
    out.produce(produce(2, "m", [b"b", b"c"]))
    turn_until(out, lambda told: told.delivered == 2, told)
    assert told.parked == {(2, 0), (2, 1)}
    brokers.new_topic(broker, name=topic)
    turn_until(out, lambda told: not told.parked, told)
    assert values_of(broker, topic) == Counter([b"b", b"c"])


def test_fenced_records_are_never_sent(broker: Broker) -> None:
    """Parked and waiting records of a partition that was taken away are dropped; the others' arrive."""
    brokers.need(broker, Feature.TOPIC_LIMITS)
    routes, good, bad = two(broker)
    out = sink(broker, routes)
    out.produce(produce(1, "bad", [b"mine"]))
    out.produce(produce(2, "bad", [b"gone", b"gone"], OTHER))
    told = turn_until(out, lambda told: told.delivered == 2)
    out.produce(produce(3, "good", [b"before"]))
    out.flush()
    assert not out.wait(0)
    out.produce(produce(4, "good", [b"gone"], OTHER))
    out.produce(produce(5, "good", [b"mine"]))
    out.fence([OTHER])
    brokers.new_topic(broker, name=bad)
    turn_until(out, lambda told: told.delivered == 5 and told.parked == {(2, 0), (2, 1)}, told)
    assert values_of(broker, good) == Counter([b"before", b"mine"])
    assert values_of(broker, bad) == Counter([b"mine"])


def test_a_topic_for_which_nothing_waits_is_open(broker: Broker) -> None:
    """When the last record that waited for a topic is fenced, the topic is no longer called parked."""
    brokers.need(broker, Feature.TOPIC_LIMITS)
    routes, _, bad = two(broker)
    out = sink(broker, routes)
    told = Told()
    out.produce(produce(1, "bad", [b"gone"], OTHER))
    turn_until(out, lambda told: bool(told.of(TopicParked)), told)
    out.fence([OTHER])
    brokers.new_topic(broker, name=bad)
    turn_until(out, lambda told: [each.topic for each in told.of(TopicResumed)] == [bad], told)


def test_the_clients_queue_is_called_back_for_a_fence(broker: Broker) -> None:
    """Of what the client has not sent yet, fenced records never leave, and the others arrive once."""
    topic = brokers.new_topic(broker)
    out = sink(broker, Routes({"m": topic}, lambda _: "unused"), linger_ms=2000)
    out.produce(produce(1, "m", [b"gone"] * 3, OTHER))
    out.produce(produce(2, "m", [b"mine1", b"mine2"]))
    out.fence([OTHER])
    told = turn_until(out, lambda told: told.delivered == 2)
    assert told.parked == set()
    assert told.of(Parked) == []
    assert values_of(broker, topic) == Counter([b"mine1", b"mine2"])


@pytest.mark.parametrize("fault", ["freeze", "kill"])
def test_an_outage_of_all_brokers_parks_nothing(
    own_broker: Broker, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nobody answers, no topic is blamed; when they are back everything arrives, and once."""
    monkeypatch.setattr(sink_module, "STALL_S", OUTAGE_STALL_S)
    node = own_broker.node
    assert node is not None
    topics = {model: brokers.new_topic(own_broker) for model in ("a", "b")}
    out = sink(own_broker, Routes(topics, lambda _: "unused"))
    out.produce(produce(1, "a", [b"before"]))
    told = turn_until(out, lambda told: told.delivered == 1)
    if fault == "freeze":
        brokers.freeze(node)
    else:
        node.kill()
    for ticket in range(2, 22):
        out.produce(produce(ticket, "a" if ticket % 2 else "b", [b"%d-%d" % (ticket, i) for i in range(20)]))
    until_s = time.monotonic() + 3 * OUTAGE_STALL_S
    out.flush()
    while time.monotonic() < until_s:
        assert not out.wait(0.1)
        told.events += out.events()
    assert told.delivered == 1
    if fault == "freeze":
        node.kill(signal.SIGCONT)
    else:
        node.start()
    turn_until(out, lambda told: told.delivered == 21, told)
    assert told.of(TopicParked) == []
    assert told.of(Parked) == []
    found = values_of(own_broker, topics["a"]) + values_of(own_broker, topics["b"])
    assert found == Counter([b"before", *(b"%d-%d" % (t, i) for t in range(2, 22) for i in range(20))])
