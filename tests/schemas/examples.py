"""Records whose bytes are fixed in `golden/`, as producers and subscribers in other languages rely on them.

`python -m tests.schemas.examples` writes the files again. That is a change of the wire format: do it knowingly.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from schemas import (
    BF16,
    BYTES,
    DTYPES,
    JSON,
    MSGPACK,
    Request,
    Result,
    Source,
    Tensor,
    encode_request,
    encode_result,
    provenance,
)

GOLDEN = Path(__file__).parent / "golden"
SUFFIXES = {MSGPACK: "msgpack", JSON: "json"}

EXTREMES = {
    "BOOL": [True, False],
    "UINT8": [0, 2**8 - 1],
    "UINT16": [0, 2**16 - 1],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "INT8": [-(2**7), 2**7 - 1],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "FP16": [-65504.0, 0.1],
    "FP32": [-3.4028234663852886e38, 0.1],
    "FP64": [-1.7976931348623157e308, 0.1],
    BF16: [0x3F80, 0xBF80],
}
"""Two elements of each datatype, at its limits where it has some."""

_EVERY_DATATYPE = (
    *(Tensor(name.lower(), name, (1, 2), np.array([EXTREMES[name]], dtype)) for name, dtype in DTYPES.items()),
    Tensor("bytes", BYTES, (1, 2), ["größe".encode(), b""]),
)

REQUESTS = {
    "request": Request("r-1", (Tensor.of("input", [[0.5, 1.0], [-1.5, 2.0]], "FP32"),)),
    "request-every-datatype": Request("r-2", _EVERY_DATATYPE, {"priority": 1}),
    "request-edges": Request(
        None,
        (Tensor.of("scalar", 7, "INT64"), Tensor.of("empty", np.zeros((0, 3), "f4")), Tensor.of("", ["a"])),
    ),
}

RESULTS = {
    "result": Result(
        "r-1",
        "fraud",
        "3f9a1c20",
        (Tensor.of("output", [[0.25], [0.75]], "FP32"),),
        provenance(Source("requests", 3, 1041), 64, 2.125, 0.5),
    ),
    "result-every-datatype": Result(
        "requests-0-9007199254740993",
        "modèle",
        None,
        _EVERY_DATATYPE,
        provenance(Source("requests", 0, 9007199254740993), 1, 0, 1e-3, "ab" * 32),
    ),
}


def encoded() -> Iterator[tuple[Path, str, Request | Result, bytes]]:
    """Give each golden file: its path, content type, what it holds, and the bytes as they are encoded now."""
    for content_type, suffix in SUFFIXES.items():
        for name, request in REQUESTS.items():
            yield GOLDEN / f"{name}.{suffix}", content_type, request, encode_request(request, content_type)
        for name, result in RESULTS.items():
            yield GOLDEN / f"{name}.{suffix}", content_type, result, encode_result(result, content_type)


if __name__ == "__main__":
    for path, _type, _record, current in encoded():
        path.write_bytes(current)
