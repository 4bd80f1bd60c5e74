"""Everything that can happen to the core: the closed union of its inputs.

Events are facts, told by the shells in the past tense. They carry no clock: `step(event, now)` gets the time beside.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from consumer.core.activity import Overdue, Stretch
from consumer.core.types import ChunkId, Failure, ModelId, Slice, Ticket, TopicPartition, WorkerId


@dataclass(frozen=True, slots=True)
class Assigned:
    """Partitions were given to this member; each with the metadata of its last commit ("" where there is none)."""

    partitions: Mapping[TopicPartition, "Position"]


@dataclass(frozen=True, slots=True)
class Position:
    """Where a partition starts: the committed next offset (None: never committed) and its commit metadata."""

    next_offset: int | None
    metadata: str = ""
    topic_id: str = ""
    """What tells the topic from another one of the same name that was there before; "" where the broker has none."""


@dataclass(frozen=True, slots=True)
class Revoking:
    """Partitions are about to be taken: dispatch nothing more of them, what is in flight may still settle."""

    partitions: Sequence[TopicPartition]


@dataclass(frozen=True, slots=True)
class Revoked:
    """Partitions are gone (after the last commit, or lost without one): fence and forget them."""

    partitions: Sequence[TopicPartition]


@dataclass(frozen=True, slots=True)
class Fetched:
    """Records arrived. Every position the client moved past is in here."""

    slices: Sequence[Slice]

    @property
    def records(self) -> int:
        """Count them."""
        return sum(len(part.offsets) for part in self.slices)


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """A worker has booted and takes work."""

    worker: WorkerId
    device: str


@dataclass(frozen=True, slots=True)
class WorkerExited:
    """A worker is gone; everything leased to it is lost there. `boot_failure` says that a restart would not help."""

    worker: WorkerId
    exit_code: int | None
    boot_failure: str | None = None
    running: Sequence[Stretch] | None = None
    """The records of the batch that it ran, none if it ran none; None where that is not known."""
    loading: Collection[ModelId] | None = None
    """The models that it loaded or probed; None where that is not known."""
    overdue: Overdue | None = None
    """What it was killed for, where it took too long."""
    is_planned: bool = False
    """It ended of its own will, between two batches."""
    busy_s: Mapping[ModelId, float] = field(default_factory=dict)
    """How long it had been at a model's batch, load or probe since it last showed that it went on."""


@dataclass(frozen=True, slots=True)
class ModelLoaded:
    """A worker has a model loaded and warmed up."""

    worker: WorkerId
    model: ModelId
    version: str
    load_s: float


@dataclass(frozen=True, slots=True)
class ModelFailed:
    """A worker could not load a model, or found a loaded one broken (its probe failed too)."""

    worker: WorkerId
    model: ModelId
    failure: Failure


@dataclass(frozen=True, slots=True)
class ModelProbed:
    """A broken model answered its probe again."""

    worker: WorkerId
    model: ModelId


@dataclass(frozen=True, slots=True)
class Answered:
    """A worker's outcomes for the records `first` to `first + count` (exclusive) of a chunk.

    `values` and `keys` are columns of `count` result payloads and record keys; where `failures` (by index in the
    chunk) names a record, its cells are empty.
    """

    worker: WorkerId
    chunk: ChunkId
    first: int
    count: int
    values: Sequence[bytes]
    keys: Sequence[bytes | None]
    failures: Mapping[int, Failure]
    rows: int
    """Rows of the batch these records were part of."""
    queue_s: float
    """From the fetch to the start of the batch, of the oldest record."""
    infer_s: float
    """Their part, by their number, of the time of the batch in the model."""
    size: int = 0
    """Bytes that `values` and `keys` take up."""
    rows_enough: int = 0
    """Rows beyond which a batch of the model gains little, as far as the worker knows; 0 if it does not."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The barrier passed: the broker has acknowledged every outcome up to this ticket but those reported failed."""

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class DeliveryFailed:
    """The broker refused one outcome for good, through the record's own fault (too large, say).

    `index` counts the records of that hand-over.
    """

    ticket: Ticket
    index: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class Parked:
    """One outcome waits in the sink until its topic takes records again: no barrier says that it is delivered."""

    ticket: Ticket
    index: int


@dataclass(frozen=True, slots=True)
class Unparked:
    """An outcome that waited for its topic has been acknowledged after all."""

    ticket: Ticket
    index: int


@dataclass(frozen=True, slots=True)
class TopicParked:
    """An output topic takes no records for now, through no fault of theirs; the sink tries it apart from the others.

    `model` is the one whose results go there; None for a topic of dead letters.
    """

    topic: str
    model: ModelId | None
    failure: Failure


@dataclass(frozen=True, slots=True)
class TopicResumed:
    """An output topic takes records again."""

    topic: str
    model: ModelId | None


@dataclass(frozen=True, slots=True)
class Committed:
    """A commit was answered. `error` is None where the broker took it."""

    offsets: Mapping[TopicPartition, int]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Drain:
    """Finish what is in flight, take nothing more, then stop."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event: TypeAlias = (
    Assigned
    | Revoking
    | Revoked
    | Fetched
    | WorkerReady
    | WorkerExited
    | ModelLoaded
    | ModelFailed
    | ModelProbed
    | Answered
    | Delivered
    | DeliveryFailed
    | Parked
    | Unparked
    | TopicParked
    | TopicResumed
    | Committed
    | Drain
    | Tick
)
