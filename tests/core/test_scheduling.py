"""Which model's records go to which worker, and how much of them."""

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from consumer.core.limits import BURST_S, ModelLimits
from consumer.core.queues import COST_UNKNOWN_S
from consumer.core.scheduling import Assignment, ModelShare, Scheduler, SchedulingOptions
from consumer.core.types import ModelId, Run, WorkerId
from consumer.supervisor.loop import IDLE_WAIT_S
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


def assign(made: Scheduler, *workers: WorkerId, now: float = 0.0) -> list[Assignment]:
    """Assign what waits, every model being loaded on the given workers."""
    return list(made.assign(lambda _: workers, now))


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


@dataclass
class Device:
    """One worker's device in virtual time: it runs what lies with it batch by batch, and is given more after each."""

    made: Scheduler
    costs_s: Mapping[ModelId, float]
    rows_max: Mapping[ModelId, int]
    now: float = 0.0
    given_s: dict[ModelId, float] = field(default_factory=lambda: defaultdict(float))
    """Device time by model."""
    began_s: dict[tuple[ModelId, int], float] = field(default_factory=dict)
    """When each record was run."""
    inbox: dict[ModelId, deque[tuple[Assignment, list[int]]]] = field(default_factory=dict)
    """By model, the one that was served least recently first."""

    def supply(self) -> None:
        """Assign what there is room for."""
        for each in assign(self.made, ONE, now=self.now):
            self.inbox.setdefault(each.model, deque()).append((each, offsets([each])))

    def run_batch(self) -> None:
        """Run the oldest records of the model whose turn it is."""
        self.supply()
        model = next((model for model, chunks in self.inbox.items() if chunks), None)
        if model is None:
            self.now += 0.001
            return
        chunks = self.inbox[model] = self.inbox.pop(model)
        sent, left = chunks[0]
        batch, left[:] = left[: self.rows_max[model]], left[self.rows_max[model] :]
        self.began_s.update({(model, offset): self.now for offset in batch})
        spent_s = len(batch) * self.costs_s[model]
        self.now += spent_s
        self.given_s[model] += spent_s
        self.made.settle(ONE, model, len(batch), spent_s)
        if not left:
            chunks.popleft()
            self.made.release(ONE, sum(run.size for run in sent.runs))


def device(costs_s: Mapping[ModelId, float], **shares: ModelShare) -> Device:
    """Make a device that serves models of known cost."""
    made = Scheduler(SchedulingOptions(), shares)
    made.add_worker(ONE)
    for model, cost_s in costs_s.items():
        made._queues[model].record_cost_s = cost_s
    return Device(made, costs_s, {model: share.rows_max for model, share in shares.items()})


@given(st.floats(0.5, 4.0), st.floats(1e-3, 1e-2), st.floats(1e-3, 1e-2), st.integers(8, 64), st.integers(8, 64))
@settings(UNHURRIED, max_examples=25)
def test_device_time_is_shared_by_weight(
    weight: float, cost_a_s: float, cost_b_s: float, rows_a: int, rows_b: int
) -> None:
    """Two floods get the device time that their weights say, whatever a record costs and however large batches are."""
    busy = device({A: cost_a_s, B: cost_b_s}, a=ModelShare(weight, rows_max=rows_a), b=ModelShare(rows_max=rows_b))
    while busy.now < 10.0:
        for model in (A, B):
            if busy.made._queues[model].records < 500:
                busy.made.enqueue(run_for(model, 0, 500))
        busy.run_batch()
    at_once_s = [max(0.05, 3 * cost_a_s * rows_a) / weight, max(0.05, 3 * cost_b_s * rows_b)]
    assert busy.given_s[A] / weight == pytest.approx(busy.given_s[B], abs=2 * sum(at_once_s))
    assert busy.given_s[A] + busy.given_s[B] == pytest.approx(busy.now)


