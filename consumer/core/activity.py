"""What a worker was doing when it ended, in the words in which the shells tell it.

Owns these words. Must not know what follows from them (recovery's).
"""

from dataclasses import dataclass
from enum import Enum

from consumer.core.types import ChunkId, ModelId


class Phase(Enum):
    """What a thread of a worker is doing."""

    BOOT = "boot"
    """Importing, and finding its device; also what a worker does that says nothing."""
    IDLE = "idle"
    """Waiting for records."""
    LOAD = "load"
    """Loading a model and warming it up."""
    PROBE = "probe"
    """Asking a broken model whether it answers again."""
    INFER = "infer"
    """Running a batch: decoding, the model, encoding."""
    ANSWER = "answer"
    """Telling the outcomes of a batch."""
    LEAVE = "leave"
    """Ending, of its own will and between two batches: nothing is to blame."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive records of a chunk that are part of one batch."""

    chunk: ChunkId
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Overdue:
    """A worker that was killed because it took too long."""

    phase: Phase
    model: ModelId | None
    timeout_s: float
