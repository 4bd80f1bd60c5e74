"""The judgement on workers, with a real board and a clock that the test turns."""

import math
import os

import pytest

from consumer.core.activity import Overdue, Phase, Stretch
from consumer.core.types import ChunkId
from consumer.supervisor import watchdog
from consumer.supervisor.watchdog import Step, Watch
from consumer.transport.board import Board, WorkerBoard, create_board

BOOT_TIMEOUT_S = 20.0
BATCH = [Stretch(ChunkId(1), 0, 8)]


class Scene:
    """One worker, its watch and the time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        monkeypatch.setattr("consumer.transport.board.time.monotonic", lambda: self.now_s)
        fd = create_board()
        self.watch = Watch(Board(fd), BOOT_TIMEOUT_S, self.now_s)
        self.worker = WorkerBoard(fd)

    def look(self, after_s: float, *, is_ready: bool = True) -> Step:
        """Let time pass, in steps as the pool makes them, and return what is to be done at the end."""
        end_s = self.now_s + after_s
        step = Step.NOTHING
        while self.now_s < end_s and step is Step.NOTHING:
            self.now_s = min(end_s, self.now_s + 0.5)
            step = self.watch.look(self.now_s, is_ready=is_ready)
        return step


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Start a worker."""
    return Scene(monkeypatch)


def test_a_batch_that_takes_too_long_is_asked_for_its_stack_and_killed(scene: Scene) -> None:
    """Not before its time; then it is asked at once, and killed two seconds later if it says nothing."""
    scene.worker.loop.begin(Phase.INFER, 10.0, "m", BATCH)
    assert scene.look(10.0) is Step.NOTHING
    assert scene.look(0.5) is Step.ASK
    assert scene.watch.overdue == Overdue(Phase.INFER, "m", 10.0)
    assert scene.look(1.5) is Step.NOTHING
    assert scene.look(0.5) is Step.KILL
    assert scene.watch.running() == BATCH


def test_traces_that_are_there_are_not_waited_for(scene: Scene) -> None:
    """Once they do not grow any more, the worker is killed."""
    scene.worker.loop.begin(Phase.INFER, 1.0, "m", BATCH)
    assert scene.look(2.0) is Step.ASK
    os.write(scene.worker.traces, b"Thread 1\n")
    assert scene.look(0.1) is Step.NOTHING
    os.write(scene.worker.traces, b"Thread 2\n")
    assert scene.look(0.1) is Step.NOTHING
    assert scene.look(0.1) is Step.KILL
    assert scene.watch.traces() == "Thread 1\nThread 2"


def test_a_worker_that_goes_on_after_all_is_forgiven(scene: Scene) -> None:
    """Also between the question and the kill; a later batch has its own time."""
    scene.worker.loop.begin(Phase.INFER, 1.0, "m", BATCH)
    assert scene.look(2.0) is Step.ASK
    scene.worker.loop.beat()
    assert scene.look(1.0) is Step.NOTHING
    assert scene.watch.overdue is None
    assert scene.look(0.5) is Step.ASK
    assert scene.look(1.5) is Step.NOTHING


def test_traces_of_a_worker_that_was_forgiven_are_not_taken_for_its_next(scene: Scene) -> None:
    """It is asked anew, and has the time to answer; what it wrote before is not shown again."""
    scene.worker.loop.begin(Phase.INFER, 1.0, "m", BATCH)
    assert scene.look(2.0) is Step.ASK
    os.write(scene.worker.traces, b"Thread 1\n")
    scene.worker.loop.beat()
    assert scene.look(0.5) is Step.NOTHING
    assert scene.watch.traces() == ""
    assert scene.look(1.0) is Step.ASK
    assert scene.look(1.5) is Step.NOTHING
    os.write(scene.worker.traces, b"Thread 2\n")
    assert scene.look(0.1) is Step.NOTHING
    assert scene.look(0.1) is Step.KILL
    assert scene.watch.traces() == "Thread 2"


def test_a_load_has_its_own_time_and_excuses_a_loop_that_waits(scene: Scene) -> None:
    """Loading code may keep the interpreter to itself; a batch that runs beside it is judged nevertheless."""
    scene.worker.loader.begin(Phase.LOAD, 50.0, "b")
    scene.worker.loop.begin(Phase.IDLE, 5.0)
    assert scene.look(49.0) is Step.NOTHING
    assert scene.look(2.0) is Step.ASK
    assert scene.watch.overdue == Overdue(Phase.LOAD, "b", 50.0)
    assert scene.watch.loading() == ["b"]
    scene.worker.loader.begin(Phase.LOAD, 50.0, "b")
    scene.worker.loop.begin(Phase.INFER, 5.0, "m", BATCH)
    assert scene.look(0.5) is Step.NOTHING
    assert scene.look(6.0) is Step.ASK
    assert scene.watch.overdue == Overdue(Phase.INFER, "m", 5.0)


