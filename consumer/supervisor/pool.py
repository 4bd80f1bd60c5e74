"""The worker processes: started, talked to, watched and ended.

Owns processes and channels, and turns what happens to them into events. Decides nothing: which worker is started when,
what it loads and which chunk it gets, the core says. Must not know topics, offsets or models beyond their names.
"""

import os
import selectors
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Annotated, Final, Generic, Self, TypeVar

import structlog
from annotated_types import Gt

from consumer.core.actions import Dispatch, Load, Probe, Release, Spawn
from consumer.core.events import Event, WorkerExited, WorkerReady
from consumer.core.types import Chunk, Headers, WorkerId
from consumer.errors import ExitCode
from consumer.supervisor.watchdog import Step, Watch
from consumer.transport.board import TRACE_SIGNAL
from consumer.transport.channel import Channel, ChannelBrokenError, ChannelClosedError, ChannelOptions
from consumer.transport.controls import LoadModel, ProbeModel
from consumer.transport.ends import WorkerEnds
from consumer.transport.spawn import spawn

Spec = TypeVar("Spec")

LINGER_S: Final = 2.0
"""How long a process may still be there after its end of the channel was closed."""

LOOK_INTERVAL_S: Final = 0.5
"""How often processes are looked at, though nothing was heard: one may hang, or leave a grandchild that keeps the
descriptors open that would tell of its end."""

TRACES_INTERVAL_S: Final = 0.1
"""How often they are looked at while one writes its stack traces down."""

REAP_TIMEOUT_S: Final = 5.0
"""How long a process may take to vanish after SIGKILL: a GPU driver may hold it."""

CONTENT_TYPE: Final = "content-type"

_log = structlog.get_logger("consumer.pool")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """How long workers may take."""

    boot_timeout_s: Annotated[float, Gt(0)] = 180.0
    """How long a worker may take to be ready; then it is killed."""
    stop_timeout_s: Annotated[float, Gt(0)] = 10.0
    """How long workers may take to end by themselves when the program stops; then they are killed."""


@dataclass(frozen=True, slots=True)
class Launch(Generic[Spec]):
    """What the worker of one slot is started with."""

    spec: Spec
    """First argument of the entry function; anything that can be pickled."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that have to be set before the process starts."""


@dataclass(slots=True)
class _Member:
    worker: WorkerId
    slot: int
    process: SpawnProcess
    channel: Channel
    watch: Watch
    is_ready: bool = False
    is_open: bool = True
    """Its end of the channel is not known to be closed."""
    kill_at_s: float | None = None
    killed_s: float | None = None
    """When it was killed; it is waited for, but not for ever."""

    def kill(self, now_s: float) -> None:
        """End its process, once."""
        if self.killed_s is None:
            self.killed_s = now_s
            self.process.kill()


