"""Frames: the same bytes as the codec's, whatever is put into them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas import BYTES, DTYPES, JSON, Result, Tensor, encode_result, provenance
from schemas.json_frame import JsonFrame, texts
from schemas.records import SOURCE_OFFSET, Source
from tests.schemas.strategies import results
from tests.strategies import UNHURRIED

RESULT = Result("id", "m", "1", (Tensor.of("y", np.zeros(2, np.float32)),), provenance(Source("t", 0, 1), 8, 1.0, 2.0))


def has_frame(result: Result) -> bool:
    """Tell whether a frame is for such results."""
    return result.id is not None and all(tensor.datatype != BYTES for tensor in result.outputs)


def tables(result: Result, records: int) -> st.SearchStrategy[tuple[np.ndarray[Any, Any], ...]]:
    """Draw elements for the outputs of so many results that look alike, one result a row."""
    finite = {"allow_nan": False, "allow_infinity": False}
    shapes = [(records, tensor.data.size) for tensor in result.outputs]  # type: ignore[union-attr]
    dtypes = [DTYPES[tensor.datatype] for tensor in result.outputs]
    return st.tuples(
        *[
            hnp.arrays(dtype, shape, elements=finite if dtype.kind == "f" else None)
            for dtype, shape in zip(dtypes, shapes, strict=True)
        ]
    )


@given(result=results(is_json=True).filter(has_frame), data=st.data())
@UNHURRIED
def test_a_frame_writes_what_the_codec_writes(result: Result, data: st.DataObject) -> None:
    """With another id, other elements and another offset it gives the bytes of the codec for such a result."""
    frame = JsonFrame(result)
    drawn = data.draw(tables(result, 3))
    columns = [texts(table) for table in drawn]
    for at in range(3):
        identity, offset = data.draw(st.text(max_size=9)), data.draw(st.integers(0, 2**63 - 1))
        outputs = tuple(
            tensor._replace(data=table[at].reshape(tensor.shape))
            for tensor, table in zip(result.outputs, drawn, strict=True)
        )
        parameters = {**result.parameters, SOURCE_OFFSET: offset}
        expected = encode_result(result._replace(id=identity, outputs=outputs, parameters=parameters), JSON)
        elements = [column[at] for column in columns if column is not None]
        assert frame.write(identity, elements, b"%d" % offset) == expected


@pytest.mark.parametrize("element", [np.nan, np.inf, -np.inf])
def test_what_json_cannot_carry_is_not_written(element: float) -> None:
    """One such number among many tensors is told, and none of them written."""
    table = np.zeros((3, 2), np.float32)
    table[1, 1] = element
    assert texts(table) is None
    with pytest.raises(ValueError, match="have no frame"):
        JsonFrame(RESULT._replace(outputs=(Tensor.of("y", table),)))


@pytest.mark.parametrize(
    "changes",
    [
        {"id": None},
        {"outputs": ()},
        {"outputs": (Tensor.of("y", ["text"]),)},
        {"parameters": {}},
        {"parameters": {SOURCE_OFFSET: 1}},
    ],
    ids=["no id", "no outputs", "texts", "no parameters", "an offset that is last"],
)
def test_other_results_have_no_frame(changes: dict[str, Any]) -> None:
    """A result that is not written as those of the program are is refused, not written otherwise."""
    with pytest.raises(ValueError, match="frame"):
        JsonFrame(RESULT._replace(**changes))
