"""The dispatcher's own decisions, one at a time; how they play together, the simulation shows."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pytest

from consumer.core import actions as do
from consumer.core import events as on
from consumer.core.activity import Stretch
from consumer.core.breaker import BreakerOptions, CrashOptions
from consumer.core.commits import CommitOptions
from consumer.core.dispatcher import Dispatcher
from consumer.core.expiry import ModelExpiry
from consumer.core.flow import FlowOptions
from consumer.core.limits import ModelLimits
from consumer.core.outcomes import PAYLOAD_LOST
from consumer.core.placement import OVERSPENT, ModelPlace
from consumer.core.policies import DispatcherOptions, ModelPolicy
from consumer.core.scheduling import ModelShare
from consumer.core.types import Disposition, Failure, Slice, TopicPartition, WorkerId
from consumer.errors import ExitCode

TP, OTHER = TopicPartition("in", 0), TopicPartition("in", 1)
OPTIONS = DispatcherOptions(
    flow=FlowOptions(records_max=40, bytes_max=4000, span_max=100, fetch_records_max=10),
    commit=CommitOptions(interval_ms=100, records_max=1000, retry_ms=10),
)
POISON = Failure("inference-failed", "RuntimeError", "no")
PASSING = Failure("out-of-memory", "MemoryError", "no", Disposition.TRANSIENT)
BROKEN = Failure("model-unavailable", "ModelError", "no", Disposition.UNAVAILABLE)
TOO_LARGE = Failure("too-large", "MSG_SIZE_TOO_LARGE", "too large")


A = TypeVar("A", bound=do.Action)


def slice_of(model: str, partition: TopicPartition, offsets: Sequence[int]) -> Slice:
    """Make a slice of records of one model."""
    return Slice(
        partition=partition,
        offsets=list(offsets),
        models=model,
        keys=[model.encode()] * len(offsets),
        values=[str(offset).encode() for offset in offsets],
        headers=None,
        timestamps_ms=[-1] * len(offsets),
    )


@dataclass
class Rig:
    """A dispatcher with one model, one worker and one partition, driven by hand."""

    policy: ModelPolicy = field(default_factory=ModelPolicy)
    now: float = 0.0
    is_exactly_once: bool = False

    def __post_init__(self) -> None:
        """Boot the worker and load the model."""
        options = replace(OPTIONS, exactly_once=self.is_exactly_once)
        self.core = Dispatcher(options, {"a": self.policy}, 1, lambda: 0.5, self.now)
        (spawn,) = self.ask(on.Tick(), do.Spawn)
        self.worker: WorkerId = spawn.worker
        self.tell(on.WorkerReady(self.worker, "cpu"))
        self.tell(on.Assigned({TP: on.Position(None)}))

    def tell(self, event: on.Event) -> list[do.Action]:
        """Step, and return the actions."""
        return self.core.step(event, self.now)

    def ask(self, event: on.Event, kind: type[A]) -> list[A]:
        """Step, and return the actions of a kind."""
        return [action for action in self.tell(event) if isinstance(action, kind)]

    def fetch(
        self,
        *offsets: int,
        partition: TopicPartition = TP,
        deadlines: list[float | None] | None = None,
        timestamps_ms: list[int] | None = None,
    ) -> None:
        """Let records arrive, on a machine that started with the epoch."""
        part = slice_of("a", partition, offsets)
        part.timestamps_ms, part.deadlines_s = timestamps_ms or part.timestamps_ms, deadlines
        self.tell(on.Fetched([part]))

    def dispatch(self) -> do.Dispatch:
        """Turn until a chunk is sent, loading the model if that is asked."""
        for _ in range(2):
            for action in self.tell(on.Tick()):
                if isinstance(action, do.Load):
                    self.tell(on.ModelLoaded(self.worker, "a", "1", 0.1))
                elif isinstance(action, do.Dispatch):
                    return action
        raise AssertionError("nothing was sent")

    def produce(self, sent: do.Dispatch) -> do.Produce:
        """Answer a whole chunk with results."""
        (produce,) = self.answer(sent)
        assert isinstance(produce, do.Produce)
        return produce

    def answer(self, sent: do.Dispatch, failures: dict[int, Failure] | None = None) -> list[do.Action]:
        """Answer a whole chunk."""
        count = len(sent.chunk)
        values = [b"result"] * count
        return self.tell(
            on.Answered(self.worker, sent.chunk.chunk, 0, count, values, values, failures or {}, count, 0.0, 0.001)
        )


def test_a_record_goes_through_and_is_committed_after_its_delivery() -> None:
    """Fetched, dispatched, produced, flushed, delivered, committed: each only after the one before."""
    rig = Rig()
    rig.fetch(0, 1, 2)
    produce = rig.produce(rig.dispatch())
    rig.now = 0.2
    kinds = [type(action) for action in rig.tell(on.Tick())]
    assert kinds == [do.Release, do.Flush]
    assert rig.ask(on.Tick(), do.Commit) == []
    rig.tell(on.Delivered(produce.ticket))
    (commit,) = rig.ask(on.Tick(), do.Commit)
    assert commit.offsets == {TP: (3, "")}
    assert rig.ask(on.Tick(), do.Commit) == []
    rig.tell(on.Committed({TP: 3}))
    rig.now = 1.0
    assert rig.ask(on.Tick(), do.Commit) == []


def test_a_refused_commit_is_made_again() -> None:
    """After an error the same offsets are committed once more, after a pause."""
    rig = Rig()
    rig.fetch(0)
    produce = rig.produce(rig.dispatch())
    rig.now = 0.2
    rig.tell(on.Tick())
    rig.tell(on.Delivered(produce.ticket))
    (first,) = rig.ask(on.Tick(), do.Commit)
    rig.tell(on.Committed({TP: 1}, "REBALANCE_IN_PROGRESS"))
    assert rig.ask(on.Tick(), do.Commit) == []
    rig.now = 0.3
    (again,) = rig.ask(on.Tick(), do.Commit)
    assert again.offsets == first.offsets


def test_a_commit_that_is_refused_for_its_size_is_made_without_its_map() -> None:
    """At least once the map is a help: a broker that takes none gets the offset alone, and this is noted once."""
    rig = Rig()
    rig.fetch(0, 1, 2)
    (produce,) = rig.answer(rig.dispatch(), {0: BROKEN})
    assert isinstance(produce, do.Produce)
    rig.now = 0.2
    rig.tell(on.Tick())
    rig.tell(on.Delivered(produce.ticket))
    (first,) = rig.ask(on.Tick(), do.Commit)
    assert first.offsets[TP][1] != ""
    (note,) = rig.ask(on.Committed({TP: 0}, "OFFSET_METADATA_TOO_LARGE"), do.Note)
    assert note.name == "offset_map.refused"
    rig.now = 0.5
    (again,) = rig.ask(on.Tick(), do.Commit)
    assert again.offsets == {TP: (0, "")}
    assert rig.ask(on.Committed({TP: 0}, "OFFSET_METADATA_TOO_LARGE"), do.Note) == []


def test_exactly_once_does_not_go_on_without_the_map() -> None:
    """There the map is data: a broker that refuses it for its size ends the program, with a line that says why."""
    rig = Rig(is_exactly_once=True)
    (stop,) = rig.ask(on.Committed({TP: 0}, "OFFSET_METADATA_TOO_LARGE"), do.Stop)
    assert stop.exit_code is ExitCode.BROKER
    assert "offset.metadata.max.bytes" in stop.reason


def test_poison_is_dead_lettered_and_its_neighbours_are_produced() -> None:
    """One answer becomes results and a dead letter with the payload, which counts the attempt."""
    rig = Rig()
    rig.fetch(0, 1, 2)
    produce, letter = rig.answer(rig.dispatch(), {1: POISON})
    assert isinstance(produce, do.Produce)
    assert [list(run.offsets) for run in produce.runs] == [[0, 2]]
    assert isinstance(letter, do.DeadLetter)
    assert (list(letter.run.offsets), list(letter.run.values), letter.run.attempts) == ([1], [b"1"], 1)
    assert list(letter.failures) == [POISON]


def test_a_passing_failure_is_tried_again_until_its_attempts_are_used_up() -> None:
    """Each attempt waits its backoff and is charged; the last one's failure makes the dead letter."""
    rig = Rig()
    rig.fetch(0)
    for attempt in range(1, OPTIONS.retry.attempts_max):
        assert rig.answer(rig.dispatch(), {0: PASSING}) == [], attempt
        assert rig.ask(on.Tick(), do.Dispatch) == []
        rig.now += 20.0
    (letter,) = [a for a in rig.answer(rig.dispatch(), {0: PASSING}) if isinstance(a, do.DeadLetter)]
    assert letter.run.attempts == OPTIONS.retry.attempts_max


