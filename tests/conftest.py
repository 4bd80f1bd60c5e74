"""What all tests share: the broker, and who may run beside it."""

import os
from collections.abc import Iterator

import pytest

from consumer.demo.broker import Broker, BrokerError, Kind, start


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests that share a broker in one process, where several run tests: the others run beside them."""
    for item in items:
        if item.get_closest_marker("broker") is not None:
            item.add_marker(pytest.mark.xdist_group("broker"))


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
