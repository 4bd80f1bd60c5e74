"""A broker that dies, restarts or freezes under load."""

import signal
import time

import pytest

from tests.e2e.stage import Stage, double
from tests.faults.cluster import Cluster
from tests.faults.conftest import StageOf

pytestmark = [pytest.mark.broker, pytest.mark.slow]

RECOVERY_S = 60.0
"""From the healing of a fault until everything is committed, at most."""
FLOW = {"records_max": 400, "span_max": 200, "fetch_records_max": 100}
COMMIT = {"records_max": 100}
DOUBLED_MAX = 4 * (200 + 100)
"""Of each partition a window of records, and those that may wait for a commit."""


def under_load(stage: Stage) -> None:
    """Wait until commits are being made in the middle of a load."""
    stage.send("a", range(3000))
    while not any(stage.committed().values()):
        time.sleep(0.05)
    assert stage.committed() != stage.ends(), "the test wants a fault in the middle"


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGKILL, id="killed"),
        pytest.param(signal.SIGTERM, id="restarted"),
    ],
)
def test_a_broker_that_goes_and_comes_back(cluster: Cluster, stage_of: StageOf, how: signal.Signals) -> None:
    """After a restart of the broker, clean or not, the program goes on by itself."""
    stage = stage_of({"a": double(delay_s=0.01)}, flow=FLOW, commit=COMMIT)
    program = stage.start()
    program.wait_ready()
    under_load(stage)
    cluster.end_node(how)
    time.sleep(2)
    assert program.process.poll() is None, stage.logs()
    cluster.restart()
    stage.send("a", range(500))
    stage.wait_settled(RECOVERY_S)
    assert stage.kinds(stage.check(doubled_max=DOUBLED_MAX)) == {"result": 3500}
    assert program.stop() == 0


def test_a_broker_whose_disk_is_full(cluster: Cluster, stage_of: StageOf) -> None:
    """A full disk ends the broker in the middle of a load; with room again, and a restart, the program goes on."""
    stage = stage_of({"a": double(delay_s=0.01)}, flow=FLOW, commit=COMMIT)
    program = stage.start()
    program.wait_ready()
    under_load(stage)
    cluster.fill_disk()
    time.sleep(2)
    assert program.process.poll() is None, stage.logs()
    cluster.restart()
    stage.send("a", range(500))
    stage.wait_settled(RECOVERY_S)
    assert stage.kinds(stage.check(doubled_max=DOUBLED_MAX)) == {"result": 3500}
    assert program.stop() == 0


@pytest.mark.parametrize("pause_s", [6.0, 60.0])
def test_a_broker_that_freezes(cluster: Cluster, stage_of: StageOf, pause_s: float) -> None:
    """A broker that stops for longer than the session, and goes on as if nothing had been."""
    stage = stage_of({"a": double(delay_s=0.01)}, flow=FLOW, commit=COMMIT)
    program = stage.start()
    program.wait_ready()
    under_load(stage)
    with cluster.frozen():
        time.sleep(pause_s)
        assert program.process.poll() is None, stage.logs()
    stage.send("a", range(500))
    stage.wait_settled(RECOVERY_S)
    assert stage.kinds(stage.check(doubled_max=DOUBLED_MAX)) == {"result": 3500}
    assert program.stop() == 0


def test_a_start_without_a_broker_waits_for_it_or_says_so(cluster: Cluster, stage_of: StageOf) -> None:
    """Started while no broker answers, the program ends with one clear line and the exit code of brokers."""
    stage = stage_of()
    cluster.proxy.refuse()
    program = stage.start()
    assert program.process.wait(40) == 4
    assert "Traceback" not in program.log.read_text()
    assert "no answer from Kafka" in program.log.read_text()
