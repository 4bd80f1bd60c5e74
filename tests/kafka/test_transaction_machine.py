"""The transactional sink through any order of outcomes, commits, fences and faults, on brokers that only keep books.

What has to hold: whenever something becomes visible, the inputs that the group's offsets declare done are exactly those
with an outcome, each with one; and when the faults are over, every input that is still ours becomes done.
"""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from consumer.core.actions import Produce
from consumer.core.events import Committed, Delivered, Parked, Unparked
from consumer.core.types import Ticket, TopicPartition
from consumer.kafka.routes import Routes
from consumer.kafka.settings import Value
from consumer.kafka.transactions import TransactionalSink
from tests.contract.clients import run_of
from tests.kafka.coordinator import Cell, Cluster, Fault, Topic, declared, metadata_of
from tests.strategies import UNHURRIED

MODELS = {"a": "results.a", "b": "results.b", "c": "results.c"}
SETTINGS: Mapping[str, Value] = {"transactional.id": "g-one", "transaction.timeout.ms": 10_000}
TURNS = st.integers(1, 12)
STEPS_MAX = 1000
"""How many turns everything may take when there are no faults any more."""
FAULTS = [each for each in Fault if each is not Fault.NONE]
AT_ONCE = {
    "consumer.kafka.operations": ("RETRY_S", "CALL_TIMEOUT_S", "ABORT_S", "HANG_S"),
    "consumer.kafka.succession": ("STUCK_S", "ASK_AGAIN_S", "HANG_S", "EXAMINATION_WAIT_S"),
    "consumer.kafka.trials": ("ANSWER_S", "PROBE_BACKOFF_S", "PROBE_BACKOFF_S_MAX"),
    "consumer.kafka.transactions": ("BACKOFF_S", "BACKOFF_S_MAX"),
}
"""Waits, which these brokers do not need."""


class Later:
    """A thread that does its work all at once, when it has been looked at so often."""

    looks = 0
    """Of the next one that starts."""

    def __init__(self, target: Callable[[], None], **_named: Any) -> None:
        self.target: Callable[[], None] | None = target

    def start(self) -> None:
        """Begin to wait."""
        self.left, Later.looks = Later.looks, 0

    def is_alive(self) -> bool:
        """Tell whether the work is still to be done."""
        return self.target is not None

    def join(self, _timeout_s: float) -> None:
        """Look."""
        if self.left:
            self.left -= 1
        elif self.target is not None:
            target, self.target = self.target, None
            target()