def test_records_of_a_broken_model_wait_at_no_charge() -> None:
    """They come back, are sent again when the probe has passed, and get their results."""
    rig = Rig(ModelPolicy(place=ModelPlace(breaker=BreakerOptions(backoff_s=1.0))))
    rig.fetch(0, 1)
    sent = rig.dispatch()
    (note,) = rig.ask(on.ModelFailed(rig.worker, "a", BROKEN), do.Note)
    assert note.name == "model.broken"
    assert rig.answer(sent, {0: BROKEN, 1: BROKEN}) == []
    assert rig.ask(on.Tick(), do.Dispatch) == []
    assert rig.core.unavailable() == {"a": BROKEN}
    rig.now = 1.0
    assert rig.ask(on.Tick(), do.Probe) == [do.Probe(rig.worker, "a")]
    assert rig.tell(on.ModelProbed(rig.worker, "a")) == [do.Note("model.recovered", {"model": "a"})]
    (again,) = rig.ask(on.Tick(), do.Dispatch)
    assert sorted(offset for run in again.chunk.runs for offset in run.offsets) == [0, 1]
    assert {run.attempts for run in again.chunk.runs} == {0}


@pytest.mark.parametrize("is_dead_lettered", [True, False])
def test_a_full_window_of_a_broken_model_is_relieved_only_where_that_is_configured(*, is_dead_lettered: bool) -> None:
    """The oldest records become dead letters `model-unavailable`, or all of them wait."""
    policy = ModelPolicy(
        place=ModelPlace(breaker=BreakerOptions(backoff_s=99, backoff_s_max=99)),
        is_dead_lettered_on_hold=is_dead_lettered,
    )
    rig = Rig(policy)
    rig.fetch(*range(10))
    sent = rig.dispatch()
    rig.tell(on.ModelFailed(rig.worker, "a", BROKEN))
    rig.answer(sent, dict.fromkeys(range(10), BROKEN))
    letters: list[do.Action] = []
    for first in (10, 20, 30):
        rig.fetch(*range(first, first + 10))
        letters += rig.ask(on.Tick(), do.DeadLetter)
    dead = [offset for letter in letters if isinstance(letter, do.DeadLetter) for offset in letter.run.offsets]
    assert dead == (list(range(len(dead))) if is_dead_lettered else [])
    assert bool(dead) == is_dead_lettered


