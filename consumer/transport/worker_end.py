"""The worker's end of the way to the supervisor.

Owns the outbox (results, shared memory that this side writes) and reads the inbox (chunks). Must not know what a model
does with a record. Everything here ends with EOFError once the supervisor is gone: a worker without one has no purpose.
"""

import math
import os
import select
import socket
from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import msgpack
import numpy as np
import numpy.typing as npt

from consumer.core.types import ChunkId, Failure, ModelId
from consumer.transport.board import WorkerBoard
from consumer.transport.controls import FromWorker, LoadModel, ProbeModel, decode, encode, encode_failures
from consumer.transport.ends import WorkerEnds
from consumer.transport.memory import Ring, create_file, map_file
from consumer.transport.packets import (
    ABSENT,
    ANSWER,
    CHUNK,
    PACKET_MAX,
    ROOM,
    VARIABLE,
    WANT_ROOM,
    AnswerPacket,
    ChunkPacket,
    Kind,
)

Cells: TypeAlias = Sequence[bytes] | npt.NDArray[np.uint8]
"""A column to send: one bytes object per record, or a `uint8` array of shape (count, width)."""


@dataclass(frozen=True, slots=True)
class Work:
    """Records of one model, numbered from 0 through the whole chunk.

    `buffer`, `lengths` and `offsets` are read-only views of shared memory: valid until the last record of the chunk is
    answered. What is needed longer, or is given to code that may write to it, has to be copied.
    """

    chunk: ChunkId
    model: ModelId
    buffer: memoryview
    """All payloads, joined."""
    lengths: npt.NDArray[np.uint32]
    """Bytes of each payload."""
    offsets: npt.NDArray[np.int64]
    """Source offset of each record."""
    sources: Sequence[tuple[str, int, int]]
    """Topic, partition and how many records in a row come from there."""
    fetched_s: Sequence[float]
    """When the records of each of `sources` were fetched (monotonic seconds, the same clock in every process)."""
    content_types: Sequence[str | None] | None
    """What each record says it is; None where no record says anything."""
    absent: frozenset[int]
    """Records without a value (length 0); nearly always empty."""
    is_suspect: bool = False
    """Each record is to be a batch of its own, answered before the next: one of them may have ended a worker."""

    def __len__(self) -> int:
        """Count the records."""
        return len(self.lengths)


class Timing(NamedTuple):
    """What a batch took."""

    rows: int
    """Rows of the batch that the answered records were part of."""
    rows_enough: int
    """Rows beyond which a batch of the model gains little, as far as the worker knows; 0 if it does not."""
    queue_s: float
    """From the fetch of its oldest record to its start."""
    infer_s: float


