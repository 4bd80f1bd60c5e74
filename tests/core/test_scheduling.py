"""Which model's records go to which worker, and how much of them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.scheduling import Assignment, ModelShare, Scheduler, SchedulingOptions
from consumer.core.types import ModelId, Run, WorkerId
from tests.strategies import PARTITIONS, UNHURRIED, make_run

A, B = "a", "b"
ONE, TWO = WorkerId(1), WorkerId(2)


def run_for(model: ModelId, first: int, count: int, size: int = 1) -> Run:
    """Make a run of a model."""
    return replace(make_run(range(first, first + count), size), model=model)


def scheduler(options: SchedulingOptions | None = None, **shares: ModelShare) -> Scheduler:
    """Make a scheduler for models a and b with two workers."""
    made = Scheduler(options or SchedulingOptions(), shares or {A: ModelShare(), B: ModelShare()})
    made.add_worker(ONE)
    made.add_worker(TWO)
    return made


def assign(made: Scheduler, *workers: WorkerId) -> list[Assignment]:
    """Assign what waits, every model being loaded on the given workers."""
    return list(made.assign(lambda _: workers))


def offsets(assignments: list[Assignment]) -> list[int]:
    """List the offsets of everything assigned."""
    return [offset for each in assignments for run in each.runs for offset in run.offsets]


@given(
    st.lists(st.tuples(st.sampled_from([A, B]), st.integers(1, 60)), max_size=30),
    st.integers(1, 50),
    st.integers(1, 300),
)
@UNHURRIED
def test_everything_is_sent_once_and_in_order_within_limits(
    waits: list[tuple[ModelId, int]], chunk_max: int, bytes_max: int
) -> None:
    """Each queued record is assigned exactly once, per model in its order, in chunks within both limits."""
    options = SchedulingOptions(chunk_records_max=chunk_max, chunk_bytes_max=bytes_max, worker_bytes_max=bytes_max)
    made, first = scheduler(options), 0
    for model, count in waits:
        made.enqueue(run_for(model, first, count, size=7))
        first += count
    seen: dict[ModelId, list[int]] = {A: [], B: []}
    for _ in range(10_000):
        assignments = assign(made, ONE, TWO)
        if not assignments:
            break
        for each in assignments:
            records = sum(map(len, each.runs))
            assert 1 <= records <= chunk_max
            assert records == 1 or records * 7 <= bytes_max
            seen[each.model].extend(offsets([each]))
            made.settle(each.worker, each.model, records, 0.0)
            made.release(each.worker, sum(run.size for run in each.runs))
    assert sorted(seen[A] + seen[B]) == list(range(first))
    assert all(order == sorted(order) for order in seen.values())
    assert made.waiting_models() == []
    assert made.load_s(ONE) == made.load_s(TWO) == 0


def test_device_time_is_shared_by_weight() -> None:
    """A model of weight 3 gets three times the time of one of weight 1, though its records cost ten times as much."""
    options = SchedulingOptions(worker_work_ms_max=0.001, chunk_records_max=1000)
    made = scheduler(options, a=ModelShare(weight=3.0, rows_max=40), b=ModelShare(weight=1.0, rows_max=40))
    costs_s = {A: 0.01, B: 0.001}
    for model, cost_s in costs_s.items():
        for first in range(0, 30_000, 500):
            made.enqueue(run_for(model, first, 500))
        made._queues[model].record_cost_s = cost_s
    spent_s = {A: 0.0, B: 0.0}
    for _ in range(400):
        for each in assign(made, ONE):
            records = sum(map(len, each.runs))
            spent_s[each.model] += records * costs_s[each.model]
            made.settle(each.worker, each.model, records, records * costs_s[each.model])
            made.release(each.worker, sum(run.size for run in each.runs))
    assert spent_s[B] > 0
    assert 2.5 < spent_s[A] / spent_s[B] < 3.5


def test_a_flood_does_not_keep_another_model_waiting() -> None:
    """A record of a quiet model is sent in the same round as the flood that was there before it."""
    made = scheduler()
    for first in range(0, 100_000, 1000):
        made.enqueue(run_for(A, first, 1000))
    made.enqueue(run_for(B, 0, 1))
    assert B in {each.model for each in assign(made, ONE)}


@pytest.mark.parametrize(("record_cost_s", "records"), [(0.05, 16), (0.1, 10), (1.0, 2)])
def test_a_worker_gets_no_more_ahead_than_its_device_needs(record_cost_s: float, records: int) -> None:
    """Two batches of a slow model may lie with a worker, of half a second or a record; the rest can be reordered."""
    made = scheduler(None, a=ModelShare(rows_max=8))
    made.enqueue(run_for(A, 0, 1000))
    made._queues[A].record_cost_s = record_cost_s
    first = assign(made, ONE)
    for _ in range(200):
        first += assign(made, ONE)
    assert len(offsets(first)) == records


def test_the_least_loaded_worker_is_chosen() -> None:
    """With one worker busy, the next chunk goes to the other."""
    made = scheduler()
    made.enqueue(run_for(A, 0, 10))
    (busy,) = assign(made, ONE, TWO)
    made.enqueue(run_for(A, 10, 10))
    (other,) = assign(made, ONE, TWO)
    assert {busy.worker, other.worker} == {ONE, TWO}


def test_suspects_travel_alone_on_one_emptied_worker() -> None:
    """While a suspect chunk waits, its worker gets nothing else; meanwhile the other one goes on."""
    made = scheduler()
    made.enqueue(run_for(A, 0, 10))
    (first,) = assign(made, ONE)
    made.suspect([run_for(A, 100, 4)])
    made.enqueue(run_for(A, 10, 10))
    assert assign(made, ONE) == []
    made.settle(ONE, A, 10, 0.0)
    made.release(ONE, first.runs[0].size)
    (alone,) = assign(made, ONE)
    assert alone.is_suspect
    assert offsets([alone]) == [100, 101, 102, 103]
    assert {each.worker for each in assign(made, ONE, TWO)} == {TWO}
    made.settle(ONE, A, 4, 0.0)
    made.release(ONE, alone.runs[0].size)
    made.enqueue(run_for(A, 20, 10))
    assert assign(made, ONE) != []


def test_one_hunt_at_a_time() -> None:
    """A second suspect chunk waits for the first, so that healthy traffic keeps the other worker."""
    made = scheduler()
    made.suspect([run_for(A, 0, 1)])
    made.suspect([run_for(A, 1, 1)])
    made.enqueue(run_for(B, 5, 1))
    sent = assign(made, ONE, TWO)
    assert [each.is_suspect for each in sent] == [True, False]
    assert [each.is_suspect for each in assign(made, ONE, TWO)] == []


def test_a_reservation_ends_with_its_suspects() -> None:
    """A worker that is being emptied takes chunks again when the suspects' partition was taken away."""
    made = scheduler()
    made.enqueue(run_for(A, 0, 10))
    assign(made, ONE)
    made.suspect([run_for(A, 100, 4)])
    assert assign(made, ONE) == []
    assert made.drop(PARTITIONS) != []
    made.enqueue(run_for(A, 10, 10))
    assert offsets(assign(made, ONE)) == list(range(10, 20))


