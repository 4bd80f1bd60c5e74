"""A client that gets no more records, and still has some that it has sent and not heard of.

Owns the client until it is empty. Must not know what becomes of its records.
"""

from dataclasses import dataclass

from confluent_kafka import Producer

from consumer.kafka.parking import Place
from consumer.kafka.stalls import RECALL_S


@dataclass(slots=True)
class Retired:
    """One such client."""

    client: Producer
    places: list[Place]
    """The records that it may still have."""
    recall_at_s: float

    def is_done(self, now_s: float) -> bool:
        """Tell whether it is empty; what it would send again is called back now and then."""
        if len(self.client) and now_s >= self.recall_at_s:
            self.recall_at_s = now_s + RECALL_S
            self.client.purge(in_queue=True, in_flight=False)
        return len(self.client) == 0
