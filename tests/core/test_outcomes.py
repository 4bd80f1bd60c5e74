"""Outcomes between their settlement and their delivery: handed over, withheld, parked."""

import pytest

from consumer.core.actions import DeadLetter, Produce
from consumer.core.events import Position
from consumer.core.flow import FlowOptions
from consumer.core.intake import Intake
from consumer.core.offset_map import SPAN_MAX
from consumer.core.outcomes import Outcomes, Results
from consumer.core.partitions import Partitions
from consumer.core.types import Failure, Run, Slice, TopicPartition

TP = TopicPartition("in", 0)
POISON = Failure("inference-failed", "RuntimeError", "no")


def fetched(partitions: Partitions, *offsets: int) -> list[Run]:
    """Admit records, and return a run for each of them."""
    count = len(offsets)
    part = Slice(
        partition=TP,
        offsets=list(offsets),
        models="a",
        keys=[b"a"] * count,
        values=[b"v"] * count,
        headers=None,
        timestamps_ms=[-1] * count,
    )
    admitted = partitions.admit(part)
    assert admitted is not None
    (run,) = Intake(["a"]).split(admitted, 0.0)[0]
    return [run.part(i, i + 1) for i in range(count)]


def results(*runs: Run) -> Results:
    """Make a result for each record."""
    names = [str(offset).encode() for run in runs for offset in run.offsets]
    return Results("a", runs, names, names, sum(map(len, names)))


def offsets(action: Produce | DeadLetter) -> list[int]:
    """Return the offsets that an action is about."""
    runs = action.runs if isinstance(action, Produce) else [action.run]
    return [offset for run in runs for offset in run.offsets]


@pytest.fixture
def partitions() -> Partitions:
    """Return partitions with one assigned, whose first record is offset 0."""
    made = Partitions(FlowOptions(), 0)
    made.assign({TP: Position(0)})
    return made


def test_what_the_next_commit_cannot_name_is_withheld_until_it_can(partitions: Partitions) -> None:
    """In exactly-once an outcome too far above the watermark waits, result or dead letter; the others go at once."""
    outcomes = Outcomes(partitions, must_fit=True)
    low, high, far, farther = fetched(partitions, 0, SPAN_MAX - 1, SPAN_MAX, SPAN_MAX + 1)
    (produced,) = outcomes.results(results(high, far), None)
    assert (offsets(produced), list(produced.values)) == ([SPAN_MAX - 1], [str(SPAN_MAX - 1).encode()])
    assert list(outcomes.letters(farther, [POISON])) == []
    assert list(outcomes.release()) == []
    assert outcomes.touch([TP])
    assert outcomes.undelivered == 1
    (first,) = outcomes.results(results(low), None)
    assert list(outcomes.release()) == [], "the watermark moves by deliveries, not by hand-overs"
    outcomes.deliver(first.ticket)
    released = list(outcomes.release())
    assert [type(action) for action in released] == [Produce, DeadLetter]
    assert [offsets(action) for action in released] == [[SPAN_MAX], [SPAN_MAX + 1]]
    assert outcomes.undelivered == 2


def test_in_at_least_once_nothing_is_withheld(partitions: Partitions) -> None:
    """What a commit cannot name would only be done again: nothing waits for that."""
    outcomes = Outcomes(partitions, must_fit=False)
    _, far = fetched(partitions, 0, 3 * SPAN_MAX)
    (produced,) = outcomes.results(results(far), None)
    assert offsets(produced) == [3 * SPAN_MAX]


def test_what_is_withheld_goes_with_its_partition(partitions: Partitions) -> None:
    """After a revocation it is the next owner's: it is not produced here any more."""
    outcomes = Outcomes(partitions, must_fit=True)
    _, far = fetched(partitions, 0, SPAN_MAX)
    assert list(outcomes.results(results(far), None)) == []
    partitions.revoke([TP])
    assert list(outcomes.release()) == []
    assert not outcomes.touch([TP])


def test_a_parked_outcome_is_resolved_by_its_own_delivery_only(partitions: Partitions) -> None:
    """No barrier speaks for an outcome that waits in the sink; once it arrived, the commit may pass it."""
    outcomes = Outcomes(partitions, must_fit=False)
    first, second = fetched(partitions, 0, 1)
    (produced,) = outcomes.results(results(first, second), None)
    outcomes.park(produced.ticket, 0)
    assert (outcomes.undelivered, outcomes.parked) == (1, 1)
    outcomes.deliver(produced.ticket)
    assert partitions.watermarks() == {TP: 0}
    outcomes.unpark(produced.ticket, 0)
    assert partitions.watermarks() == {TP: 2}
    assert outcomes.parked == 0
    outcomes.unpark(produced.ticket, 0)
    assert partitions.watermarks() == {TP: 2}


def test_parked_outcomes_of_a_partition_that_went_are_forgotten(partitions: Partitions) -> None:
    """A parked outcome is resolved by its own delivery, and forgotten with its partition's assignment."""
    outcomes = Outcomes(partitions, must_fit=False)
    first, second = fetched(partitions, 0, 1)
    (produce,) = outcomes.results(results(first, second), None)
    outcomes.park(produce.ticket, 0)
    outcomes.park(produce.ticket, 1)
    outcomes.unpark(produce.ticket, 0)
    assert partitions.commits()[TP][0] == 1
    assert outcomes.parked == 1
    outcomes.forget()
    assert outcomes.parked == 1
    partitions.revoke([TP])
    outcomes.forget()
    assert outcomes.parked == 0
