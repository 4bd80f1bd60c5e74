"""The maps of Open Inference Protocol V2 in msgpack: data is written as raw bytes, and read raw, flat or nested."""

from typing import Any, Final

import msgpack

from schemas.errors import RecordError
from schemas.limits import DEFAULT_LIMITS, Limits
from schemas.reasons import Reason
from schemas.records import Request, Result
from schemas.structure import request_of, result_of
from schemas.tensors import Tensor

_SIZE_UNCOUNTED: Final = 1024 * 1024
"""Up to this size a value's lists and maps are not counted: there are no more of them than it has bytes."""


class MsgpackCodec:
    """Writes and reads `application/msgpack`."""

    content_type = "application/msgpack"

    def encode_request(self, request: Request) -> bytes:
        """Write a request."""
        document: dict[str, Any] = {} if request.id is None else {"id": request.id}
        document["inputs"] = [_entry(tensor) for tensor in request.inputs]
        if request.parameters:
            document["parameters"] = dict(request.parameters)
        return _dump(document)

    def decode_request(self, value: bytes | bytearray | memoryview, limits: Limits = DEFAULT_LIMITS) -> Request:
        """Read a request."""
        return request_of(_load(value, limits), limits)

    def encode_result(self, result: Result) -> bytes:
        """Write a result: the same five fields in the same order, whatever they hold."""
        return _dump(
            {
                "id": result.id,
                "model_name": result.model_name,
                "model_version": result.model_version,
                "outputs": [_entry(tensor) for tensor in result.outputs],
                "parameters": dict(result.parameters),
            }
        )

    def decode_result(self, value: bytes | bytearray | memoryview, limits: Limits = DEFAULT_LIMITS) -> Result:
        """Read a result."""
        return result_of(_load(value, limits), limits)


class _Counter:
    """Counts the lists and maps of a value while it is parsed."""

    __slots__ = ("_left",)

    def __init__(self, most: int) -> None:
        self._left = most

    def count(self, container: object) -> object:
        """Take one."""
        self._left -= 1
        if self._left < 0:
            raise _TooManyError
        return container


class _TooManyError(Exception):
    """A value has more lists and maps than allowed."""


def _no_extension(code: int, _content: bytes) -> object:
    """Refuse extension types; timestamps come through, and are no element, text or map either."""
    raise ValueError(f"extension type {code}")


def _load(value: bytes | bytearray | memoryview, limits: Limits) -> object:
    """Parse a value."""
    size, hook = len(value), None
    if size > limits.size_max:
        raise RecordError(Reason.TOO_LARGE, f"a value of {size} bytes, at most {limits.size_max} are taken")
    if size > _SIZE_UNCOUNTED:
        hook = _Counter(limits.containers_max).count
    try:
        return msgpack.unpackb(value, object_hook=hook, list_hook=hook, ext_hook=_no_extension)
    except msgpack.ExtraData:
        raise RecordError(Reason.UNREADABLE, "bytes follow the msgpack map") from None
    except _TooManyError:
        raise RecordError(
            Reason.TOO_LARGE,
            f"a large value with more than {limits.containers_max} lists and maps: send data as bytes or a flat list",
        ) from None
    except UnicodeDecodeError:
        raise RecordError(Reason.UNREADABLE, "a msgpack string is not UTF-8") from None
    except msgpack.StackError:
        raise RecordError(Reason.TOO_LARGE, "the value is nested too deeply") from None
    except msgpack.FormatError:
        raise RecordError(Reason.UNREADABLE, "the value is not msgpack") from None
    except ValueError as error:
        raise RecordError(Reason.UNREADABLE, _plain(error)) from None


def _plain(error: ValueError) -> str:
    """Say in our words what the parser refused (its messages may quote the value)."""
    text = str(error)
    if "map key" in text:
        return "a msgpack map has a key that is not a string"
    if "extension type" in text or "nanoseconds" in text:
        return "the msgpack value has an extension type, which no record has"
    return "the msgpack value is truncated"


def _dump(document: dict[str, Any]) -> bytes:
    """Write a document."""
    try:
        packed: bytes = msgpack.packb(document)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"a parameter is not msgpack: {error}") from None
    return packed


def _entry(tensor: Tensor) -> dict[str, Any]:
    """Give a tensor as msgpack has it."""
    tensor.check()
    name, datatype, shape, data = tensor
    return {"name": name, "datatype": datatype, "shape": shape, "data": data if isinstance(data, list) else data.data}
