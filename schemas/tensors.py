"""A named tensor as records carry it. Must not know how it is written."""

from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from schemas.datatypes import BYTES, DTYPES, datatype_of, dtype_of

TensorData: TypeAlias = NDArray[Any] | list[bytes]
"""An array of exactly the tensor's shape, or for BYTES the elements in row-major order."""


class Tensor(NamedTuple):  # noqa: PLW1641 - not hashable, as its elements are not
    """A named tensor: an input or an output of a model.

    The constructor takes what it gets; `Tensor.of` makes a tensor from any array, and encoders refuse one that
    contradicts itself. Two tensors are equal when name, datatype, shape and every bit of the elements are.
    """

    name: str
    """Empty where a record leaves it out, as the only input of a model may."""
    datatype: str
    """One of `schemas.datatypes.DATATYPES`."""
    shape: tuple[int, ...]
    data: TensorData
    """A C-contiguous array of `shape` and of the dtype in `schemas.datatypes.DTYPES`; for BYTES a flat list of bytes.
    Decoded arrays are read-only where they are views of the record's memory."""

    @classmethod
    def of(cls, name: str, array: ArrayLike, datatype: str | None = None) -> Self:
        """Make a tensor from an array or anything that numpy makes one of.

        Args:
            name: the tensor's name.
            array: numbers or booleans of any shape; or str and bytes, which make a BYTES tensor.
            datatype: what to store them as. By default the datatype of the array's own dtype. For BF16 the array holds
                the 16 bits as integers.

        Raises:
            ValueError: no datatype carries the array, or an element does not fit the asked one.
        """
        given = np.asarray(array)
        if datatype == BYTES or (datatype is None and given.dtype.kind in "SUO"):
            # Numpy's own fixed-width strings drop trailing NULs: elements are taken from Python objects.
            elements = np.asarray(array, dtype=object).reshape(-1).tolist()
            return cls(name, BYTES, given.shape, [_element(element) for element in elements])
        datatype = datatype_of(given.dtype) if datatype is None else datatype
        return cls(name, datatype, given.shape, np.require(_stored(given, datatype), requirements="C"))

    @property
    def nbytes(self) -> int:
        """Bytes of all elements together."""
        if isinstance(self.data, list):
            return sum(map(len, self.data))
        return self.data.nbytes

    def check(self) -> None:
        """See that datatype, shape and elements agree.

        Raises:
            ValueError: they do not; the message names the tensor.
        """
        data = self.data
        if isinstance(data, list):
            count = 1
            for length in self.shape:
                count *= length
            if self.datatype != BYTES or len(data) != count or not set(map(type, data)) <= {bytes}:
                raise ValueError(
                    f"tensor {self.name!r} of {self.datatype} {list(self.shape)} holds a list that is not "
                    f"{count} bytes objects of a BYTES tensor"
                )
        elif data.dtype != DTYPES.get(self.datatype) or data.shape != self.shape or not data.flags.c_contiguous:
            raise ValueError(
                f"tensor {self.name!r} of {self.datatype} {list(self.shape)} holds an array of {data.dtype} "
                f"{list(data.shape)}, or one that is not C-contiguous"
            )

    def __eq__(self, other: object) -> bool:
        """Compare names, datatypes, shapes and bits."""
        if not isinstance(other, Tensor):
            return NotImplemented
        return self[:3] == other[:3] and _bits(self.data) == _bits(other.data)

    def __ne__(self, other: object) -> bool:
        """Negate equality (a tuple brings its own)."""
        return not self == other


def _stored(given: NDArray[Any], datatype: str) -> NDArray[Any]:
    """Bring numbers into a datatype's dtype; only floats may be rounded."""
    dtype = dtype_of(datatype)
    if given.dtype == dtype:
        return given
    with np.errstate(all="ignore"):
        stored = given.astype(dtype) if given.dtype.kind in "biuf" else None
    if stored is not None:
        if dtype.kind == "f" and np.array_equal(np.isfinite(stored), np.isfinite(given)):
            return stored
        if (dtype.kind == "b") == (given.dtype.kind == "b") and np.array_equal(stored, given):
            return stored
    raise ValueError(f"an array of {given.dtype} holds what {datatype} cannot")


def _element(element: object) -> bytes:
    """Take one element of a BYTES tensor."""
    if isinstance(element, bytes):
        return element
    if isinstance(element, str):
        return element.encode()
    raise ValueError(f"a BYTES tensor holds str or bytes, not {type(element).__name__}")


def _bits(data: TensorData) -> list[bytes] | bytes:
    """Give something that compares by bits."""
    return data if isinstance(data, list) else data.tobytes()
