"""Whether a model may be used, and when a broken one is tried again.

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

    def fail(self, now: float) -> None:
        """Take note that the model is broken; while the pause lasts, further failures do not make it longer."""
        if self.state is BreakerState.OPEN:
            return
        self._failures += 1
        self.state = BreakerState.OPEN
        self.due_at_s = now + backoff_s(self._failures, self._options.backoff_s, self._options.backoff_s_max)
