"""Everything the core can ask for: the closed union of its outputs, performed by the shells in their order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from consumer.core.types import Chunk, ChunkId, Failure, ModelId, Run, Ticket, TopicPartition, WorkerId


@dataclass(frozen=True, slots=True)
class Pause:
    """Stop fetching from partitions, and keep polling."""

    partitions: Sequence[TopicPartition]


@dataclass(frozen=True, slots=True)
class Resume:
    """Fetch from partitions again."""

    partitions: Sequence[TopicPartition]


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start the process of a worker slot under a new worker id."""

    slot: int
    worker: WorkerId


@dataclass(frozen=True, slots=True)
class Load:
    """Have a worker load a model."""

    worker: WorkerId
    model: ModelId


@dataclass(frozen=True, slots=True)
class Probe:
    """Have a worker ask a broken model for its probe input again."""

    worker: WorkerId
    model: ModelId


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send a chunk to a worker."""

    worker: WorkerId
    chunk: Chunk


@dataclass(frozen=True, slots=True)
class Release:
    """Every record of a chunk is settled and read: its shared memory may be used again."""

    worker: WorkerId
    chunk: ChunkId


@dataclass(frozen=True, slots=True)
class Produce:
    """Hand results to the sink. `values` and `keys` are columns over the records of `runs`, in their order."""

    ticket: Ticket
    model: ModelId
    runs: Sequence[Run]
    values: Sequence[bytes]
    keys: Sequence[bytes | None]
    size: int | None = None
    """Bytes that `values` and `keys` take up together at most, where known."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Hand records to the sink as dead letters; `failures` is a column over the records of `run`."""

    ticket: Ticket
    run: Run
    failures: Sequence[Failure]


@dataclass(frozen=True, slots=True)
class Flush:
    """Have the sink pass a barrier: everything handed over up to now, acknowledged or reported failed."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Commit next offsets with their metadata."""

    offsets: Mapping[TopicPartition, tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Stop:
    """Everything in flight is settled and committed, or the program cannot go on: end with this exit code."""

    exit_code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something an operator wants to know: a static `noun.past_verb` and its fields, for the log and the metrics."""

    name: str
    fields: Mapping[str, object]


Action: TypeAlias = (
    Pause | Resume | Spawn | Load | Probe | Dispatch | Release | Produce | DeadLetter | Flush | Commit | Stop | Note
)
