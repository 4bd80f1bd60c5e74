"""Fills a topic with the records of a workload, before anything is measured: the generator, a process of its own.

    python -m benchmarks.load BOOTSTRAP TOPIC WORKLOAD COUNT [MODEL [all]]

With a model, only that model's records of the workload are sent; with `all`, all of them are for that model.
"""

import sys
from collections.abc import Iterable

from confluent_kafka import Producer

from benchmarks.records import fresh
from benchmarks.topics import PARTITIONS
from benchmarks.workloads import WORKLOADS

PRODUCER = {
    "log_level": 0,
    "enable.idempotence": True,
    "linger.ms": 20,
    "batch.size": 1_000_000,
    "queue.buffering.max.messages": 200_000,
}
FLUSH_TIMEOUT_S = 120.0


def load(bootstrap: str, topic: str, sent: Iterable[tuple[str, bytes]]) -> int:
    """Send records with their keys, evenly over the partitions; their number.

    Raises:
        RuntimeError: the broker did not take them all.
    """
    producer = Producer(PRODUCER | {"bootstrap.servers": bootstrap})
    number = 0
    for key, value in sent:
        while True:
            try:
                producer.produce(topic, value, key=key, partition=number % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.1)
        number += 1
    if producer.flush(FLUSH_TIMEOUT_S):
        raise RuntimeError(f"{topic} could not be filled")
    return number


def main(bootstrap: str, topic: str, workload: str, count: str, model: str = "", whose: str = "") -> None:
    """Fill a topic and print how many records it got."""
    asked, total = WORKLOADS[workload], int(count)
    keys = [model] * total if whose == "all" else [key for key in asked.keys(total) if model in {"", key}]
    print(load(bootstrap, topic, zip(keys, asked.values(fresh(len(keys))), strict=True)))


if __name__ == "__main__":
    main(*sys.argv[1:])
