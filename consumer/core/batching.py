"""When a batch is due, and which records go into it.

Owns the records of each model that wait for the device of one worker. Must not know what a record holds or how a batch
is run: it counts rows and bytes, and cuts.

Theory of operation. Records arrive in *lots*, many at a time, and leave in batches of at most `rows_max` rows and
`bytes_max` bytes. A batch is a list of *parts*, each a stretch of one lot, so nothing is done per record but to add up
columns. A record that alone exceeds a limit is a batch of its own; whoever runs it divides it.

Within these limits a batch is as large as pays: what batches took teaches which size is enough (`cost`), and larger
ones would only make their first records wait for their last. Each part costs something by itself, so a batch that
began amid a lot rather ends with a lot than cut the next one: else, once cut, lots as large as a batch would all be.

The device is never kept waiting for company while there is something to do (work-conserving): as soon as it is free,
what has gathered is taken, full or not, because the next records gather during this batch anyway. Only a device that
was idle when the first record came waits for more, until the batch is full or its oldest record is `delay_ms_max` old.
Models whose batches are due take turns: next is the one that has waited longest since its oldest record came and since
its latest batch was over. So none is kept waiting for longer than one batch of each other one, whatever lies there for
a busier one; and those with few records, which come between two turns of the others, gather for as long. How much lies
there, and so what each gets of the device, is the supervisor's to say. A worker that can decode during a batch takes
the next one early, where it is full.
"""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Final, Generic, NamedTuple, TypeVar

from annotated_types import Ge

from consumer.core.cost import LearnedSize
from consumer.core.types import ModelId

SECONDS_MIN: Final = 0.005
"""What a batch may always take: the worker does not see what each of its answers costs the supervisor and the broker,
and nobody notices that a record waits for its neighbours so long."""

Item = TypeVar("Item")
"""What the caller holds a lot's records in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """How large a batch gets, and how long an idle device waits for it."""

    rows_max: Annotated[int, Ge(1)] = 512
    """Rows of one batch at most; up to here it becomes as large as the model was seen to gain by."""
    bytes_max: Annotated[int, Ge(1)] = 32 * 1024 * 1024
    """Payload bytes of one batch at most."""
    delay_ms_max: Annotated[float, Ge(0)] = 2.0
    """Milliseconds that an idle device waits for a batch to fill; 0 takes every record at once."""


class Part(NamedTuple, Generic[Item]):
    """The records `first` up to `stop` (exclusive) of a lot."""

    item: Item
    first: int
    stop: int


@dataclass(slots=True)
class _Lot(Generic[Item]):
    """Records that came together, less those that were taken."""

    item: Item
    sizes: Sequence[int]
    rows: Sequence[int] | None
    """None where every record is one row."""
    added_s: float
    first: int
    rows_left: int
    size_left: int

    @property
    def is_empty(self) -> bool:
        """Tell whether all records were taken."""
        return self.first == len(self.sizes)

    def fitting(self, rows_max: int, bytes_max: int) -> int:
        """Count the records at the front that fit into this many rows and bytes."""
        count = len(self.sizes) - self.first
        if self.rows_left > rows_max:
            rows = self.rows
            count = max(rows_max, 0) if rows is None else bisect_right(list(accumulate(rows[self.first :])), rows_max)
        if self.size_left > bytes_max:
            count = bisect_right(list(accumulate(self.sizes[self.first : self.first + count])), bytes_max)
        return count

    def advance(self, count: int) -> tuple[int, int]:
        """Take `count` records off the front; say how many rows and bytes they have."""
        stop = self.first + count
        rows = count if self.rows is None else sum(self.rows[self.first : stop])
        size = self.size_left if stop == len(self.sizes) else sum(self.sizes[self.first : stop])
        self.first = stop
        self.rows_left -= rows
        self.size_left -= size
        return rows, size


class Batcher(Generic[Item]):
    """The records of one model that wait for the device."""

    def __init__(self, options: BatchOptions) -> None:
        self._options = options
        self._lots: deque[_Lot[Item]] = deque()
        self._learned = LearnedSize(options.rows_max, SECONDS_MIN)
        self.rows = 0
        """Rows that wait."""
        self.size = 0
        """Payload bytes that wait."""

    @property
    def rows_max(self) -> int:
        """Say how many rows a batch has at most."""
        return self._options.rows_max

    @property
    def oldest_s(self) -> float | None:
        """When the record that has waited longest was added; None if nothing waits."""
        return self._lots[0].added_s if self._lots else None

    @property
    def oldest(self) -> Item | None:
        """Return what holds the record that has waited longest; None if nothing waits."""
        return self._lots[0].item if self._lots else None

    @property
    def rows_enough(self) -> int:
        """Say how many rows a batch gains little beyond; `rows_max` until that is known."""
        return self._learned.size

    @property
    def is_full(self) -> bool:
        """Tell whether as much waits as a batch should take."""
        return self.rows >= self._learned.size or self.size >= self._options.bytes_max

    @property
    def due_at_s(self) -> float | None:
        """When an idle device takes a batch, if nothing more comes; None if nothing waits."""
        if not self._lots:
            return None
        oldest_s = self._lots[0].added_s
        return oldest_s if self.is_full else oldest_s + self._options.delay_ms_max / 1000

    def add(self, item: Item, sizes: Sequence[int], now: float, rows: Sequence[int] | None = None) -> None:
        """Let records wait.

        Args:
            item: What holds them; parts of it come back.
            sizes: The payload bytes of each.
            now: Monotonic seconds.
            rows: The rows of each, if known and not 1; one that has `rows_max` is a batch of its own.
        """
        if not sizes:
            return
        size = sum(sizes)
        rows_sum = len(sizes) if rows is None else sum(rows)
        self._lots.append(_Lot(item, sizes, rows, now, 0, rows_sum, size))
        self.rows += rows_sum
        self.size += size

    def is_due(self, now: float, *, is_idle: bool) -> bool:
        """Tell whether a batch should be taken; `is_idle` says that the device had nothing to do before."""
        due_at_s = self.due_at_s
        return due_at_s is not None and (not is_idle or now >= due_at_s)

    def take(self) -> list[Part[Item]]:
        """Take the records of one batch, oldest first: as many as pay and fit, and at least one if any waits."""
        parts: list[Part[Item]] = []
        rows_max, bytes_left = self._learned.choose(self.rows), self._options.bytes_max
        rows_left = rows_max
        while self._lots:
            lot = self._lots[0]
            count = lot.fitting(rows_left, bytes_left) or (0 if parts else 1)
            is_half_full = 2 * rows_left <= rows_max
            if not count or (parts and parts[0].first and is_half_full and count < len(lot.sizes)):
                break
            parts.append(Part(lot.item, lot.first, lot.first + count))
            rows, size = lot.advance(count)
            rows_left -= rows
            bytes_left -= size
            self.rows -= rows
            self.size -= size
            if lot.is_empty:
                self._lots.popleft()
        return parts

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from a batch that was taken: how many rows it had, and the device's time that it took."""
        self._learned.observe(rows, seconds)


