"""Datatypes and tensors: what carries what, and what a tensor is made of."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas import BF16, BYTES, DATATYPES, DTYPES, Source, Tensor, datatype_of, dtype_of, item_size, provenance
from schemas.records import Result
from tests.schemas import strategies
from tests.strategies import UNHURRIED

SIZES = {
    "BOOL": 1,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "FP16": 2,
    "FP32": 4,
    "FP64": 8,
    "BF16": 2,
}


def test_every_datatype_of_the_protocol_is_there() -> None:
    """The datatypes of the Open Inference Protocol V2 and BF16, each with its size; BYTES has none."""
    assert {datatype: item_size(datatype) for datatype in DTYPES} == SIZES
    assert (*SIZES, BYTES) == DATATYPES
    with pytest.raises(ValueError, match="no numpy dtype for datatype 'BYTES'"):
        item_size(BYTES)


@pytest.mark.parametrize("datatype", sorted(set(DTYPES) - {BF16}))
def test_datatypes_and_dtypes_are_each_others_inverse(datatype: str) -> None:
    """A dtype's datatype is the one that it carries, in either byte order."""
    assert datatype_of(dtype_of(datatype)) == datatype
    assert datatype_of(dtype_of(datatype).newbyteorder(">")) == datatype


@pytest.mark.parametrize("dtype", ["c8", "U4", "O", "M8[s]"])
def test_other_dtypes_have_no_datatype(dtype: str) -> None:
    """Complex numbers, text, objects and dates are refused by name."""
    with pytest.raises(ValueError, match="no datatype for numpy dtype"):
        datatype_of(np.dtype(dtype))


@UNHURRIED
@given(hnp.arrays(st.sampled_from(sorted({*SIZES} - {BF16})).map(dtype_of), strategies.SHAPES))
def test_an_array_becomes_the_tensor_of_its_dtype(array: np.ndarray) -> None:
    """Without a datatype the array's own dtype decides, whatever its order in memory."""
    for given_array in (array, np.array(array, order="F"), array.astype(array.dtype.newbyteorder(">"))):
        tensor = Tensor.of("x", given_array)
        tensor.check()
        assert tensor == Tensor("x", datatype_of(array.dtype), array.shape, array)
        assert tensor.nbytes == array.nbytes


def test_lists_become_tensors_of_the_datatype_asked_for() -> None:
    """Python numbers are stored as asked; floats may be rounded, nothing else may change."""
    assert Tensor.of("x", [[0.1, 2]], "FP32") == Tensor("x", "FP32", (1, 2), np.array([[0.1, 2]], "f4"))
    assert Tensor.of("x", [1, 2], "UINT8") == Tensor("x", "UINT8", (2,), np.array([1, 2], "u1"))
    assert Tensor.of("x", [1.0, 2.0], "INT64") == Tensor("x", "INT64", (2,), np.array([1, 2]))
    assert Tensor.of("x", 7, "FP16") == Tensor("x", "FP16", (), np.array(7, "f2"))
    assert Tensor.of("x", [0x3F80], BF16) == Tensor("x", BF16, (1,), np.array([0x3F80], "u2"))
    assert Tensor.of("x", [float("inf")], "FP16") == Tensor("x", "FP16", (1,), np.array([np.inf], "f2"))


@pytest.mark.parametrize(
    ("elements", "datatype"),
    [
        ([1.5], "INT64"),
        ([float("nan")], "INT64"),
        ([256], "UINT8"),
        ([-1], "UINT64"),
        ([2], "BOOL"),
        ([1], "BOOL"),
        ([True], "INT8"),
        ([1e39], "FP32"),
        ([70_000], "FP16"),
        ([1j], "FP64"),
    ],
)
def test_nothing_is_cast_silently(elements: list[float], datatype: str) -> None:
    """What the datatype cannot hold is refused."""
    with pytest.raises(ValueError, match=f"holds what {datatype} cannot"):
        Tensor.of("x", elements, datatype)


def test_strings_become_bytes_tensors() -> None:
    """Text is stored as UTF-8 and bytes as they are, trailing NULs included."""
    assert Tensor.of("x", ["ä", "b"]) == Tensor("x", BYTES, (2,), ["ä".encode(), b"b"])
    assert Tensor.of("x", [[b"a\0"], [b""]]) == Tensor("x", BYTES, (2, 1), [b"a\0", b""])
    assert Tensor.of("x", np.array(["a", "bc"])) == Tensor("x", BYTES, (2,), [b"a", b"bc"])
    assert Tensor.of("x", [], BYTES) == Tensor("x", BYTES, (0,), [])
    assert Tensor.of("x", ["ab", "c"]).nbytes == 3
    with pytest.raises(ValueError, match="holds str or bytes, not int"):
        Tensor.of("x", [1, 2], BYTES)
    with pytest.raises(ValueError, match="holds str or bytes, not NoneType"):
        Tensor.of("x", np.array([None]))


def test_tensors_are_compared_by_bits() -> None:
    """NaN equals itself, zero does not equal minus zero, and every field counts."""
    tensor = Tensor.of("x", [0.0, float("nan")])
    assert tensor == Tensor.of("x", [0.0, float("nan")])
    assert tensor != Tensor.of("x", [-0.0, float("nan")])
    assert tensor != tensor._replace(name="y")
    assert tensor != tensor._replace(shape=(1, 2))
    assert tensor != "x"
    with pytest.raises(TypeError, match="unhashable"):
        hash(tensor)


def test_a_result_tells_its_source() -> None:
    """The parameters of a result hold everything that a subscriber needs to recognise a duplicate."""
    source = Source("requests", 3, 41)
    parameters = provenance(source, 2, 1, 2, "ab")
    assert Result("r", "m", "1", (), parameters).source == source
    assert Result("r", "m", "1", ()).source is None
    assert Result("r", "m", "1", (), {**parameters, "source_offset": "41"}).source is None
    assert source.record_id == "requests-3-41"
    assert list(parameters) == [
        "source_topic",
        "source_partition",
        "source_offset",
        "batch_rows",
        "queue_ms",
        "infer_ms",
        "model_sha256",
    ]
    assert "model_sha256" not in provenance(source, 2, 1, 2)
