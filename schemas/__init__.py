"""The records, codecs, headers and topic names that upstream and downstream services share.

A producer encodes a `Request`, a subscriber decodes a `Result`:

    value = encode_request(Request("r1", (Tensor.of("input", array),)))
    result = decode_result(value)
"""

from schemas.codecs import (
    CONTENT_TYPES,
    JSON,
    MSGPACK,
    Codec,
    codec_for,
    decode_request,
    decode_result,
    encode_request,
    encode_result,
)
from schemas.datatypes import BF16, BOOL, BYTES, DATATYPES, DTYPES, datatype_of, dtype_of, item_size
from schemas.errors import RecordError
from schemas.headers import DeadLetter, dead_letter_headers, parse_dead_letter, without_dead_letter
from schemas.limits import Limits
from schemas.reasons import Reason
from schemas.records import Request, Result, Source, provenance
from schemas.tensors import Tensor
from schemas.topics import TopicTemplates

__all__ = [
    "BF16",
    "BOOL",
    "BYTES",
    "CONTENT_TYPES",
    "DATATYPES",
    "DTYPES",
    "JSON",
    "MSGPACK",
    "Codec",
    "DeadLetter",
    "Limits",
    "Reason",
    "RecordError",
    "Request",
    "Result",
    "Source",
    "Tensor",
    "TopicTemplates",
    "codec_for",
    "datatype_of",
    "dead_letter_headers",
    "decode_request",
    "decode_result",
    "dtype_of",
    "encode_request",
    "encode_result",
    "item_size",
    "parse_dead_letter",
    "provenance",
    "without_dead_letter",
]
