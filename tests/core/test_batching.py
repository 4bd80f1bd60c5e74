"""Batches against a plain list of records."""

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from consumer.core.batching import Batcher, Batchers, BatchOptions, Part
from tests.strategies import UNHURRIED


@dataclass
class Record:
    """One record that waits."""

    lot: int
    number: int
    rows: int
    size: int
    added_s: float


def naive_take(waiting: list[Record], rows_max: int, bytes_max: int) -> list[Record]:
    """Take records one by one while they fit, and one in any case; rather none of a lot than cut it, if few are left.

    That is where the first one's lot was cut already, and half of the rows are taken.
    """
    taken: list[Record] = []

    def fits(records: list[Record]) -> bool:
        rows, size = sum(record.rows for record in records), sum(record.size for record in records)
        return rows <= rows_max and size <= bytes_max

    while waiting:
        if taken and not fits([*taken, waiting[0]]):
            break
        is_realigning = taken and taken[0].number > 0 and 2 * sum(record.rows for record in taken) >= rows_max
        lot = [record for record in waiting if record.lot == waiting[0].lot]
        if is_realigning and waiting[0].number == 0 and not fits([*taken, *lot]):
            break
        taken.append(waiting.pop(0))
    return taken


def flatten(parts: list[Part[int]]) -> list[tuple[int, int]]:
    """Name each record of a batch by its lot and its number in it."""
    return [(part.item, number) for part in parts for number in range(part.first, part.stop)]


def test_a_record_that_counts_for_a_whole_batch_is_alone() -> None:
    """Records that may have ended a worker are batches of one, whatever size was learned, and whoever comes after."""
    batcher: Batcher[int] = Batcher(BatchOptions(rows_max=8))
    batcher.add(0, [1, 1, 1], 0.0, [batcher.rows_max] * 3)
    batcher.add(1, [1, 1], 0.0)
    assert [flatten(batcher.take()) for _ in range(4)] == [[(0, 0)], [(0, 1)], [(0, 2)], [(1, 0), (1, 1)]]


