"""The network between the program and its broker: cut, slow, parted, and lying about what arrived."""

import time

import pytest

from tests.e2e.stage import double
from tests.faults.cluster import Cluster
from tests.faults.conftest import StageOf

pytestmark = [pytest.mark.broker, pytest.mark.slow]

RECOVERY_S = 30.0
"""From the healing of a fault until everything is committed, at most."""


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
