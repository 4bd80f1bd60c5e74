"""The datatypes of the Open Inference Protocol V2 and the numpy dtypes that carry them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np

BOOL: Final = "BOOL"
"""One byte, 0 or 1."""

BYTES: Final = "BYTES"
"""Elements that are byte strings of any length; text is UTF-8."""

BF16: Final = "BF16"
"""bfloat16. Numpy has no such type: its 16 bits travel as `uint16`."""

DTYPES: Final[Mapping[str, np.dtype[Any]]] = MappingProxyType(
    {
        BOOL: np.dtype("?"),
        "UINT8": np.dtype("u1"),
        "UINT16": np.dtype("<u2"),
        "UINT32": np.dtype("<u4"),
        "UINT64": np.dtype("<u8"),
        "INT8": np.dtype("i1"),
        "INT16": np.dtype("<i2"),
        "INT32": np.dtype("<i4"),
        "INT64": np.dtype("<i8"),
        "FP16": np.dtype("<f2"),
        "FP32": np.dtype("<f4"),
        "FP64": np.dtype("<f8"),
        BF16: np.dtype("<u2"),
    }
)
"""Every datatype of fixed size and its dtype, little-endian as on the wire. BYTES is not among them."""

DATATYPES: Final = (*DTYPES, BYTES)
"""Every datatype."""

_DATATYPES_BY_DTYPE: Final = {dtype: datatype for datatype, dtype in DTYPES.items() if datatype != BF16}


def dtype_of(datatype: str) -> np.dtype[Any]:
    """Give the numpy dtype that carries a datatype (`uint16` for BF16).

    Raises:
        ValueError: the datatype is unknown, or is BYTES, which no fixed-size dtype carries.
    """
    try:
        return DTYPES[datatype]
    except KeyError:
        raise ValueError(f"no numpy dtype for datatype {datatype!r}; those with one: {', '.join(DTYPES)}") from None


def datatype_of(dtype: np.dtype[Any]) -> str:
    """Give the datatype of a numpy dtype, whatever its byte order (`uint16` is UINT16, never BF16).

    Raises:
        ValueError: no datatype is carried by this dtype.
    """
    try:
        return _DATATYPES_BY_DTYPE[dtype.newbyteorder("<")]
    except KeyError:
        raise ValueError(f"no datatype for numpy dtype {dtype}; those with one: {', '.join(DTYPES)}") from None


def item_size(datatype: str) -> int:
    """Give the bytes of one element.

    Raises:
        ValueError: the datatype is unknown, or is BYTES, whose elements have no fixed size.
    """
    return dtype_of(datatype).itemsize