class BatcherMachine(RuleBasedStateMachine):
    """Lots come, batches go, time passes."""

    @initialize(
        rows_max=st.integers(1, 12), bytes_max=st.integers(1, 60) | st.just(1000), delay_ms=st.sampled_from([0.0, 2.0])
    )
    def begin(self, rows_max: int, bytes_max: int, delay_ms: float) -> None:
        """Open a batcher."""
        self.options = BatchOptions(rows_max=rows_max, bytes_max=bytes_max, delay_ms_max=delay_ms)
        self.batcher: Batcher[int] = Batcher(self.options)
        self.waiting: list[Record] = []
        self.now = 0.0
        self.lots = 0

    @rule(records=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 40)), max_size=12), is_plain=st.booleans())
    def add(self, records: list[tuple[int, int]], *, is_plain: bool) -> None:
        """Let a lot wait; a plain one has one row a record."""
        rows = [1 if is_plain else rows for rows, _ in records]
        sizes = [size for _, size in records]
        self.batcher.add(self.lots, sizes, self.now, None if is_plain else rows)
        self.waiting += [Record(self.lots, number, rows[number], size, self.now) for number, size in enumerate(sizes)]
        self.lots += 1

    @rule(seconds=st.sampled_from([0.0005, 0.001, 0.002]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    @rule()
    def take(self) -> None:
        """Take a batch."""
        expected = naive_take(self.waiting, self.options.rows_max, self.options.bytes_max)
        taken = self.batcher.take()
        assert flatten(taken) == [(record.lot, record.number) for record in expected]
        assert all(part.first < part.stop for part in taken)

    @invariant()
    def is_like_the_model(self) -> None:
        """Sums, ages and due times follow from the records that wait."""
        batcher, options = self.batcher, self.options
        assert batcher.rows == sum(record.rows for record in self.waiting)
        assert batcher.size == sum(record.size for record in self.waiting)
        is_full = batcher.rows >= options.rows_max or batcher.size >= options.bytes_max
        assert batcher.is_full == is_full
        if not self.waiting:
            assert (batcher.oldest_s, batcher.due_at_s) == (None, None)
            assert not batcher.is_due(self.now, is_idle=False)
            return
        oldest_s = self.waiting[0].added_s
        assert batcher.oldest_s == oldest_s
        assert batcher.is_due(self.now, is_idle=False)
        is_old = self.now >= oldest_s + options.delay_ms_max / 1000
        assert batcher.is_due(self.now, is_idle=True) == (is_full or is_old)
        assert batcher.due_at_s is not None
        assert batcher.is_due(batcher.due_at_s, is_idle=True)


TestBatcher = BatcherMachine.TestCase
TestBatcher.settings = settings(UNHURRIED, max_examples=80, stateful_step_count=40)


def test_a_lot_larger_than_a_batch_is_cut() -> None:
    """Fifty records that came together leave in batches of rows_max, the last one with what is left."""
    batcher: Batcher[str] = Batcher(BatchOptions(rows_max=16))
    batcher.add("lot", [3136] * 50, 0.0)
    ends = []
    while batcher.rows:
        (part,) = batcher.take()
        ends.append((part.item, part.first, part.stop))
    assert ends == [("lot", 0, 16), ("lot", 16, 32), ("lot", 32, 48), ("lot", 48, 50)]


def test_lots_are_cut_no_longer_than_need_be() -> None:
    """Once a lot was cut, the batches that follow are cut at the ends of lots again, if they are half full there."""
    batcher: Batcher[int] = Batcher(BatchOptions(rows_max=16))
    for lot, records in enumerate((24, 16, 16, 20, 16)):
        batcher.add(lot, [1] * records, 0.0)
    batches = []
    while batcher.rows:
        batches.append(batcher.take())
    assert batches == [
        [Part(0, 0, 16)],
        [Part(0, 16, 24)],
        [Part(1, 0, 16)],
        [Part(2, 0, 16)],
        [Part(3, 0, 16)],
        [Part(3, 16, 20), Part(4, 0, 12)],
        [Part(4, 12, 16)],
    ]


def test_a_batch_that_begins_with_a_lot_is_filled() -> None:
    """Lots smaller than a batch share it: only what was cut before ends early."""
    batcher: Batcher[int] = Batcher(BatchOptions(rows_max=16))
    for lot, records in enumerate((10, 16)):
        batcher.add(lot, [1] * records, 0.0)
    assert batcher.take() == [Part(0, 0, 10), Part(1, 0, 6)]
    assert batcher.take() == [Part(1, 6, 16)]


def test_a_record_larger_than_a_batch_travels_alone() -> None:
    """A record of more rows than rows_max is a batch of its own, and so is one of too many bytes."""
    batcher: Batcher[str] = Batcher(BatchOptions(rows_max=4, bytes_max=100))
    batcher.add("rows", [1, 1], 0.0, [1, 9])
    batcher.add("plain", [1] * 6, 0.0)
    batcher.add("bytes", [1, 500, 1], 0.0)
    batches = []
    while batcher.oldest_s is not None:
        batches.append(batcher.take())
    assert batches == [
        [Part("rows", 0, 1)],
        [Part("rows", 1, 2)],
        [Part("plain", 0, 4)],
        [Part("plain", 4, 6)],
        [Part("bytes", 0, 1)],
        [Part("bytes", 1, 2)],
        [Part("bytes", 2, 3)],
    ]


def test_a_busy_device_is_not_kept_waiting() -> None:
    """A device that has just become free takes what there is; an idle one waits for company until the delay is over."""
    batcher: Batcher[str] = Batcher(BatchOptions(delay_ms_max=2.0))
    batcher.add("lot", [1], 10.0)
    assert batcher.is_due(10.0, is_idle=False)
    assert not batcher.is_due(10.0, is_idle=True)
    assert batcher.due_at_s == pytest.approx(10.002)
    assert batcher.is_due(10.0021, is_idle=True)


ARRIVALS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(1, 6), st.sampled_from([0.0, 0.001, 0.004])), max_size=20
)


