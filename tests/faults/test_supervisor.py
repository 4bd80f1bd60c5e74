"""The supervisor killed at named points, frozen, and asked to end in every state."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.models_for_tests import SLEEPER
from tests.e2e.stage import Program, Stage, double
from tests.faults.cluster import SESSION_TIMEOUT_S, Cluster
from tests.faults.conftest import TRANSACTION_TIMEOUT_S, Measured, StageOf
from tests.faults.proxy import Api, Rule, Verdict

pytestmark = [pytest.mark.broker, pytest.mark.slow]

RECOVERY_S = 90.0
TRANSACTION_GRACE_S = 12.0
"""How long after its timeout the broker may take to give a dead member's transaction up."""
WINDOW = 200
"""Records in flight at most."""
FLOW = {"records_max": WINDOW, "fetch_records_max": 50}
COMMIT = {"interval_ms": 100, "records_max": WINDOW}


@dataclass(frozen=True, slots=True)
class Point:
    """A moment in the program's talk with its broker."""

    api: Api
    is_answer: bool = False
    """Killed when the broker has done it and the program does not know yet; else before the broker hears of it."""
    skip: int = 0
    doubled_max: int = 0
    """Outcomes that a kill here may double: none where nothing can have been delivered and not committed."""

    def __str__(self) -> str:
        """Name it for a report."""
        return f"{'after' if self.is_answer else 'before'}-{self.api.name.lower()}-{self.skip}"


# What was handed to the producer since the last commit: a commit's interval of records, then a window.
UNCOMMITTED_MAX = 3 * WINDOW

FIRST_POINTS = [
    Point(Api.JOIN_GROUP),
    Point(Api.OFFSET_FETCH, is_answer=True),
    Point(Api.FETCH, is_answer=True, skip=1),
    Point(Api.PRODUCE),
    Point(Api.PRODUCE, is_answer=True, doubled_max=UNCOMMITTED_MAX),
    Point(Api.OFFSET_COMMIT, skip=1, doubled_max=UNCOMMITTED_MAX),
    Point(Api.OFFSET_COMMIT, is_answer=True, skip=1, doubled_max=UNCOMMITTED_MAX),
]
MORE_POINTS = [
    Point(Api.FIND_COORDINATOR),
    Point(Api.SYNC_GROUP),
    Point(Api.SYNC_GROUP, is_answer=True),
    Point(Api.INIT_PRODUCER_ID, is_answer=True),
    Point(Api.FETCH, is_answer=True, skip=5, doubled_max=UNCOMMITTED_MAX),
    Point(Api.PRODUCE, skip=5, doubled_max=UNCOMMITTED_MAX),
    Point(Api.PRODUCE, is_answer=True, skip=7, doubled_max=UNCOMMITTED_MAX),
    Point(Api.HEARTBEAT, is_answer=True, skip=2, doubled_max=UNCOMMITTED_MAX),
    Point(Api.OFFSET_COMMIT, is_answer=True, skip=4, doubled_max=UNCOMMITTED_MAX),
]
FIRST_TRANSACTION_POINTS = [
    Point(Api.TXN_OFFSET_COMMIT, is_answer=True),
    Point(Api.END_TXN),
    Point(Api.END_TXN, is_answer=True, skip=1),
]
MORE_TRANSACTION_POINTS = [
    Point(Api.INIT_PRODUCER_ID),
    Point(Api.ADD_PARTITIONS_TO_TXN),
    Point(Api.ADD_OFFSETS_TO_TXN, is_answer=True),
    Point(Api.TXN_OFFSET_COMMIT),
    Point(Api.END_TXN, is_answer=True),
    Point(Api.END_TXN, skip=3),
]


def kill_at(cluster: Cluster, stage: Stage, point: Point) -> None:
    """Start the program, kill it at a point, and start it no more."""
    rule = Rule({point.api}, Verdict.CUT, is_answer=point.is_answer, skip=point.skip)
    victims: list[Program] = []
    rule.then = lambda: os.kill(victims[0].process.pid, signal.SIGKILL)
    stage.send("a", range(500))
    victims.append(stage.start(workers=1))
    cluster.proxy.add(rule)
    deadline_s = time.monotonic() + 60
    while not rule.applied.wait(0.1):
        assert time.monotonic() < deadline_s, f"{point} was not reached{stage.logs()}"
        assert victims[0].process.poll() is None, stage.logs()
        stage.send("a", range(20))  # some points come only as often as there is something to do
    assert victims[0].process.wait(10) == -signal.SIGKILL
    cluster.proxy.heal()


