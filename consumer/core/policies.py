"""What the core is told at its start: the limits of its parts, and what is configured of each model.

Owns no behaviour. Must not know how the parts use it.
"""

from dataclasses import dataclass, field

from consumer.core.commits import CommitOptions
from consumer.core.expiry import ModelExpiry
from consumer.core.flow import FlowOptions
from consumer.core.lifecycle import RestartOptions
from consumer.core.placement import ModelPlace, PlacementOptions
from consumer.core.retry import RetryOptions
from consumer.core.scheduling import ModelShare, SchedulingOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatcherOptions:
    """The options of every part."""

    exactly_once: bool = False
    """Whether outcomes and offsets are committed in one transaction."""
    flow: FlowOptions = field(default_factory=FlowOptions)
    scheduling: SchedulingOptions = field(default_factory=SchedulingOptions)
    placement: PlacementOptions = field(default_factory=PlacementOptions)
    commit: CommitOptions = field(default_factory=CommitOptions)
    retry: RetryOptions = field(default_factory=RetryOptions)
    restart: RestartOptions = field(default_factory=RestartOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPolicy:
    """What the configuration says of one model, as far as the core is concerned."""

    share: ModelShare = field(default_factory=ModelShare)
    place: ModelPlace = field(default_factory=ModelPlace)
    expiry: ModelExpiry = field(default_factory=ModelExpiry)
    is_dead_lettered_on_hold: bool = True
    """Whether its oldest records become dead letters once they fill a partition's window while it is broken."""
