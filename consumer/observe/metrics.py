"""How events and actions feed the figures of the catalogue.

Owns the values behind `/metrics`. Labels are bounded: models are the configured ones (any other name is counted under
an empty label), outcomes, reasons and the client's errors are closed sets, partitions are the assigned ones. Workers
report their durations inside their answers, so one registry in the supervisor is enough. Must not know who serves it.
"""

import signal
import time
from bisect import bisect_right
from collections import Counter as Tally
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from consumer.core import actions, events
from consumer.core.types import ChunkId, ModelId, Ticket, TopicPartition, WorkerId
from consumer.errors import Complaint
from consumer.observe.catalogue import (
    BATCH_ROWS,
    CATALOGUE,
    CLIENT_ERRORS,
    COMMITS,
    DELIVERY_FAILED,
    DELIVERY_SECONDS,
    FAILED,
    FETCHED,
    IN_FLIGHT_BYTES,
    IN_FLIGHT_RECORDS,
    INFER_SECONDS,
    LAG,
    LOAD_SECONDS,
    MODEL_AVAILABLE,
    PARTITIONS,
    PAUSED,
    QUEUE_SECONDS,
    RESTARTS,
    SETTLED,
    SKIPPED,
    WAITING,
    WORKERS,
    Figure,
    Kind,
)
from consumer.observe.observer import Snapshot

RESULT, DROPPED = "result", "dropped"
"""The outcomes of records that got a result, or expired for good; every other one is a dead letter's reason."""


@dataclass(slots=True)
class _HandOver:
    """Outcomes on their way to the broker."""

    model: str
    handed_s: float
    parts: Sequence[tuple[TopicPartition, int]]
    """The partitions of its records, in their order, and how many records are of each."""
    results: int = 0
    reasons: list[str] = field(default_factory=list)
    """Of dead letters, one each."""
    withdrawn: int = 0
    """How many of the results are not delivered with the others: they failed, or wait for their topic."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """One record's result or dead letter."""

    model: str
    outcome: str
    partition: TopicPartition


