"""Reads a run's results back: whether each record has one, and what the program says of its batches.

A figure of a run that lost a record is no figure: the runner asks here after every run, outside the measured time.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from benchmarks.records import ID
from benchmarks.topics import PARTITIONS
from benchmarks.watch import StalledError
from schemas.codecs import decode_result

DECODED_EVERY = 101
"""Every so many results one is decoded."""
QUIET_S = 10.0
SETTINGS = {
    "group.id": "unused",
    "log_level": 0,
    "enable.auto.commit": False,
    "isolation.level": "read_committed",
    "enable.partition.eof": True,
    "fetch.queue.backoff.ms": 5,
    "queued.max.messages.kbytes": 65_536,
}


@dataclass(slots=True)
class Readback:
    """What stands in a run's result topics."""

    results: int = 0
    ids: set[bytes] = field(default_factory=set)
    batch_rows: list[int] = field(default_factory=list)
    """Of a sample of the results; empty where they do not tell."""

    @property
    def duplicates(self) -> int:
        """Results beyond the first of their record."""
        return self.results - len(self.ids)

    def add(self, value: bytes, content_type: str | None) -> None:
        """Count a result."""
        self.results += 1
        found = ID.search(value)
        if found:
            self.ids.add(found.group())
        if content_type and self.results % DECODED_EVERY == 0:
            rows = decode_result(value, content_type).parameters.get("batch_rows")
            if isinstance(rows, int):
                self.batch_rows.append(rows)


def read_back(bootstrap: str, topics: Sequence[str], content_type: str | None = None) -> Readback:
    """Read whole result topics, as a reader of committed records sees them.

    Args:
        bootstrap: the broker.
        topics: all partitions of these are read to their ends.
        content_type: how results are encoded, if they are the program's; others are only counted.

    Raises:
        StalledError: the ends were not reached.
    """
    read = Readback()
    consumer = Consumer(SETTINGS | {"bootstrap.servers": bootstrap})
    try:
        parts = [TopicPartition(topic, number, OFFSET_BEGINNING) for topic in topics for number in range(PARTITIONS)]
        consumer.assign(parts)
        ended, moved_at_s = 0, time.monotonic()
        while ended < len(parts):
            for message in consumer.consume(10_000, timeout=0.2):
                moved_at_s = time.monotonic()
                value = message.value()
                if message.error() is not None:
                    ended += 1
                elif value is not None:
                    read.add(value, content_type)
            if time.monotonic() - moved_at_s > QUIET_S:
                raise StalledError(f"{', '.join(topics)} could not be read to the end")
    finally:
        consumer.close()
    return read
