"""The two threads of a worker that overlaps, with runners that only say what they are told to."""

import select
import threading
from collections.abc import Callable
from typing import Any

import pytest

from consumer.core.activity import Phase, Stretch
from consumer.core.types import ChunkId
from consumer.transport.board import Board, Thread, WorkerBoard, create_board
from consumer.worker.caller import BATCHES_MAX, Job, Overlapped
from consumer.worker.runner import Ended

WAIT_S = 20.0
RUNNING = [Stretch(ChunkId(1), 0, 4)]


class Scene:
    """A second thread, and what the loop hears of it."""

    def __init__(self) -> None:
        fd = create_board()
        self.board = Board(fd)
        self.heard: list[tuple[str, str]] = []
        self.on_passed: Callable[[], object] = lambda: None
        self._fds: list[int] = []
        self.caller = Overlapped(WorkerBoard(fd).caller, self, self._fds.append)

    def passed(self, job: Job, passed: Any) -> None:
        """Hear of a call."""
        self.heard.append((job.model, passed))
        self.on_passed()

    def ended(self, job: Job) -> None:
        """Hear of an end."""
        self.heard.append((job.model, "ended"))

    def begin(self, model: str, infer: Callable[[Callable[[Any], None]], object], *, is_suspect: bool = False) -> None:
        """Begin a batch whose calls are made by a function, which gets what it may tell of them."""

        class Runs:
            """As much of a runner as is called."""

            def infer(self, _batch: object, report: Callable[[Any], None]) -> Ended:
                """Make the calls."""
                infer(report)
                return Ended()

        job: Any = Job(model, Runs(), None, RUNNING, 7.0, is_suspect)  # type: ignore[arg-type]
        self.caller.begin(job)

    def wait(self) -> None:
        """Wait until there is something to be seen, and see it."""
        assert select.select(self._fds, [], [], WAIT_S)[0], "nothing came"
        self.caller.look()

    def settle(self, under_way: int = 0) -> None:
        """Wait until no more batches than this are under way."""
        while len(self.caller._under_way) > under_way:
            self.wait()


def test_calls_are_told_while_the_next_batch_runs() -> None:
    """The second batch begins before the first one's results are encoded, and does not end before that here."""
    scene, is_encoded = Scene(), threading.Event()
    scene.on_passed = is_encoded.set
    scene.begin("a", lambda report: report("first"))
    scene.begin("b", lambda report: report("second") if is_encoded.wait(WAIT_S) else None)
    assert len(scene.caller._under_way) == BATCHES_MAX
    scene.settle(1)
    assert scene.heard == []
    scene.caller.tell()
    scene.settle()
    scene.caller.tell()
    assert scene.heard == [("a", "first"), ("a", "ended"), ("b", "second"), ("b", "ended")]


def test_a_suspect_batch_is_alone() -> None:
    """Nothing is begun beside it, and it is told before anything else can be begun."""
    scene, may_end = Scene(), threading.Event()
    scene.begin("a", lambda _: None)
    with pytest.raises(AssertionError):
        scene.begin("b", lambda _: None, is_suspect=True)
    scene.settle()
    scene.begin("b", lambda _: may_end.wait(WAIT_S), is_suspect=True)
    assert not scene.caller.has_room
    with pytest.raises(AssertionError):
        scene.begin("c", lambda _: None)
    may_end.set()
    scene.settle()
    assert scene.heard == [("a", "ended"), ("b", "ended")]


@pytest.mark.parametrize("error", [SystemExit(3), MemoryError("no")])
def test_what_ends_the_process_is_raised_in_the_loop(error: BaseException) -> None:
    """What a runner does not take for its model's failure comes out where the loop looks."""

    def infer(_report: object) -> None:
        raise error

    scene = Scene()
    scene.begin("a", infer)
    with pytest.raises(type(error)):
        scene.wait()


def test_the_board_names_the_batch_that_runs() -> None:
    """While its calls are made, and not any more when it has ended."""
    scene, has_begun, may_end = Scene(), threading.Event(), threading.Event()

    def infer(_report: object) -> None:
        has_begun.set()
        may_end.wait(WAIT_S)

    scene.begin("a", infer)
    assert has_begun.wait(WAIT_S)
    found = scene.board.read(Thread.CALLER)
    assert found is not None
    assert (found.phase, found.model, found.timeout_s, found.running) == (Phase.INFER, "a", 7.0, RUNNING)
    may_end.set()
    scene.settle()
    found = scene.board.read(Thread.CALLER)
    assert found is not None
    assert (found.phase, found.running) == (Phase.IDLE, [])


def test_more_rings_than_a_pipe_holds_do_no_harm() -> None:
    """A loop that is long at something else hears of every call afterwards."""
    scene, calls, is_told = Scene(), 100_000, threading.Event()

    def infer(report: Callable[[Any], None]) -> None:
        for number in range(calls):
            report(number)
        is_told.set()

    scene.begin("a", infer)
    assert is_told.wait(WAIT_S)
    scene.settle()
    scene.caller.tell()
    assert scene.heard == [*(("a", number) for number in range(calls)), ("a", "ended")]
