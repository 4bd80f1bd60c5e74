"""The catalogue of figures, and how events and actions feed them.

Owns every name, label and bucket that `/metrics` shows. Labels are bounded: models are the configured ones (any other
name is counted under an empty label), outcomes and reasons are closed sets, partitions are the assigned ones. Workers
report their durations inside their answers, so one registry in the supervisor is enough. Must not know who serves it.
"""

import signal
import time
from collections import Counter as Tally
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
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
from consumer.observe.observer import Snapshot

RESULT, DROPPED = "result", "dropped"
"""The outcomes of records that got a result, or expired for good; every other one is a dead letter's reason."""

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class Kind(Enum):
    """How a figure behaves; the value is the word that the exposition format uses."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Figure:
    """One entry of the catalogue."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()


FETCHED = Figure("consumer_records_fetched_total", Kind.COUNTER, ("topic",), "Records fetched.")
SKIPPED = Figure(
    "consumer_records_skipped_total", Kind.COUNTER, ("topic",), "Records that retention removed before their fetch."
)
SETTLED = Figure(
    "consumer_records_settled_total",
    Kind.COUNTER,
    ("model", "outcome"),
    "Records that are done with: `result`, the reason of their dead letter, or `dropped` where they expired.",
)
FAILED = Figure(
    "consumer_attempts_failed_total",
    Kind.COUNTER,
    ("model", "reason"),
    "Attempts that a worker answered with a failure, whether or not another attempt followed.",
)
DELIVERY_FAILED = Figure(
    "consumer_deliveries_failed_total",
    Kind.COUNTER,
    ("model", "reason"),
    "Outcomes that the broker refused; they are handed over again or become dead letters.",
)
IN_FLIGHT_RECORDS = Figure("consumer_in_flight_records", Kind.GAUGE, (), "Records admitted and not yet resolved.")
IN_FLIGHT_BYTES = Figure("consumer_in_flight_bytes", Kind.GAUGE, (), "Payload bytes of the records in flight.")
LAG = Figure(
    "consumer_lag_records",
    Kind.GAUGE,
    ("topic", "partition"),
    "Records between the next offset to commit and the end of an assigned partition.",
)
PARTITIONS = Figure("consumer_partitions_assigned", Kind.GAUGE, (), "Partitions assigned to this member.")
PAUSED = Figure("consumer_partitions_paused", Kind.GAUGE, (), "Assigned partitions that backpressure has paused.")
BATCH_ROWS = Figure(
    "consumer_batch_rows",
    Kind.HISTOGRAM,
    ("model",),
    "Rows of the batch that an answer was part of, once per answer.",
    ROWS,
)
QUEUE_SECONDS = Figure(
    "consumer_queue_seconds",
    Kind.HISTOGRAM,
    ("model",),
    "From the fetch to the start of the batch, of an answer's oldest record.",
    SECONDS,
)
INFER_SECONDS = Figure(
    "consumer_infer_seconds", Kind.HISTOGRAM, ("model",), "Time of the batch in the model, once per answer.", SECONDS
)
DELIVERY_SECONDS = Figure(
    "consumer_delivery_seconds",
    Kind.HISTOGRAM,
    ("model",),
    "From the hand-over of outcomes to the sink until the broker had acknowledged them.",
    SECONDS,
)
WORKERS = Figure("consumer_workers_ready", Kind.GAUGE, (), "Worker processes that take work.")
RESTARTS = Figure(
    "consumer_worker_restarts_total",
    Kind.COUNTER,
    ("reason",),
    "Workers started again, by how the last one ended: a signal's name, or `exit-` and its code.",
)
MODEL_AVAILABLE = Figure(
    "consumer_model_available",
    Kind.GAUGE,
    ("model",),
    "1 where a model is loaded and works, 0 where it is not loaded yet or broken.",
)
LOAD_SECONDS = Figure(
    "consumer_model_load_seconds", Kind.HISTOGRAM, ("model",), "Loading and warming up a model in a worker.", SECONDS
)
COMMITS = Figure("consumer_commits_total", Kind.COUNTER, ("outcome",), "Commits answered: `committed` or `failed`.")

