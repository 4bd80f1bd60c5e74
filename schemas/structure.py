"""From a parsed document to a request or a result: everything about the record format but its bytes.

Owns the checks that both codecs share. The documents come from strangers: whatever they hold, nothing but
`RecordError` leaves this module, and nothing here allocates by a number that a document declares.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from schemas.datatypes import BOOL, BYTES, DATATYPES, DTYPES
from schemas.errors import RecordError
from schemas.limits import Limits
from schemas.reasons import Reason
from schemas.records import NO_PARAMETERS, Request, Result
from schemas.tensors import Tensor

_COUNT_MAX: Final = 2**40
"""More elements than any record can hold."""

_KINDS: Final[Mapping[type, str]] = {
    bool: "a boolean",
    bytes: "bytes",
    dict: "a map",
    float: "a float",
    int: "an integer",
    list: "a list",
    str: "a string",
    type(None): "null",
}
_PYTHON_TYPES: Final[Mapping[str, tuple[type, frozenset[type]]]] = {
    "b": (bool, frozenset({bool})),
    "u": (int, frozenset({int})),
    "i": (int, frozenset({int})),
    "f": (float, frozenset({int, float})),
}
"""What usually stands in a list, and what may, by the kind of the dtype: nothing is cast but integers to floats."""

_FORMATS: Final[Mapping[str, str]] = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
    "BF16": "H",
}
"""The datatypes in the letters of `struct`."""

_RANGES: Final[Mapping[str, tuple[float, float]]] = {
    name: (float(np.finfo(dtype).min), float(np.finfo(dtype).max))
    if dtype.kind == "f"
    else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    for name, dtype in DTYPES.items()
    if dtype.kind != "b"
}
"""The least and the largest number of each."""

_Place: TypeAlias = tuple[str, int]
"""The field and the index of a tensor in it."""

_ndarray: Final = np.ndarray
_tuple_new: Final = tuple.__new__
"""Makes a named tuple in half the time of its constructor, which matters once per record and tensor."""


def request_of(document: object, limits: Limits) -> Request:
    """Read a request from a parsed document.

    Raises:
        RecordError: it is none.
    """
    if type(document) is not dict:
        raise RecordError(Reason.UNREADABLE, f"a request is a map with inputs, not {_kind(document)}")
    return _tuple_new(
        Request,
        (
            _text(document, "id", limits, is_required=False),
            _tensors(document, "inputs", limits),
            _parameters(document),
        ),
    )


def result_of(document: object, limits: Limits) -> Result:
    """Read a result from a parsed document.

    Raises:
        RecordError: it is none.
    """
    if type(document) is not dict:
        raise RecordError(Reason.UNREADABLE, f"a result is a map with outputs, not {_kind(document)}")
    return Result(
        _text(document, "id", limits, is_required=False),
        _text(document, "model_name", limits, is_required=True) or "",
        _text(document, "model_version", limits, is_required=False),
        _tensors(document, "outputs", limits),
        _parameters(document),
    )


def _text(document: Mapping[str, Any], field: str, limits: Limits, *, is_required: bool) -> str | None:
    """Read a short text of the document."""
    text = document.get(field)
    if text is None and not is_required:
        return None
    if type(text) is not str:
        raise RecordError(Reason.UNREADABLE, f"{field} is a string, not {_kind(text)}")
    if len(text) > limits.text_length_max:
        raise RecordError(
            Reason.TOO_LARGE, f"{field} has {len(text)} characters, at most {limits.text_length_max} are taken"
        )
    return text


def _parameters(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Read the parameters, whatever they are called."""
    parameters = document.get("parameters")
    if parameters is None:
        return NO_PARAMETERS
    if type(parameters) is not dict:
        raise RecordError(Reason.UNREADABLE, f"parameters is a map, not {_kind(parameters)}")
    return parameters


