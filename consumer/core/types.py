"""The things the core speaks of: partitions, runs of records, chunks, failures.

Owns the columnar view of records in flight. Must not know what a payload, a key or a header means: they are carried,
sliced and handed on, never opened.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from operator import itemgetter
from typing import NamedTuple, NewType, TypeAlias, TypeVar

T = TypeVar("T")

ModelId: TypeAlias = str
"""A configured model's name: a record's key, unless the configuration takes it from elsewhere."""

WorkerId = NewType("WorkerId", int)
"""One incarnation of a worker process: a restarted worker gets a new one, so late news of the old is recognised."""

ChunkId = NewType("ChunkId", int)
"""One dispatch of records to one worker; never used twice."""

Ticket = NewType("Ticket", int)
"""One hand-over of outcomes to the sink; tickets rise, and a barrier passes all up to one."""

Generation = NewType("Generation", int)
"""One assignment of a partition to this member; it fences what belongs to an earlier one."""

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]
"""A record's headers in their order; a name may occur more than once."""


class TopicPartition(NamedTuple):
    """A partition of an input topic."""

    topic: str
    partition: int


@dataclass(slots=True)
class Amount:
    """Records, and their payload bytes."""

    records: int = 0
    size: int = 0


class Disposition(Enum):
    """What a failure says about the next step."""

    POISON = "poison"
    """The record is at fault: no retry, a dead letter."""
    TRANSIENT = "transient"
    """The same attempt may pass later: retried with backoff, up to a limit charged to the record."""
    UNAVAILABLE = "unavailable"
    """The model or its worker is at fault: the record waits and nothing is charged to it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a record has no result. `message` is one line and holds no payload."""

    reason: str
    """A slug of the closed set that dead letters and metrics use."""
    error: str
    """The error's class name."""
    message: str
    disposition: Disposition = Disposition.POISON


@dataclass(slots=True)
class Slice:
    """What one fetch brought from one partition: columns of equal length, in the order of the offsets."""

    partition: TopicPartition
    offsets: Sequence[int]
    models: ModelId | Sequence[ModelId | None] | None
    """One name for all records, or a column. None: the record names no model (no key, or not UTF-8)."""
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Headers | None] | None
    """None where no record of the slice has a header."""
    timestamps_ms: Sequence[int]
    """The broker's or producer's timestamp, epoch milliseconds; -1 where there is none."""
    deadlines_s: Sequence[float | None] | None = None
    """Monotonic seconds after which a record is not worth inferring; None where no record of the slice expires."""
    epoch_s: float = 0.0
    """Monotonic seconds at the Unix epoch, so negative mostly: `timestamps_ms` on the clock of deadlines."""

    def rest(self, first: int) -> "Slice":
        """Leave out the records before `first`."""
        return Slice(
            partition=self.partition,
            offsets=self.offsets[first:],
            models=self.models if self.models is None or isinstance(self.models, str) else self.models[first:],
            keys=self.keys[first:],
            values=self.values[first:],
            headers=None if self.headers is None else self.headers[first:],
            timestamps_ms=self.timestamps_ms[first:],
            deadlines_s=None if self.deadlines_s is None else self.deadlines_s[first:],
            epoch_s=self.epoch_s,
        )


@dataclass(slots=True)
class Run:
    """Records of one partition and one model that travel together: columns of equal length.

    `positions` are the ledger's (dense) numbers for the records, a `range` where they are consecutive. `values` may be
    replaced by the shell with a sequence that reads the shared memory, once the payloads have been copied there.
    """

    partition: TopicPartition
    generation: Generation
    model: ModelId
    positions: Sequence[int]
    offsets: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Headers | None] | None
    timestamps_ms: Sequence[int]
    size: int
    """Payload bytes of all records together."""
    fetched_s: float
    """Monotonic seconds at which the fetch returned."""
    deadlines_s: Sequence[float | None] | None = None
    """Monotonic seconds after which a record is not worth inferring; None where no record of the run expires."""
    attempts: int = 0
    """Attempts already charged to these records."""
    crashes: int = 0
    """Workers that died with these records leased to them."""

    def __len__(self) -> int:
        """Count the records."""
        return len(self.offsets)

    def part(self, first: int, stop: int) -> "Run":
        """Cut out the records `first` up to `stop` (exclusive); payloads are copied out of shared memory."""
        cut = self.bare(first, stop)
        cut.values = self.values[first:stop]
        cut.size = sum(map(len, filter(None, cut.values)))
        return cut

    def bare(self, first: int, stop: int) -> "Run":
        """Cut out the records `first` up to `stop` (exclusive) without their payloads: what an outcome needs."""
        place = slice(first, stop)
        # Not by dataclasses.replace, which costs three times as much: this is done for every answer.
        return Run(
            self.partition,
            self.generation,
            self.model,
            self.positions[place],
            self.offsets[place],
            self.keys[place],
            (),
            None if self.headers is None else self.headers[place],
            self.timestamps_ms[place],
            0,
            self.fetched_s,
            None if self.deadlines_s is None else self.deadlines_s[place],
            self.attempts,
            self.crashes,
        )

    def pick(self, indices: Sequence[int]) -> "Run":
        """Take the records at `indices`, in that order; payloads are copied out of shared memory."""
        picked = self.pick_bare(indices)
        picked.values = _picked(self.values, indices)
        picked.size = sum(map(len, filter(None, picked.values)))
        return picked

    def pick_bare(self, indices: Sequence[int]) -> "Run":
        """Take the records at `indices`, in that order, without their payloads."""
        return Run(
            self.partition,
            self.generation,
            self.model,
            _picked(self.positions, indices),
            _picked(self.offsets, indices),
            _picked(self.keys, indices),
            (),
            None if self.headers is None else _picked(self.headers, indices),
            _picked(self.timestamps_ms, indices),
            0,
            self.fetched_s,
            None if self.deadlines_s is None else _picked(self.deadlines_s, indices),
            self.attempts,
            self.crashes,
        )


@dataclass(slots=True)
class Chunk:
    """What is dispatched to one worker at once: records of one model, numbered through all its runs."""

    chunk: ChunkId
    model: ModelId
    runs: Sequence[Run]
    is_suspect: bool = False
    """One of its records may have ended a worker: each is to be a batch of its own."""

    def __len__(self) -> int:
        """Count the records."""
        return sum(len(run) for run in self.runs)

    @property
    def size(self) -> int:
        """Payload bytes of all records together."""
        return sum(run.size for run in self.runs)


def _picked(column: Sequence[T], indices: Sequence[int]) -> Sequence[T]:
    """Take the cells at `indices`, at C speed: where models share a partition it is done for every record."""
    if len(indices) < 2:  # noqa: PLR2004 - of fewer itemgetter makes no tuple
        return [column[i] for i in indices]
    picked: Sequence[T] = itemgetter(*indices)(column)
    return picked
