"""The merge under `kafka:` and what it refuses."""

import pytest

from consumer.errors import ConfigError
from consumer.kafka.properties import CONSUMER, KNOWN, PRODUCER, SHARED
from consumer.kafka.settings import OWNED, compose

LEAST = {"bootstrap.servers": "localhost:9092", "group.id": "inference"}


def problems_of(kafka: dict[str, object], *, exactly_once: bool = False) -> list[str]:
    """Compose what must be refused and return its lines."""
    with pytest.raises(ConfigError) as raised:
        compose(kafka, exactly_once=exactly_once)
    return list(raised.value.problems)


def test_two_settings_are_enough() -> None:
    """Brokers and group are all that must be given."""
    settings = compose(LEAST)
    assert settings.consumer["group.id"] == "inference"
    assert settings.consumer["enable.auto.commit"] is False
    assert settings.consumer["auto.offset.reset"] == "earliest"
    assert settings.consumer["partition.assignment.strategy"] == "cooperative-sticky"
    assert settings.producer["acks"] == "all"
    assert settings.producer["enable.idempotence"] is True
    assert settings.admin["bootstrap.servers"] == "localhost:9092"


def test_each_client_gets_what_it_understands() -> None:
    """A shared setting of one kind of client does not reach the other, which would warn of it."""
    settings = compose({**LEAST, "session.timeout.ms": 20_000, "compression.type": "lz4", "client.id": "me"})
    assert "session.timeout.ms" not in settings.producer.keys() | settings.admin.keys()
    assert "group.id" not in settings.producer.keys() | settings.admin.keys()
    assert "compression.type" not in settings.consumer.keys() | settings.admin.keys()
    assert {each["client.id"] for each in (settings.consumer, settings.producer, settings.admin)} == {"me"}


def test_the_closer_setting_wins() -> None:
    """Ours give way to shared ones, shared ones to a client's own."""
    settings = compose({**LEAST, "linger.ms": 7, "client.id": "all", "consumer": {"client.id": "one"}})
    assert settings.producer["linger.ms"] == 7
    assert settings.consumer["client.id"] == "one"
    assert settings.producer["client.id"] == "all"


def test_nothing_given_names_both_missing() -> None:
    """Every problem is reported at once, not the first."""
    assert [line.split()[0] for line in problems_of({})] == ["kafka.bootstrap.servers", "kafka.group.id"]


@pytest.mark.parametrize("section", ["", "consumer", "producer"])
@pytest.mark.parametrize("name", sorted(OWNED))
def test_owned_settings_are_refused_everywhere(name: str, section: str) -> None:
    """What a promise rests on cannot be set, whatever section it stands in, even to the value that it has."""
    kafka: dict[str, object] = {**LEAST, section: {name: True}} if section else {**LEAST, name: True}
    prefix = f"kafka.{section}.{name}" if section else f"kafka.{name}"
    (line,) = problems_of(kafka)
    assert line == f"{prefix}: True is not allowed: {OWNED[name]}"


def test_isolation_level_is_owned_in_exactly_once_only() -> None:
    """Exactly-once reads committed records; otherwise the reader chooses."""
    kafka: dict[str, object] = {**LEAST, "isolation.level": "read_uncommitted"}
    assert compose(kafka).consumer["isolation.level"] == "read_uncommitted"
    assert compose(LEAST, exactly_once=True).consumer["isolation.level"] == "read_committed"
    assert problems_of(kafka, exactly_once=True) == [
        "kafka.isolation.level: 'read_uncommitted' is not allowed: exactly-once reads committed records only"
    ]


def test_exactly_once_has_a_transactional_id_and_does_not_wait_for_markers() -> None:
    """The id tells group and instance; pauses between retries are short, and whatever is configured wins."""
    producer = compose(LEAST, exactly_once=True, instance="pod-0").producer
    assert producer["transactional.id"] == "inference-pod-0"
    assert (producer["retry.backoff.ms"], producer["retry.backoff.max.ms"]) == (5, 20)
    assert producer["transaction.timeout.ms"] == 10_000
    assert "message.timeout.ms" not in producer
    given: dict[str, object] = {**LEAST, "producer": {"transaction.timeout.ms": 20_000, "message.timeout.ms": 9_000}}
    producer = compose(given, exactly_once=True, instance="pod-0").producer
    assert (producer["transaction.timeout.ms"], producer["message.timeout.ms"]) == (20_000, 9_000)


