"""The one loop of the supervisor: gather what happened, ask the core, perform what it says.

Owns the order of a turn and the waits. Decides nothing about records, models or offsets: the core does. Must not know
how any of its parts does its work.

Theory of operation. The Kafka client has no descriptor to wait on, and the workers have nothing else, so a turn waits
at one place only: for the workers while they have chunks (briefly, so that Kafka is polled again soon), else for Kafka.
Under load it rests beside that, while the workers are busy anyway: what a turn costs is then shared by many records.
Where records flow, but are no load, it keeps a pace at which it looks at Kafka, hears the workers in between, and has
the client send what they answered.
A rebalance calls back out of a fetch: the callback turns the same loop, without fetching, until what is in flight of
the partitions that go is committed or its time is over.
"""

import faulthandler
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from consumer.core import actions as do
from consumer.core import events as on
from consumer.core.dispatcher import Dispatcher
from consumer.core.types import TopicPartition
from consumer.errors import Complaint, ExitCode
from consumer.kafka.sink import Sink
from consumer.kafka.source import Source
from consumer.kafka.transactions import TransactionalSink
from consumer.observe.observer import Observer, Snapshot
from consumer.supervisor.options import ShutdownOptions
from consumer.supervisor.pool import Pool
from consumer.supervisor.signals import StopSignals

BUSY_WAIT_S = 0.002
"""How long a turn waits for workers that have chunks before it looks at Kafka again; ..."""
BUSY_WAIT_S_MAX = 0.01
"""... and up to so long while all of them are busy and nothing comes: ..."""
QUIET_PART = 0.25
"""... this part of the time for which nothing came. Looks in vain take a core's time from models that are slow."""
IDLE_WAIT_S = 0.05
"""How long a turn waits for Kafka while no worker has a chunk."""
BEGIN_FLUSH_S = 0.001
"""How long the loop waits where a barrier begins: long enough for the client to send what it has."""
FLUSH_WAIT_S = 0.05
"""How long a turn waits for a barrier while no worker has a chunk."""
TURN_S = 0.005
"""How long a turn takes at least under load: few large turns cost far less than many small ones."""
LOAD_RECORDS = 256
"""A fetch that brings so many at once tells of load, and so does a budget that is used up."""
PACE_S = 0.005
"""How long it takes at least from one fetch to the next while records flow without being a load. More fetches and
chunks, each of fewer records, would take the cores from workers and broker, and the longer for it each record."""
PACE_RECORDS = 8
"""A fetch that brings so many at once tells of a flow."""
HELD_S = 2.0
"""How much longer than it may the clients' end may take, before the process ends with the traces of all threads."""
PUBLISH_INTERVAL_S = 1.0
"""How often levels are published."""

_log = structlog.get_logger("consumer.supervisor")


class Turned(Protocol):
    """Hears that the loop still turns."""

    def turned(self) -> None:
        """Take note of one more turn."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything the loop turns; made by the composition root."""

    dispatcher: Dispatcher
    pool: Pool[Any]
    sink: Sink | TransactionalSink
    signals: StopSignals
    observers: Sequence[Observer]
    pulse: Turned
    prepare: Callable[[Collection[str]], None]
    """Sees that the dead letters of input topics have topics; called before the first record of new ones."""


