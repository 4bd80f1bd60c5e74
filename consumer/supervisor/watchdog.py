"""Whether a worker still does what it should, and the end of one that does not.

Owns the judgement on what the board says, and the steps from there to SIGKILL: stack traces asked for, waited for, then
the kill. Must not know processes or channels: it says what is to be done, the pool does it.

Theory of operation. A worker says on its board how long each thing may take, so nothing about models is known here. A
deadline is only held against a worker for as long as this process was awake itself: when both were stopped (a paused
container, a suspended laptop), every clock in the worker looks late at once.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Final

from consumer.core.activity import Overdue, Phase, Stretch
from consumer.core.types import ChunkId, ModelId
from consumer.transport.board import Activity, Board, Thread

TRACES_TIMEOUT_S: Final = 2.0
"""How long a worker may take to write its stack traces down, before it is killed without."""

ASLEEP_S: Final = 5.0
"""A pause between two looks after which this process counts as having been stopped."""


class Step(Enum):
    """What is to be done with a worker."""

    NOTHING = "nothing"
    ASK = "ask"
    """Have it write its stack traces down."""
    KILL = "kill"


class Watch:
    """The watch over one worker, from its start on."""

    def __init__(self, board: Board, boot_timeout_s: float, now_s: float) -> None:
        """Begin to watch a worker that has just been started.

        Args:
            board: Where it writes down what it does.
            boot_timeout_s: How long it may take to start.
            now_s: Monotonic seconds, as everywhere here.
        """
        self._board = board
        self._boot_timeout_s = boot_timeout_s
        self._born_s = self._awake_since_s = self._looked_s = now_s
        self._asked_s = 0.0
        self._traces_from = self._traces_size = 0
        self.overdue: Overdue | None = None
        """What the worker takes too long for."""

    def look(self, now_s: float, *, is_ready: bool) -> Step:
        """Judge a worker whose process is there; `is_ready` says that it has started."""
        if now_s - self._looked_s > ASLEEP_S:
            self._awake_since_s = now_s
        self._looked_s = now_s
        overdue = self._find_overdue(now_s, is_ready=is_ready)
        if overdue is None and self.overdue is None:
            return Step.NOTHING
        size, before = len(self._board.traces()), self._traces_size
        self._traces_size = size
        if overdue is None or self.overdue is None:
            self.overdue, self._asked_s, self._traces_from = overdue, now_s, size
            return Step.NOTHING if overdue is None else Step.ASK
        is_written = self._traces_from < size == before
        return Step.KILL if is_written or now_s >= self._asked_s + TRACES_TIMEOUT_S else Step.NOTHING

    def traces(self) -> str:
        """Read the stack traces, "" where there are none: those asked for last, or those of a crash."""
        return self._board.traces()[self._traces_from :].rstrip("\n")

    def running(self) -> list[Stretch] | None:
        """Name the records of the batches that a worker which has ended ran; None where that is not known.

        They are of one batch, or of two where one was decoded or encoded while the other's calls were made.
        """
        loop, caller = self._board.read(Thread.LOOP), self._board.read(Thread.CALLER)
        if loop is None or loop.phase is Phase.BOOT or loop.running is None:
            return None
        if caller is None or caller.running is None:
            return None
        return _joined([*loop.running, *caller.running])

    def loading(self) -> list[ModelId] | None:
        """Name the models that a worker which has ended loaded or probed; None where that is not known."""
        activities = [self._board.read(thread) for thread in (Thread.LOOP, Thread.LOADER)]
        known = [each for each in activities if each is not None and each.phase is not Phase.BOOT]
        if len(known) < len(activities):
            return None
        return [each.model for each in known if each.phase in {Phase.LOAD, Phase.PROBE} and each.model is not None]

    def busy_s(self, now_s: float) -> dict[ModelId, float]:
        """Say how long a worker that has ended had been at a model's batch, load or probe without a sign of life."""
        found: dict[ModelId, float] = {}
        for each in (self._board.read(thread) for thread in Thread):
            if each is not None and each.model is not None and each.phase in {Phase.LOAD, Phase.PROBE, Phase.INFER}:
                busy_s = max(0.0, min(now_s - each.beat_s, now_s - self._born_s))
                found[each.model] = max(found.get(each.model, 0.0), busy_s)
        return found

    def is_leaving(self) -> bool:
        """Tell whether the worker wanted to end."""
        activity = self._board.read(Thread.LOOP)
        return activity is not None and activity.phase is Phase.LEAVE

    def _find_overdue(self, now_s: float, *, is_ready: bool) -> Overdue | None:
        if not is_ready:
            is_late = now_s - self._awake_since_s > self._boot_timeout_s
            return Overdue(Phase.BOOT, None, self._boot_timeout_s) if is_late else None
        loader, caller, loop = map(self._board.read, (Thread.LOADER, Thread.CALLER, Thread.LOOP))
        for each in (loader, caller):
            if each is not None and self._is_late(each, now_s):
                return Overdue(each.phase, each.model, each.timeout_s)
        is_kept = (loader is not None and loader.phase is Phase.LOAD) or (
            caller is not None and caller.phase is Phase.INFER
        )
        # Code that keeps the interpreter to itself stops the loop, too: its own deadline ends that.
        if loop is None or (is_kept and loop.phase not in {Phase.INFER, Phase.PROBE}):
            return None
        return Overdue(loop.phase, loop.model, loop.timeout_s) if self._is_late(loop, now_s) else None

    def _is_late(self, activity: Activity, now_s: float) -> bool:
        if activity.phase is Phase.BOOT:
            return False  # it is ready, but has not begun to write yet
        return now_s - max(activity.beat_s, self._awake_since_s) > activity.timeout_s


def _joined(running: Sequence[Stretch]) -> list[Stretch]:
    """Make one stretch of those of one chunk; what lies between two is named as well."""
    ends: dict[ChunkId, tuple[int, int]] = {}
    for chunk, first, count in ((each.chunk, each.first, each.count) for each in running):
        known_first, known_stop = ends.get(chunk, (first, first))
        ends[chunk] = min(known_first, first), max(known_stop, first + count)
    return [Stretch(chunk, first, stop - first) for chunk, (first, stop) in ends.items()]