class Pool(Generic[Spec]):
    """Performs the core's actions on workers and gathers their events. A context manager: leaving it ends them all."""

    def __init__(
        self,
        entry: Callable[[Spec, WorkerEnds], None],
        launches: Sequence[Launch[Spec]],
        options: PoolOptions,
        channel_options: ChannelOptions,
    ) -> None:
        """Start nothing yet.

        Args:
            entry: What a worker runs: a function of an importable module, which answers `Ready` once it takes work.
            launches: One for each slot.
            options: Limits.
            channel_options: Sizes of the memory shared with each worker.
        """
        self._entry = entry
        self._launches = launches
        self._options = options
        self._channel_options = channel_options
        self._members: dict[WorkerId, _Member] = {}
        self._abandoned: list[_Member] = []
        """Told as gone, though their processes are still there."""
        self._selector = selectors.DefaultSelector()
        self._events: list[Event] = []
        self._look_at_s = 0.0

    def __enter__(self) -> Self:
        """Return the pool itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every worker."""
        self.stop()

    def watch(self, descriptor: int) -> None:
        """Have `wait` return, too, when this descriptor is readable."""
        self._selector.register(descriptor, selectors.EVENT_READ, None)

    def perform(self, action: Spawn | Load | Probe | Dispatch | Release) -> None:
        """Do what the core asks for. What is meant for a worker that is gone is dropped: its exit is told soon."""
        if isinstance(action, Spawn):
            self._spawn(action.slot, action.worker)
            return
        member = self._members.get(action.worker)
        if member is None:
            return
        try:
            match action:
                case Dispatch(_, chunk):
                    member.channel.send_chunk(chunk, _content_types(chunk))
                case Release(_, chunk_id):
                    member.channel.release(chunk_id)
                case Load(_, model):
                    member.channel.send(LoadModel(model))
                case Probe(_, model):
                    member.channel.send(ProbeModel(model))
        except ChannelClosedError:
            self._part(member)

    def wait(self, timeout_s: float) -> list[Event]:
        """Return what happened, waiting for something up to `timeout_s`, or less; 0 looks without waiting."""
        if self._events:
            timeout_s = 0.0
        elif self._members:
            timeout_s = min(timeout_s, max(0.0, self._look_at_s - time.monotonic()))
        events, self._events = self._events, []
        for key, _ in self._selector.select(timeout_s):
            member: _Member | None = key.data
            if member is None:
                continue  # somebody else's descriptor: it only ends the wait
            if key.fileobj is member.channel.connection:
                events += self._receive(member)
            else:
                self._look_at_s = 0.0
        now_s = time.monotonic()
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + LOOK_INTERVAL_S
            for member in [*self._members.values()]:
                events += self._look(member, now_s)
        return events

    def stop(self) -> bool:
        """End every worker, in bounded time: by end of file, and after `stop_timeout_s` by SIGKILL.

        Returns:
            False if a process is still there (a driver that hangs may hold it). The interpreter would wait for it at
            its end, so the program then has to be left with `os._exit`.
        """
        members = [*self._members.values(), *self._abandoned]
        self._members.clear()
        self._abandoned.clear()
        self._selector.close()
        for member in members:
            member.channel.close()
        left = _join(members, self._options.stop_timeout_s)
        for member in left:
            _log.warning("worker.killed", worker=member.worker, slot=member.slot, reason="did not end in time")
            member.process.kill()
        left = _join(left, REAP_TIMEOUT_S)
        for member in left:
            _log.error("worker.abandoned", worker=member.worker, slot=member.slot, pid=member.process.pid)
        return not left

    def _spawn(self, slot: int, worker: WorkerId) -> None:
        launch = self._launches[slot]
        channel = None
        try:
            channel = Channel(worker, self._channel_options)
            process = spawn(
                self._entry, launch.spec, channel.ends, environment=launch.environment, name=f"worker-{slot}"
            )
        except OSError as error:
            # Descriptors or memory may be short for a while only: the core tries again later.
            _log.error("worker.not_started", worker=worker, slot=slot, error=str(error))
            self._events.append(WorkerExited(worker, None))
            if channel is not None:
                channel.close_ends()
                channel.close()
            return
        channel.close_ends()
        watch = Watch(channel.board, self._options.boot_timeout_s, time.monotonic())
        member = _Member(worker, slot, process, channel, watch)
        self._members[worker] = member
        self._selector.register(channel.connection, selectors.EVENT_READ, member)
        self._selector.register(process.sentinel, selectors.EVENT_READ, member)

    def _receive(self, member: _Member) -> list[Event]:
        """Take what a worker said; nothing more once its end is closed."""
        try:
            events = member.channel.receive()
        except ChannelClosedError:
            self._part(member)
            return []
        except ChannelBrokenError as error:
            _log.error("worker.distrusted", worker=member.worker, slot=member.slot, error=str(error))
            member.kill(time.monotonic())
            self._part(member)
            return []
        member.is_ready = member.is_ready or any(isinstance(event, WorkerReady) for event in events)
        return events

    def _part(self, member: _Member) -> None:
        """Listen to a worker no more: it is ending, or has to."""
        if not member.is_open:
            return
        member.is_open = False
        member.kill_at_s = time.monotonic() + LINGER_S
        self._selector.unregister(member.channel.connection)
        self._look_at_s = 0.0

    def _look(self, member: _Member, now_s: float) -> list[Event]:
        """See whether a worker's process still is there and does what it should, and kill it where it should not be."""
        exit_code = member.process.exitcode
        if exit_code is not None:
            return self._bury(member, exit_code)
        if member.killed_s is not None:
            return self._abandon(member) if now_s >= member.killed_s + REAP_TIMEOUT_S else []
        if member.kill_at_s is not None:
            if now_s >= member.kill_at_s:
                _log.warning("worker.killed", worker=member.worker, slot=member.slot, reason="closed its channel")
                member.kill(now_s)
            return []
        step = member.watch.look(now_s, is_ready=member.is_ready)
        if step is Step.ASK:
            assert member.process.pid is not None, "a process that was started has a number"
            os.kill(member.process.pid, TRACE_SIGNAL)
        elif step is Step.KILL:
            _log.error("worker.hung", **_described(member), stack=member.watch.traces() or "none: it takes no signals")
            member.kill(now_s)
        if member.watch.overdue is not None:
            self._look_at_s = now_s + TRACES_INTERVAL_S
        return []

    def _bury(self, member: _Member, exit_code: int) -> list[Event]:
        """Tell what a worker said before its process ended, and that it is gone."""
        events: list[Event] = []
        while member.is_open and (received := self._receive(member)):
            events += received
        if exit_code < 0 and member.watch.overdue is None and (stack := member.watch.traces()):
            _log.error("worker.crashed", worker=member.worker, slot=member.slot, stack=stack)
        self._part(member)
        self._forget(member)
        member.process.close()
        return [*events, _exit(member, exit_code, _boot_failure(member, exit_code))]

    def _abandon(self, member: _Member) -> list[Event]:
        """Tell that a worker is gone whose process does not go: a driver that hangs holds it."""
        _log.error("worker.abandoned", worker=member.worker, slot=member.slot, pid=member.process.pid)
        self._part(member)
        self._forget(member)
        self._abandoned.append(member)
        return [_exit(member, None, None)]

    def _forget(self, member: _Member) -> None:
        """Have no more to do with a worker."""
        self._selector.unregister(member.process.sentinel)
        member.channel.close()
        del self._members[member.worker]