def _tensors(document: Mapping[str, Any], field: str, limits: Limits) -> tuple[Tensor, ...]:
    """Read the tensors of a request or a result."""
    entries = document.get(field)
    if type(entries) is not list or not entries:
        found = "an empty list" if entries == [] else _kind(entries)
        raise RecordError(Reason.UNREADABLE, f"{field} is a list of at least one tensor, not {found}")
    if len(entries) == 1:
        return (_tensor(entries[0], (field, 0), limits),)
    if len(entries) > limits.tensors_max:
        raise RecordError(
            Reason.TOO_LARGE, f"{field} has {len(entries)} tensors, at most {limits.tensors_max} are taken"
        )
    tensors = tuple(_tensor(entry, (field, index), limits) for index, entry in enumerate(entries))
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise RecordError(Reason.WRONG_INPUT, f"{field} has two tensors of one name")
    return tensors


def _tensor(entry: object, where: _Place, limits: Limits) -> Tensor:
    """Read one tensor."""
    if type(entry) is not dict:
        raise _refusal(Reason.UNREADABLE, where, f" is a map, not {_kind(entry)}")
    name, datatype, shape, values = entry.get("name", ""), entry.get("datatype"), entry.get("shape"), entry.get("data")
    if type(name) is not str:
        raise _refusal(Reason.UNREADABLE, where, f".name is a string, not {_kind(name)}")
    if len(name) > limits.text_length_max:
        raise _refusal(Reason.TOO_LARGE, where, f".name is longer than {limits.text_length_max} characters")
    if type(datatype) is not str:
        raise _refusal(Reason.UNREADABLE, where, f".datatype is a string, not {_kind(datatype)}")
    if type(shape) is not list:
        raise _refusal(Reason.WRONG_SHAPE, where, f".shape is a list of integers, not {_kind(shape)}")
    count = _count(shape, where, limits)
    elements: NDArray[Any] | list[bytes]
    if datatype == BYTES:
        elements = _strings(_flat(values, shape, count, where), where)
    elif datatype not in DTYPES:
        raise _refusal(Reason.WRONG_DATATYPE, where, f".datatype is none of {', '.join(DATATYPES)}")
    elif type(values) is bytes:
        elements = _raw(values, datatype, shape, count, where)
    elif type(values) is _ndarray:
        elements = _cast(values, datatype, count, where).reshape(shape)
    else:
        elements = _numbers(_flat(values, shape, count, where), datatype, where).reshape(shape)
    return _tuple_new(Tensor, (name, datatype, tuple(shape), elements))


def _raw(values: bytes, datatype: str, shape: list[int], count: int, where: _Place) -> NDArray[Any]:
    """View raw bytes as an array."""
    dtype = DTYPES[datatype]
    if len(values) != count * dtype.itemsize:
        size = count * dtype.itemsize
        raise _refusal(Reason.WRONG_SIZE, where, f".data has {len(values)} bytes, {count} x {datatype} take {size}")
    array: NDArray[Any] = _ndarray(shape, dtype, values)
    if datatype == BOOL and count and array.view(np.uint8).max() > 1:
        raise _refusal(Reason.WRONG_DATATYPE, where, ".data of BOOL has a byte that is neither 0 nor 1")
    return array


def _count(shape: list[Any], where: _Place, limits: Limits) -> int:
    """Check a shape and count its elements."""
    if len(shape) > limits.rank_max:
        raise _refusal(Reason.TOO_LARGE, where, f".shape has {len(shape)} axes, at most {limits.rank_max} are taken")
    count = 1
    for length in shape:
        if type(length) is not int:
            raise _refusal(Reason.WRONG_SHAPE, where, f".shape is a list of integers and has {_kind(length)}")
        if length < 0:
            raise _refusal(Reason.WRONG_SHAPE, where, ".shape has a negative axis")
        count *= length
    if count == 0:
        rows = math.prod(length for length in shape if length)
        if rows > limits.empty_rows_max:
            raise _refusal(Reason.WRONG_SHAPE, where, ".shape has a huge axis beside one of length 0")
    elif count > _COUNT_MAX:
        raise _refusal(Reason.WRONG_SHAPE, where, ".shape has more elements than any record can hold")
    return count


