"""Which spare id a topic is tried with, on clients that only say whether they may begin."""

import time
from typing import Any

import pytest

from consumer.core.actions import Produce
from consumer.core.events import Parked, TopicParked, TopicResumed
from consumer.core.types import Ticket
from consumer.kafka.handovers import HandOver
from consumer.kafka.outlet import SinkEvent
from consumer.kafka.routes import Routes
from consumer.kafka.spares import SPARES, Spares
from consumer.kafka.trials import Trials
from tests.contract.clients import run_of
from tests.contract.test_ration import Deaf
from tests.kafka.test_succession import AT_WORK, Client, Coordinator


class Taker(Client):
    """A client whose topic takes every record, or none."""

    takes = True

    def begin_transaction(self) -> None:
        """Begin."""

    def abort_transaction(self, _timeout_s: float) -> None:
        """Abort."""

    def produce(self, *_arguments: Any) -> None:
        """Take a record."""

    def flush(self, _timeout_s: float) -> int:
        """Tell how many records are left."""
        return 0 if self.takes else 1


class Takers(Coordinator):
    """Makes clients that begin when they may, and take records or do not."""

    takes = True

    def make(self, transactional_id: str) -> Any:
        """Make a client."""
        client = Taker(self, transactional_id)
        client.takes = self.takes
        return client


def handed(ticket: int, model: str) -> HandOver:
    """Address a result."""
    routes = Routes({"a": "results.a", "b": "results.b"}, lambda _: "letters")
    return routes.of_results(Deaf(), Produce(Ticket(ticket), model, [run_of([b""])], [b"v"], [b"k"]))


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take what is not done at once for stuck, and try a topic again at once."""
    monkeypatch.setattr("consumer.kafka.succession.STUCK_S", 0.0)
    monkeypatch.setattr("consumer.kafka.trials.PROBE_BACKOFF_S_MAX", 0.0)


def judged(trials: Trials, told: list[SinkEvent], kind: type[SinkEvent]) -> None:
    """Turn until an event of a kind is told."""
    deadline_s = time.monotonic() + 10
    while not any(isinstance(each, kind) for each in told):
        assert time.monotonic() < deadline_s, told
        trials.turn(Ticket(0))
        time.sleep(0.001)


def test_a_spare_that_is_stuck_already_blames_nobody() -> None:
    """An innocent topic that is tried with a spare whose last transaction has no end is tried with the next one."""
    coordinator, told = Takers({"g.spare-1": [AT_WORK], "g.spare-2": [AT_WORK]}), list[SinkEvent]()
    spares = Spares("g")
    trials = Trials(coordinator.make, spares, told.append)
    one = handed(1, "a")
    trials.blame(one, 0)
    assert trials.suspend([one], is_explained=False) == []
    deadline_s = time.monotonic() + 10
    while not (cleared := trials.cleared(with_parked=True)):
        assert time.monotonic() < deadline_s
        trials.turn(Ticket(0))
    assert cleared == [one]
    assert told == []
    assert coordinator.begun == ["g.spare-3"]
    assert [spares.take() for _ in range(SPARES)][-2:] == ["g.spare-1", "g.spare-2"]


def test_a_topic_keeps_its_spare_until_it_takes_records() -> None:
    """A trial that got stuck says that its own topic still refuses; another topic is tried with another spare."""
    coordinator, told = Takers({}), list[SinkEvent]()
    coordinator.takes = False
    trials = Trials(coordinator.make, Spares("g"), told.append)
    first, second = handed(1, "a"), handed(2, "b")
    trials.blame(first, 0)
    assert trials.suspend([first], is_explained=False) == []
    judged(trials, told, TopicParked)
    assert [type(each) for each in told] == [TopicParked, Parked]
    coordinator.takes = True
    coordinator.answers["g.spare-1"] = [AT_WORK] * 3
    trials.blame(second, 0)
    assert trials.suspend([second], is_explained=False) == []
    judged(trials, told, TopicResumed)
    assert set(coordinator.begun) == {"g.spare-1", "g.spare-2"}
    assert coordinator.answers["g.spare-1"] == []
    assert [type(each) for each in told] == [TopicParked, Parked, TopicResumed]
    assert {each.ticket for each in trials.cleared(with_parked=True)} == {1, 2}
