"""No byte string whatever raises anything but RecordError, or takes more time and memory than its size allows."""

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgpack
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas import (
    CONTENT_TYPES,
    JSON,
    MSGPACK,
    RecordError,
    Request,
    Result,
    Tensor,
    decode_request,
    decode_result,
    encode_request,
    encode_result,
)
from tests.schemas import strategies
from tests.strategies import UNHURRIED

MIB = 1024 * 1024
MEMORY_PER_BYTE = 100
"""Bytes of memory for each byte of a value, at most, while it is decoded."""
MEMORY_FREE = 256 * 1024
"""Bytes of memory that any value may take."""
SECONDS_PER_MIB = 10.0
"""Generous, for a loaded machine under tracemalloc: what it guards against is anything that is not linear."""

THOROUGH = settings(UNHURRIED, max_examples=200)

NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats() | st.sampled_from([0, 1, 2, -1, 2**31, 2**62, 2**63])
TEXTS = st.text(max_size=6) | st.sampled_from(["id", "inputs", "outputs", "FP32", "BYTES", "BOOL", "INT64", "BF16"])
FIELDS = ["id", "inputs", "outputs", "parameters", "model_name", "model_version", "name", "datatype", "shape", "data"]


def documents(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw documents that look like records, more or less."""
    anything = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | TEXTS, inner, max_size=4),
        max_leaves=12,
    )
    shapes = st.lists(st.integers(0, 3), max_size=4) | anything
    tensor = st.fixed_dictionaries({"name": TEXTS, "datatype": TEXTS, "shape": shapes, "data": anything}) | anything
    tensors = st.lists(tensor, max_size=3)
    return (
        st.fixed_dictionaries({"inputs": tensors, "outputs": tensors, "model_name": TEXTS}, optional={"id": anything})
        | anything
    )


@st.composite
def mutated(draw: st.DrawFn, values: st.SearchStrategy[bytes]) -> bytes:
    """Draw a value that was right and is no more: bytes changed, cut out, doubled or put in."""
    value = bytearray(draw(values))
    for _ in range(draw(st.integers(1, 4))):
        first = draw(st.integers(0, len(value)))
        stop = draw(st.integers(first, min(len(value), first + 8)))
        value[first:stop] = draw(st.binary(max_size=4) | st.just(bytes(value[first:stop]) * 2))
    return bytes(value)


def decode_all(value: bytes, content_type: str) -> None:
    """Decode a value as a request and as a result, within bounds of memory and time."""
    for decode in (decode_request, decode_result):
        _bounded(lambda decode=decode: decode(value, content_type), len(value))  # type: ignore[misc]


def _bounded(decode: Callable[[], object], size: int) -> None:
    """Call, expecting nothing or RecordError, and measure."""
    refusal = None
    tracemalloc.start()
    started = time.perf_counter()
    try:
        decode()
    except RecordError as error:
        refusal = str(error)
    finally:
        seconds = time.perf_counter() - started
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert refusal is None or (refusal and "\n" not in refusal)
    assert peak <= MEMORY_FREE + MEMORY_PER_BYTE * size
    assert seconds <= SECONDS_PER_MIB * max(1, size / MIB)


@given(st.binary(max_size=200), st.sampled_from(CONTENT_TYPES))
@THOROUGH
def test_any_bytes(value: bytes, content_type: str) -> None:
    """Bytes from nowhere are decoded or refused."""
    decode_all(value, content_type)


@given(documents(NUMBERS | TEXTS | st.none() | st.booleans() | st.binary(max_size=16)).map(msgpack.packb))
@THOROUGH
@example(msgpack.packb({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2**40, 0], "data": b""}]}))
def test_any_msgpack_document(value: bytes) -> None:
    """Documents that are msgpack but hardly records are decoded or refused."""
    decode_all(value, MSGPACK)


@given(documents(NUMBERS | TEXTS | st.none() | st.booleans()).map(orjson.dumps))
@THOROUGH
def test_any_json_document(value: bytes) -> None:
    """Documents that are JSON but hardly records are decoded or refused."""
    decode_all(value, JSON)


@given(mutated(strategies.requests().map(encode_request) | strategies.results().map(encode_result)))
@THOROUGH
def test_damaged_msgpack_records(value: bytes) -> None:
    """Records with damaged bytes are decoded or refused."""
    decode_all(value, MSGPACK)


@given(
    mutated(
        strategies.requests(is_json=True).map(lambda request: encode_request(request, JSON))
        | strategies.results(is_json=True).map(lambda result: encode_result(result, JSON))
    )
)
@THOROUGH
def test_damaged_json_records(value: bytes) -> None:
    """Records with damaged bytes are decoded or refused."""
    decode_all(value, JSON)


REQUEST = Request("r", (Tensor.of("x", [[0.5, 1.5]], "FP32"), Tensor.of("words", ["a", "b"])), {"p": 1})
RESULT = Result("r", "m", "1", (Tensor.of("y", [[0.5, 1.5]], "FP32"),), {"source_topic": "t"})


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
def test_every_truncation_is_refused(content_type: str) -> None:
    """No proper beginning of a record is a record."""
    for value, decode in (
        (encode_request(REQUEST, content_type), decode_request),
        (encode_result(RESULT, content_type), decode_result),
    ):
        for length in range(len(value)):
            with pytest.raises(RecordError):
                decode(value[:length], content_type)


def _array(element: bytes, size: int) -> bytes:
    """Fill an array of about `size` bytes with one element."""
    count = size // len(element)
    return b"\xdd" + count.to_bytes(4, "big") + element * count


def _inside(data: bytes, count: int, datatype: str = "FP32") -> bytes:
    """Put encoded data into a msgpack request."""
    whole = msgpack.packb({"inputs": [{"name": "x", "datatype": datatype, "shape": [count], "data": None}]})
    assert whole.endswith(b"\xc0")
    return bytes(whole[:-1]) + data


HOSTILE: dict[str, tuple[str, bytes]] = {
    "nested arrays that declare a million elements each": (
        MSGPACK,
        (b"\xdd" + MIB.to_bytes(4, "big")) * 1000 + bytes(MIB),
    ),
    "nested maps that declare a million entries each": (MSGPACK, (b"\xdf" + MIB.to_bytes(4, "big") + b"\xa0") * 1000),
    "a million empty arrays": (MSGPACK, _array(b"\x90", MIB)),
    "a million empty maps": (MSGPACK, _array(b"\x80", MIB)),
    "maps of one entry": (MSGPACK, _array(b"\x81\xa0\xc0", MIB)),
    "arrays of one element": (MSGPACK, _array(b"\x91\xc0", MIB)),
    "extension types": (MSGPACK, _array(b"\xd4\x05\x01", MIB)),
    "timestamps": (MSGPACK, _array(b"\xd6\xff\0\0\0\0", MIB)),
    "short strings": (MSGPACK, _array(b"\xa2ab", MIB)),
    "a million listed numbers": (MSGPACK, _inside(_array(b"\x01", MIB), MIB)),
    "a million listed floats": (MSGPACK, _inside(_array(b"\xcb" + bytes(8), 9 * MIB), MIB)),
    "a million listed strings": (MSGPACK, _inside(_array(b"\xa1a", 2 * MIB), MIB, "BYTES")),
    "nested lists of one element": (MSGPACK, _inside(_array(b"\x91\x01", MIB), MIB // 2)),
    "more lists than a large value may have": (MSGPACK, _array(b"\x90", 16 * MIB)),
    "more maps than a large value may have": (MSGPACK, _array(b"\x80", 16 * MIB)),
    "JSON: empty lists": (JSON, b"[" + b"[]," * (MIB // 3) + b"0]"),
    "JSON: empty maps": (JSON, b"[" + b"{}," * (MIB // 3) + b"0]"),
    "JSON: maps of one entry": (JSON, b"[" + b'{"":0},' * (MIB // 7) + b"0]"),
    "JSON: a thousand levels": (JSON, b"[" * 1000 + b"]" * 1000),
    "JSON: a million levels": (JSON, b"[" * MIB),
    "JSON: a number of a million digits": (JSON, b"1" * MIB),
    "JSON: blanks": (JSON, b" " * MIB),
    "JSON: more than is taken": (JSON, b"[" + b"0," * (5 * MIB) + b"0]"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_values_stay_within_bounds(name: str) -> None:
    """Values made to be dear cost memory and time in proportion to their size, whatever lengths they declare."""
    content_type, value = HOSTILE[name]
    decode_all(value, content_type)


@pytest.mark.parametrize("name", [name for name in HOSTILE if "large value" in name or "more than" in name])
def test_large_hostile_values_are_refused_early(name: str) -> None:
    """Where a limit applies, the memory taken is far below what decoding the whole value would take."""
    content_type, value = HOSTILE[name]
    tracemalloc.start()
    with pytest.raises(RecordError) as refused:
        decode_request(value, content_type)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused.value.reason == "too-large"
    assert peak < 10 * len(value)