def test_an_expired_record_is_not_inferred() -> None:
    """What expired while it waited becomes a dead letter, its neighbours are sent."""
    rig = Rig()
    rig.fetch(0, 1, 2, deadlines=[None, 0.5, 99.0])
    rig.tell(on.Tick())
    rig.now = 1.0
    rig.tell(on.ModelLoaded(rig.worker, "a", "1", 0.1))
    letter, sent = [a for a in rig.tell(on.Tick()) if isinstance(a, do.DeadLetter | do.Dispatch)]
    assert isinstance(letter, do.DeadLetter)
    assert (list(letter.run.offsets), letter.failures[0].reason) == ([1], "expired")
    assert isinstance(sent, do.Dispatch)
    assert [list(run.offsets) for run in sent.chunk.runs] == [[0, 2]]
    (produce,) = rig.answer(sent)
    assert isinstance(produce, do.Produce)
    rig.tell(on.Tick())
    assert (rig.core.partitions.records, rig.core.partitions.size) == (0, len(letter.run.values[0] or b""))
    rig.tell(on.Delivered(produce.ticket))
    assert rig.core.partitions.size == 0


def test_a_record_that_expires_while_its_model_is_broken_does_not_wait_for_it() -> None:
    """Its partition is not held up by what nobody wants any more, even where records wait for their model."""
    place = ModelPlace(breaker=BreakerOptions(backoff_s=99, backoff_s_max=99))
    rig = Rig(ModelPolicy(place=place, is_dead_lettered_on_hold=False))
    rig.tell(on.Tick())
    rig.fetch(0, 1, 2, deadlines=[5.0, None, 5.0])
    rig.tell(on.Tick())
    rig.tell(on.ModelFailed(rig.worker, "a", BROKEN))
    rig.now = 4.0
    assert rig.ask(on.Tick(), do.DeadLetter) == []
    rig.now = 5.0
    (letter,) = rig.ask(on.Tick(), do.DeadLetter)
    assert (list(letter.run.offsets), letter.failures[0].reason) == ([0, 2], "expired")
    rig.tell(on.Delivered(letter.ticket))
    assert (rig.core.partitions.records, rig.core.partitions.size) == (1, 1)


