"""Transactions that cannot end, because a partition that they wrote to has lost its leader: others go on without it."""

import os
from collections import Counter
from collections.abc import Iterator

import pytest

from consumer.demo.broker import BrokerError
from consumer.demo.node import Node
from consumer.kafka.routes import Routes
from consumer.kafka.succession import STUCK
from tests import brokers
from tests.contract.clients import Told, new_group, transactional_sink
from tests.contract.test_trials import TIMEOUT_MS, Two
from tests.e2e.oracle import committed
from tests.faults.cluster import Cluster, cluster

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[tuple[Cluster, Node]]:
    """A cluster with a node that may be lost: coordinators and groups are on the other one."""
    try:
        with cluster() as made:
            committed(made.broker.bootstrap_servers, "first", "none", 0)
            transactional_sink(made.broker, Routes({}, str), new_group()).close()
            with made.second_node() as second:
                yield made, second
    except BrokerError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI needs a real Apache Kafka: {error}")
        pytest.skip(str(error))


LOST = [[2]]
"""The replicas of a partition that has no leader when the second node is lost."""
UNSAFE = [[1, 2]]
"""Those of one that has too few in sync then."""
MARKED_S = 60.0
"""How long a mark may be under way, where it has to wait for others at a broker: 27 s were seen."""


@pytest.fixture
def two(request: pytest.FixtureRequest, two_nodes: tuple[Cluster, Node]) -> Iterator[Two]:
    """Make a scene whose second model has its topic on the node that is to be lost, or there as well."""
    made, second = two_nodes
    results, letters, source = (f"{kind}-{new_group()}" for kind in ("results", "letters", "source"))
    for name in (results, letters, source):
        made.create(name, [[1]] * (2 if name == source else 1))
    scene = Two(made.broker, results, letters, source)
    replicas = getattr(request, "param", LOST)
    made.create(scene.bad, replicas, {"min.insync.replicas": str(len(replicas[0]))})
    yield scene
    scene.out.close()
    scene.member.source.close(10)
    if second.process is None or second.process.poll() is not None:
        second.start()


@pytest.mark.parametrize("two", [LOST, UNSAFE], ids=["lost", "unsafe"], indirect=True)
def test_an_abort_that_gets_stuck_holds_up_nobody_else(two: Two, two_nodes: tuple[Cluster, Node]) -> None:
    """While an abort waits for a lost partition the others go on under a spare id, and all appears once in the end."""
    second = two_nodes[1]
    second.kill()
    two.hand_bad(b"x")
    two.hand(b"a")
    two.out.flush()
    two.until(lambda: two.told.delivered == 2)
    assert two.told.parked == {(1, 0)}
    assert two.commit(1, two.other).error is None
    # While the broker waits for the lost replica, it lets the marks of other transactions wait as well.
    two.until(lambda: two.visible() == Counter([b"a"]), MARKED_S)
    own = f"{two.group}-two"
    (said,) = [each.message for each in two.out.complaints() if each.name == "_WAIT_COORD"]
    assert said == STUCK.format(own, f"{own}.spare-2 goes on")
    two.hand(b"b")
    two.pass_barrier()
    assert two.commit(2, two.other).error is None
    second.start()
    two.until(lambda: not two.told.parked)
    two.pass_barrier()
    assert two.commit(101).error is None
    assert two.visible(two.bad) == Counter([b"x"])
    assert two.visible() == Counter([b"a", b"b"])
    assert two.out.in_flight == 0


def test_a_commit_that_gets_stuck_counts(two: Two, two_nodes: tuple[Cluster, Node]) -> None:
    """What was committed before its partition was lost is not produced again, and holds up nobody."""
    second = two_nodes[1]
    two.hand_bad(b"x")
    two.hand(b"a")
    two.pass_barrier()
    second.kill()
    assert two.commit(101).error is None
    two.hand(b"b")
    two.pass_barrier()
    assert two.commit(102).error is None
    assert any("goes on" in each.message for each in two.out.complaints())
    second.start()
    two.until(lambda: two.visible(two.bad) == Counter([b"x"]))
    assert two.visible() == Counter([b"a", b"b"])
    assert two.offsets() == {0: 102}


def test_a_start_goes_around_what_a_predecessor_left_stuck(two: Two, two_nodes: tuple[Cluster, Node]) -> None:
    """A program that begins while its predecessor's transaction cannot end begins under a spare id."""
    second = two_nodes[1]
    two.hand_bad(b"x")
    two.hand(b"a")
    two.pass_barrier()
    second.kill()
    two.out.close()
    routes = Routes({"fraud": two.results}, lambda _: two.letters)
    two.out = transactional_sink(two.broker, routes, two.group, "two", transaction_timeout_ms=TIMEOUT_MS)
    assert any("goes on" in each.message for each in two.out.complaints())
    two.ticket, two.told = 0, Told()
    two.hand(b"a")
    two.pass_barrier()
    assert two.commit(101).error is None
    second.start()
    two.until(lambda: brokers.end_offsets(two.broker, two.bad) == {0: 2})
    assert two.visible() == Counter([b"a"])
    assert two.visible(two.bad) == Counter()
