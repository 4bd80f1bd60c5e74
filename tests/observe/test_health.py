import inspect

import pytest

from consumer.core import actions, dispatcher, events
from consumer.core.types import Disposition, Failure, TopicPartition, WorkerId
from consumer.errors import Complaint
from consumer.observe import logs
from consumer.observe.health import COMPLAINTS_MAX, Health
from consumer.observe.observer import Snapshot
from tests.observe.clock import Clock

P0 = TopicPartition("requests", 0)


def broken(model: str) -> actions.Note:
    """Make the core's note that a model's breaker has opened."""
    return actions.Note("model.broken", {"model": model, "message": "weights are gone"})


@pytest.fixture
def clock() -> Clock:
    """Give a clock that stands still."""
    return Clock()


@pytest.fixture
def ready(clock: Clock) -> Health:
    """Give the health of a program that has come up with two workers."""
    health = Health({"fraud": False, "intent": False}, stalled_s=5.0, clock=clock)
    health.observe(events.Assigned({P0: events.Position(None)}))
    for slot in range(2):
        health.observe_action(actions.Spawn(slot, WorkerId(slot)))
        health.observe(events.WorkerReady(WorkerId(slot), "cpu"))
    return health


def test_it_is_not_ready_before_it_has_joined_and_its_workers_are_up(clock: Clock) -> None:
    """Readiness names each thing that is still missing, and comes with the last of them."""
    health = Health({"fraud": False}, stalled_s=5.0, clock=clock)
    assert health.not_ready() == ["the consumer group is not joined yet", "0 of 0 workers are up"]
    health.observe_action(actions.Spawn(0, WorkerId(1)))
    health.observe_action(actions.Spawn(1, WorkerId(2)))
    health.observe(events.WorkerReady(WorkerId(1), "cpu"))
    assert health.not_ready() == ["the consumer group is not joined yet", "1 of 2 workers are up"]
    health.observe(events.WorkerReady(WorkerId(2), "cpu"))
    health.observe(events.Assigned({}))
    assert health.not_ready() == []


def test_it_waits_for_the_models_that_are_preloaded(clock: Clock) -> None:
    """A model that is loaded at the start keeps the program from being ready until it is there; others do not."""
    health = Health({"fraud": True, "intent": False}, stalled_s=5.0, clock=clock)
    health.observe_action(actions.Spawn(0, WorkerId(0)))
    health.observe(events.WorkerReady(WorkerId(0), "cpu"))
    health.observe(events.Assigned({}))
    assert health.not_ready() == ["model 'fraud' is not loaded yet"]
    health.observe(events.ModelLoaded(WorkerId(0), "fraud", "v1", 0.1))
    assert health.not_ready() == []


def test_it_lives_while_its_loop_turns(ready: Health, clock: Clock) -> None:
    """A loop that stands still for longer than allowed is told, and the next turn heals it."""
    clock.now += 5.0
    assert ready.stalled() is None
    clock.now += 1.0
    assert ready.stalled() == "the supervisor's loop has not turned for 6 s"
    assert ready.not_ready() == ["the supervisor's loop has not turned for 6 s"]
    ready.turned()
    assert ready.stalled() is None


def test_a_dead_worker_ends_readiness_until_its_successor_is_up(ready: Health) -> None:
    """A restarted slot is one restart more, and late news of its dead worker does not revive it."""
    ready.observe(events.WorkerExited(WorkerId(1), -9))
    assert ready.not_ready() == ["1 of 2 workers are up"]
    ready.observe_action(actions.Spawn(1, WorkerId(7)))
    ready.observe(events.WorkerReady(WorkerId(1), "cpu"))
    assert ready.not_ready() == ["1 of 2 workers are up"]
    ready.observe(events.WorkerReady(WorkerId(7), "cpu"))
    assert ready.not_ready() == []
    assert [worker["restarts"] for worker in ready.status()["workers"]] == [0, 1]


@pytest.mark.parametrize(
    "tried", [events.ModelProbed(WorkerId(0), "fraud"), events.ModelLoaded(WorkerId(0), "fraud", "v2", 0.1)]
)
def test_a_broken_model_ends_readiness_until_the_core_says_that_it_works(ready: Health, tried: events.Event) -> None:
    """An open breaker is named with its cause until the core closes it: that a worker loads the model does not."""
    ready.observe_action(broken("fraud"))
    ready.observe(tried)
    assert ready.not_ready() == ["model 'fraud' is broken: weights are gone"]
    ready.observe_action(actions.Note("model.recovered", {"model": "fraud"}))
    assert ready.not_ready() == []