def test_a_chunk_that_expired_whole_is_not_sent() -> None:
    """Then the worker is free for the next one."""
    rig = Rig()
    rig.fetch(0, deadlines=[0.5])
    rig.tell(on.Tick())
    rig.now = 1.0
    rig.tell(on.ModelLoaded(rig.worker, "a", "1", 0.1))
    assert rig.ask(on.Tick(), do.Dispatch) == []
    rig.fetch(1)
    assert list(rig.dispatch().chunk.runs[0].offsets) == [1]


@pytest.mark.parametrize("is_dropped", [False, True])
def test_a_record_that_is_too_old_is_not_inferred(*, is_dropped: bool) -> None:
    """It becomes a dead letter that is waited for, or is dropped: then it is noted, and committed like any other."""
    rig = Rig(ModelPolicy(expiry=ModelExpiry(age_s_max=10.0, is_dropped=is_dropped)))
    rig.fetch(0, 1, 2, 3, timestamps_ms=[1_000, 2_000, 15_000, -1])
    rig.tell(on.Tick())
    rig.now = 20.0
    rig.tell(on.ModelLoaded(rig.worker, "a", "1", 0.1))
    outcome, sent, *others = rig.tell(on.Tick())
    assert isinstance(sent, do.Dispatch)
    assert [list(run.offsets) for run in sent.chunk.runs] == [[2, 3]]
    assert (rig.core.partitions.records, rig.core.partitions.size) == (2, 2 if is_dropped else 4)
    if is_dropped:
        assert outcome == do.Note("records.expired", {"model": "a", "records": 2})
        (commit,) = others
    else:
        assert isinstance(outcome, do.DeadLetter)
        assert (list(outcome.run.offsets), {failure.reason for failure in outcome.failures}) == ([0, 1], {"expired"})
        assert [type(action) for action in others] == [do.Flush]
        rig.tell(on.Delivered(outcome.ticket))
        (commit,) = rig.tell(on.Tick())
    assert isinstance(commit, do.Commit)
    assert commit.offsets == {TP: (2, "")}


def test_a_result_the_broker_refuses_becomes_a_dead_letter_with_its_payload() -> None:
    """As long as the chunk is held the payload is found; afterwards the dead letter says that it is not."""
    rig = Rig()
    rig.fetch(0, 1)
    produce = rig.produce(rig.dispatch())
    (letter,) = rig.ask(on.DeliveryFailed(produce.ticket, 1, TOO_LARGE), do.DeadLetter)
    assert (list(letter.run.offsets), list(letter.run.values)) == ([1], [b"1"])
    assert rig.tell(on.DeliveryFailed(produce.ticket, 1, TOO_LARGE)) == []
    rig.tell(on.Tick())
    (late,) = rig.ask(on.DeliveryFailed(produce.ticket, 0, TOO_LARGE), do.DeadLetter)
    assert (list(late.run.offsets), list(late.run.values)) == ([0], [None])
    assert PAYLOAD_LOST in late.failures[0].message


def test_a_refusal_for_a_partition_that_is_gone_is_dropped() -> None:
    """P2: no dead letter for a partition of somebody else."""
    rig = Rig()
    rig.fetch(0)
    produce = rig.produce(rig.dispatch())
    rig.tell(on.Revoked([TP]))
    assert rig.tell(on.DeliveryFailed(produce.ticket, 0, TOO_LARGE)) == []


