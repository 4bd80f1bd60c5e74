"""What tests do with a broker beside the program: make topics, load them, read everything back, stop it."""

import os
import signal
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence

import pytest
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from consumer.demo.broker import Broker, Feature
from consumer.demo.node import Node


def need(broker: Broker, *features: Feature) -> None:
    """Skip the test, with the reason, on a broker that lacks what it is about."""
    lacking = [feature for feature in features if feature in broker.lacks]
    if lacking:
        pytest.skip(f"{broker.reason} lacks {', '.join(lacking)}")


def new_topic(
    broker: Broker, partitions: int = 1, name: str | None = None, settings: Mapping[str, str] | None = None
) -> str:
    """Create a topic, by default under a name of its own, and return the name once clients can see it."""
    name = name or f"t-{uuid.uuid4().hex[:12]}"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    future = admin.create_topics([NewTopic(name, partitions, 1, config=dict(settings or {}))])[name]
    future.result(10)
    deadline_s = time.monotonic() + 10
    while True:
        found = admin.list_topics(name, timeout=10).topics[name]
        if found.error is None and len(found.partitions) == partitions:
            return name
        assert time.monotonic() < deadline_s, f"topic {name} is not visible: {found.error}"
        time.sleep(0.02)


def freeze(node: Node) -> None:
    """Stop a node's process; on a busy machine its threads go on for a while, so wait until all of them stand."""
    assert node.process is not None
    node.kill(signal.SIGSTOP)
    os.waitid(os.P_PID, node.process.pid, os.WSTOPPED | os.WNOWAIT)


def load(
    broker: Broker,
    topic: str,
    records: Iterable[tuple[bytes | None, bytes | None]],
    partition: int = -1,
    headers: Sequence[tuple[str, bytes]] | None = None,
) -> None:
    """Produce (key, value) records and wait for their acknowledgement; partition -1 lets the key decide."""
    failed: list[object] = []
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "linger.ms": 5, "enable.idempotence": True})
    for key, value in records:
        while True:
            try:
                producer.produce(
                    topic,
                    value,
                    key,
                    partition,
                    headers=list(headers or []),
                    on_delivery=lambda error, _: failed.append(error) if error else None,
                )
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(30) == 0
    assert not failed, failed[:3]


def end_offsets(broker: Broker, topic: str) -> dict[int, int]:
    """Return the end offset of every partition, as a reader meets it (the embedded broker's own answer is wrong)."""
    return _read(broker, topic, OFFSET_END)[1]


def committed(broker: Broker, group: str, topic: str) -> dict[int, int]:
    """Return the group's committed next offset of every partition that has one."""
    client = _reader(broker, {"group.id": group})
    try:
        partitions = client.list_topics(topic, timeout=10).topics[topic].partitions
        asked = [TopicPartition(topic, p) for p in partitions]
        return {each.partition: each.offset for each in client.committed(asked, timeout=10) if each.offset >= 0}
    finally:
        client.close()


def read_all(broker: Broker, topic: str) -> list[Message]:
    """Return every record that a topic holds now, partition by partition in the order of offsets."""
    return _read(broker, topic, OFFSET_BEGINNING)[0]


def _read(broker: Broker, topic: str, begin: int) -> tuple[list[Message], dict[int, int]]:
    """Read every partition to its end; return the records and the ends."""
    client = _reader(broker, {"enable.partition.eof": True, "isolation.level": "read_committed"})
    found: dict[tuple[int, int], Message] = {}
    """By partition and offset: a topic holds each record once, however often a client brings it."""
    ends: dict[int, int] = {}
    try:
        partitions = client.list_topics(topic, timeout=10).topics[topic].partitions
        client.assign([TopicPartition(topic, p, begin) for p in partitions])
        deadline_s = time.monotonic() + 30
        while len(ends) < len(partitions):
            assert time.monotonic() < deadline_s, f"{topic}: no end of {partitions.keys() - ends.keys()} in 30 s"
            for record in client.consume(1000, 0.05):
                if record.error() is None:
                    found[record.partition() or 0, record.offset() or 0] = record
                else:  # the only error that an assigned reader is told is a partition's end
                    ends[record.partition() or 0] = record.offset() or 0
    finally:
        client.close()
    return [found[at] for at in sorted(found)], ends


def _reader(broker: Broker, settings: Mapping[str, object] | None = None) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "group.id": f"reader-{uuid.uuid4().hex}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **(settings or {}),
        }
    )