@given(
    st.lists(st.tuples(st.floats(1e-5, 2e-2), st.integers(1, 64)), min_size=1, max_size=4),
    st.floats(1e-5, 2e-2),
    st.integers(1, 64),
    st.integers(0, 30),
)
@settings(UNHURRIED, max_examples=40)
def test_a_flood_does_not_keep_another_model_waiting(
    floods: list[tuple[float, int]], cost_s: float, rows_max: int, batches: int
) -> None:
    """A quiet model's record waits for what may lie ahead of one device and one batch more, however much floods it."""
    names = [f"flood {number}" for number in range(len(floods))]
    costs_s = {name: cost for name, (cost, _) in zip(names, floods, strict=True)} | {B: cost_s}
    shares = {name: ModelShare(rows_max=rows) for name, (_, rows) in zip(names, floods, strict=True)}
    busy = device(costs_s, **shares, b=ModelShare(rows_max=rows_max))
    for _ in range(1 + batches):
        for name in names:
            while busy.made._queues[name].records < 1_500:
                busy.made.enqueue(run_for(name, 0, 500))
        busy.run_batch()
    asked_s = busy.now
    busy.made.enqueue(run_for(B, 7, 1))
    while (B, 7) not in busy.began_s:
        busy.run_batch()
    batch_s = max(cost * rows for cost, rows in floods)
    assert busy.began_s[B, 7] - asked_s <= max(0.05, 3 * batch_s) + batch_s + 1e-6


@given(st.floats(1e-5, 2e-2), st.integers(1, 64), st.floats(1e-5, 1e-2), st.integers(0, 30))
@settings(UNHURRIED, max_examples=40)
def test_beside_one_flood_a_quiet_model_waits_for_one_batch(
    flood_cost_s: float, rows_max: int, cost_s: float, batches: int
) -> None:
    """A quiet model's record is in the batch after the one that runs, whatever of the flood lies there."""
    assume(flood_cost_s * rows_max * SchedulingOptions().worker_chunks_max > 0.06)  # else it waits for a chunk to go
    busy = device({A: flood_cost_s, B: cost_s}, a=ModelShare(rows_max=rows_max), b=ModelShare())
    for _ in range(1 + batches):
        while busy.made._queues[A].records < 1_500:
            busy.made.enqueue(run_for(A, 0, 500))
        busy.run_batch()
    busy.made.enqueue(run_for(B, 7, 1))
    asked_s = busy.now
    busy.run_batch()
    busy.run_batch()
    assert busy.began_s[B, 7] - asked_s <= flood_cost_s * rows_max + 1e-6


def test_a_queue_that_runs_empty_in_between_gets_no_more_than_its_share() -> None:
    """A model whose records come in bursts, each sent at once, does not keep a flood from its half of the device."""
    busy = device({A: 0.001, B: 0.001}, a=ModelShare(rows_max=40), b=ModelShare(rows_max=40))
    for first in range(0, 10_000, 500):
        busy.made.enqueue(run_for(A, first, 500))
    for first in range(0, 50_000, 50):
        if busy.now < 10.0:
            if not busy.made._queues[B].runs:
                busy.made.enqueue(run_for(B, first, 50))
            busy.run_batch()
    assert busy.given_s[A] >= 0.48 * busy.now
    assert busy.given_s[B] >= 0.35 * busy.now


def test_time_without_a_device_is_not_saved_up() -> None:
    """A model that was loaded for long gets its half of the device then, and no more."""
    busy = device({A: 0.001, B: 0.001}, a=ModelShare(rows_max=40), b=ModelShare(rows_max=40))
    for model in (A, B):
        for first in range(0, 20_000, 500):
            busy.made.enqueue(run_for(model, first, 500))
    for now in range(50):
        for sent in list(busy.made.assign(lambda model: [ONE] if model == A else [], float(now))):
            busy.made.settle(ONE, A, len(offsets([sent])), 0.001 * len(offsets([sent])))
            busy.made.release(ONE, sum(run.size for run in sent.runs))
    while busy.now < 2.0:
        busy.run_batch()
    assert busy.given_s[A] / busy.given_s[B] == pytest.approx(1.0, rel=0.1)


def test_a_large_record_is_not_passed_over_for_ever() -> None:
    """A record that is too large for what smaller ones leave free is sent, since its worker takes no more of these."""
    made = Scheduler(SchedulingOptions(chunk_bytes_max=100, worker_bytes_max=400), {A: ModelShare(), B: ModelShare()})
    made.add_worker(ONE)
    made.enqueue(run_for(A, 0, 10_000))
    chunks = deque(assign(made, ONE))
    made.enqueue(run_for(B, 0, 1, size=1000))
    for _ in range(40):
        sent = chunks.popleft()
        if sent.model == B:
            return
        made.settle(ONE, A, len(offsets([sent])), 0.001)
        made.release(ONE, sum(run.size for run in sent.runs))
        chunks.extend(assign(made, ONE))
    raise AssertionError("the large record was passed over forty times")


