"""The ledger against a list of offsets with a mark each."""

import random
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from consumer.core import offset_map
from consumer.core.ledger import Ledger, Ledgers
from consumer.core.types import Generation, TopicPartition
from tests.strategies import PARTITIONS, UNHURRIED, gaps


class LedgerMachine(RuleBasedStateMachine):
    """A ledger through admissions, resolutions and restarts, beside the plainest thing that could be right."""

    @initialize(start=st.none() | st.integers(0, 1000))
    def begin(self, start: int | None) -> None:
        """Assign the partition."""
        self.start = start
        self.ledger = Ledger(Generation(1), start)
        self.offsets: list[int] = []
        self.done: list[bool] = []
        self.remembered: set[int] = set()
        self.watermark: int | None = start

    @property
    def open(self) -> list[int]:
        """Positions that are not resolved."""
        return [position for position, done in enumerate(self.done) if not done]

    @rule(gaps=gaps())
    def admit(self, gaps: list[int]) -> None:
        """Deliver records with these gaps before them."""
        first = self.offsets[-1] + 1 if self.offsets else self.start if self.start is not None else 7
        offsets = [offset - 1 for offset in accumulate([first, *(gap + 1 for gap in gaps)])][1:]
        might_be_done = self.ledger.has_completed
        assert all(self.ledger.accepts(offset) for offset in offsets[:1])
        position = self.ledger.admit(offsets)
        assert position == len(self.offsets)
        self.offsets += offsets
        self.done += [offset in self.remembered for offset in offsets]
        assert might_be_done or not self.remembered.intersection(offsets)
        expected = [place for place in range(position, len(self.done)) if not self.done[place]]
        assert self.ledger.unresolved(position, len(self.done)) == expected

    @precondition(lambda self: self.open)
    @rule(where=st.floats(0, 0.999), length=st.integers(0, 60))
    def resolve_range(self, where: float, length: int) -> None:
        """Resolve consecutive positions."""
        first = self.open[int(where * len(self.open))]
        stop = first
        while stop < len(self.done) and not self.done[stop] and stop - first < length:
            stop += 1
        self.ledger.resolve(range(first, stop))
        self.done[first:stop] = [True] * (stop - first)

    @precondition(lambda self: self.open)
    @rule(choose=st.randoms(use_true_random=False), part=st.floats(0, 1))
    def resolve_some(self, choose: random.Random, part: float) -> None:
        """Resolve scattered positions, in any order."""
        positions = choose.sample(self.open, int(part * len(self.open)))
        self.ledger.resolve(positions)
        for position in positions:
            self.done[position] = True

    @precondition(lambda self: self.open)
    @rule(step=st.sampled_from([-1, 2]))
    def resolve_stepped(self, step: int) -> None:
        """Resolve a range that is not simply consecutive."""
        first = self.open[0]
        stop = next((place for place in range(first, len(self.done)) if self.done[place]), len(self.done))
        positions = range(first, stop)[::step]
        self.ledger.resolve(positions)
        for position in positions:
            self.done[position] = True

    @rule(span_max=st.sampled_from([1, 10, offset_map.SPAN_MAX]))
    def restart(self, span_max: int) -> None:
        """Have another member take over from what was committed."""
        base = self.ledger.next_offset
        if base is None:
            return
        completed = self.ledger.completed(span_max)
        flags = offset_map.decode(offset_map.encode(base, completed, "topic"), base, "topic")
        assert flags == completed
        self.remembered = {base + place for place, flag in enumerate(completed) if flag}
        self.ledger = Ledger(Generation(2), base, completed)
        self.start = self.watermark = base
        self.offsets, self.done = [], []

    @invariant()
    def is_like_the_model(self) -> None:
        """Everything the ledger tells follows from the list."""
        ledger = self.ledger
        head = self.open[0] if self.open else len(self.done)
        beyond_last = self.offsets[-1] + 1 if self.offsets else self.start
        watermark = self.offsets[head] if self.open else beyond_last
        assert ledger.next_offset == watermark
        assert ledger.fetch_offset == beyond_last
        assert (ledger.head, ledger.tail) == (head, len(self.done))
        assert (ledger.span, ledger.in_flight) == (len(self.done) - head, len(self.open))
        assert ledger.has_completed == any(offset >= (beyond_last or 0) for offset in self.remembered)
        if watermark is not None:
            beyond = {offset for offset, done in zip(self.offsets, self.done, strict=True) if done}
            # What was completed before and was not fetched again yet must not be forgotten by the next commit.
            beyond |= {offset for offset in self.remembered if offset >= (beyond_last or 0)}
            beyond = {offset for offset in beyond if offset >= watermark}
            for span_max in (5, offset_map.SPAN_MAX):
                shown = ledger.completed(span_max)
                assert not shown or shown[-1] == 1
                found = {watermark + place for place, flag in enumerate(shown) if flag}
                assert found == {offset for offset in beyond if offset < watermark + span_max}

    @invariant()
    def never_falls(self) -> None:
        """The watermark of a generation only rises."""
        new = self.ledger.next_offset
        assert self.watermark is None or (new is not None and new >= self.watermark)
        self.watermark = new


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(UNHURRIED, max_examples=100, stateful_step_count=40)


def test_the_drawing_of_the_docstring_is_true() -> None:
    """The module's own example gives the numbers that it shows."""
    ledger = Ledger(Generation(1), 10)
    assert ledger.admit([10, 11, 12]) == 0
    assert ledger.admit([15, 16, 17, 18]) == 3
    ledger.resolve(range(2))
    ledger.resolve([3, 4])
    assert (ledger.next_offset, ledger.span, ledger.in_flight) == (12, 5, 3)
    assert ledger.completed(offset_map.SPAN_MAX) == bytes([0, 0, 0, 1, 1])