def kill_at_each(cluster: Cluster, stage: Stage, points: list[Point]) -> None:
    """Kill the program at one point after the other, then let it finish."""
    for point in points:
        kill_at(cluster, stage, point)
    program = stage.start(workers=1)
    stage.wait_settled(RECOVERY_S)
    outcomes = stage.check(doubled_max=sum(point.doubled_max for point in points))
    assert stage.kinds(outcomes) == {"result": len(stage.sent)}
    assert program.stop() == 0


def points_of(stage: Stage, points: list[Point], transactional: list[Point]) -> list[Point]:
    """Choose the points that a mode of delivery comes by: offsets are committed alone, or in a transaction."""
    if not stage.is_transactional:
        return points
    return [*(point for point in points if point.api is not Api.OFFSET_COMMIT), *transactional]


def test_killed_before_anything_is_delivered(cluster: Cluster, stage_of: StageOf) -> None:
    """SIGKILL on the way to the first delivery: nothing is lost, nothing is done twice."""
    stage = stage_of({"a": double(delay_s=0.02)}, flow=FLOW, commit=COMMIT)
    kill_at_each(cluster, stage, [point for point in FIRST_POINTS if point.doubled_max == 0])


def test_killed_between_delivery_and_commit(cluster: Cluster, stage_of: StageOf) -> None:
    """SIGKILL around deliveries and commits: nothing is lost, and only what no commit covered is doubled."""
    stage = stage_of({"a": double(delay_s=0.02)}, flow=FLOW, commit=COMMIT)
    points = [point for point in FIRST_POINTS if point.doubled_max]
    kill_at_each(cluster, stage, points_of(stage, points, FIRST_TRANSACTION_POINTS))


@pytest.mark.timeout(600)
def test_killed_at_every_other_point(cluster: Cluster, stage_of: StageOf) -> None:
    """SIGKILL at all further points of the protocol."""
    stage = stage_of({"a": double(delay_s=0.02)}, flow=FLOW, commit=COMMIT)
    kill_at_each(cluster, stage, points_of(stage, MORE_POINTS, MORE_TRANSACTION_POINTS))


def test_a_frozen_member_comes_back_as_a_stranger(cluster: Cluster, stage_of: StageOf) -> None:
    """Stopped for longer than its session, a member's late commits change nothing: the other one has all."""
    stage = stage_of({"a": double(delay_s=0.01)}, flow=FLOW, commit=COMMIT)
    first, second = stage.start(workers=1), stage.start(workers=1)
    first.wait_ready()
    second.wait_ready()
    stage.send("a", range(2000))
    while not all(stage.committed().values()):
        time.sleep(0.05)
    os.kill(first.process.pid, signal.SIGSTOP)
    try:
        stage.wait_settled(SESSION_TIMEOUT_S + 2 + RECOVERY_S)
        stage.send("a", range(500))
    finally:
        os.kill(first.process.pid, signal.SIGCONT)
    stage.send("a", range(500))
    stage.wait_settled(RECOVERY_S)
    stage.check(doubled_max=UNCOMMITTED_MAX)
    assert (first.stop(), second.stop()) == (0, 0)


def test_a_killed_member_is_replaced_within_its_session(
    cluster: Cluster, stage_of: StageOf, measured: Measured
) -> None:
    """What a member had that is killed under load goes on at another one within the session's timeout and 2 s.

    In exactly-once it may take until the broker has given up what the member had begun.
    """
    stage = stage_of({"a": double(delay_s=0.02)}, flow=FLOW, commit=COMMIT)
    first, second = stage.start(workers=1), stage.start(workers=1)
    first.wait_ready()
    second.wait_ready()
    deadline_s = time.monotonic() + 30
    while len(first.status()["partitions"]) != 2 or len(second.status()["partitions"]) != 2:
        assert time.monotonic() < deadline_s, stage.logs()
        time.sleep(0.1)
    orphans = [each["partition"] for each in first.status()["partitions"]]
    stage.send("a", range(2000))
    while not all(stage.committed().values()):
        time.sleep(0.05)
    first.kill()
    killed_s = time.time()
    stage.send("a", range(400))
    stage.wait_settled(RECOVERY_S)
    outcomes = stage.check(doubled_max=UNCOMMITTED_MAX)
    # What the victim had sent may still arrive for a moment.
    times_s = [(place[0], each.at_s) for place, each in outcomes.items() if each.at_s > killed_s + 0.5]
    back_s = max(min(at_s for partition, at_s in times_s if partition == orphan) for orphan in orphans)
    limit_s = SESSION_TIMEOUT_S + 2
    if stage.is_transactional:
        limit_s = max(limit_s, TRANSACTION_TIMEOUT_S + TRANSACTION_GRACE_S)
    measured("from the kill of a supervisor to the first result of another", back_s - killed_s, limit_s)
    assert second.stop() == 0


