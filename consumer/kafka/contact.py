"""Does the client still know a broker? And what becomes of one that does not.

Owns the reading of the client's statistics, and the end of a client that is of no use. Must not know what it was for.

A broker that was frozen, and is fenced by the controllers when it wakes, answers that the cluster has no brokers. The
client then forgets all it knows, those of its settings as well, and where that answer crosses its own attempt to begin
with those again, it never does (librdkafka issue 5301): it neither fetches nor joins its group, and says nothing of it.
"""

import threading
from collections.abc import Callable

from confluent_kafka import Consumer

from consumer.kafka.group import leave

KNOWN = ('"source":"configured"', '"source":"learned"')
"""What the statistics say of a broker that may be asked (librdkafka 2.16, STATISTICS.md)."""
INTERVAL_MS = 5000
"""How often a client tells its statistics (`statistics.interval.ms`)."""
MISSES_MAX = 2
"""So many statistics in a row without a broker are no moment between two lists of brokers."""
FORGOTTEN = "the client has forgotten all brokers and is made anew: what it had of the group's partitions is lost"


class Contact:
    """Whether one client still knows a broker."""

    def __init__(self) -> None:
        """Start with brokers known, or to be known."""
        self._misses = 0

    @property
    def is_lost(self) -> bool:
        """Tell whether it does not, and will not again."""
        return self._misses >= MISSES_MAX

    def note(self, statistics: str) -> None:
        """Take the client's statistics, as its `stats_cb`."""
        self._misses = 0 if any(each in statistics for each in KNOWN) else self._misses + 1


def part_with(client: Consumer, wait: Callable[[], object]) -> None:
    """Close a client that may hang over it, after a wait for the calls that are under way."""

    def close() -> None:
        wait()
        leave(client)

    threading.Thread(target=close, name="source-parting", daemon=True).start()
