"""Members that come and go, in every protocol of assignment, while records are in flight."""

import time
from typing import Any

import pytest

from tests.e2e.models_for_tests import SLEEPER
from tests.e2e.stage import double
from tests.faults.cluster import Cluster
from tests.faults.conftest import StageOf
from tests.faults.proxy import Api, Rule, Verdict

pytestmark = [pytest.mark.broker, pytest.mark.slow]

RECOVERY_S = 60.0
FLOW = {"records_max": 120, "fetch_records_max": 30}
"""So little that partitions are paused and resumed all the time."""

PROTOCOLS: dict[str, dict[str, Any]] = {
    "range": {"partition.assignment.strategy": "range"},
    "cooperative": {"partition.assignment.strategy": "cooperative-sticky"},
    "848": {"group.protocol": "consumer", "session.timeout.ms": None, "heartbeat.interval.ms": None},
}


@pytest.mark.parametrize("protocol", ["cooperative", "848", "range"])
def test_members_come_and_go(cluster: Cluster, stage_of: StageOf, protocol: str) -> None:
    """Members join, leave and die under load: nothing is committed by who does not own it, little is done twice."""
    stage = stage_of(
        {"a": double(delay_s=0.005)},
        partitions=6,
        flow=FLOW,
        kafka={"consumer": PROTOCOLS[protocol]},
    )
    programs = [stage.start(workers=1)]
    programs[0].wait_ready()
    for turn in range(4):
        stage.send("a", range(600))
        programs.append(stage.start(workers=1))
        programs[-1].wait_ready()
        time.sleep(0.5)
        leaving = programs.pop(0)
        if turn % 2:
            leaving.kill()
        else:
            assert leaving.stop() == 0, stage.logs()
    stage.wait_settled(RECOVERY_S)
    # Who leaves commits first; who is killed leaves what no commit covered.
    outcomes = stage.check(doubled_max=2 * 600)
    assert stage.kinds(outcomes) == {"result": 2400}
    assert programs[0].stop() == 0


def test_a_batch_that_outlasts_its_revocation_is_done_once(cluster: Cluster, stage_of: StageOf) -> None:
    """Partitions go while a slow batch is running: its late results are dropped, and the next owner does it again."""
    stage = stage_of(
        shutdown={"revoke_timeout_s": 1},
        kafka={"consumer": PROTOCOLS["range"]},
    )
    first = stage.start(workers=1)
    first.wait_ready()
    second = stage.start(workers=1)
    # The second member joins while the first one's batch is running, and the first one has to give partitions away.
    while b"http.started" not in second.log.read_bytes():
        assert second.process.poll() is None, stage.logs()
        time.sleep(0.02)
    for partition in range(stage.partitions):
        stage.send("a", [SLEEPER, *range(10)], partition=partition)
    second.wait_ready()
    stage.wait_settled(RECOVERY_S)
    stage.check(doubled_max=0)
    assert (first.stop(), second.stop()) == (0, 0)


def test_a_slow_model_costs_no_rebalance(cluster: Cluster, stage_of: StageOf) -> None:
    """A batch that takes longer than max.poll.interval.ms: the client is polled all the while, nobody rejoins."""
    stage = stage_of(
        kafka={"consumer": {"max.poll.interval.ms": 4000}},
        shutdown={"drain_timeout_s": 3, "revoke_timeout_s": 2},
    )
    joins: list[float] = []
    program = stage.start(workers=1)
    program.wait_ready()
    cluster.proxy.add(Rule({Api.JOIN_GROUP}, Verdict.PASS, times=None, then=lambda: joins.append(time.monotonic())))
    stage.send("a", [SLEEPER, *range(10)], partition=0)
    stage.send("a", [SLEEPER, *range(10)], partition=1)
    stage.wait_asleep()
    stage.send("a", [SLEEPER, *range(10)], partition=2)
    stage.wait_settled(RECOVERY_S)
    assert joins == []
    stage.check(doubled_max=0)
    assert program.stop() == 0


def test_a_static_member_comes_back_without_a_rebalance(cluster: Cluster, stage_of: StageOf) -> None:
    """With group.instance.id a restart within the session keeps the partitions, and moves no other member's."""
    stage = stage_of(kafka={"consumer": {"session.timeout.ms": 20_000}})
    settings = [{"kafka": {"group.instance.id": f"member-{number}"}} for number in range(2)]
    first, second = (stage.start(workers=1, **each) for each in settings)
    first.wait_ready()
    second.wait_ready()
    deadline_s = time.monotonic() + 30
    while len(first.status()["partitions"]) != 2 or len(second.status()["partitions"]) != 2:
        assert time.monotonic() < deadline_s, stage.logs()
        time.sleep(0.1)
    held = second.status()["partitions"]
    stage.send("a", range(400))
    first.kill()
    again = stage.start(workers=1, **settings[0])
    again.wait_ready()
    stage.send("a", range(400))
    stage.wait_settled(RECOVERY_S)
    assert [each["partition"] for each in second.status()["partitions"]] == [each["partition"] for each in held]
    stage.check(doubled_max=400)
    assert (again.stop(), second.stop()) == (0, 0)
