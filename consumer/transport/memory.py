"""Memory that two processes share, and who may write where in it.

Owns the memfd, its mapping and the two ways of sharing it out: `Extents` for regions that are freed in any order,
`Ring` for regions that are freed in the order they were taken. Must not know what is written there.
"""

import fcntl
import mmap
import os
import pickle
from bisect import bisect_left
from multiprocessing.reduction import DupFd, ForkingPickler
from typing import Generic, TypeVar, cast

ALIGNMENT = 64
"""Regions start at multiples of this many bytes: a cache line, and enough for every numpy datatype."""

T = TypeVar("T")


def aligned(size: int) -> int:
    """Round a size up to the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def create_file(size: int) -> int:
    """Make anonymous shared memory of a fixed size and return its descriptor.

    It is sealed against another size, since a process that shrank it would kill the other one with SIGBUS.

    Raises:
        OSError: No descriptor or no memory is left.
    """
    fd = os.memfd_create("consumer", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except OSError:
        os.close(fd)
        raise
    return fd


def map_file(fd: int, size: int, *, is_writable: bool) -> mmap.mmap:
    """Map shared memory. The mapping lives as long as something refers to it; `fd` may be closed before.

    Raises:
        ValueError: The file is smaller than that.
    """
    return mmap.mmap(fd, size, access=mmap.ACCESS_WRITE if is_writable else mmap.ACCESS_READ)


class Descriptor:
    """A file descriptor that can be an argument of a process about to be spawned; it arrives there as its own copy."""

    def __init__(self, fd: int) -> None:
        """Wrap a descriptor; it stays the caller's until `close`."""
        self.fd = fd

    def __getstate__(self) -> object:
        """Have the descriptor passed to the child."""
        return DupFd(self.fd)

    def __setstate__(self, state: object) -> None:
        """Take the descriptor that the child got."""
        self.fd = state.detach()  # type: ignore[attr-defined]  # what DupFd makes has no type of its own

    def close(self) -> None:
        """Close the descriptor here."""
        os.close(self.fd)


class Parcel(Generic[T]):
    """An object for a process about to be spawned, pickled into shared memory.

    Arguments go through a pipe of 64 KiB that the parent fills while it holds both ends: larger ones would block it for
    ever if the child died before reading them.
    """

    def __init__(self, content: T) -> None:
        """Pickle the content; the memory stays open here until `close`."""
        pickled = ForkingPickler.dumps(content)
        self._size = len(pickled)
        self._file = Descriptor(create_file(self._size))
        map_file(self._file.fd, self._size, is_writable=True)[:] = bytes(pickled)

    def open(self) -> T:
        """Unpickle the content, in the child, once."""
        content = pickle.loads(map_file(self._file.fd, self._size, is_writable=False))  # noqa: S301  # our parent's
        self._file.close()
        return cast("T", content)

    def close(self) -> None:
        """Let go of the memory here."""
        self._file.close()


class Extents:
    """Regions of one area, taken lowest first and freed in any order.

    Lowest first keeps the touched part of the memory small and in the caches; any order, since chunks end when their
    records are settled: a chunk that waits for its model must not hold up those behind it, as in a ring it would.
    """

    def __init__(self, size: int) -> None:
        """Start with one free region."""
        self._starts = [0]
        self._ends = [size]

    def take(self, size: int) -> int | None:
        """Take a region of at least `size` bytes; None where no free region is that large."""
        size = aligned(max(size, 1))
        for i, start in enumerate(self._starts):
            if self._ends[i] - start >= size:
                if self._ends[i] - start == size:
                    del self._starts[i], self._ends[i]
                else:
                    self._starts[i] += size
                return start
        return None

    def free(self, start: int, size: int) -> None:
        """Give back a region that `take` gave for `size`."""
        end = start + aligned(max(size, 1))
        i = bisect_left(self._starts, start)
        touches_next = i < len(self._starts) and self._starts[i] == end
        if i > 0 and self._ends[i - 1] == start:
            self._ends[i - 1] = end
            if touches_next:
                self._ends[i - 1] = self._ends[i]
                del self._starts[i], self._ends[i]
        elif touches_next:
            self._starts[i] = start
        else:
            assert i == len(self._starts) or end < self._starts[i], "a region is freed once"
            self._starts.insert(i, start)
            self._ends.insert(i, end)


class Ring:
    """Regions of one area, freed in the order they were taken. Positions only grow; `position % size` is the place."""

    def __init__(self, size: int) -> None:
        """Start empty."""
        self._size = size
        self._taken = 0
        self._freed = 0

    def take(self, size: int) -> int | None:
        """Take a contiguous region and return its position; None while there is no room for it."""
        size = aligned(size)
        assert size <= self._size
        start = self._taken
        if start % self._size + size > self._size:  # does not fit before the end: skip to the beginning
            start = -(-start // self._size) * self._size
            if self._freed == self._taken:
                self._freed = start
        if start + size - self._freed > self._size:
            return None
        self._taken = start + size
        return start

    def free(self, end: int) -> None:
        """Free every region up to a position: the end of one that was taken."""
        self._freed = max(self._freed, end)
