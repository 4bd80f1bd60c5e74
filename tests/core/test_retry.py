"""Decisions on records that got no result."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.retry import (
    LONE_CRASHES_MAX,
    Condemn,
    CrashVerdict,
    Hold,
    Retry,
    RetryOptions,
    after_crash,
    after_failure,
    backoff_s,
    halve,
)
from consumer.core.types import Disposition, Failure, Run
from tests.strategies import UNHURRIED, make_run


def failure(disposition: Disposition) -> Failure:
    """Make a failure of a kind."""
    return Failure("inference-failed", "RuntimeError", "it failed", disposition)


@given(failures=st.integers(1, 10_000), first_s=st.floats(0.001, 10), max_s=st.floats(0.001, 100))
@UNHURRIED
def test_the_pause_doubles_up_to_its_cap(failures: int, first_s: float, max_s: float) -> None:
    """The pause never exceeds the cap, starts with the first value, and doubles as long as the cap lets it."""
    pause_s = backoff_s(failures, first_s, max_s)
    assert 0 < pause_s <= max_s
    assert backoff_s(1, first_s, max_s) == min(first_s, max_s)
    assert backoff_s(failures + 1, first_s, max_s) == min(max_s, 2 * pause_s)


def test_there_is_no_pause_before_a_failure() -> None:
    """Asking for the pause after no failure is a programmer's error."""
    with pytest.raises(AssertionError):
        backoff_s(0, 1, 2)


@given(attempts=st.integers(0, 100))
def test_poison_is_not_tried_again(attempts: int) -> None:
    """A record that is at fault becomes a dead letter by its first failure, and pays for the attempt."""
    assert after_failure(failure(Disposition.POISON), attempts, RetryOptions(), 0.5) == Condemn(attempts + 1)


@given(attempts=st.integers(0, 100))
def test_a_record_does_not_pay_for_a_broken_model(attempts: int) -> None:
    """What is the model's fault is not charged to the record, however often it comes back."""
    assert after_failure(failure(Disposition.UNAVAILABLE), attempts, RetryOptions(), 0.5) == Hold()


@given(attempts_max=st.integers(1, 20), jitters=st.lists(st.floats(0, 1, exclude_max=True), min_size=20, max_size=20))
@UNHURRIED
def test_a_passing_failure_is_tried_attempts_max_times(attempts_max: int, jitters: list[float]) -> None:
    """A record that keeps failing is tried exactly `attempts_max` times, each pause within its bound."""
    options = RetryOptions(attempts_max=attempts_max, backoff_ms=100, backoff_ms_max=1000)
    attempts = 0
    for number, jitter in enumerate(jitters, 1):
        verdict = after_failure(failure(Disposition.TRANSIENT), attempts, options, jitter)
        if number == attempts_max:
            assert verdict == Condemn(attempts_max)
            return
        assert isinstance(verdict, Retry)
        assert verdict.attempts == number
        assert verdict.delay_s == pytest.approx(jitter * min(1.0, 0.1 * 2 ** (number - 1)))
        attempts = verdict.attempts
    pytest.fail("it is still being tried")


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) > 1))
@UNHURRIED
def test_halves_are_all_of_it(sizes: list[int]) -> None:
    """The halves together are the records in their order, and neither has more than one record more."""
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    runs = [make_run(range(end - size, end), size=3) for end, size in zip(ends, sizes, strict=True)]
    first, second = halve(runs)
    assert [offset for run in first + second for offset in run.offsets] == list(range(sum(sizes)))
    assert 0 <= sum(map(len, second)) - sum(map(len, first)) <= 1
    assert all(len(run) and run.size == 3 * len(run) for run in first + second)


def test_one_record_has_no_halves() -> None:
    """Dividing a single record is a programmer's error."""
    with pytest.raises(AssertionError):
        halve([make_run([3])])


@given(
    count=st.integers(1, 300),
    seeds=st.sets(st.integers(0, 299), max_size=5),
    spares=st.integers(0, 3),
    leaves_word=st.booleans(),
)
@UNHURRIED
def test_exactly_the_culprits_are_condemned(count: int, seeds: set[int], spares: int, leaves_word: bool) -> None:
    """However the culprits lie, and though the first deaths came from outside, only the culprits are condemned.

    It takes no more deaths than the search for each of them needs, whether workers leave word of what they ran or not,
    and those from outside.
    """
    culprits = {seed % count for seed in seeds}
    queue: list[tuple[list[Run], int, bool]] = [([make_run(range(count))], 0, False)]
    condemned, answered, deaths, outside = set(), set(), 0, spares
    while queue:
        runs, lone_crashes, is_searched = queue.pop(0)
        offsets = [offset for run in runs for offset in run.offsets]
        is_killed_from_outside = outside > 0 and lone_crashes == 0
        if not culprits & set(offsets) and not is_killed_from_outside:
            answered |= set(offsets)
            continue
        outside -= is_killed_from_outside
        deaths += 1
        if is_searched and leaves_word:
            at = 0 if is_killed_from_outside else next(i for i, offset in enumerate(offsets) if offset in culprits)
            answered |= set(offsets[:at])
            if at + 1 < len(offsets):
                queue.append(([make_run(offsets[at + 1 :])], 0, True))
            runs, offsets = [make_run([offsets[at]])], [offsets[at]]
        lone_crashes += is_searched and len(offsets) == 1
        match after_crash(len(offsets), lone_crashes, is_searched=is_searched):
            case CrashVerdict.HALVE:
                queue += [(half, 0, True) for half in halve(runs)]
            case CrashVerdict.SEARCH | CrashVerdict.REPEAT:
                queue.append((runs, lone_crashes, True))
            case CrashVerdict.CONDEMN:
                condemned |= set(offsets)
    assert condemned == culprits
    assert answered == set(range(count)) - culprits
    steps = 0 if leaves_word else math.ceil(math.log2(count))
    assert deaths <= len(culprits) * (steps + LONE_CRASHES_MAX) + bool(culprits) + spares


def test_a_record_that_was_not_alone_is_repeated() -> None:
    """The only record to blame of a batch that others could have spoilt is not condemned for it."""
    assert after_crash(1, 0, is_searched=False) is CrashVerdict.REPEAT
    assert after_crash(1, 1, is_searched=True) is CrashVerdict.REPEAT
    assert after_crash(1, 2, is_searched=True) is CrashVerdict.CONDEMN


def test_several_records_are_searched_before_they_are_halved() -> None:
    """Halves are for workers that left no word of which record they ran."""
    assert after_crash(5, 0, is_searched=False) is CrashVerdict.SEARCH
    assert after_crash(5, 0, is_searched=True) is CrashVerdict.HALVE
