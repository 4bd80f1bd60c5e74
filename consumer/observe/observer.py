"""The one way in which the supervisor's loop shows what happens to whoever watches.

Owns the protocol and the snapshot of what no single event tells. Must not know who watches.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from consumer.core.actions import Action
from consumer.core.events import Event
from consumer.core.types import ModelId, TopicPartition
from consumer.errors import Complaint


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Levels at one moment, published by the loop about once a second."""

    in_flight_records: int
    """Records admitted and not yet resolved."""
    in_flight_bytes: int
    """Their payload bytes."""
    lag: Mapping[TopicPartition, int]
    """Records between each assigned partition's watermark and its end; partitions whose end is unknown are left out."""
    waiting: Mapping[ModelId, int] = field(default_factory=dict)
    """Records that wait in the supervisor for a worker, by model."""
    limited: Collection[ModelId] = ()
    """Models whose own limits let nothing through now."""
    skipped: Mapping[TopicPartition, int] = field(default_factory=dict)
    """Records that retention removed before they were fetched, by partition, since the start."""


class Observer(Protocol):
    """Watches the loop from inside it: cheap per chunk, never per record, and never raising."""

    def observe(self, event: Event) -> None:
        """Take note of a fact before the core has seen it."""

    def observe_action(self, action: Action) -> None:
        """Take note of what the core asked for, before it is performed."""

    def complain(self, complaint: Complaint) -> None:
        """Take note of an error that a Kafka client told of."""

    def publish(self, snapshot: Snapshot) -> None:
        """Take note of the levels of the moment."""
