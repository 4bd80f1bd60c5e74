"""The opponents: the loop of some sixty lines that the program stands in for, as a first version and as a tuned one.

    python -m benchmarks.loops simple|tuned BOOTSTRAP GROUP SOURCE TARGET DIRECTORY

Each consumes, decodes, infers, produces, flushes and commits in one process, at least once, until SIGTERM. Neither
retries, isolates a bad record, serves a second model or survives a rebalance without duplicates.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy and torch

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import msgpack
import numpy as np
import torch
from confluent_kafka import Consumer, Message, Producer

from benchmarks import PIXELS
from benchmarks.network import Network, load

Loop: TypeAlias = Callable[[Consumer, Producer, Network, str], None]

COMMIT_INTERVAL_S = 0.5
stopping = False


def infer(network: Network, messages: list[Message]) -> list[bytes]:
    """Decode, run the network once, encode."""
    images = np.empty((len(messages), PIXELS), np.float32)
    names = []
    for row, message in enumerate(messages):
        request = msgpack.unpackb(message.value())
        names.append(request["id"])
        images[row] = np.frombuffer(request["inputs"][0]["data"], np.float32)
    with torch.inference_mode():
        scores = network(torch.from_numpy(images)).numpy()
    return [
        msgpack.packb(
            {
                "id": name,
                "model_name": "mlp",
                "outputs": [{"name": "scores", "datatype": "FP32", "shape": [10], "data": row.tobytes()}],
            }
        )
        for name, row in zip(names, scores, strict=True)
    ]


def simple(consumer: Consumer, producer: Producer, network: Network, target: str) -> None:
    """Write it as in the client's examples: up to 256 records, flush and commit after each batch."""
    while not stopping:
        messages = consumer.consume(256, timeout=0.1)
        if not messages:
            continue
        for result in infer(network, messages):
            producer.produce(target, result)
        producer.flush()
        consumer.commit(asynchronous=False)


def tuned(consumer: Consumer, producer: Producer, network: Network, target: str) -> None:
    """Tune it: up to 512 records without waiting for more, flush and commit every half second."""
    uncommitted, commit_at = False, time.monotonic() + COMMIT_INTERVAL_S
    while not stopping:
        first = consumer.poll(0.1)
        if first is not None:
            messages = [first, *consumer.consume(511, timeout=0)]
            for result in infer(network, messages):
                producer.produce(target, result)
            producer.poll(0)
            uncommitted = True
        if uncommitted and time.monotonic() >= commit_at:
            producer.flush()
            consumer.commit(asynchronous=False)
            uncommitted, commit_at = False, time.monotonic() + COMMIT_INTERVAL_S


CONSUMER = {
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
    # With its default of a second, a loop that is faster than the network stalls each time its queue was full.
    "fetch.queue.backoff.ms": 5,
    "max.partition.fetch.bytes": 10_485_760,
    "queued.max.messages.kbytes": 262_144,
}
PRODUCER = {"enable.idempotence": True, "acks": "all", "linger.ms": 5, "queue.buffering.max.messages": 1_000_000}
LOOPS: dict[str, Loop] = {"simple": simple, "tuned": tuned}


def stop(_number: int, _frame: object) -> None:
    """End the loop after its batch."""
    global stopping  # noqa: PLW0603 - a signal has no other way in
    stopping = True


def main(name: str, bootstrap: str, group: str, source: str, target: str, directory: str) -> None:
    """Run a loop until SIGTERM."""
    signal.signal(signal.SIGTERM, stop)
    network = load(Path(directory))
    network(torch.zeros(256, PIXELS))
    consumer = Consumer(CONSUMER | {"bootstrap.servers": bootstrap, "group.id": group})
    producer = Producer(PRODUCER | {"bootstrap.servers": bootstrap})
    consumer.subscribe([source])
    LOOPS[name](consumer, producer, network, target)
    producer.flush()
    consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