def test_late_results_of_an_old_assignment_are_dropped() -> None:
    """P2: an answer after a revocation is produced for nobody, even if the partition came back."""
    rig = Rig()
    rig.fetch(0)
    sent = rig.dispatch()
    rig.tell(on.Revoked([TP]))
    rig.tell(on.Assigned({TP: on.Position(None)}))
    (note,) = rig.answer(sent)
    assert isinstance(note, do.Note)
    assert note.name == "records.dropped"
    assert rig.tell(on.Answered(WorkerId(99), sent.chunk.chunk, 0, 1, [b""], [b""], {}, 1, 0, 0)) == []


def test_a_revocation_finishes_what_is_with_workers_and_begins_nothing() -> None:
    """While a partition is being taken its records are settled and committed at once, and no more are dispatched."""
    rig = Rig()
    rig.fetch(0)
    sent = rig.dispatch()
    rig.fetch(1)
    rig.tell(on.Revoking([TP]))
    rig.fetch(2)
    assert not rig.core.is_quiet([TP])
    produce = rig.produce(sent)
    kinds = [type(action) for action in rig.tell(on.Tick())]
    assert kinds == [do.Release, do.Flush]
    rig.tell(on.Delivered(produce.ticket))
    (commit,) = rig.ask(on.Tick(), do.Commit)
    assert commit.offsets == {TP: (1, "")}
    rig.tell(on.Committed({TP: 1}))
    assert rig.core.is_quiet([TP])
    rig.tell(on.Revoked([TP]))
    assert (rig.core.partitions.records, rig.core.partitions.size) == (0, 0)


def test_a_drain_settles_commits_and_stops() -> None:
    """After a drain began nothing new is dispatched; the end comes when everything is committed, with code 0."""
    rig = Rig()
    rig.fetch(0)
    sent = rig.dispatch()
    (pause,) = rig.ask(on.Drain(), do.Pause)
    assert list(pause.partitions) == [TP]
    rig.fetch(1)
    assert rig.ask(on.Tick(), do.Stop) == []
    rig.tell(on.Committed({TP: 0}))
    produce = rig.produce(sent)
    rig.tell(on.Tick())
    rig.tell(on.Delivered(produce.ticket))
    rig.tell(on.Tick())
    assert rig.ask(on.Tick(), do.Stop) == []
    rig.tell(on.Committed({TP: 1}))
    (stop,) = rig.ask(on.Tick(), do.Stop)
    assert stop.exit_code == ExitCode.OK
    assert rig.tell(on.Tick()) == []


def test_a_worker_that_cannot_boot_stops_the_program() -> None:
    """With its own exit code and the reason, not with a loop of restarts."""
    core = Dispatcher(OPTIONS, {"a": ModelPolicy()}, 1, lambda: 0.5, 0.0)
    (spawn,) = core.step(on.Tick(), 0.0)
    assert isinstance(spawn, do.Spawn)
    (stop,) = core.step(on.WorkerExited(spawn.worker, 3, "no such device"), 0.0)
    assert stop == do.Stop(ExitCode.WORKER_BOOT, "no such device")
    assert not any(isinstance(action, do.Spawn) for action in core.step(on.Tick(), 99.0))


def test_a_dead_worker_is_replaced_after_its_backoff() -> None:
    """The slot stays empty for the backoff, then a new worker with a new number fills it."""
    rig = Rig()
    rig.tell(on.WorkerExited(rig.worker, -9))
    assert rig.ask(on.Tick(), do.Spawn) == []
    rig.now = OPTIONS.restart.backoff_s
    (spawn,) = rig.ask(on.Tick(), do.Spawn)
    assert isinstance(spawn, do.Spawn)
    assert spawn.slot == 0
    assert spawn.worker != rig.worker


def test_a_drain_does_not_wait_for_the_records_of_a_dead_worker() -> None:
    """They are not committed, so the next owner infers them."""
    rig = Rig()
    rig.fetch(0)
    rig.dispatch()
    rig.tell(on.Drain())
    rig.tell(on.WorkerExited(rig.worker, -9))
    (commit,) = rig.ask(on.Tick(), do.Commit)
    assert commit.offsets == {TP: (0, "")}
    rig.tell(on.Committed({TP: 0}))
    (stop,) = rig.ask(on.Tick(), do.Stop)
    assert isinstance(stop, do.Stop)
    assert stop.exit_code == ExitCode.OK


