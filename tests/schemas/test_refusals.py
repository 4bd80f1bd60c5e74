"""What is wrong with a record is said in one clear line, each fault in its own."""

import re
from typing import Any

import msgpack
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import (
    CONTENT_TYPES,
    DATATYPES,
    JSON,
    MSGPACK,
    Limits,
    Reason,
    RecordError,
    Request,
    Tensor,
    decode_request,
    decode_result,
    encode_request,
)
from tests.strategies import UNHURRIED

LONG = "n" * 1025


def tensor(**changes: Any) -> dict[str, Any]:
    """Give a tensor that is right but for the changes; None takes a field away."""
    entry = {"name": "x", "datatype": "FP32", "shape": [2], "data": [0.5, 1], **changes}
    return {field: content for field, content in entry.items() if content is not None}


def one(**changes: Any) -> dict[str, Any]:
    """Give a request with one tensor that is right but for the changes."""
    return {"inputs": [tensor(**changes)]}


# What both codecs refuse: the document, the reason and the message.
BOTH: list[tuple[Any, Reason, str]] = [
    (None, Reason.UNREADABLE, "a request is a map with inputs, not null"),
    ([], Reason.UNREADABLE, "a request is a map with inputs, not a list"),
    (7, Reason.UNREADABLE, "a request is a map with inputs, not an integer"),
    ({}, Reason.UNREADABLE, "inputs is a list of at least one tensor, not null"),
    ({"inputs": {}}, Reason.UNREADABLE, "inputs is a list of at least one tensor, not a map"),
    ({"inputs": []}, Reason.UNREADABLE, "inputs is a list of at least one tensor, not an empty list"),
    ({"id": 7, **one()}, Reason.UNREADABLE, "id is a string, not an integer"),
    ({"id": LONG, **one()}, Reason.TOO_LARGE, "id has 1025 characters, at most 1024 are taken"),
    ({"parameters": [], **one()}, Reason.UNREADABLE, "parameters is a map, not a list"),
    ({"inputs": ["x"]}, Reason.UNREADABLE, "inputs[0] is a map, not a string"),
    ({"inputs": [tensor(), 1.5]}, Reason.UNREADABLE, "inputs[1] is a map, not a float"),
    ({"inputs": [tensor(), tensor()]}, Reason.WRONG_INPUT, "inputs has two tensors of one name"),
    (
        {"inputs": [tensor(name=str(i)) for i in range(257)]},
        Reason.TOO_LARGE,
        "inputs has 257 tensors, at most 256 are taken",
    ),
    (one(name=True), Reason.UNREADABLE, "inputs[0].name is a string, not a boolean"),
    (one(name=LONG), Reason.TOO_LARGE, "inputs[0].name is longer than 1024 characters"),
    (one(datatype=None), Reason.UNREADABLE, "inputs[0].datatype is a string, not null"),
    (
        one(datatype="fp32"),
        Reason.WRONG_DATATYPE,
        f"inputs[0].datatype is none of {', '.join(DATATYPES)}",
    ),
    (one(shape=None), Reason.WRONG_SHAPE, "inputs[0].shape is a list of integers, not null"),
    (one(shape=2), Reason.WRONG_SHAPE, "inputs[0].shape is a list of integers, not an integer"),
    (one(shape=[2.0]), Reason.WRONG_SHAPE, "inputs[0].shape is a list of integers and has a float"),
    (one(shape=[True, 2]), Reason.WRONG_SHAPE, "inputs[0].shape is a list of integers and has a boolean"),
    (one(shape=[-2]), Reason.WRONG_SHAPE, "inputs[0].shape has a negative axis"),
    (one(shape=[-1, -2]), Reason.WRONG_SHAPE, "inputs[0].shape has a negative axis"),
    (one(shape=[-1, 0], data=[]), Reason.WRONG_SHAPE, "inputs[0].shape has a negative axis"),
    (one(shape=[1] * 33), Reason.TOO_LARGE, "inputs[0].shape has 33 axes, at most 32 are taken"),
    (one(shape=[2**63, 2**63]), Reason.WRONG_SHAPE, "inputs[0].shape has more elements than any record can hold"),
    (one(shape=[2**32] * 32), Reason.WRONG_SHAPE, "inputs[0].shape has more elements than any record can hold"),
    (one(shape=[2**62, 0], data=[]), Reason.WRONG_SHAPE, "inputs[0].shape has a huge axis beside one of length 0"),
    (one(data=None), Reason.UNREADABLE, "inputs[0].data is bytes or a list, not null"),
    (one(data="00"), Reason.UNREADABLE, "inputs[0].data is bytes or a list, not a string"),
    (one(data=[1]), Reason.WRONG_SIZE, "inputs[0].data has 1 elements, its shape says 2"),
    (one(shape=[0]), Reason.WRONG_SIZE, "inputs[0].data has 2 elements, its shape says 0"),
    (one(shape=[], data=[[1]]), Reason.WRONG_DATATYPE, "inputs[0].data of FP32 has a list"),
    (one(shape=[], data=[]), Reason.WRONG_SIZE, "inputs[0].data has 0 elements, its shape says 1"),
    (one(shape=[2, 1], data=[[1]]), Reason.WRONG_SIZE, "inputs[0].data has 1 lists, its shape says 2"),
    (
        one(shape=[2, 1], data=[[1], [1, 2]]),
        Reason.WRONG_SIZE,
        "inputs[0].data is not nested as its shape says along axis 1",
    ),
    (
        one(shape=[2, 1], data=[[1], 2]),
        Reason.WRONG_SIZE,
        "inputs[0].data is not nested as its shape says along axis 1",
    ),
    (
        one(shape=[2, 1], data=[[1], "a"]),
        Reason.WRONG_SIZE,
        "inputs[0].data is not nested as its shape says along axis 1",
    ),
    (
        one(shape=[1, 2, 1], data=[[1, 2]]),
        Reason.WRONG_SIZE,
        "inputs[0].data is not nested as its shape says along axis 2",
    ),
    (one(data=[[1], [2]]), Reason.WRONG_DATATYPE, "inputs[0].data of FP32 has a list"),
    (one(data=[1, True]), Reason.WRONG_DATATYPE, "inputs[0].data of FP32 has a boolean"),
    (one(data=[1, "2"]), Reason.WRONG_DATATYPE, "inputs[0].data of FP32 has a string"),
    (one(data=[1, None]), Reason.WRONG_DATATYPE, "inputs[0].data of FP32 has null"),
    (one(data=[1, {}]), Reason.WRONG_DATATYPE, "inputs[0].data of FP32 has a map"),
    (one(data=[1, 1e39]), Reason.WRONG_DATATYPE, "inputs[0].data has a number outside the range of FP32"),
    (
        one(datatype="FP16", data=[1, 65520]),
        Reason.WRONG_DATATYPE,
        "inputs[0].data has a number outside the range of FP16",
    ),
    (one(datatype="INT64", data=[1, 2.0]), Reason.WRONG_DATATYPE, "inputs[0].data of INT64 has a float"),
    (
        one(datatype="INT8", data=[1, 128]),
        Reason.WRONG_DATATYPE,
        "inputs[0].data has a number outside the range of INT8",
    ),
    (
        one(datatype="UINT8", data=[1, -1]),
        Reason.WRONG_DATATYPE,
        "inputs[0].data has a number outside the range of UINT8",
    ),
    (one(datatype="BF16", data=[1, 1.5]), Reason.WRONG_DATATYPE, "inputs[0].data of BF16 has a float"),
    (one(datatype="BOOL", data=[True, 1]), Reason.WRONG_DATATYPE, "inputs[0].data of BOOL has an integer"),
    (one(datatype="BYTES"), Reason.WRONG_DATATYPE, "inputs[0].data of BYTES has a float"),
    (one(datatype="BYTES", data=["a"]), Reason.WRONG_SIZE, "inputs[0].data has 1 elements, its shape says 2"),
]

