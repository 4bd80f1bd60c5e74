"""The client settings under `kafka:`, and what the program makes of them.

Owns the merge (ours < shared < `consumer:` or `producer:`), the settings that nobody else may set, and our defaults
with the reason for each. Must not know topics, offsets or records.
"""

import contextlib
import difflib
import logging
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from confluent_kafka import Consumer, KafkaException, Producer

from consumer.errors import ConfigError
from consumer.kafka.contact import INTERVAL_MS
from consumer.kafka.properties import ALIASES, CONSUMER, KNOWN, PRODUCER

Value: TypeAlias = str | int | float | bool
"""What a client setting may be in a configuration."""

FETCH_BYTES_MAX = 8 * 2**20

CONSUMER_DEFAULTS: Mapping[str, Value] = {
    "auto.offset.reset": "earliest",
    # A rebalance takes away only the partitions that move; the others go on.
    "partition.assignment.strategy": "cooperative-sticky",
    # When the local queue is full, the next fetch waits this long. The client's default, a second, is a second's stall.
    "fetch.queue.backoff.ms": 5,
    # A broker answers one fetch at a time, an empty one when this is over: partitions that were assigned or resumed
    # meanwhile wait for it. The client's default is half a second.
    "fetch.wait.max.ms": 100,
    # A fetch stays below malloc's threshold, so that its pages are kept (`memory`).
    "fetch.max.bytes": FETCH_BYTES_MAX,
    "max.partition.fetch.bytes": 2 * 2**20,
    # What waits in the client comes on top of the program's own budget.
    "queued.max.messages.kbytes": 8 * 2**10,
    # How often the client tells which brokers it knows; one that knows none twice in a row is made anew (`contact`).
    "statistics.interval.ms": INTERVAL_MS,
}

PRODUCER_DEFAULTS: Mapping[str, Value] = {
    # Under load, one request then carries what took that long to come; when there is nothing more to come, the sink has
    # the client send at once (`Sink.hasten`).
    "linger.ms": 20,
    # The client repeats without doubling for as long as it takes; the sink notices what hangs and acts on it.
    "message.timeout.ms": 0,
    # A broker serves a connection one request at a time, and keeps one whose replicas do not follow for this long: the
    # results of all other models wait behind it. The client's own limit is 30 s; what timed out is repeated undoubled.
    "request.timeout.ms": 5000,
    # The same partition for a key as Java's clients choose.
    "partitioner": "murmur2_random",
    # Bounds what a stuck broker can pile up; beyond it the sink holds records back.
    "queue.buffering.max.messages": 100_000,
    "queue.buffering.max.kbytes": 64 * 2**10,
}

EXACTLY_ONCE_DEFAULTS: Mapping[str, Value] = {
    # Right after a commit the coordinator asks for patience until the markers are written: with the client's own 100 ms
    # a transaction takes 95 ms, with these 10.
    "retry.backoff.ms": 5,
    "retry.backoff.max.ms": 20,
    # Whoever takes over the partitions of a member that died waits for its transaction's end.
    "transaction.timeout.ms": 10_000,
    # After an outage of all brokers the client would forget them and begin with those of its settings again; offsets
    # that are being added to a transaction then wait for a forgotten coordinator, for minutes or for ever (librdkafka
    # issue 5511). Brokers that came back elsewhere are found by the client that replaces one that is stuck.
    "metadata.recovery.strategy": "none",
}

SHARED_DEFAULTS: Mapping[str, Value] = {
    # A connection that a firewall forgot is noticed.
    "socket.keepalive.enable": True,
    # A broker that is back is found again about a second later; the client's own limit between two attempts is ten.
    "reconnect.backoff.max.ms": 1000,
    # Errors come as complaints, once each (`errors`); the client's own log repeats them several times a second.
    # `log_level: 6`, or anything under `debug`, brings it back.
    "log_level": 2,
}

_CONSUMER_OWNED: Mapping[str, Value] = {"enable.auto.commit": False, "enable.auto.offset.store": False}
_PRODUCER_OWNED: Mapping[str, Value] = {"enable.idempotence": True, "acks": "all", "delivery.report.only.error": True}

OWNED: Mapping[str, str] = {
    "enable.auto.commit": "offsets are committed after delivery only",
    "auto.commit.enable": "offsets are committed after delivery only",
    "enable.auto.offset.store": "offsets are committed after delivery only",
    "enable.partition.eof": "the end of a partition is no record",
    "enable.idempotence": "results are always produced idempotently",
    "acks": "a result counts when all replicas in sync have it",
    "request.required.acks": "a result counts when all replicas in sync have it",
    "delivery.report.only.error": "the sink needs it as it is",
    "transactional.id": "it follows from delivery: exactly-once",
}
"""Settings that promises rest on, and why nobody may set them."""

_EXACTLY_ONCE_OWNED = {"isolation.level": "exactly-once reads committed records only"}

_SECRET = re.compile(r"password|secret|\.pem$|token|sasl\.oauthbearer\.config")
"""Settings whose values no message may repeat."""

