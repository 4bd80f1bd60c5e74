"""Receives the results of an open loop and notes when: a process of its own.

    python -m benchmarks.receiver BOOTSTRAP TOPICS COUNT FILE [CONTENT_TYPE]

TOPICS are separated by commas. Ends when COUNT records have a result, or when none came for a while; FILE (.npz) then
holds the records' scheduled moments and those of their first results. With a content type the results are the
program's, and a sample of them tells how long their batches took.
"""

import sys
import time
from pathlib import Path

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from benchmarks.records import ID
from benchmarks.topics import PARTITIONS
from schemas.codecs import decode_result

QUIET_S = 30.0
DECODED_EVERY = 101
SCHEDULED = b"00000000"
"""How the id of a scheduled record starts, and that of a record for warming up does not."""
CONSUMER = {
    "group.id": "unused",
    "log_level": 0,
    "enable.auto.commit": False,
    "fetch.wait.max.ms": 5,
    "fetch.queue.backoff.ms": 1,
}


class Arrivals:
    """The results so far."""

    def __init__(self, content_type: str) -> None:
        self._content_type = content_type
        self.received: dict[int, int] = {}
        self.duplicates = 0
        self.infer_ms: list[float] = []

    def add(self, value: bytes, now_ns: int) -> None:
        """Note a result."""
        found = ID.search(value)
        if found is None or not found.group().startswith(SCHEDULED):
            return
        moment = int(found.group())
        if moment in self.received:
            self.duplicates += 1
            return
        self.received[moment] = now_ns
        if self._content_type and len(self.received) % DECODED_EVERY == 1:
            self.infer_ms.append(float(decode_result(value, self._content_type).parameters.get("infer_ms", 0.0)))

    def save(self, path: Path) -> None:
        """Write what came, in the order of the schedule."""
        moments = sorted(self.received)
        np.savez(
            path,
            due_ns=np.asarray(moments, np.int64),
            received_ns=np.asarray([self.received[moment] for moment in moments], np.int64),
            duplicates=self.duplicates,
            infer_ms=float(np.median(self.infer_ms)) if self.infer_ms else 0.0,
        )


def main(bootstrap: str, topics: str, count: str, path: str, content_type: str = "") -> None:
    """Receive until all are there."""
    consumer = Consumer(CONSUMER | {"bootstrap.servers": bootstrap})
    consumer.assign(
        [TopicPartition(topic, number, OFFSET_BEGINNING) for topic in topics.split(",") for number in range(PARTITIONS)]
    )
    arrivals, moved_s = Arrivals(content_type), time.monotonic()
    while len(arrivals.received) < int(count) and time.monotonic() - moved_s < QUIET_S:
        first = consumer.poll(0.5)
        if first is None:
            continue
        moved_s, now_ns = time.monotonic(), time.monotonic_ns()
        for message in (first, *consumer.consume(1_000, timeout=0)):
            value = message.value()
            if message.error() is None and value is not None:
                arrivals.add(value, now_ns)
    consumer.close()
    arrivals.save(Path(path))


if __name__ == "__main__":
    main(*sys.argv[1:])
