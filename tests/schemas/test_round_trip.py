"""What is encoded is decoded as it was, whatever it is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import (
    CONTENT_TYPES,
    DTYPES,
    JSON,
    MSGPACK,
    RecordError,
    Request,
    Result,
    Tensor,
    codec_for,
    decode_request,
    decode_result,
    encode_request,
    encode_result,
)
from schemas.reasons import Reason
from tests.schemas import strategies
from tests.strategies import UNHURRIED


@UNHURRIED
@given(strategies.requests())
def test_a_request_survives_msgpack(request_: Request) -> None:
    """Decoding what was encoded gives the same request, bit by bit."""
    assert decode_request(encode_request(request_)) == request_


@UNHURRIED
@given(strategies.requests(is_json=True))
def test_a_request_survives_json(request_: Request) -> None:
    """Decoding what was encoded gives the same request, bit by bit, floats included."""
    assert decode_request(encode_request(request_, JSON), JSON) == request_


@UNHURRIED
@given(strategies.results())
def test_a_result_survives_msgpack(result: Result) -> None:
    """Decoding what was encoded gives the same result, its provenance included."""
    assert decode_result(encode_result(result)) == result


@UNHURRIED
@given(strategies.results(is_json=True))
def test_a_result_survives_json(result: Result) -> None:
    """Decoding what was encoded gives the same result, its provenance included."""
    assert decode_result(encode_result(result, JSON), JSON) == result


@UNHURRIED
@given(strategies.tensors("x"), st.sampled_from(CONTENT_TYPES), st.booleans())
def test_listed_elements_are_the_same_flat_and_nested(tensor: Tensor, content_type: str, is_nested: bool) -> None:
    """A list of elements, flat or nested as the shape says, is the same tensor as its raw bytes."""
    if isinstance(tensor.data, list):
        listed = np.array([*tensor.data, None], object)[:-1].reshape(tensor.shape)
    else:
        listed = np.nan_to_num(tensor.data) if tensor.data.dtype.kind == "f" else tensor.data
        tensor = tensor._replace(data=listed)
    elements = listed.tolist() if is_nested and listed.ndim else listed.reshape(-1).tolist()
    entry = {"name": "x", "datatype": tensor.datatype, "shape": list(tensor.shape), "data": elements}
    if content_type == JSON and isinstance(tensor.data, list):
        return  # JSON has no byte strings
    assert decode_request(_document(content_type, {"inputs": [entry]}), content_type).inputs == (tensor,)


@UNHURRIED
@given(st.sampled_from(CONTENT_TYPES), strategies.requests(is_json=True))
def test_every_kind_of_buffer_is_read(content_type: str, request_: Request) -> None:
    """Bytes, a bytearray and a memoryview of the same content give the same request."""
    value = encode_request(request_, content_type)
    decode = codec_for(content_type).decode_request
    assert decode(value) == decode(bytearray(value)) == decode(memoryview(b"?" + value)[1:]) == request_


@pytest.mark.parametrize("datatype", DTYPES)
def test_decoded_arrays_are_of_the_wire_dtype_and_contiguous(datatype: str) -> None:
    """A decoded array has exactly the shape, the datatype's dtype, and row-major order."""
    tensor = Tensor("x", datatype, (2, 3), np.ones((2, 3), DTYPES[datatype]))
    for content_type in CONTENT_TYPES:
        (decoded,) = decode_request(encode_request(Request(None, (tensor,)), content_type), content_type).inputs
        assert isinstance(decoded.data, np.ndarray)
        assert (decoded.data.shape, decoded.data.dtype) == ((2, 3), DTYPES[datatype])
        assert decoded.data.flags.c_contiguous
        assert decoded.data.flags.aligned


