"""Whether a model may be used, when a broken one is tried again, and how many workers it may cost.

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
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from annotated_types import Ge, Gt

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
    """How many deaths of workers a model may cause."""

    deaths_max: Annotated[int, Ge(1)] = 5
    """Deaths within `window_s` beyond what the search for one record costs; the last of them opens the breaker."""
    window_s: Annotated[float, Gt(0)] = 600.0
    """How long a death counts, in seconds."""


class Crashes:
    """The deaths of workers that one model has caused of late: its restart budget."""

    def __init__(self, options: CrashOptions) -> None:
        self._options = options
        self._deaths_s: deque[float] = deque()

    def add(self, now: float, hunt_deaths: int) -> int:
        """Count a death; return by how many the budget is exceeded, `hunt_deaths` apart; 0 while it is not."""
        self._deaths_s.append(now)
        while self._deaths_s[0] < now - self._options.window_s:
            self._deaths_s.popleft()
        return max(0, len(self._deaths_s) - hunt_deaths - self._options.deaths_max + 1)


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

    def fail(self, now: float, excess: int = 0) -> None:
        """Take note that the model is broken; while the pause lasts, further failures do not make it longer.

        `excess` is by how many deaths its restart budget is exceeded: the pause grows with them, too, for a model that
        ends its workers may answer its probe every time.
        """
        if self.state is BreakerState.OPEN:
            return
        self._failures += 1
        self.state = BreakerState.OPEN
        failures = max(self._failures, excess)
        self.due_at_s = now + backoff_s(failures, self._options.backoff_s, self._options.backoff_s_max)