def test_nothing_is_known_of_a_partition_never_committed_nor_fetched() -> None:
    """Without a committed offset and without records there is nothing to commit, and any offset may come."""
    ledger = Ledger(Generation(1))
    assert ledger.next_offset is None
    assert ledger.fetch_offset is None
    assert ledger.completed(10) == b""
    assert ledger.accepts(0)


@given(elsewhere=st.integers(0, 99), above=st.booleans())
@UNHURRIED
def test_the_first_admission_may_start_anywhere(elsewhere: int, *, above: bool) -> None:
    """Where the broker no longer has the committed offset, the ledger follows; below it, it believes no flags."""
    ledger = Ledger(Generation(1), 100, b"\1" * 300)
    offset = 100 + elsewhere if above else elsewhere
    assert ledger.accepts(offset)
    first = ledger.admit([offset, offset + 1])
    assert ledger.unresolved(first, first + 2) == ([] if above else [0, 1])
    assert ledger.next_offset == (offset + 2 if above else offset)
    assert ledger.has_completed is above


def test_completed_offsets_are_forgotten_once_they_are_passed() -> None:
    """As soon as the last completed offset was admitted, or passed by, no record is looked up any more."""
    ledger = Ledger(Generation(1), 10, b"\0\1\1")
    looked_up = []
    for offset in (10, 11, 12):
        looked_up.append(ledger.has_completed)
        ledger.admit([offset])
    assert [*looked_up, ledger.has_completed] == [True, True, True, False]
    assert ledger.unresolved(0, 3) == [0]


def test_offsets_that_fall_are_not_accepted() -> None:
    """After the first admission an offset at or below the newest one belongs to another generation."""
    ledger = Ledger(Generation(1), 0)
    ledger.admit([5, 6])
    assert [ledger.accepts(offset) for offset in (5, 6, 7, 9)] == [False, False, True, True]
    with pytest.raises(AssertionError, match="only rise"):
        ledger.admit([6])


def test_a_slice_that_falls_within_is_a_programmers_error() -> None:
    """Offsets of one slice rise; two that are equal, or fall, are refused."""
    for offsets in ([5, 5, 9], [5, 4, 9], [3, 9, 8]):
        with pytest.raises(AssertionError, match="only rise"):
            Ledger(Generation(1), 0).admit(offsets)


@pytest.mark.parametrize("positions", [range(2, 4), [3], [2, 2], range(4, 7), [6], [0], range(2)])
def test_a_position_is_resolved_once(positions: list[int] | range) -> None:
    """A position that is resolved already, or that was never given, is a programmer's error."""
    ledger = Ledger(Generation(1), 0)
    ledger.admit(range(6))
    ledger.resolve(range(2))
    ledger.resolve(range(3, 4))
    with pytest.raises(AssertionError):
        ledger.resolve(positions)


def test_positions_never_given_are_not_listed() -> None:
    """Asking for positions beyond the tail is a programmer's error; those below the head are all resolved."""
    ledger = Ledger(Generation(1), 0)
    ledger.admit(range(6))
    ledger.resolve(range(2))
    assert ledger.unresolved(0, 2) == []
    assert ledger.unresolved(0, 4) == [2, 3]
    with pytest.raises(AssertionError, match="never given"):
        ledger.unresolved(0, 7)


def test_completed_offsets_need_a_base() -> None:
    """Flags without a committed offset to count from mean nothing."""
    with pytest.raises(AssertionError):
        Ledger(Generation(1), None, b"\1")


def test_memory_follows_the_span_not_the_history() -> None:
    """After a million records, gaps included, nothing of the resolved ones is kept."""
    ledger = Ledger(Generation(1), 0)
    for number in range(2000):
        first = ledger.admit([number * 1000 + place + place // 100 for place in range(500)])
        ledger.resolve(range(first, first + 500))
    assert len(ledger._done) == 0
    assert len(ledger._segments) == 0
    assert ledger.tail == 1_000_000


def test_what_follows_on_needs_no_segment() -> None:
    """Slices whose offsets follow one another, with the first record never resolved, are one segment."""
    ledger = Ledger(Generation(1), 0)
    for number in range(100):
        first = ledger.admit(range(number * 500, number * 500 + 500))
        ledger.resolve(range(max(first, 1), first + 500))
    assert len(ledger._segments) == 1
    assert ledger.span == 50_000


@given(steps=st.lists(st.tuples(st.booleans(), st.sampled_from(PARTITIONS)), max_size=30))
@UNHURRIED
def test_a_generation_fences_all_before_it(steps: list[tuple[bool, TopicPartition]]) -> None:
    """Only the newest generation of an assigned partition finds its ledger; no generation is used twice."""
    ledgers = Ledgers()
    opened: list[tuple[TopicPartition, Generation]] = []
    newest: dict[TopicPartition, Generation] = {}
    for is_opened, partition in steps:
        if is_opened:
            generation = ledgers.open(partition, 5).generation
            opened.append((partition, generation))
            newest[partition] = generation
        else:
            ledgers.close([partition])
            newest.pop(partition, None)
        for known, generation in opened:
            ledger = ledgers.current(known, generation)
            assert (ledger is not None) == (newest.get(known) == generation)
            assert ledger is None or ledger is ledgers[known]
        assert set(ledgers) == set(newest)
        assert len(ledgers) == len(newest)
        assert (partition in ledgers) is is_opened
    assert len({generation for _, generation in opened}) == len(opened)
