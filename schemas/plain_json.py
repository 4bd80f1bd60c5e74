"""The quick way to read JSON that is plain: scalars, and for each tensor one flat list of numbers.

Owns which values are plain, and their parsing: a list of numbers becomes an array without an object for each number.
Must not know requests from results, and refuses nothing: what is not plain is read the ordinary way (`json_codec`),
which also has the words for what is wrong with it. Where the parser is not installed nothing is plain.

Theory of operation. Both ways have to read the same from a value, and the two parsers disagree on little: how deep a
value may be, which of two fields of one name counts, whether a byte order mark may come first, integers of more than 64
bits. So a plain value has no containers but those that its tensors and parameters need, which the count of its brackets
proves; that also rules nested lists out, whose elements the parser would run together.
"""

import threading
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

import numpy as np

from schemas.datatypes import DTYPES

try:
    simdjson: Any = import_module("simdjson")
except ImportError:  # no wheel for this platform
    simdjson = None

SIZE_MAX: Final = 256 * 1024
"""Bytes of a value that is read so: the parser keeps several times the size of the largest one."""

_READ_AS: Final[Mapping[str, tuple[str, type[np.generic]]]] = {
    "f": ("d", np.float64),
    "i": ("i", np.int64),
    "u": ("u", np.uint64),
}
"""What a list is read as, by the kind of its tensor's dtype: the parser's letter, and numpy's type."""


class _Parsers(threading.local):
    """A parser for each thread."""

    def __init__(self) -> None:
        self.parser = simdjson.Parser()


_parsers: Final = None if simdjson is None else _Parsers()


def read_plain(value: bytes | bytearray | memoryview, field: str) -> dict[str, Any] | None:
    """Parse a value.

    Args:
        value: JSON, or anything else.
        field: What the list of tensors is called: `inputs` or `outputs`.

    Returns:
        The document as the ordinary way reads it, but arrays of float64, int64 or uint64 for the lists in `data`; None
        where it is not plain.
    """
    if _parsers is None or len(value) > SIZE_MAX:
        return None
    octets = bytes(value)
    if not octets.startswith(b"{"):
        return None
    try:
        return _document(_parsers.parser.parse(octets), octets, field)
    except (ValueError, TypeError, RuntimeError):
        return None


def _document(parsed: Any, octets: bytes, field: str) -> dict[str, Any] | None:
    """Read a parsed value; None where it has more brackets than its tensors and parameters."""
    document = _fields(parsed)
    entries: Any = document.get(field)
    if type(entries) is not simdjson.Array:
        return None
    tensors = [_tensor(_fields(entry)) for entry in entries]
    maps = 1 + len(tensors) + sum(type(each.get("parameters")) is dict for each in (document, *tensors))
    if not (_has(octets, b"[", 1 + 2 * len(tensors)) and _has(octets, b"{", maps)):
        return None
    document[field] = tensors
    return document


def _has(octets: bytes, bracket: bytes, count: int) -> bool:
    """Tell whether a bracket is there so often; ten times as fast as `bytes.count` where that is seldom."""
    at = -1
    for _ in range(count):
        at = octets.find(bracket, at + 1)
        if at < 0:
            return False
    return octets.find(bracket, at + 1) < 0


def _fields(parsed: Any) -> dict[str, Any]:
    """Read an object's fields, and those of its parameters.

    Raises:
        ValueError: One is there twice, or has a NUL in its name, at which the parser ends it.
        TypeError: It is no object.
    """
    if type(parsed) is not simdjson.Object:
        raise TypeError("no object")
    names = list(parsed)
    if len(set(names)) < len(names) or "\0" in "".join(names):
        raise ValueError("a field that cannot be told from another")
    fields: dict[str, Any] = {name: parsed[name] for name in names}
    if type(parameters := fields.get("parameters")) is simdjson.Object:
        fields["parameters"] = _fields(parameters)
    return fields


def _tensor(tensor: dict[str, Any]) -> dict[str, Any]:
    """Read a tensor's lists.

    Raises:
        ValueError: It is none of numbers, or one is out of range.
        TypeError: A list is something else, or holds something else.
    """
    dtype = DTYPES.get(datatype) if type(datatype := tensor.get("datatype")) is str else None
    if dtype is None or dtype.kind not in _READ_AS:
        raise ValueError("no datatype of numbers")
    letter, kind = _READ_AS[dtype.kind]
    shape: Any = tensor.get("shape")
    data: Any = tensor.get("data")
    if type(shape) is not simdjson.Array or type(data) is not simdjson.Array:
        raise TypeError("no list")
    tensor["shape"] = shape.as_list()
    tensor["data"] = np.frombuffer(data.as_buffer(of_type=letter), kind)
    return tensor
