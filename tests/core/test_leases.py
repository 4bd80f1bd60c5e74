"""Chunks that are with workers, and what their answers and their workers' deaths mean."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.activity import Overdue, Phase, Stretch
from consumer.core.events import Answered, WorkerExited
from consumer.core.leases import Lease, Leases
from consumer.core.recovery import Recovery, blamed_models, blamed_records, culprits, recover, verdict_on
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
    assert leases.lost(ONE) == [lease]
    found = list(lease.unanswered_runs(0, total))
    rest = [offset for run in found for offset in run.offsets]
    assert rest == [offset for offset in range(total) if offset not in done]
    assert [value for run in found for value in run.values] == [o.to_bytes(8, "big")[-3:] for o in rest]
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


def died(leases: Leases, **exited: Any) -> Recovery:
    """Have the worker die, and sort what it had; batches have five rows at most."""
    event = WorkerExited(ONE, -11, **exited)
    lost = leases.lost(ONE)
    return recover(lost, blamed_records(event, lost, lambda _: 5), lambda _: True)


def four_chunks() -> tuple[Leases, list[Lease]]:
    """Lend the records 0 to 15 in chunks of four."""
    leases = Leases()
    made = [leases.lend(ONE, "digits", [make_run(range(n, n + 4))], is_suspect=False) for n in (0, 4, 8, 12)]
    return leases, made


def offsets(runs: Iterable[Run]) -> list[int]:
    """Name the records of some runs."""
    return [offset for run in runs for offset in run.offsets]


def test_what_a_batch_cannot_have_reached_is_innocent() -> None:
    """Without a word of what ran, the chunks within one batch are suspects, the ones behind go back in their order."""
    leases, _ = four_chunks()
    found = died(leases)
    assert sorted(offsets(run for runs in found.suspects for run in runs)) == list(range(8))
    assert [list(run.offsets) for run in found.innocent] == [[12, 13, 14, 15], [8, 9, 10, 11]]
    assert found.condemned == []


def test_only_the_running_batch_is_suspect() -> None:
    """The rest of its chunks, before and behind, goes back uncharged, and so does everything of an idle worker."""
    leases, made = four_chunks()
    leases.answer(ONE, made[1].chunk.chunk, 0, 1)
    found = died(leases, running=[Stretch(made[1].chunk.chunk, 1, 2), Stretch(made[2].chunk.chunk, 0, 1)])
    assert [offsets(runs) for runs in found.suspects] == [[5, 6], [8]]
    assert sorted(offsets(found.innocent)) == [0, 1, 2, 3, 7, 9, 10, 11, 12, 13, 14, 15]
    assert {run.attempts for run in found.innocent} == {0}
    leases, _ = four_chunks()
    found = died(leases, running=[])
    assert (len(found.innocent), found.suspects) == (4, [])


@pytest.mark.parametrize("stretch", [(0, 9), (3, 100), (4, 0), (2**32 - 1, 2**32 - 1)])
def test_a_worker_that_writes_nonsense_loses_no_record(stretch: tuple[int, int]) -> None:
    """What a dying worker has written down is cut to what it had."""
    leases, made = four_chunks()
    found = died(leases, running=[Stretch(made[0].chunk.chunk, *stretch), Stretch(ChunkId(99), 0, 4)])
    everything = offsets(found.innocent) + offsets(run for runs in found.suspects for run in runs)
    assert sorted(everything) == list(range(16))


@pytest.mark.parametrize("phase", list(Phase))
def test_only_a_batch_that_hangs_is_blamed_for_it(phase: Phase) -> None:
    """A load that hangs, or a process that was stopped, charges no record."""
    leases, made = four_chunks()
    running = [Stretch(made[0].chunk.chunk, 0, 4)]
    event = WorkerExited(ONE, -9, running=running, loading=["b"], overdue=Overdue(phase, "a", 1.0))
    assert bool(blamed_records(event, leases.lost(ONE), lambda _: 5)) == (phase is Phase.INFER)
    assert blamed_models(event) == (("a",) if phase in {Phase.LOAD, Phase.PROBE} else ())
    assert verdict_on(event).reason == "time-limit"


def test_a_planned_exit_blames_nobody() -> None:
    """A worker that leaves of its own will charges neither records nor the models it was loading."""
    leases, made = four_chunks()
    event = WorkerExited(ONE, 0, running=[Stretch(made[0].chunk.chunk, 0, 4)], loading=["b"], is_planned=True)
    assert blamed_records(event, leases.lost(ONE), lambda _: 5) == ()
    assert blamed_models(event) == ()


def test_a_kill_from_outside_is_charged_to_a_model_only_when_it_hits_again() -> None:
    """A first SIGKILL says nothing, a segmentation fault does; and so does the death of whoever has the suspects."""
    for exit_code, is_suspect, charged in [(-9, False, set()), (-9, True, {"digits"}), (-11, False, {"digits"})]:
        leases = Leases()
        lease = leases.lend(ONE, "digits", runs_of(4), is_suspect=is_suspect)
        running = [Stretch(lease.chunk.chunk, 0, 4)]
        event = WorkerExited(ONE, exit_code, running=running)
        assert culprits(event, leases.lost(ONE), running) == charged


def test_a_worker_that_was_at_two_models_charges_none_until_it_is_known_which() -> None:
    """One batch was decoded while the other ran: the records of both are searched, and the search tells the model."""
    leases = Leases()
    lent = [leases.lend(ONE, model, runs_of(4), is_suspect=False) for model in ("digits", "letters")]
    running = [Stretch(lease.chunk.chunk, 0, 4) for lease in lent]
    event = WorkerExited(ONE, -11, running=running)
    lost = leases.lost(ONE)
    assert culprits(event, lost, running) == set()
    assert sum(len(runs[0]) for runs in recover(lost, running, lambda _: True).suspects) == 8
    alone = leases.lend(ONE, "letters", runs_of(4), is_suspect=True)
    running = [Stretch(alone.chunk.chunk, 0, 1)]
    assert culprits(WorkerExited(ONE, -11, running=running), leases.lost(ONE), running) == {"letters"}


def test_the_second_lone_death_condemns() -> None:
    """A record is tried alone twice: the second death then makes it a dead letter; one while it waited does not."""
    leases, runs = Leases(), [make_run([7])]
    waiting: list[Stretch] = []
    for running in (None, waiting, None):
        leases.lend(ONE, "digits", runs, is_suspect=True)
        found = died(leases, running=running)
        runs = found.suspects[0] if found.suspects else found.condemned
    assert [list(run.offsets) for run in found.condemned] == [[7]]
    assert found.condemned[0].attempts == 2


def test_unwanted_records_are_not_recovered() -> None:
    """Records of partitions that were taken away come back to nobody."""
    leases = Leases()
    leases.lend(ONE, "digits", runs_of(3), is_suspect=False)
    lost = leases.lost(ONE)
    found = recover(lost, [Stretch(lost[0].chunk.chunk, 0, 1)], lambda _: False)
    assert (found.innocent, found.suspects, found.condemned) == ([], [], [])