class WorkerEnd:
    """Receives work, sends answers. One thread receives and answers; `send` may be called from any."""

    def __init__(self, ends: WorkerEnds) -> None:
        """Map the shared memory; the descriptors are closed, since the mappings need none (but for the board's)."""
        self._socket = ends.socket
        self._socket.setblocking(True)
        inbox_size, outbox_size = (os.fstat(file.fd).st_size for file in (ends.inbox, ends.outbox))
        self._inbox = memoryview(map_file(ends.inbox.fd, inbox_size, is_writable=False))
        self._outbox = memoryview(map_file(ends.outbox.fd, outbox_size, is_writable=True))
        ends.inbox.close()
        ends.outbox.close()
        self.board = WorkerBoard(ends.board.fd)
        """Where this worker writes down what it is doing."""
        self._ring = Ring(outbox_size)
        self._own_file_min = outbox_size // 2
        self._stash: deque[Work | LoadModel | ProbeModel] = deque()
        self._wants_room = False
        self._poll = select.poll()
        self._fd = self._socket.fileno()
        self._poll.register(self._fd, select.POLLIN)

    def listen(self, fd: int) -> None:
        """End a wait of `receive` as well when there is something to read from a descriptor."""
        self._poll.register(fd, select.POLLIN)

    def receive(self, timeout_s: float | None) -> Work | LoadModel | ProbeModel | None:
        """Take the next thing to do; None if there is none within `timeout_s` (None: wait for ever).

        None as well when what `listen` was told of ends the wait.

        Raises:
            EOFError: The supervisor is gone.
        """
        while not self._stash:
            if not self._is_readable(timeout_s):
                return None
            self._receive_packet()
        return self._stash.popleft()

    def answer(
        self,
        chunk: ChunkId,
        first: int,
        values: Cells,
        keys: Cells | None,
        failures: Mapping[int, Failure],
        timing: Timing,
    ) -> None:
        """Send the outcomes of the records `first` to `first + len(values)` (exclusive) of a chunk.

        `failures` is by index in the chunk; where it names a record, its cells are empty (or anything, in an array).
        Without `keys` the record has none of the worker's making. Waits while the outbox is full, and goes on receiving
        meanwhile.

        Raises:
            EOFError: The supervisor is gone.
        """
        value_width, value_lengths, values_size = _measure(values)
        key_width, key_lengths, keys_size = (ABSENT, None, 0) if keys is None else _measure(keys)
        packed = encode_failures(failures)
        size = values_size + keys_size + len(packed)
        memory, position, fd = self._take(size)
        at = 0 if fd is not None else position % len(self._outbox)
        at = _write(memory, at, values, value_lengths)
        if keys is not None:
            at = _write(memory, at, keys, key_lengths)
        memory[at : at + len(packed)] = packed
        packet = AnswerPacket(
            kind=Kind.ANSWER,
            own_file=fd is not None,
            chunk=chunk,
            first=first,
            records=len(values),
            position=position,
            value_width=value_width,
            values_size=values_size,
            key_width=key_width,
            keys_size=keys_size,
            failures_size=len(packed),
            rows=timing.rows,
            rows_enough=timing.rows_enough,
            queue_s=timing.queue_s,
            infer_s=timing.infer_s,
        )
        self._send(ANSWER.pack(*packet), fd)

    def send(self, control: FromWorker) -> None:
        """Tell the supervisor something.

        Raises:
            EOFError: The supervisor is gone.
        """
        self._send(bytes([Kind.CONTROL]) + encode(control), None)

    def close(self) -> None:
        """Close the socket: the supervisor takes it as this worker's end."""
        self._socket.close()

    def _take(self, size: int) -> tuple[memoryview, int, int | None]:
        """Find a place for an answer: memory, position in the outbox, descriptor where it is a file of its own."""
        if size > self._own_file_min:
            fd = create_file(size)
            return memoryview(map_file(fd, size, is_writable=True)), 0, fd
        while (position := self._ring.take(size)) is None:
            if not self._wants_room:
                self._send(WANT_ROOM, None)
                self._wants_room = True
            self._receive_packet()
            # The reply may be behind what did not fit into the socket, which the supervisor tries again when it hears
            # something: with the socket empty, it is asked again.
            self._wants_room = self._wants_room and self._is_readable(0.0)
        return self._outbox, position, None

    def _is_readable(self, timeout_s: float | None) -> bool:
        # poll() counts whole milliseconds: rounded up, since a wait of 0 ms in a loop would burn the core.
        ready = self._poll.poll(None if timeout_s is None else math.ceil(1e3 * max(timeout_s, 0.0)))
        return any(fd == self._fd for fd, _ in ready)

    def _receive_packet(self) -> None:
        """Receive one packet, waiting for it, and stash what it asks for."""
        try:
            packet, fds, _, _ = socket.recv_fds(self._socket, PACKET_MAX, 1)
        except ConnectionError:
            packet, fds = b"", []
        if not packet:
            raise EOFError("the supervisor is gone")
        kind = packet[0]
        if kind == Kind.CHUNK:
            self._stash.append(self._read_chunk(ChunkPacket(*CHUNK.unpack(packet)), fds))
        elif kind == Kind.ROOM:
            self._wants_room = False
            self._ring.free(ROOM.unpack(packet)[1])
        else:
            control = decode(packet[1:])
            assert isinstance(control, LoadModel | ProbeModel)
            self._stash.append(control)

    def _read_chunk(self, packet: ChunkPacket, fds: Sequence[int]) -> Work:
        self._ring.free(packet.room)
        columns = 12 * packet.records
        payloads = columns + packet.header_size
        if packet.own_file:
            whole = memoryview(map_file(fds[0], payloads + packet.size, is_writable=False))
            os.close(fds[0])
        else:
            whole = self._inbox[packet.start : packet.start + payloads + packet.size]
        model, runs, absent, content_types = msgpack.unpackb(whole[columns:payloads])
        return Work(
            chunk=ChunkId(packet.chunk),
            model=model,
            buffer=whole[payloads:],
            lengths=np.frombuffer(whole, np.uint32, packet.records, 8 * packet.records),
            offsets=np.frombuffer(whole, np.int64, packet.records),
            sources=[(topic, partition, count) for topic, partition, count, _ in runs],
            fetched_s=[fetched_s for _, _, _, fetched_s in runs],
            content_types=content_types,
            absent=frozenset(absent),
            is_suspect=packet.is_suspect,
        )

    def _send(self, packet: bytes, fd: int | None) -> None:
        """Send a packet, waiting while the socket is full: the supervisor empties it whenever its loop turns."""
        try:
            if fd is None:
                self._socket.send(packet)
            else:
                socket.send_fds(self._socket, [packet], [fd])
        except ConnectionError:
            raise EOFError("the supervisor is gone") from None
        finally:
            if fd is not None:
                os.close(fd)


def _measure(cells: Cells) -> tuple[int, "array[int] | None", int]:
    """Width, lengths where they differ, and size of a column."""
    if isinstance(cells, np.ndarray):
        assert cells.dtype == np.uint8, "a column of bytes, one row per record"
        _, width = cells.shape
        return width, None, cells.size
    lengths = array("I", map(len, cells))
    if lengths and lengths.count(lengths[0]) == len(lengths):
        return lengths[0], None, lengths[0] * len(lengths)
    return VARIABLE, lengths, 4 * len(lengths) + sum(lengths)


def _write(memory: memoryview, at: int, cells: Cells, lengths: "array[int] | None") -> int:
    """Write a column and return where it ends."""
    if lengths is not None:
        size = 4 * len(lengths)
        memory[at : at + size] = lengths.tobytes()
        at += size
    joined = cells.reshape(-1).data if isinstance(cells, np.ndarray) else b"".join(cells)
    memory[at : at + len(joined)] = joined
    return at + len(joined)
