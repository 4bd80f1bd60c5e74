"""The lives of a worker, of a model on a worker, and of the supervisor, as tables; and when a worker is started again.

Owns which event may follow which state. Must not know who starts a process, loads a model or drains: it is told what
happened, and says where that leads.

Theory of operation. A table maps state and event to the next state, and is the whole truth: what is not in it cannot
happen. An event that a state has no place for is a programmer's error, found at once and by name, not a state to live
with. The tables have no memory; what must be remembered (when a worker became ready, how often it died) is kept beside
them, in `Restarts`.

    worker       ABSENT -spawned-> STARTING -booted-> READY          (exited: back to ABSENT, from either)
                                   STARTING -boot failed-> UNBOOTABLE, for good
    model        ABSENT -requested-> LOADING -loaded-> READY -broke-> BROKEN -recovered-> READY
                                     LOADING -load failed-> ABSENT   (worker lost: ABSENT, from anywhere)
    supervisor   STARTING -served-> RUNNING -drain asked-> DRAINING -settled-> STOPPED   (failed: STOPPED)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, TypeVar

from annotated_types import Ge, Gt

from consumer.core.retry import backoff_s

State = TypeVar("State", bound=Enum)
Event = TypeVar("Event", bound=Enum)


class TransitionError(AssertionError):
    """Something happened that cannot happen in the present state."""

    def __init__(self, state: Enum, event: Enum) -> None:
        super().__init__(f"{type(state).__name__} {state.name} has no place for {type(event).__name__} {event.name}")


def advance(table: Mapping[State, Mapping[Event, State]], state: State, event: Event) -> State:
    """Follow a table from a state by an event.

    Raises:
        TransitionError: The state has no place for the event.
    """
    following = table[state].get(event)
    if following is None:
        raise TransitionError(state, event)
    return following


class WorkerState(Enum):
    """Where the process of a worker slot is in its life."""

    ABSENT = "absent"
    STARTING = "starting"
    READY = "ready"
    UNBOOTABLE = "unbootable"
    """It cannot boot, and starting it again would not help."""


class WorkerEvent(Enum):
    """What happens to the process of a worker slot."""

    SPAWNED = "spawned"
    BOOTED = "booted"
    EXITED = "exited"
    BOOT_FAILED = "boot-failed"


WORKER: Mapping[WorkerState, Mapping[WorkerEvent, WorkerState]] = {
    WorkerState.ABSENT: {
        WorkerEvent.SPAWNED: WorkerState.STARTING,
    },
    WorkerState.STARTING: {
        WorkerEvent.BOOTED: WorkerState.READY,
        WorkerEvent.EXITED: WorkerState.ABSENT,
        WorkerEvent.BOOT_FAILED: WorkerState.UNBOOTABLE,
    },
    WorkerState.READY: {
        WorkerEvent.EXITED: WorkerState.ABSENT,
    },
    WorkerState.UNBOOTABLE: {},
}


class ModelState(Enum):
    """Where a model is in its life on one worker."""

    ABSENT = "absent"
    LOADING = "loading"
    READY = "ready"
    BROKEN = "broken"
    """It is loaded, and fails even its own probe."""


class ModelEvent(Enum):
    """What happens to a model on one worker."""

    REQUESTED = "requested"
    LOADED = "loaded"
    LOAD_FAILED = "load-failed"
    BROKE = "broke"
    RECOVERED = "recovered"
    WORKER_LOST = "worker-lost"


MODEL: Mapping[ModelState, Mapping[ModelEvent, ModelState]] = {
    ModelState.ABSENT: {
        ModelEvent.REQUESTED: ModelState.LOADING,
        ModelEvent.WORKER_LOST: ModelState.ABSENT,
    },
    ModelState.LOADING: {
        ModelEvent.LOADED: ModelState.READY,
        ModelEvent.LOAD_FAILED: ModelState.ABSENT,
        ModelEvent.WORKER_LOST: ModelState.ABSENT,
    },
    ModelState.READY: {
        ModelEvent.BROKE: ModelState.BROKEN,
        ModelEvent.RECOVERED: ModelState.READY,  # probed, since workers died of it
        ModelEvent.WORKER_LOST: ModelState.ABSENT,
    },
    ModelState.BROKEN: {
        ModelEvent.BROKE: ModelState.BROKEN,
        ModelEvent.RECOVERED: ModelState.READY,
        ModelEvent.WORKER_LOST: ModelState.ABSENT,
    },
}


class SupervisorState(Enum):
    """Where the program is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"


class SupervisorEvent(Enum):
    """What happens to the program."""

    SERVED = "served"
    """A worker is ready for the first time."""
    DRAIN_ASKED = "drain-asked"
    SETTLED = "settled"
    """While draining: nothing is in flight, and everything is committed."""
    FAILED = "failed"


SUPERVISOR: Mapping[SupervisorState, Mapping[SupervisorEvent, SupervisorState]] = {
    SupervisorState.STARTING: {
        SupervisorEvent.SERVED: SupervisorState.RUNNING,
        SupervisorEvent.DRAIN_ASKED: SupervisorState.DRAINING,
        SupervisorEvent.FAILED: SupervisorState.STOPPED,
    },
    SupervisorState.RUNNING: {
        SupervisorEvent.DRAIN_ASKED: SupervisorState.DRAINING,
        SupervisorEvent.FAILED: SupervisorState.STOPPED,
    },
    SupervisorState.DRAINING: {
        SupervisorEvent.DRAIN_ASKED: SupervisorState.DRAINING,
        SupervisorEvent.SETTLED: SupervisorState.STOPPED,
        SupervisorEvent.FAILED: SupervisorState.STOPPED,
    },
    SupervisorState.STOPPED: {},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartOptions:
    """How soon a worker that died is started again."""

    backoff_s: Annotated[float, Gt(0)] = 0.1
    """Seconds before the first restart; doubled with each further death in a row."""
    backoff_s_max: Annotated[float, Gt(0)] = 30.0
    """Longest wait before a restart, in seconds."""
    stable_s: Annotated[float, Ge(0)] = 60.0
    """Seconds that a worker has to live for its death to count as a first one."""


class Restarts:
    """The deaths of one worker slot in a row, and so the wait before its next start."""

    def __init__(self, options: RestartOptions) -> None:
        self._options = options
        self._ready_s: float | None = None
        self._deaths = 0

    def booted(self, now: float) -> None:
        """Take note that the worker has become ready."""
        self._ready_s = now

    def died(self, now: float) -> float:
        """Take note that the worker is gone; say when it is started again."""
        if self._ready_s is not None and now - self._ready_s >= self._options.stable_s:
            self._deaths = 0
        self._ready_s = None
        self._deaths += 1
        return now + backoff_s(self._deaths, self._options.backoff_s, self._options.backoff_s_max)
