"""Outcomes between the sink and the broker, and the rhythm of barriers and commits."""

from hypothesis import given
from hypothesis import strategies as st

from consumer.core.commits import IDLE_SHARE, CommitOptions, CommitRhythm
from consumer.core.handover import Handover
from consumer.core.types import Ticket
from tests.strategies import PARTITIONS, UNHURRIED, make_run

OPTIONS = CommitOptions(interval_ms=100, records_max=50, retry_ms=20)


def no_news() -> bool:
    """Say that there is nothing to commit."""
    return False


@given(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3), max_size=8), st.data())
@UNHURRIED
def test_every_record_leaves_once(handed: list[list[int]], data: st.DataObject) -> None:
    """A record, with its bytes, is delivered with its ticket or was withdrawn before: never both, never neither."""
    handover, first, tickets = Handover(), 0, []
    for counts in handed:
        runs = []
        for count in counts:
            runs.append(make_run(range(first, first + count)))
            runs[-1].size = data.draw(st.integers(0, 20))
            first += count
        tickets.append((handover.hand(runs), sum(counts)))
    size = handover.size
    withdrawn: list[int] = []
    for ticket, records in tickets:
        for index in data.draw(st.sets(st.integers(0, records - 1))):
            found = handover.withdraw(ticket, index)
            assert found is not None
            withdrawn.extend(found[0].offsets)
            size -= found[0].size
            assert handover.withdraw(ticket, index) is None
    assert handover.records == first - len(withdrawn)
    assert handover.size == size
    delivered = [o for ticket, _ in tickets for run in handover.deliver(ticket) for o in run.offsets]
    assert sorted(delivered + withdrawn) == list(range(first))
    assert handover.records == handover.size == 0


def test_a_barrier_passes_no_later_ticket() -> None:
    """What was handed over after a barrier's ticket stays, and touches its partition."""
    handover = Handover()
    first = handover.hand([make_run([1])])
    second = handover.hand([make_run([2], partition=PARTITIONS[1])])
    assert handover.last == second
    assert [list(run.offsets) for run in handover.deliver(first)] == [[1]]
    assert not handover.touch([PARTITIONS[0]])
    assert handover.touch([PARTITIONS[1]])
    assert handover.withdraw(Ticket(99), 0) is None


def test_a_barrier_is_due_by_time_by_count_and_at_once_when_urgent() -> None:
    """Nothing is flushed for nothing; else interval, count, bytes or urgency decide, and one of them is enough."""
    rhythm = CommitRhythm(OPTIONS, 0.0, is_transactional=False)
    assert not rhythm.flush_is_due(0, 0, no_news, 10.0)
    assert not rhythm.flush_is_due(1, 0, no_news, 0.05)
    assert rhythm.flush_is_due(1, 0, no_news, 0.1)
    assert rhythm.flush_is_due(50, 0, no_news, 0.0)
    assert not rhythm.flush_is_due(1, OPTIONS.bytes_max - 1, no_news, 0.0)
    assert rhythm.flush_is_due(1, OPTIONS.bytes_max, no_news, 0.0)
    rhythm.is_urgent = True
    assert rhythm.flush_is_due(1, 0, no_news, 0.0)
    rhythm.is_flushing = True
    assert not rhythm.flush_is_due(50, 0, no_news, 10.0)


def test_a_commit_follows_its_barrier_and_a_refused_one_is_repeated() -> None:
    """A barrier that passed makes a commit due; one is on its way at a time; after a refusal there is a pause."""
    rhythm = CommitRhythm(OPTIONS, 0.0, is_transactional=False)
    assert not rhythm.commit_is_due(0, 0.05)
    assert rhythm.commit_is_due(0, 0.1)
    rhythm.is_flushing = True
    rhythm.delivered(1)
    assert rhythm.commit_is_due(3, 0.05)
    rhythm.committing()
    assert not rhythm.commit_is_due(0, 10.0)
    rhythm.committed(10.0, is_refused=True)
    assert not rhythm.commit_is_due(3, 10.01)
    assert rhythm.commit_is_due(3, 10.02)
    rhythm.committing()
    rhythm.committed(11.0, is_refused=False)
    assert not rhythm.commit_is_due(0, 11.05)
    rhythm.idle(12.0)
    assert not rhythm.commit_is_due(0, 12.05)


