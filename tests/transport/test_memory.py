"""Shared memory and the two ways of sharing it out."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.transport.memory import ALIGNMENT, Extents, Ring, aligned, create_file, map_file

AREA = 64 * ALIGNMENT


def test_files_keep_their_size() -> None:
    """Nobody can shrink shared memory under a process that reads it (it would die by SIGBUS)."""
    fd = create_file(8192)
    try:
        for size in (0, 4096, 16384):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, size)
        assert os.fstat(fd).st_size == 8192
    finally:
        os.close(fd)


def test_a_mapping_outlives_its_descriptor() -> None:
    """What was written is read through another mapping, after the descriptor is closed."""
    fd = create_file(4096)
    write, read = map_file(fd, 4096, is_writable=True), map_file(fd, 4096, is_writable=False)
    os.close(fd)
    write[:5] = b"hello"
    assert read[:5] == b"hello"
    with pytest.raises(TypeError, match="readonly"):
        read[:5] = b"HELLO"


def test_a_mapping_larger_than_its_file_is_refused() -> None:
    """A worker that announces more than it sends is told by an exception, not by SIGBUS."""
    fd = create_file(4096)
    try:
        with pytest.raises(ValueError, match="mmap length"):
            map_file(fd, 8192, is_writable=False)
    finally:
        os.close(fd)


@given(st.lists(st.tuples(st.integers(0, 20 * ALIGNMENT), st.integers(0, 20)), max_size=80))
def test_extents_never_overlap_and_lose_nothing(steps: list[tuple[int, int]]) -> None:
    """Regions in use are disjoint, lie in the area and take the lowest place; freed in any order, all of it returns."""
    extents = Extents(AREA)
    used: dict[int, int] = {}
    for size, which in steps:
        free = [True] * AREA
        for start, length in used.items():
            assert all(free[start : start + aligned(max(length, 1))]), "two regions overlap"
            free[start : start + aligned(max(length, 1))] = [False] * aligned(max(length, 1))
        need = aligned(max(size, 1))
        places = [at for at in range(0, AREA - need + 1, ALIGNMENT) if all(free[at : at + need])]
        start_taken = extents.take(size)
        assert start_taken == (places[0] if places else None)
        if start_taken is not None:
            used[start_taken] = size
        if used and which < 12:
            start = list(used)[which % len(used)]
            extents.free(start, used.pop(start))
    for start, length in used.items():
        extents.free(start, length)
    assert extents.take(AREA) == 0


@given(st.lists(st.tuples(st.integers(0, AREA), st.integers(0, 5)), max_size=80))
def test_ring_regions_never_overlap_and_an_empty_ring_takes_anything(steps: list[tuple[int, int]]) -> None:
    """Regions between the last freed and the last taken are disjoint and contiguous; an empty ring refuses none."""
    ring = Ring(AREA)
    used: list[tuple[int, int]] = []
    for size, freed in steps:
        position = ring.take(size)
        if position is None:
            assert used, "an empty ring has room"
        else:
            assert position % ALIGNMENT == 0
            assert position % AREA + size <= AREA
            places = {at % AREA for start, length in used for at in range(start, start + aligned(length), ALIGNMENT)}
            assert not places & {at % AREA for at in range(position, position + aligned(size), ALIGNMENT)}
            if size:
                used.append((position, size))
        for _ in range(min(freed, len(used))):
            start, length = used.pop(0)
            ring.free(start + aligned(length))


def test_ring_ignores_old_news() -> None:
    """Room that was told earlier, and arrives later, takes nothing back."""
    ring = Ring(AREA)
    assert ring.take(AREA) == 0
    ring.free(AREA)
    ring.free(ALIGNMENT)
    assert ring.take(AREA) == AREA
