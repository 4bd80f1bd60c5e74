"""The supervisor's end of the way to one worker.

Owns the inbox (chunks, shared memory that this side writes) and reads the outbox (answers). Never blocks, and believes
nothing that the worker says before it has checked it. Must not know what a payload means, or which worker gets what.
"""

import errno
import mmap
import os
import socket
import struct
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Final, cast

import msgpack
from annotated_types import Ge

from consumer.core.events import Answered, Event, ModelFailed, ModelLoaded, ModelProbed, WorkerReady
from consumer.core.types import Chunk, ChunkId, Failure, Run, WorkerId
from consumer.transport.board import Board, create_board
from consumer.transport.controls import (
    BootFailed,
    Broken,
    FromWorker,
    Loaded,
    Probed,
    Ready,
    ToWorker,
    decode,
    decode_failures,
    encode,
)
from consumer.transport.ends import WorkerEnds
from consumer.transport.memory import Descriptor, Extents, aligned, create_file, map_file
from consumer.transport.packets import (
    ABSENT,
    ANSWER,
    CHUNK,
    PACKET_MAX,
    ROOM,
    AnswerPacket,
    ChunkPacket,
    Kind,
)
from consumer.transport.values import SharedValues, read_column

PACKETS_MAX: Final = 64
"""Packets read at once: a talkative worker must not keep the supervisor's loop from turning."""

_TRY_LATER: Final = {errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS}
"""The kernel has no room for a packet, or for one more descriptor under way."""


class ChannelClosedError(Exception):
    """The worker's end is closed: it has exited, or is about to."""


