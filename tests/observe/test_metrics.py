from collections.abc import Sequence

import pytest

from consumer.core import actions, events
from consumer.core.activity import Overdue, Phase
from consumer.core.types import (
    Chunk,
    ChunkId,
    Failure,
    Generation,
    Run,
    Slice,
    Ticket,
    TopicPartition,
    WorkerId,
)
from consumer.errors import Complaint
from consumer.observe.catalogue import CATALOGUE, Kind, catalogue_table
from consumer.observe.metrics import Metrics, end_of, exit_reason
from consumer.observe.observer import Snapshot
from tests.observe.clock import Clock

P0 = TopicPartition("requests", 0)
P1 = TopicPartition("requests", 1)


def run(count: int, model: str = "fraud") -> Run:
    """Make a run of `count` records without payloads that matter."""
    return Run(
        partition=P0,
        generation=Generation(1),
        model=model,
        positions=range(count),
        offsets=range(count),
        keys=[None] * count,
        values=[b"x"] * count,
        headers=None,
        timestamps_ms=[-1] * count,
        size=count,
        fetched_s=0.0,
    )


def answered(count: int, failures: dict[int, Failure], worker: int = 1, chunk: int = 1) -> events.Answered:
    """Make an answer about a whole chunk."""
    return events.Answered(
        worker=WorkerId(worker),
        chunk=ChunkId(chunk),
        first=0,
        count=count,
        values=[b""] * count,
        keys=[None] * count,
        failures=failures,
        rows=count,
        queue_s=0.004,
        infer_s=0.2,
    )