def test_a_model_that_was_loading_when_its_worker_died_is_named() -> None:
    """The operator hears which model it was."""
    rig = Rig()
    rig.fetch(0)
    (load,) = rig.ask(on.Tick(), do.Load)
    assert isinstance(load, do.Load)
    (note,) = rig.ask(on.WorkerExited(rig.worker, -11), do.Note)
    assert isinstance(note, do.Note)
    assert (note.name, note.fields["model"]) == ("model.broken", "a")


def test_a_model_that_was_loading_when_its_worker_was_killed_is_loaded_again() -> None:
    """Nobody is to blame for a kill from outside: the records wait for the next worker, and no line says otherwise."""
    rig = Rig()
    rig.fetch(0)
    assert len(rig.ask(on.Tick(), do.Load)) == 1
    assert rig.ask(on.WorkerExited(rig.worker, -9, loading=["a"]), do.Note) == []
    rig.now = 1.0
    (spawn,) = rig.ask(on.Tick(), do.Spawn)
    rig.ask(on.WorkerReady(spawn.worker, "cpu"), do.Load)
    assert len(rig.ask(on.Tick(), do.Load)) == 1


def test_a_model_pays_for_its_worker_until_another_one_is_ready() -> None:
    """For the batch and for the start: beyond its budget it gets no worker again, and the operator hears why."""
    rig = Rig(ModelPolicy(place=ModelPlace(crashes=CrashOptions(budget_s=10.0, window_s=100.0))))
    rig.fetch(0, 1)
    sent = rig.dispatch()
    batch = [Stretch(sent.chunk.chunk, 0, 2)]
    assert rig.ask(on.WorkerExited(rig.worker, -11, running=batch, loading=[], busy_s={"a": 4.0}), do.Note) == []
    rig.now = 1.0
    (spawn,) = rig.ask(on.Tick(), do.Spawn)
    rig.now = 6.5
    (note,) = rig.ask(on.WorkerReady(spawn.worker, "cpu"), do.Note)
    assert (note.name, note.fields["model"], note.fields["message"]) == ("model.broken", "a", OVERSPENT.message)
    rig.now = 99.5
    assert rig.ask(on.Tick(), do.Load) == []
    rig.now = 100.0
    assert rig.ask(on.Tick(), do.Load) == [do.Load(spawn.worker, "a")]
    assert rig.tell(on.ModelLoaded(spawn.worker, "a", "1", 0.1)) == [do.Note("model.recovered", {"model": "a"})]


def test_a_model_that_is_kept_out_is_not_said_to_work_when_a_worker_loads_it() -> None:
    """A load that was under way when workers' deaths opened the breaker neither closes it nor is told as recovery."""
    place = ModelPlace(crashes=CrashOptions(budget_s=1.0, window_s=100.0), is_preloaded=True)
    core = Dispatcher(OPTIONS, {"a": ModelPolicy(place=place)}, 2, lambda: 0.5, 0.0)
    one, two = (action.worker for action in core.step(on.Tick(), 0.0) if isinstance(action, do.Spawn))
    for worker in (one, two):
        core.step(on.WorkerReady(worker, "cpu"), 0.0)
    assert core.step(on.ModelLoaded(one, "a", "1", 0.1), 0.0) == []
    core.step(on.Assigned({TP: on.Position(None)}), 0.0)
    core.step(on.Fetched([slice_of("a", TP, [0])]), 0.0)
    (chunk,) = [action.chunk for action in core.step(on.Tick(), 0.0) if isinstance(action, do.Dispatch)]
    running = [Stretch(chunk.chunk, 0, 1)]
    died = core.step(on.WorkerExited(one, -11, running=running, loading=[], busy_s={"a": 5.0}), 5.0)
    assert [action.name for action in died if isinstance(action, do.Note)] == ["model.broken"]
    assert core.step(on.ModelLoaded(two, "a", "1", 0.1), 6.0) == []
    assert core.unavailable() == {"a": OVERSPENT}


