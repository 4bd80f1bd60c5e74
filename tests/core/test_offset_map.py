"""Commit metadata: whatever is written is read again, and nothing else is believed."""

import json
from base64 import b64decode, b64encode
from contextlib import suppress
from itertools import pairwise
from zlib import crc32

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumer.core.offset_map import METADATA_BYTES_MAX, SPAN_MAX, Refusal, decode, encode
from tests.strategies import UNHURRIED, flags

BASES = st.integers(0, 2**63 - 1)


def seal(text: bytes) -> str:
    """Wrap a text as `encode` does, with a checksum that is right."""
    return b64encode(text + crc32(text).to_bytes(4, "big")).decode()


def text_of(metadata: str) -> bytes:
    """Unwrap metadata, without the checksum."""
    return b64decode(metadata)[:-4]


@given(base=BASES, flags=flags(), topic=st.text())
@example(base=0, flags=b"\1" * SPAN_MAX, topic="")
@example(base=0, flags=b"\0\1" * (SPAN_MAX // 2), topic="")
@example(base=0, flags=b"\0" * (SPAN_MAX - 1) + b"\1", topic="")
@UNHURRIED
def test_what_is_written_is_read_again(base: int, flags: bytes, topic: str) -> None:
    """Decoding undoes encoding, but for zeros at the end, which say nothing."""
    metadata = encode(base, flags, topic)
    assert decode(metadata, base, topic) == flags.rstrip(b"\0")
    assert len(metadata.encode("ascii")) <= METADATA_BYTES_MAX


@given(flags=flags(), repeats=st.integers(1, 200))
@example(flags=b"\0\1", repeats=30_000)
@UNHURRIED
def test_any_flags_fit_by_leaving_out_the_far_ones(flags: bytes, repeats: int) -> None:
    """However much is completed, the metadata stays below the broker's limit and holds all of the span."""
    metadata = encode(5, flags * repeats, "topic")
    assert len(metadata.encode("ascii")) <= 2760
    assert decode(metadata, 5, "topic") == (flags * repeats)[:SPAN_MAX].rstrip(b"\0")


@pytest.mark.parametrize("nothing", [b"", b"\0", b"\0" * 20_000, b"\0" * SPAN_MAX + b"\1"])
def test_nothing_completed_needs_no_metadata(nothing: bytes) -> None:
    """Without completed offsets in reach the metadata is empty, and empty metadata is no completed offsets."""
    assert encode(1, nothing, "topic") == ""
    assert decode("", 1, "topic") == b""


def test_long_stretches_are_short() -> None:
    """A few long stretches cost a few bytes each, not a bit per offset."""
    metadata = encode(0, b"\0" + b"\1" * 8000 + b"\0" * 8000 + b"\1", "topic")
    assert len(text_of(metadata)) == 16 + 4 * 2


@given(flags=flags(2000).filter(any))
@example(flags=(b"\0" * 20 + b"\1" * 20) * 10)
@example(flags=(b"\0" * 16 + b"\1" * 16) * 10)
@example(flags=(b"\0" * 15 + b"\1" * 15) * 10)
@UNHURRIED
def test_the_shorter_form_is_taken(flags: bytes) -> None:
    """The body is never longer than the bits would be, nor than the stretches would be."""
    body = text_of(encode(0, flags, "topic"))[16:]
    flags = flags.rstrip(b"\0")
    stretches = 1 + flags[0] + sum(one != other for one, other in pairwise(flags))
    assert len(body) == min((len(flags) + 7) // 8, 2 * stretches)


@given(text=st.text() | st.binary().map(lambda noise: b64encode(noise).decode()))
@example(text=json.dumps({"offset": 3}))
@example(text="Zm9yZWlnbg==")
@example(text="not base 64")
@example(text="\udcff")
@UNHURRIED
def test_what_others_wrote_is_foreign(text: str) -> None:
    """Any text that does not begin as ours is refused as somebody else's."""
    is_ours = False
    with suppress(ValueError):
        is_ours = b64decode(text.encode("ascii"), validate=True).startswith(b"Ic")
    if text and not is_ours:
        assert decode(text, 0, "topic") is Refusal.FOREIGN


@given(flags=flags().filter(any), place=st.floats(0, 0.999), bit=st.integers(0, 7))
@UNHURRIED
def test_a_flipped_bit_is_noticed(flags: bytes, place: float, bit: int) -> None:
    """No single damaged bit leaves metadata that is believed."""
    text = bytearray(b64decode(encode(9, flags, "topic")))
    text[int(place * len(text))] ^= 1 << bit
    assert decode(b64encode(text).decode(), 9, "topic") in {Refusal.CORRUPT, Refusal.FOREIGN}


@given(flags=flags().filter(any), part=st.floats(0, 0.999))
@UNHURRIED
def test_a_part_is_noticed(flags: bytes, part: float) -> None:
    """Metadata that was cut off is refused."""
    text = b64decode(encode(9, flags, "topic"))
    kept = text[: int(part * len(text))]
    assert decode(b64encode(kept).decode(), 9, "topic") in {Refusal.CORRUPT, Refusal.FOREIGN, b""}
    assert bool(kept) == (decode(b64encode(kept).decode(), 9, "topic") != b"")


@given(flags=flags().filter(any), base=BASES, other=BASES)
@UNHURRIED
def test_another_offset_makes_it_outdated(flags: bytes, base: int, other: int) -> None:
    """Flags count from one offset: beside another one (an operator's reset) they mean nothing."""
    if base != other:
        assert decode(encode(base, flags, "topic"), other, "topic") is Refusal.OUTDATED


def test_another_topic_makes_it_outdated() -> None:
    """A topic that was made anew under the same name has other records under the same numbers."""
    metadata = encode(7, b"\0\1", "first-id")
    assert decode(metadata, 7, "second-id") is Refusal.OUTDATED


HEAD = b"Ic\1%c" + (7).to_bytes(8, "big") + crc32(b"topic").to_bytes(4, "big")


@pytest.mark.parametrize(
    "text",
    [
        b"Ic",
        (HEAD % 0).replace(b"Ic\1", b"Ic\2") + b"\1",
        (HEAD % 2) + b"\1",
        (HEAD % 0) + bytes(SPAN_MAX // 8 + 1),
        (HEAD % 1) + b"\0",
        (HEAD % 1) + b"\xff\xff" * 2,
        (HEAD % 1) + bytes(2 * (SPAN_MAX + 2)),
    ],
    ids=["too-short", "newer-version", "unknown-kind", "too-many-bits", "cut-off", "too-far", "too-many-stretches"],
)
def test_what_is_whole_but_not_understood_is_corrupt(text: bytes) -> None:
    """Even with a right checksum, what this version cannot have written is refused and costs nothing."""
    assert decode(seal(text), 7, "topic") is Refusal.CORRUPT


@pytest.mark.parametrize(("kind", "body"), [(0, b"\2"), (1, b"\0\1\0\1")])
def test_the_layout_stays_as_it_is(kind: int, body: bytes) -> None:
    """Metadata that earlier versions committed is read for ever."""
    assert decode(seal((HEAD % kind) + body), 7, "topic") == b"\0\1"
