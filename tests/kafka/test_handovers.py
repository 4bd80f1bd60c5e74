"""Which records a topic cannot take, found before they are sent."""

import pytest

from consumer.core.actions import Produce
from consumer.core.types import Ticket
from consumer.kafka.handovers import BATCH_OVERHEAD_BYTES, HandOver
from consumer.kafka.routes import Routes
from tests.contract.clients import run_of
from tests.contract.test_ration import Deaf

KEYS = [b"k", b"kkk", None]
VALUES = [b"v" * 10, b"v" * 20, b"v" * 30]


def handed(size: int | None, key: str = "id") -> HandOver:
    """Address three results that are known to take up no more than this together."""
    routes = Routes({"fraud": "results"}, lambda _: "letters", key)
    run = run_of([b""] * 3)
    run.keys = [b"a source's key"] * 3
    return routes.of_results(Deaf(), Produce(Ticket(1), "fraud", [run], VALUES, KEYS, size))


@pytest.mark.parametrize("size", [None, 64])
def test_records_larger_than_the_topic_takes_are_found(size: int | None) -> None:
    """A record is oversized where key and value exceed the topic's limit, whatever all of them take up."""
    one = handed(size)
    one.measure(23 + BATCH_OVERHEAD_BYTES)
    assert one.oversized == {2}


def test_what_fits_together_fits_alone() -> None:
    """Where all keys and values together fit into the limit, nothing is oversized."""
    one = handed(64)
    one.measure(64 + BATCH_OVERHEAD_BYTES)
    assert one.oversized == set()


def test_keys_of_the_source_are_measured() -> None:
    """A size that was told of the results' own keys says nothing about other keys."""
    one = handed(10, "source-key")
    one.measure(30 + BATCH_OVERHEAD_BYTES)
    assert one.oversized == {1, 2}
