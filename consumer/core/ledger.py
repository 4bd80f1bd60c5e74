"""Which records of a partition are resolved, and so which offset may be committed.

Owns, per partition and generation, what was delivered to this member and what has its outcome acknowledged. Must not
know what a record holds, where it is now, or when commits happen.

Theory of operation. Offsets have gaps (compaction, transaction markers), so records are numbered densely as they are
admitted: their *positions*. The *head* is the first position that is not resolved; its offset is the *watermark*, the
next offset to commit. From the head on there is one byte per position, 1 once the record is resolved, and a list of
*segments*, the places where offsets do not simply follow one another. A range of positions resolves by one slice
assignment; the head moves by one `find`, which meets no byte twice; whatever falls behind the head is dropped, which
costs nothing at the front of a bytearray. So admission and resolution are a few calls per slice, not per record, and a
record costs one byte while the span from head to tail holds it.

    positions     0  1  2  3  4  5  6
    offsets      10 11 12 15 16 17 18      13 and 14 were never delivered: a new segment, (3, 15), starts behind them
    resolved      1  1  0  1  1  0  0
                       |                   next_offset 12, span 5, in_flight 3
                       +- head             completed() counts offsets from 12 on: 0 0 0 1 1

Invariants: within a generation `next_offset` never falls, except with the very first admission (an assignment whose
committed offset the broker no longer has starts elsewhere); every offset below it that was admitted is resolved; a
position is resolved once. A generation fences: `Ledgers.current` finds a ledger only by the generation that it has
now, so what belongs to an earlier assignment finds none and is dropped.
"""

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from itertools import chain, compress, islice
from operator import ne, sub

from consumer.core.types import Generation, TopicPartition


class Ledger:
    """The records of one partition in one generation.

    Args:
        generation: The assignment that this ledger belongs to.
        start: The committed next offset; None where the partition was never committed.
        completed: Flags of the offsets from `start` on that an earlier member has completed (see `core.offset_map`):
            their records count as resolved as soon as they are admitted.
    """

    __slots__ = ("_completed", "_done", "_head", "_in_flight", "_next", "_segments", "_start", "generation")

    def __init__(self, generation: Generation, start: int | None = None, completed: bytes = b"") -> None:
        assert start is not None or not completed, "completed offsets count from a committed offset"
        self.generation = generation
        self._start = start
        self._completed = completed
        self._next = start
        self._head = 0
        self._done = bytearray()  # from the head on, so that its first byte, if any, is 0
        self._segments: deque[tuple[int, int]] = deque()  # (position, offset); the first one holds the head
        self._in_flight = 0

    @property
    def next_offset(self) -> int | None:
        """The watermark: every delivered offset below it is resolved. None before anything is known."""
        if not self._done:
            return self._next
        position, offset = self._segments[0]
        return offset + self._head - position

    @property
    def fetch_offset(self) -> int | None:
        """Where the client goes on reading, and the place to seek to after a fault; None where it may be anywhere."""
        return self._next

    @property
    def head(self) -> int:
        """The position of the first record that is not resolved; the tail where all are."""
        return self._head

    @property
    def tail(self) -> int:
        """The position that the next admitted record gets."""
        return self._head + len(self._done)

    @property
    def span(self) -> int:
        """Positions from the head to the tail, resolved or not."""
        return len(self._done)

    @property
    def in_flight(self) -> int:
        """Records admitted and not resolved."""
        return self._in_flight

    @property
    def has_completed(self) -> bool:
        """Tell whether records still to be admitted may have been completed by an earlier member."""
        return bool(self._completed)

    def accepts(self, offset: int) -> bool:
        """Tell whether a record with this offset can be admitted next.

        The first admission may start anywhere. After it offsets only rise; where they do not, the topic was made anew
        or the client has gone back, and the partition needs a new generation. One that began above `next_offset` would
        leave out what is in flight: such a client is sent back to `next_offset` first.
        """
        return self.tail == 0 or self._next is None or offset >= self._next

    def admit(self, offsets: Sequence[int]) -> int:
        """Take records into the ledger, in the order of their offsets.

        Returns:
            The position of the first; the others follow densely. Where `has_completed` was true before the call, some
            of them may be resolved already: `unresolved` leaves these out.
        """
        first = self.tail
        count = len(offsets)
        if not count:
            return first
        assert self.accepts(offsets[0]), "offsets of one generation only rise"
        segments = _segments(offsets, first)
        # One that goes on where the last one ended is no new one, unless there is nothing left to go on from.
        self._segments.extend(segments[1:] if self._done and offsets[0] == self._next else segments)
        self._next = offsets[-1] + 1
        self._done.extend(bytes(count))
        self._in_flight += count
        if self._completed:
            self._restore(segments, first)
        return first

    def unresolved(self, first: int, stop: int) -> list[int]:
        """List the positions from `first` up to `stop` (exclusive) that are not resolved."""
        assert stop <= self.tail, "a position that was never given"
        head, first = self._head, max(first, self._head)
        marks = self._done[first - head : max(stop - head, 0)]
        return [position for position, is_done in enumerate(marks, first) if not is_done]

    def resolve(self, positions: Sequence[int]) -> None:
        """Take note that the outcomes of these records are acknowledged.

        Args:
            positions: A range of consecutive positions (the fast way), or any sequence without repetition.
        """
        if not positions:
            return
        done, head = self._done, self._head
        if isinstance(positions, range) and positions.step == 1:
            low, high = positions.start - head, positions.stop - head
            assert 0 <= low <= high <= len(done), "a position that is not in flight"
            assert done.find(1, low, high) < 0, "a record was resolved twice"
            done[low:high] = b"\1" * (high - low)
        else:
            low, high = min(positions) - head, max(positions) - head + 1
            assert 0 <= low < high <= len(done), "a position that is not in flight"
            before = done.count(1, low, high)
            for position in positions:
                done[position - head] = 1
            assert done.count(1, low, high) - before == len(positions), "a record was resolved twice"
        self._in_flight -= len(positions)
        self._advance()

    def completed(self, span_max: int) -> bytes:
        """Show what is resolved beyond the watermark, by this member or by an earlier one.

        Returns:
            One byte per offset from `next_offset` on, 1 where a record with that offset is resolved, without zeros at
            the end; offsets `span_max` or more above the watermark are left out.
        """
        watermark = self.next_offset
        if watermark is None or (len(self._done) == self._in_flight and not self._completed):
            return b""
        assert self._next is not None
        flags = bytearray(min(self._next - watermark, span_max))
        for low, stop, offset in _stretches(self._segments, self.tail) if self._done else ():
            skipped = max(self._head - low, 0)
            above = offset + skipped - watermark
            if above >= span_max:
                break
            marks = self._done[low + skipped - self._head : stop - self._head][: span_max - above]
            flags[above : above + len(marks)] = marks
        if self._completed:
            # What an earlier member completed and was not fetched again yet stays completed.
            assert self._start is not None
            flags += self._completed[self._next - self._start :][: span_max - len(flags)]
        return bytes(flags.rstrip(b"\0"))

    def _restore(self, segments: Collection[tuple[int, int]], first: int) -> None:
        """Resolve those of the newest records that an earlier member has completed."""
        start, flags, head = self._start, self._completed, self._head
        assert start is not None
        assert self._next is not None
        if first == 0 and self._segments[0][1] < start:
            # The broker no longer has the committed offset: these may be other records under the same numbers.
            self._completed = b""
            return
        for low, stop, offset in _stretches(segments, self.tail):
            marks = flags[offset - start : offset - start + stop - low]
            self._done[low - head : low - head + len(marks)] = marks
            self._in_flight -= marks.count(1)
        if self._next - start >= len(flags):
            self._completed = b""
        self._advance()

    def _advance(self) -> None:
        """Move the head past what is resolved, and drop what lies behind it."""
        passed = self._done.find(0)
        if passed == 0:
            return
        if passed < 0:
            passed = len(self._done)
        del self._done[:passed]
        self._head += passed
        segments = self._segments
        if not self._done:
            segments.clear()
            return
        while len(segments) > 1 and segments[1][0] <= self._head:
            segments.popleft()


