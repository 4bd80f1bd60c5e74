"""The records of the benchmarks, made quickly: one request is encoded by `schemas`, then overwritten in copies.

Owns what each workload's requests hold; the same bytes as to encode each by itself. Every id has 32 characters and
stands first in its value, so that whoever reads a result finds it without decoding (`ID`). In an open loop it is the
time at which its record was to be sent.
"""

import re
import uuid
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks import PIXELS, mixture, sentences
from schemas.codecs import JSON, MSGPACK, encode_request
from schemas.records import Request
from schemas.tensors import Tensor

MODEL, PICTURES, SENTENCES = "mlp", "pictures", "sentences"
IMAGES = 4_096
"""Different images; they repeat after that."""
ID = re.compile(rb"[0-9a-f]{32}")
"""A record's id within its value, or within the value of its result."""


class Template:
    """An encoded request whose id, and tensors of equal size, can be overwritten."""

    def __init__(self, name: str, tensor: NDArray[np.generic]) -> None:
        identity = uuid.uuid4().hex
        encoded = encode_request(Request(identity, (Tensor.of(name, tensor),)), MSGPACK)
        self._value = bytearray(encoded)
        self._id_at, self._tensor_at = encoded.index(identity.encode()), encoded.index(tensor.tobytes())

    def fill(self, identity: bytes, tensor: bytes | None = None) -> bytes:
        """Write one request; without a tensor it keeps the last."""
        self._value[self._id_at : self._id_at + len(identity)] = identity
        if tensor is not None:
            self._value[self._tensor_at : self._tensor_at + len(tensor)] = tensor
        return bytes(self._value)


def images(count: int) -> list[NDArray[np.float32]]:
    """Draw images for the small network."""
    return list(np.random.default_rng(0).random((count, PIXELS), dtype=np.float32))


def filled(name: str, tensors: Sequence[NDArray[np.generic]], identities: Iterator[bytes]) -> Iterator[bytes]:
    """Make a request for each id, with the tensors, all of one shape, in turns."""
    template, encoded = Template(name, tensors[0]), [each.tobytes() for each in tensors]
    for number, identity in enumerate(identities):
        yield template.fill(identity, encoded[number % len(encoded)])


def fresh(count: int) -> Iterator[bytes]:
    """Make so many ids that no other record has."""
    return (uuid.uuid4().hex.encode() for _ in range(count))


def requests(identities: Iterator[bytes]) -> Iterator[bytes]:
    """W1 binary: requests of 3.2 KB, msgpack, each with an id of its own."""
    return filled("image", images(IMAGES), identities)


def json_requests(identities: Iterator[bytes]) -> Iterator[bytes]:
    """W1 JSON: the same images as JSON numbers, about 8 KB; axis 0 is rows, as clients of model servers write it."""
    marker = uuid.uuid4().hex
    encoded = [encode_request(Request(marker, (Tensor.of("image", each[None]),)), JSON) for each in images(IMAGES // 8)]
    for number, identity in enumerate(identities):
        yield encoded[number % len(encoded)].replace(marker.encode(), identity, 1)


def picture_requests(identities: Iterator[bytes]) -> Iterator[bytes]:
    """W2: pictures of 150 KB, UINT8."""
    pictures = np.random.default_rng(0).integers(0, 256, (32, 3, 224, 224), dtype=np.uint8)
    return filled("picture", list(pictures), identities)


def token_rows() -> list[NDArray[np.int64]]:
    """W3: the tokens of the different sentences."""
    random = np.random.default_rng(1)
    return [random.integers(1_000, sentences.VOCABULARY, each) for each in sentences.lengths(sentences.DIFFERENT)]


def sentence_requests(identities: Iterator[bytes]) -> Iterator[bytes]:
    """W3: sentences as tokens, INT64, of lengths that differ."""
    rows = token_rows()
    for number, identity in enumerate(identities):
        tokens = Tensor.of("tokens", rows[number % len(rows)])
        yield encode_request(Request(identity.decode(), (tokens,)), MSGPACK)


def feature_requests(identities: Iterator[bytes]) -> Iterator[bytes]:
    """W4: features of 1 KB, the same for each model."""
    features = np.random.default_rng(0).random((IMAGES, mixture.SIDE), dtype=np.float32)
    return filled("features", list(features), identities)
