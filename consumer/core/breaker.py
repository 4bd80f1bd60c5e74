"""Whether a model may be used, when a broken one is tried again, and how much of the workers' time it may cost.

Owns one model's breaker: closed, open, or probing. Must not know what a probe is, who answers it, or what waits.

Theory of operation. A closed breaker lets everything pass. A failure opens it for a pause that doubles with each
failure in a row, up to a cap. When the pause is over one attempt is made, and the breaker is probing until the attempt
succeeds (closed, and the pause is short again) or fails (open, and the pause is longer). While it is not closed,
nothing but the attempt reaches the model, so that a broken model costs the others one attempt per pause.

           fail                  attempt, once due
    CLOSED -----> OPEN ---------------------------> PROBING
      ^            ^ ^                              |     |
      |            |  `-----------------------------' fail |
      `------------+--------------------------------------'
                         succeed (from anywhere)

A model that ends its workers may answer its attempt every time, so these pauses do not bound what it costs the others.
Its *losses* do: the time that workers were lost to it within a window. Beyond its budget it has to wait until enough of
them are past, so it costs the budget in any window, and by what the last death goes beyond that.
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from annotated_types import Gt

from consumer.core.retry import backoff_s


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerOptions:
    """How long a broken model is left alone."""

    backoff_s: Annotated[float, Gt(0)] = 1.0
    """Seconds from the first failure to the first attempt; doubled with each failure in a row."""
    backoff_s_max: Annotated[float, Gt(0)] = 60.0
    """Longest wait between two attempts, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashOptions:
    """How much of the workers' time a model may cost by ending them."""

    budget_s: Annotated[float, Gt(0)] = 300.0
    """Seconds of one worker's time within `window_s`."""
    window_s: Annotated[float, Gt(0)] = 1800.0
    """How long a loss counts, in seconds."""


class Losses:
    """The time that workers were lost to one model of late, against its budget."""

    def __init__(self, options: CrashOptions) -> None:
        self._options = options
        self._losses: deque[tuple[float, float]] = deque()
        """When each was known, and its seconds."""

    def add(self, now: float, lost_s: float) -> None:
        """Count a loss."""
        self._losses.append((now, lost_s))

    def free_at_s(self, now: float) -> float:
        """Say when the model is within its budget again; `now` where it is."""
        while self._losses and self._losses[0][0] + self._options.window_s <= now:
            self._losses.popleft()
        excess_s = sum(lost_s for _, lost_s in self._losses) - self._options.budget_s
        free_at_s = now
        for at_s, lost_s in self._losses:
            if excess_s <= 0:
                break
            excess_s -= lost_s
            free_at_s = at_s + self._options.window_s
        return free_at_s


class Pause:
    """The wait before something is tried again, longer with each failure in a row. It bars nothing that has begun."""

    __slots__ = ("_failures", "_options", "over_at_s")

    def __init__(self, options: BreakerOptions) -> None:
        self._options = options
        self._failures = 0
        self.over_at_s = 0.0

    def succeed(self) -> None:
        """Take note of a success: the next failure is a first one."""
        self._failures = 0
        self.over_at_s = 0.0

    def fail(self, now: float, not_before_s: float = 0.0) -> None:
        """Take note of a failure; one more while the wait lasts makes it longer by `not_before_s` only."""
        if now >= self.over_at_s:
            self._failures += 1
            self.over_at_s = now + backoff_s(self._failures, self._options.backoff_s, self._options.backoff_s_max)
        self.over_at_s = max(self.over_at_s, not_before_s)


class BreakerState(Enum):
    """What a breaker lets pass."""

    CLOSED = "closed"
    """Everything."""
    OPEN = "open"
    """Nothing until the pause is over."""
    PROBING = "probing"
    """Nothing but the attempt that is being made."""


class Breaker:
    """The breaker of one model; closed at first."""

    __slots__ = ("_failures", "_options", "due_at_s", "state")

    def __init__(self, options: BreakerOptions) -> None:
        self._options = options
        self._failures = 0
        self.state = BreakerState.CLOSED
        self.due_at_s: float | None = None
        """When the next attempt may be made; None unless it is open."""

    @property
    def is_open(self) -> bool:
        """Tell whether the model's records have to wait, an attempt being made or not."""
        return self.state is not BreakerState.CLOSED

    def is_due(self, now: float) -> bool:
        """Tell whether an attempt may be made."""
        return self.due_at_s is not None and now >= self.due_at_s

    def attempt(self, now: float) -> None:
        """Take note that the attempt that was due is made."""
        assert self.is_due(now), "an attempt before its time"
        self.state = BreakerState.PROBING
        self.due_at_s = None

    def succeed(self) -> None:
        """Take note that the model works."""
        self._failures = 0
        self.state = BreakerState.CLOSED
        self.due_at_s = None

    def fail(self, now: float, not_before_s: float = 0.0) -> None:
        """Take note that the model is broken.

        While the pause lasts, further failures do not make it longer; only `not_before_s` does, before which no attempt
        is made in any case.
        """
        if self.due_at_s is None:
            self._failures += 1
            self.state = BreakerState.OPEN
            self.due_at_s = now + backoff_s(self._failures, self._options.backoff_s, self._options.backoff_s_max)
        self.due_at_s = max(self.due_at_s, not_before_s)
