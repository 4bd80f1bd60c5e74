"""When outcomes are flushed and offsets committed.

Owns the rhythm: the interval, the count, what is on its way. Must not know offsets or partitions.

Theory of operation. A commit is preceded by a barrier: what was handed to the sink is acknowledged, then the ledgers
know which offsets may be committed. One barrier and one commit are on their way at a time. While something is
*urgent* (partitions are being taken away, the program drains) both follow each other without waiting for the interval.
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitOptions:
    """How often offsets are committed."""

    interval_ms: Annotated[float, Ge(1)] = 500.0
    """Time between two commits at most, while there is something to commit."""
    records_max: Annotated[int, Ge(1)] = 50_000
    """Outcomes that may wait for a commit: at this many it comes before the interval is over."""
    retry_ms: Annotated[float, Ge(1)] = 250.0
    """Pause before a commit that the broker refused is tried again."""


class CommitRhythm:
    """Decides when the next barrier and the next commit are due."""

    def __init__(self, options: CommitOptions, now: float) -> None:
        """Start as if a commit had just been made."""
        self._options = options
        self._last_s = now
        self._not_before_s = now
        self.is_flushing = False
        self.is_committing = False
        self.is_urgent = False
        self._is_fresh = False

    def flush_is_due(self, undelivered: int, now: float) -> bool:
        """Tell whether to pass a barrier now, `undelivered` outcomes being on their way."""
        if not undelivered or self.is_flushing:
            return False
        options = self._options
        is_time = (now - self._last_s) * 1000 >= options.interval_ms
        return self.is_urgent or undelivered >= options.records_max or is_time

    def commit_is_due(self, undelivered: int, now: float) -> bool:
        """Tell whether to commit now: right after a barrier, or by the interval where none was needed."""
        if self.is_committing or self.is_flushing or now < self._not_before_s:
            return False
        is_time = (now - self._last_s) * 1000 >= self._options.interval_ms
        return (is_time and not undelivered) or self.is_urgent or self._is_fresh

    def flushed(self) -> None:
        """Take note that a barrier was passed: what it delivered can be committed."""
        self.is_flushing = False
        self._is_fresh = True

    def committing(self) -> None:
        """Take note that a commit is on its way."""
        self.is_committing = True
        self._is_fresh = False

    def idle(self, now: float) -> None:
        """Take note that there was nothing to commit."""
        self._is_fresh = False
        self._last_s = now

    def forget(self) -> None:
        """Expect no answer to the commit that is on its way: nobody polls for it now."""
        self.is_committing = False

    def committed(self, now: float, *, is_refused: bool) -> None:
        """Take note of the broker's answer."""
        self.is_committing = False
        self._last_s = now
        if is_refused:
            self._is_fresh = True
            self._not_before_s = now + self._options.retry_ms / 1000
