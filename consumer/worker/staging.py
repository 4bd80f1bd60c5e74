"""The way of a call's tensors to a GPU and back: buffers, streams and graphs.

Owns the decisions: which buffer is next, who waits for whom, when a call is recorded as a graph and when graphs are
given up. Must not know torch: what is done goes through a `Port` (see `worker.cuda`), so that tests can be slow and
strict where a GPU is fast and silent.

Theory of operation. Inputs are written into pinned memory that is allocated once, copied to the device on a stream of
their own, and the model's stream waits for that copy alone; results come back on a third stream into pinned memory, and
are read only when their copy has been waited for. There are two sets of buffers, so that the next call's inputs travel
while this one is computed; a call is finished, all of its copies over, before the one after the next begins.

A call of a model that takes tensors alone is cheap to repeat as a graph, which needs the same addresses and shapes
every time. So rows are filled up to a power of two, its *bucket*, and after `CALLS_BEFORE_CAPTURE` calls of the same
shape and bucket the next is recorded. The graph's first answer is compared with the model's own: a model for which they
differ, or that cannot be recorded, is called as it is from then on. Graphs hold memory, so there are at most
`GRAPHS_MAX`, and none after a call that failed, which may have been for want of memory.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

BUFFER_SETS = 2
CALLS_BEFORE_CAPTURE = 3
"""Calls of one shape after which it is worth a graph: by then libraries have chosen their kernels and allocated."""
GRAPHS_MAX = 16
"""Graphs of one model; shapes beyond those are called without."""
SHAPES_MAX = 1024
"""Shapes whose calls are counted; where there are more, none comes often enough."""

Tensor: TypeAlias = Any
"""A tensor of the port's; slices along axis 0 are views."""
Named: TypeAlias = Mapping[str, Any]
"""Tensors, or lists of BYTES, by name."""
Event = TypeVar("Event")
Layout: TypeAlias = tuple[tuple[str, Any, tuple[int, ...]], ...]
"""Name, datatype and shape of one row of each input."""


class Port(Protocol[Event]):
    """What a device can be asked for. Everything is queued on a stream, in order, unless it says otherwise."""

    def is_tensor(self, value: object) -> bool:
        """Tell a tensor from a list of BYTES."""

    def pinned(self, like: Tensor, size: int) -> Tensor:
        """Allocate pinned memory for so many elements of a datatype, one after the other, at once."""

    def on_device(self, like: Tensor, size: int) -> Tensor:
        """Allocate device memory for so many elements of a datatype, one after the other, at once."""

    def write(self, target: Tensor, source: Tensor) -> None:
        """Copy from host to host, at once; rows beyond the source's become its first one, or zeros."""

    def copy(self, stream: str, target: Tensor, source: Tensor) -> None:
        """Copy between host and device or within the device."""

    def run(self, stream: str, call: Callable[[], Named]) -> Named:
        """Have a model called."""

    def capture(self, call: Callable[[], Named]) -> tuple[Any, Named]:
        """Record a call without running it; return the graph and the tensors that it will put its results into."""

    def replay(self, stream: str, graph: Any) -> None:
        """Run what was recorded."""

    def mark(self, stream: str) -> Event:
        """Return what is reached when everything queued so far is done."""

    def follow(self, stream: str, event: Event) -> None:
        """Have what is queued from now on wait for an event of another stream."""

    def synchronise(self, event: Event) -> None:
        """Wait for an event, at once."""

    def clone(self, pinned: Tensor) -> Tensor:
        """Copy a result out of pinned memory, at once."""

    def equal(self, one: Named, other: Named) -> bool:
        """Tell whether results on the host are equal to rounding."""


IN, MODEL, OUT = "in", "model", "out"
"""The streams."""


def bucket_of(rows: int, rows_max: int) -> int:
    """Say to how many rows a call is filled up: a power of two, or the most that the model takes."""
    return min(1 << max(0, rows - 1).bit_length(), rows_max)


