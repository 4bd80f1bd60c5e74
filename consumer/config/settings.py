"""All options together, each class defined by the module that it is for.

Owns the shape of the configuration and nothing else. The composition root hands each part its own options; nobody but
it sees the whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from annotated_types import MinLen

from consumer.core.batching import BatchOptions
from consumer.core.commits import CommitOptions
from consumer.core.flow import FlowOptions
from consumer.core.lifecycle import RestartOptions
from consumer.core.placement import PlacementOptions
from consumer.core.retry import RetryOptions
from consumer.core.scheduling import SchedulingOptions
from consumer.kafka.options import InputOptions, OutputOptions
from consumer.models.options import ModelOptions
from consumer.observe.options import HttpOptions, LoggingOptions
from consumer.supervisor.options import ShutdownOptions, WatchdogOptions
from consumer.transport.channel import ChannelOptions
from consumer.worker.device import WorkersOptions

ClientValue: TypeAlias = str | int | float | bool
"""What a setting of the Kafka client may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole configuration."""

    kafka: Mapping[str, ClientValue | Mapping[str, ClientValue]]
    """Settings of librdkafka for every client, by their own names; under `consumer:` and `producer:` those of one."""
    input: InputOptions
    """Where records come from."""
    output: OutputOptions = field(default_factory=OutputOptions)
    """Where results and dead letters go."""
    models: Annotated[Mapping[str, ModelOptions], MinLen(1)]
    """The models, by the ID that records name."""
    batch: BatchOptions = field(default_factory=BatchOptions)
    """What models batch by, unless they say otherwise themselves."""
    workers: WorkersOptions = "auto"
    """Worker processes and their devices."""
    delivery: Literal["at-least-once", "exactly-once"] = "at-least-once"
    """What a crash may do to records: `at-least-once` infers and delivers again what was not committed, `exactly-once`
    commits outcomes and offsets in one transaction, so that readers of committed records see each outcome once."""
    instance: str = ""
    """What tells this copy of the program from the others in exactly-once, such as its pod's name in a StatefulSet; by
    default a random name, which leaves a crashed copy's open transaction to its timeout."""
    flow: FlowOptions = field(default_factory=FlowOptions)
    """How much may be in flight before partitions are paused."""
    commit: CommitOptions = field(default_factory=CommitOptions)
    """How often offsets are committed."""
    retry: RetryOptions = field(default_factory=RetryOptions)
    """Attempts at a record whose failure may pass."""
    scheduling: SchedulingOptions = field(default_factory=SchedulingOptions)
    """How records are handed to workers."""
    placement: PlacementOptions = field(default_factory=PlacementOptions)
    """Which workers load a model."""
    restart: RestartOptions = field(default_factory=RestartOptions)
    """Workers that died and are started again."""
    watchdog: WatchdogOptions = field(default_factory=WatchdogOptions)
    """Workers that are replaced though they have not died."""
    transport: ChannelOptions = field(default_factory=ChannelOptions)
    """Memory shared with each worker."""
    shutdown: ShutdownOptions = field(default_factory=ShutdownOptions)
    """How the program ends."""
    http: HttpOptions = field(default_factory=HttpOptions)
    """The endpoint for health and figures."""
    logging: LoggingOptions = field(default_factory=LoggingOptions)
    """What is logged, and how."""
    python_path: tuple[str, ...] = ()
    """Directories in which workers look for the modules of factories first; by default the configuration's own."""
