import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from consumer.core import actions, events
from consumer.core.types import ChunkId, Failure, Generation, Run, Ticket, TopicPartition, WorkerId
from consumer.observe import logs
from consumer.observe.observer import Snapshot
from consumer.observe.options import LoggingOptions
from tests.observe.clock import Clock

P0 = TopicPartition("requests", 0)
P1 = TopicPartition("requests", 1)
SECRET = b"a payload that no log may show"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Give a stream to log to, and put logging back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Parse what was logged."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def without_time(line: dict[str, Any]) -> dict[str, Any]:
    """Leave out what differs from run to run."""
    return {name: value for name, value in line.items() if name != "timestamp"}


def run(count: int) -> Run:
    """Make a run whose payloads, keys and headers are secret."""
    return Run(
        partition=P0,
        generation=Generation(1),
        model="fraud",
        positions=range(count),
        offsets=range(40, 40 + count),
        keys=[SECRET] * count,
        values=[SECRET] * count,
        headers=[[("name", SECRET)]] * count,
        timestamps_ms=[-1] * count,
        size=count * len(SECRET),
        fetched_s=0.0,
    )


def test_json_lines_have_name_level_time_and_fields(stream: io.StringIO) -> None:
    """A line is one JSON object; what is no JSON of its own is written as Python shows it."""
    logs.configure(LoggingOptions(format="json"), stream)
    structlog.get_logger("consumer").info("thing.done", count=3, odd=P0)
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "thing.done", "level": "info", "count": 3, "odd": repr(P0)}


def test_other_libraries_join_the_stream(stream: io.StringIO) -> None:
    """A line of the standard library's logging has the same form, with its logger's name."""
    logs.configure(LoggingOptions(format="json"), stream)
    logging.getLogger("some.package").warning("it is %s", "late")
    assert [without_time(line) for line in lines(stream)] == [
        {"event": "it is late", "level": "warning", "logger": "some.package"}
    ]


def test_the_console_is_for_people(stream: io.StringIO) -> None:
    """Off a terminal `console` writes plain text, and `auto` JSON."""
    logs.configure(LoggingOptions(format="console"), stream)
    structlog.get_logger("consumer").info("thing.done", count=3)
    assert "thing.done" in stream.getvalue()
    assert "count=3" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
    stream.truncate(0)
    stream.seek(0)
    logs.configure(LoggingOptions(), stream)
    structlog.get_logger("consumer").info("thing.done", count=3)
    assert lines(stream)[0]["count"] == 3


def test_the_level_is_kept(stream: io.StringIO) -> None:
    """Lines below the level are not written."""
    logs.configure(LoggingOptions(level="warning", format="json"), stream)
    structlog.get_logger("consumer").info("thing.done")
    structlog.get_logger("consumer").warning("thing.failed")
    assert [line["event"] for line in lines(stream)] == ["thing.failed"]


def test_a_repeated_warning_is_logged_once_in_an_interval_with_the_count() -> None:
    """Repetitions are dropped until the interval has passed; the next line says how many; other kinds pass."""
    clock = Clock()
    limit = logs.RepeatLimit(10.0, clock)

    def passes(level: str = "warning", **line: Any) -> dict[str, Any] | None:
        try:
            return dict(limit(None, level, line))
        except structlog.DropEvent:
            return None

    assert passes(event="a", reason="x") == {"event": "a", "reason": "x"}
    assert passes(event="a", reason="x") is None
    assert passes(event="a", reason="y") == {"event": "a", "reason": "y"}
    assert passes(event="b", reason="x") == {"event": "b", "reason": "x"}
    clock.now += 9.9
    assert passes(event="a", reason="x") is None
    assert passes("info", event="a", reason="x") == {"event": "a", "reason": "x"}
    clock.now += 0.1
    assert passes(event="a", reason="x") == {"event": "a", "reason": "x", "left_out": 2}
    clock.now += 10.0
    assert passes(event="a", reason="x") == {"event": "a", "reason": "x"}


def test_the_limit_remembers_a_bounded_number_of_kinds() -> None:
    """A stream of ever new kinds does not grow the memory."""
    limit = logs.RepeatLimit(10.0, Clock())
    for number in range(3_000):
        limit(None, "error", {"event": "a", "reason": number})
    assert len(limit._kinds) == 1_024