class Loop:
    """Turns until the core says stop."""

    def __init__(
        self,
        parts: Parts,
        options: ShutdownOptions,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the parts; `attach` gives the source, which needs this loop's `on_revoke`."""
        self._parts = parts
        self._options = options
        self._clock = clock
        self._sleep = sleep
        self._source: Source | None = None
        self._is_flushing = False
        self._is_revoking = False
        self._drain_until_s: float | None = None
        self._publish_at_s = 0.0
        self._fed_s = 0.0
        """When records were fetched last."""
        self._stop: do.Stop | None = None

    def attach(self, source: Source) -> None:
        """Take the source."""
        self._source = source

    def run(self) -> ExitCode:
        """Turn until everything is drained, or the program cannot go on.

        Raises:
            ConsumerError: The client broke for good.
        """
        while self._stop is None:
            self._turn()
        assert self._source is not None, "a source is attached before the loop runs"
        # If a call of a client keeps the interpreter's lock, no thread of Python's and no signal ends the process.
        faulthandler.dump_traceback_later(self._options.close_timeout_s + HELD_S, exit=True)
        self._parts.sink.close()
        if not self._source.close(self._options.close_timeout_s):
            _log.warning("source.abandoned", timeout_s=self._options.close_timeout_s)
        faulthandler.cancel_dump_traceback_later()
        return ExitCode(self._stop.exit_code)

    def on_revoke(self, partitions: Sequence[TopicPartition]) -> None:
        """Finish what is in flight of partitions that are about to go; called out of a fetch."""
        until_s = self._clock() + self._options.revoke_timeout_s
        self._is_revoking = True
        try:
            self._take([on.Revoking(partitions)])
            while not self._parts.dispatcher.is_quiet(partitions) and self._clock() < until_s:
                self._turn_without_fetch(min(BUSY_WAIT_S, until_s - self._clock()))
        finally:
            self._is_revoking = False
            self._parts.sink.fence(partitions)

    # -- one turn

    def _turn(self) -> None:
        dispatcher, source = self._parts.dispatcher, self._source
        assert source is not None, "a source is attached before the loop runs"
        began_s = self._clock()
        self._look_at_signals()
        events = source.fetch(dispatcher.room, 0.0)
        if not (events or dispatcher.is_working or self._is_flushing):
            self._parts.sink.hasten()
            events = source.fetch(dispatcher.room, IDLE_WAIT_S)
        records = sum(event.records for event in events if isinstance(event, on.Fetched))
        self._take(events)
        if records:
            self._fed_s = began_s
        if records and not dispatcher.scheduler.is_saturated():
            wait_s = 0.0
        elif dispatcher.is_working:
            wait_s = self._busy_wait_s()
        else:
            wait_s = 0.0 if dispatcher.room else IDLE_WAIT_S
        self._turn_without_fetch(wait_s)
        self._complain(source.complaints())
        if records >= LOAD_RECORDS or not dispatcher.room:
            # No longer than all workers have enough to do.
            self._rest(min(began_s + TURN_S, self._clock() + self._busy_s()))
        else:
            self._parts.sink.hasten()
            if records >= PACE_RECORDS:
                self._listen(began_s + PACE_S)

    def _busy_wait_s(self) -> float:
        """Say how long to wait for workers: longer, the longer nothing came, as long as none can be given anything."""
        wait_s = min(QUIET_PART * (self._clock() - self._fed_s), BUSY_WAIT_S_MAX)
        return BUSY_WAIT_S if wait_s <= BUSY_WAIT_S else max(BUSY_WAIT_S, min(wait_s, self._busy_s()))

    def _busy_s(self) -> float:
        """Estimate for how long every worker has enough to do."""
        return self._parts.dispatcher.scheduler.busy_s()

    def _listen(self, until_s: float) -> None:
        """Let records gather, and send what workers answer meanwhile."""
        while (left_s := until_s - self._clock()) > 0:
            self._turn_without_fetch(left_s)
            self._parts.sink.hasten()

    def _rest(self, until_s: float) -> None:
        """Let records and answers gather."""
        rest_s = until_s - self._clock()
        if rest_s > 0:
            self._sleep(rest_s)

    def _turn_without_fetch(self, wait_s: float) -> None:
        """Hear the workers and the broker, decide, perform."""
        pool, sink = self._parts.pool, self._parts.sink
        if self._is_flushing:
            is_working = self._parts.dispatcher.is_working
            self._is_flushing = not sink.wait(0.0 if is_working else FLUSH_WAIT_S)
            wait_s = wait_s if is_working else 0.0
        self._take(pool.wait(wait_s))
        self._take(sink.events())
        self._take([on.Tick()])
        self._complain(sink.complaints())
        self._parts.pulse.turned()
        self._publish()

    def _take(self, events: Iterable[on.Event]) -> None:
        """Tell the core what happened and do what it says; what that brings about at once is told as well."""
        for event in events:
            if isinstance(event, on.Assigned):
                self._parts.prepare({partition.topic for partition in event.partitions})
            for observer in self._parts.observers:
                observer.observe(event)
            for action in self._parts.dispatcher.step(event, self._clock()):
                self._do(action)
            if isinstance(event, on.Revoked):
                self._parts.sink.fence(event.partitions)

    def _do(self, action: do.Action) -> None:
        for observer in self._parts.observers:
            observer.observe_action(action)
        self._take(self._perform(action))

    def _perform(self, action: do.Action) -> Sequence[on.Event]:
        """Do one thing; return what came of it."""
        source, sink = self._source, self._parts.sink
        assert source is not None, "a source is attached before the loop runs"
        match action:
            case do.Produce():
                sink.produce(action)
            case do.DeadLetter():
                sink.dead_letter(action)
            case do.Flush():
                sink.flush()
                self._is_flushing = not sink.wait(BEGIN_FLUSH_S)
            case do.Commit(offsets):
                return self._commit(offsets)
            case do.Pause(partitions):
                source.pause(partitions)
            case do.Resume(partitions):
                source.resume(partitions)
            case do.Stop():
                self._stop = action
            case do.Note():
                pass  # for the observers alone
            case _:
                self._parts.pool.perform(action)
        return ()

    def _commit(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> Sequence[on.Event]:
        """Commit in the transaction, where there is one; else by the consumer, waiting only where nobody polls."""
        source, sink = self._source, self._parts.sink
        assert source is not None, "a source is attached before the loop runs"
        if isinstance(sink, TransactionalSink):
            sink.commit(offsets, source.group_metadata())
        elif self._is_revoking:
            return source.commit_now(offsets)
        else:
            source.commit(offsets)
        return ()

    # -- beside the records

    def _look_at_signals(self) -> None:
        """Begin to drain when a signal asks for it, and end when that takes too long."""
        now = self._clock()
        if self._drain_until_s is None:
            if self._parts.signals.requested is not None:
                self._drain_until_s = now + self._options.drain_timeout_s
                self._take([on.Drain()])
        elif now >= self._drain_until_s and self._stop is None:
            _log.warning("drain.timed_out", timeout_s=self._options.drain_timeout_s)
            self._do(do.Stop(ExitCode.FAILED, "drain timed out"))

    def _publish(self) -> None:
        """Publish the levels of the moment, now and then."""
        now = self._clock()
        if now < self._publish_at_s or self._source is None:
            return
        self._publish_at_s = now + PUBLISH_INTERVAL_S
        dispatcher = self._parts.dispatcher
        snapshot = Snapshot(
            in_flight_records=dispatcher.partitions.records,
            in_flight_bytes=dispatcher.partitions.size,
            lag=self._source.lag(),
            waiting=dispatcher.scheduler.waiting_records(),
            limited=frozenset(dispatcher.scheduler.limited_models()),
            skipped=self._source.skipped,
        )
        for observer in self._parts.observers:
            observer.publish(snapshot)

    def _complain(self, complaints: Iterable[Complaint]) -> None:
        """Pass on what the clients complain about."""
        for complaint in complaints:
            for observer in self._parts.observers:
                observer.complain(complaint)