def _segments(offsets: Sequence[int], first: int) -> list[tuple[int, int]]:
    """Find the places where offsets do not simply follow one another: (position, offset), the first record's first."""
    count = len(offsets)
    if offsets[-1] - offsets[0] == count - 1:
        return [(first, offsets[0])]
    distances = list(map(sub, offsets, range(count)))
    assert distances == sorted(distances), "offsets of one slice only rise"
    breaks = map(ne, distances[1:], distances)
    return [(first, offsets[0]), *((first + i, offsets[i]) for i in compress(range(1, count), breaks))]


def _stretches(segments: Collection[tuple[int, int]], tail: int) -> Iterator[tuple[int, int, int]]:
    """Walk segments as (first position, position after the last, first offset)."""
    ends = chain(islice((position for position, _ in segments), 1, None), [tail])
    for (low, offset), stop in zip(segments, ends, strict=True):
        yield low, stop, offset


class Ledgers:
    """The ledgers of the partitions that are assigned now; generations are never used twice."""

    def __init__(self) -> None:
        """Start without partitions."""
        self._ledgers: dict[TopicPartition, Ledger] = {}
        self._last = 0

    def __len__(self) -> int:
        """Count the assigned partitions."""
        return len(self._ledgers)

    def __iter__(self) -> Iterator[TopicPartition]:
        """Walk the assigned partitions."""
        return iter(self._ledgers)

    def __contains__(self, partition: object) -> bool:
        """Tell whether a partition is assigned."""
        return partition in self._ledgers

    def __getitem__(self, partition: TopicPartition) -> Ledger:
        """Find the ledger of an assigned partition."""
        return self._ledgers[partition]

    def open(self, partition: TopicPartition, start: int | None = None, completed: bytes = b"") -> Ledger:
        """Begin a new generation of a partition; an earlier one, if any, is fenced by it."""
        self._last += 1
        ledger = self._ledgers[partition] = Ledger(Generation(self._last), start, completed)
        return ledger

    def close(self, partitions: Collection[TopicPartition]) -> None:
        """Fence and forget partitions that were taken away."""
        for partition in partitions:
            self._ledgers.pop(partition, None)

    def current(self, partition: TopicPartition, generation: Generation) -> Ledger | None:
        """Find the ledger that a record belongs to; None if its generation is over, so that it must be dropped."""
        ledger = self._ledgers.get(partition)
        return ledger if ledger is not None and ledger.generation == generation else None