# What only msgpack can say.
BINARY: list[tuple[Any, Reason, str]] = [
    (b"x", Reason.UNREADABLE, "a request is a map with inputs, not bytes"),
    (one(data=bytes(7)), Reason.WRONG_SIZE, "inputs[0].data has 7 bytes, 2 x FP32 take 8"),
    (one(data=bytes(9)), Reason.WRONG_SIZE, "inputs[0].data has 9 bytes, 2 x FP32 take 8"),
    (one(datatype="FP16", data=bytes(8)), Reason.WRONG_SIZE, "inputs[0].data has 8 bytes, 2 x FP16 take 4"),
    (
        one(shape=[2**30, 2**30], data=b""),
        Reason.WRONG_SHAPE,
        "inputs[0].shape has more elements than any record can hold",
    ),
    (one(shape=[65_537, 0], data=b""), Reason.WRONG_SHAPE, "inputs[0].shape has a huge axis beside one of length 0"),
    (
        one(datatype="BOOL", data=b"\1\2"),
        Reason.WRONG_DATATYPE,
        "inputs[0].data of BOOL has a byte that is neither 0 nor 1",
    ),
    (one(datatype="BYTES", data=b"ab"), Reason.UNREADABLE, "inputs[0].data is a list, not bytes"),
    (one(data=[1, b"2"]), Reason.WRONG_DATATYPE, "inputs[0].data of FP32 has bytes"),
    (
        one(shape=[2, 1], data=[[1], b"2"]),
        Reason.WRONG_SIZE,
        "inputs[0].data is not nested as its shape says along axis 1",
    ),
    (
        one(data=[1, msgpack.Timestamp(1)]),
        Reason.WRONG_DATATYPE,
        "inputs[0].data of FP32 has an extension type",
    ),
    (
        one(data=[1, msgpack.ExtType(7, b"")]),
        Reason.UNREADABLE,
        "the msgpack value has an extension type, which no record has",
    ),
    ({1: 2}, Reason.UNREADABLE, "a msgpack map has a key that is not a string"),
]


