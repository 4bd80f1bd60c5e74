"""Completed offsets beyond the watermark, as the metadata of a commit.

Owns the encoding, and the judgement whether a metadata string can be believed. Must not know ledgers, commits, or what
follows from a refusal.

Theory of operation. A commit says that everything below one offset is done. What is done above it would be forgotten by
a restart and inferred again, so it travels in the commit's metadata, of which a broker takes 4,096 bytes
(`offset.metadata.max.bytes`). The completed offsets are flags, one per offset from the committed one on. They are
written as bits, or as the lengths of alternating stretches (not completed, completed, ...), whichever is shorter. At
most `SPAN_MAX` flags are written, and bits for so many always fit, so encoding never fails: what lies beyond is left
out, and would be done again.

Metadata is only as good as the commit that carries it: it names the offset it counts from and the topic's identity (a
topic that was deleted and made anew has other records under the same numbers), and ends with a checksum.

    base64( "Ic" | version u8 | kind u8 | base u64 | crc32 of topic identity u32 | body | crc32 of all before u32 )
            kind 0: bits, the lowest first             kind 1: lengths of stretches, u16 each

Invariants: decoding what was encoded for the same offset and topic gives the same flags, up to `SPAN_MAX`; any string
whatever decodes to flags or to a `Refusal`, in bounded time and memory.
"""

import binascii
import re
from base64 import b64decode, b64encode
from enum import Enum
from itertools import pairwise
from struct import Struct, pack, unpack
from zlib import crc32

SPAN_MAX = 16_384
"""Offsets that a map reaches above the committed one: 2,756 characters at most."""

METADATA_BYTES_MAX = 4_096
"""What brokers take by default."""

_MAGIC = b"Ic"
_VERSION = 1
_BITS = 0
_STRETCHES = 1

_HEAD = Struct(">2sBBQI")
_CHECK = Struct(">I")

_LENGTH_BYTES = 2
"""`SPAN_MAX` fits."""

_BIT_DIGITS = bytes.maketrans(b"\0\1", b"01")
_BIT_FLAGS = bytes.maketrans(b"01", b"\0\1")
_STRETCH = re.compile(rb"\x00+|\x01+")


class Refusal(Enum):
    """Why metadata is not believed."""

    FOREIGN = "foreign"
    """Something else wrote it."""
    CORRUPT = "corrupt"
    """Ours, but damaged, or written by a version that this one does not know."""
    OUTDATED = "outdated"
    """Ours and whole, but for another offset or for another topic of the same name."""


def encode(base: int, flags: bytes, topic_identity: str) -> str:
    """Write the metadata for a commit.

    Args:
        base: The offset that is committed.
        flags: One byte per offset from `base` on, 1 where it is completed (see `Ledger.completed`).
        topic_identity: What tells the topic from another one of its name: the broker's topic ID, where it has one.

    Returns:
        ASCII text of at most `METADATA_BYTES_MAX` bytes; empty where nothing is completed.
    """
    flags = flags[:SPAN_MAX].rstrip(b"\0")
    if not flags:
        return ""
    kind, body = _BITS, _to_bits(flags)
    changes = flags.count(b"\0\1") + flags.count(b"\1\0")
    if _LENGTH_BYTES * changes < len(body):  # else the stretches would be no shorter
        stretches = _to_stretches(flags)
        if len(stretches) < len(body):
            kind, body = _STRETCHES, stretches
    text = _HEAD.pack(_MAGIC, _VERSION, kind, base, crc32(topic_identity.encode())) + body
    return b64encode(text + _CHECK.pack(crc32(text))).decode("ascii")


def decode(metadata: str, base: int, topic_identity: str) -> bytes | Refusal:
    """Read the metadata of a commit.

    Args:
        metadata: What the broker has stored.
        base: The offset that was committed with it.
        topic_identity: As for `encode`.

    Returns:
        One byte per offset from `base` on, 1 where it is completed, without zeros at the end; empty for no metadata.
        A refusal where the text cannot be believed.
    """
    if not metadata:
        return b""
    text = _unwrap(metadata)
    if isinstance(text, Refusal):
        return text
    _, version, kind, text_base, identity = _HEAD.unpack_from(text)
    if version != _VERSION:
        return Refusal.CORRUPT
    if (text_base, identity) != (base, crc32(topic_identity.encode())):
        return Refusal.OUTDATED
    body = text[_HEAD.size : -_CHECK.size]
    flags = _from_bits(body) if kind == _BITS else _from_stretches(body) if kind == _STRETCHES else None
    return Refusal.CORRUPT if flags is None else flags


def _unwrap(metadata: str) -> bytes | Refusal:
    """Undo the outer encoding, and check that the text is ours and whole."""
    try:
        text = b64decode(metadata.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return Refusal.FOREIGN
    if not text.startswith(_MAGIC):
        return Refusal.FOREIGN
    if len(text) < _HEAD.size + _CHECK.size or text[-_CHECK.size :] != _CHECK.pack(crc32(text[: -_CHECK.size])):
        return Refusal.CORRUPT
    return text


def _to_bits(flags: bytes) -> bytes:
    """Pack flags into bits, the first flag lowest; through a number in base 2, which takes no loop."""
    return int(flags[::-1].translate(_BIT_DIGITS), 2).to_bytes((len(flags) + 7) // 8, "little")


def _from_bits(body: bytes) -> bytes | None:
    """Unpack bits into flags; None if there are too many."""
    if 8 * len(body) > SPAN_MAX:
        return None
    return f"{int.from_bytes(body, 'little'):b}".encode("ascii")[::-1].translate(_BIT_FLAGS).rstrip(b"\0")


def _to_stretches(flags: bytes) -> bytes:
    """Write the lengths of the stretches, that of a stretch of zeros first (0 where there is none)."""
    ends = [match.end() for match in _STRETCH.finditer(flags)]
    lengths = [stop - start for start, stop in pairwise([0, 0, *ends] if flags[0] else [0, *ends])]
    return pack(f">{len(lengths)}H", *lengths)


def _from_stretches(body: bytes) -> bytes | None:
    """Read the lengths of stretches into flags; None if one is cut off, or they reach too far."""
    count, rest = divmod(len(body), _LENGTH_BYTES)
    if rest or count > SPAN_MAX + 1:
        return None
    lengths = unpack(f">{count}H", body)
    if sum(lengths) > SPAN_MAX:
        return None
    return b"".join(bytes([i % 2]) * length for i, length in enumerate(lengths)).rstrip(b"\0")