def test_commit_metadata_that_is_not_ours_is_noted() -> None:
    """An offset map that cannot be believed is ignored, and the operator hears of it."""
    rig = Rig()
    (note,) = rig.ask(on.Assigned({OTHER: on.Position(5, "somebody else's")}), do.Note)
    assert isinstance(note, do.Note)
    assert (note.name, note.fields["partition"]) == ("offset_map.ignored", 1)


def test_a_slice_of_a_partition_that_is_not_ours_is_left_alone() -> None:
    """It is not admitted, so no commit can pass it."""
    rig = Rig()
    rig.fetch(0, partition=OTHER)
    assert rig.core.partitions.records == 0
    assert rig.core.partitions.watermarks() == {}
    assert len(rig.core.partitions) == 1
    assert TP in rig.core.partitions


def test_a_model_at_its_limit_waits_and_loses_nothing() -> None:
    """Its records fill the partition, which is paused; none is dead-lettered, and all are answered in their time."""
    rig = Rig(ModelPolicy(share=ModelShare(limits=ModelLimits(rate_per_s_max=5.0))))
    rig.fetch(0)
    produced = len(rig.produce(rig.dispatch()).values)
    fetched, is_paused, was_paused = 1, False, False
    for _ in range(400):
        rig.now += 0.05
        for action in rig.tell(on.Tick()):
            assert not isinstance(action, do.DeadLetter)
            if isinstance(action, do.Pause | do.Resume):
                is_paused = isinstance(action, do.Pause)
                was_paused |= is_paused
            if isinstance(action, do.Dispatch):
                produced += len(rig.produce(action).values)
        room = 0 if is_paused else min(rig.core.room, 10)
        if room:
            rig.fetch(*range(fetched, fetched + room))
            fetched += room
    assert was_paused
    assert 0.9 * 5 * 20 <= produced <= 5 * 20 + 2
    assert rig.core.unavailable() == {}
    assert rig.core.partitions.records == fetched - produced <= 40


def test_records_that_expire_at_their_models_limit_do_not_wait_for_it() -> None:
    """Who gives a limited model's records an age sheds what it cannot take in time."""
    policy = ModelPolicy(share=ModelShare(limits=ModelLimits(in_flight_records_max=1)))
    rig = Rig(policy)
    rig.fetch(0, 1, 2, deadlines=[None, 0.3, None])
    assert list(rig.dispatch().chunk.runs[0].offsets) == [0]
    rig.now = 1.0
    assert [list(letter.run.offsets) for letter in rig.ask(on.Tick(), do.DeadLetter)] == [[1]]


@pytest.mark.parametrize("waits", ["loading", "at its limit"])
def test_a_model_that_waits_leaves_room_for_the_others(waits: str) -> None:
    """A flood for a model that takes nothing is held to its partition's share and half of what is common."""
    limits = ModelLimits(in_flight_records_max=1 if waits == "at its limit" else None)
    models = {"a": ModelPolicy(share=ModelShare(limits=limits)), "b": ModelPolicy()}
    core = Dispatcher(DispatcherOptions(), models, 1, lambda: 0.5, 0.0)
    (worker,) = [action.worker for action in core.step(on.Tick(), 0.0) if isinstance(action, do.Spawn)]
    core.step(on.WorkerReady(worker, "cpu"), 0.0)
    core.step(on.Assigned({TP: on.Position(None), OTHER: on.Position(None)}), 0.0)
    paused: set[TopicPartition] = set()
    now, next_offset = 0.0, 0
    for _ in range(100):
        now += 0.01
        for action in core.step(on.Tick(), now):
            if isinstance(action, do.Pause):
                paused.update(action.partitions)
            if isinstance(action, do.Load) and waits == "at its limit":
                core.step(on.ModelLoaded(worker, "a", "1", 0.1), now)
        if TP not in paused and core.room:
            part = range(next_offset, next_offset + core.room)
            core.step(on.Fetched([slice_of("a", TP, part)]), now)
            next_offset = part.stop
    flow = DispatcherOptions().flow
    assert paused == {TP}
    assert core.partitions.records <= flow.records_max // 2 + flow.fetch_records_max
    assert core.room >= 1_000