def test_a_model_that_fails_on_one_worker_only_is_not_broken(ready: Health) -> None:
    """Whether a failure breaks a model is the core's decision: the fact alone ends no readiness."""
    failure = Failure("model-unavailable", "RuntimeError", "out of memory", Disposition.UNAVAILABLE)
    ready.observe(events.ModelFailed(WorkerId(0), "fraud", failure))
    ready.observe_action(actions.Note("records.dropped", {"model": "fraud"}))
    assert ready.not_ready() == []


def test_the_core_s_note_goes_by_the_name_that_is_listened_for() -> None:
    """The name that the core writes is the one that health, figures and the log know."""
    assert all(f'"{name}"' in inspect.getsource(dispatcher) for name in ("model.broken", "model.recovered"))
    assert "model.broken" in logs.NOTE_LEVELS


def test_draining_is_not_ready_and_still_alive(ready: Health) -> None:
    """While it drains nothing new should count on it, but nobody should kill it either."""
    ready.observe(events.Drain())
    assert ready.not_ready() == ["draining"]
    assert ready.stalled() is None
    ready.observe_action(actions.Stop(0, "drained"))
    assert ready.not_ready() == ["stopped"]


def test_the_status_describes_every_part(ready: Health, clock: Clock) -> None:
    """The status tells phase, levels, partitions, workers and models as they are."""
    ready.observe(events.ModelLoaded(WorkerId(0), "fraud", "v1", 0.1))
    ready.observe_action(broken("intent"))
    ready.observe_action(actions.Pause([P0]))
    waiting = {"fraud": 2, "intent": 0}
    ready.publish(Snapshot(in_flight_records=3, in_flight_bytes=30, lag={P0: 12}, waiting=waiting, limited=["fraud"]))
    clock.now += 2.0
    assert ready.status() == {
        "phase": "running",
        "ready": False,
        "reasons": ["model 'intent' is broken: weights are gone"],
        "uptime_s": 2.0,
        "in_flight": {"records": 3, "bytes": 30},
        "partitions": [{"topic": "requests", "partition": 0, "lag_records": 12, "paused": True}],
        "workers": [
            {"slot": 0, "ready": True, "device": "cpu", "restarts": 0},
            {"slot": 1, "ready": True, "device": "cpu", "restarts": 0},
        ],
        "models": [
            {
                "id": "fraud",
                "state": "loaded",
                "version": "v1",
                "failure": None,
                "waiting_records": 2,
                "limited": True,
            },
            {
                "id": "intent",
                "state": "broken",
                "version": None,
                "failure": "weights are gone",
                "waiting_records": 0,
                "limited": False,
            },
        ],
        "complaints": [],
        "parked_topics": [],
    }
    ready.observe_action(actions.Resume([P0]))
    assert ready.status()["partitions"][0]["paused"] is False
    ready.observe(events.Revoked([P0]))
    assert ready.status()["partitions"] == []


def test_events_that_change_no_state_pass_by(ready: Health) -> None:
    """The hot path's events and actions leave the status as it is."""
    before = ready.status()
    ready.observe(events.Tick())
    ready.observe_action(actions.Flush())
    assert ready.status() == before


def test_parked_topics_are_told_with_their_reason(ready: Health) -> None:
    """The status names each output topic that takes nothing now, until it does again."""
    ready.observe_action(actions.Note("topic.parked", {"topic": "results.fraud", "message": "not authorized"}))
    assert ready.status()["parked_topics"] == [{"topic": "results.fraud", "failure": "not authorized"}]
    ready.observe_action(actions.Note("topic.resumed", {"topic": "results.fraud"}))
    assert ready.status()["parked_topics"] == []


def test_complaints_are_told_for_a_minute(ready: Health, clock: Clock) -> None:
    """The status shows the newest of each kind of error, with its age, until a minute after it was last told of."""
    ready.complain(Complaint("UNSTABLE_OFFSET_COMMIT", "an earlier member's transaction is open", "requests"))
    clock.now += 40.0
    ready.complain(Complaint("_TRANSPORT", "a broker does not answer", None))
    told = ready.status()["complaints"]
    assert [(each["error"], each["topic"], each["ago_s"]) for each in told] == [
        ("UNSTABLE_OFFSET_COMMIT", "requests", 40.0),
        ("_TRANSPORT", None, 0.0),
    ]
    clock.now += 30.0
    assert [each["error"] for each in ready.status()["complaints"]] == ["_TRANSPORT"]
    for number in range(200):
        ready.complain(Complaint(f"E{number}", "", None))
    assert len(ready.status()["complaints"]) == COMPLAINTS_MAX
