"""What a worker writes down, and how much of it the supervisor believes."""

import faulthandler
import math
import os
import time

import pytest

from consumer.core.activity import Phase, Stretch
from consumer.core.types import ChunkId
from consumer.transport.board import Activity, Board, Thread, WorkerBoard, create_board

BATCH = [Stretch(ChunkId(2**40), 3, 5), Stretch(ChunkId(7), 0, 1)]


@pytest.fixture
def boards() -> tuple[Board, WorkerBoard]:
    """Make both views of one board; the descriptor goes with the process."""
    fd = create_board()
    return Board(fd), WorkerBoard(fd)


def test_an_activity_is_read_as_it_was_written(boards: tuple[Board, WorkerBoard]) -> None:
    """Each thread has its lane; a shorter activity after a longer one leaves nothing of that behind."""
    ours, theirs = boards
    assert ours.read(Thread.LOOP) == Activity(Phase.BOOT, None, 0.0, 0.0, [])
    before_s = time.monotonic()
    theirs.loop.begin(Phase.INFER, 1.5, "modèle", BATCH)
    theirs.loader.begin(Phase.LOAD, math.inf, "other")
    found = ours.read(Thread.LOOP)
    assert found is not None
    assert before_s <= found.beat_s <= time.monotonic()
    assert found._replace(beat_s=0.0) == Activity(Phase.INFER, "modèle", 0.0, 1.5, BATCH)
    loading = ours.read(Thread.LOADER)
    assert loading is not None
    assert loading[:2] == (Phase.LOAD, "other")
    assert math.isinf(loading.timeout_s)
    for phase in Phase:
        theirs.loop.begin(phase, 2.0)
        found = ours.read(Thread.LOOP)
        assert found is not None
        assert found._replace(beat_s=0.0) == Activity(phase, None, 0.0, 2.0, [])


def test_a_beat_begins_the_time_anew(boards: tuple[Board, WorkerBoard]) -> None:
    """Only the time changes."""
    ours, theirs = boards
    theirs.loop.begin(Phase.INFER, 1.5, "m", BATCH)
    before = ours.read(Thread.LOOP)
    theirs.loop.beat()
    after = ours.read(Thread.LOOP)
    assert before is not None
    assert after is not None
    assert after.beat_s > before.beat_s
    assert after._replace(beat_s=before.beat_s) == before


def test_what_is_too_long_to_be_written_down_is_unknown(boards: tuple[Board, WorkerBoard]) -> None:
    """A batch of more chunks than there is room for is told as unknown, never in part."""
    ours, theirs = boards
    for count, is_known in ((64, True), (65, False)):
        theirs.loop.begin(Phase.INFER, 1.0, "m" * 2000, [Stretch(ChunkId(i), 0, 1) for i in range(count)])
        found = ours.read(Thread.LOOP)
        assert found is not None
        assert (found.running is not None) == is_known
        assert found.model == "m" * 512


def test_half_of_a_word_is_not_believed(boards: tuple[Board, WorkerBoard]) -> None:
    """A worker that died in the middle of writing, or whose model wrote all over it, has said nothing."""
    ours, theirs = boards
    memory = theirs.loop._memory
    theirs.loop.begin(Phase.INFER, 1.0, "m", BATCH)
    memory[0] += 1  # the count is odd while it is being written
    assert ours.read(Thread.LOOP) is None
    memory[0] += 1
    assert ours.read(Thread.LOOP) is not None
    memory[8:2048] = b"\xff" * 2040
    assert ours.read(Thread.LOOP) is None


def test_traces_are_written_beside_the_lanes(boards: tuple[Board, WorkerBoard]) -> None:
    """What faulthandler writes is read as text, is cut where the room ends, and spoils no lane."""
    ours, theirs = boards
    assert ours.traces() == ""
    theirs.loop.begin(Phase.INFER, 1.0, "m", BATCH)
    for _ in range(100):
        try:
            faulthandler.dump_traceback(theirs.traces)
            os.write(theirs.traces, b"-" * 1000)
        except OSError:
            break
    assert "test_traces_are_written_beside_the_lanes" in ours.traces()
    assert len(ours.traces()) <= 60 * 1024
    assert ours.read(Thread.LOOP) is not None