def test_a_decoded_tensor_does_not_change_with_its_value() -> None:
    """Nothing decoded points into the memory that the value was read from: that may be used again at once."""
    tensor = Tensor.of("x", np.arange(4, dtype=np.float32))
    memory = bytearray(encode_request(Request("r", (tensor,))))
    decoded = decode_request(memoryview(memory))
    memory[:] = bytes(len(memory))
    assert decoded.inputs == (tensor,)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_json_refuses_what_is_not_finite(datatype: str, number: float) -> None:
    """NaN and infinity are refused in JSON, never written as null, and are fine in msgpack."""
    tensor = Tensor.of("y", [[0.0, number]], datatype)
    with pytest.raises(RecordError, match=r"outputs\[0\] has NaN or infinity") as refused:
        encode_result(Result("r", "m", "1", (tensor,)), JSON)
    assert refused.value.reason is Reason.UNENCODABLE_OUTPUT
    with pytest.raises(RecordError, match=r"inputs\[0\] has NaN or infinity") as refused:
        encode_request(Request("r", (tensor,)), JSON)
    assert refused.value.reason is Reason.NOT_FINITE
    assert decode_result(encode_result(Result("r", "m", "1", (tensor,)), MSGPACK)).outputs == (tensor,)


def test_json_refuses_bytes_that_are_not_text() -> None:
    """A BYTES element that is not UTF-8 is refused in JSON and is fine in msgpack."""
    tensor = Tensor.of("y", [b"\xff"])
    with pytest.raises(RecordError, match="not UTF-8") as refused:
        encode_result(Result("r", "m", "1", (tensor,)), JSON)
    assert refused.value.reason is Reason.UNENCODABLE_OUTPUT
    with pytest.raises(RecordError, match="not UTF-8") as refused:
        encode_request(Request("r", (tensor,)), JSON)
    assert refused.value.reason is Reason.WRONG_DATATYPE
    assert decode_result(encode_result(Result("r", "m", "1", (tensor,)))).outputs == (tensor,)


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
@pytest.mark.parametrize(
    "tensor",
    [
        Tensor("x", "FP32", (2,), np.zeros(2)),
        Tensor("x", "FP32", (3,), np.zeros(2, "f4")),
        Tensor("x", "FP32", (2, 2), np.zeros((2, 2), "f4").T[::-1]),
        Tensor("x", "FP33", (2,), np.zeros(2, "f4")),
        Tensor("x", "BYTES", (2,), np.zeros(2, "f4")),
        Tensor("x", "FP32", (1,), [b""]),
        Tensor("x", "BYTES", (2,), [b""]),
        Tensor("x", "BYTES", (1,), [""]),  # type: ignore[list-item]
    ],
)
def test_a_tensor_that_contradicts_itself_is_never_written(content_type: str, tensor: Tensor) -> None:
    """Datatype, shape and elements have to agree before a byte is written."""
    with pytest.raises(ValueError, match="tensor 'x' of"):
        encode_request(Request("r", (tensor,)), content_type)
    with pytest.raises(ValueError, match="tensor 'x' of"):
        encode_result(Result("r", "m", "1", (tensor,)), content_type)


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
@pytest.mark.parametrize("parameter", [object(), 2**70])
def test_a_parameter_that_cannot_be_written_is_a_value_error(content_type: str, parameter: object) -> None:
    """A producer's mistake in the parameters is told as one."""
    with pytest.raises(ValueError, match="parameter"):
        encode_request(Request("r", (Tensor.of("x", [1.0]),), {"p": parameter}), content_type)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (None, MSGPACK),
        ("application/json", JSON),
        ("Application/JSON; charset=utf-8", JSON),
        (" application/MSGPACK ;x=y", MSGPACK),
    ],
)
def test_a_content_type_is_compared_without_case_and_parameters(asked: str | None, found: str) -> None:
    """Clients write content types in many ways; absence means the default."""
    assert codec_for(asked).content_type == found
    assert codec_for(None, JSON).content_type == JSON


@pytest.mark.parametrize("asked", ["", "text/csv", "application/jsonl", "application/x-protobuf"])
def test_an_unknown_content_type_is_refused(asked: str) -> None:
    """A record in a format without a codec is told so."""
    with pytest.raises(RecordError, match="content-type is none of application/msgpack, application/json") as refused:
        codec_for(asked)
    assert refused.value.reason is Reason.UNSUPPORTED_CONTENT_TYPE


def _document(content_type: str, document: dict[str, object]) -> bytes:
    """Write a document as a stranger's library does."""
    import msgpack
    import orjson

    packed: bytes = msgpack.packb(document) if content_type == MSGPACK else orjson.dumps(document)
    return packed
