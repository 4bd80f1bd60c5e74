"""The packets that cross between supervisor and worker, and the layout of the memory they point at.

Owns kinds, fields and sizes. A packet is small and, but for controls, of fixed size; everything that grows with the
number of records lies in shared memory:

- a chunk: offsets (i8 each), lengths (u4 each), header (msgpack), payloads joined;
- an answer: a column of values, a column of keys, failures (msgpack). A column is its lengths (u4 each, only where they
  differ) and its cells joined.
"""

import struct
from enum import IntEnum
from typing import NamedTuple

PACKET_MAX = 64 * 1024
"""Bytes that a receiver makes room for; the largest control stays far below."""


class Kind(IntEnum):
    """First byte of a packet."""

    CONTROL = 1
    CHUNK = 2
    ANSWER = 3
    WANT_ROOM = 4
    ROOM = 5


WANT_ROOM = bytes([Kind.WANT_ROOM])
"""The worker's outbox is full: it waits for `ROOM`."""

ROOM = struct.Struct("=BQ")
"""The supervisor has read every answer up to this position of the outbox."""

VARIABLE = -1
"""As a width: every cell has a length of its own."""

ABSENT = -2
"""As a width: there is no such column."""


class ChunkPacket(NamedTuple):
    """Where a chunk lies."""

    kind: int
    own_file: bool
    """The chunk does not lie in the inbox but in a file that comes with the packet."""
    is_suspect: bool
    """Each record is to be a batch of its own."""
    records: int
    chunk: int
    start: int
    header_size: int
    size: int
    """Payload bytes."""
    room: int
    """As in `ROOM`: told along, so that the worker rarely has to ask."""


CHUNK = struct.Struct("=B??IQQQQQ")


class AnswerPacket(NamedTuple):
    """Where an answer lies, and what was measured. A column's size counts its lengths too."""

    kind: int
    own_file: bool
    """The answer does not lie in the outbox but in a file that comes with the packet."""
    chunk: int
    first: int
    records: int
    position: int
    value_width: int
    values_size: int
    key_width: int
    keys_size: int
    failures_size: int
    rows: int
    rows_enough: int
    queue_s: float
    infer_s: float

    @property
    def size(self) -> int:
        """Bytes in shared memory."""
        return self.values_size + self.keys_size + self.failures_size


ANSWER = struct.Struct("=B?QIIQqQqQQQQdd")
