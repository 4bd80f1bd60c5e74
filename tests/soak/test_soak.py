import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.demo.broker import Broker, BrokerError, start
from tests.soak.plan import KILLS, Kind
from tests.soak.report import Report
from tests.soak.soak import PROPERTIES, Options, soak

# What members left behind that were killed is looked for often, so that it is over soon.
IMPATIENT = {**PROPERTIES, "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000"}

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(420)]


@pytest.fixture
def node() -> Iterator[Broker]:
    """A broker that may be killed."""
    try:
        broker = start(properties=IMPATIENT)
    except BrokerError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI needs a real Apache Kafka: {error}")
        pytest.skip(str(error))
    with broker:
        yield broker


def kept(report: Report, kinds: frozenset[Kind]) -> None:
    """See that every promise was kept under these faults, and that there was something to keep."""
    said = "\n".join(report.lines())
    assert report.violations() == [], said
    assert {fault.kind for fault in report.faults} >= kinds, said
    assert report.outcomes["result"] >= report.sent / 2


def test_a_few_kills_double_nothing(node: Broker, tmp_path: Path) -> None:
    """Supervisors and workers are killed at random moments: each record has one outcome."""
    options = Options(kills=4, members=2, gap_s=2.0, rate=100, delivery="exactly-once", seed=1)
    kept(soak(options, node, tmp_path), KILLS)


@pytest.mark.soak
@pytest.mark.parametrize(("delivery", "seed"), [("at-least-once", 1), ("exactly-once", 5)])
def test_a_short_soak_keeps_every_promise(node: Broker, tmp_path: Path, delivery: str, seed: int) -> None:
    """Members, workers and the broker are killed and frozen for a minute: nothing is lost, or doubled without cause."""
    kept(soak(Options(minutes=1.0, members=2, gap_s=6.0, delivery=delivery, seed=seed), node, tmp_path), KILLS)