def test_dropped_partitions_leave_no_records_behind() -> None:
    """What waits of a revoked partition is given up, everything else stays in order."""
    made = scheduler()
    for number, partition in enumerate(PARTITIONS):
        made.enqueue(replace(run_for(A, 10 * number, 10), partition=partition))
    dropped = made.drop(PARTITIONS[:2])
    assert [offset for run in dropped for offset in run.offsets] == list(range(20))
    assert sorted(offsets(assign(made, ONE, TWO))) == list(range(20, 40))


def test_requeued_records_come_first() -> None:
    """Records that come back are sent before those that have not been tried."""
    made = scheduler()
    made.enqueue(run_for(A, 5, 3))
    made.requeue(run_for(A, 0, 3))
    assert offsets(assign(made, ONE)) == [0, 1, 2, 5, 6, 7]


def test_a_dead_worker_gets_nothing() -> None:
    """A worker that was removed is not chosen, even while placement still names it."""
    made = scheduler()
    made.remove_worker(ONE)
    made.enqueue(run_for(A, 0, 3))
    assert {each.worker for each in assign(made, ONE, TWO)} == {TWO}
    made.release(ONE, 3)


def test_records_that_expired_on_the_way_leave_no_load() -> None:
    """After `shrink`, a worker's load is what was really sent."""
    made = scheduler()
    made.enqueue(run_for(A, 0, 10))
    (sent,) = assign(made, ONE)
    made.shrink(ONE, A, 10, sent.runs[0].size)
    made.release(ONE, 0)
    assert made.load_s(ONE) == 0


def test_the_oldest_run_of_a_partition_can_be_taken() -> None:
    """`take_oldest` takes from one partition only, and nothing where there is nothing."""
    made = scheduler()
    made.enqueue(replace(run_for(A, 0, 2), partition=PARTITIONS[1]))
    made.enqueue(run_for(A, 2, 2))
    taken = made.take_oldest(A, PARTITIONS[0])
    assert taken is not None
    assert list(taken.offsets) == [2, 3]
    assert made.take_oldest(A, PARTITIONS[0]) is None
    assert made.waiting_s(A) > 0
