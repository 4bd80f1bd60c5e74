"""Topics that refuse, in exactly-once: parked alone while the others' outcomes are committed, and healed."""

import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from consumer.core.actions import Produce
from consumer.core.events import TopicParked, TopicResumed, Unparked
from consumer.core.types import Disposition, Ticket
from consumer.demo.broker import Broker, Feature
from consumer.kafka.sink import Routes
from tests import brokers
from tests.contract.clients import new_group, run_of, transactional_sink, turn_until
from tests.contract.test_transactions import Scene

pytestmark = pytest.mark.broker

TIMEOUT_MS = 4000
"""A transaction that does not get on is aborted after half of it."""


class Two(Scene):
    """A scene with a second model, whose topic does not exist."""

    def __post_init__(self) -> None:
        """Name the missing topic."""
        super().__post_init__()
        self.out.close()
        self.bad = "missing-" + self.results
        routes = Routes({"fraud": self.results, "bad": self.bad}, lambda _: self.letters)
        self.out = transactional_sink(self.broker, routes, self.group, "two", transaction_timeout_ms=TIMEOUT_MS)

    def hand_bad(self, *values: bytes, number: int = 0) -> int:
        """Hand over results for the missing topic."""
        self.ticket += 1
        run = run_of([b""] * len(values), partition=(self.mine, self.other)[number])
        self.out.produce(Produce(Ticket(self.ticket), "bad", [run], values, [b"k"] * len(values)))
        return self.ticket

    def until(self, holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
        """Turn the sink, without asking for a barrier, until something holds."""
        deadline_s = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline_s, (self.told.events[-5:], self.out.complaints())
            self.member.turn(timeout_s=0.01)
            self.told.events += self.out.events()


@pytest.fixture
def two(broker: Broker) -> Iterator[Two]:
    """Make the scene."""
    brokers.need(broker, Feature.TRANSACTIONS)
    topics = [brokers.new_topic(broker), brokers.new_topic(broker), brokers.new_topic(broker, 2)]
    made = Two(broker, topics[0], topics[1], topics[2], new_group())
    yield made
    made.out.close()
    made.member.source.close(10)


def test_a_missing_topic_is_parked_and_heals(two: Two) -> None:
    """The others are committed without it; what waited is committed once, with its offsets, when the topic is there."""
    two.hand_bad(b"x", b"y")
    two.hand(b"a")
    turn_until(two.out, lambda told: told.delivered == 2, two.told)
    (parked,) = two.told.of(TopicParked)
    assert (parked.topic, parked.model, parked.failure.disposition) == (two.bad, "bad", Disposition.UNAVAILABLE)
    assert two.told.parked == {(1, 0), (1, 1)}
    assert two.commit(1, two.other).error is None
    assert two.visible() == Counter([b"a"])
    began_s = time.monotonic()
    two.hand_bad(b"z")
    two.hand(b"b")
    two.pass_barrier()
    assert two.commit(2, two.other).error is None
    assert time.monotonic() - began_s < 2, "a parked topic cost the others a trial"
    assert two.told.parked == {(1, 0), (1, 1), (3, 0)}
    brokers.new_topic(two.broker, name=two.bad)
    two.until(lambda: not two.told.parked)
    assert two.told.of(TopicResumed) == [TopicResumed(two.bad, "bad")]
    assert two.visible(two.bad) == Counter()
    two.pass_barrier()
    assert two.commit(104).error is None
    assert two.visible(two.bad) == Counter([b"x", b"y", b"z"])
    assert two.visible() == Counter([b"a", b"b"])
    assert two.out.in_flight == 0


def test_what_was_parked_and_fenced_is_dropped(two: Two) -> None:
    """Parked outcomes of a partition that was taken away never appear; with nothing left the topic is open again."""
    two.hand_bad(b"gone")
    two.hand_bad(b"stays", number=1)
    turn_until(two.out, lambda told: told.delivered == 2, two.told)
    assert two.told.parked == {(1, 0), (2, 0)}
    assert two.commit(1, two.other).error is None
    two.out.fence([two.mine])
    brokers.new_topic(two.broker, name=two.bad)
    two.until(lambda: two.told.of(Unparked) == [Unparked(Ticket(2), 0)])
    two.pass_barrier()
    assert two.commit(101, two.other).error is None
    assert two.visible(two.bad) == Counter([b"stays"])


def test_a_topic_for_which_nothing_waits_is_open(two: Two) -> None:
    """When all that was parked of a topic is fenced, it is told to be open: the next record will show."""
    two.hand_bad(b"gone")
    turn_until(two.out, lambda told: bool(told.of(TopicParked)), two.told)
    two.out.fence([two.mine])
    two.until(lambda: two.told.of(TopicResumed) == [TopicResumed(two.bad, "bad")])
    assert two.out.in_flight == 0


def test_what_the_core_takes_for_delivered_is_not_left_out(two: Two) -> None:
    """A commit that failed after its barrier waits for the topic of what it held: nothing is committed without it."""
    brokers.new_topic(two.broker, name=two.bad)
    two.hand_bad(b"x")
    two.hand(b"a")
    two.pass_barrier()
    two.out._condemn()
    two.out._trials.blame(two.out._contents.retained[0], 0)  # as if the topic had gone just then
    two.out._is_explained = False
    two.until(lambda: not two.out._is_condemned)
    assert two.out._trials.is_undecided
    assert two.commit(103).error is None
    assert two.told.parked == set()
    assert two.visible(two.bad) == Counter([b"x"])
    assert two.visible() == Counter([b"a"])
