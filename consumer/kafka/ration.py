"""How much one transaction may hold, once one was too much for its time.

Owns the measure, and which hand-overs have to wait for the next transaction. Must not know the client, nor the clock.

Theory of operation. A transaction has to end within its timeout, however slowly the brokers take what is in it: made
again with the same outcomes, one that did not would not the next time either, for ever. So one that outlived its time
halves what the next may hold, and those that take a small part of theirs let it grow again. Only what the core was not
told of yet can wait: a barrier tells of everything up to a ticket, and the commit after it names that.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from consumer.core.types import Ticket
from consumer.kafka.handovers import HandOver

SPARE: Final = 8
"""A transaction that took less than this part of its time has shown that more would do."""
SLOW: Final = (
    "the brokers do not take what is in a transaction in half of transaction.timeout.ms, by quota or load: it is "
    "aborted, and made again with less"
)


class Ration:
    """The bytes of outcomes that a transaction may hold beside those that it has to."""

    def __init__(self, time_s: float) -> None:
        """Start without a limit; `time_s` is what a transaction has."""
        self._time_s = time_s
        self._bytes_max: int | None = None
        self._failed_bytes = 0

    def allows(self, more: HandOver, retained: Collection[HandOver], delivered: Ticket) -> bool:
        """Tell whether a hand-over fits to those in the transaction; the first always does.

        So does one that is older than another one there: a barrier tells of everything up to a ticket.

        Args:
            more: the hand-over.
            retained: what is in the transaction.
            delivered: the newest ticket that the core was told of.
        """
        if self._bytes_max is None or any(each.ticket > more.ticket for each in retained):
            return True
        return self._fits(_size(retained, delivered), more.size)

    def divide(self, retained: Sequence[HandOver], delivered: Ticket) -> tuple[list[HandOver], list[HandOver]]:
        """Divide what an aborted transaction held: what the next one may hold, and what has to wait, oldest first."""
        if self._bytes_max is None:
            return list(retained), []
        held = 0
        for handed in sorted(retained, key=_ticket):
            if handed.ticket > delivered:
                if not self._fits(held, handed.size):
                    left = [each for each in retained if each.ticket >= handed.ticket]
                    return [each for each in retained if each.ticket < handed.ticket], sorted(left, key=_ticket)
                held += handed.size
        return list(retained), []

    def outlived(self, retained: Iterable[HandOver], delivered: Ticket) -> None:
        """Take note that a transaction was not done in its time."""
        self._failed_bytes = _size(retained, delivered)
        self._bytes_max = max(1, self._failed_bytes // 2)

    def committed(self, took_s: float) -> None:
        """Take note that a transaction was committed, so long after it began."""
        if self._bytes_max is not None and took_s < self._time_s / SPARE:
            self._bytes_max *= 2
            if self._bytes_max > 2 * self._failed_bytes:
                self._bytes_max = None

    def _fits(self, held: int, size: int) -> bool:
        assert self._bytes_max is not None
        return not held or held + size <= self._bytes_max


def _size(retained: Iterable[HandOver], delivered: Ticket) -> int:
    return sum(each.size for each in retained if each.ticket > delivered)


def _ticket(handed: HandOver) -> Ticket:
    return handed.ticket