def test_an_idle_program_commits_sooner() -> None:
    """Where every record is settled the interval is shorter, but there is one; what is undelivered is waited for."""
    rhythm = CommitRhythm(OPTIONS, 0.0, is_transactional=False)
    short_s = IDLE_SHARE * 0.1
    assert not rhythm.commit_is_due(0, short_s / 2, is_idle=True)
    assert rhythm.commit_is_due(0, short_s, is_idle=True)
    assert not rhythm.commit_is_due(0, short_s, is_idle=False)
    assert not rhythm.commit_is_due(1, short_s, is_idle=True)


def test_deliveries_that_nobody_asked_for_hasten_no_commit() -> None:
    """A sink that happens to be empty makes no commit due before its time, until as many wait as may."""
    rhythm = CommitRhythm(OPTIONS, 0.0, is_transactional=False)
    rhythm.delivered(30)
    assert not rhythm.commit_is_due(0, 0.05)
    assert rhythm.commit_is_due(0, 0.1)
    assert not rhythm.commit_is_due(3, 0.1)
    assert rhythm.flush_is_due(20, 0, no_news, 0.05)
    rhythm.delivered(20)
    assert rhythm.commit_is_due(0, 0.05)
    rhythm.committing()
    rhythm.committed(0.05, is_refused=False)
    assert not rhythm.commit_is_due(0, 0.06)
    rhythm.delivered(50)
    rhythm.idle(0.07)
    assert not rhythm.commit_is_due(0, 0.08)


def test_a_commit_nobody_polls_for_is_forgotten() -> None:
    """Inside a revocation the answer to an earlier commit cannot come: the next one is not kept waiting."""
    rhythm = CommitRhythm(OPTIONS, 0.0, is_transactional=False)
    rhythm.committing()
    rhythm.is_urgent = True
    assert not rhythm.commit_is_due(0, 1.0)
    rhythm.forget()
    assert rhythm.commit_is_due(0, 1.0)


def test_a_barrier_never_overtakes_the_commit_of_the_one_before() -> None:
    """What a barrier delivered is committed first; in a transaction the next barrier waits for that commit's answer."""
    for is_transactional in (False, True):
        rhythm = CommitRhythm(OPTIONS, 0.0, is_transactional=is_transactional)
        rhythm.is_flushing = True
        rhythm.delivered(1)
        assert not rhythm.flush_is_due(50, 0, no_news, 1.0)
        assert rhythm.commit_is_due(50, 1.0)
        rhythm.committing()
        assert rhythm.flush_is_due(50, 0, no_news, 1.0) != is_transactional
        rhythm.committed(1.0, is_refused=False)
        assert rhythm.flush_is_due(50, 0, no_news, 1.0)


def test_a_transaction_is_committed_after_its_barrier_only() -> None:
    """Offsets alone need a barrier, too; without news there is none; after an abort there is one in any case."""
    rhythm = CommitRhythm(OPTIONS, 0.0, is_transactional=True)
    assert not rhythm.flush_is_due(0, 0, no_news, 1.0)
    assert rhythm.flush_is_due(0, 0, lambda: True, 1.0)
    assert not rhythm.commit_is_due(0, 1.0)
    rhythm.is_flushing = True
    rhythm.delivered(0)
    assert rhythm.commit_is_due(0, 1.0)
    rhythm.committing()
    rhythm.committed(1.0, is_refused=True)
    assert not rhythm.commit_is_due(0, 5.0)
    assert not rhythm.flush_is_due(0, 0, no_news, 1.01)
    assert rhythm.flush_is_due(0, 0, no_news, 1.02)
