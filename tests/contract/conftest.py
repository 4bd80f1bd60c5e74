"""Fixtures of the contract tests: a broker that may be broken."""

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
