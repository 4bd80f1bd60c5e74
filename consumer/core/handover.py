"""Outcomes that were handed to the sink and are not yet known to be delivered.

Owns the tickets and the records behind each. Must not know what an outcome is (a result or a dead letter), nor when
a barrier is due.

Invariant: tickets rise; a record leaves by `deliver` or by `withdraw`, once.
"""

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from consumer.core.types import ChunkId, Run, Ticket, TopicPartition


@dataclass(slots=True)
class Handed:
    """The records of one hand-over, without their payloads; the `size` of a run is that of its outcomes."""

    ticket: Ticket
    runs: list[Run]
    chunk: ChunkId | None
    """The chunk they came back in, while its payloads can still be read."""
    withdrawn: set[int]
    """Numbers of records that the sink gave back."""


class Handover:
    """Every outcome between the sink and the broker."""

    def __init__(self) -> None:
        """Start with none."""
        self._handed: deque[Handed] = deque()
        self._last = 0
        self.records = 0
        """Records handed over and not delivered."""
        self.size = 0
        """Bytes of their outcomes."""

    @property
    def last(self) -> Ticket:
        """The newest ticket."""
        return Ticket(self._last)

    def hand(self, runs: Sequence[Run], chunk: ChunkId | None = None) -> Ticket:
        """Give out the ticket for a hand-over of these records."""
        self._last += 1
        self._handed.append(Handed(Ticket(self._last), list(runs), chunk, set()))
        self.records += sum(map(len, runs))
        self.size += sum(run.size for run in runs)
        return Ticket(self._last)

    def deliver(self, ticket: Ticket) -> list[Run]:
        """Take every record handed over up to `ticket`, but those given back."""
        delivered: list[Run] = []
        while self._handed and self._handed[0].ticket <= ticket:
            handed = self._handed.popleft()
            delivered.extend(handed.runs if not handed.withdrawn else _remaining(handed))
        self.records -= sum(map(len, delivered))
        self.size -= sum(run.size for run in delivered)
        return delivered

    def withdraw(self, ticket: Ticket, index: int) -> tuple[Run, ChunkId | None] | None:
        """Take back one record the sink could not deliver: a run of its own, with its part of the bytes, and its chunk.

        None if the ticket is unknown, or the record was given back before.
        """
        handed = next((handed for handed in self._handed if handed.ticket == ticket), None)
        if handed is None or index in handed.withdrawn:
            return None
        base = 0
        for run in handed.runs:
            stop = base + len(run)
            if index < stop:
                left = len(run) - sum(base <= i < stop for i in handed.withdrawn)
                handed.withdrawn.add(index)
                single = run.bare(index - base, index - base + 1)
                single.size = run.size // left  # the last one has what is left
                run.size -= single.size
                self.records -= 1
                self.size -= single.size
                return single, handed.chunk
            base = stop
        return None

    def touch(self, partitions: Collection[TopicPartition]) -> bool:
        """Tell whether an outcome of any of these partitions is on its way."""
        return any(run.partition in partitions for handed in self._handed for run in handed.runs)


def _remaining(handed: Handed) -> list[Run]:
    """Leave the withdrawn records out."""
    remaining, base = [], 0
    for run in handed.runs:
        kept = [i for i in range(len(run)) if base + i not in handed.withdrawn]
        if kept:
            rest = run.pick_bare(kept)
            rest.size = run.size
            remaining.append(rest)
        base += len(run)
    return remaining