def _flat(values: object, shape: Sequence[int], count: int, where: _Place) -> list[Any]:
    """Flatten listed elements: either they are flat already, or they are nested exactly as the shape says."""
    if type(values) is not list:
        allowed = "a list" if type(values) is bytes else "bytes or a list"
        raise _refusal(Reason.UNREADABLE, where, f".data is {allowed}, not {_kind(values)}")
    level: list[Any] = values
    if len(shape) > 1 and level and type(level[0]) is list:
        if len(level) != shape[0]:
            raise _refusal(Reason.WRONG_SIZE, where, f".data has {len(level)} lists, its shape says {shape[0]}")
        for axis, length in enumerate(shape[1:], start=1):
            if set(map(type, level)) != {list} or set(map(len, level)) != {length}:
                raise _refusal(Reason.WRONG_SIZE, where, f".data is not nested as its shape says along axis {axis}")
            level = list(chain.from_iterable(level))
            if not level:
                break
    if len(level) != count:
        raise _wrong_count(len(level), count, where)
    return level


def _strings(elements: list[Any], where: _Place) -> list[bytes]:
    """Read the elements of a BYTES tensor."""
    kinds = set(map(type, elements))
    if kinds <= {bytes}:
        return elements
    if kinds <= {bytes, str}:
        return [element.encode() if type(element) is str else element for element in elements]
    raise _wrong_element(kinds - {bytes, str}, BYTES, where)


def _numbers(elements: list[Any], datatype: str, where: _Place) -> NDArray[Any]:
    """Read listed elements of a datatype of fixed size."""
    dtype = DTYPES[datatype]
    common, allowed = _PYTHON_TYPES[dtype.kind]
    kinds = list(map(type, elements))
    if kinds.count(common) != len(kinds) and not allowed.issuperset(kinds):
        raise _wrong_element(set(kinds) - allowed, datatype, where)
    try:
        # Takes a third of the time of numpy's own way from a list, and rounds and refuses as numpy does not.
        packed = struct.pack(f"<{len(elements)}{_FORMATS[datatype]}", *elements)
    except (struct.error, OverflowError):
        raise _out_of_range(datatype, where) from None
    return np.frombuffer(packed, dtype)


def _cast(numbers: NDArray[Any], datatype: str, count: int, where: _Place) -> NDArray[Any]:
    """Bring listed numbers that were read into an array into their datatype, as `_numbers` does."""
    if len(numbers) != count:
        raise _wrong_count(len(numbers), count, where)
    dtype = DTYPES[datatype]
    if numbers.dtype == dtype or not count:
        return numbers.astype(dtype, copy=False)
    low, high = _RANGES[datatype]
    with np.errstate(over="ignore"):
        cast = numbers.astype(dtype)
        # No float is larger than the root of the sum of all squares, which is had sooner than both extremes.
        if dtype.kind == "f":
            fits = numbers @ numbers <= high * high or np.isfinite(cast).all()
        else:
            fits = low <= numbers.min() and numbers.max() <= high
    if not fits:
        raise _out_of_range(datatype, where)
    return cast


def _wrong_count(found: int, count: int, where: _Place) -> RecordError:
    """Say that there are too few or too many elements."""
    return _refusal(Reason.WRONG_SIZE, where, f".data has {found} elements, its shape says {count}")


def _out_of_range(datatype: str, where: _Place) -> RecordError:
    """Say that a number is too large."""
    return _refusal(Reason.WRONG_DATATYPE, where, f".data has a number outside the range of {datatype}")


def _wrong_element(kinds: set[type], datatype: str, where: _Place) -> RecordError:
    """Say which kind of element does not belong."""
    samples = {kind: _KINDS.get(kind, "an extension type") for kind in kinds}
    return _refusal(Reason.WRONG_DATATYPE, where, f".data of {datatype} has {min(samples.values())}")


def _refusal(reason: Reason, where: _Place, message: str) -> RecordError:
    """Say what is wrong with one tensor."""
    field, index = where
    return RecordError(reason, f"{field}[{index}]{message}")


def _kind(value: object) -> str:
    """Name a parsed value's type in the words of the formats."""
    return _KINDS.get(type(value), "an extension type")
