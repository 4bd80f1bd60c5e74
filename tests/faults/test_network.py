"""The network between the program and its broker: cut, slow, parted, and lying about what arrived."""

import time

import pytest

from tests.e2e.stage import double
from tests.faults.cluster import SESSION_TIMEOUT_S, Cluster
from tests.faults.conftest import StageOf
from tests.faults.proxy import GROUP, Api, Rule, Verdict

pytestmark = [pytest.mark.broker, pytest.mark.slow]

RECOVERY_S = 60.0
"""From the healing of a fault until everything is committed, at most."""
OUTAGES = 4
OUTAGE_S = 0.6
"""Long enough for the client to give all brokers up, and to ask anew where they are."""


def test_connections_cut_again_and_again_lose_nothing(cluster: Cluster, stage_of: StageOf) -> None:
    """Every connection is cut ten times under load: nothing is lost, and what is doubled fits one commit interval."""
    stage = stage_of({"a": double(delay_s=0.005)})
    program = stage.start()
    program.wait_ready()
    for _ in range(10):
        stage.send("a", range(200))
        time.sleep(0.3)
        cluster.proxy.cut()
    stage.wait_settled(RECOVERY_S)
    assert stage.kinds(stage.check()) == {"result": 2000}
    assert program.stop() == 0


def test_lost_answers_and_torn_frames_double_nothing(cluster: Cluster, stage_of: StageOf) -> None:
    """What the broker took though its answer was lost is neither produced twice nor committed wrongly."""
    stage = stage_of({"a": double(delay_s=0.005)})
    rules = [
        Rule({Api.PRODUCE}, Verdict.CUT, is_answer=True, skip=2, times=3),
        Rule({Api.OFFSET_COMMIT}, Verdict.CUT, is_answer=True, skip=1, times=2),
        Rule({Api.FETCH}, Verdict.TEAR, is_answer=True, skip=3, times=2),
        Rule({Api.PRODUCE}, Verdict.TEAR, skip=8, times=2),
        Rule({Api.END_TXN}, Verdict.CUT, is_answer=True, skip=1, times=2),
        Rule({Api.TXN_OFFSET_COMMIT}, Verdict.CUT, is_answer=True, skip=1, times=1),
    ]
    for rule in rules:
        cluster.proxy.add(rule)
    program = stage.start()
    program.wait_ready()
    expected = rules[:4] if not stage.is_transactional else [rules[0], *rules[2:]]
    deadline_s = time.monotonic() + 90
    while missing := [rule for rule in expected if not rule.applied.is_set()]:
        assert time.monotonic() < deadline_s, f"{missing} of commits {stage.committed()}{stage.logs()}"
        stage.send("a", range(100))
        time.sleep(0.1)
    stage.wait_settled(RECOVERY_S)
    stage.check()
    assert program.stop() == 0


def test_a_half_open_connection_is_given_up(cluster: Cluster, stage_of: StageOf) -> None:
    """A peer that is gone without a word costs one request timeout: then another connection is used."""
    stage = stage_of(kafka={"socket.timeout.ms": 2000, "producer": {"request.timeout.ms": 2000}})
    program = stage.start()
    program.wait_ready()
    stage.send("a", range(100))
    stage.wait_settled(RECOVERY_S)
    rules = [cluster.proxy.add(Rule({api}, Verdict.SWALLOW)) for api in (Api.PRODUCE, Api.FETCH, Api.HEARTBEAT)]
    stage.send("a", range(500))
    for rule in rules:
        assert rule.applied.wait(20), stage.logs()
    stage.wait_settled(RECOVERY_S)
    stage.check(doubled_max=500)
    assert program.stop() == 0


def test_a_slow_network_only_slows(cluster: Cluster, stage_of: StageOf) -> None:
    """With 100 ms more each way for every frame, everything is delivered once."""
    stage = stage_of()
    cluster.proxy.delay_s = 0.1
    program = stage.start()
    program.wait_ready()
    stage.send("a", range(1000))
    stage.wait_settled(RECOVERY_S)
    assert stage.kinds(stage.check()) == {"result": 1000}
    assert program.stop() == 0


def test_a_parted_network_heals(cluster: Cluster, stage_of: StageOf) -> None:
    """Parted from its broker for longer than the session, the program comes back by itself."""
    stage = stage_of(
        {"a": double(delay_s=0.005)},
        flow={"records_max": 400, "span_max": 200, "fetch_records_max": 100},
        commit={"records_max": 100},
    )
    program = stage.start()
    program.wait_ready()
    stage.send("a", range(2000))
    while not any(stage.committed().values()):
        time.sleep(0.05)
    cluster.proxy.freeze()
    time.sleep(SESSION_TIMEOUT_S + 2)
    cluster.proxy.heal()
    stage.wait_settled(RECOVERY_S)
    stage.check(doubled_max=stage.partitions * 300)
    assert program.stop() == 0


def test_work_without_a_coordinator_is_capped(cluster: Cluster, stage_of: StageOf) -> None:
    """While only the coordinators are out of reach, no more is done than can be done again after the healing."""
    window, uncommitted = 200, 200
    stage = stage_of(
        flow={"records_max": window, "fetch_records_max": 100, "span_max": window}, commit={"records_max": uncommitted}
    )
    program = stage.start()
    program.wait_ready()
    stage.send("a", range(100))
    stage.wait_settled(RECOVERY_S)
    cluster.proxy.add(Rule(GROUP, Verdict.CUT, times=None))
    stage.send("a", range(10_000))
    time.sleep(SESSION_TIMEOUT_S + 2)
    assert program.process.poll() is None, stage.logs()
    cluster.proxy.heal()
    stage.wait_settled(RECOVERY_S)
    stage.check(doubled_max=stage.partitions * (window + uncommitted))
    assert program.stop() == 0


@pytest.mark.timeout(400)
def test_outages_as_commits_begin_leave_nothing_behind(cluster: Cluster, stage_of: StageOf) -> None:
    """A broker that goes just then, for a moment, makes calls of the client hang: none does so for ever."""
    stage = stage_of()
    program = stage.start()
    program.wait_ready()
    stage.send("a", range(100))
    stage.wait_settled(RECOVERY_S)
    threads = program.threads()
    begins = Api.ADD_OFFSETS_TO_TXN if stage.is_transactional else Api.OFFSET_COMMIT
    for _ in range(OUTAGES):
        cut = cluster.proxy.add(Rule({begins}, Verdict.CUT, then=cluster.proxy.refuse))
        deadline_s = time.monotonic() + RECOVERY_S
        while not cut.applied.is_set():
            assert time.monotonic() < deadline_s, stage.logs()
            stage.send("a", range(50))
        time.sleep(OUTAGE_S)
        cluster.proxy.heal()
        stage.wait_settled(RECOVERY_S)
    deadline_s = time.monotonic() + RECOVERY_S
    while (now := program.threads()) > threads:
        assert time.monotonic() < deadline_s, f"{threads} threads before, {now} after{stage.logs()}"
        time.sleep(0.5)
    stage.check(doubled_max=OUTAGES * 500)
    assert program.stop() == 0