@given(arrivals=ARRIVALS, is_idle=st.booleans())
@UNHURRIED
def test_models_whose_batches_are_due_take_turns(arrivals: list[tuple[str, int, float]], *, is_idle: bool) -> None:
    """Of the models whose batch is due, the one is chosen that waits longest for its oldest record since its last turn.

    Its last turn was over when the one after it began; whose turn was the last one is chosen if no other one is due.
    """
    batchers: Batchers[int] = Batchers()
    for model in ("a", "b", "c"):
        batchers.open(model, BatchOptions(rows_max=2, delay_ms_max=2.0))
    now, turns = 0.0, list[tuple[str, float]]()
    for lot, (model, records, pause_s) in enumerate(arrivals):
        batchers[model].add(lot, [1] * records, now)
        now += pause_s
        dues = [model for model in "abc" if batchers[model].is_due(now, is_idle=is_idle)]
        overs = {model: over_s for (model, _), (_, over_s) in pairwise([*turns, ("", math.inf)])}
        since = {model: max(batchers[model].oldest_s or 0.0, overs.get(model, 0.0)) for model in dues}
        chosen = batchers.next_due(now, is_idle=is_idle)
        assert chosen == min(dues, key=since.__getitem__, default=None)
        times = [at for model in "abc" if (at := batchers[model].due_at_s) is not None]
        assert batchers.due_at_s == min(times, default=None)
        if chosen is not None:
            waited = batchers[chosen].rows
            assert 1 <= len(flatten(batchers.take(chosen, now))) == waited - batchers[chosen].rows <= 2
            turns.append((chosen, now))
    assert "a" in batchers
    assert "d" not in batchers


@given(order=st.permutations("abc"), floods=st.sets(st.sampled_from("abc"), max_size=2))
@UNHURRIED
def test_nobody_waits_for_more_than_one_batch_of_each_other_model(order: list[str], floods: set[str]) -> None:
    """However much lies there for busy models, and since when, a record of another one waits for one batch of each."""
    batchers: Batchers[str] = Batchers()
    for model in order:
        batchers.open(model, BatchOptions(rows_max=8))
    for model in floods:
        batchers[model].add("flood", [1] * 800, 0.0)
    for turn in range(1, 20):
        model = next(each for each in order if each not in floods)
        batchers[model].add("one", [1], float(turn))
        served, now = [], turn + 0.5
        while model not in served:
            served.append(batchers.next_due(now, is_idle=False) or "nobody")
            batchers.take(served[-1], now)
            now += 0.01
        assert len(served) == len(set(served))


@given(arrivals=ARRIVALS)
@UNHURRIED
def test_a_batch_is_taken_early_if_it_is_full_and_next_in_any_case(arrivals: list[tuple[str, int, float]]) -> None:
    """While another batch runs, the next one is taken only where nothing that comes meanwhile could be in it."""
    batchers: Batchers[int] = Batchers()
    for model in ("a", "b", "c"):
        batchers.open(model, BatchOptions(rows_max=8, delay_ms_max=2.0))
    for at, (model, records, _) in enumerate(arrivals):
        batchers[model].add(at, [1] * records, float(at))
    turn = batchers.next_due(float(len(arrivals)), is_idle=False)
    chosen = batchers.next_full()
    assert chosen == (turn if turn is not None and batchers[turn].rows >= 8 else None)
    if chosen is not None:
        oldest = batchers[chosen].oldest
        assert batchers[chosen].take()[0].item == oldest


def test_a_batch_is_as_large_as_pays() -> None:
    """Once rows are known to cost the same in small batches, these are taken, and an idle device waits for no more."""
    batcher: Batcher[int] = Batcher(BatchOptions(rows_max=256, delay_ms_max=2.0))
    for _ in range(100):
        batcher.add(0, [1] * 512, 0.0)
        while batcher.rows:
            rows = sum(part.stop - part.first for part in batcher.take())
            assert 1 <= rows <= 256
            batcher.observe(rows, 1e-3 + 1e-2 * rows)
    enough = batcher.rows_enough
    assert 1 <= enough <= 8
    batcher.add(1, [1] * enough, 10.0)
    assert batcher.is_due(10.0, is_idle=True)
    batcher.add(1, [1] * 8, 10.0)
    assert [part.stop - part.first for part in batcher.take()] == [enough]
