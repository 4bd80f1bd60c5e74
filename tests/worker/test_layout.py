"""The walk over msgpack, against the library that packs and unpacks it."""

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.worker.layout import DEPTH_MAX, LEAVES_MAX, Path, leaves

LEAF_VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
    | st.binary(max_size=70_000)
)
VALUES = st.recursive(
    LEAF_VALUES,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=40), inner, max_size=20),
    max_leaves=40,
)


def flatten(value: Any, path: Path = ()) -> dict[Path, Any]:
    """List the leaves of a value by their paths, the naive way."""
    if isinstance(value, dict):
        return {p: leaf for key, inner in value.items() for p, leaf in flatten(inner, (*path, key)).items()}
    if isinstance(value, list):
        return {p: leaf for i, inner in enumerate(value) for p, leaf in flatten(inner, (*path, i)).items()}
    return {path: value}


@given(value=VALUES)
def test_every_leaf_stands_where_the_walk_says(value: Any) -> None:
    """The bytes between a leaf's head and stop unpack to that leaf, and strings and bytes are their content."""
    encoded = msgpack.packb(value)
    found = leaves(encoded)
    assert {path: msgpack.unpackb(encoded[leaf.head : leaf.stop]) for path, leaf in found.items()} == flatten(value)
    for path, leaf in flatten(value).items():
        if isinstance(leaf, str):
            assert (found[path].kind, encoded[found[path].content].decode()) == ("str", leaf)
        elif isinstance(leaf, bytes):
            assert (found[path].kind, encoded[found[path].content]) == ("bin", leaf)


@given(encoded=st.binary(max_size=200))
def test_no_bytes_raise_anything_but_value_error(encoded: bytes) -> None:
    """Whatever the bytes are, the walk ends, and its only error is ValueError."""
    try:
        found = leaves(encoded)
    except ValueError:
        return
    assert all(leaf.stop <= len(encoded) for leaf in found.values())


@given(value=VALUES, cut=st.integers(1, 5))
def test_a_truncated_value_is_refused(value: Any, cut: int) -> None:
    """A value whose end is missing has no layout."""
    with pytest.raises(ValueError, match=r"."):
        leaves(msgpack.packb(value)[:-cut])


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        pytest.param(msgpack.packb(1) + b"\x01", "not one value", id="bytes-after-it"),
        pytest.param(b"\x82\xa1a\x01\xa1a\x02", "twice", id="key-twice"),
        pytest.param(msgpack.packb({1: 2}), "no string", id="key-no-string"),
        pytest.param(msgpack.packb(msgpack.ExtType(1, b"x")), "no record has", id="extension-type"),
        pytest.param(msgpack.packb([0] * (LEAVES_MAX + 1)), "too many", id="too-many-parts"),
        pytest.param(b"\x91" * (DEPTH_MAX + 1) + b"\x01", "too deep", id="too-deep"),
        pytest.param(b"\x91" * 100_000 + b"\x01", "too deep", id="bottomless"),
        pytest.param(b"\xa2\xff\xff\x81\xa1\xff\x01", "not one value", id="two-values"),
        pytest.param(b"\x81\xa1\xff\x01", "utf-8", id="key-not-utf-8"),
    ],
)
def test_what_no_template_can_be_made_of_is_refused(encoded: bytes, reason: str) -> None:
    """Values that the codec would refuse, or that are not worth it, have no layout."""
    with pytest.raises(ValueError, match=reason):
        leaves(encoded)
