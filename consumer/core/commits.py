"""When outcomes are flushed and offsets committed.

Owns the rhythm: the interval, the count, what is on its way. Must not know offsets or partitions.

Theory of operation. A commit is preceded by a barrier: what was handed to the sink is acknowledged, then the ledgers
know which offsets may be committed. One barrier and one commit are on their way at a time. While something is
*urgent* (partitions are being taken away, the program drains) both follow each other without waiting for the interval.
The sink also tells of deliveries that nobody asked for, whenever it happens to be empty: those are no reason to commit.
Where outcomes and offsets are one transaction, its barrier is also what seals it: no commit goes without one, or
outcomes that came since would be in it and their offsets would not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

INTERVAL_S = 0.5
TRANSACTION_INTERVAL_S = 0.1
IDLE_SHARE = 0.2
"""The part of the interval that commits of a program keep apart that has answered everything it fetched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitOptions:
    """How often offsets are committed."""

    interval_ms: Annotated[float, Ge(1)] | None = None
    """Time between two commits at most, while there is something to commit; by default 500, in exactly-once 100, since
    readers of committed records wait for it. At least once, a fifth of it where nothing is in flight any more."""
    records_max: Annotated[int, Ge(1)] = 25_000
    """Outcomes that may wait for a commit: at this many it comes before the interval is over."""
    bytes_max: Annotated[int, Ge(1)] = 16 * 1024 * 1024
    """Bytes of outcomes that may be undelivered: at this many a commit comes before the interval is over."""
    retry_ms: Annotated[float, Ge(1)] = 250.0
    """Pause before a commit that the broker refused is tried again."""


class CommitRhythm:
    """Decides when the next barrier and the next commit are due."""

    def __init__(self, options: CommitOptions, now: float, *, is_transactional: bool) -> None:
        """Start as if a commit had just been made; a transaction's barrier has to wait for the commit before it."""
        self._options = options
        default_s = TRANSACTION_INTERVAL_S if is_transactional else INTERVAL_S
        self._interval_s = default_s if options.interval_ms is None else options.interval_ms / 1000
        self.is_transactional = is_transactional
        """Whether outcomes and offsets are committed together."""
        self._last_s = now
        self._not_before_s = now
        self.is_flushing = False
        self.is_committing = False
        self.is_urgent = False
        self.is_fresh = False
        """A barrier that was asked for has passed, and no commit followed yet."""
        self._delivered = 0
        """Outcomes delivered since the last commit was made."""
        self._is_aborted = False
        """A transaction was aborted: what it held is in the next one, which needs a barrier of its own."""

    def flush_is_due(self, undelivered: int, size: int, has_news: Callable[[], bool], now: float) -> bool:
        """Tell whether to pass a barrier now.

        Args:
            undelivered: Outcomes that are on their way.
            size: Their bytes.
            has_news: Tells whether there is something to commit as it is; asked only where a commit needs a barrier.
            now: Monotonic seconds.
        """
        if self.is_flushing or self.is_fresh or (self.is_transactional and self.is_committing):
            return False
        if self._is_aborted:
            return now >= self._not_before_s
        is_time = now - self._last_s >= self._interval_s
        if not (self.is_urgent or is_time or self._is_full(undelivered) or size >= self._options.bytes_max):
            return False
        return bool(undelivered) or (self.is_transactional and has_news())

    def commit_is_due(self, undelivered: int, now: float, *, is_idle: bool = False) -> bool:
        """Tell whether to commit now: right after a barrier, or when it is time and none is needed.

        Args:
            undelivered: Outcomes that are on their way.
            now: Monotonic seconds.
            is_idle: Whether every record fetched is settled. Nothing joins the commit then by waiting.
        """
        if self.is_committing or self.is_flushing or now < self._not_before_s:
            return False
        if self.is_transactional:
            return self.is_fresh
        interval_s = self._interval_s * (IDLE_SHARE if is_idle else 1)
        is_due = now - self._last_s >= interval_s or self._is_full(undelivered)
        return (is_due and not undelivered) or self.is_urgent or self.is_fresh

    def delivered(self, outcomes: int) -> None:
        """Take note that so many outcomes were delivered: a barrier was passed, whether it was asked for or not."""
        self._delivered += outcomes
        self.is_fresh = self.is_fresh or self.is_flushing
        self.is_flushing = False
        self._is_aborted = False

    def committing(self) -> None:
        """Take note that a commit is on its way."""
        self.is_committing = True
        self.is_fresh = False
        self._delivered = 0

    def idle(self, now: float) -> None:
        """Take note that there was nothing to commit."""
        self.is_fresh = False
        self._delivered = 0
        self._last_s = now

    def forget(self) -> None:
        """Expect no answer to the commit that is on its way: nobody polls for it now."""
        self.is_committing = False

    def committed(self, now: float, *, is_refused: bool) -> None:
        """Take note of the broker's answer."""
        self.is_committing = False
        self._last_s = now
        if is_refused:
            self._is_aborted = self.is_transactional
            self.is_fresh = not self.is_transactional
            self._not_before_s = now + self._options.retry_ms / 1000

    def _is_full(self, undelivered: int) -> bool:
        """Tell whether so many outcomes wait for a commit that it should not wait for the interval."""
        return self._delivered + undelivered >= self._options.records_max