def test_a_batch_of_the_second_thread_is_judged_and_excuses_a_loop_that_waits(scene: Scene) -> None:
    """A call may keep the interpreter to itself for as long as it may take; decoding beside it has its own time."""
    scene.worker.loader.begin(Phase.IDLE, math.inf)
    scene.worker.caller.begin(Phase.INFER, 50.0, "m", BATCH)
    scene.worker.loop.begin(Phase.IDLE, 5.0)
    assert scene.look(49.0) is Step.NOTHING
    assert scene.look(2.0) is Step.ASK
    assert scene.watch.overdue == Overdue(Phase.INFER, "m", 50.0)
    assert scene.watch.loading() == []
    scene.worker.caller.begin(Phase.INFER, 50.0, "m", BATCH)
    scene.worker.loop.begin(Phase.INFER, 5.0, "n", BATCH)
    assert scene.look(0.5) is Step.NOTHING
    assert scene.look(6.0) is Step.ASK
    assert scene.watch.overdue == Overdue(Phase.INFER, "n", 5.0)


def test_the_batches_of_both_threads_are_named(scene: Scene) -> None:
    """Records of one chunk in two batches are one stretch of it; a lane that was being written names nothing."""
    scene.worker.caller.begin(Phase.INFER, 5.0, "m", [Stretch(ChunkId(1), 0, 4), Stretch(ChunkId(2), 0, 2)])
    scene.worker.loop.begin(Phase.INFER, 5.0, "m", [Stretch(ChunkId(2), 2, 3), Stretch(ChunkId(3), 0, 1)])
    assert sorted(scene.watch.running() or [], key=lambda each: each.chunk) == [
        Stretch(ChunkId(1), 0, 4),
        Stretch(ChunkId(2), 0, 5),
        Stretch(ChunkId(3), 0, 1),
    ]
    assert scene.watch.busy_s(scene.now_s + 2.0) == {"m": 2.0}
    scene.worker.caller.begin(Phase.INFER, 5.0, "m", [Stretch(ChunkId(number), 0, 1) for number in range(100)])
    assert scene.watch.running() is None


def test_a_start_has_its_time(scene: Scene) -> None:
    """A worker that does not become ready is killed; one that is, and has not written anything yet, is not."""
    assert scene.look(BOOT_TIMEOUT_S, is_ready=False) is Step.NOTHING
    assert scene.look(0.5, is_ready=False) is Step.ASK
    assert scene.watch.overdue == Overdue(Phase.BOOT, None, BOOT_TIMEOUT_S)
    assert scene.look(100.0, is_ready=True) is Step.NOTHING
    assert (scene.watch.running(), scene.watch.loading()) == (None, None)


def test_time_in_which_this_process_was_stopped_does_not_count(scene: Scene) -> None:
    """After a pause of both, the worker gets its whole time again."""
    scene.worker.loop.begin(Phase.INFER, 10.0, "m", BATCH)
    scene.look(2.0)
    scene.now_s += 3600.0
    assert scene.watch.look(scene.now_s, is_ready=True) is Step.NOTHING
    assert scene.look(10.0) is Step.NOTHING
    assert scene.look(0.5) is Step.ASK


def test_a_pause_is_longer_than_any_wait_between_two_looks() -> None:
    """Else every look would forgive everything."""
    from consumer.supervisor import pool

    assert watchdog.ASLEEP_S > 2 * pool.LOOK_INTERVAL_S


def test_the_time_that_a_worker_was_busy_is_told_by_model(scene: Scene) -> None:
    """Of a batch, a load or a probe, not of waiting; a clock gone mad cannot make it longer than life."""
    scene.worker.loader.begin(Phase.LOAD, 50.0, "b")
    scene.now_s += 3.0
    scene.worker.loop.begin(Phase.INFER, 5.0, "m", BATCH)
    assert scene.watch.busy_s(scene.now_s + 2.0) == {"b": 5.0, "m": 2.0}
    scene.worker.loop.begin(Phase.IDLE, 5.0)
    assert scene.watch.busy_s(scene.now_s) == {"b": 3.0}
    scene.now_s = -1e9
    scene.worker.loader.begin(Phase.LOAD, 50.0, "b")
    assert scene.watch.busy_s(1004.0) == {"b": 4.0}
    scene.now_s = math.nan
    scene.worker.loader.begin(Phase.LOAD, 50.0, "b")
    assert scene.watch.busy_s(1004.0) == {"b": 0.0}


def test_a_worker_that_leaves_says_so(scene: Scene) -> None:
    """Only in its own words."""
    scene.worker.loop.begin(Phase.IDLE, 5.0)
    assert not scene.watch.is_leaving()
    scene.worker.loop.begin(Phase.LEAVE, 5.0)
    assert scene.watch.is_leaving()
    assert scene.watch.running() == []
