"""When the loop rests; what it does otherwise, the tests against a broker show."""

import ctypes
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from consumer.core import actions as do
from consumer.core import events as on
from consumer.core.dispatcher import Dispatcher
from consumer.core.flow import FlowOptions
from consumer.core.placement import ModelPlace
from consumer.core.policies import DispatcherOptions, ModelPolicy
from consumer.core.types import Slice, TopicPartition, WorkerId
from consumer.errors import ExitCode
from consumer.supervisor.loop import (
    BUSY_WAIT_S,
    BUSY_WAIT_S_MAX,
    HELD_S,
    LOAD_RECORDS,
    PACE_RECORDS,
    PACE_S,
    TURN_S,
    Loop,
    Parts,
)
from consumer.supervisor.options import ShutdownOptions

TP = TopicPartition("in", 0)


class Outside:
    """Stands for the client, the workers and the broker, which here do nothing by themselves."""

    def __init__(self) -> None:
        """Start with a worker that has just booted."""
        self.fetches: deque[list[on.Event]] = deque([[on.Assigned({TP: on.Position(None)})]])
        self.answers: list[on.Event] = []
        self.requested = None
        self.hastened = 0
        self.waits: list[float] = []
        self.pass_time: Callable[[float], None] = lambda _: None
        """What a wait for workers does that brings nothing."""

    def fetch(self, records_max: int, timeout_s: float) -> list[on.Event]:
        """Hand out what is prepared."""
        return self.fetches.popleft() if self.fetches else []

    def perform(self, action: do.Action) -> None:
        """Boot and load at once; take chunks and never answer."""
        if isinstance(action, do.Spawn):
            self.answers.append(on.WorkerReady(action.worker, "cpu"))
        elif isinstance(action, do.Load):
            self.answers.append(on.ModelLoaded(action.worker, action.model, "1", 0.0))

    def wait(self, timeout_s: float) -> list[on.Event]:
        """Hand out what workers said."""
        self.waits.append(timeout_s)
        answers, self.answers = self.answers, []
        if not answers:
            self.pass_time(timeout_s)
        return answers

    def events(self) -> Sequence[on.Event]:
        """Deliver nothing."""
        return ()

    complaints = events

    def close(self, timeout_s: float = 0.0) -> bool:
        """Keep the interpreter's lock if there is a time to keep, as a client's call may."""
        ctypes.PyDLL(None).sleep(int(60 * timeout_s))
        return True

    def hasten(self) -> None:
        """Send nothing."""
        self.hastened += 1

    def commit(self, offsets: object) -> None:
        """Never answer."""

    def turned(self) -> None:
        """Take note of nothing."""

    def lag(self) -> dict[TopicPartition, int]:
        """Know no lag."""
        return {}

    @property
    def skipped(self) -> dict[TopicPartition, int]:
        """Have skipped nothing."""
        return {}


class Rig:
    """A loop of one model and one worker whose clock stands still but for the rests."""

    def __init__(self, options: ShutdownOptions | None = None) -> None:
        """Turn until the model is loaded."""
        self.outside, self.now, self.rests, self.next = Outside(), 100.0, list[float](), 0
        flow = FlowOptions(records_max=5_000)
        core = Dispatcher(
            DispatcherOptions(flow=flow),
            {"m": ModelPolicy(place=ModelPlace(is_preloaded=True))},
            1,
            lambda: 0.5,
            self.now,
        )
        outside = cast("Any", self.outside)
        parts = Parts(core, outside, outside, outside, (), outside, lambda _: None)
        self.loop = Loop(parts, options or ShutdownOptions(), lambda: self.now, self.rest)
        self.loop.attach(outside)
        for _ in range(3):
            self.turn()

    def rest(self, seconds: float) -> None:
        """Let time pass, deaf to all."""
        self.rests.append(seconds)
        self.pass_time(seconds)

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def turn(self, records: int = 0) -> None:
        """Turn once, with so many records."""
        if records:
            offsets = range(self.next, self.next + records)
            self.next = offsets.stop
            part = Slice(TP, offsets, "m", [b"m"] * records, [b"v"] * records, None, [-1] * records)
            self.outside.fetches.append([on.Fetched([part])])
        self.loop._turn()