def priority_device() -> Device:
    """Make a device with models of three classes, flooded for the upper two."""
    return device(
        {"high": 0.001, "middle": 0.001, "low": 0.001},
        high=ModelShare(priority=5, rows_max=40),
        middle=ModelShare(rows_max=40),
        low=ModelShare(weight=9.0, priority=-3, rows_max=40),
    )


def test_a_higher_class_goes_first_and_a_lower_one_keeps_a_part() -> None:
    """Each class gets a tenth of what the one above it gets, whatever the weights say; the lowest has its share."""
    busy = priority_device()
    for model in ("low", "middle", "high"):
        for _ in range(200):
            busy.made.enqueue(run_for(model, 0, 500))
    while busy.now < 100.0:
        busy.run_batch()
    assert busy.given_s["middle"] / busy.given_s["high"] == pytest.approx(0.1, rel=0.1)
    assert busy.given_s["low"] / busy.given_s["middle"] == pytest.approx(0.1, rel=0.2)


def test_records_of_a_higher_class_go_before_those_that_were_there() -> None:
    """Of what waits when a device becomes free, the higher class's records are sent first."""
    busy = priority_device()
    busy.made.enqueue(run_for("middle", 0, 10_000))
    for _ in range(100):
        busy.run_batch()
    busy.made.enqueue(run_for("low", 0, 100))
    busy.made.enqueue(run_for("high", 0, 100))
    while ("low", 99) not in busy.began_s:
        busy.run_batch()
    assert busy.began_s["high", 99] < busy.began_s["low", 0]
    assert busy.began_s["high", 99] - busy.began_s["high", 0] < 0.2


def test_a_lower_class_has_the_device_when_nothing_waits_above() -> None:
    """Priority keeps no device idle: with the higher classes quiet, the lowest gets all of it."""
    busy = priority_device()
    busy.made.enqueue(run_for("low", 0, 2_000))
    while busy.now < 1.0:
        busy.run_batch()
    assert busy.given_s["low"] == pytest.approx(1.0, rel=0.05)


@given(
    st.one_of(st.none(), st.integers(1, 60)),
    st.one_of(st.none(), st.floats(0.5, 5000.0)),
    st.integers(1, 64),
    st.lists(st.floats(0.0, 0.3), min_size=1, max_size=60),
)
@settings(UNHURRIED, max_examples=50)
def test_limits_hold_and_what_they_hold_back_is_sent_in_time(
    in_flight_max: int | None, rate: float | None, rows_max: int, pauses_s: list[float]
) -> None:
    """Never more with workers, nor sent in any time, than the limits say, and another model is not held back."""
    limits = ModelLimits(in_flight_max, rate)
    made = scheduler(None, a=ModelShare(rows_max=rows_max, limits=limits), b=ModelShare())
    made.enqueue(run_for(A, 0, 5_000))
    now, with_workers = 0.0, 0
    sent: list[tuple[float, int]] = []
    for number, pause_s in enumerate(pauses_s):
        now += pause_s
        made.enqueue(run_for(B, number, 1))
        assignments = assign(made, ONE, TWO, now=now)
        assert B in {each.model for each in assignments}
        count = sum(len(offsets([each])) for each in assignments if each.model == A)
        with_workers += count
        sent.append((now, count))
        assert in_flight_max is None or with_workers <= in_flight_max
        if not count and made._queues[A].runs:
            assert A in made.limited_models()
        for each in assignments:
            made.settle(each.worker, each.model, len(offsets([each])), 0.0)
            made.release(each.worker, sum(run.size for run in each.runs))
        with_workers = 0
    if rate is not None:
        for i, (begin_s, _) in enumerate(sent):
            total = 0
            for at_s, count in sent[i:]:
                total += count
                assert total <= 1 + rate * (BURST_S + at_s - begin_s) + 1e-3


@pytest.mark.parametrize("rate", [0.7, 4.0, 30.0, 1000.0])
def test_a_rate_is_used_in_full_by_a_loop_that_turns_only_now_and_then(rate: float) -> None:
    """At the longest waits of the supervisor's loop the model gets its rate: nobody has to be woken for it."""
    made = scheduler(None, a=ModelShare(limits=ModelLimits(rate_per_s_max=rate)))
    made.enqueue(run_for(A, 0, int(20 * rate)))
    sent = 0
    for turn in range(200):
        for each in assign(made, ONE, now=IDLE_WAIT_S * turn):
            sent += len(offsets([each]))
            made.settle(each.worker, A, len(offsets([each])), 0.0)
            made.release(each.worker, sum(run.size for run in each.runs))
    assert sent >= 0.9 * rate * 199 * IDLE_WAIT_S