_REFUSED_NAME = re.compile(r'No such configuration property: "([^"]+)"')
_REFUSED_VALUE = re.compile(r'onfiguration property "([^"]+)"')


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What each client is made with."""

    consumer: Mapping[str, Value]
    producer: Mapping[str, Value]
    admin: Mapping[str, Value]


def compose(kafka: Mapping[str, Any], *, exactly_once: bool = False, instance: str = "") -> ClientSettings:
    """Make every client's settings from the configuration's `kafka:`.

    Args:
        kafka: settings of all clients by name, and under `consumer` and `producer` those of one.
        exactly_once: whether delivery is exactly-once, which owns more settings.
        instance: what tells this copy of the program from the others, for its transactional.id; "" for a random name.

    Raises:
        ConfigError: with a line for each setting that is missing, owned, unknown or has a value that is not allowed.
    """
    problems: list[str] = []
    own: dict[str, Mapping[str, Any]] = {}
    for part in ("consumer", "producer"):
        section = kafka.get(part) or {}
        if not isinstance(section, Mapping):
            problems.append(f"kafka.{part}: {section!r} is not allowed: a map of client settings")
            section = {}
        own[part] = section
    shared = {name: value for name, value in kafka.items() if name not in own}
    owned = {**OWNED, **(_EXACTLY_ONCE_OWNED if exactly_once else {})}
    for prefix, section in (
        ("kafka", shared),
        ("kafka.consumer", own["consumer"]),
        ("kafka.producer", own["producer"]),
    ):
        problems.extend(_section_problems(prefix, section, owned))
    if not any(shared.get(name) for name in ("bootstrap.servers", "metadata.broker.list")):
        problems.append('kafka.bootstrap.servers is missing: the brokers to ask first, such as "localhost:9092"')
    if not (shared.get("group.id") or own["consumer"].get("group.id")):
        problems.append("kafka.group.id is missing: the name that all copies of this consumer share")
    if problems:
        raise ConfigError(*problems)
    if exactly_once:
        own["consumer"] = {**own["consumer"], "isolation.level": "read_committed"}
    settings = _merge(shared, own["consumer"], own["producer"])
    if exactly_once:
        settings = _transactional(settings, kafka, instance or uuid.uuid4().hex)
    refused = {*_refusals(Consumer, settings.consumer), *_refusals(Producer, settings.producer)}
    if refused:
        raise ConfigError(*sorted(refused))
    return settings


def _merge(shared: Mapping[str, Any], consumer: Mapping[str, Any], producer: Mapping[str, Any]) -> ClientSettings:
    base = dict(SHARED_DEFAULTS)
    if "debug" in shared:
        del base["log_level"]
    merged_consumer = {**base, **CONSUMER_DEFAULTS, **_without(shared, PRODUCER), **consumer}
    if merged_consumer.get("group.protocol") == "consumer" and "partition.assignment.strategy" not in {
        **shared,
        **consumer,
    }:
        del merged_consumer["partition.assignment.strategy"]  # the broker assigns: group.remote.assignor
    # The client insists that a fetch holds at least one record of the largest size.
    largest = int(merged_consumer.get("message.max.bytes", 0))
    if "fetch.max.bytes" not in {**shared, **consumer}:
        merged_consumer["fetch.max.bytes"] = max(FETCH_BYTES_MAX, largest)
    return ClientSettings(
        consumer={**merged_consumer, **_CONSUMER_OWNED},
        producer={**base, **PRODUCER_DEFAULTS, **_without(shared, CONSUMER), **producer, **_PRODUCER_OWNED},
        admin={**base, **_without(shared, CONSUMER | PRODUCER)},
    )


def _transactional(settings: ClientSettings, kafka: Mapping[str, Any], instance: str) -> ClientSettings:
    """Add what the transactional producer needs."""
    producer = {**EXACTLY_ONCE_DEFAULTS, **settings.producer}
    if "message.timeout.ms" not in {**kafka, **(kafka.get("producer") or {})}:
        del producer["message.timeout.ms"]  # the client's default then is the transaction's timeout
    producer["transactional.id"] = f"{settings.consumer['group.id']}-{instance}"
    return replace(settings, producer=producer)


def _section_problems(prefix: str, section: Mapping[str, Any], owned: Mapping[str, str]) -> list[str]:
    problems = []
    for name, value in section.items():
        if name in owned:
            problems.append(f"{prefix}.{name}: {value!r} is not allowed: {owned[name]}")
        elif not isinstance(value, Value):
            shown = "the value (a secret, not shown)" if _SECRET.search(name) else repr(value)
            problems.append(f"{prefix}.{name}: {shown} is not allowed: a text, a number, true or false")
    return problems


def _without(section: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in section.items() if name not in names}


def _refusals(client: type[Consumer] | type[Producer], settings: Mapping[str, Value]) -> list[str]:
    """Ask the client itself, which names one wrong setting at a time. Without brokers it connects to nowhere."""
    silent = logging.getLogger(f"{__name__}.silent")
    silent.disabled = True
    left = _without(settings, frozenset({"bootstrap.servers", "metadata.broker.list"}))
    problems: list[str] = []
    while True:
        try:
            asked = client({**left, "logger": silent})
        except (KafkaException, ValueError, TypeError) as error:
            text = error.args[0].str() if isinstance(error, KafkaException) else str(error)
            found = _REFUSED_NAME.search(text) or _REFUSED_VALUE.search(text)
            name = found[1] if found is not None else ""
            name = name if name in left else next((alias for alias in left if ALIASES.get(alias) == name), name)
            if found is None or name not in left:
                return [*problems, f"kafka: {text}"]
            value = left.pop(name)
            nearest = difflib.get_close_matches(name, KNOWN, 1)
            if _REFUSED_NAME.search(text):
                hint = f"; did you mean {nearest[0]}?" if nearest else ""
                problems.append(f"kafka.{name} is no setting of the Kafka client{hint}")
            else:
                problems.append(f"kafka.{name}: {value!r} is not allowed: {text}")
        else:
            with contextlib.suppress(AttributeError):
                asked.close()
            return problems
