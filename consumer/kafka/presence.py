"""Is anybody there? A question to the brokers that keeps nobody waiting.

Owns the asking thread. Must not know what follows from an answer.
"""

import threading

from confluent_kafka import KafkaException, Producer

ANSWER_TIMEOUT_S = 2.0


class Presence:
    """Whether a broker answers a client now."""

    def __init__(self, client: Producer) -> None:
        """Ask, through the client's own connections."""
        self.is_there: bool | None = None
        """None until it is known."""
        threading.Thread(target=self._ask, args=(client,), name="sink-presence", daemon=True).start()

    def _ask(self, client: Producer) -> None:
        try:
            self.is_there = bool(client.list_topics(timeout=ANSWER_TIMEOUT_S).brokers)
        except KafkaException:
            self.is_there = False