@dataclass(slots=True)
class _Set:
    """One set of buffers."""

    pinned: dict[str, Tensor] = field(default_factory=dict)
    device: dict[str, Tensor] = field(default_factory=dict)
    results: dict[str, Tensor] = field(default_factory=dict)


@dataclass(slots=True)
class _Graph:
    """A recorded call."""

    graph: Any
    inputs: dict[str, Tensor]
    results: Named


class Ticket(NamedTuple, Generic[Event]):
    """A call under way."""

    results: Mapping[str, Tensor]
    """Pinned memory that results are copied to, and lists as the model returned them."""
    rows: int | None
    is_there: Event


class Capture:
    """Whether calls of one model are recorded."""

    def __init__(self, *, is_allowed: bool) -> None:
        """Begin with no graph; `is_allowed` says that a call does the same every time, and rows do not mix."""
        self._is_allowed = is_allowed
        self._seen: dict[tuple[Layout, int], int] = {}
        self._made = 0

    @property
    def is_allowed(self) -> bool:
        """Tell whether there may be graphs at all."""
        return self._is_allowed

    def is_due(self, layout: Layout, bucket: int) -> bool:
        """Count one more call of this shape that has no graph; tell whether it is to be recorded."""
        if not self._is_allowed or self._made >= GRAPHS_MAX:
            return False
        if len(self._seen) >= SHAPES_MAX:
            self._seen.clear()
        count = self._seen[layout, bucket] = self._seen.get((layout, bucket), 0) + 1
        return count > CALLS_BEFORE_CAPTURE

    def made(self) -> None:
        """Take note of a graph."""
        self._made += 1

    def forbid(self) -> None:
        """Take note that the model cannot be recorded, or not truly."""
        self._is_allowed = False

    def forget(self) -> None:
        """Take note that all graphs were given up."""
        self._seen.clear()
        self._made = 0


