"""Plain JSON is read to the same as by the ordinary way, whatever it holds, and what is not plain is left to that."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas import (
    JSON,
    RecordError,
    Request,
    Tensor,
    decode_request,
    decode_result,
    encode_request,
    json_codec,
)
from schemas.datatypes import DTYPES
from schemas.plain_json import SIZE_MAX, read_plain
from tests.schemas import strategies
from tests.schemas.test_fuzz import THOROUGH, mutated

pytest.importorskip("simdjson", reason="there is no wheel of the parser for this platform")

ODD_NUMBERS = (
    *(
        "0",
        "-0",
        "-0.0",
        "1",
        "255",
        "256",
        "-129",
        "65519.99",
        "65520",
        "1e400",
        "1e-400",
        "2.5e-45",
        "01",
        "1.",
        ".5",
        "+1",
    ),
    *("3.4028235677973365e38", "3.4028235677973366e38", "-3.5e38", "9007199254740993", "9223372036854775807"),
    *("9223372036854775808", "18446744073709551615", "18446744073709551616", "-9223372036854775809", "NaN", "1e5"),
)
OTHERS = ("true", "false", "null", '""', '"a"', "[]", "[1]", "{}", '{"a":1}', '"[{"', '"\\ud800"', "", "\x00")
NUMBERS = (
    st.sampled_from(ODD_NUMBERS) | st.floats(allow_nan=False, allow_infinity=False).map(repr) | st.integers().map(str)
)
ANYTHING = NUMBERS | st.sampled_from(OTHERS)


def listed(elements: Sequence[str]) -> str:
    """Write a list."""
    return f"[{','.join(elements)}]"


@st.composite
def objects(draw: st.DrawFn, fields: dict[str, st.SearchStrategy[str]]) -> str:
    """Draw an object that has these fields, or nearly: one may be missing, there twice, or be something else."""
    pairs = [(name, draw(value)) for name, value in fields.items()]
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(pairs)))
        name = draw(st.sampled_from([*fields, "parameters", "more"]))
        pairs[at : at + draw(st.integers(0, 1))] = [(name, draw(ANYTHING))]
    return "{" + ",".join(f'"{name}":{value}' for name, value in pairs) + "}"


@st.composite
def tensors(draw: st.DrawFn) -> str:
    """Draw a tensor whose data is mostly numbers, and mostly as many as its shape says."""
    data = draw(st.lists(draw(st.sampled_from([NUMBERS, st.integers(0, 100).map(str), ANYTHING])), max_size=4))
    shape = draw(st.just([len(data)]) | st.just([1, len(data)]) | st.lists(st.integers(-1, 4), max_size=3))
    fields = {
        "name": st.sampled_from(['"x"', '"y"', '"["', '"\\u00e9"']),
        "datatype": st.sampled_from([f'"{name}"' for name in (*DTYPES, "BYTES", "none")]),
        "shape": st.just(listed(list(map(str, shape)))),
        "data": st.just(listed(data)),
    }
    return draw(objects(fields))


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Draw a request that is also a result, or nearly."""
    entries = listed(draw(st.lists(tensors(), max_size=3)))
    fields = {"id": st.sampled_from(['"r"', "null", "1"]), "inputs": st.just(entries), "model_name": st.just('"m"')}
    if draw(st.booleans()):
        fields["outputs"] = fields.pop("inputs")
    if draw(st.booleans()):
        fields["parameters"] = objects({"a": ANYTHING, "b": NUMBERS})
    before, after = draw(st.sampled_from([("", ""), (" ", "\n"), ("\ufeff", ""), ("", "x"), ("", "\x00")]))
    return (before + draw(objects(fields)) + after).encode("utf-8", "surrogatepass")


def read(value: bytes) -> list[Any]:
    """Decode a value as a request and as a result: what it is, or why it is none."""
    found: list[Any] = []
    for decode in (decode_request, decode_result):
        try:
            found.append(decode(value, JSON))
        except RecordError as error:
            found.append((error.reason, str(error)))
    return found