def _exit(member: _Member, exit_code: int | None, boot_failure: str | None) -> WorkerExited:
    """Say that a worker is gone, and what it was doing."""
    watch = member.watch
    return WorkerExited(
        worker=member.worker,
        exit_code=exit_code,
        boot_failure=boot_failure,
        running=watch.running(),
        loading=watch.loading(),
        overdue=watch.overdue if member.killed_s is not None else None,
        is_planned=exit_code == 0 and watch.is_leaving(),
        busy_s=watch.busy_s(time.monotonic()),
    )


def _described(member: _Member) -> dict[str, object]:
    """Describe a worker that takes too long, for the log."""
    overdue = member.watch.overdue
    assert overdue is not None, "a worker is killed for something"
    return {
        "worker": member.worker,
        "slot": member.slot,
        "phase": overdue.phase.value,
        "model": overdue.model,
        "timeout_s": overdue.timeout_s,
    }


def _boot_failure(member: _Member, exit_code: int) -> str | None:
    """Tell why a restart would not help: the worker said so, or ended by itself before it was ready."""
    if member.channel.boot_failure is not None:
        return member.channel.boot_failure
    if exit_code == ExitCode.WORKER_BOOT or (exit_code > 0 and not member.is_ready):
        return f"it ended with exit code {exit_code} before it was ready; standard error has the reason"
    return None


def _join(members: Iterable[_Member], timeout_s: float) -> list[_Member]:
    """Wait for processes to end and return those that did not."""
    deadline_s = time.monotonic() + timeout_s
    left: list[_Member] = []
    for member in members:
        member.process.join(max(0.0, deadline_s - time.monotonic()))
        if member.process.exitcode is None:
            left.append(member)
        else:
            member.process.close()
    return left


def _content_types(chunk: Chunk) -> list[str | None] | None:
    """Read the records' content types; None where none has one, as is usual."""
    if all(run.headers is None for run in chunk.runs):
        return None
    column: list[str | None] = []
    for run in chunk.runs:
        column += [None] * len(run) if run.headers is None else map(_content_type, run.headers)
    return column if any(column) else None


def _content_type(headers: Headers | None) -> str | None:
    """Take the last of a record's content types, as Kafka's own clients do."""
    for name, value in reversed(headers or ()):
        if name == CONTENT_TYPE and value is not None:
            return value.decode("utf-8", "replace")
    return None
