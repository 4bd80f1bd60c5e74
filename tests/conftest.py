"""Fixtures that all tests share: the broker."""

import os
from collections.abc import Iterator

import pytest

from consumer.demo.broker import Broker, BrokerError, Kind, start


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