CATALOGUE: tuple[Figure, ...] = (
    FETCHED,
    SKIPPED,
    SETTLED,
    FAILED,
    DELIVERY_FAILED,
    IN_FLIGHT_RECORDS,
    IN_FLIGHT_BYTES,
    LAG,
    PARTITIONS,
    PAUSED,
    BATCH_ROWS,
    QUEUE_SECONDS,
    INFER_SECONDS,
    DELIVERY_SECONDS,
    WORKERS,
    RESTARTS,
    MODEL_AVAILABLE,
    LOAD_SECONDS,
    COMMITS,
)


def catalogue_table() -> str:
    """Write the catalogue as a Markdown table."""
    rows = ["| figure | kind | labels | meaning |", "|---|---|---|---|"]
    rows += [
        f"| `{each.name}` | {each.kind.value} | {', '.join(f'`{label}`' for label in each.labels)} | {each.meaning} |"
        for each in CATALOGUE
    ]
    return "\n".join(rows) + "\n"


@dataclass(slots=True)
class _HandOver:
    """Outcomes on their way to the broker."""

    model: str
    handed_s: float
    results: int = 0
    reasons: list[str] = field(default_factory=list)
    """Of dead letters, one each."""
    refused: int = 0
    """How many of the results were reported failed."""


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
        self._chunks: dict[ChunkId, tuple[WorkerId, str]] = {}
        self._assigned: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()
        self._lag: set[TopicPartition] = set()
        self._skipped: dict[TopicPartition, int] = {}
        self._ready: set[WorkerId] = set()
        self._slots: dict[int, WorkerId] = {}
        self._exits: dict[WorkerId, str] = {}
        self._events: Mapping[type, Callable[[Any], None]] = {
            events.Assigned: self._assign,
            events.Revoked: self._revoke,
            events.Fetched: self._fetch,
            events.WorkerReady: self._worker_ready,
            events.WorkerExited: self._worker_exited,
            events.ModelLoaded: self._model_loaded,
            events.ModelProbed: self._model_probed,
            events.Answered: self._answer,
            events.Delivered: self._deliver,
            events.DeliveryFailed: self._delivery_failed,
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
        self._forget_lag(self._lag - snapshot.lag.keys())
        self._lag = set(snapshot.lag)
        for partition, records in snapshot.lag.items():
            self._of(LAG, partition.topic, str(partition.partition)).set(records)
        for partition, records in snapshot.skipped.items():
            self._of(SKIPPED, partition.topic).inc(records - self._skipped.get(partition, 0))
            self._skipped[partition] = records

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
        self._of(MODEL_AVAILABLE, self._label(event.model)).set(1)
        self._of(LOAD_SECONDS, self._label(event.model)).observe(event.load_s)

    def _note(self, action: actions.Note) -> None:
        model, records = self._label(str(action.fields.get("model"))), action.fields.get("records")
        if action.name == "model.broken":
            self._of(MODEL_AVAILABLE, model).set(0)
        elif action.name == "records.expired":
            self._of(SETTLED, model, DROPPED).inc(records)

    def _model_probed(self, event: events.ModelProbed) -> None:
        self._of(MODEL_AVAILABLE, self._label(event.model)).set(1)

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
        self._handed[action.ticket] = _HandOver(self._label(action.model), self._clock(), results=len(action.values))

    def _dead_letter(self, action: actions.DeadLetter) -> None:
        reasons = [failure.reason for failure in action.failures]
        self._handed[action.ticket] = _HandOver(self._label(action.run.model), self._clock(), reasons=reasons)

    def _delivery_failed(self, event: events.DeliveryFailed) -> None:
        handed = self._handed.get(event.ticket)
        if handed is None:
            return
        self._of(DELIVERY_FAILED, handed.model, event.failure.reason).inc()
        if handed.reasons:
            handed.reasons[event.index] = ""
        else:
            handed.refused += 1

    def _deliver(self, event: events.Delivered) -> None:
        now = self._clock()
        for ticket in [ticket for ticket in self._handed if ticket <= event.ticket]:
            handed = self._handed.pop(ticket)
            self._of(DELIVERY_SECONDS, handed.model).observe(now - handed.handed_s)
            if handed.results > handed.refused:
                self._of(SETTLED, handed.model, RESULT).inc(handed.results - handed.refused)
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
