"""What `worker.staging` asks of a GPU, in torch's words.

Owns one model's streams. Decides nothing. Written to torch's documentation of streams, pinned memory and graphs.
"""

from collections.abc import Callable, Mapping

import torch

from consumer.worker.loaders import LoadedModel, Value
from consumer.worker.staging import IN, MODEL, OUT, Staging

Named = Mapping[str, Value]


class CudaPort:
    """One device, and three streams of its own there."""

    def __init__(self, device: str) -> None:
        """Make the streams, when everything that was begun on the device is done: the weights are there."""
        self._device = torch.device(device)
        torch.cuda.synchronize(self._device)
        self._streams = {name: torch.cuda.Stream(self._device) for name in (IN, MODEL, OUT)}

    def is_tensor(self, value: object) -> bool:
        """Tell a tensor from a list of BYTES."""
        return isinstance(value, torch.Tensor)

    def pinned(self, like: torch.Tensor, size: int) -> torch.Tensor:
        """Allocate pinned memory for so many elements."""
        return torch.empty(size, dtype=like.dtype, pin_memory=True)

    def on_device(self, like: torch.Tensor, size: int) -> torch.Tensor:
        """Allocate device memory for so many elements, which the allocator counts as the model's stream's."""
        with torch.cuda.stream(self._streams[MODEL]):
            return torch.empty(size, dtype=like.dtype, device=self._device)

    def write(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Copy from host to host; rows that are missing become the first one, or zeros."""
        write(target, source)

    def copy(self, stream: str, target: torch.Tensor, source: torch.Tensor) -> None:
        """Copy without waiting for it."""
        with torch.cuda.stream(self._streams[stream]):
            target.copy_(source, non_blocking=True)

    def run(self, stream: str, call: Callable[[], Named]) -> Named:
        """Have a model called."""
        with torch.cuda.stream(self._streams[stream]):
            return call()

    def capture(self, call: Callable[[], Named]) -> tuple[torch.cuda.CUDAGraph, Named]:
        """Record a call. Other threads may go on allocating meanwhile: one of them may be loading a model."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._streams[MODEL], capture_error_mode="thread_local"):
            results = call()
        return graph, results

    def replay(self, stream: str, graph: torch.cuda.CUDAGraph) -> None:
        """Run what was recorded."""
        with torch.cuda.stream(self._streams[stream]):
            graph.replay()

    def mark(self, stream: str) -> torch.cuda.Event:
        """Return what is reached when everything queued so far is done."""
        event = torch.cuda.Event()
        event.record(self._streams[stream])
        return event

    def follow(self, stream: str, event: torch.cuda.Event) -> None:
        """Have what is queued from now on wait for an event of another stream."""
        self._streams[stream].wait_event(event)

    def synchronise(self, event: torch.cuda.Event) -> None:
        """Wait for an event."""
        event.synchronize()

    def clone(self, pinned: torch.Tensor) -> torch.Tensor:
        """Copy a result out of pinned memory."""
        return pinned.clone(memory_format=torch.contiguous_format)

    def equal(self, one: Named, other: Named) -> bool:
        """Tell whether results are equal to rounding."""
        return equal(one, other)


def staged(model: LoadedModel) -> Staging[torch.cuda.Event]:
    """Make the way to a model's device and back.

    Only what a file says is recorded: code that makes a model may do something else each time that it is called.
    """
    may_capture = model.is_batched and model.options.reproducible and model.options.factory is None
    return Staging(CudaPort(model.device), model.call, model.rows_max, may_capture=may_capture)


def write(target: torch.Tensor, source: torch.Tensor) -> None:
    """Copy a tensor; rows that it lacks become its first one, or zeros where there is none."""
    if target.shape == source.shape:
        target.copy_(source)
        return
    rows = len(source)
    target[:rows].copy_(source)
    target[rows:] = source[0] if rows else 0


def equal(one: Named, other: Named) -> bool:
    """Tell whether results are equal to rounding, NaN where NaN is."""
    return one.keys() == other.keys() and all(_is_close(value, other[name]) for name, value in one.items())


def _is_close(one: Value, other: Value) -> bool:
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return one == other
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.allclose(one.double(), other.double(), rtol=1e-3, atol=1e-5, equal_nan=True)