def test_the_journal_writes_transitions(stream: io.StringIO) -> None:
    """Each transition of the loop is one line with a static name and its fields."""
    logs.configure(LoggingOptions(format="json", repeat_s=0), stream)
    journal = logs.Journal()
    failure = Failure("model-unavailable", "RuntimeError", "weights are gone")
    for event in (
        events.Assigned({P1: events.Position(None), P0: events.Position(3)}),
        events.Revoked([P1]),
        events.WorkerReady(WorkerId(1), "cpu"),
        events.WorkerExited(WorkerId(1), 0),
        events.WorkerExited(WorkerId(2), -9),
        events.WorkerExited(WorkerId(3), 3, "cannot import torch"),
        events.ModelLoaded(WorkerId(1), "fraud", "v1", 0.25),
        events.ModelFailed(WorkerId(1), "fraud", failure),
        events.Committed({P0: 4}),
        events.Committed({P0: 4}, "ILLEGAL_GENERATION"),
        events.Drain(),
        events.Tick(),
    ):
        journal.observe(event)
    for action in (
        actions.Note("model.recovered", {"model": "fraud"}),
        actions.Note("model.broken", {"model": "fraud"}),
        actions.Stop(0, "drained"),
        actions.Stop(4, "the topic is gone"),
        actions.Flush(),
    ):
        journal.observe_action(action)
    journal.publish(Snapshot(in_flight_records=0, in_flight_bytes=0, lag={}))
    assert [without_time(line) for line in lines(stream)] == [
        {"event": "partitions.assigned", "level": "info", "partitions": {"requests": [0, 1]}},
        {"event": "partitions.revoked", "level": "info", "partitions": {"requests": [1]}},
        {"event": "worker.booted", "level": "info", "worker": 1, "device": "cpu"},
        {"event": "worker.exited", "level": "info", "worker": 1, "reason": "exit-0"},
        {"event": "worker.exited", "level": "warning", "worker": 2, "reason": "SIGKILL"},
        {"event": "worker.boot_failed", "level": "error", "worker": 3, "failure": "cannot import torch"},
        {"event": "model.loaded", "level": "info", "model": "fraud", "worker": 1, "version": "v1", "load_s": 0.25},
        {
            "event": "model.failed",
            "level": "warning",
            "model": "fraud",
            "worker": 1,
            "reason": "model-unavailable",
            "error": "RuntimeError",
            "failure": "weights are gone",
        },
        {
            "event": "commit.failed",
            "level": "warning",
            "error": "ILLEGAL_GENERATION",
            "partitions": {"requests": [0]},
        },
        {"event": "drain.started", "level": "info"},
        {"event": "model.recovered", "level": "info", "model": "fraud"},
        {"event": "model.broken", "level": "error", "model": "fraud"},
        {"event": "supervisor.stopped", "level": "info", "exit_code": 0, "reason": "drained"},
        {"event": "supervisor.stopped", "level": "error", "exit_code": 4, "reason": "the topic is gone"},
    ]


def test_dead_letters_are_one_line_per_reason_with_the_first_offset(stream: io.StringIO) -> None:
    """A hand-over of dead letters tells how many there are of each reason, and where the first is."""
    logs.configure(LoggingOptions(format="json"), stream)
    failures = [
        Failure("expired", "E", "too old"),
        Failure("wrong-shape", "S", "3, not 4"),
        Failure("expired", "E", ""),
    ]
    logs.Journal().observe_action(actions.DeadLetter(Ticket(1), run(3), failures))
    assert [(line["reason"], line["records"], line["offset"], line["failure"]) for line in lines(stream)] == [
        ("expired", 2, 40, "too old"),
        ("wrong-shape", 1, 41, "3, not 4"),
    ]


def test_no_line_shows_a_payload_a_key_or_a_header(stream: io.StringIO) -> None:
    """Whatever passes through the journal at its most talkative, record contents stay out of the log."""
    logs.configure(LoggingOptions(level="debug", format="json", repeat_s=0), stream)
    journal = logs.Journal()
    failure = Failure("expired", "E", "too old")
    journal.observe_action(actions.DeadLetter(Ticket(1), run(1), [failure]))
    journal.observe_action(actions.Produce(Ticket(2), "fraud", [run(1)], [SECRET], [SECRET]))
    journal.observe_action(actions.Pause([P0]))
    journal.observe_action(actions.Resume([P0]))
    journal.observe(events.DeliveryFailed(Ticket(2), 0, failure))
    journal.observe(events.Committed({P0: 4}))
    journal.observe(
        events.Answered(WorkerId(1), ChunkId(1), 0, 1, [SECRET], [SECRET], {}, rows=1, queue_s=0.1, infer_s=0.2)
    )
    assert [line["event"] for line in lines(stream)] == [
        "record.dead_lettered",
        "partitions.paused",
        "partitions.resumed",
        "delivery.failed",
        "offsets.committed",
        "batch.inferred",
    ]
    assert "payload" not in stream.getvalue()