class ChannelBrokenError(Exception):
    """The worker said something that cannot be: its memory is not to be trusted any more, it has to be killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOptions:
    """Sizes of the memory shared with one worker. Pages cost nothing until they are first used."""

    inbox_bytes: Annotated[int, Ge(1 << 16)] = 16 << 20
    """Shared memory for the payloads in flight to one worker; a chunk that finds no room gets memory of its own."""
    outbox_bytes: Annotated[int, Ge(1 << 16)] = 8 << 20
    """Shared memory for the results that one worker has ready; a worker waits while it is full."""


@dataclass(slots=True)
class _Sent:
    """A chunk in flight and the memory it occupies."""

    unanswered: bytearray
    """One byte a record, 1 until its answer."""
    start: int | None
    """None: it lies in memory of its own."""
    size: int
    values: list[SharedValues]
    is_released: bool = False


@dataclass(frozen=True, slots=True)
class _Columns:
    """A chunk as it is written: what each record and each run has, in the order of the memory."""

    offsets: "array[int]"
    lengths: "array[int]"
    header: bytes
    payloads: Sequence[Sequence[bytes]]
    absent: frozenset[int]
    payload_size: int

    @classmethod
    def of(cls, chunk: Chunk, content_types: Sequence[str | None] | None) -> "_Columns":
        offsets, lengths = array("q"), array("I")
        payloads: list[Sequence[bytes]] = []
        absent: list[int] = []
        for run in chunk.runs:
            # Payloads that lie in shared memory (a chunk that another worker had) are copied out once, not twice.
            values = run.values[:] if isinstance(run.values, SharedValues) else run.values
            try:
                present = cast("Sequence[bytes]", values)
                lengths += array("I", map(len, present))
                payloads.append(present)
            except TypeError:  # one is None: it is cheaper to fall over it than to look for it
                absent += [len(lengths) + i for i, value in enumerate(values) if value is None]
                lengths.extend(0 if value is None else len(value) for value in values)
                payloads.append([value for value in values if value is not None])
            offsets.extend(array("q", run.offsets))  # faster than without the array between
        runs = [(*run.partition, len(run), run.fetched_s) for run in chunk.runs]
        header: bytes = msgpack.packb((chunk.model, runs, absent, content_types), unicode_errors="replace")
        return cls(offsets, lengths, header, payloads, frozenset(absent), sum(lengths))

    @property
    def size(self) -> int:
        return 12 * len(self.offsets) + len(self.header) + self.payload_size

    def write(self, memory: mmap.mmap, at: int) -> None:
        memory.seek(at)
        memory.write(self.offsets)
        memory.write(self.lengths)
        memory.write(self.header)
        for payloads in self.payloads:
            deque(map(memory.write, payloads), maxlen=0)  # cheaper than joining them first

    def replace_values(self, runs: Iterable[Run], memory: mmap.mmap, at: int) -> list[SharedValues]:
        replaced: list[SharedValues] = []
        at, first = at + self.size - self.payload_size, 0
        for run in runs:
            lengths = self.lengths[first : first + len(run)]
            absent = frozenset(i - first for i in self.absent if first <= i < first + len(run))
            replaced.append(values := SharedValues(memory, at, lengths, absent))
            run.values = values
            at, first = at + sum(lengths), first + len(run)
        return replaced


class Channel:
    """One worker's inbox and outbox, seen from the supervisor."""

    def __init__(self, worker: WorkerId, options: ChannelOptions) -> None:
        """Make socket and memory; `ends` goes to the worker, then `close_ends` has to be called.

        Raises:
            OSError: No descriptors or no memory are left.
        """
        self._worker = worker
        self._options = options
        inbox, outbox, board = create_file(options.inbox_bytes), create_file(options.outbox_bytes), create_board()
        self._inbox = map_file(inbox, options.inbox_bytes, is_writable=True)
        self._outbox = map_file(outbox, options.outbox_bytes, is_writable=False)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        self.ends = WorkerEnds(theirs, Descriptor(inbox), Descriptor(outbox), Descriptor(board))
        self.board = Board(board)
        """What the worker is doing."""
        self._extents = Extents(options.inbox_bytes)
        self._chunks: dict[ChunkId, _Sent] = {}
        self._outbox_read = 0
        self._backlog: deque[tuple[bytes, int | None]] = deque()
        self.boot_failure: str | None = None
        """What the worker said when it could not start."""

    def close_ends(self) -> None:
        """Close the worker's ends here, once its process is started: only then is its death our end of file."""
        self.ends.close()

    @property
    def connection(self) -> socket.socket:
        """What becomes readable when `receive` has something to do."""
        return self._socket

    def send_chunk(self, chunk: Chunk, content_types: Sequence[str | None] | None) -> None:
        """Copy a chunk's payloads and columns into shared memory and tell the worker.

        Afterwards each run's `values` read that memory, until `release`. `content_types` is a column over all records;
        None where no record names one.

        Raises:
            ChannelClosedError: The worker is gone; the chunk is unchanged.
            OSError: The inbox is full and no other memory can be had.
        """
        assert chunk.chunk not in self._chunks, "a chunk is sent once"
        columns = _Columns.of(chunk, content_types)
        size = columns.size
        start = self._extents.take(size)
        if start is None:
            fd = create_file(size)
            memory, at = map_file(fd, size, is_writable=True), 0
        else:
            fd, memory, at = None, self._inbox, start
        columns.write(memory, at)
        packet = ChunkPacket(
            kind=Kind.CHUNK,
            own_file=fd is not None,
            is_suspect=chunk.is_suspect,
            records=len(columns.offsets),
            chunk=chunk.chunk,
            start=at,
            header_size=len(columns.header),
            size=columns.payload_size,
            room=self._outbox_read,
        )
        try:
            self._send(CHUNK.pack(*packet), fd)
        except ChannelClosedError:
            if start is not None:
                self._extents.free(start, size)
            raise
        values = columns.replace_values(chunk.runs, memory, at)
        self._chunks[chunk.chunk] = _Sent(bytearray(b"\1") * packet.records, start, size, values)

    def send(self, control: ToWorker) -> None:
        """Tell the worker something.

        Raises:
            ChannelClosedError: The worker is gone.
        """
        self._send(bytes([Kind.CONTROL]) + encode(control), None)

    def release(self, chunk: ChunkId) -> None:
        """Give back a chunk's memory, at once or as soon as the worker has answered all of it.

        Its runs' `values` must not be read any more.
        """
        sent = self._chunks.get(chunk)
        if sent is None:
            return  # the worker was gone when it was to be sent
        sent.is_released = True
        for values in sent.values:
            values.forget()
        self._forget_if_done(chunk, sent)

    def receive(self) -> list[Event]:
        """Take what the worker has said since, without waiting; at most `PACKETS_MAX` packets of it.

        Raises:
            ChannelClosedError: The worker's end is closed, and everything that it said before has been received.
            ChannelBrokenError: The worker said something that cannot be.
        """
        events: list[Event] = []
        with suppress(ChannelClosedError):  # what the worker said before is still to be read
            self._send_backlog()
        for _ in range(PACKETS_MAX):
            try:
                packet, fds, _, _ = socket.recv_fds(self._socket, PACKET_MAX, 1)
            except BlockingIOError:
                break
            except ConnectionResetError:
                continue  # told once, ahead of what is left to read: the worker died with packets of ours unread
            if not packet:
                if events:
                    break  # told by the next call
                raise ChannelClosedError
            try:
                event = self._read(packet, fds)
            except (IndexError, KeyError, OverflowError, TypeError, ValueError, OSError, struct.error) as error:
                raise ChannelBrokenError(f"{type(error).__name__}: {error}") from error
            finally:
                for fd in fds:
                    os.close(fd)
            if event is not None:
                events.append(event)
        return events

    def close(self) -> None:
        """Close the socket, which ends the worker. Payloads stay readable as long as their runs refer to them."""
        self._socket.close()
        self._drop_backlog()

    def _send(self, packet: bytes, fd: int | None) -> None:
        """Send a packet, or keep it until the worker has read some; `fd` is sent along and closed."""
        self._backlog.append((packet, fd))
        self._send_backlog()

    def _send_backlog(self) -> None:
        while self._backlog:
            packet, fd = self._backlog[0]
            try:
                if fd is None:
                    self._socket.send(packet)
                else:
                    socket.send_fds(self._socket, [packet], [fd])
            except OSError as error:
                if error.errno in _TRY_LATER:
                    return  # the worker answers what it finds there, or asks for room: that brings us here again
                self._drop_backlog()
                raise ChannelClosedError from None
            self._backlog.popleft()
            if fd is not None:
                os.close(fd)

    def _drop_backlog(self) -> None:
        while self._backlog:
            _, fd = self._backlog.popleft()
            if fd is not None:
                os.close(fd)

    def _read(self, packet: bytes, fds: Sequence[int]) -> Event | None:
        kind = packet[0]
        if kind == Kind.ANSWER:
            return self._read_answer(AnswerPacket(*ANSWER.unpack(packet)), fds)
        if kind == Kind.WANT_ROOM:
            with suppress(ChannelClosedError):  # it died waiting; what it said before is still to be read
                self._send(ROOM.pack(Kind.ROOM, self._outbox_read), None)
            return None
        if kind == Kind.CONTROL:
            return self._read_control(decode(packet[1:]))
        raise ValueError(f"unknown packet kind {kind}")

    def _read_answer(self, packet: AnswerPacket, fds: Sequence[int]) -> Answered:
        chunk = ChunkId(packet.chunk)
        sent = self._chunks[chunk]
        stop = packet.first + packet.records
        if stop > len(sent.unanswered) or 0 in sent.unanswered[packet.first : stop]:
            raise ValueError("an answer for records that are not there, or answered")
        if packet.own_file:
            memory, at = map_file(fds[0], packet.size, is_writable=False), 0
        else:
            memory, at = self._outbox, packet.position % len(self._outbox)
        values = read_column(memory, at, packet.values_size, packet.value_width, packet.records)
        at += packet.values_size
        keys: Sequence[bytes | None]
        if packet.key_width == ABSENT:
            keys = [None] * packet.records
        else:
            keys = read_column(memory, at, packet.keys_size, packet.key_width, packet.records)
        at += packet.keys_size
        failures = _read_failures(memory[at : at + packet.failures_size], packet)
        if not packet.own_file:
            self._outbox_read = packet.position + aligned(packet.size)
        sent.unanswered[packet.first : stop] = bytes(packet.records)
        self._forget_if_done(chunk, sent)
        return Answered(
            worker=self._worker,
            chunk=chunk,
            first=packet.first,
            count=packet.records,
            values=values,
            keys=keys,
            failures=failures,
            rows=packet.rows,
            rows_enough=packet.rows_enough,
            queue_s=packet.queue_s,
            infer_s=packet.infer_s,
            size=packet.values_size + packet.keys_size,
        )

    def _read_control(self, control: ToWorker | FromWorker) -> Event | None:
        match control:
            case Ready(device):
                return WorkerReady(self._worker, device)
            case Loaded(model, version, load_s):
                return ModelLoaded(self._worker, model, version, load_s)
            case Broken(model, failure):
                return ModelFailed(self._worker, model, failure)
            case Probed(model):
                return ModelProbed(self._worker, model)
            case BootFailed(message):
                self.boot_failure = message
                return None
            case _:
                raise ValueError(f"a worker does not say {type(control).__name__}")

    def _forget_if_done(self, chunk: ChunkId, sent: _Sent) -> None:
        """Reuse a chunk's memory once both sides are done with it: the worker may still read what the core gave up."""
        if not sent.is_released or 1 in sent.unanswered:
            return
        del self._chunks[chunk]
        if sent.start is not None:
            self._extents.free(sent.start, sent.size)


def _read_failures(packed: bytes, packet: AnswerPacket) -> dict[int, Failure]:
    failures = decode_failures(packed)
    if not all(packet.first <= i < packet.first + packet.records for i in failures):
        raise ValueError("a failure outside the answer")
    return failures