class Metrics:
    """Feeds the catalogue from the loop's events and actions.

    Args:
        models: The configured models, the only names that become labels.
        clock: Monotonic seconds.
    """

    def __init__(self, models: Collection[ModelId], *, clock: Callable[[], float] = time.monotonic) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series per series, of use to nobody here
        self.registry = CollectorRegistry()
        self._clock = clock
        self._models = frozenset(models)
        self._figures: dict[Figure, Any] = {figure: _collector(figure, self.registry) for figure in CATALOGUE}
        self._children: dict[tuple[Figure, tuple[str, ...]], Any] = {}
        self._handed: dict[Ticket, _HandOver] = {}
        self._parked: dict[tuple[Ticket, int], _Outcome] = {}
        """Each record that waits for its topic."""
        self._chunks: dict[ChunkId, tuple[WorkerId, str]] = {}
        self._assigned: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()
        self._lag: set[TopicPartition] = set()
        self._skipped: dict[TopicPartition, int] = {}
        self._ready: set[WorkerId] = set()
        self._broken: set[ModelId] = set()
        self._slots: dict[int, WorkerId] = {}
        self._exits: dict[WorkerId, str] = {}
        self._events: Mapping[type, Callable[[Any], None]] = {
            events.Assigned: self._assign,
            events.Revoked: self._revoke,
            events.Fetched: self._fetch,
            events.WorkerReady: self._worker_ready,
            events.WorkerExited: self._worker_exited,
            events.ModelLoaded: self._model_loaded,
            events.Answered: self._answer,
            events.Delivered: self._deliver,
            events.DeliveryFailed: self._delivery_failed,
            events.Parked: self._park,
            events.Unparked: self._unpark,
            events.Committed: self._commit,
        }
        self._actions: Mapping[type, Callable[[Any], None]] = {
            actions.Pause: self._pause,
            actions.Resume: self._resume,
            actions.Spawn: self._spawn,
            actions.Dispatch: self._dispatch,
            actions.Release: self._release,
            actions.Produce: self._produce,
            actions.DeadLetter: self._dead_letter,
            actions.Note: self._note,
        }
        for model in self._models:
            self._of(MODEL_AVAILABLE, model).set(0)
        ProcessCollector(registry=self.registry)

    def observe(self, event: events.Event) -> None:
        """Count a fact."""
        note = self._events.get(type(event))
        if note is not None:
            note(event)

    def observe_action(self, action: actions.Action) -> None:
        """Count what was asked for."""
        note = self._actions.get(type(action))
        if note is not None:
            note(action)

    def publish(self, snapshot: Snapshot) -> None:
        """Show the levels of the moment."""
        self._of(IN_FLIGHT_RECORDS).set(snapshot.in_flight_records)
        self._of(IN_FLIGHT_BYTES).set(snapshot.in_flight_bytes)
        for model, records in snapshot.waiting.items():
            self._of(WAITING, self._label(model)).set(records)
        self._forget_lag(self._lag - snapshot.lag.keys())
        self._lag = set(snapshot.lag)
        for partition, records in snapshot.lag.items():
            self._of(LAG, partition.topic, str(partition.partition)).set(records)
        for partition, records in snapshot.skipped.items():
            self._of(SKIPPED, partition.topic).inc(records - self._skipped.get(partition, 0))
            self._skipped[partition] = records

    def complain(self, complaint: Complaint) -> None:
        """Count what a client complains about."""
        self._of(CLIENT_ERRORS, complaint.name).inc(complaint.count)

    def _of(self, figure: Figure, *labels: str) -> Any:
        """Find the child of a figure for label values; kept, because finding it anew costs more than counting."""
        child = self._children.get((figure, labels))
        if child is None:
            collector = self._figures[figure]
            child = self._children[figure, labels] = collector.labels(*labels) if labels else collector
        return child

    def _label(self, model: ModelId) -> str:
        return model if model in self._models else ""

    def _forget_lag(self, partitions: Collection[TopicPartition]) -> None:
        for topic, partition in partitions:
            self._children.pop((LAG, (topic, str(partition))), None)
            self._figures[LAG].remove(topic, str(partition))

    # Partitions.

    def _assign(self, event: events.Assigned) -> None:
        self._assigned.update(event.partitions)
        self._of(PARTITIONS).set(len(self._assigned))

    def _revoke(self, event: events.Revoked) -> None:
        self._assigned.difference_update(event.partitions)
        # What waits of them is another member's now.
        self._parked = {place: each for place, each in self._parked.items() if each.partition in self._assigned}
        self._paused.difference_update(event.partitions)
        self._of(PARTITIONS).set(len(self._assigned))
        self._of(PAUSED).set(len(self._paused))
        gone = self._lag.intersection(event.partitions)
        self._forget_lag(gone)
        self._lag -= gone

    def _pause(self, action: actions.Pause) -> None:
        self._paused.update(action.partitions)
        self._of(PAUSED).set(len(self._paused))

    def _resume(self, action: actions.Resume) -> None:
        self._paused.difference_update(action.partitions)
        self._of(PAUSED).set(len(self._paused))

    def _fetch(self, event: events.Fetched) -> None:
        for part in event.slices:
            self._of(FETCHED, part.partition.topic).inc(len(part.offsets))

    def _commit(self, event: events.Committed) -> None:
        self._of(COMMITS, "committed" if event.error is None else "failed").inc()

    # Workers and models.

    def _spawn(self, action: actions.Spawn) -> None:
        before = self._slots.get(action.slot)
        self._slots[action.slot] = action.worker
        if before is not None:
            self._of(RESTARTS, self._exits.pop(before, "unknown")).inc()

    def _worker_ready(self, event: events.WorkerReady) -> None:
        self._ready.add(event.worker)
        self._of(WORKERS).set(len(self._ready))

    def _worker_exited(self, event: events.WorkerExited) -> None:
        self._exits[event.worker] = end_of(event)
        self._ready.discard(event.worker)
        self._of(WORKERS).set(len(self._ready))
        for chunk in [chunk for chunk, (worker, _) in self._chunks.items() if worker == event.worker]:
            del self._chunks[chunk]

    def _model_loaded(self, event: events.ModelLoaded) -> None:
        if event.model not in self._broken:
            self._of(MODEL_AVAILABLE, self._label(event.model)).set(1)
        self._of(LOAD_SECONDS, self._label(event.model)).observe(event.load_s)

    def _note(self, action: actions.Note) -> None:
        model, records = self._label(str(action.fields.get("model"))), action.fields.get("records")
        if action.name == "model.broken":
            self._broken.add(model)
            self._of(MODEL_AVAILABLE, model).set(0)
        elif action.name == "model.recovered":
            self._broken.discard(model)
            self._of(MODEL_AVAILABLE, model).set(1)
        elif action.name == "records.expired":
            self._of(SETTLED, model, DROPPED).inc(records)

    # Records.

    def _dispatch(self, action: actions.Dispatch) -> None:
        self._chunks[action.chunk.chunk] = (action.worker, self._label(action.chunk.model))

    def _release(self, action: actions.Release) -> None:
        self._chunks.pop(action.chunk, None)

    def _answer(self, event: events.Answered) -> None:
        if event.chunk not in self._chunks:
            return  # late news of a dead worker
        _, model = self._chunks[event.chunk]
        self._of(BATCH_ROWS, model).observe(event.rows)
        self._of(QUEUE_SECONDS, model).observe(event.queue_s)
        self._of(INFER_SECONDS, model).observe(event.infer_s)
        if event.failures:
            for reason, count in Tally(failure.reason for failure in event.failures.values()).items():
                self._of(FAILED, model, reason).inc(count)

    def _produce(self, action: actions.Produce) -> None:
        parts = [(run.partition, len(run)) for run in action.runs]
        handed = _HandOver(self._label(action.model), self._clock(), parts, results=len(action.values))
        self._handed[action.ticket] = handed

    def _dead_letter(self, action: actions.DeadLetter) -> None:
        reasons = [failure.reason for failure in action.failures]
        parts = [(action.run.partition, len(reasons))]
        self._handed[action.ticket] = _HandOver(self._label(action.run.model), self._clock(), parts, reasons=reasons)

    def _delivery_failed(self, event: events.DeliveryFailed) -> None:
        found = self._parked.pop((event.ticket, event.index), None) or self._withdraw(event.ticket, event.index)
        if found is not None:
            self._of(DELIVERY_FAILED, found.model, event.failure.reason).inc()

    def _park(self, event: events.Parked) -> None:
        found = self._withdraw(event.ticket, event.index)
        if found is not None:
            self._parked[event.ticket, event.index] = found

    def _unpark(self, event: events.Unparked) -> None:
        found = self._parked.pop((event.ticket, event.index), None)
        if found is not None:
            self._of(SETTLED, found.model, found.outcome).inc()

    def _withdraw(self, ticket: Ticket, index: int) -> _Outcome | None:
        """Take a record out of its hand-over, with which it is not delivered."""
        handed = self._handed.get(ticket)
        if handed is None:
            return None
        outcome = RESULT
        if handed.reasons:
            outcome, handed.reasons[index] = handed.reasons[index], ""
        else:
            handed.withdrawn += 1
        ends = list(accumulate(count for _, count in handed.parts))
        return _Outcome(handed.model, outcome, handed.parts[bisect_right(ends, index)][0])

    def _deliver(self, event: events.Delivered) -> None:
        now = self._clock()
        for ticket in [ticket for ticket in self._handed if ticket <= event.ticket]:
            handed = self._handed.pop(ticket)
            self._of(DELIVERY_SECONDS, handed.model).observe(now - handed.handed_s)
            if handed.results > handed.withdrawn:
                self._of(SETTLED, handed.model, RESULT).inc(handed.results - handed.withdrawn)
            for reason, count in Tally(filter(None, handed.reasons)).items():
                self._of(SETTLED, handed.model, reason).inc(count)


def end_of(exited: events.WorkerExited) -> str:
    """Name how a worker ended: what it was killed for, that it left of its own will, or how its process ended."""
    if exited.overdue is not None:
        return f"hung-{exited.overdue.phase.value}"
    return "replaced" if exited.is_planned else exit_reason(exited.exit_code)


def exit_reason(exit_code: int | None) -> str:
    """Name how a process ended: `SIGKILL` for -9, `exit-3` for 3, `unknown` without a code."""
    if exit_code is None:
        return "unknown"
    if exit_code >= 0:
        return f"exit-{exit_code}"
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal-{-exit_code}"


def _collector(figure: Figure, registry: CollectorRegistry) -> Any:
    """Make the client's object for a figure."""
    if figure.kind is Kind.HISTOGRAM:
        return Histogram(figure.name, figure.meaning, figure.labels, registry=registry, buckets=figure.buckets)
    collector = Counter if figure.kind is Kind.COUNTER else Gauge
    return collector(figure.name, figure.meaning, figure.labels, registry=registry)