JUMPING_CLOCK = """\
import itertools
import time

_real, _jumps = time.time, itertools.cycle((0.0, 3600.0, -3600.0))
time.time = lambda: _real() + next(_jumps)
"""


def test_a_clock_that_jumps(cluster: Cluster, stage_of: StageOf, tmp_path: Path) -> None:
    """A wall clock that jumps by an hour at every look, in the supervisor and in its workers, matters to nobody."""
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(JUMPING_CLOCK)
    stage = stage_of(flow=FLOW, commit=COMMIT)
    stage.environment["PYTHONPATH"] = str(tmp_path / "clock")
    program = stage.start(workers=1)
    program.wait_ready()
    for _ in range(4):
        stage.send("a", range(200))
        time.sleep(0.5)
    stage.wait_settled(RECOVERY_S)
    assert stage.kinds(stage.check(doubled_max=0)) == {"result": 800}
    assert sum(worker["restarts"] for worker in program.status()["workers"]) == 0
    assert program.stop() == 0


def stop_within(program: Program, seconds: float) -> int:
    """Ask a program to end, and see that it does so in time."""
    program.process.send_signal(signal.SIGTERM)
    return program.process.wait(seconds)


SHUTDOWN = {"drain_timeout_s": 3, "close_timeout_s": 2, "worker_timeout_s": 2, "revoke_timeout_s": 1}
STOP_S = 3 + 2 + 2 + 5


def test_sigterm_while_starting(cluster: Cluster, stage_of: StageOf) -> None:
    """Asked to end before a worker is up, or before the group is joined, the program ends cleanly and in time."""
    stage = stage_of(shutdown=SHUTDOWN)
    stage.send("a", range(100))
    for moment_s in (0.0, 0.5, 1.5):
        program = stage.start(workers=1)
        while b"http.started" not in program.log.read_bytes():
            assert program.process.poll() is None, stage.logs()
            time.sleep(0.02)
        time.sleep(moment_s)
        assert stop_within(program, STOP_S) == 0, stage.logs()
    program = stage.start(workers=1)
    stage.wait_settled(RECOVERY_S)
    stage.check()
    assert program.stop() == 0


def test_sigterm_without_a_broker(cluster: Cluster, stage_of: StageOf) -> None:
    """With the broker frozen under load the program ends within its deadline, says so, and loses nothing."""
    slow = {**double(delay_s=0.05), "rows_max": 8}
    stage = stage_of({"a": slow}, flow=FLOW, commit=COMMIT, shutdown=SHUTDOWN)
    program = stage.start(workers=1)
    program.wait_ready()
    stage.send("a", range(1000))
    while not any(stage.committed().values()):
        time.sleep(0.05)
    with cluster.frozen():
        time.sleep(0.5)
        assert stop_within(program, STOP_S) == 1, stage.logs()
    stage.ends_expected |= {1}
    program = stage.start(workers=1)
    stage.wait_settled(RECOVERY_S)
    stage.check(doubled_max=UNCOMMITTED_MAX)
    assert program.stop() == 0


def test_sigterm_with_a_worker_that_does_not_answer(cluster: Cluster, stage_of: StageOf) -> None:
    """A batch that takes longer than the drain may is given up, and done by the next start."""
    stage = stage_of(shutdown={**SHUTDOWN, "drain_timeout_s": 1})
    program = stage.start(workers=1)
    program.wait_ready()
    stage.send("a", [1.0])
    stage.wait_settled(RECOVERY_S)  # the model is loaded now
    stage.send("a", [SLEEPER, *range(50)])
    stage.wait_asleep()
    assert stop_within(program, 1 + 2 + 2 + 5) == 1, stage.logs()
    stage.ends_expected |= {1}
    program = stage.start(workers=1)
    stage.wait_settled(RECOVERY_S)
    stage.check(doubled_max=51)
    assert program.stop() == 0