def failure(reason: str) -> Failure:
    """Make a failure with a reason."""
    return Failure(reason, "SomeError", "some failure")


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Read one sample."""
    return metrics.registry.get_sample_value(name, labels)


def fetched(partition: TopicPartition, count: int) -> events.Fetched:
    """Make a fetch of `count` records."""
    column: Sequence[None] = [None] * count
    return events.Fetched([Slice(partition, range(count), None, column, column, None, [-1] * count)])


@pytest.fixture
def clock() -> Clock:
    """Give a clock that stands still."""
    return Clock()


@pytest.fixture
def metrics(clock: Clock) -> Metrics:
    """Give metrics for two models."""
    return Metrics(["fraud", "intent"], clock=clock)


def test_fetched_records_are_counted_by_topic(metrics: Metrics) -> None:
    """Fetched records add up over slices and fetches."""
    metrics.observe(fetched(P0, 3))
    metrics.observe(fetched(P1, 4))
    assert value(metrics, "consumer_records_fetched_total", topic="requests") == 7


def test_results_settle_when_the_broker_has_acknowledged_them(metrics: Metrics, clock: Clock) -> None:
    """A handed-over result counts as settled at its barrier, not before, with the time in between."""
    metrics.observe_action(actions.Produce(Ticket(1), "fraud", [run(3)], [b"r"] * 3, [None] * 3))
    metrics.observe_action(actions.Produce(Ticket(2), "fraud", [run(2)], [b"r"] * 2, [None] * 2))
    assert value(metrics, "consumer_records_settled_total", model="fraud", outcome="result") is None
    clock.now += 0.5
    metrics.observe(events.Delivered(Ticket(1)))
    assert value(metrics, "consumer_records_settled_total", model="fraud", outcome="result") == 3
    assert value(metrics, "consumer_delivery_seconds_sum", model="fraud") == 0.5
    metrics.observe(events.Delivered(Ticket(2)))
    assert value(metrics, "consumer_records_settled_total", model="fraud", outcome="result") == 5


def test_dead_letters_settle_by_their_reason(metrics: Metrics) -> None:
    """Every dead letter counts under its own reason once it is acknowledged."""
    reasons = [failure("wrong-shape"), failure("wrong-shape"), failure("expired")]
    metrics.observe_action(actions.DeadLetter(Ticket(7), run(3), reasons))
    metrics.observe(events.Delivered(Ticket(7)))
    assert value(metrics, "consumer_records_settled_total", model="fraud", outcome="wrong-shape") == 2
    assert value(metrics, "consumer_records_settled_total", model="fraud", outcome="expired") == 1


def test_a_refused_outcome_is_no_settled_one(metrics: Metrics) -> None:
    """What the broker refused is left out of its ticket and counts when it is handed over again."""
    metrics.observe_action(actions.Produce(Ticket(1), "fraud", [run(3)], [b"r"] * 3, [None] * 3))
    metrics.observe_action(actions.DeadLetter(Ticket(2), run(2), [failure("expired"), failure("wrong-shape")]))
    metrics.observe(events.DeliveryFailed(Ticket(1), 1, failure("too-large")))
    metrics.observe(events.DeliveryFailed(Ticket(2), 0, failure("delivery-failed")))
    metrics.observe(events.Delivered(Ticket(2)))
    assert value(metrics, "consumer_records_settled_total", model="fraud", outcome="result") == 2
    assert value(metrics, "consumer_records_settled_total", model="fraud", outcome="expired") is None
    assert value(metrics, "consumer_records_settled_total", model="fraud", outcome="wrong-shape") == 1
    assert value(metrics, "consumer_deliveries_failed_total", model="fraud", reason="too-large") == 1
    metrics.observe_action(actions.DeadLetter(Ticket(3), run(1), [failure("too-large")]))
    metrics.observe(events.Delivered(Ticket(3)))
    assert value(metrics, "consumer_records_settled_total", model="fraud", outcome="too-large") == 1


def test_a_parked_outcome_settles_when_it_is_delivered(metrics: Metrics) -> None:
    """What waits for its topic counts when its own delivery is told, not with its ticket; nor after a revocation."""
    metrics.observe(events.Assigned({P0: events.Position(None)}))
    metrics.observe_action(actions.Produce(Ticket(1), "fraud", [run(1), run(2)], [b"r"] * 3, [None] * 3))
    metrics.observe_action(actions.DeadLetter(Ticket(2), run(2), [failure("expired"), failure("wrong-shape")]))
    for place in ((1, 0), (1, 2), (2, 1)):
        metrics.observe(events.Parked(Ticket(place[0]), place[1]))
    metrics.observe(events.Delivered(Ticket(2)))
    assert value(metrics, "consumer_records_settled_total", model="fraud", outcome="result") == 1
    assert value(metrics, "consumer_records_settled_total", model="fraud", outcome="wrong-shape") is None
    metrics.observe(events.Unparked(Ticket(1), 0))
    metrics.observe(events.Unparked(Ticket(2), 1))
    assert value(metrics, "consumer_records_settled_total", model="fraud", outcome="result") == 2
    assert value(metrics, "consumer_records_settled_total", model="fraud", outcome="wrong-shape") == 1
    metrics.observe(events.Revoked([P0]))
    metrics.observe(events.Unparked(Ticket(1), 2))
    assert value(metrics, "consumer_records_settled_total", model="fraud", outcome="result") == 2


def test_the_clients_errors_count_by_name(metrics: Metrics) -> None:
    """Each kind adds as often as it came."""
    metrics.complain(Complaint("_TRANSPORT", "a broker does not answer", None, 3))
    metrics.complain(Complaint("_TRANSPORT", "a broker does not answer", None))
    assert value(metrics, "consumer_client_errors_total", error="_TRANSPORT") == 4


def test_an_unknown_model_adds_no_label(metrics: Metrics) -> None:
    """A hostile key cannot make series: names that are not configured share the empty label."""
    for ticket, name in enumerate(["x1", "x2", "x3"]):
        metrics.observe_action(actions.DeadLetter(Ticket(ticket), run(1, name), [failure("unknown-model")]))
    metrics.observe(events.Delivered(Ticket(9)))
    assert value(metrics, "consumer_records_settled_total", model="", outcome="unknown-model") == 3


def test_answers_feed_the_model_s_histograms(metrics: Metrics) -> None:
    """Rows and durations of an answer belong to the model of its chunk; failed attempts count by reason."""
    metrics.observe_action(actions.Dispatch(WorkerId(1), Chunk(ChunkId(1), "intent", [run(8, "intent")])))
    metrics.observe(answered(8, {0: failure("inference-failed"), 3: failure("inference-failed")}))
    assert value(metrics, "consumer_batch_rows_bucket", model="intent", le="8.0") == 1
    assert value(metrics, "consumer_batch_rows_bucket", model="intent", le="4.0") == 0
    assert value(metrics, "consumer_queue_seconds_sum", model="intent") == 0.004
    assert value(metrics, "consumer_infer_seconds_sum", model="intent") == 0.2
    assert value(metrics, "consumer_attempts_failed_total", model="intent", reason="inference-failed") == 2


@pytest.mark.parametrize(
    "end",
    [
        actions.Release(WorkerId(1), ChunkId(1)),
        events.WorkerExited(WorkerId(1), -9),
    ],
)
def test_a_chunk_is_forgotten_at_its_end(metrics: Metrics, end: actions.Release | events.WorkerExited) -> None:
    """After a release or the worker's death an answer about the chunk is late news and counts nowhere."""
    metrics.observe_action(actions.Dispatch(WorkerId(1), Chunk(ChunkId(1), "fraud", [run(1)])))
    if isinstance(end, actions.Release):
        metrics.observe_action(end)
    else:
        metrics.observe(end)
    metrics.observe(answered(1, {}))
    assert value(metrics, "consumer_batch_rows_count", model="fraud") is None


