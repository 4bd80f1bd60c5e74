"""What a worker is doing, written where the supervisor can read it at any time: also once the worker says nothing more.

Owns the layout of this small shared memory: one lane per thread that may get stuck, and a place for stack traces. Must
not know how long anything may take, or what follows when it takes longer.

Theory of operation. A thread writes down what it begins, and that it still goes on (a *beat*: one number), without a
lock and without a system call. Each lane carries a count that is odd while it is being written, so that a reader never
believes half of it. The traces are written by faulthandler, which needs neither the interpreter nor the thread that
hangs; where they begin, the descriptor points.
"""

import mmap
import os
import signal
import struct
import time
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from consumer.core.activity import Phase, Stretch
from consumer.core.types import ChunkId, ModelId
from consumer.transport.memory import create_file, map_file

TRACE_SIGNAL: Final = signal.SIGRTMAX
"""Has a worker write the stack traces of all its threads down. Nothing else is known to use it."""

TRACES_BYTES: Final = 60 * 1024
"""Room for stack traces; what is longer is cut."""

_LANE_BYTES: Final = 2048
_NAME_BYTES_MAX: Final = 512
_STRETCHES_MAX: Final = 64

_COUNT = struct.Struct("=Q")
_BEAT_AT: Final = 8
_BEAT = struct.Struct("=d")
_BODY_AT: Final = 16
_BODY = struct.Struct("=BdHH")
_STRETCH = struct.Struct("=QII")
_UNKNOWN: Final = 0xFFFF
"""As the number of stretches: more than there is room for."""

_PHASES: Final = (Phase.BOOT, Phase.IDLE, Phase.LOAD, Phase.PROBE, Phase.INFER, Phase.ANSWER, Phase.LEAVE)
_NUMBERS: Final = {phase: number for number, phase in enumerate(_PHASES)}


class Thread(IntEnum):
    """The threads of a worker that have a lane."""

    LOOP = 0
    LOADER = 1
    CALLER = 2


TRACES_AT: Final = _LANE_BYTES * len(Thread)
_BOARD_BYTES: Final = TRACES_AT + TRACES_BYTES


class Activity(NamedTuple):
    """What one thread is doing."""

    phase: Phase
    model: ModelId | None
    beat_s: float
    """When it last showed that it goes on (monotonic seconds, the same clock in every process); 0: never yet."""
    timeout_s: float
    """How long it may take until it shows that again; infinite where nobody waits for it."""
    running: Sequence[Stretch] | None
    """The records of its batch; None where there were too many stretches to write down."""


def create_board() -> int:
    """Make the shared memory and return its descriptor.

    Raises:
        OSError: No descriptor or no memory is left.
    """
    return create_file(_BOARD_BYTES)


class Lane:
    """One thread's place on the board, to write to."""

    def __init__(self, memory: mmap.mmap, thread: Thread) -> None:
        """Write to a thread's lane; one writer each."""
        self._memory = memory
        self._at = thread * _LANE_BYTES
        self._count = 0

    def begin(
        self, phase: Phase, timeout_s: float, model: ModelId | None = None, running: Sequence[Stretch] = ()
    ) -> None:
        """Write down what begins now."""
        name = (model or "").encode()[:_NAME_BYTES_MAX]
        fits = len(running) <= _STRETCHES_MAX
        body = _BODY.pack(_NUMBERS[phase], timeout_s, len(name), len(running) if fits else _UNKNOWN)
        stretches = b"".join(_STRETCH.pack(each.chunk, each.first, each.count) for each in running) if fits else b""
        whole = b"".join((_BEAT.pack(time.monotonic()), body, name, stretches))
        self._count += 1
        _COUNT.pack_into(self._memory, self._at, self._count)
        self._memory[self._at + _BEAT_AT : self._at + _BEAT_AT + len(whole)] = whole
        self._count += 1
        _COUNT.pack_into(self._memory, self._at, self._count)

    def beat(self) -> None:
        """Write down that it goes on: its time begins anew."""
        _BEAT.pack_into(self._memory, self._at + _BEAT_AT, time.monotonic())


class WorkerBoard:
    """The worker's view."""

    def __init__(self, fd: int) -> None:
        """Map the memory; the descriptor becomes the place for traces and stays open for as long as the process."""
        memory = map_file(fd, _BOARD_BYTES, is_writable=True)
        os.lseek(fd, TRACES_AT, os.SEEK_SET)
        self.traces = fd
        """Where faulthandler writes to."""
        self.loop = Lane(memory, Thread.LOOP)
        self.loader = Lane(memory, Thread.LOADER)
        self.caller = Lane(memory, Thread.CALLER)


class Board:
    """The supervisor's view. What it reads it does not believe: the worker may be out of its mind."""

    def __init__(self, fd: int) -> None:
        """Map the memory, read-only."""
        self._memory = map_file(fd, _BOARD_BYTES, is_writable=False)

    def read(self, thread: Thread) -> Activity | None:
        """Read what a thread is doing; None where it was interrupted while writing it down, or wrote nonsense."""
        at = thread * _LANE_BYTES
        before = self._memory[at : at + _LANE_BYTES]
        after = self._memory[at : at + _COUNT.size]
        (count,) = _COUNT.unpack(after)
        if count % 2 or before[: _COUNT.size] != after:
            return None
        return _parse(before)

    def traces(self) -> str:
        """Read the stack traces that were written so far."""
        return self._memory[TRACES_AT:].rstrip(b"\0").decode("utf-8", "replace")


def _parse(lane: bytes) -> Activity | None:
    (beat_s,) = _BEAT.unpack_from(lane, _BEAT_AT)
    number, timeout_s, name_size, stretches = _BODY.unpack_from(lane, _BODY_AT)
    name_at = _BODY_AT + _BODY.size
    at = name_at + name_size
    if number >= len(_PHASES) or name_size > _NAME_BYTES_MAX or _STRETCHES_MAX < stretches != _UNKNOWN:
        return None
    running: list[Stretch] | None = None
    if stretches != _UNKNOWN:
        found = (_STRETCH.unpack_from(lane, at + i * _STRETCH.size) for i in range(stretches))
        running = [Stretch(ChunkId(chunk), first, count) for chunk, first, count in found]
    name = lane[name_at:at].decode("utf-8", "ignore")
    return Activity(_PHASES[number], name or None, beat_s, timeout_s, running)
