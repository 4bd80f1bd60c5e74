"""Who calls the models: the loop itself, or a thread of its own beside it.

Owns the hand-over between the two: batches that are decoded in, calls that passed and batches that ended out. Must not
know what is in a batch, when one is due, or who is told.

Theory of operation. A worker with a core to spare overlaps: while one batch's calls are made by the second thread, the
loop encodes those that have passed, answers, and decodes the batch after it, which then waits, so that the device goes
on at once. At most `BATCHES_MAX` are under way. Records of which one may end the process are begun when nothing else is
under way, and told before anything else is begun: the board names them alone then. A worker with a single core runs
straight, the same steps in one thread: two would only take turns, and each turn costs.
"""

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final, NamedTuple, Protocol

from consumer.core.activity import Phase, Stretch
from consumer.core.types import ModelId
from consumer.transport.board import Lane
from consumer.worker.runner import Decoded, Ended, Passed, Runner
from consumer.worker.waits import CoreWaits

BATCHES_MAX: Final = 2
"""Batches under way: one that runs, and one that is ready when it has ended."""


@dataclass(slots=True, eq=False)
class Job:
    """A batch under way."""

    model: ModelId
    runner: Runner
    batch: Decoded
    running: Sequence[Stretch]
    """Its records."""
    timeout_s: float
    """How long each of its calls may take."""
    is_suspect: bool
    """One of its records may have ended a worker."""
    ended: Ended | None = None
    took_s: float | None = None
    """Seconds of its calls, less those that the thread waited for a core; None where the loop made them."""


class Listener(Protocol):
    """Who hears what becomes of batches, in the loop's thread."""

    def passed(self, job: Job, passed: Passed) -> None:
        """Hear of a call that passed."""

    def ended(self, job: Job) -> None:
        """Hear that a batch has ended, after all of its calls that passed."""


class Caller(Protocol):
    """Calls models, in whichever thread. Every method is the loop thread's."""

    beat: Callable[[], None]
    """Shows that the calls go on; for whoever makes them, before each."""

    @property
    def is_idle(self) -> bool:
        """Tell whether no batch is under way."""

    @property
    def has_room(self) -> bool:
        """Tell whether another batch may be begun."""

    def begin(self, job: Job) -> None:
        """Begin a batch.

        Raises:
            DeviceLostError: The process cannot go on.
        """

    def look(self) -> None:
        """See what has become of batches.

        Raises:
            DeviceLostError: The process cannot go on.
        """

    def tell(self) -> None:
        """Tell what was seen."""


class Straight:
    """The loop's own thread."""

    is_idle = True
    has_room = True

    def __init__(self, lane: Lane, listener: Listener) -> None:
        """Take where the loop writes down what it does, and who hears of batches."""
        self.beat = lane.beat
        self._listener = listener

    def begin(self, job: Job) -> None:
        """Run a batch, and tell what becomes of it."""
        job.ended = job.runner.infer(job.batch, lambda passed: self._listener.passed(job, passed))
        self._listener.ended(job)

    def look(self) -> None:
        """Do nothing: all is told."""

    def tell(self) -> None:
        """Do nothing: all is told."""


class _News(NamedTuple):
    """What the second thread says."""

    job: Job
    passed: Passed | None
    """A call that passed; None at the batch's end."""
    error: BaseException | None = None
    """What the process is to end with."""


class Overlapped:
    """A second thread."""

    def __init__(self, lane: Lane, listener: Listener, listen: Callable[[int], None]) -> None:
        """Start it.

        Args:
            lane: Where it writes down what it does.
            listener: Hears of batches.
            listen: Is told of a descriptor; when there is something to read, there is something to be looked at.
        """
        self.beat = lane.beat
        self._lane = lane
        self._listener = listener
        self._begun: SimpleQueue[Job] = SimpleQueue()
        self._news: SimpleQueue[_News] = SimpleQueue()
        self._seen: deque[_News] = deque()
        """News that is not told yet."""
        self._under_way: list[Job] = []
        self._hear, self._ring = os.pipe()
        for each in (self._hear, self._ring):
            os.set_blocking(each, False)
        listen(self._hear)
        threading.Thread(target=self._serve, name="caller", daemon=True).start()

    @property
    def is_idle(self) -> bool:
        """Tell whether no batch is under way."""
        return not self._under_way

    @property
    def has_room(self) -> bool:
        """Tell whether another batch may be begun."""
        return len(self._under_way) < BATCHES_MAX and not any(job.is_suspect for job in self._under_way)

    def begin(self, job: Job) -> None:
        """Have the second thread run a batch next."""
        assert self.has_room, "two batches at a time, and a suspect one alone"
        assert self.is_idle or not job.is_suspect, "a suspect batch alone"
        self._under_way.append(job)
        self._begun.put(job)

    def look(self) -> None:
        """See what has become of batches; what the thread raised is raised here."""
        with suppress(BlockingIOError):
            os.read(self._hear, 4096)
        with suppress(Empty):
            while True:
                news = self._news.get_nowait()
                if news.error is not None:
                    raise news.error
                self._seen.append(news)
                if news.passed is None:
                    self._under_way.remove(news.job)
                    if news.job.is_suspect or (news.job.ended is not None and news.job.ended.failure is not None):
                        self.tell()  # before another is begun: what follows from it may change which

    def tell(self) -> None:
        """Tell what was seen: mostly when the next batch is begun, so that the device does not wait for it."""
        while self._seen:
            job, passed, _ = self._seen.popleft()
            if passed is None:
                self._listener.ended(job)
            else:
                self._listener.passed(job, passed)

    # -- the second thread

    def _serve(self) -> None:
        """Run one batch after the other."""
        waits = CoreWaits()
        while True:
            job = self._begun.get()
            began_s, began_waits_s = time.monotonic(), waits.seconds()
            self._lane.begin(Phase.INFER, job.timeout_s, job.model, job.running)
            error = self._run(job)
            self._lane.begin(Phase.IDLE, math.inf)
            job.took_s = time.monotonic() - began_s - (waits.seconds() - began_waits_s)
            self._say(_News(job, None, error))

    def _run(self, job: Job) -> BaseException | None:
        """Run a batch; return what the process is to end with, if anything."""
        try:
            job.ended = job.runner.infer(job.batch, lambda passed: self._say(_News(job, passed)))
        except BaseException as error:  # noqa: BLE001 - kept, and raised in the loop's thread
            return error
        return None

    def _say(self, news: _News) -> None:
        """Tell the loop's thread something, and wake it."""
        self._news.put(news)
        with suppress(BlockingIOError):  # full of rings that nobody has heard yet
            os.write(self._ring, b"\0")
