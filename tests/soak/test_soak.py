import os
from dataclasses import replace
from pathlib import Path

import pytest

from consumer.demo.broker import BrokerError, start
from tests.soak.plan import Kind
from tests.soak.soak import PROPERTIES, Options, soak

SHORT = Options(minutes=1.0, members=2, gap_s=6.0)


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(420)
@pytest.mark.parametrize(("delivery", "seed"), [("at-least-once", 1), ("exactly-once", 5)])
def test_a_short_soak_keeps_every_promise(tmp_path: Path, delivery: str, seed: int) -> None:
    """Members, workers and the broker are killed and frozen for a minute: nothing is lost, or doubled without cause."""
    try:
        broker = start(properties=PROPERTIES)
    except BrokerError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI needs a real Apache Kafka: {error}")
        pytest.skip(str(error))
    with broker:
        report = soak(replace(SHORT, delivery=delivery, seed=seed), broker, tmp_path)
    said = "\n".join(report.lines())
    assert report.violations() == [], said
    assert {fault.kind for fault in report.faults} >= {Kind.KILL_WORKER, Kind.KILL_SUPERVISOR}, said
    assert report.outcomes["result"] >= report.sent / 2
