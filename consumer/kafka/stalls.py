"""A barrier that hangs: how long it has made no progress, and what is to be done about it.

Owns the clock of the present barrier. Must not know which records it waits for.
"""

from collections.abc import Callable

from confluent_kafka import Producer

from consumer.kafka.presence import Presence

STALL_S = 5.0
"""A barrier that makes no progress for longer is looked into."""
RECALL_S = 1.0
"""How long after calling back the client's queue what is left in it counts as stuck; and between two such calls."""


class Stall:
    """The progress of the present barrier."""

    def __init__(self, make: Callable[[], Producer]) -> None:
        """Start without a barrier; `make` makes a client that asks whether a broker is there."""
        self._make = make
        self._least = 0
        self._since_s = 0.0
        self._presence: Presence | None = None
        self._was_absent = False
        self._recalled_s: float | None = None

    @property
    def is_recalling(self) -> bool:
        """Tell whether the client's queue was called back because of a stall."""
        return self._recalled_s is not None

    def begin(self, now_s: float) -> None:
        """Take note that a barrier has begun."""
        self._restart(now_s)
        self._was_absent = False

    def look(self, left: int, now_s: float) -> str:
        """Say what to do, `left` records being in the clients: "", "absent", "recall" or "retire"."""
        if self._recalled_s is not None:
            if now_s - self._recalled_s < RECALL_S:
                return ""
            self._restart(now_s)
            return "retire"
        if self._presence is None:
            if not self._least or left < self._least:
                self._restart(now_s)
                self._least = left
            elif now_s - self._since_s >= STALL_S:
                self._presence = Presence(self._make)
            return ""
        is_there = self._presence.is_there
        if is_there is None:
            return ""
        was_absent, self._was_absent = self._was_absent, not is_there
        self._presence = None
        if not is_there or was_absent:
            # Nobody there: asked again soon. There again: the client gets its time to send what it has.
            self._since_s = now_s if is_there else now_s - STALL_S + RECALL_S
            return "" if is_there else "absent"
        self._recalled_s = now_s
        return "recall"

    def _restart(self, now_s: float) -> None:
        self._least = 0
        self._since_s = now_s
        self._presence = None
        self._recalled_s = None