class Staging(Generic[Event]):
    """The calls of one model on a device."""

    def __init__(self, port: Port[Event], call: Callable[[Named], Named], rows_max: int, *, may_capture: bool) -> None:
        """Take a model that is called with tensors on the device, of at most `rows_max` rows."""
        self._port = port
        self._call = call
        self._rows_max = rows_max
        self._sets: list[_Set] = [_Set() for _ in range(BUFFER_SETS)]
        self._turn = 0
        self._graphs: dict[tuple[Layout, int], _Graph] = {}
        self._capture = Capture(is_allowed=may_capture)

    def ask(self, inputs: Named, rows: int | None) -> dict[str, Any]:
        """Call the model; `rows` is None where axis 0 of its tensors is no rows. Results are on the host."""
        return self.finish(self.begin(inputs, rows))

    def begin(self, inputs: Named, rows: int | None) -> Ticket[Event]:
        """Queue a call; the one `BUFFER_SETS` before it is finished by then, since it had the same buffers."""
        try:
            return self._begin(inputs, rows)
        except Exception:
            self.drop_graphs()
            raise

    def finish(self, ticket: Ticket[Event]) -> dict[str, Any]:
        """Wait for a call's results, and copy them out of the buffers."""
        try:
            self._port.synchronise(ticket.is_there)
        except Exception:
            self.drop_graphs()
            raise
        return {
            name: self._port.clone(value[: ticket.rows] if ticket.rows is not None else value)
            if self._port.is_tensor(value)
            else value
            for name, value in ticket.results.items()
        }

    def drop_graphs(self) -> None:
        """Give the memory of all graphs back; they are recorded anew when calls go on."""
        self._graphs.clear()
        self._capture.forget()

    def _begin(self, inputs: Named, rows: int | None) -> Ticket[Event]:
        port, buffers = self._port, self._sets[self._turn % BUFFER_SETS]
        self._turn += 1
        tensors = {name: value for name, value in inputs.items() if port.is_tensor(value)}
        is_plain = rows is None or not rows or len(tensors) < len(inputs) or not self._capture.is_allowed
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        if not is_plain:
            assert rows is not None
            bucket = bucket_of(rows, self._rows_max)
            shapes = {name: (bucket, *shape[1:]) for name, shape in shapes.items()}
        device = self._send(buffers, tensors, shapes)
        results = port.run(MODEL, lambda: self._call({**inputs, **device})) if is_plain else self._run(device)
        return self._fetch(buffers, results, rows)

    def _send(self, buffers: _Set, tensors: Named, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """Copy inputs to the device, by way of pinned memory that nothing reads any more: its last call is finished."""
        port = self._port
        sent = {}
        for name, value in tensors.items():
            known = buffers.device.get(name)
            pinned = _part(buffers.pinned, name, value, shapes[name], port.pinned)
            sent[name] = _part(buffers.device, name, value, shapes[name], port.on_device)
            port.write(pinned, value)
            if buffers.device[name] is not known:
                # Its memory may have been the model's until now, as far as what is queued goes.
                port.follow(IN, port.mark(MODEL))
            port.copy(IN, sent[name], pinned)
        port.follow(MODEL, port.mark(IN))
        return sent

    def _run(self, device: dict[str, Tensor]) -> Named:
        """Run a call of which there may be a graph, or record one."""
        port = self._port
        layout = tuple((name, value.dtype, tuple(value.shape[1:])) for name, value in device.items())
        bucket = len(next(iter(device.values())))
        graph = self._graphs.get((layout, bucket))
        if graph is None and self._capture.is_due(layout, bucket):
            graph = self._record(layout, bucket, device)
        if graph is None:
            return port.run(MODEL, lambda: self._call(device))
        self._replay(graph, device)
        return graph.results

    def _replay(self, graph: _Graph, device: Named) -> None:
        """Run a graph on other inputs."""
        for name, value in device.items():
            self._port.copy(MODEL, graph.inputs[name], value)
        self._port.replay(MODEL, graph.graph)

    def _record(self, layout: Layout, bucket: int, device: dict[str, Tensor]) -> _Graph | None:
        """Record a call, and see whether the graph says what the model says."""
        port = self._port
        inputs = {name: _part({}, name, value, value.shape, port.on_device) for name, value in device.items()}
        try:
            recorded, results = port.capture(lambda: self._call(inputs))
        except RuntimeError:  # what is not permitted while a stream is recorded, torch refuses with it
            self._capture.forbid()
            return None
        graph: _Graph = _Graph(recorded, inputs, results)
        own = self._read(port.run(MODEL, lambda: self._call(device)))
        self._replay(graph, device)
        if not port.equal(own, self._read(graph.results)):
            self._capture.forbid()
            self.drop_graphs()
            return None
        self._graphs[layout, bucket] = graph
        self._capture.made()
        return graph

    def _read(self, results: Named) -> dict[str, Any]:
        """Copy results to the host and wait for them."""
        return self.finish(self._fetch(_Set(), results, None))

    def _fetch(self, buffers: _Set, results: Named, rows: int | None) -> Ticket[Event]:
        """Copy results to pinned memory, once they are computed."""
        port = self._port
        port.follow(OUT, port.mark(MODEL))
        back: dict[str, Any] = {}
        for name, value in results.items():
            back[name] = value
            if port.is_tensor(value):
                back[name] = _part(buffers.results, name, value, value.shape, port.pinned)
                port.copy(OUT, back[name], value)
        is_there = port.mark(OUT)
        # The next call may get these results' memory on the device, and the next replay writes there: not before that.
        port.follow(MODEL, is_there)
        return Ticket(back, rows, is_there)


def _part(
    buffers: dict[str, Tensor], name: str, like: Tensor, shape: Sequence[int], make: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """Take what a tensor of this shape needs of the buffer of that name, which is made anew where it is too small."""
    size = math.prod(shape)
    buffer = buffers.get(name)
    if buffer is None or buffer.dtype != like.dtype or len(buffer) < size:
        buffer = buffers[name] = make(like, 1 << max(0, size - 1).bit_length())
    return buffer[:size].reshape(tuple(shape))
