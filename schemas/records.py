"""Requests and results as values. Must not know how they are written."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from schemas.tensors import Tensor

SOURCE_TOPIC: Final = "source_topic"
SOURCE_PARTITION: Final = "source_partition"
SOURCE_OFFSET: Final = "source_offset"
BATCH_ROWS: Final = "batch_rows"
QUEUE_MS: Final = "queue_ms"
INFER_MS: Final = "infer_ms"
MODEL_SHA256: Final = "model_sha256"

NO_PARAMETERS: Final[Mapping[str, Any]] = MappingProxyType({})


class Source(NamedTuple):
    """Where a record stands: enough for a downstream to recognise a duplicate."""

    topic: str
    partition: int
    offset: int

    @property
    def record_id(self) -> str:
        """The id that a result gets when its request had none: `topic-partition-offset`."""
        return f"{self.topic}-{self.partition}-{self.offset}"


class Request(NamedTuple):
    """What a model is asked."""

    id: str | None
    inputs: tuple[Tensor, ...]
    parameters: Mapping[str, Any] = NO_PARAMETERS
    """Carried, never interpreted."""


class Result(NamedTuple):
    """What a model answered."""

    id: str | None
    model_name: str
    model_version: str | None
    outputs: tuple[Tensor, ...]
    parameters: Mapping[str, Any] = NO_PARAMETERS
    """Where the result comes from: see `provenance`."""

    @property
    def source(self) -> Source | None:
        """The record that this answers; None where the parameters do not tell."""
        topic = self.parameters.get(SOURCE_TOPIC)
        partition = self.parameters.get(SOURCE_PARTITION)
        offset = self.parameters.get(SOURCE_OFFSET)
        if isinstance(topic, str) and isinstance(partition, int) and isinstance(offset, int):
            return Source(topic, partition, offset)
        return None


def provenance(
    source: Source, batch_rows: int, queue_ms: float, infer_ms: float, model_sha256: str | None = None
) -> dict[str, str | int | float]:
    """Give the parameters of a result, in the order in which they are written.

    Args:
        source: the record that was answered.
        batch_rows: rows of the batch that it was part of.
        queue_ms: milliseconds from the fetch to the start of its batch.
        infer_ms: milliseconds that its batch took.
        model_sha256: hexadecimal digest of the model's file.
    """
    parameters: dict[str, str | int | float] = {
        SOURCE_TOPIC: source.topic,
        SOURCE_PARTITION: source.partition,
        SOURCE_OFFSET: source.offset,
        BATCH_ROWS: batch_rows,
        QUEUE_MS: float(queue_ms),
        INFER_MS: float(infer_ms),
    }
    if model_sha256 is not None:
        parameters[MODEL_SHA256] = model_sha256
    return parameters
