"""What becomes of records that got no result.

Owns the decision between another attempt, a wait and a dead letter, the backoff between attempts, and the search for
the record that kills its worker. Must not know where records wait meanwhile, nor the time: a decision says how long.

Theory of operation. A failure's disposition decides. POISON: the record is at fault, another attempt would fail alike.
TRANSIENT: another attempt may pass; the pauses grow exponentially up to a cap, with full jitter (each pause is drawn
between nothing and its bound, so that records which failed together do not come back together), and the attempts are
counted. UNAVAILABLE: the model is at fault, so the record waits for it and pays nothing.

A worker's death says only that one of the records of its batch may have killed it. These are sent again alone, to a
worker that runs one after the other and answers each before the next: its death names the culprit, the records before
it have their results, and those behind it are searched on. It may have been killed from outside just then, so the
record is tried once more, and condemned by its second death: k culprits cost 2k deaths more than the first, however
many records there are. Where a worker left no word of which record it ran, what it had not answered is halved instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, TypeAlias

from annotated_types import Ge, Gt

from consumer.core.types import Disposition, Failure, Run

LONE_CRASHES_MAX = 2
"""Deaths of a worker, with one record alone on it, that condemn the record."""

_DOUBLINGS_MAX = 62
"""Doublings after which a pause is beyond any cap; keeps the power in range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOptions:
    """How often a record is tried, and how long it waits in between."""

    attempts_max: Annotated[int, Ge(1)] = 5
    """Attempts after which a record that keeps failing for a passing reason becomes a dead letter."""
    backoff_ms: Annotated[float, Gt(0)] = 100.0
    """Longest wait before the second attempt, in milliseconds; it doubles with each further one."""
    backoff_ms_max: Annotated[float, Gt(0)] = 10_000.0
    """Longest wait before any attempt, in milliseconds."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after `delay_s` seconds, with `attempts` charged to the record."""

    delay_s: float
    attempts: int


@dataclass(frozen=True, slots=True)
class Hold:
    """Wait until the model can be used again."""


@dataclass(frozen=True, slots=True)
class Condemn:
    """Make it a dead letter, with `attempts` charged to the record."""

    attempts: int


Verdict: TypeAlias = Retry | Hold | Condemn


class CrashVerdict(Enum):
    """What becomes of a chunk that was with a worker when it died."""

    SEARCH = "search"
    """Send it again alone on a worker, one record after the other."""
    HALVE = "halve"
    """Send it again as two chunks, each alone on a worker."""
    REPEAT = "repeat"
    """Send it again alone on a worker."""
    CONDEMN = "condemn"
    """Make its one record a dead letter."""


def backoff_s(failures: int, first_s: float, max_s: float) -> float:
    """Bound the wait after the `failures`-th failure in a row: `first_s`, doubled each time, up to `max_s`."""
    assert failures >= 1, "there is no wait before the first failure"
    return min(max_s, first_s * 2.0 ** min(failures - 1, _DOUBLINGS_MAX))


def after_failure(failure: Failure, attempts: int, options: RetryOptions, jitter: float) -> Verdict:
    """Decide on records whose attempt failed.

    Args:
        failure: Why.
        attempts: Attempts that were charged to them before this one.
        options: The limits.
        jitter: A random number from 0 (inclusive) to 1 (exclusive).
    """
    if failure.disposition is Disposition.UNAVAILABLE:
        return Hold()
    attempts += 1
    if failure.disposition is Disposition.POISON or attempts >= options.attempts_max:
        return Condemn(attempts)
    return Retry(jitter * backoff_s(attempts, options.backoff_ms, options.backoff_ms_max) / 1000, attempts)


def after_crash(records: int, lone_crashes: int, *, is_searched: bool) -> CrashVerdict:
    """Decide on records of a chunk whose worker died before it answered them.

    Args:
        records: How many of them may be to blame.
        lone_crashes: Deaths that its one record has seen alone on a worker, this one included; 0 for several records,
            and for a record that shared its batch with others.
        is_searched: Whether they were alone on the worker, to be run one after the other; where several may be to blame
            even so, the worker left no word of which one it ran.
    """
    if records > 1:
        return CrashVerdict.HALVE if is_searched else CrashVerdict.SEARCH
    return CrashVerdict.CONDEMN if lone_crashes >= LONE_CRASHES_MAX else CrashVerdict.REPEAT


def halve(runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Divide two or more records into a first and a second half, runs cut where the middle falls."""
    middle = sum(map(len, runs)) // 2
    assert middle >= 1, "a single record cannot be divided"
    first: list[Run] = []
    second: list[Run] = []
    for run in runs:
        if middle >= len(run):
            first.append(run)
        elif middle <= 0:
            second.append(run)
        else:
            first.append(run.part(0, middle))
            second.append(run.part(middle, len(run)))
        middle -= len(run)
    return first, second
