"""The JSON of the Open Inference Protocol V2: data is written flat, and read flat or nested."""

from typing import Any

import numpy as np
import orjson

from schemas.errors import RecordError
from schemas.limits import DEFAULT_LIMITS, Limits
from schemas.plain_json import read_plain
from schemas.reasons import Reason
from schemas.records import Request, Result
from schemas.structure import request_of, result_of
from schemas.tensors import Tensor


class JsonCodec:
    """Writes and reads `application/json`."""

    content_type = "application/json"

    def encode_request(self, request: Request) -> bytes:
        """Write a request; NaN and infinity are refused as `not-finite`."""
        document: dict[str, Any] = {} if request.id is None else {"id": request.id}
        document["inputs"] = [
            _entry(tensor, f"inputs[{index}]", Reason.NOT_FINITE, Reason.WRONG_DATATYPE)
            for index, tensor in enumerate(request.inputs)
        ]
        if request.parameters:
            document["parameters"] = dict(request.parameters)
        return _dump(document)

    def decode_request(self, value: bytes | bytearray | memoryview, limits: Limits = DEFAULT_LIMITS) -> Request:
        """Read a request."""
        return request_of(_load(value, "inputs", limits), limits)

    def encode_result(self, result: Result) -> bytes:
        """Write a result; NaN, infinity and byte strings that are not UTF-8 are refused as `unencodable-output`."""
        document: dict[str, Any] = {} if result.id is None else {"id": result.id}
        document["model_name"] = result.model_name
        if result.model_version is not None:
            document["model_version"] = result.model_version
        unencodable = Reason.UNENCODABLE_OUTPUT
        document["outputs"] = [
            _entry(tensor, f"outputs[{index}]", unencodable, unencodable) for index, tensor in enumerate(result.outputs)
        ]
        if result.parameters:
            document["parameters"] = dict(result.parameters)
        return _dump(document)

    def decode_result(self, value: bytes | bytearray | memoryview, limits: Limits = DEFAULT_LIMITS) -> Result:
        """Read a result."""
        return result_of(_load(value, "outputs", limits), limits)


def _load(value: bytes | bytearray | memoryview, field: str, limits: Limits) -> object:
    """Parse a value."""
    if len(value) > limits.json_size_max:
        raise RecordError(
            Reason.TOO_LARGE,
            f"a JSON value of {len(value)} bytes, at most {limits.json_size_max} are taken: send msgpack",
        )
    plain = read_plain(value, field)
    if plain is not None:
        return plain
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        if "depth" in error.msg or "recursion" in error.msg:
            raise RecordError(Reason.TOO_LARGE, "the value is nested too deeply") from None
        raise RecordError(
            Reason.UNREADABLE, f"the value is not JSON: line {error.lineno} column {error.colno}"
        ) from None


def _dump(document: dict[str, Any]) -> bytes:
    """Write a document."""
    try:
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError as error:
        raise ValueError(f"a name, an id or a parameter is not JSON: {error}") from None


def _entry(tensor: Tensor, where: str, not_finite: Reason, not_text: Reason) -> dict[str, Any]:
    """Give a tensor as JSON has it."""
    tensor.check()
    data: Any = tensor.data
    if isinstance(data, list):
        try:
            data = [element.decode() for element in data]
        except UnicodeDecodeError:
            raise RecordError(not_text, f"{where} has bytes that are not UTF-8, which JSON cannot carry") from None
    else:
        if data.dtype.kind == "f" and not np.isfinite(data).all():
            raise RecordError(not_finite, f"{where} has NaN or infinity, which JSON cannot carry")
        data = data.reshape(-1)
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape, "data": data}
