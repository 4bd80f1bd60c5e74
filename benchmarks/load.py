"""The records of the benchmarks: requests for the 784-32-10 network, written to a topic before anything is measured.

Owns how they are made quickly: one request is encoded by `schemas`, and its id and tensor are overwritten in copies of
its bytes, which gives the same bytes as to encode each.
"""

import uuid
from collections.abc import Iterator

import numpy as np
from confluent_kafka import Producer

from benchmarks import PIXELS
from benchmarks.topics import PARTITIONS
from schemas.codecs import MSGPACK, encode_request
from schemas.records import Request
from schemas.tensors import Tensor

MODEL = "mlp"
IMAGES = 4_096
"""Different images; they repeat after that."""


def requests(count: int) -> Iterator[bytes]:
    """Make requests of 3.2 KB, msgpack, each with an id of 32 characters of its own."""
    images = np.random.default_rng(0).random((IMAGES, PIXELS), dtype=np.float32)
    name = uuid.uuid4().hex
    template = encode_request(Request(name, (Tensor.of("image", images[0]),)), MSGPACK)
    id_at, image_at = template.index(name.encode()), template.index(images[0].tobytes())
    image_bytes = [image.tobytes() for image in images]
    value = bytearray(template)
    for number in range(count):
        image = image_bytes[number % IMAGES]
        value[id_at : id_at + len(name)] = uuid.uuid4().hex.encode()
        value[image_at : image_at + len(image)] = image
        yield bytes(value)


def load(bootstrap: str, topic: str, count: int) -> None:
    """Fill a topic, evenly over its partitions."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "log_level": 0,
            "enable.idempotence": True,
            "linger.ms": 20,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 200_000,
        }
    )
    for number, value in enumerate(requests(count)):
        while True:
            try:
                producer.produce(topic, value, key=MODEL, partition=number % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(60):
        message = f"{topic} could not be filled"
        raise RuntimeError(message)
