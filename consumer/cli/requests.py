"""Requests out of what people have at hand: JSON on the command line, JSON lines, a .npy file.

Owns the guess of names and datatypes. Must not know where requests go.

A JSON value is one of three: an Open Inference Protocol V2 request (`{"inputs": [...]}`), the model's inputs by name
(`{"ids": [1, 2], "mask": [1, 1]}`), or one input's elements alone (`[0.5, 1.5]`). Datatypes that the value does not
tell come from the model's configured inputs, else from the elements: text is BYTES, whole numbers are INT64, others
FP32.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from consumer.errors import ConsumerError
from consumer.models.signature import TensorSpec
from schemas.codecs import JSON, decode_request
from schemas.datatypes import BYTES
from schemas.errors import RecordError
from schemas.records import Request
from schemas.tensors import Tensor


class RequestError(ConsumerError):
    """What was given makes no request."""

    reason = "unreadable"


class Maker:
    """Makes the requests of one model.

    Args:
        specs: The model's configured inputs, as far as there are any.
        datatype: The datatype of everything, where it is told.
    """

    def __init__(self, specs: Sequence[TensorSpec], datatype: str | None = None) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._datatype = datatype

    def of_json(self, text: bytes, where: str) -> Request:
        """Make a request of a JSON value; `where` begins the line of an error.

        Raises:
            RequestError: It is no JSON, or no request.
        """
        try:
            value = orjson.loads(text)
            if isinstance(value, Mapping) and "inputs" in value:
                return decode_request(text, JSON)
            named = value if isinstance(value, Mapping) else {self._only(): value}
            return Request(None, tuple(self._tensor(name, each) for name, each in named.items()))
        except orjson.JSONDecodeError as error:
            raise RequestError(f"{where}: not valid JSON: {error}") from None
        except (RecordError, ValueError) as error:
            raise RequestError(f"{where}: {error}") from None

    def of_lines(self, lines: Iterable[bytes], where: str) -> Iterator[Request]:
        """Make a request of every line that is not empty.

        Raises:
            RequestError: At the first line that is no request, with its number.
        """
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield self.of_json(line, f"{where}:{number}")

    def of_file(self, path: Path) -> Iterator[Request]:
        """Make a request of every line of a JSON-lines file, or of every item along axis 0 of a .npy file.

        Raises:
            RequestError: The file cannot be read, or holds what is no request.
        """
        try:
            if path.suffix == ".npy":
                yield from self._of_array(np.load(path, mmap_mode="r", allow_pickle=False), path)
            else:
                with path.open("rb") as lines:
                    yield from self.of_lines(lines, str(path))
        except OSError as error:
            raise RequestError(f"{path}: cannot be read: {error.strerror or error}") from None
        except ValueError as error:
            raise RequestError(f"{path}: no array: {error}") from None

    def _of_array(self, array: Any, path: Path) -> Iterator[Request]:
        if array.ndim == 0:
            raise RequestError(f"{path}: a single number: each item along the first axis is one record")
        name = self._only()
        datatype = self._datatype_of(name)
        for item in array:
            yield Request(None, (Tensor.of(name, item, datatype),))

    def _only(self) -> str:
        """Name the one input; left out where the configuration does not tell, which the model then understands."""
        if len(self._specs) > 1:
            raise RequestError(f"the model has the inputs {', '.join(self._specs)}: give a JSON object with these keys")
        return next(iter(self._specs), "")

    def _datatype_of(self, name: str) -> str | None:
        spec = self._specs.get(name)
        return self._datatype or (None if spec is None else spec.datatype)

    def _tensor(self, name: str, value: Any) -> Tensor:
        datatype = self._datatype_of(name)
        if datatype is None:
            array = np.asarray(value)  # a ragged list is a ValueError here
            datatype = {"f": "FP32", "U": BYTES}.get(array.dtype.kind)
        return Tensor.of(name, value, datatype)
