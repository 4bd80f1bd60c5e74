"""Fixtures of the contract tests: a broker that may be broken."""

import threading
import time
from collections.abc import Iterator

import pytest

from consumer.demo.broker import Broker, Feature, Kind, start
from tests import brokers


@pytest.fixture
def own_broker(broker: Broker) -> Iterator[Broker]:
    """A node of this test's own, to be killed and frozen."""
    brokers.need(broker, Feature.TOPIC_LIMITS, Feature.TRANSACTIONS)
    with start(broker.kind if broker.node is not None else Kind.OWN) as own:
        yield own


LEFT_S = 15.0
"""The longest that a call of the client goes on after its operation was abandoned."""


@pytest.fixture(autouse=True)
def nothing_goes_on() -> Iterator[None]:
    """No test leaves a thread that goes on making clients: their descriptors would appear in other tests."""
    yield
    deadline_s = time.monotonic() + LEFT_S
    while left := [each.name for each in threading.enumerate() if each.name == "sink-transaction"]:
        assert time.monotonic() < deadline_s, left
        time.sleep(0.05)
