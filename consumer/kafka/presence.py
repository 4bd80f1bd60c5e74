"""Is anybody there? A question to the brokers that keeps nobody waiting.

Owns the asking thread and its client. Must not know what follows from an answer.

A broker serves a connection one request at a time, and keeps one that waits for replicas until `request.timeout.ms`:
asked through the connection that is stuck, it seems to be absent. So the question goes through one of its own.
"""

import threading
from collections.abc import Callable

from confluent_kafka import KafkaException, Producer

ANSWER_TIMEOUT_S = 2.0


class Presence:
    """Whether a broker answers a new client now."""

    def __init__(self, make: Callable[[], Producer]) -> None:
        """Ask, by a client that `make` makes."""
        self.is_there: bool | None = None
        """None until it is known."""
        threading.Thread(target=self._ask, args=(make,), name="sink-presence", daemon=True).start()

    def _ask(self, make: Callable[[], Producer]) -> None:
        try:
            self.is_there = bool(make().list_topics(timeout=ANSWER_TIMEOUT_S).brokers)
        except KafkaException:
            self.is_there = False