def test_records_wait_for_a_whole_batch_at_a_limited_rate() -> None:
    """A rate of 1,000 a second sends some batches of a hundred, rather than every record when its token comes."""
    made = scheduler(None, a=ModelShare(rows_max=64, limits=ModelLimits(rate_per_s_max=1000.0)))
    made.enqueue(run_for(A, 0, 10_000))
    counts = []
    for turn in range(1000):
        for each in assign(made, ONE, now=0.001 * turn):
            counts.append(len(offsets([each])))
            made.settle(each.worker, A, counts[-1], 0.0)
            made.release(each.worker, sum(run.size for run in each.runs))
    assert sum(counts) >= 1000
    assert min(counts) >= 64


def test_what_expired_on_the_way_is_not_counted_against_the_rate() -> None:
    """Records that `shrink` gives back leave their tokens to those behind them."""
    made = scheduler(None, a=ModelShare(limits=ModelLimits(rate_per_s_max=10.0)))
    made.enqueue(run_for(A, 0, 9))
    (first,) = assign(made, ONE)
    assert offsets([first]) == [0, 1, 2]
    assert assign(made, ONE) == []
    assert made.limited_models() == {A}
    assert made.waiting_records() == {A: 6}
    made.shrink(ONE, A, 3, 3)
    made.release(ONE, 0)
    assert offsets(assign(made, ONE)) == [3, 4, 5]


def test_a_limited_model_asks_for_no_further_workers() -> None:
    """What its limits hold back is no reason to load a model once more."""
    made = scheduler(None, a=ModelShare(limits=ModelLimits(in_flight_records_max=5)), b=ModelShare())
    made.enqueue(run_for(A, 0, 1_000))
    assert made.waiting_s(A) == 5 * COST_UNKNOWN_S
    assign(made, ONE)
    assert made.waiting_s(A) == 0
    assert made.waiting_models() == [A]
    made.enqueue(run_for(B, 0, 1_000))
    assert made.waiting_s(B) == 1_000 * COST_UNKNOWN_S


def test_suspects_keep_within_the_limit_and_are_not_passed_by() -> None:
    """Suspects wait until there is room for them beside what workers have, and others of their model wait for them."""
    made = scheduler(None, a=ModelShare(limits=ModelLimits(in_flight_records_max=6)))
    made.enqueue(run_for(A, 0, 20))
    (sent,) = assign(made, ONE)
    made.suspect([run_for(A, 100, 4)])
    made.settle(ONE, A, 3, 0.0)
    assert assign(made, ONE, TWO) == []
    made.settle(ONE, A, 3, 0.0)
    made.release(ONE, sent.runs[0].size)
    sizes = [(each.is_suspect, len(offsets([each]))) for each in assign(made, ONE, TWO)]
    assert sizes == [(True, 4), (False, 2)]


@pytest.mark.parametrize(("record_cost_s", "records"), [(0.05, 24), (0.1, 15), (1.0, 3)])
def test_a_worker_gets_no_more_ahead_than_its_device_needs(record_cost_s: float, records: int) -> None:
    """Three batches of a slow model may lie with a worker, of half a second or a record; the rest can be reordered."""
    made = scheduler(None, a=ModelShare(rows_max=8))
    made.enqueue(run_for(A, 0, 1000))
    made._queues[A].record_cost_s = record_cost_s
    first = assign(made, ONE)
    for _ in range(200):
        first += assign(made, ONE)
    assert len(offsets(first)) == records


def test_a_worker_that_knows_how_large_a_batch_should_be_gets_no_more_of_them() -> None:
    """What lies with a worker is counted in batches as it makes them, not as large as the configuration allows."""
    made = scheduler(None, a=ModelShare(rows_max=8))
    made.enqueue(run_for(A, 0, 1000))
    made._queues[A].record_cost_s = 0.05
    assert len(offsets(assign(made, ONE))) == 24
    made.settle(ONE, A, 24, 1.2, rows_enough=2)
    assert len(offsets(assign(made, ONE))) == 6


def test_a_chunk_is_not_smaller_than_what_takes_little() -> None:
    """However few rows are enough, room is used for ten milliseconds' worth of records at once."""
    made = scheduler()
    made.enqueue(run_for(A, 0, 1000))
    made._queues[A].record_cost_s = 0.001
    made._queues[A].rows_enough = 1
    assert len(offsets(assign(made, ONE))) == 50
    made.settle(ONE, A, 1, 0.0)
    assert len(offsets(assign(made, ONE))) == 10


