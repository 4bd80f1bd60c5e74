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
    """The records of one hand-over, without their payloads."""

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

    @property
    def last(self) -> Ticket:
        """The newest ticket."""
        return Ticket(self._last)

    def hand(self, runs: Sequence[Run], chunk: ChunkId | None = None) -> Ticket:
        """Give out the ticket for a hand-over of these records."""
        self._last += 1
        self._handed.append(Handed(Ticket(self._last), list(runs), chunk, set()))
        self.records += sum(map(len, runs))
        return Ticket(self._last)

    def deliver(self, ticket: Ticket) -> list[Run]:
        """Take every record handed over up to `ticket`, but those given back."""
        delivered: list[Run] = []
        while self._handed and self._handed[0].ticket <= ticket:
            handed = self._handed.popleft()
            delivered.extend(handed.runs if not handed.withdrawn else _remaining(handed))
        self.records -= sum(map(len, delivered))
        return delivered

    def withdraw(self, ticket: Ticket, index: int) -> tuple[Run, ChunkId | None, int] | None:
        """Take back one record the sink could not deliver: its run, its chunk, its number in the run.

        None if the ticket is unknown, or the record was given back before.
        """
        for handed in self._handed:
            if handed.ticket == ticket:
                if index in handed.withdrawn:
                    return None
                handed.withdrawn.add(index)
                self.records -= 1
                base = 0
                for run in handed.runs:
                    if index < base + len(run):
                        return run, handed.chunk, index - base
                    base += len(run)
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
            remaining.append(run.pick_bare(kept))
        base += len(run)
    return remaining