class Sink(TransactionalSink):
    """The sink, with clients of the books."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        super().__init__(SETTINGS, Routes(MODELS, lambda _: "letters"), cluster.offsets)

    def _make(self, settings: Mapping[str, Any]) -> Any:
        return self.cluster.make(settings["transactional.id"])


class Transactions(RuleBasedStateMachine):
    """A sink, and the plainest core that could use it."""

    @initialize()
    def begin(self) -> None:
        """Make a sink with partitions of its own."""
        Later.looks = 0
        self.cluster = Cluster([*MODELS.values(), "letters"])
        self.sink = Sink(self.cluster)
        self.ticket = 0
        self.places: dict[int, list[tuple[TopicPartition, int]]] = {}
        """Of each hand-over, whose outcomes it brings."""
        self.delivered = 0
        """The newest hand-over that a barrier delivered."""
        self.parked: set[tuple[int, int]] = set()
        self.done: dict[TopicPartition, dict[int, bool]] = {TopicPartition("in", n): {} for n in range(2)}
        """Of each partition that is ours, which inputs have an outcome that a commit may name."""
        self.partitions = len(self.done)
        self.asked: dict[TopicPartition, tuple[int, str]] = {}
        self.confirmed: dict[TopicPartition, tuple[int, str]] = {}
        self.is_flushing = self.is_committing = self.is_fresh = False

    @rule(model=st.sampled_from(sorted(MODELS)), pick=st.integers(0, 1), count=st.integers(1, 4), turns=TURNS)
    def serve(self, model: str, pick: int, count: int, turns: int) -> None:
        """A batch has results; then barriers and commits come when they are due."""
        self.hand_over(model, pick, count)
        self.go_on(turns)

    @rule(model=st.sampled_from(sorted(MODELS)), pick=st.integers(0, 1), count=st.integers(1, 4))
    def hand_over(self, model: str, pick: int, count: int) -> None:
        """A batch has results."""
        partition = sorted(self.done)[pick % len(self.done)]
        done = self.done[partition]
        offsets = range(len(done), len(done) + count)
        done.update(dict.fromkeys(offsets, False))
        self.ticket += 1
        self.places[self.ticket] = [(partition, offset) for offset in offsets]
        values = [Cell(partition.partition, offset).encode() for offset in offsets]
        run = run_of([b""] * count, partition=partition)
        self.sink.produce(Produce(Ticket(self.ticket), model, [run], values, [b"k"] * count))

    @precondition(lambda self: not self.is_flushing and not self.is_committing)
    @rule()
    def flush(self) -> None:
        """A barrier is due."""
        self.is_flushing, self.is_fresh = True, False
        self.sink.flush()

    @precondition(lambda self: self.is_fresh and not self.is_flushing and not self.is_committing)
    @rule(is_member=st.sampled_from([True, True, True, False]))
    def commit(self, is_member: bool) -> None:
        """A commit is due."""
        self.asked = self._news()
        self.is_committing, self.is_fresh = True, False
        self.sink.commit(self.asked, b"%d" % self.cluster.generation if is_member else None)

    @rule(turns=TURNS)
    def turn(self, turns: int) -> None:
        """Time passes."""
        for _ in range(turns):
            self._hear()

    @rule(turns=TURNS)
    def go_on(self, turns: int) -> None:
        """Time passes, and barriers and commits come when they are due."""
        for _ in range(turns):
            self._do_what_is_due()
            self._hear()

    @rule(looks=st.integers(1, 8))
    def be_slow(self, looks: int) -> None:
        """What blocks next takes longer."""
        Later.looks = looks

    @rule(fault=st.sampled_from(FAULTS), after=st.integers(0, 2))
    def fail(self, fault: Fault, after: int) -> None:
        """The end of a transaction will fail."""
        if len(self.cluster.faults) < 3:
            self.cluster.faults.extend([Fault.NONE] * after + [fault])

    @rule(count=st.integers(1, 3))
    def keep_quiet(self, count: int) -> None:
        """The group's offsets cannot be had for some time."""
        self.cluster.is_unstable = count

    @rule(topic=st.sampled_from(sorted(MODELS.values())), state=st.sampled_from(Topic))
    def change(self, topic: str, state: Topic) -> None:
        """A topic refuses, is lost, or comes back."""
        self.cluster.topics[topic] = state

    @rule()
    def age(self) -> None:
        """An open transaction takes too long."""
        if self.sink._began_s is not None:
            self.sink._began_s -= 6.0

    @precondition(lambda self: self.ticket % 3 == 2)
    @rule(pick=st.integers(0, 1))
    def take_away(self, pick: int) -> None:
        """A partition goes to another member, and one comes."""
        partition = sorted(self.done)[pick]
        del self.done[partition]
        self.done[TopicPartition("in", self.partitions)] = {}
        self.partitions += 1
        self.cluster.generation += 1
        self.sink.fence([partition])

    def teardown(self) -> None:
        """Heal everything: all that is ours becomes done, and nothing is left over."""
        if not hasattr(self, "sink"):
            return
        self.cluster.faults.clear()
        self.cluster.is_unstable = 0
        self.cluster.topics = dict.fromkeys(self.cluster.topics, Topic.OPEN)
        for _ in range(STEPS_MAX):
            if self._is_settled():
                break
            self._do_what_is_due()
            self._hear()
        assert self._is_settled(), f"{self.done}, {self.cluster.committed}"
        self.cluster.check()
        self.sink.close()

    def _do_what_is_due(self) -> None:
        is_idle = not self.sink.in_flight and not self._news()
        if self.is_flushing or self.is_committing or is_idle:
            return
        if self.is_fresh:
            self.commit(is_member=True)
        else:
            self.flush()

    def _news(self) -> dict[TopicPartition, tuple[int, str]]:
        """Say what a commit would tell the group."""
        commits = {partition: commit_of(done) for partition, done in self.done.items()}
        return {each: commit for each, commit in commits.items() if commit != self.confirmed.get(each, (0, ""))}

    def _is_settled(self) -> bool:
        if self.is_flushing or self.is_committing or self.sink.in_flight:
            return False
        committed = self.cluster.committed
        return all(declared(each, committed) == set(range(len(done))) for each, done in self.done.items())

    def _hear(self) -> None:
        for suspended in self.sink._trials._topics.values():
            suspended.try_at_s = 0.0  # the next trial is due
        for event in self.sink.events():
            match event:
                case Delivered(ticket):
                    assert self.is_flushing
                    self.is_flushing, self.is_fresh = False, True
                    for each in range(self.delivered + 1, ticket + 1):
                        self._note(each, [i for i in range(len(self.places[each])) if (each, i) not in self.parked])
                    self.delivered = ticket
                case Parked(ticket, index):
                    assert ticket > self.delivered, "the core takes it for delivered"
                    self.parked.add((ticket, index))
                case Unparked(ticket, index):
                    self.parked.remove((ticket, index))
                    if ticket <= self.delivered:
                        self._note(ticket, [index])
                case Committed(_, refused):
                    assert self.is_committing
                    self.is_committing = False
                    if refused is None:
                        self.confirmed.update(self.asked)
                        assert all(self.cluster.committed[each] == commit for each, commit in self.asked.items())

    def _note(self, ticket: int, indexes: list[int]) -> None:
        for index in indexes:
            partition, offset = self.places[ticket][index]
            if partition in self.done:
                self.done[partition][offset] = True


def commit_of(done: Mapping[int, bool]) -> tuple[int, str]:
    """Say what a commit names: everything below the watermark, and what is done beyond it."""
    watermark = next((offset for offset in range(len(done)) if not done[offset]), len(done))
    return watermark, metadata_of(done, watermark)


def test_results_and_offsets_agree_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails, and in which order: what is declared done has one outcome, and everything becomes done."""
    for module, names in AT_ONCE.items():
        for name in names:
            monkeypatch.setattr(f"{module}.{name}", 0.0)
    monkeypatch.setattr("consumer.kafka.operations.threading", SimpleNamespace(Thread=Later))
    run_state_machine_as_test(
        Transactions, settings=settings(UNHURRIED, max_examples=200, stateful_step_count=40, report_multiple_bugs=False)
    )
