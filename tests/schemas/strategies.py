"""Tensors, requests and results as Hypothesis draws them."""

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas import BYTES, DATATYPES, DTYPES, Request, Result, Source, Tensor, provenance

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
NAMES = st.text(max_size=20)
IDS = st.none() | st.text(max_size=40)
PARAMETERS = st.dictionaries(
    st.text(max_size=10), st.text(max_size=10) | st.booleans() | st.integers(-(2**53), 2**53), max_size=3
)


@st.composite
def tensors(draw: st.DrawFn, name: str | None = None, *, is_json: bool = False) -> Tensor:
    """Draw a tensor of any datatype; for JSON its floats are finite and its strings are UTF-8."""
    name = draw(NAMES) if name is None else name
    datatype = draw(st.sampled_from(DATATYPES))
    shape = draw(SHAPES)
    if datatype == BYTES:
        count = int(np.prod(shape))
        element = st.text(max_size=8).map(str.encode) if is_json else st.binary(max_size=8)
        return Tensor(name, datatype, shape, draw(st.lists(element, min_size=count, max_size=count)))
    elements: dict[str, Any] = {"allow_nan": False, "allow_infinity": False} if is_json else {}
    dtype = DTYPES[datatype]
    array = draw(hnp.arrays(dtype, shape, elements=elements if dtype.kind == "f" else None))
    return Tensor(name, datatype, array.shape, array)


@st.composite
def requests(draw: st.DrawFn, *, is_json: bool = False) -> Request:
    """Draw a request whose inputs have names of their own."""
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    inputs = tuple(draw(tensors(name, is_json=is_json)) for name in names)
    return Request(draw(IDS), inputs, draw(PARAMETERS))


@st.composite
def results(draw: st.DrawFn, *, is_json: bool = False) -> Result:
    """Draw a result with the parameters that the program writes."""
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    outputs = tuple(draw(tensors(name, is_json=is_json)) for name in names)
    milliseconds = st.floats(0, 1e9)
    parameters = provenance(
        Source(draw(st.text(max_size=20)), draw(st.integers(0, 2**31 - 1)), draw(st.integers(0, 2**63 - 1))),
        draw(st.integers(0, 10_000)),
        draw(milliseconds),
        draw(milliseconds),
        draw(st.none() | st.just("ab" * 32)),
    )
    return Result(draw(IDS), draw(st.text(max_size=20)), draw(IDS), outputs, parameters)