def test_whose_turn_it_is_need_not_wait_for_room() -> None:
    """A model with nothing there may send a little beside all that a flood has there, once, and the flood nothing."""
    made = scheduler()
    made.enqueue(run_for(A, 0, 10_000))
    made._queues[A].record_cost_s = made._queues[B].record_cost_s = 0.001
    while assign(made, ONE):
        pass
    made.enqueue(run_for(B, 0, 9))
    (sent,) = assign(made, ONE)
    assert (sent.model, len(offsets([sent]))) == (B, 9)
    made.enqueue(run_for(B, 9, 1))
    assert assign(made, ONE) == []
    made.settle(ONE, B, 9, 0.0)
    made.release(ONE, sent.runs[0].size)
    assert offsets(assign(made, ONE)) == [9]
    made.settle(ONE, B, 1, 0.0)
    made.enqueue(run_for(B, 10, 11))
    assert assign(made, ONE) == [], "with more than little to send it is no quiet model"


def test_who_has_something_there_waits_for_room() -> None:
    """The last record of a flood goes no further ahead of the device than the others did."""
    made = scheduler(None, a=ModelShare(rows_max=8))
    made.enqueue(run_for(A, 0, 25))
    made._queues[A].record_cost_s = 0.01
    assert len(offsets(assign(made, ONE))) == 24
    assert assign(made, ONE) == []


def test_who_cannot_be_served_is_not_in_the_way_of_the_next() -> None:
    """Whose turn it is in vain, for want of a worker that has the model, leaves the turn to the next one."""
    made = scheduler(None, a=ModelShare(), b=ModelShare(), c=ModelShare())
    made.enqueue(run_for(A, 0, 10_000))
    made._queues[A].record_cost_s = 0.001
    while assign(made, ONE):
        pass
    for model in ("c", B):
        made.enqueue(run_for(model, 0, 5))
    sent = list(made.assign(lambda model: [] if model == B else [ONE], 0.0))
    assert [each.model for each in sent] == ["c"]


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
    assert made.waiting_records()[A] == 14
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


def test_all_are_busy_as_long_as_the_first_to_be_idle() -> None:
    """What the least loaded worker has ahead is what everybody has; without workers that is nothing."""
    made = scheduler()
    assert made.busy_s() == 0
    made.enqueue(run_for(A, 0, 100))
    assign(made, ONE)
    assert made.busy_s() == 0
    made.enqueue(run_for(A, 100, 10))
    assign(made, TWO)
    assert made.busy_s() == pytest.approx(10 * COST_UNKNOWN_S)
    made.remove_worker(ONE)
    made.remove_worker(TWO)
    assert made.busy_s() == 0


def busy_with(record_cost_s: float, options: SchedulingOptions | None = None) -> Scheduler:
    """Make a scheduler of batches of 512 records of a known cost, and give one worker 600 of them."""
    made = scheduler(options, a=ModelShare(rows_max=512))
    made._queues[A].record_cost_s = record_cost_s
    made.enqueue(run_for(A, 0, 600))
    assert [len(offsets([each])) for each in assign(made, ONE)] == [600]
    return made


def test_a_busy_worker_is_sent_whole_batches() -> None:
    """What is left of a batch waits for its rest while the device is busy, and goes as it is when it is not."""
    made = busy_with(1e-6)
    made.enqueue(run_for(A, 600, 777))
    assert [len(offsets([each])) for each in assign(made, ONE)] == [512]
    made.settle(ONE, A, 600, 600e-6)
    made.release(ONE, 600)
    assert [len(offsets([each])) for each in assign(made, ONE)] == [265]


def test_what_is_free_is_left_until_a_whole_batch_fits() -> None:
    """A busy worker whose memory has room for less than a batch is sent the next one when it has."""
    made = busy_with(1e-6, SchedulingOptions(worker_bytes_max=1_500))
    made.enqueue(run_for(A, 600, 1_500))
    assert [len(offsets([each])) for each in assign(made, ONE)] == [512]
    made.settle(ONE, A, 600, 600e-6)
    made.release(ONE, 600)
    assert [len(offsets([each])) for each in assign(made, ONE)] == [512]


def test_slow_batches_are_sent_as_they_come() -> None:
    """Where a batch takes longer than what is told of it could cost, nothing waits for its rest."""
    made = busy_with(2e-5)
    made.enqueue(run_for(A, 600, 777))
    assert [len(offsets([each])) for each in assign(made, ONE)] == [777]
