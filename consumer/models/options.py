"""What the configuration says about one model.

Owns the options and the checks that one model's options can make among themselves; contradicting ones are a
ValueError. Must not know files, torch, or the other models.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from annotated_types import Ge, Gt

from consumer.models.signature import Signature, TensorSpec

CALLS_GATHERED: Final = 4
"""Calls' worth of rows that a batch may have where records of like lengths are to be found in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """One model: where it comes from, what it takes and gives, how its records are batched."""

    id: str
    """The model's ID, as records name it."""
    path: str | None = None
    """The model's file: TorchScript, an exported program (.pt2), or safetensors weights together with `factory`."""
    factory: str | None = None
    """`package.module:name` of a function or class that makes the model."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments for the factory."""
    preprocess: str | None = None
    """`package.module:name` of a function that turns one record's inputs into the model's inputs."""
    postprocess: str | None = None
    """`package.module:name` of a function that turns one record's outputs into the result's outputs."""
    inputs: tuple[TensorSpec, ...] | None = None
    """The tensors that one example consists of; read from the file where it carries them."""
    outputs: tuple[TensorSpec, ...] | None = None
    """The tensors that one example's result consists of; renames the model's own outputs."""
    version: str | None = None
    """The version that results carry; by default the first 12 hex digits of the file's SHA-256."""
    warmup: str | None = None
    """A file with one record (msgpack or JSON) to warm the model up with, instead of zeros."""
    batch: bool = True
    """Whether axis 0 of the model's tensors is rows; false means one record a call, tensors as sent."""
    reproducible: bool = True
    """Whether equal inputs give equal outputs, which the warm-up then checks."""
    finite: bool = False
    """Whether NaN and infinity in the inputs are refused."""
    rows_max: Annotated[int, Ge(1)] = 512
    """Most rows of a call; up to here it becomes as large as the model was seen to gain by."""
    bytes_max: Annotated[int, Ge(1)] = 32 * 1024 * 1024
    """Most payload bytes of a batch."""
    padded_max: Annotated[int, Ge(1)] = 16_384
    """Most elements along the free axes of one call, padding included: rows times the longest record's; a record that
    alone has more is a call of its own."""
    delay_ms_max: Annotated[float, Ge(0)] = 2.0
    """Longest wait of an idle worker for more records of a batch, in milliseconds."""
    failures_max: Annotated[int, Ge(1)] = 3
    """Consecutive batches without one answered record after which the model is probed."""
    preload: bool = False
    """Whether workers load the model when they start, instead of when its first record arrives."""
    workers: tuple[Annotated[int, Ge(0)], ...] | None = None
    """The worker slots that serve the model; by default all of them."""
    weight: Annotated[float, Gt(0)] = 1.0
    """The model's share of the workers' time, relative to the other models' weights."""
    priority: int = 0
    """Models of a higher priority go first; those of the next lower one keep a tenth of what these are given."""
    in_flight_records_max: Annotated[int, Ge(1)] | None = None
    """Most records of the model that are with workers at a time; by default any number."""
    rate_per_s_max: Annotated[float, Gt(0)] | None = None
    """Most records of the model that are sent to workers in a second; by default any number."""
    load_timeout_s: Annotated[float, Gt(0)] = 600.0
    """How long loading and warming up may take, before its worker is killed and the model counts as broken."""
    infer_timeout_s: Annotated[float, Gt(0)] = 60.0
    """How long one call of the model may take, with the decoding before and the encoding after it, before its worker is
    killed; a record that needs longer by itself becomes a dead letter."""
    crash_budget_s: Annotated[float, Gt(0)] = 300.0
    """Seconds of one worker's time within `crash_window_s` that the model may cost by ending workers, each from the
    start of the batch or load that ended it until another one is ready; beyond that it counts as broken until enough of
    them are past."""
    crash_window_s: Annotated[float, Gt(0)] = 1800.0
    """How long the time that a worker was lost is held against the model, in seconds."""
    on_hold: Literal["dead-letter", "wait"] = "dead-letter"
    """What becomes of the oldest records of a broken model once they fill a partition's window."""
    age_s_max: Annotated[float, Gt(0)] | None = None
    """Seconds from a record's timestamp after which it has expired, as by its header `expires-at`, and is not inferred;
    by default only the header counts."""
    on_expired: Literal["dead-letter", "drop"] = "dead-letter"
    """What becomes of records that have expired; those that are dropped are counted, and committed like the others."""
    probe_backoff_s: Annotated[float, Gt(0)] = 1.0
    """Wait before a broken model is probed for the first time, in seconds."""
    probe_backoff_s_max: Annotated[float, Gt(0)] = 60.0
    """Longest wait between two probes of a broken model, in seconds."""

    @property
    def calls_gathered(self) -> int:
        """How many calls' rows a batch may have: several where it can hold records of like lengths for each."""
        return CALLS_GATHERED if self.batch and any(spec.pad is not None for spec in self.inputs or ()) else 1

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if not self.id:
            raise ValueError("id: a model needs an ID of at least one character")
        if self.path is None and self.factory is None:
            raise ValueError("path: give path, factory or both")
        if self.arguments and self.factory is None:
            raise ValueError("arguments: go to factory, which is missing")
        for key, name in (
            ("factory", self.factory),
            ("preprocess", self.preprocess),
            ("postprocess", self.postprocess),
        ):
            if name is not None and not _is_object_name(name):
                raise ValueError(f"{key}: {name!r} is not of the form package.module:name")
        if self.workers is not None and not self.workers:
            raise ValueError("workers: name at least one worker slot, or leave the key out")
        if self.probe_backoff_s > self.probe_backoff_s_max:
            raise ValueError(
                f"probe_backoff_s: {self.probe_backoff_s} is above probe_backoff_s_max ({self.probe_backoff_s_max})"
            )
        if self.crash_budget_s >= self.crash_window_s:
            raise ValueError(
                f"crash_budget_s: {self.crash_budget_s} is not below crash_window_s ({self.crash_window_s})"
            )
        if self.inputs is not None:
            Signature(self.inputs, self.outputs)


def _is_object_name(name: str) -> bool:
    """Tell whether a name has the form `package.module:name`."""
    module, colon, attribute = name.partition(":")
    return colon == ":" and all(part.isidentifier() for part in (*module.split("."), *attribute.split(".")))
