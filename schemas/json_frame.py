"""Many results as JSON: one of them cut where the others differ, and their numbers written at once.

Owns the order of a result's fields for the sake of cutting it, and proves it against the codec, whose bytes these have
to be. Must not know which results differ in nothing else.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from schemas.json_codec import JsonCodec
from schemas.records import SOURCE_OFFSET, Result
from schemas.tensors import Tensor


class JsonFrame:
    """A result's JSON without its id, the elements of its outputs, and the offset of its source."""

    def __init__(self, result: Result) -> None:
        """Cut a result.

        Raises:
            ValueError: It is none that a frame writes as the codec does: it has no id or no offset, no outputs, or
                elements that are no numbers.
            TypeError: A name or an id is not JSON.
            RecordError: The codec refuses it.
        """
        *before, last = _pieces(result)
        self._between = before
        head, found, tail = last.partition(_OFFSET)
        self._last, self._tail = head + found, tail[tail.find(b",") :]
        elements = [_elements(tensor) for tensor in result.outputs]
        offset = result.parameters.get(SOURCE_OFFSET)
        if self.write(str(result.id), elements, str(offset).encode()) != JsonCodec().encode_result(result):
            raise ValueError("a result that no frame can be made of")

    def write(self, identity: str, elements: Sequence[bytes], offset: bytes) -> bytes:
        """Write a result.

        Args:
            identity: Its id.
            elements: Of each output, as `texts` writes them.
            offset: Of its source, in decimal.

        Raises:
            TypeError: The id is not JSON.
        """
        parts = [b'{"id":', orjson.dumps(identity)]
        for piece, each in zip(self._between, elements, strict=True):
            parts += piece, each
        parts += self._last, offset, self._tail
        return b"".join(parts)


_OFFSET = b'"%s":' % SOURCE_OFFSET.encode()


def texts(table: npt.NDArray[Any]) -> list[bytes] | None:
    """Write the elements of many tensors: numbers, one tensor a row; None where JSON cannot carry one."""
    if table.dtype.kind == "f" and not np.isfinite(table).all():
        return None
    return orjson.dumps(np.ascontiguousarray(table), option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(b"],[")


def _elements(tensor: Tensor) -> bytes:
    """Write the elements of one tensor."""
    written = None if isinstance(tensor.data, list) else texts(tensor.data.reshape(1, -1))
    if written is None:
        raise ValueError("texts, or what JSON cannot carry, have no frame")
    return written[0]


def _pieces(result: Result) -> Iterator[bytes]:
    """Write what is before the elements of each output, and what is behind the last ones."""
    piece = b',"model_name":' + orjson.dumps(result.model_name)
    if result.model_version is not None:
        piece += b',"model_version":' + orjson.dumps(result.model_version)
    piece += b',"outputs":['
    for tensor in result.outputs:
        entry = orjson.dumps({"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape})
        yield piece + entry[:-1] + b',"data":['
        piece = b"]},"
    yield b']}],"parameters":' + orjson.dumps(dict(result.parameters)) + b"}"