class Batchers(Generic[Item]):
    """The batchers of all models of one worker, and the choice between them."""

    def __init__(self) -> None:
        self._batchers: dict[ModelId, Batcher[Item]] = {}
        self._over_s: dict[ModelId, float] = {}
        """When the latest batch of each model was over: when the one after it was taken."""
        self._latest: ModelId | None = None
        """Whose batch was taken last."""

    def open(self, model: ModelId, options: BatchOptions) -> Batcher[Item]:
        """Begin to batch records of a model."""
        batcher = self._batchers[model] = Batcher(options)
        return batcher

    def __getitem__(self, model: ModelId) -> Batcher[Item]:
        """Find a model's batcher."""
        return self._batchers[model]

    def __contains__(self, model: object) -> bool:
        """Tell whether records of a model are batched."""
        return model in self._batchers

    @property
    def due_at_s(self) -> float | None:
        """When an idle device takes the next batch, if nothing more comes; None if nothing waits."""
        return min((at for batcher in self._batchers.values() if (at := batcher.due_at_s) is not None), default=None)

    def next_due(self, now: float, *, is_idle: bool) -> ModelId | None:
        """Choose the model whose batch is taken now: of those that are due, the one that has waited longest."""
        best, best_s = None, math.inf
        for model, batcher in self._batchers.items():
            oldest_s = batcher.oldest_s
            if oldest_s is None or not batcher.is_due(now, is_idle=is_idle):
                continue
            over_s = math.inf if model == self._latest else self._over_s.get(model, oldest_s)
            since_s = max(oldest_s, over_s)
            if best is None or since_s < best_s:
                best, best_s = model, since_s
        return best

    def take(self, model: ModelId, now: float) -> list[Part[Item]]:
        """Take the records of a model's next batch, as `Batcher.take` does: that is its turn."""
        if self._latest is not None:
            self._over_s[self._latest] = now
        self._latest = model
        return self._batchers[model].take()

    def next_full(self) -> ModelId | None:
        """Choose the model whose batch is taken while the one before it still runs; None where it is better to wait.

        It is the one that will be next in any case, if its batch is full: what comes meanwhile could not be in it.
        """
        model = self.next_due(0.0, is_idle=False)
        return model if model is not None and self._batchers[model].is_full else None
