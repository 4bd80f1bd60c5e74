"""Calls on a device whose streams run as late, or as early, as they may."""

import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from consumer.worker.cuda import equal, write
from consumer.worker.staging import (
    BUFFER_SETS,
    CALLS_BEFORE_CAPTURE,
    GRAPHS_MAX,
    IN,
    MODEL,
    OUT,
    Capture,
    Staging,
    bucket_of,
)
from tests.strategies import UNHURRIED

Named = Mapping[str, Any]
GARBAGE = -777.0


@dataclass
class Event:
    """A mark in a stream."""

    stream: str
    is_reached: bool = False


@dataclass
class FakePort:
    """A device that does what is queued at a time of its own choice: only what waits for an event is sure of it."""

    random: random.Random
    queues: dict[str, deque[Callable[[], bool]]] = field(
        default_factory=lambda: {name: deque() for name in (IN, MODEL, OUT)}
    )
    captures: int = 0
    replays: int = 0
    allocations: int = 0
    can_capture: bool = True
    is_false: bool = False
    """Graphs say something else than the model."""

    def _queue(self, stream: str, step: Callable[[], object]) -> None:
        def take() -> bool:
            step()
            return True

        self.queues[stream].append(take)
        self._go_on()

    def _go_on(self) -> None:
        for _ in range(self.random.randint(0, 4)):
            self._advance(self.random.choice([IN, MODEL, OUT]))

    def _advance(self, stream: str) -> bool:
        queue = self.queues[stream]
        if queue and queue[0]():
            queue.popleft()
            return True
        return False

    def is_tensor(self, value: object) -> bool:
        """Tell a tensor from texts."""
        return isinstance(value, torch.Tensor)

    def pinned(self, like: torch.Tensor, size: int) -> torch.Tensor:
        """Allocate."""
        self.allocations += 1
        return torch.full((size,), GARBAGE, dtype=like.dtype)

    on_device = pinned

    def write(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Copy at once."""
        write(target, source)

    def copy(self, stream: str, target: torch.Tensor, source: torch.Tensor) -> None:
        """Copy some time."""
        assert target.shape == source.shape
        self._queue(stream, lambda: target.copy_(source))

    def run(self, stream: str, call: Callable[[], Named]) -> Named:
        """Call the model some time; its results are garbage until then."""
        results = call()
        for value in results.values():
            if isinstance(value, torch.Tensor):
                value.fill_(GARBAGE)
        self._queue(stream, lambda: self._fill(results, call(), 0.0))
        return results

    def _fill(self, results: Named, found: Named, error: float) -> None:
        for name, value in results.items():
            if isinstance(value, torch.Tensor):
                value.copy_(found[name] + error)

    def capture(self, call: Callable[[], Named]) -> tuple[Any, Named]:
        """Record, or refuse to."""
        if not self.can_capture:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.captures += 1
        results = {name: value.fill_(GARBAGE) for name, value in call().items()}
        error = 1.0 if self.is_false else 0.0
        return lambda: self._fill(results, call(), error), results

    def replay(self, stream: str, graph: Callable[[], None]) -> None:
        """Call what was recorded some time."""
        self.replays += 1
        self._queue(stream, graph)

    def mark(self, stream: str) -> Event:
        """Mark the end of what is queued."""
        event = Event(stream)
        self._queue(stream, lambda: setattr(event, "is_reached", True))
        return event

    def follow(self, stream: str, event: Event) -> None:
        """Hold a stream up."""
        self.queues[stream].append(lambda: event.is_reached)

    def synchronise(self, event: Event) -> None:
        """Let streams go on until an event."""
        while not event.is_reached:
            assert any(self._advance(name) for name in (event.stream, IN, MODEL, OUT)), "nothing goes on"

    def clone(self, pinned: torch.Tensor) -> torch.Tensor:
        """Copy at once."""
        return pinned.clone()

    def equal(self, one: Named, other: Named) -> bool:
        """Compare."""
        return equal(one, other)


def double(inputs: Named) -> dict[str, Any]:
    """Be the model."""
    return {"y": inputs["x"] * 2, "sum": inputs["x"].sum(1)}


def staging(port: FakePort, *, may_capture: bool = True, rows_max: int = 24) -> Staging[Event]:
    """Make a staging on a fake device."""
    return Staging(port, double, rows_max, may_capture=may_capture)


def check(results: Named, x: torch.Tensor) -> None:
    """See that a call's results are right and of its rows alone."""
    assert torch.equal(results["y"], x * 2)
    assert torch.equal(results["sum"], x.sum(1))


@given(
    st.integers(0, 1 << 32),
    st.lists(st.tuples(st.integers(0, 24), st.integers(1, 3)), min_size=1, max_size=40),
    st.integers(1, BUFFER_SETS),
    st.booleans(),
)
@UNHURRIED
def test_every_call_gets_its_own_results_however_the_streams_run(
    seed: int,
    calls: list[tuple[int, int]],
    ahead: int,
    may_capture: bool,
) -> None:
    """With as many calls under way as there are buffers, nothing is read before it is there, or overwritten before."""
    port = FakePort(random.Random(seed))
    made = staging(port, may_capture=may_capture)
    under_way: deque[tuple[Any, torch.Tensor]] = deque()
    for number, (rows, width) in enumerate(calls):
        x = torch.arange(rows * width, dtype=torch.float32).reshape(rows, width) + 1000 * number
        if len(under_way) == ahead:
            ticket, sent = under_way.popleft()
            check(made.finish(ticket), sent)
        under_way.append((made.begin({"x": x}, rows), x.clone()))
        x.fill_(GARBAGE)
    for ticket, sent in under_way:
        check(made.finish(ticket), sent)


def test_buffers_are_allocated_once() -> None:
    """After the largest call of a shape no call allocates: pinned memory is dear."""
    port = FakePort(random.Random(1))
    made = staging(port, may_capture=False)
    for _ in range(BUFFER_SETS):
        made.ask({"x": torch.ones(24, 2)}, 24)
    allocated = port.allocations
    for rows in (1, 7, 24, 3):
        made.ask({"x": torch.ones(rows, 2)}, rows)
    assert port.allocations == allocated


def test_a_call_is_recorded_after_some_of_its_shape_and_replayed_from_then_on() -> None:
    """Calls of 5 to 8 rows share a graph; the model itself is called no more."""
    port = FakePort(random.Random(2))
    made = staging(port)
    for number in range(CALLS_BEFORE_CAPTURE + 10):
        rows = 5 + number % 4
        x = torch.full((rows, 2), float(number))
        check(made.ask({"x": x}, rows), x)
    assert port.captures == 1
    assert port.replays == 1 + 10, "one for the comparison"


@pytest.mark.parametrize("fault", ["cannot be recorded", "is not what was recorded"])
def test_a_model_that_cannot_be_recorded_truly_is_called_as_it_is(fault: str) -> None:
    """It is tried once; every answer is the model's own."""
    port = FakePort(random.Random(3), can_capture=fault != "cannot be recorded", is_false=fault != "cannot be recorded")
    made = staging(port)
    for number in range(CALLS_BEFORE_CAPTURE + 10):
        x = torch.full((3, 2), float(number))
        check(made.ask({"x": x}, 3), x)
    assert port.captures == (0 if fault == "cannot be recorded" else 1)


def test_a_failed_call_gives_all_graphs_up() -> None:
    """It may have failed for want of memory; the graphs are recorded anew when calls go on."""
    port = FakePort(random.Random(4))
    made = staging(port)
    x = torch.ones(3, 2)
    for _ in range(CALLS_BEFORE_CAPTURE + 2):
        made.ask({"x": x}, 3)
    with pytest.raises(KeyError):
        made.ask({"other": x}, 3)
    for _ in range(CALLS_BEFORE_CAPTURE):
        check(made.ask({"x": x}, 3), x)
    assert port.captures == 1
    check(made.ask({"x": x}, 3), x)
    assert port.captures == 2


def test_texts_and_tensors_without_rows_go_to_the_model_as_they_are() -> None:
    """BYTES stay on the host, and what has no rows is neither filled up nor recorded."""
    port = FakePort(random.Random(5))
    texts = Staging(port, lambda inputs: {"y": inputs["x"] + len(inputs["t"]), "t": inputs["t"]}, 8, may_capture=True)
    whole = Staging(port, lambda inputs: {"y": inputs["x"].sum()}, 8, may_capture=True)
    for _ in range(CALLS_BEFORE_CAPTURE + 2):
        found = texts.ask({"x": torch.zeros(3, 2), "t": [b"a", b"b", b"c"]}, 3)
        assert torch.equal(found["y"], torch.full((3, 2), 3.0))
        assert found["t"] == [b"a", b"b", b"c"]
        assert whole.ask({"x": torch.ones(3, 2)}, None)["y"] == torch.tensor(6.0)
    assert port.captures == 0


def test_there_are_only_so_many_graphs() -> None:
    """Shapes beyond those are called without one."""
    capture = Capture(is_allowed=True)
    due = 0
    for shape in range(2 * GRAPHS_MAX):
        for _ in range(CALLS_BEFORE_CAPTURE + 1):
            if capture.is_due((("x", "float", (shape,)),), 8):
                capture.made()
                due += 1
    assert due == GRAPHS_MAX


def test_buckets_are_powers_of_two_up_to_the_most_rows() -> None:
    """Every number of rows fits its bucket, and no bucket is more than twice as large or above the limit."""
    assert [bucket_of(rows, 24) for rows in (1, 2, 3, 4, 5, 9, 16, 17, 24)] == [1, 2, 4, 4, 8, 16, 16, 24, 24]


def test_rows_that_are_missing_are_filled_with_the_first() -> None:
    """A model sees values that it may see anyway, and zeros only where there is no row at all."""
    target = torch.full((3, 2), GARBAGE)
    write(target, torch.tensor([[1.0, 2.0]]))
    assert target.tolist() == [[1, 2]] * 3
    write(target, torch.empty(0, 2))
    assert target.tolist() == [[0, 0]] * 3


@pytest.mark.parametrize(
    ("other", "is_equal"),
    [
        ({"y": torch.tensor([1.00001, torch.nan])}, True),
        ({"y": torch.tensor([1.1, torch.nan])}, False),
        ({"y": torch.tensor([[1.0, torch.nan]])}, False),
        ({"z": torch.tensor([1.0, torch.nan])}, False),
    ],
)
def test_results_are_compared_to_rounding(other: Named, *, is_equal: bool) -> None:
    """Names, shapes and values count; NaN is NaN's equal."""
    assert equal({"y": torch.tensor([1.0, torch.nan])}, other) is is_equal
