"""The bytes of records do not change, and are what other implementations write and read."""

from pathlib import Path

import msgpack
import numpy as np
import orjson
import pytest

from schemas import JSON, Request, Result, Tensor, decode_request, decode_result, encode_request, encode_result
from tests.schemas.examples import GOLDEN, REQUESTS, RESULTS, encoded

CASES = {path.name: (path, content_type, record, value) for path, content_type, record, value in encoded()}


@pytest.mark.parametrize("name", CASES)
def test_the_bytes_are_fixed(name: str) -> None:
    """Today's encoder writes what stands in the file."""
    path, _, _, value = CASES[name]
    assert value == path.read_bytes()


@pytest.mark.parametrize("name", CASES)
def test_yesterdays_bytes_are_read(name: str) -> None:
    """Today's decoder reads what stands in the file."""
    path, content_type, record, _ = CASES[name]
    decode = decode_request if isinstance(record, Request) else decode_result
    assert decode(path.read_bytes(), content_type) == record


def test_every_file_is_used() -> None:
    """No golden file is left without its record."""
    assert sorted(path.name for path in GOLDEN.iterdir()) == sorted(CASES)


def test_msgpack_is_what_the_contract_says() -> None:
    """Any msgpack library reads the map, and `data` is little-endian, row-major bytes."""
    (path, _, _, _) = CASES["request.msgpack"]
    assert msgpack.unpackb(path.read_bytes()) == {
        "id": "r-1",
        "inputs": [
            {
                "name": "input",
                "datatype": "FP32",
                "shape": [2, 2],
                "data": bytes.fromhex("0000003f 0000803f 0000c0bf 00000040"),
            }
        ],
    }


def test_a_request_of_a_few_bytes_by_hand() -> None:
    """A request written byte by byte, as a client without a library would."""
    value = (
        b"\x82"  # map of 2
        b"\xa2id\xa1a"
        b"\xa6inputs\x91"  # array of 1
        b"\x84"  # map of 4
        b"\xa4name\xa1x"
        b"\xa8datatype\xa5INT16"
        b"\xa5shape\x91\x02"
        b"\xa4data\xc4\x04\x01\x00\xff\xff"  # bin of 4
    )
    request = Request("a", (Tensor("x", "INT16", (2,), np.array([1, -1], "<i2")),))
    assert encode_request(request) == value
    assert decode_request(value) == request


def test_json_is_what_the_protocol_says() -> None:
    """The V2 request and response, with flat data and 32-bit floats in their shortest form."""
    assert encode_request(REQUESTS["request"], JSON) == (
        b'{"id":"r-1","inputs":[{"name":"input","datatype":"FP32","shape":[2,2],"data":[0.5,1.0,-1.5,2.0]}]}'
    )
    assert encode_result(RESULTS["result"], JSON) == (
        b'{"id":"r-1","model_name":"fraud","model_version":"3f9a1c20",'
        b'"outputs":[{"name":"output","datatype":"FP32","shape":[2,1],"data":[0.25,0.75]}],'
        b'"parameters":{"source_topic":"requests","source_partition":3,"source_offset":1041,'
        b'"batch_rows":64,"queue_ms":2.125,"infer_ms":0.5}}'
    )
    tenth = Result("r", "m", "1", (Tensor.of("y", [0.1], "FP32"),))
    assert orjson.loads(encode_result(tenth, JSON))["outputs"][0]["data"] == [0.1]
    assert b'"id"' not in encode_request(Request(None, (Tensor.of("x", [1]),)), JSON)
    assert b'"id"' not in encode_result(Result(None, "m", "1", (Tensor.of("x", [1]),)), JSON)


@pytest.mark.parametrize(
    "document",
    [
        {  # as client libraries of the V2 protocol write it: nested data, parameters everywhere, outputs asked for
            "id": "42",
            "parameters": {"content_type": "np", "headers": {"x": "y"}},
            "inputs": [
                {
                    "name": "words",
                    "shape": [2, 1],
                    "datatype": "BYTES",
                    "data": [["hello"], ["wörld"]],
                    "parameters": {"content_type": "str"},
                },
                {"name": "flags", "shape": [2], "datatype": "BOOL", "data": [True, False]},
                {"name": "ids", "shape": [1, 3], "datatype": "UINT64", "data": [[1, 2, 18446744073709551615]]},
                {"name": "points", "shape": [1, 2, 2], "datatype": "FP64", "data": [[[1, 2.5], [-3, 4e-3]]]},
            ],
            "outputs": [{"name": "y", "parameters": {"binary_data": False}}],
        }
    ],
)
def test_requests_of_other_clients_are_read(document: dict[str, object]) -> None:
    """What MLServer's, Triton's and KServe's clients write in JSON is understood as it is."""
    request = decode_request(orjson.dumps(document, option=orjson.OPT_INDENT_2), JSON)
    assert request.id == "42"
    assert request.inputs == (
        Tensor.of("words", [["hello"], ["wörld"]]),
        Tensor.of("flags", [True, False]),
        Tensor.of("ids", np.array([[1, 2, 18446744073709551615]], "u8")),
        Tensor.of("points", [[[1, 2.5], [-3, 4e-3]]], "FP64"),
    )


def test_golden_json_ends_without_a_newline() -> None:
    """The files hold values, not text files: an editor that mends them breaks them."""
    assert not any(Path(path).read_bytes().endswith(b"\n") for path in GOLDEN.glob("*.json"))
