"""Output topics that refuse: deleted, forbidden, too small, without enough replicas, slow by quota; and their healing.

What they have in common: nothing is committed that was not delivered, the other topics go on, the program says in a
line what it waits for, and goes on by itself when the fault is healed.
"""

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka.admin import AclOperation

from schemas.codecs import encode_request
from schemas.records import Request
from schemas.tensors import Tensor
from tests.brokers import new_topic
from tests.e2e.models_for_tests import POISON
from tests.e2e.stage import Program, Stage, double
from tests.faults.cluster import USER, Cluster
from tests.faults.conftest import StageOf

pytestmark = [pytest.mark.broker, pytest.mark.slow]

RECOVERY_S = 60.0
SERVED_S = 20.0
"""How long others may take while a topic refuses."""
MARKED_S = 60.0
"""How long they may take where marks of transactions wait for one another at a broker: 27 s were seen."""
MODELS = {"a": double(), "b": double()}


def results(stage: Stage, model: str) -> str:
    """Name the result topic of a model."""
    return f"{stage.name}.results.{model}"


def started(stage: Stage) -> Program:
    """Start the program, and see both models answer."""
    program = stage.start(workers=2)
    stage.send("a", range(10))
    stage.send("b", range(10))
    stage.wait_settled(RECOVERY_S)
    return program


def served_meanwhile(stage: Stage, model: str, count: int, timeout_s: float = SERVED_S) -> None:
    """See that a model's records get results while another one's topic refuses, or cannot even be read."""
    uids = set(stage.send(model, range(count)))
    deadline_s = time.monotonic() + timeout_s
    while True:
        outcomes = stage.archive.read(3.0, is_partial=True)
        found = {stage.sent[place] for place, each in outcomes.items() if each[0].kind == "result"}
        if uids <= found:
            return
        assert time.monotonic() < deadline_s, f"{len(uids - found)} of {model} have no result{stage.logs()}"
        time.sleep(0.2)


def wait_parked(program: Program, topic: str, stage: Stage, timeout_s: float = 20.0) -> None:
    """Wait until the status names this parked topic and no other."""
    deadline_s = time.monotonic() + timeout_s
    while [each["topic"] for each in program.status()["parked_topics"]] != [topic]:
        assert time.monotonic() < deadline_s, stage.logs()
        time.sleep(0.1)


def waits_and_heals(
    stage: Stage,
    fault: Callable[[], contextlib.AbstractContextManager[None]],
    topic: str,
    timeout_s: float = SERVED_S,
) -> None:
    """Let the topic of model `a` refuse for a while: `b` goes on meanwhile, and afterwards `a` has lost nothing.

    `timeout_s` is how long `b` may take at first.
    """
    program = started(stage)
    with fault():
        stage.send("a", range(100))
        served_meanwhile(stage, "b", 100, timeout_s)
        program.wait_complained(topic)
        wait_parked(program, topic, stage)
        served_meanwhile(stage, "b", 100, timeout_s)
        assert program.process.poll() is None, stage.logs()
        # The oldest records of each partition belong to `a`: the watermark cannot have passed all of them.
        assert stage.committed() != stage.ends()
    stage.wait_settled(RECOVERY_S)
    assert stage.kinds(stage.check(doubled_max=100)) == {"result": 320}
    assert program.status()["parked_topics"] == []
    assert program.stop() == 0


def test_a_result_topic_that_may_not_be_written(cluster: Cluster, stage_of: StageOf) -> None:
    """A missing permission parks that topic alone, until it is granted."""
    stage = stage_of(MODELS)
    topic = results(stage, "a")
    waits_and_heals(stage, lambda: cluster.denied(topic), topic)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("replicas", [[[2]], [[2], [1]], [[1, 2]]], ids=["leaderless", "half", "min-insync"])
def test_a_result_topic_that_lost_a_broker(cluster: Cluster, stage_of: StageOf, replicas: list[list[int]]) -> None:
    """A partition without a leader, or with fewer replicas than `min.insync.replicas`, parks its topic alone.

    In exactly-once the latter keeps readers of committed records waiting for some time, also those of other topics.
    """
    stage = stage_of(MODELS)
    topic = results(stage, "a")
    with cluster.second_node() as second:
        cluster.create(topic, replicas, {"min.insync.replicas": str(len(replicas[0]))})
        for other in (results(stage, "b"), f"{stage.requests}.dead-letters"):
            cluster.create(other, [[1]])

        @contextlib.contextmanager
        def gone() -> Iterator[None]:
            stage.outcomes()  # the archive keeps what it has seen
            second.kill()
            yield
            second.start()

        waits_for_marks = stage.is_transactional and len(replicas[0]) > 1
        waits_and_heals(stage, gone, topic, MARKED_S if waits_for_marks else SERVED_S)


