"""Sends records at their times, whatever becomes of those before: the open loop's generator, a process of its own.

    python -m benchmarks.generator BOOTSTRAP TOPIC WORKLOAD SCHEDULE START_NS [MODEL]

SCHEDULE is a file of seconds (.npy), START_NS a moment of the monotonic clock. Prints as JSON when the last record was
sent, how late it was itself and what it cost.
"""

import json
import sys
import time
from collections.abc import Iterator

import numpy as np
from confluent_kafka import Producer

from benchmarks.machine import spent
from benchmarks.schedules import Nanoseconds, due_ns
from benchmarks.topics import PARTITIONS
from benchmarks.workloads import WORKLOADS

PRODUCER = {
    "log_level": 0,
    "enable.idempotence": True,
    # What a caller who waits for an answer would set.
    "linger.ms": 1,
    "queue.buffering.max.messages": 500_000,
    "queue.buffering.max.kbytes": 1_000_000,
}
NAP_S = 0.001
FLUSH_TIMEOUT_S = 120.0


def names(moments: Nanoseconds) -> Iterator[bytes]:
    """Name each record after its moment."""
    return (b"%032d" % moment for moment in moments.tolist())


def send(producer: Producer, topic: str, moments: Nanoseconds, sent: Iterator[tuple[str, bytes]]) -> Nanoseconds:
    """Send each record at its moment; how much later each was handed over, in ns."""
    late = np.empty(len(moments), np.int64)
    for number, (moment, (key, value)) in enumerate(zip(moments.tolist(), sent, strict=True)):
        while (ahead_ns := moment - time.monotonic_ns()) > 0:
            producer.poll(0)
            time.sleep(min(ahead_ns / 1e9, NAP_S))
        while True:
            try:
                producer.produce(topic, value, key=key, partition=number % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.01)
        late[number] = time.monotonic_ns() - moment
    return late


def main(bootstrap: str, topic: str, workload: str, schedule: str, start_ns: str, model: str = "") -> None:
    """Send a schedule's records."""
    asked, moments = WORKLOADS[workload], due_ns(np.load(schedule), int(start_ns))
    keys = [model] * len(moments) if model else asked.keys(len(moments))
    producer = Producer(PRODUCER | {"bootstrap.servers": bootstrap})
    late = send(producer, topic, moments, zip(keys, asked.values(names(moments)), strict=True))
    if producer.flush(FLUSH_TIMEOUT_S):
        raise RuntimeError(f"{topic} did not take all records")
    sent_ns, late_ms = time.monotonic_ns(), float(np.percentile(late, 99)) / 1e6
    print(json.dumps({"sent_ns": sent_ns, "late_ms": late_ms, "records": len(moments), **spent()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