def test_under_load_a_turn_takes_its_time() -> None:
    """While the worker is busy for longer, a turn that brought many records is followed by a rest to its full time."""
    rig = Rig()
    rig.turn(LOAD_RECORDS)
    assert rig.rests == [pytest.approx(TURN_S)]


def test_a_budget_that_is_used_up_is_load() -> None:
    """While nothing more may be fetched, answers gather, too."""
    rig = Rig()
    while rig.loop._parts.dispatcher.room:
        rig.turn(rig.loop._parts.dispatcher.room)
    rig.rests.clear()
    rig.turn()
    assert rig.rests == [pytest.approx(TURN_S)]


def test_a_flow_keeps_a_pace() -> None:
    """After a turn that brought several records the next one is due after a while; workers are heard meanwhile."""
    rig = Rig()
    rig.outside.pass_time = rig.pass_time
    for records in (PACE_RECORDS, LOAD_RECORDS - 1):
        began_s, rig.outside.hastened = rig.now, 0
        rig.outside.answers.append(on.ModelProbed(WorkerId(1), "m"))
        rig.turn(records)
        assert rig.now - began_s == pytest.approx(PACE_S)
        assert rig.outside.hastened == 2, "after the turn, and after the wait for workers"
    assert rig.rests == []


def test_few_records_are_no_flow() -> None:
    """After a turn that brought few records, or none, nobody rests, and its results linger no longer."""
    rig = Rig()
    rig.outside.hastened = 0
    rig.turn(PACE_RECORDS - 1)
    rig.turn()
    assert rig.rests == []
    assert rig.outside.hastened == 2


def test_nobody_rests_while_a_worker_has_nothing_to_do() -> None:
    """Records that no worker has yet are no reason to rest: the first to come must be able to begin."""
    rig = Rig()
    rig.outside.answers.append(on.WorkerExited(WorkerId(1), -9))
    rig.turn(LOAD_RECORDS)
    assert rig.rests == []


def test_kafka_is_looked_at_less_often_while_nothing_comes_and_the_workers_are_busy() -> None:
    """The wait for a busy worker grows with the time for which nothing came, up to a limit, and is short again then."""
    rig = Rig()
    rig.turn(LOAD_RECORDS)
    fed_s = rig.now
    for quiet_s, wait_s in ((0.004, BUSY_WAIT_S), (0.02, 0.005), (1.0, BUSY_WAIT_S_MAX)):
        rig.now = fed_s + quiet_s - TURN_S
        rig.turn()
        assert rig.outside.waits[-1] == pytest.approx(wait_s)
    rig.turn(LOAD_RECORDS)
    rig.turn()
    assert rig.outside.waits[-1] == BUSY_WAIT_S


def test_a_worker_that_has_little_to_do_keeps_kafka_looked_at() -> None:
    """However long nothing came, a worker that will be idle soon must have its next record at once."""
    rig = Rig()
    rig.turn(1)
    rig.now += 10.0
    rig.turn()
    assert rig.outside.waits[-1] == BUSY_WAIT_S


def end_with_the_lock_held() -> None:
    """Come to an end that a client's call keeps from going on."""
    rig = Rig(ShutdownOptions(close_timeout_s=1.0))
    rig.loop._stop = do.Stop(ExitCode.OK, "drained")
    rig.loop.run()


def test_a_client_that_keeps_the_interpreters_lock_cannot_keep_the_process() -> None:
    """The end has its deadline even where no thread of Python's can see to it."""
    process = multiprocessing.get_context("spawn").Process(target=end_with_the_lock_held)
    process.start()
    began_s = time.monotonic()
    process.join(30 + HELD_S)
    assert process.exitcode == ExitCode.FAILED
    assert time.monotonic() - began_s > 1.0 + HELD_S
