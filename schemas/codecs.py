"""Bytes <-> requests and results, by content type: `application/msgpack` and the JSON of Open Inference Protocol V2.

Decoding raises `RecordError` and nothing else, whatever the bytes are.
"""

from typing import Final, Protocol, TypeAlias

from schemas.errors import RecordError
from schemas.json_codec import JsonCodec
from schemas.limits import DEFAULT_LIMITS, Limits
from schemas.msgpack_codec import MsgpackCodec
from schemas.reasons import Reason
from schemas.records import Request, Result

MSGPACK: Final = MsgpackCodec.content_type
JSON: Final = JsonCodec.content_type

Value: TypeAlias = bytes | bytearray | memoryview
"""A record's value. A memoryview is contiguous; nothing that is decoded from it points into it."""


class Codec(Protocol):
    """Writes and reads the values of one content type."""

    @property
    def content_type(self) -> str:
        """The content type, lower case, without parameters."""

    def encode_request(self, request: Request) -> bytes:
        """Write a request.

        Raises:
            RecordError: it holds what this content type cannot carry.
            ValueError: a tensor contradicts itself.
        """

    def decode_request(self, value: Value, limits: Limits = DEFAULT_LIMITS) -> Request:
        """Read a request.

        Raises:
            RecordError: the value is none, or exceeds a limit.
        """

    def encode_result(self, result: Result) -> bytes:
        """Write a result.

        Raises:
            RecordError: it holds what this content type cannot carry (`unencodable-output`).
            ValueError: a tensor contradicts itself.
        """

    def decode_result(self, value: Value, limits: Limits = DEFAULT_LIMITS) -> Result:
        """Read a result.

        Raises:
            RecordError: the value is none, or exceeds a limit.
        """


_CODECS: Final[dict[str, Codec]] = {MSGPACK: MsgpackCodec(), JSON: JsonCodec()}

CONTENT_TYPES: Final = tuple(_CODECS)
"""Every content type that has a codec."""


def codec_for(content_type: str | None, default: str = MSGPACK) -> Codec:
    """Pick the codec of a content type, compared without case and without parameters.

    Args:
        content_type: the record's `content-type` header; None where it has none.
        default: the content type of records without the header.

    Raises:
        RecordError: there is no such codec (`unsupported-content-type`).
    """
    asked = default if content_type is None else content_type
    codec = _CODECS.get(asked)
    if codec is None:
        codec = _CODECS.get(asked.partition(";")[0].strip().lower())
    if codec is None:
        raise RecordError(Reason.UNSUPPORTED_CONTENT_TYPE, f"content-type is none of {', '.join(CONTENT_TYPES)}")
    return codec


def encode_request(request: Request, content_type: str | None = None) -> bytes:
    """Write a request, as msgpack unless told otherwise; see `Codec.encode_request`."""
    return codec_for(content_type).encode_request(request)


def decode_request(value: Value, content_type: str | None = None, limits: Limits = DEFAULT_LIMITS) -> Request:
    """Read a request, as msgpack unless told otherwise; see `Codec.decode_request`."""
    return codec_for(content_type).decode_request(value, limits)


def encode_result(result: Result, content_type: str | None = None) -> bytes:
    """Write a result, as msgpack unless told otherwise; see `Codec.encode_result`."""
    return codec_for(content_type).encode_result(result)


def decode_result(value: Value, content_type: str | None = None, limits: Limits = DEFAULT_LIMITS) -> Result:
    """Read a result, as msgpack unless told otherwise; see `Codec.decode_result`."""
    return codec_for(content_type).decode_result(value, limits)