def test_an_instance_without_a_name_gets_a_random_one() -> None:
    """Two copies that nobody named do not fence each other."""
    ids = {compose(LEAST, exactly_once=True).producer["transactional.id"] for _ in range(2)}
    assert len(ids) == 2
    assert all(str(each).startswith("inference-") for each in ids)


def test_at_least_once_knows_no_transactions() -> None:
    """Without exactly-once there is no transactional id, and a record is repeated for as long as it takes."""
    producer = compose(LEAST, instance="pod-0").producer
    assert not any(name.startswith("transaction") for name in producer)
    assert producer["message.timeout.ms"] == 0


def test_the_brokers_assign_where_the_group_protocol_says_so() -> None:
    """With `group.protocol: consumer` our assignor is not set, which the client would refuse; one that is given is."""
    assert "partition.assignment.strategy" not in compose({**LEAST, "group.protocol": "consumer"}).consumer
    given: dict[str, object] = {**LEAST, "group.protocol": "consumer", "partition.assignment.strategy": "range"}
    (line,) = problems_of(given)
    assert "group.remote.assignor" in line
    (line,) = problems_of({**LEAST, "group.protocol": "consumer", "consumer": {"session.timeout.ms": 6000}})
    assert "session.timeout.ms" in line


def test_the_client_refuses_names_and_values_one_line_each() -> None:
    """Unknown names come with the nearest known one, wrong values with what the client says, all of them at once."""
    lines = problems_of({**LEAST, "sesion.timeout.ms": 1, "linger.ms": "soon", "consumer": {"fetch.max.bytes": -3}})
    assert len(lines) == 3
    assert any(line.startswith("kafka.fetch.max.bytes: -3 is not allowed") for line in lines)
    assert any(line.startswith("kafka.linger.ms: 'soon' is not allowed") for line in lines)
    assert "kafka.sesion.timeout.ms is no setting of the Kafka client; did you mean session.timeout.ms?" in lines


def test_no_refusal_repeats_a_secret() -> None:
    """A value that may be a password or a key is not in the line that refuses it."""
    wrong = {"sasl.password": ["hunter2"], "ssl.key.password": {"a": "hunter2"}, "ssl.key.pem": ["hunter2"]}
    lines = problems_of({**LEAST, **wrong})
    assert [line.split(":")[0] for line in lines] == [f"kafka.{name}" for name in wrong]
    assert not any("hunter2" in line for line in lines)


def test_structures_are_refused() -> None:
    """A setting is one value, a client's section is a map."""
    lines = problems_of({**LEAST, "client.id": ["a"], "producer": 3})
    assert lines == [
        "kafka.producer: 3 is not allowed: a map of client settings",
        "kafka.client.id: ['a'] is not allowed: a text, a number, true or false",
    ]


def test_security_settings_reach_every_client() -> None:
    """SASL and TLS are given once and hold for consumer, producer and administration."""
    login = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "u", "sasl.password": "p"}
    settings = compose({**LEAST, **login})
    for each in (settings.consumer, settings.producer, settings.admin):
        assert each.items() >= login.items()


def test_larger_records_widen_the_fetch() -> None:
    """`message.max.bytes` above our fetch limit is no conflict: the client insists that a fetch holds one record."""
    assert compose({**LEAST, "message.max.bytes": 20_000_000}).consumer["fetch.max.bytes"] == 20_000_000
    assert compose({**LEAST, "message.max.bytes": 2_000_000}).consumer["fetch.max.bytes"] == 8 * 2**20


def test_debug_brings_the_clients_log_back() -> None:
    """The client's log is quiet by default, since its errors come once as complaints; `debug` asks for all of it."""
    assert compose(LEAST).consumer["log_level"] == 2
    assert "log_level" not in compose({**LEAST, "debug": "cgrp"}).consumer


def test_no_setting_is_listed_twice() -> None:
    """The lists tell one kind of client from the other, so they share no name."""
    assert len(KNOWN) == len(SHARED) + len(CONSUMER) + len(PRODUCER)