@pytest.mark.parametrize(("document", "reason", "message"), BOTH)
@pytest.mark.parametrize("content_type", CONTENT_TYPES)
def test_each_fault_has_its_own_message(content_type: str, document: Any, reason: Reason, message: str) -> None:
    """Both codecs refuse the same documents with the same words."""
    value = msgpack.packb(document) if content_type == MSGPACK else orjson.dumps(document)
    with pytest.raises(RecordError, match=f"^{re.escape(message)}$") as refused:
        decode_request(value, content_type)
    assert refused.value.reason is reason


@pytest.mark.parametrize(("document", "reason", "message"), BINARY)
def test_each_fault_of_binary_records_has_its_own_message(document: Any, reason: Reason, message: str) -> None:
    """Raw bytes, extension types and odd keys are refused with clear words."""
    with pytest.raises(RecordError, match=f"^{re.escape(message)}$") as refused:
        decode_request(msgpack.packb(document))
    assert refused.value.reason is reason


RIGHT = encode_request(Request("r", (Tensor.of("x", [0.5]),)))


@pytest.mark.parametrize(
    ("value", "content_type", "reason", "message"),
    [
        (b"", MSGPACK, Reason.UNREADABLE, "the msgpack value is truncated"),
        (RIGHT[:-1], MSGPACK, Reason.UNREADABLE, "the msgpack value is truncated"),
        (b"\xdf\xff\xff\xff\xff", MSGPACK, Reason.UNREADABLE, "the msgpack value is truncated"),
        (b"\xdd\xff\xff\xff\xff", MSGPACK, Reason.UNREADABLE, "the msgpack value is truncated"),
        (b"\xc6\xff\xff\xff\xff", MSGPACK, Reason.UNREADABLE, "the msgpack value is truncated"),
        (RIGHT + b"\xc0", MSGPACK, Reason.UNREADABLE, "bytes follow the msgpack map"),
        (b"\xc1", MSGPACK, Reason.UNREADABLE, "the value is not msgpack"),
        (b"\x81\xa1\xff\x01", MSGPACK, Reason.UNREADABLE, "a msgpack string is not UTF-8"),
        (b"\x91" * 2000, MSGPACK, Reason.TOO_LARGE, "the value is nested too deeply"),
        (
            b"\xd7\xff" + b"\xff" * 8,
            MSGPACK,
            Reason.UNREADABLE,
            "the msgpack value has an extension type, which no record has",
        ),
        (b"", JSON, Reason.UNREADABLE, "the value is not JSON: line 1 column 1"),
        (b'{"inputs":\n NaN}', JSON, Reason.UNREADABLE, "the value is not JSON: line 2 column 2"),
        (b'{"inputs": []} x', JSON, Reason.UNREADABLE, "the value is not JSON: line 1 column 16"),
        (b"[" * 2000 + b"]" * 2000, JSON, Reason.TOO_LARGE, "the value is nested too deeply"),
    ],
)
def test_bytes_that_are_no_document_are_told_apart(
    value: bytes, content_type: str, reason: Reason, message: str
) -> None:
    """Truncated, followed by something, foreign, not text, too deep: each has its words."""
    with pytest.raises(RecordError, match=f"^{re.escape(message)}$") as refused:
        decode_request(value, content_type)
    assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "a result is a map with outputs, not a list"),
        ({"outputs": []}, "model_name is a string, not null"),
        ({"model_name": "m", "model_version": 1}, "model_version is a string, not an integer"),
        ({"model_name": "m", "outputs": []}, "outputs is a list of at least one tensor, not an empty list"),
        ({"model_name": "m", "outputs": [1]}, "outputs[0] is a map, not an integer"),
    ],
)
@pytest.mark.parametrize("content_type", CONTENT_TYPES)
def test_a_subscriber_is_told_what_is_wrong_with_a_result(content_type: str, document: Any, message: str) -> None:
    """Results are checked like requests."""
    value = msgpack.packb(document) if content_type == MSGPACK else orjson.dumps(document)
    with pytest.raises(RecordError, match=f"^{re.escape(message)}$"):
        decode_result(value, content_type)