def test_workers_are_counted_and_their_restarts_by_reason(metrics: Metrics) -> None:
    """The first start of a slot is none; each later one counts under how the last worker ended."""
    metrics.observe_action(actions.Spawn(0, WorkerId(1)))
    metrics.observe_action(actions.Spawn(1, WorkerId(2)))
    metrics.observe(events.WorkerReady(WorkerId(1), "cpu"))
    metrics.observe(events.WorkerReady(WorkerId(2), "cpu"))
    assert value(metrics, "consumer_workers_ready") == 2
    metrics.observe(events.WorkerExited(WorkerId(1), -9))
    assert value(metrics, "consumer_workers_ready") == 1
    metrics.observe_action(actions.Spawn(0, WorkerId(3)))
    assert value(metrics, "consumer_worker_restarts_total", reason="SIGKILL") == 1


def test_what_waits_is_told_by_model(metrics: Metrics) -> None:
    """Each configured model shows how many of its records wait for a worker, and 0 once none does."""
    model = min(metrics._models)
    metrics.publish(Snapshot(in_flight_records=4, in_flight_bytes=400, lag={}, waiting={model: 3}))
    assert value(metrics, "consumer_waiting_records", model=model) == 3
    metrics.publish(Snapshot(in_flight_records=0, in_flight_bytes=0, lag={}, waiting={model: 0}))
    assert value(metrics, "consumer_waiting_records", model=model) == 0


def test_partitions_pauses_and_lag_follow_the_assignment(metrics: Metrics) -> None:
    """A revoked partition takes its pause and its lag with it."""
    metrics.observe(events.Assigned({P0: events.Position(None), P1: events.Position(5)}))
    metrics.observe_action(actions.Pause([P0, P1]))
    metrics.publish(Snapshot(in_flight_records=4, in_flight_bytes=400, lag={P0: 10, P1: 20}))
    assert value(metrics, "consumer_partitions_assigned") == 2
    assert value(metrics, "consumer_partitions_paused") == 2
    assert value(metrics, "consumer_in_flight_records") == 4
    assert value(metrics, "consumer_in_flight_bytes") == 400
    assert value(metrics, "consumer_lag_records", topic="requests", partition="1") == 20
    metrics.observe_action(actions.Resume([P0]))
    assert value(metrics, "consumer_partitions_paused") == 1
    metrics.observe(events.Revoked([P1]))
    assert value(metrics, "consumer_partitions_assigned") == 1
    assert value(metrics, "consumer_partitions_paused") == 0
    assert value(metrics, "consumer_lag_records", topic="requests", partition="1") is None
    metrics.publish(Snapshot(in_flight_records=0, in_flight_bytes=0, lag={}))
    assert value(metrics, "consumer_lag_records", topic="requests", partition="0") is None


def test_skipped_records_add_up_over_partitions(metrics: Metrics) -> None:
    """What retention removed is told as a total since the start, and counted once."""
    for skipped in ({P0: 5}, {P0: 5, P1: 2}, {P0: 6, P1: 2}):
        metrics.publish(Snapshot(in_flight_records=0, in_flight_bytes=0, lag={}, skipped=skipped))
    assert value(metrics, "consumer_records_skipped_total", topic="requests") == 8


def test_expired_records_that_are_dropped_are_done_with(metrics: Metrics) -> None:
    """They count among the settled, under an outcome of their own."""
    metrics.observe_action(actions.Note("records.expired", {"model": "fraud", "records": 3}))
    assert value(metrics, "consumer_records_settled_total", model="fraud", outcome="dropped") == 3


