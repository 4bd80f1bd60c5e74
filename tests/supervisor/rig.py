"""The dispatcher with real workers and a sink that takes everything at once: the program without Kafka."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from consumer.app import _policy
from consumer.core import actions as do
from consumer.core import events as on
from consumer.core.commits import CommitOptions
from consumer.core.dispatcher import Dispatcher
from consumer.core.lifecycle import RestartOptions
from consumer.core.policies import DispatcherOptions
from consumer.core.types import Slice, Ticket, TopicPartition
from consumer.models.options import ModelOptions
from consumer.models.signature import TensorSpec
from consumer.supervisor.pool import Launch, Pool, PoolOptions
from consumer.transport.channel import ChannelOptions
from consumer.worker import process
from consumer.worker.device import WorkerSlot, environment
from tests.worker.building import request

TP = TopicPartition("in", 0)
X = (TensorSpec("x", "FP32", (2,)),)


def villain(model: str, name: str, arguments: dict[str, Any], **options: Any) -> ModelOptions:
    """Describe one of the models of `villains`."""
    factory = f"tests.supervisor.villains:{name}"
    return ModelOptions(id=model, factory=factory, arguments=arguments, inputs=X, **options)


def good(model: str) -> ModelOptions:
    """Describe a model that doubles."""
    return ModelOptions(id=model, factory="tests.worker.served:double", inputs=X)


class Rig:
    """A supervisor of a few models. A context manager: leaving it ends its workers."""

    def __init__(self, *models: ModelOptions, slots: int = 1, memory_bytes_max: int | None = None) -> None:
        """Start nothing yet."""
        options = DispatcherOptions(
            commit=CommitOptions(interval_ms=20), restart=RestartOptions(backoff_s=0.05, backoff_s_max=1.0)
        )
        policies = {model.id: _policy(model) for model in models}
        self.core = Dispatcher(options, policies, slots, lambda: 0.5, time.monotonic())
        places = [WorkerSlot(index=slot, device="cpu", threads=1) for slot in range(slots)]
        specs = {model.id: model for model in models}
        self.pool = Pool(
            process.main,
            [
                Launch(
                    process.WorkerSpec(slot=place, models=specs, memory_bytes_max=memory_bytes_max), environment(place)
                )
                for place in places
            ],
            PoolOptions(stop_timeout_s=30),
            ChannelOptions(),
        )
        self.outcomes: dict[int, list[str]] = defaultdict(list)
        """What became of each offset."""
        self.settled_s: dict[int, float] = {}
        """When it became that (monotonic seconds)."""
        self.events: list[on.Event] = []
        self.notes: list[do.Note] = []
        self.sent = 0
        self._ticket = Ticket(0)
        self._take([on.Assigned({TP: on.Position(None)})])

    def __enter__(self) -> Self:
        """Return the rig itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every worker."""
        self.pool.stop()

    @property
    def exits(self) -> list[on.WorkerExited]:
        """How workers ended."""
        return [event for event in self.events if isinstance(event, on.WorkerExited)]

    def send(self, model: str, numbers: Sequence[float]) -> range:
        """Let records arrive; return their offsets."""
        offsets = range(self.sent, self.sent + len(numbers))
        self.sent = offsets.stop
        part = Slice(
            partition=TP,
            offsets=offsets,
            models=model,
            keys=[model.encode()] * len(numbers),
            values=[request(str(number), x=np.full(2, number, np.float32)) for number in numbers],
            headers=None,
            timestamps_ms=[-1] * len(numbers),
        )
        self._take([on.Fetched([part])])
        return offsets

    def turn(self) -> None:
        """Turn the loop once."""
        self._take(self.pool.wait(0.02))
        self._take([on.Tick()])

    def until(self, holds: Callable[[], object], timeout_s: float = 150.0) -> None:
        """Turn until something holds."""
        deadline_s = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline_s, (self.events, self.notes, dict(self.outcomes))
            self.turn()

    def until_exits(self, count: int) -> None:
        """Turn until so many workers have ended."""
        self.until(lambda: len(self.exits) >= count)

    def turn_for(self, seconds: float) -> None:
        """Turn for some time."""
        end_s = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= end_s)

    def settle(self) -> None:
        """Turn until every record has an outcome."""
        self.until(lambda: len(self.outcomes) == self.sent)

    def kinds(self, offsets: Sequence[int]) -> set[str]:
        """Say what became of some records; each has one outcome."""
        assert all(len(self.outcomes[offset]) == 1 for offset in offsets), dict(self.outcomes)
        return {self.outcomes[offset][0] for offset in offsets}

    def process_id(self) -> int:
        """Return the number of the only worker's process."""
        (member,) = self.pool._members.values()
        assert member.process.pid is not None
        return member.process.pid

    def is_idle(self) -> bool:
        """Tell whether the only worker has not only told its outcomes, but is done with them."""
        (member,) = self.pool._members.values()
        return member.watch.running() == []

    def _take(self, events: Sequence[on.Event]) -> None:
        for event in events:
            if not isinstance(event, on.Tick | on.Delivered | on.Committed):
                self.events.append(event)
            for action in self.core.step(event, time.monotonic()):
                self._perform(action)

    def _perform(self, action: do.Action) -> None:
        match action:
            case do.Spawn() | do.Load() | do.Probe() | do.Dispatch() | do.Release():
                self.pool.perform(action)
            case do.Produce(ticket, _, runs, _, _):
                self._settle(ticket, [(offset, "result") for run in runs for offset in run.offsets])
            case do.DeadLetter(ticket, run, failures):
                self._settle(ticket, list(zip(run.offsets, (failure.reason for failure in failures), strict=True)))
            case do.Flush():
                self._take([on.Delivered(self._ticket)])
            case do.Commit(offsets):
                self._take([on.Committed({tp: offset for tp, (offset, _) in offsets.items()})])
            case do.Note():
                self.notes.append(action)
            case _:
                pass

    def _settle(self, ticket: Ticket, outcomes: Sequence[tuple[int, str]]) -> None:
        self._ticket = ticket
        for offset, outcome in outcomes:
            self.outcomes[offset].append(outcome)
            self.settled_s.setdefault(offset, time.monotonic())
