"""The log: how lines are made, and what is written when.

Owns the set-up of structlog (and of the standard library's logging, whose lines join the same stream), the limit on
repeated warnings, and the journal, which writes one line per transition that the loop sees. Names are static
(`noun.past_verb`), what varies goes into fields, and no payload, key or header ever does.
"""

import logging
import sys
import time
from collections import Counter as Tally
from collections import OrderedDict
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, TextIO

import orjson
import structlog

from consumer.core import actions, events
from consumer.core.types import TopicPartition
from consumer.errors import Complaint
from consumer.observe.metrics import end_of
from consumer.observe.observer import Snapshot
from consumer.observe.options import LoggingOptions

NOTE_LEVELS = {
    "model.broken": logging.ERROR,
    "offset_map.ignored": logging.WARNING,
    "offset_map.refused": logging.WARNING,
    "records.dropped": logging.WARNING,
    "records.expired": logging.WARNING,
    "topic.parked": logging.WARNING,
}
"""How bad the core's notes are; those not listed are the course of things."""

_KINDS_MAX = 1_024
"""Kinds of warnings that the limit remembers; the one seen longest ago is forgotten first."""


def configure(options: LoggingOptions, stream: TextIO | None = None) -> None:
    """Set up logging for the whole process, replacing an earlier set-up.

    Args:
        options: What is logged, and how.
        stream: Where lines go; standard error unless told otherwise.
    """
    stream = sys.stderr if stream is None else stream
    is_console = options.format == "console" or (options.format == "auto" and stream.isatty())
    shared: list[structlog.types.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.types.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=stream.isatty())]
        if is_console
        else [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer(serializer=_json)]
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(options.level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            RepeatLimit(options.repeat_s),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _json(line: Any, **_: Any) -> str:
    return orjson.dumps(line, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()


class RepeatLimit:
    """Lets a kind of warning or error through once in an interval, with the count of those left out since.

    A kind is a line's name with its `model`, `reason` and `worker`: a storm of one never hides the first of another.

    Args:
        interval_s: How long a kind stays silent after a line of it.
        clock: Monotonic seconds.
    """

    def __init__(self, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._kinds: OrderedDict[tuple[object, ...], tuple[float, int]] = OrderedDict()

    def __call__(self, _logger: Any, level: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Pass a line on, or drop it.

        Raises:
            structlog.DropEvent: The line is a repetition within the interval.
        """
        if level not in {"warning", "error"}:
            return line
        kind = (line.get("event"), line.get("model"), line.get("reason"), line.get("worker"))
        now = self._clock()
        logged_s, left_out = self._kinds.get(kind, (None, 0))
        if logged_s is not None and now - logged_s < self._interval_s:
            self._kinds[kind] = (logged_s, left_out + 1)
            raise structlog.DropEvent
        self._kinds[kind] = (now, 0)
        self._kinds.move_to_end(kind)
        if len(self._kinds) > _KINDS_MAX:
            self._kinds.popitem(last=False)
        if left_out:
            line["left_out"] = left_out
        return line


class Journal:
    """Writes what the loop sees: a line per transition, per dead letter's reason and, at level debug, per batch."""

    def __init__(self) -> None:
        self._log: structlog.stdlib.BoundLogger = structlog.get_logger("consumer")
        self._events: dict[type, Callable[[Any], None]] = {
            events.Assigned: lambda event: self._log.info(
                "partitions.assigned", partitions=_by_topic(event.partitions)
            ),
            events.Revoked: lambda event: self._log.info("partitions.revoked", partitions=_by_topic(event.partitions)),
            events.WorkerReady: lambda event: self._log.info("worker.booted", worker=event.worker, device=event.device),
            events.WorkerExited: self._worker_exited,
            events.ModelLoaded: self._model_loaded,
            events.ModelFailed: self._model_failed,
            events.DeliveryFailed: self._delivery_failed,
            events.Committed: self._committed,
            events.Drain: lambda _event: self._log.info("drain.started"),
        }
        self._actions: dict[type, Callable[[Any], None]] = {
            actions.DeadLetter: self._dead_letter,
            actions.Stop: self._stop,
            actions.Note: lambda action: self._log.log(
                NOTE_LEVELS.get(action.name, logging.INFO), action.name, **action.fields
            ),
        }
        if logging.getLogger("consumer").isEnabledFor(logging.DEBUG):
            self._events[events.Answered] = self._answered
            self._actions[actions.Pause] = lambda action: self._log.debug(
                "partitions.paused", partitions=_by_topic(action.partitions)
            )
            self._actions[actions.Resume] = lambda action: self._log.debug(
                "partitions.resumed", partitions=_by_topic(action.partitions)
            )

    def observe(self, event: events.Event) -> None:
        """Write a fact down, if it is one of those that are logged."""
        note = self._events.get(type(event))
        if note is not None:
            note(event)

    def observe_action(self, action: actions.Action) -> None:
        """Write down what was asked for, if it is one of those that are logged."""
        note = self._actions.get(type(action))
        if note is not None:
            note(action)

    def complain(self, complaint: Complaint) -> None:
        """Write down what a client complains about."""
        self._log.warning(
            "kafka.complained",
            error=complaint.name,
            message=complaint.message,
            topic=complaint.topic,
            count=complaint.count,
        )

    def publish(self, snapshot: Snapshot) -> None:
        """Leave levels to the figures."""

    def _worker_exited(self, event: events.WorkerExited) -> None:
        if event.boot_failure is not None:
            self._log.error("worker.boot_failed", worker=event.worker, failure=event.boot_failure)
        elif event.exit_code == 0:
            self._log.info("worker.exited", worker=event.worker, reason=end_of(event))
        else:
            self._log.warning("worker.exited", worker=event.worker, reason=end_of(event))

    def _model_loaded(self, event: events.ModelLoaded) -> None:
        self._log.info(
            "model.loaded",
            model=event.model,
            worker=event.worker,
            version=event.version,
            load_s=round(event.load_s, 3),
        )

    def _model_failed(self, event: events.ModelFailed) -> None:
        self._log.warning(
            "model.failed",
            model=event.model,
            worker=event.worker,
            reason=event.failure.reason,
            error=event.failure.error,
            failure=event.failure.message,
        )

    def _answered(self, event: events.Answered) -> None:
        self._log.debug(
            "batch.inferred",
            worker=event.worker,
            chunk=event.chunk,
            records=event.count,
            failures=len(event.failures),
            rows=event.rows,
            queue_s=round(event.queue_s, 6),
            infer_s=round(event.infer_s, 6),
        )

    def _delivery_failed(self, event: events.DeliveryFailed) -> None:
        self._log.warning(
            "delivery.failed",
            reason=event.failure.reason,
            error=event.failure.error,
            failure=event.failure.message,
        )

    def _committed(self, event: events.Committed) -> None:
        if event.error is not None:
            self._log.warning("commit.failed", error=event.error, partitions=_by_topic(event.offsets))
        else:
            self._log.debug("offsets.committed", partitions=_by_topic(event.offsets))

    def _dead_letter(self, action: actions.DeadLetter) -> None:
        """Write one line per reason, with the first record that has it."""
        counts = Tally(failure.reason for failure in action.failures)
        for reason, records in counts.items():
            index = next(i for i, failure in enumerate(action.failures) if failure.reason == reason)
            self._log.warning(
                "record.dead_lettered",
                reason=reason,
                records=records,
                model=action.run.model,
                topic=action.run.partition.topic,
                partition=action.run.partition.partition,
                offset=action.run.offsets[index],
                error=action.failures[index].error,
                failure=action.failures[index].message,
            )

    def _stop(self, action: actions.Stop) -> None:
        write = self._log.info if action.exit_code == 0 else self._log.error
        write("supervisor.stopped", exit_code=action.exit_code, reason=action.reason)


def _by_topic(partitions: Sequence[TopicPartition] | Mapping[TopicPartition, object]) -> dict[str, list[int]]:
    """Group partitions by their topic, for a short line."""
    grouped: dict[str, list[int]] = {}
    for topic, partition in sorted(partitions):
        grouped.setdefault(topic, []).append(partition)
    return grouped
