"""Input topics with holes, cut short, made anew, and with commits that somebody else wrote."""

import time
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from schemas.codecs import encode_request
from schemas.records import Request
from schemas.tensors import Tensor
from tests.brokers import new_topic
from tests.e2e.models_for_tests import POISON
from tests.e2e.stage import Stage
from tests.faults.cluster import Cluster
from tests.faults.conftest import StageOf

pytestmark = [pytest.mark.broker, pytest.mark.slow]

RECOVERY_S = 60.0


def commit(stage: Stage, partition: int, offset: int, metadata: str = "") -> None:
    """Commit in the group's name while none of its members is there."""
    consumer = Consumer({"bootstrap.servers": stage.broker.bootstrap_servers, "group.id": stage.group})
    place = TopicPartition(stage.requests, partition, offset, metadata)
    deadline_s = time.monotonic() + 30
    while True:
        try:
            consumer.commit(offsets=[place], asynchronous=False)
            break
        except KafkaException:  # the group's coordinator is not there yet
            assert time.monotonic() < deadline_s
            time.sleep(0.2)
    consumer.close()


def value(number: float) -> bytes:
    """Encode a record."""
    return encode_request(Request("x", (Tensor.of("x", np.full(4, number, np.float32)),), {}))


def test_gaps_are_passed(cluster: Cluster, stage_of: StageOf) -> None:
    """Records of aborted transactions, the marks of transactions, and compaction leave holes that nobody waits for."""
    stage = stage_of(partitions=1, is_sampled=False)
    cluster.configure(
        stage.requests,
        {
            "cleanup.policy": "compact",
            "min.cleanable.dirty.ratio": "0.01",
            "segment.ms": "200",
            "max.compaction.lag.ms": "200",
        },
    )
    transactional = Producer(
        {"bootstrap.servers": cluster.broker.bootstrap_servers, "transactional.id": f"{stage.name}.upstream"}
    )
    transactional.init_transactions(10)
    # Under one key all but the last one of them may be compacted away: nobody is to expect any outcome of these.
    for _ in range(3):
        transactional.begin_transaction()
        for number in range(20):
            transactional.produce(stage.requests, value(number), b"a", 0)
        transactional.abort_transaction(10)
        stage.send("a", range(30))
    # The segment that is written to is not compacted: a record after its time begins another one.
    deadline_s = time.monotonic() + RECOVERY_S
    while len(_offsets(stage)) == len(stage.sent):
        assert time.monotonic() < deadline_s, "the test wants some records to be compacted away"
        time.sleep(0.3)
        stage.send("a", [1.0])
    cluster.configure(stage.requests, {"cleanup.policy": "delete"})  # what is left now stays
    before = _offsets(stage)
    stage.expect_only(lambda place: place[1] in before)
    stage.sample()
    program = stage.start(workers=1)
    stage.wait_settled(RECOVERY_S)
    stage.check()
    assert program.stop() == 0


def _offsets(stage: Stage) -> set[int]:
    """Return the offsets that the input's one partition still has."""
    reader: Any = Consumer(
        {
            "bootstrap.servers": stage.broker.bootstrap_servers,
            "group.id": f"{stage.name}.offsets",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )
    reader.assign([TopicPartition(stage.requests, 0, 0)])
    found: set[int] = set()
    while True:
        for message in reader.consume(1000, 1.0):
            if message.error() is not None:
                reader.close()
                return found
            found.add(message.offset())


def test_retention_overtakes_the_program(cluster: Cluster, stage_of: StageOf) -> None:
    """Records deleted while the program was away are counted as skipped; all that are left get results."""
    stage = stage_of(partitions=2)
    program = stage.start(workers=1)
    stage.send("a", range(100))
    stage.wait_settled(RECOVERY_S)
    assert program.stop() == 0
    kept = set(stage.sent)
    stage.send("a", range(400))
    lows = {0: 150, 1: 120}
    cluster.delete_records(stage.requests, lows)
    stage.expect_only(lambda place: place in kept or place[1] >= lows[place[0]])
    program = stage.start(workers=1)
    stage.wait_settled(RECOVERY_S)
    assert len(stage.check()) == 100 + 400 - 100 - 70
    assert program.stop() == 0


def test_a_topic_made_anew_is_read_from_its_beginning(cluster: Cluster, stage_of: StageOf) -> None:
    """Deleted and created again while the program runs, the input is served from its first record."""
    stage = stage_of(partitions=2, kafka={"consumer": {"topic.metadata.refresh.interval.ms": 500}})
    stage.sample(may_go_back=True)
    program = stage.start(workers=1)
    stage.send("a", range(200))
    stage.wait_settled(RECOVERY_S)
    first = len(stage.check())
    cluster.delete(stage.requests)
    program.wait_complained(stage.requests)
    new_topic(cluster.broker, 2, name=stage.requests)
    assert program.process.poll() is None, stage.logs()
    stage.renew()
    stage.send("a", range(60))
    stage.wait_settled(RECOVERY_S)
    assert (first, len(stage.check())) == (200, 60)
    assert program.stop() == 0


def test_timestamps_matter_to_nobody(cluster: Cluster, stage_of: StageOf) -> None:
    """Records from the last century, from long ago and from the future are answered like those of today."""
    stage = stage_of(partitions=2)
    cluster.configure(stage.requests, {"retention.ms": "-1", "message.timestamp.after.max.ms": str(2**62)})
    program = stage.start(workers=1)
    now_ms = int(time.time() * 1000)
    day_ms = 24 * 3600 * 1000
    for timestamp_ms in (1, now_ms - 400 * day_ms, now_ms + 400 * day_ms, 0, now_ms - 3_600_000, now_ms + 3_600_000):
        stage.send("a", [*range(50), POISON], timestamp_ms=timestamp_ms)
    stage.wait_settled(RECOVERY_S)
    assert stage.kinds(stage.check()) == {"result": 300, "inference-failed": 6}
    assert program.stop() == 0


def test_foreign_metadata_is_ignored(cluster: Cluster, stage_of: StageOf) -> None:
    """A commit whose metadata is not ours counts with its offset alone; nothing is skipped, and the log says so."""
    notes = ["somebody else's note", "AAAA" * 200, '{"offsets": [41, 42, 43]}']
    stage = stage_of(partitions=len(notes), is_sampled=False)
    for partition, note in enumerate(notes):
        stage.send("a", range(60), partition=partition)
        commit(stage, partition, 40, note)
    stage.expect_only(lambda place: place[1] >= 40)
    stage.sample()
    program = stage.start(workers=1)
    stage.wait_settled(RECOVERY_S)
    assert len(stage.check()) == 20 * len(notes)
    assert program.log.read_text().count("offset_map.ignored") >= 1
    assert program.stop() == 0
