"""Topics that take no records for now, the records that wait for them, and when each is tried again.

Owns the waiting records of every parked topic and the rhythm of its probes. Must not know the producer.

Theory of operation. A probe is one of the topic's own records. As long as its delivery is undecided no other is sent
there: the client repeats it by itself, and a second copy could only double it. If it fails, the next probe is another
record, later; if it arrives, the topic is open again and all others follow.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from consumer.core.types import ModelId
from consumer.kafka.handovers import HandOver

PROBE_BACKOFF_S = 0.25
PROBE_BACKOFF_S_MAX = 10.0

Place: TypeAlias = tuple[HandOver, int]
"""One record: its hand-over, and its number there."""


@dataclass(slots=True)
class ParkedTopic:
    """One topic that takes nothing now."""

    topic: str
    model: ModelId | None
    probe_at_s: float
    backoff_s: float = PROBE_BACKOFF_S
    records: deque[Place] = field(default_factory=deque)
    probe: Place | None = None
    """The record whose delivery is being tried."""

    def fence(self) -> None:
        """Drop the records that nobody may send any more."""
        self.records = deque((handed, i) for handed, i in self.records if i not in handed.fenced)

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing waits here, nor is tried."""
        return not self.records and self.probe is None


class Parking:
    """Every topic that takes nothing now."""

    def __init__(self) -> None:
        """Start with none."""
        self._topics: dict[str, ParkedTopic] = {}

    def __contains__(self, topic: object) -> bool:
        """Tell whether a topic is parked."""
        return topic in self._topics

    def __len__(self) -> int:
        """Count the records that wait, those being tried left out."""
        return sum(len(parked.records) for parked in self._topics.values())

    def park(self, handed: HandOver, index: int, now_s: float) -> bool:
        """Have a record wait for its topic; tell whether the topic was open before."""
        is_new = handed.topic not in self._topics
        if is_new:
            self._topics[handed.topic] = ParkedTopic(handed.topic, handed.model, now_s + PROBE_BACKOFF_S)
        self._topics[handed.topic].records.append((handed, index))
        return is_new

    def due(self, now_s: float) -> Iterator[Place]:
        """Take the next probe of each topic that is to be tried now."""
        for parked in self._topics.values():
            if parked.probe is None and parked.records and now_s >= parked.probe_at_s:
                parked.probe = parked.records.popleft()
                yield parked.probe

    def failed(self, topic: str, now_s: float) -> None:
        """Take note that a probe was refused through no fault of its own: the next one comes later."""
        parked = self._topics[topic]
        parked.probe = None
        parked.probe_at_s = now_s + parked.backoff_s
        parked.backoff_s = min(PROBE_BACKOFF_S_MAX, 2 * parked.backoff_s)

    def undecided(self, topic: str, now_s: float) -> None:
        """Take note that a probe tells nothing of the topic: another one is to be tried at once."""
        self._topics[topic].probe = None
        self._topics[topic].probe_at_s = now_s

    def opened(self, topic: str) -> ParkedTopic:
        """Take a topic that takes records again."""
        return self._topics.pop(topic)

    def fence(self) -> list[ParkedTopic]:
        """Drop records that nobody may send any more; take the topics for which nothing waits then."""
        for parked in self._topics.values():
            parked.fence()
        return self.empty()

    def empty(self) -> list[ParkedTopic]:
        """Take the topics for which nothing waits: the next record will show."""
        empty = [parked for parked in self._topics.values() if parked.is_empty]
        for parked in empty:
            del self._topics[parked.topic]
        return empty

    def places(self) -> Iterator[Place]:
        """Walk every record that waits or is tried."""
        for parked in self._topics.values():
            yield from parked.records
            if parked.probe is not None:
                yield parked.probe

    def has(self, handed: HandOver, index: int) -> bool:
        """Tell whether a record waits here."""
        return handed.topic in self._topics and (handed, index) in self._topics[handed.topic].records

    def is_probed(self, handed: HandOver, index: int) -> bool:
        """Tell whether a record is the probe of its topic."""
        parked = self._topics.get(handed.topic)
        return parked is not None and parked.probe == (handed, index)
