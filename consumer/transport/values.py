"""Columns of bytes that lie joined in shared memory.

Owns how the supervisor reads cells: payloads lazily, since most are never looked at again, results at once, since they
outlive their place. Must not know what the cells mean.
"""

import mmap
from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from struct import Struct
from typing import overload

from consumer.transport.packets import VARIABLE


class SharedValues(Sequence[bytes | None]):
    """The payloads of one run, read from the memory they were copied to when they are asked for.

    Readable until the chunk is released, also after the worker has died.
    """

    __slots__ = ("_absent", "_ends", "_lengths", "_memory", "_start")

    def __init__(self, memory: mmap.mmap, start: int, lengths: "array[int]", absent: frozenset[int]) -> None:
        """Describe payloads of these lengths that lie one after the other from `start`; `absent` ones are None."""
        self._memory: mmap.mmap | None = memory
        self._start = start
        self._lengths = lengths
        self._absent = absent
        self._ends: list[int] | None = None

    def __len__(self) -> int:
        """Count the payloads."""
        return len(self._lengths)

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes | None]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes | None] | None:
        """Copy payloads out."""
        if isinstance(index, slice):
            return [self._read(i) for i in range(*index.indices(len(self._lengths)))]
        if index < 0:
            index += len(self._lengths)
        if not 0 <= index < len(self._lengths):
            raise IndexError(index)
        return self._read(index)

    def __iter__(self) -> Iterator[bytes | None]:
        """Copy the payloads out one after the other."""
        return map(self._read, range(len(self._lengths)))

    def forget(self) -> None:
        """Refuse to be read from now on: the memory is given back."""
        self._memory = None

    def _read(self, index: int) -> bytes | None:
        assert self._memory is not None, "payloads are read before their chunk is released"
        if index in self._absent:
            return None
        if self._ends is None:
            self._ends = list(accumulate(self._lengths, initial=self._start))
        return self._memory[self._ends[index] : self._ends[index + 1]]


def read_column(memory: mmap.mmap, at: int, size: int, width: int, count: int) -> Sequence[bytes]:
    """Copy `count` cells out of a column of `size` bytes. One call of `struct` cuts faster than any loop.

    Raises:
        ValueError, struct.error: The column does not lie in the memory, or is not as large as width or lengths say.
    """
    cells_at = at
    if width == VARIABLE:
        cells_at = at + 4 * count
        lengths = Struct(f"={count}I").unpack_from(memory, at)
        cells = Struct("%ds" * count % lengths)
    else:
        cells = _equal_cells(width, count)
    if cells_at + cells.size != at + size:
        raise ValueError("a column of another size than its cells")
    return cells.unpack_from(memory, cells_at)


@lru_cache(maxsize=64)
def _equal_cells(width: int, count: int) -> Struct:
    """Describe cells of one width; most columns of a model are alike, and this takes half as long as to cut one."""
    return Struct(f"{width}s" * count)
