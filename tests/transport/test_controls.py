"""Controls and failures as bytes."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.types import Disposition, Failure
from consumer.transport.controls import (
    TEXT_MAX,
    BootFailed,
    Broken,
    FromWorker,
    Loaded,
    LoadModel,
    Probed,
    ProbeModel,
    Ready,
    ToWorker,
    decode,
    decode_failures,
    encode,
    encode_failures,
)

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
failures = st.builds(Failure, words, words, words, st.sampled_from(Disposition))


@given(
    st.one_of(
        st.builds(LoadModel, words),
        st.builds(ProbeModel, words),
        st.builds(Ready, words),
        st.builds(BootFailed, words),
        st.builds(Loaded, words, words, st.floats(0, 1e6)),
        st.builds(Broken, words, failures),
        st.builds(Probed, words),
    )
)
def test_controls_survive_the_way(control: ToWorker | FromWorker) -> None:
    """What is decoded equals what was encoded."""
    assert decode(encode(control)) == control


@given(st.dictionaries(st.integers(0, 10_000), failures))
def test_failures_survive_the_way(by_index: dict[int, Failure]) -> None:
    """What is decoded equals what was encoded, none included."""
    assert decode_failures(encode_failures(by_index)) == by_index


def test_long_and_broken_texts_are_made_fit() -> None:
    """An exception's text may be endless or no text at all: it is cut, and what UTF-8 cannot say is replaced."""
    assert decode(encode(BootFailed("x" * 10**6))) == BootFailed("x" * TEXT_MAX)
    long = Failure("inference-failed", "E" * 10**6, "\ud800" * 10**6)
    cut = Failure("inference-failed", "E" * TEXT_MAX, "?" * TEXT_MAX)
    assert decode(encode(Broken("fraud", long))) == Broken("fraud", cut)
    assert decode_failures(encode_failures({3: long})) == {3: cut}


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | words | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=8,
)


@given(st.binary(max_size=64) | json_like.map(msgpack.packb) | st.lists(json_like, max_size=5).map(msgpack.packb))
def test_anything_else_is_refused(packed: bytes) -> None:
    """Other bytes raise a ValueError (TypeError where msgpack cannot hash a key), or mean a control that says so."""
    for read in (decode, decode_failures):
        try:
            read(packed)
        except (TypeError, ValueError):
            continue


@pytest.mark.parametrize(
    "content",
    [[], ["Ready"], ["Ready", 5], ["Loaded", "fraud", "1", "soon"], ["Broken", "fraud", ["a"]], {"Ready": "cpu"}],
)
def test_a_control_with_other_fields_is_refused(content: object) -> None:
    """Kinds, counts and types of the fields are checked: the supervisor believes no worker."""
    with pytest.raises(ValueError, match=r"no control|no failure"):
        decode(msgpack.packb(content))
