"""The opponents: the loop of some sixty lines that the program stands in for, as a first version and as a tuned one.

    python -m benchmarks.loops simple|tuned|echo BOOTSTRAP GROUP SOURCE TARGET DIRECTORY [--rows N] [--no-flush]

Each consumes, decodes, infers, produces, flushes and commits in one process, at least once, until SIGTERM. Neither
retries, isolates a bad record, serves a second model or survives a rebalance without duplicates. The echo is the tuned
loop without decoding and inference: what the client and the broker allow. Without the flush, offsets are committed of
records whose results may yet be lost: a reference, not a baseline.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy and torch

import argparse
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import msgpack
import numpy as np
import torch
from confluent_kafka import Consumer, Message, Producer

from benchmarks import PIXELS
from benchmarks.networks import Network, load

Answer: TypeAlias = Callable[[list[Message]], list[bytes]]
"""Turns a batch into its results."""

COMMIT_INTERVAL_S = 0.5
ECHO_BYTES = 80
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


def echo(messages: list[Message]) -> list[bytes]:
    """Give the first bytes back, the id among them: as many as a result has."""
    return [(message.value() or b"")[:ECHO_BYTES] for message in messages]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """What a loop reads from and writes to, and how."""

    consumer: Consumer
    producer: Producer
    target: str
    rows: int
    is_flushed: bool


class Loop:
    """What both loops do with a batch and with their offsets."""

    def __init__(self, ends: Ends, answer: Answer) -> None:
        self._consumer, self._producer, self._target = ends.consumer, ends.producer, ends.target
        self._is_flushed, self._rows, self._answer = ends.is_flushed, ends.rows, answer

    def simple(self) -> None:
        """Write it as in the client's examples: flush and commit after each batch."""
        while not stopping:
            messages = self._consumer.consume(self._rows, timeout=0.1)
            if messages:
                self._produce(messages)
                self._commit()

    def tuned(self) -> None:
        """Tune it: what is there without waiting for more, flush and commit every half second."""
        uncommitted, commit_at = False, time.monotonic() + COMMIT_INTERVAL_S
        while not stopping:
            first = self._consumer.poll(0.1)
            if first is not None:
                self._produce([first, *self._consumer.consume(self._rows - 1, timeout=0)])
                uncommitted = True
            if uncommitted and time.monotonic() >= commit_at:
                self._commit()
                uncommitted, commit_at = False, time.monotonic() + COMMIT_INTERVAL_S

    def _produce(self, messages: list[Message]) -> None:
        for result in self._answer(messages):
            self._producer.produce(self._target, result)
        self._producer.poll(0)

    def _commit(self) -> None:
        if self._is_flushed:
            self._producer.flush()
        self._consumer.commit(asynchronous=False)


CONSUMER = {
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
    # With its default of a second, a loop that is faster than the network stalls each time its queue was full.
    "fetch.queue.backoff.ms": 5,
    "max.partition.fetch.bytes": 10_485_760,
    "queued.max.messages.kbytes": 262_144,
}
PRODUCER = {"enable.idempotence": True, "acks": "all", "linger.ms": 5, "queue.buffering.max.messages": 1_000_000}


def stop(_number: int, _frame: object) -> None:
    """End the loop after its batch."""
    global stopping  # noqa: PLW0603 - a signal has no other way in
    stopping = True


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loops")
    parser.add_argument("name", choices=("simple", "tuned", "echo"))
    for name in ("bootstrap", "group", "source", "target"):
        parser.add_argument(name)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--no-flush", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Run a loop until SIGTERM."""
    asked = arguments()
    signal.signal(signal.SIGTERM, stop)
    if asked.name == "echo":
        answer: Answer = echo
    else:
        network = load(asked.directory)
        network(torch.zeros(asked.rows, PIXELS))
        answer = partial(infer, network)
    ends = Ends(
        consumer=Consumer(CONSUMER | {"bootstrap.servers": asked.bootstrap, "group.id": asked.group}),
        producer=Producer(PRODUCER | {"bootstrap.servers": asked.bootstrap}),
        target=asked.target,
        rows=asked.rows,
        is_flushed=not asked.no_flush,
    )
    ends.consumer.subscribe([asked.source])
    loop = Loop(ends, answer)
    if asked.name == "simple":
        loop.simple()
    else:
        loop.tuned()
    ends.producer.flush()
    ends.consumer.close()


if __name__ == "__main__":
    main()
