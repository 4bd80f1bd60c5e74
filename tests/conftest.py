"""What all tests share: the broker, who may run beside whom, and what the garbage collector need not look at."""

import gc
import os
from collections.abc import Iterator

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from consumer.demo.broker import Broker, BrokerError, Kind, start

TOGETHER = {
    "tests/contract/test_stuck.py": "two nodes",
    "tests/demo/test_serve.py": "trained",
    "tests/demo/test_training.py": "trained",
    "tests/faults/test_delivery.py": "cluster",
    "tests/faults/test_network.py": "cluster",
    "tests/faults/test_supervisor.py": "cluster",
    "tests/models/test_archive.py": "program",
    "tests/schemas/test_package.py": "wheel",
}
"""Modules whose tests share what takes many seconds to make, once in a process: they stay in one."""

JAVA_OPTIONS = "-Xmx512m -XX:TieredStopAtLevel=1"
"""Nodes live for a few tests: compiling what they do often costs more than it saves."""


def pytest_configure() -> None:
    """Start nodes as suits tests, unless the environment says how."""
    os.environ.setdefault("KAFKA_HEAP_OPTS", JAVA_OPTIONS)


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Hands tests out one by one, or with those that they share something with.

    Each process has a broker of its own, so tests on a broker, which mostly wait, run beside each other. Groups by mark
    would do the same, but pytest-xdist 3.8 notes them where pytest 9.2 does not look any more.
    """

    def _split_scope(self, nodeid: str) -> str:
        return TOGETHER.get(nodeid.partition("::")[0], nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """Deal tests out to processes, where several run them."""
    return Scheduling(config, log)


def pytest_collection_finish() -> None:
    """Take what is there by now as there to stay: collecting takes half a second otherwise, and some do so often."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """The session's broker: the first kind to be had, or the one that BROKER names. In CI it must be a real Kafka."""
    wanted = Kind(os.environ["BROKER"]) if os.environ.get("BROKER") else None
    try:
        found = start(wanted)
    except BrokerError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI needs a real Apache Kafka: {error}")
        pytest.skip(str(error))
    with found:
        if os.environ.get("CI") and found.lacks:
            pytest.fail(f"CI needs a real Apache Kafka, found only: {found.reason}")
        yield found