def read_ordinarily(value: bytes) -> list[Any]:
    """Do the same without the quick way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_codec, "read_plain", lambda *_: None)
        return read(value)


@pytest.mark.filterwarnings("error")
@given(documents() | mutated(documents()))
@THOROUGH
@example(b'{"inputs":[{"datatype":"FP32","shape":[2],"data":[1e200,1e39]}]}')
@example(b'{"inputs":[{"datatype":"FP16","shape":[2],"data":[1e200,-65520]}]}')
@example(b'{"inputs":[{"datatype":"FP32","shape":[1],"data":[3.4028235677973365e38]}]}')
@example(b'{"inputs":[{"datatype":"FP32","shape":[1],"data":[3.4028235677973366e38]}]}')
@example(b'{"inputs":[{"datatype":"FP16","shape":[1],"data":[65519.99]}]}')
@example(b'{"inputs":[{"datatype":"UINT8","shape":[2],"data":[255,256]}]}')
@example(b'{"inputs":[{"datatype":"FP32","shape":[2],"data":[[1,2]]}]}')
@example(rb'{"inputs":[{"datatype":"FP32","shape":[1],"data":[1]}],"parameters":{"a":1,"a\u0000b":2}}')
@example(b'{"inputs":[{"datatype":"FP32","shape":[1],"data":[1]},{"datatype":"FP32","data":[[1]]}]}')
def test_both_ways_read_the_same(value: bytes) -> None:
    """A value gives the same bits, or the same refusal, with the quick way and without; and no warning."""
    assert repr(read(value)) == repr(read_ordinarily(value))
    assert read(value) == read_ordinarily(value)


@given(strategies.requests(is_json=True))
@THOROUGH
def test_what_is_encoded_is_read_alike(request_: Request) -> None:
    """Every request that the codec writes is read back the same by both ways."""
    value = encode_request(request_, JSON)
    assert read(value) == read_ordinarily(value)


@pytest.mark.parametrize("datatype", [name for name in DTYPES if name != "BOOL"])
@pytest.mark.parametrize("field", ["inputs", "outputs"])
def test_lists_of_numbers_are_plain(datatype: str, field: str) -> None:
    """Every datatype of numbers is read the quick way, with parameters and without."""
    tensor = f'{{"name":"x","datatype":"{datatype}","shape":[1,3],"data":[1,2,3],"parameters":{{"a":1}}}}'
    for more in ("", ',"parameters":{"b":"c"}'):
        document = read_plain(f'{{"id":"r","{field}":[{tensor}]{more}}}'.encode(), field)
        assert document is not None
        assert isinstance(document[field][0]["data"], np.ndarray)


def test_a_large_value_is_left_to_the_ordinary_way() -> None:
    """The parser keeps memory by the largest value that it met, so it meets no large ones."""
    small, large = (
        b'{"inputs":[{"datatype":"UINT8","shape":[%d],"data":[1%s]}]}' % (n + 1, b",1" * n) for n in (9, SIZE_MAX // 2)
    )
    assert read_plain(small, "inputs") is not None
    assert read_plain(large, "inputs") is None
    assert decode_request(large, JSON).inputs[0].shape == (SIZE_MAX // 2 + 1,)


def test_the_parser_is_free_after_a_refusal() -> None:
    """Values that are given up halfway leave nothing behind that would keep the next one from the quick way."""
    plain = encode_request(Request("r", (Tensor.of("x", [[0.5, 1.5]], "FP32"),)), JSON)
    kept = []
    for spoilt in (
        plain.replace(b"0.5", b"[0.5]"),
        plain.replace(b"FP32", b"BYTES"),
        plain[:-1],
        plain.replace(b"0.5", b"null"),
    ):
        try:
            decode_request(spoilt, JSON)
        except RecordError as error:
            kept.append(error)
        assert read_plain(plain, "inputs") is not None
    assert len(kept) == 4
