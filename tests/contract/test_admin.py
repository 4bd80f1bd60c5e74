"""The administrative client against a broker."""

import time
import uuid

import pytest
from confluent_kafka import KafkaException

from consumer.demo.broker import Broker, Feature
from consumer.errors import BrokerError
from consumer.kafka.admin import Admin, wait_reachable
from consumer.kafka.options import OutputOptions
from consumer.kafka.settings import compose
from tests import brokers


@pytest.fixture
def admin(broker: Broker) -> Admin:
    """Return a client of the session's broker."""
    return Admin(compose({"bootstrap.servers": broker.bootstrap_servers, "group.id": "unused"}).admin)


def name() -> str:
    """Name a topic that nobody has."""
    return f"a-{uuid.uuid4().hex[:12]}"


@pytest.mark.broker
def test_missing_topics_are_made_and_seen(broker: Broker, admin: Admin) -> None:
    """Only those missing are created, as configured, and are visible when the call returns; again it does nothing."""
    there, missing, other = brokers.new_topic(broker), name(), name()
    options = OutputOptions(partitions=3, replication_factor=1)
    assert admin.ensure([there, missing, other, missing], options) == sorted([missing, other])
    assert {each: admin.topics()[each] for each in (there, missing, other)} == {there: 1, missing: 3, other: 3}
    assert admin.ensure([there, missing, other], options) == []


@pytest.mark.broker
def test_a_topic_that_another_copy_made_meanwhile_is_fine(
    broker: Broker, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Creating what came to be after the look is no error, and what is not visible yet is waited for."""
    there = brokers.new_topic(broker)
    seen = admin.topics()
    looks: list[dict[str, int]] = [{}, {there: 0}, {}, seen]
    monkeypatch.setattr(admin, "topics", lambda: looks.pop(0))
    assert admin.ensure([there], OutputOptions()) == [there]
    assert looks == []


@pytest.mark.broker
def test_a_missing_topic_that_may_not_be_made_is_one_line(broker: Broker, admin: Admin) -> None:
    """Without permission to create, what is missing is named, with what to do."""
    missing = name()
    with pytest.raises(BrokerError) as raised:
        admin.ensure([brokers.new_topic(broker), missing], OutputOptions(create=False))
    assert str(raised.value) == (
        f"missing topics: {missing}; create them, or set output.create: true to have that done"
    )
    assert missing not in admin.topics()


@pytest.mark.broker
def test_what_the_broker_refuses_is_one_line(broker: Broker, admin: Admin) -> None:
    """A topic setting that there is not is the broker's error, told with the topic's name."""
    brokers.need(broker, Feature.TOPIC_LIMITS)
    missing = name()
    with pytest.raises(BrokerError, match=f"topic {missing} cannot be created: Unknown topic config name: nonsense"):
        admin.ensure([missing], OutputOptions(settings={"nonsense": "1"}))


@pytest.mark.broker
def test_limits_and_identities_are_read(broker: Broker, admin: Admin) -> None:
    """A topic tells its largest record and its identity; of one that is not there, no identity is told."""
    brokers.need(broker, Feature.TOPIC_LIMITS)
    small, usual = brokers.new_topic(broker, settings={"max.message.bytes": "2000"}), brokers.new_topic(broker)
    assert admin.bytes_max([small, usual, name()]) == {small: 2000, usual: 1_048_588}
    assert admin.bytes_max([]) == {}
    assert len({admin.topic_id(small), admin.topic_id(usual), ""}) == 3
    with pytest.raises(KafkaException, match="UNKNOWN_TOPIC_OR_PART"):
        admin.topic_id(name())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"bootstrap.servers": "127.0.0.1:1"}, "a broker does not answer: start it, or correct bootstrap.servers"),
        ({"bootstrap.servers": "nowhere.invalid:1"}, "correct the host names in bootstrap.servers"),
    ],
)
def test_an_unreachable_cluster_says_what_to_do(settings: dict[str, str], reason: str) -> None:
    """No answer is an error within the time given, with the cause and not only that time ran out."""
    began_s = time.monotonic()
    with pytest.raises(BrokerError, match="no answer from Kafka: ") as raised:
        Admin(compose({**settings, "group.id": "unused"}).admin).topics(1)
    assert reason in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert time.monotonic() - began_s < 3


def test_a_client_without_an_answer_is_replaced() -> None:
    """A client whose brokers did not answer may have forgotten them all: each question after that has a new one."""
    admin = Admin(compose({"bootstrap.servers": "127.0.0.1:1", "group.id": "unused"}).admin)
    clients = [admin._client]
    with pytest.raises(KafkaException, match=r"_TIMED_OUT|_TRANSPORT|_ALL_BROKERS_DOWN"):
        admin.topic_id("t")
    clients.append(admin._client)
    with pytest.raises(BrokerError):
        admin.topics(0.1)
    clients.append(admin._client)
    assert len({id(each) for each in clients}) == 3


@pytest.mark.broker
def test_a_refused_login_says_so(broker: Broker) -> None:
    """A broker that does not take our login is named as that, not as a time-out."""
    brokers.need(broker, Feature.TOPIC_LIMITS)
    login = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "u",
        "sasl.password": "p",
    }
    kafka = {"bootstrap.servers": broker.bootstrap_servers, "group.id": "unused", **login}
    with pytest.raises(BrokerError, match=r"correct the sasl\.\* settings"):
        Admin(compose(kafka).admin).topics(2)


def test_waiting_for_nobody_ends() -> None:
    """A cluster that never answers is given up when the time is over."""
    began_s = time.monotonic()
    assert wait_reachable({"bootstrap.servers": "127.0.0.1:1"}, 0.3) is False
    assert time.monotonic() - began_s < 2
