"""How the program ends and how it watches its workers, as far as it can be configured.

Owns the options of loop and watchdog. Must not know what is drained, or what workers do.
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownOptions:
    """How long an end may take."""

    drain_timeout_s: Annotated[float, Gt(0)] = 25.0
    """How long records in flight may take to be settled and committed after SIGTERM or SIGINT; then the program ends
    without them, and they are read again by whoever gets their partitions."""
    revoke_timeout_s: Annotated[float, Ge(0)] = 5.0
    """How long a rebalance waits for what is in flight of the partitions that go."""
    close_timeout_s: Annotated[float, Gt(0)] = 5.0
    """How long leaving the consumer group may take."""
    worker_timeout_s: Annotated[float, Gt(0)] = 10.0
    """How long workers may take to end by themselves, before they are killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogOptions:
    """When a worker is replaced though it has not died. What a model may take is said with the model."""

    boot_timeout_s: Annotated[float, Gt(0)] = 180.0
    """How long a worker may take to start, before it is killed and another one started."""
    memory_bytes_max: Annotated[int, Ge(1)] | None = None
    """Resident memory of one worker after which another one takes its place, between two batches; by default any."""