def test_models_are_available_from_load_to_failure_and_again_after_recovery(metrics: Metrics) -> None:
    """Availability is 0 before the load, 1 after it, 0 while the breaker is open, loaded or not, 1 once it closes."""
    seen = [value(metrics, "consumer_model_available", model="fraud")]
    metrics.observe(events.ModelLoaded(WorkerId(1), "fraud", "v1", 1.5))
    seen.append(value(metrics, "consumer_model_available", model="fraud"))
    metrics.observe_action(actions.Note("model.broken", {"model": "fraud", "message": "weights are gone"}))
    seen.append(value(metrics, "consumer_model_available", model="fraud"))
    metrics.observe(events.ModelLoaded(WorkerId(2), "fraud", "v1", 0.5))
    seen.append(value(metrics, "consumer_model_available", model="fraud"))
    metrics.observe_action(actions.Note("model.recovered", {"model": "fraud"}))
    seen.append(value(metrics, "consumer_model_available", model="fraud"))
    assert seen == [0, 1, 0, 0, 1]
    assert value(metrics, "consumer_model_load_seconds_sum", model="fraud") == 2.0


def test_commits_count_by_outcome(metrics: Metrics) -> None:
    """A refused commit is told from a taken one."""
    metrics.observe(events.Committed({P0: 3}))
    metrics.observe(events.Committed({P0: 3}, error="ILLEGAL_GENERATION"))
    assert value(metrics, "consumer_commits_total", outcome="committed") == 1
    assert value(metrics, "consumer_commits_total", outcome="failed") == 1


def test_events_that_no_figure_counts_pass_by(metrics: Metrics) -> None:
    """Facts without a figure, and reports about tickets that are gone, change nothing and raise nothing."""
    before = list(metrics.registry.collect())
    metrics.observe(events.Tick())
    metrics.observe_action(actions.Flush())
    metrics.observe(events.DeliveryFailed(Ticket(99), 0, failure("too-large")))
    names = [family.name for family in before]
    assert [family.name for family in metrics.registry.collect()] == names
    assert value(metrics, "consumer_deliveries_failed_total", model="fraud", reason="too-large") is None


@pytest.mark.parametrize(
    ("exit_code", "reason"),
    [(None, "unknown"), (0, "exit-0"), (3, "exit-3"), (-11, "SIGSEGV"), (-9, "SIGKILL"), (-200, "signal-200")],
)
def test_exits_are_named(exit_code: int | None, reason: str) -> None:
    """Signals go by their names, exit codes by their numbers."""
    assert exit_reason(exit_code) == reason


def test_the_catalogue_is_what_is_exposed(metrics: Metrics) -> None:
    """Every figure of the catalogue is registered with its kind, and nothing else of ours is."""
    exposed = {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in metrics.registry.collect()
        if family.name.startswith("consumer_")
    }
    assert exposed == {figure.name: figure.kind.value for figure in CATALOGUE}


def test_the_catalogue_keeps_its_naming_law() -> None:
    """Names carry the prefix and base units; counters, and only they, end in `_total`; meanings are sentences."""
    for figure in CATALOGUE:
        assert figure.name.startswith("consumer_")
        assert figure.name.endswith("_total") == (figure.kind is Kind.COUNTER)
        assert not figure.name.endswith(("_second", "_milliseconds"))
        assert figure.meaning.endswith(".")


def test_the_table_lists_every_figure() -> None:
    """The table for the documentation has a line per figure."""
    table = catalogue_table()
    assert [figure.name for figure in CATALOGUE if f"| `{figure.name}` |" not in table] == []
    assert len(table.splitlines()) == len(CATALOGUE) + 2


def test_an_end_is_named_by_what_it_was_for() -> None:
    """A worker that hung, one that was replaced, and one that crashed are told apart."""
    overdue = Overdue(Phase.INFER, "fraud", 60.0)
    assert end_of(events.WorkerExited(WorkerId(1), -9, overdue=overdue)) == "hung-infer"
    assert end_of(events.WorkerExited(WorkerId(1), 0, is_planned=True)) == "replaced"
    assert end_of(events.WorkerExited(WorkerId(1), 0)) == "exit-0"
    assert end_of(events.WorkerExited(WorkerId(1), -11)) == "SIGSEGV"