def test_a_result_topic_that_is_deleted(cluster: Cluster, stage_of: StageOf) -> None:
    """A deleted topic parks itself alone, until somebody creates it again."""
    stage = stage_of(MODELS, kafka={"topic.metadata.refresh.interval.ms": 1000})

    @contextlib.contextmanager
    def deleted() -> Iterator[None]:
        stage.outcomes()  # the archive keeps what the topic held
        cluster.delete(results(stage, "a"))
        yield
        new_topic(cluster.broker, 2, name=results(stage, "a"))

    waits_and_heals(stage, deleted, results(stage, "a"))


def test_dead_letters_that_may_not_be_written(cluster: Cluster, stage_of: StageOf) -> None:
    """Dead letters without a topic hold their offsets back, and are written when they may be."""
    stage = stage_of({"a": double()})
    program = stage.start(workers=1)
    stage.send("a", range(10))
    stage.wait_settled(RECOVERY_S)
    letters = f"{stage.requests}.dead-letters"
    with cluster.denied(letters):
        (bad,) = stage.send("a", [POISON], partition=0)
        served_meanwhile(stage, "a", 50)
        program.wait_complained(letters)
        (at,) = [place[1] for place, uid in stage.sent.items() if uid == bad]
        assert stage.committed()[0] <= at, "a record was passed that has no outcome"
    stage.wait_settled(RECOVERY_S)
    assert stage.kinds(stage.check()) == {"result": 60, "inference-failed": 1}
    assert program.stop() == 0


def test_results_too_large_for_their_topic(cluster: Cluster, stage_of: StageOf) -> None:
    """Results that a topic of 1 KiB does not take become dead letters, even if it shrinks; neighbours do not."""
    stage = stage_of({"a": double(), "b": double()})
    new_topic(cluster.broker, 2, name=results(stage, "a"), settings={"max.message.bytes": "1024"})
    program = started(stage)
    good = stage.send("a", range(200))
    large = large_records(stage, b"a", 5)
    cluster.configure(results(stage, "b"), {"max.message.bytes": "1024"})
    good += stage.send("b", range(200))
    large += large_records(stage, b"b", 5)
    stage.wait_settled(RECOVERY_S)
    outcomes = {stage.sent[place]: each.kind for place, each in stage.check().items()}
    assert {outcomes[uid] for uid in good} == {"result"}
    assert {outcomes[uid] for uid in large} == {"too-large"}
    assert program.stop() == 0


def large_records(stage: Stage, key: bytes, count: int) -> list[str]:
    """Send records of many rows, whose results have 4 KB."""
    uids = [f"{key.decode()}-large-{number}" for number in range(count)]
    tensor = Tensor.of("x", np.ones((256, 4), np.float32))
    stage.send_values(key, [(uid, encode_request(Request(uid, (tensor,), {}))) for uid in uids])
    return uids


def test_a_producer_with_a_quota(cluster: Cluster, stage_of: StageOf) -> None:
    """A broker that slows the program down by quota gets everything, later: no transaction stays too large."""
    stage = stage_of(batch={"rows_max": 10})
    program = stage.start(workers=1)
    stage.send("a", range(10))
    stage.wait_settled(RECOVERY_S)
    with quota(cluster, "producer_byte_rate=10000"):
        began_s = time.monotonic()
        for _ in range(6):
            stage.send("a", range(100))
            time.sleep(0.3)
        stage.wait_settled(RECOVERY_S)
        assert time.monotonic() - began_s > 6, "the quota was not felt"
    assert stage.kinds(stage.check()) == {"result": 610}
    assert program.stop() == 0


@contextlib.contextmanager
def quota(cluster: Cluster, limit: str) -> Iterator[None]:
    """Limit the program's user for a block, with Kafka's own tool."""
    libs = next(part for part in cluster.node.command if part.endswith("/*"))

    java = ["java", "-XX:TieredStopAtLevel=1", "-cp", libs, "kafka.admin.ConfigCommand"]
    place = ["--bootstrap-server", cluster.broker.bootstrap_servers, "--entity-type", "users", "--entity-name", USER]

    def alter(*change: str) -> None:
        subprocess.run(
            [*java, *place, *change],
            check=True,
            capture_output=True,
            cwd=Path("/"),
        )

    alter("--alter", "--add-config", limit)
    try:
        yield
    finally:
        alter("--alter", "--delete-config", limit.partition("=")[0])


def test_an_input_that_may_not_be_read_waits(cluster: Cluster, stage_of: StageOf) -> None:
    """Without the permission to read its input the program says so once, and reads when it may."""
    stage = stage_of({"a": double()})
    with cluster.denied(stage.requests, AclOperation.READ):
        program = stage.start(workers=1)
        stage.send("a", range(50))
        program.wait_complained(stage.requests)
    stage.wait_settled(RECOVERY_S)
    stage.check()
    assert program.stop() == 0