def test_limits_are_the_callers_to_set() -> None:
    """Every limit that is passed replaces its default."""
    request = {"id": "four", "inputs": [tensor(name="x"), tensor(name="yy", shape=[2, 1])]}
    value, text = msgpack.packb(request), orjson.dumps(request)
    decode_request(value, limits=Limits(tensors_max=2, rank_max=2, text_length_max=4))
    for limits in (Limits(tensors_max=1), Limits(rank_max=1), Limits(text_length_max=3)):
        with pytest.raises(RecordError) as refused:
            decode_request(value, limits=limits)
        assert refused.value.reason is Reason.TOO_LARGE
    decode_request(value, limits=Limits(size_max=len(value)))
    with pytest.raises(RecordError, match=f"a value of {len(value)} bytes, at most {len(value) - 1} are taken"):
        decode_request(value, limits=Limits(size_max=len(value) - 1))
    decode_request(text, JSON, Limits(json_size_max=len(text)))
    with pytest.raises(
        RecordError, match=f"a JSON value of {len(text)} bytes, at most {len(text) - 1} are taken: send"
    ):
        decode_request(text, JSON, Limits(json_size_max=len(text) - 1))


def test_large_values_are_counted() -> None:
    """Beyond 1 MiB the size and the number of lists and maps are limited, whatever they stand for."""
    large = msgpack.packb({"inputs": [tensor(shape=[2**18], data=bytes(2**20))]})
    (decoded,) = decode_request(large, limits=Limits(containers_max=4)).inputs
    assert decoded.shape == (2**18,)
    with pytest.raises(RecordError, match="more than 3 lists and maps"):
        decode_request(large, limits=Limits(containers_max=3))
    with pytest.raises(RecordError, match=f"a value of {len(large)} bytes, at most 1048576 are taken"):
        decode_request(large, limits=Limits(size_max=2**20))


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
def test_what_a_record_format_does_not_know_is_ignored(content_type: str) -> None:
    """Fields of other servers and of later versions do not make a record unreadable."""
    document = {
        "id": None,
        "outputs": [{"name": "y"}],
        "later": {"a": [None]},
        "parameters": None,
        "inputs": [{**tensor(), "parameters": {"content_type": "np"}, "later": 1}],
    }
    value = msgpack.packb(document) if content_type == MSGPACK else b" \n" + orjson.dumps(document) + b"\n\t "
    assert decode_request(value, content_type) == Request(None, (Tensor.of("x", [0.5, 1.0], "FP32"),))


def test_the_only_input_may_leave_its_name_out() -> None:
    """A tensor without a name is read with an empty one; the model decides."""
    (decoded,) = decode_request(msgpack.packb(one(name=None))).inputs
    assert decoded.name == ""


SECRET = "pass-word"


@UNHURRIED
@given(st.data())
def test_a_message_never_quotes_the_payload(data: st.DataObject) -> None:
    """Wherever a text stands in a record, the error that it causes does not repeat it."""
    leaves = st.sampled_from([SECRET, SECRET.encode(), [SECRET], {SECRET: SECRET}])
    document = {
        "id": data.draw(leaves | st.just("r")),
        "inputs": [
            tensor(
                name=data.draw(leaves | st.just("x")),
                datatype=data.draw(leaves | st.just("FP32")),
                shape=data.draw(leaves | st.just([2])),
                data=data.draw(leaves),
            )
        ],
        "parameters": data.draw(leaves),
    }
    with pytest.raises(RecordError) as refused:
        decode_request(msgpack.packb(document))
    assert SECRET not in str(refused.value)
    assert "\n" not in str(refused.value)
