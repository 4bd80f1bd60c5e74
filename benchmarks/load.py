"""Fills a topic with the records of a workload, before anything is measured: the generator, a process of its own.

    python -m benchmarks.load BOOTSTRAP TOPIC WORKLOAD COUNT [MODEL [all]]

With a model, only that model's records of the workload are sent; with `all`, all of them are for that model. Prints as
JSON how many there were, and what it cost.
"""

import json
import sys
from collections.abc import Iterable

from confluent_kafka import Producer

from benchmarks.machine import spent
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


def load(bootstrap: str, topic: str, sent: Iterable[tuple[str, bytes]], header: str = "") -> int:
    """Send records with their models as keys, or in a header, evenly over the partitions; their number.

    Raises:
        RuntimeError: the broker did not take them all.
    """
    producer = Producer(PRODUCER | {"bootstrap.servers": bootstrap})
    number = 0
    for model, value in sent:
        while True:
            try:
                if header:
                    producer.produce(topic, value, partition=number % PARTITIONS, headers={header: model})
                else:
                    producer.produce(topic, value, key=model, partition=number % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.1)
        number += 1
    if producer.flush(FLUSH_TIMEOUT_S):
        raise RuntimeError(f"{topic} could not be filled")
    return number


def main(bootstrap: str, topic: str, workload: str, count: str, model: str = "", whose: str = "") -> None:
    """Fill a topic."""
    asked, total = WORKLOADS[workload], int(count)
    keys = [model] * total if whose == "all" else [key for key in asked.keys(total) if model in {"", key}]
    sent = load(bootstrap, topic, zip(keys, asked.values(fresh(len(keys))), strict=True), asked.model_header)
    print(json.dumps({"records": sent, **spent()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
