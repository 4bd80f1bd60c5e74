"""Chunks that are with workers, and what their answers and their workers' deaths mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.events import Answered
from consumer.core.leases import Leases
from consumer.core.recovery import recover
from consumer.core.settlement import settle
from consumer.core.types import ChunkId, Failure, Run, WorkerId
from tests.strategies import PARTITIONS, UNHURRIED, make_run

ONE, TWO = WorkerId(1), WorkerId(2)
NO = Failure("inference-failed", "RuntimeError", "no")


def runs_of(*counts: int) -> list[Run]:
    """Make consecutive runs of different partitions."""
    runs, first = [], 0
    for number, count in enumerate(counts):
        runs.append(make_run(range(first, first + count), 3, PARTITIONS[number % len(PARTITIONS)]))
        first += count
    return runs


def answered(chunk: ChunkId, first: int, count: int, failures: dict[int, Failure] | None = None) -> Answered:
    """Make an answer whose values say which record they are for."""
    values = [str(first + i).encode() for i in range(count)]
    return Answered(ONE, chunk, first, count, values, values, failures or {}, count, 0.0, 0.0)


@given(st.lists(st.integers(1, 8), min_size=1, max_size=6), st.data())
@UNHURRIED
def test_a_dead_worker_gives_back_exactly_what_it_had_not_answered(counts: list[int], data: st.DataObject) -> None:
    """Whatever was answered, in whichever pieces, the rest comes back once, payloads included."""
    leases = Leases()
    lease = leases.lend(ONE, "digits", runs_of(*counts), is_suspect=False)
    total = sum(counts)
    done: set[int] = set()
    for first in range(total):
        count = data.draw(st.integers(0, 3))
        place = range(first, min(first + count, total))
        if place and done.isdisjoint(place) and data.draw(st.booleans()):
            assert leases.answer(ONE, lease.chunk.chunk, first, len(place)) is lease
            done.update(place)
    assert lease.is_answered == (len(done) == total)
    (found,) = leases.lost(ONE)
    rest = [offset for run in found[1] for offset in run.offsets]
    assert rest == [offset for offset in range(total) if offset not in done]
    assert [value for run in found[1] for value in run.values] == [o.to_bytes(8, "big")[-3:] for o in rest]
    assert leases.lost(ONE) == []


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.data())
@UNHURRIED
def test_an_answer_is_sorted_by_what_became_of_each_record(counts: list[int], data: st.DataObject) -> None:
    """Results, failures and records of lost partitions part the answer; values stay with their records."""
    lease = Leases().lend(ONE, "digits", runs_of(*counts), is_suspect=False)
    total = sum(counts)
    first = data.draw(st.integers(0, total - 1))
    count = data.draw(st.integers(1, total - first))
    failed = data.draw(st.sets(st.integers(first, first + count - 1)))
    gone = data.draw(st.sets(st.sampled_from(PARTITIONS)))
    answer = answered(lease.chunk.chunk, first, count, dict.fromkeys(failed, NO))
    found = settle(lease, answer, lambda run: run.partition not in gone)
    good = dict(zip((o for run in found.runs for o in run.offsets), found.values, strict=True))
    bad = {offset for run, _ in found.failed for offset in run.offsets}
    partition_of = {o: run.partition for run in lease.chunk.runs for o in run.offsets}
    meant = {o for o in range(first, first + count) if partition_of[o] not in gone}
    assert good.keys() == meant - failed
    assert all(value == str(offset).encode() for offset, value in good.items())
    assert list(found.keys) == list(found.values)
    assert bad == meant & failed
    assert found.stale == count - len(meant)
    assert all(len(failures) == len(run) for run, failures in found.failed)


def test_news_of_another_worker_or_chunk_is_none() -> None:
    """An answer of a worker that does not hold the chunk finds no lease."""
    leases = Leases()
    lease = leases.lend(ONE, "digits", runs_of(3), is_suspect=False)
    assert leases.answer(TWO, lease.chunk.chunk, 0, 3) is None
    assert leases.answer(ONE, ChunkId(99), 0, 3) is None
    leases.release(lease.chunk.chunk)
    assert len(leases) == 0


def test_a_record_answered_twice_is_noticed() -> None:
    """A second answer for a record, or one beyond the chunk, is a programmer's error."""
    leases = Leases()
    lease = leases.lend(ONE, "digits", runs_of(3), is_suspect=False)
    leases.answer(ONE, lease.chunk.chunk, 0, 2)
    with pytest.raises(AssertionError, match="twice"):
        leases.answer(ONE, lease.chunk.chunk, 1, 1)
    with pytest.raises(AssertionError, match="not in the chunk"):
        leases.answer(ONE, lease.chunk.chunk, 2, 5)


def test_only_unanswered_records_touch_a_partition() -> None:
    """A partition is touched as long as one of its records is with a worker and unanswered."""
    leases = Leases()
    lease = leases.lend(ONE, "digits", runs_of(2, 2), is_suspect=False)
    assert leases.touch([PARTITIONS[0]])
    leases.answer(ONE, lease.chunk.chunk, 0, 2)
    assert not leases.touch([PARTITIONS[0]])
    assert leases.touch([PARTITIONS[1]])


def test_what_a_batch_cannot_have_reached_is_innocent() -> None:
    """Of a model's chunks those within one batch are suspects, the ones behind go back in their order."""
    leases = Leases()
    for first in (0, 4, 8, 12):
        leases.lend(ONE, "digits", [make_run(range(first, first + 4))], is_suspect=False)
    found = recover(leases.lost(ONE), lambda _: 5, lambda _: True)
    assert sorted(o for runs in found.suspects for run in runs for o in run.offsets) == list(range(8))
    assert [list(run.offsets) for run in found.innocent] == [[12, 13, 14, 15], [8, 9, 10, 11]]
    assert found.condemned == []


def test_the_second_lone_death_condemns() -> None:
    """A record is tried alone twice: its second death alone makes it a dead letter."""
    leases, runs = Leases(), [make_run([7])]
    for _ in range(2):
        leases.lend(ONE, "digits", runs, is_suspect=True)
        found = recover(leases.lost(ONE), lambda _: 5, lambda _: True)
        runs = found.suspects[0] if found.suspects else found.condemned
    assert [list(run.offsets) for run in found.condemned] == [[7]]
    assert found.condemned[0].attempts == 2


def test_unwanted_records_are_not_recovered() -> None:
    """Records of partitions that were taken away come back to nobody."""
    leases = Leases()
    leases.lend(ONE, "digits", runs_of(3), is_suspect=False)
    found = recover(leases.lost(ONE), lambda _: 5, lambda _: False)
    assert (found.innocent, found.suspects, found.condemned) == ([], [], [])
