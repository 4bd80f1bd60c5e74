"""The worker slots: which process fills each, and when an empty one is filled again.

Owns the numbers of workers and the waits between restarts. Must not know what a worker has or does.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from consumer.core.actions import Spawn
from consumer.core.lifecycle import WORKER, RestartOptions, Restarts, WorkerEvent, WorkerState, advance
from consumer.core.types import WorkerId


@dataclass(slots=True)
class Slot:
    """One worker slot."""

    restarts: Restarts
    state: WorkerState = WorkerState.ABSENT
    worker: WorkerId | None = None
    spawn_at_s: float = 0.0

    def follow(self, event: WorkerEvent) -> None:
        """Move on in the worker's life."""
        self.state = advance(WORKER, self.state, event)


class Crew:
    """All worker slots."""

    def __init__(self, options: RestartOptions, slots: int) -> None:
        """Start with every slot empty, to be filled at once."""
        self._options = options
        self._slots = [Slot(Restarts(options)) for _ in range(slots)]
        self._last = 0

    def due(self, now: float) -> Iterator[Spawn]:
        """Fill the slots whose wait is over."""
        for number, slot in enumerate(self._slots):
            if slot.state is WorkerState.ABSENT and now >= slot.spawn_at_s:
                self._last += 1
                slot.worker = WorkerId(self._last)
                slot.follow(WorkerEvent.SPAWNED)
                yield Spawn(number, slot.worker)

    def ready(self, worker: WorkerId, now: float) -> int:
        """Take note that a worker takes work; say which slot it fills."""
        number = self._find(worker)
        self._slots[number].follow(WorkerEvent.BOOTED)
        self._slots[number].restarts.booted(now)
        return number

    def exited(self, worker: WorkerId, now: float, *, can_boot: bool, is_explained: bool) -> int:
        """Take note that a worker is gone; say which slot it filled.

        Args:
            worker: Which.
            now: Monotonic seconds.
            can_boot: False where a restart would not help.
            is_explained: Whether a model is to blame, or one of its records: it has a budget of its own, and the other
                models are not to wait for the slot.
        """
        number = self._find(worker)
        slot = self._slots[number]
        slot.worker = None
        slot.follow(WorkerEvent.EXITED if can_boot else WorkerEvent.BOOT_FAILED)
        slot.spawn_at_s = now + self._options.backoff_s if is_explained else slot.restarts.died(now)
        return number

    def _find(self, worker: WorkerId) -> int:
        """Find the slot that a worker fills."""
        return next(number for number, slot in enumerate(self._slots) if slot.worker == worker)
