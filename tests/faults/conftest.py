"""Fixtures of the fault matrix: one cluster for all tests, a stage for each, in both modes of delivery."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from confluent_kafka import Producer

from consumer.demo.broker import BrokerError
from tests.e2e.oracle import committed
from tests.e2e.stage import Stage, double, merged
from tests.faults import cluster as cluster_module
from tests.faults.cluster import Cluster

StageOf: TypeAlias = Callable[..., Stage]
"""Sets a stage up: models (by default one that doubles), then the program's settings."""

TRANSACTION_TIMEOUT_S = 5.0
"""After so long the broker gives up the transaction of a program that is gone."""
CHECKED = {
    "test_killed_between_delivery_and_commit[exactly-once]",
    "test_lost_answers_and_torn_frames_double_nothing[at-least-once]",
    "test_dead_letters_that_may_not_be_written[at-least-once]",
    "test_outages_as_commits_begin_leave_nothing_behind[exactly-once]",
}
"""The rows that every check runs: those that prove most in a second."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave all rows but a few to `make soak`: together they take longer than a check may."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.name not in CHECKED:
            item.add_marker(pytest.mark.soak)


Measured: TypeAlias = Callable[[str, float, float], None]
"""Takes what was measured, how many seconds it came to, and how many it may; fails where it is more."""
_MEASURED = pytest.StashKey[list[str]]()


@pytest.fixture
def measured(request: pytest.FixtureRequest, delivery: str) -> Measured:
    """Judge a figure, and keep it for the end of the run."""
    kept = request.config.stash.setdefault(_MEASURED, [])

    def judge(what: str, seconds: float, seconds_max: float) -> None:
        kept.append(f"{what}, {delivery}: {seconds:.1f} s (at most {seconds_max:.1f} s)")
        assert seconds <= seconds_max, kept[-1]

    return judge


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the figures that were measured."""
    if lines := config.stash.get(_MEASURED, []):
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def _cluster() -> Iterator[Cluster]:
    """Keep one node for all tests: a start costs seconds."""
    try:
        with cluster_module.cluster() as found:
            # The first member of a fresh node waits for the topics of groups to be made.
            committed(found.broker.bootstrap_servers, "first", "none", 0)
            # Transactions are to be on this node, whichever others come and go.
            Producer(
                {"bootstrap.servers": found.broker.bootstrap_servers, "transactional.id": "first"}
            ).init_transactions(30)
            yield found
    except BrokerError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI needs a real Apache Kafka: {error}")
        pytest.skip(str(error))


@pytest.fixture
def cluster(_cluster: Cluster) -> Iterator[Cluster]:
    """The node and its proxy, whole again after each test."""
    yield _cluster
    _cluster.proxy.heal()
    if _cluster.node.process is None or _cluster.node.process.poll() is not None:
        _cluster.restart()


@pytest.fixture(params=["at-least-once", "exactly-once"])
def delivery(request: pytest.FixtureRequest) -> str:
    """Each mode of delivery."""
    mode: str = request.param
    return mode


@pytest.fixture
def stage_of(cluster: Cluster, delivery: str, tmp_path: Path) -> Iterator[StageOf]:
    """Set stages up whose programs reach the node through the proxy only; commits are watched from the start."""
    with ExitStack() as stack:

        def make(
            models: dict[str, Any] | None = None, *, partitions: int = 4, is_sampled: bool = True, **settings: Any
        ) -> Stage:
            base: dict[str, Any] = {"kafka": cluster.client_settings, "delivery": delivery}
            if delivery == "exactly-once":
                base["kafka"]["producer"] = {"transaction.timeout.ms": int(TRANSACTION_TIMEOUT_S * 1000)}
            stage = Stage(
                cluster.broker, tmp_path, models or {"a": double()}, partitions, settings=merged(base, settings)
            )
            stack.enter_context(stage)
            if is_sampled:
                stage.sample()
            return stage

        # Programs end before the node is whole again: what they do meanwhile is of no interest.
        yield make
