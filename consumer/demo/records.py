"""What the demo sends, and what must become of each record.

Owns the list of requests: every image to every model, and a handful of broken ones among them. Must not know Kafka.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.codecs import JSON, MSGPACK, encode_request
from schemas.reasons import Reason
from schemas.records import Request
from schemas.tensors import Tensor

MODELS = ("linear", "mlp", "cnn")
JSON_EVERY = 10
"""One image in so many travels as JSON, the others as msgpack."""
ID_HEADER = "demo-id"
"""Names a broken record, whose value may hold no id; headers are carried over to its dead letter."""


@dataclass(frozen=True, slots=True)
class Sending:
    """One record, and the outcome that is expected: a result for `image`, or else a dead letter with `reason`."""

    id: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    image: int | None = None
    reason: Reason | None = None
    fault: str = ""
    """What is wrong with it, in words."""


def plan(images: npt.NDArray[np.float32]) -> list[Sending]:
    """List the records to send, in their order: images FP32 (count, 8, 8) for each model, broken ones spread evenly."""
    good = [request(model, number, image) for number, image in enumerate(images) for model in MODELS]
    bad = broken(images[0])
    step = len(good) // (len(bad) + 1)
    for place, sending in enumerate(bad, start=1):
        good.insert(place * step + place - 1, sending)
    return good


def request(model: str, number: int, image: npt.NDArray[np.float32]) -> Sending:
    """Ask a model for one image."""
    name = f"{model}-{number}"
    is_json = number % JSON_EVERY == 0
    value = encode_request(Request(name, (Tensor.of("image", image),)), JSON if is_json else MSGPACK)
    headers = [("content-type", JSON.encode())] if is_json else []
    return Sending(name, model.encode(), value, headers, image=number)


def broken(image: npt.NDArray[np.float32]) -> list[Sending]:
    """Make one record for each way in which a request is wrong that a newcomer meets first."""

    def encode(tensor: Tensor) -> bytes:
        return encode_request(Request(None, (tensor,)), MSGPACK)

    right = encode(Tensor.of("image", image))
    cases: Sequence[tuple[Reason, str, bytes | None, bytes | None, Sequence[tuple[str, bytes]]]] = (
        (Reason.UNREADABLE, "a value that is no msgpack", b"cnn", b"\xc1 not a request", ()),
        (Reason.UNKNOWN_MODEL, "a model that is not served", b"resnet", right, ()),
        (Reason.NO_MODEL_ID, "no key", None, right, ()),
        (Reason.NO_VALUE, "no value (a tombstone)", b"mlp", None, ()),
        (Reason.WRONG_INPUT, "an input by another name", b"mlp", encode(Tensor.of("pixels", image)), ()),
        (Reason.WRONG_SHAPE, "an image of 4 x 4", b"cnn", encode(Tensor.of("image", image[:4, :4])), ()),
        (Reason.WRONG_DATATYPE, "FP64 for FP32", b"linear", encode(Tensor.of("image", image.astype(np.float64))), ()),
        (
            Reason.UNSUPPORTED_CONTENT_TYPE,
            "a content type without a codec",
            b"linear",
            right,
            [("content-type", b"text/csv")],
        ),
        (Reason.EXPIRED, "expired before it was sent", b"cnn", right, [("expires-at", b"1")]),
    )
    return [
        Sending(
            f"broken-{reason}",
            key,
            value,
            [*headers, (ID_HEADER, f"broken-{reason}".encode())],
            reason=reason,
            fault=fault,
        )
        for reason, fault, key, value, headers in cases
    ]
