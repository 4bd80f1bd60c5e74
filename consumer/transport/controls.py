"""What supervisor and worker say to each other besides records.

Owns these small messages and their bytes. Must not know what a model is or what a worker does with it.
"""

from dataclasses import astuple, dataclass
from typing import TypeAlias

import msgpack

from consumer.core.types import Disposition, Failure, ModelId

TEXT_MAX = 2_000
"""Characters of a text that travel: a control has to fit into a packet."""


@dataclass(frozen=True, slots=True)
class LoadModel:
    """To the worker: load a model and warm it up. Answered by `Loaded` or `Broken`."""

    model: ModelId


@dataclass(frozen=True, slots=True)
class ProbeModel:
    """To the worker: ask a broken model for its probe input again. Answered by `Probed` or `Broken`."""

    model: ModelId


@dataclass(frozen=True, slots=True)
class Ready:
    """From the worker: booted, takes work."""

    device: str


@dataclass(frozen=True, slots=True)
class BootFailed:
    """From the worker, its last word: it cannot start, and a restart would not help. `message` is one line."""

    message: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """From the worker: a model is loaded and warmed up."""

    model: ModelId
    version: str
    load_s: float


@dataclass(frozen=True, slots=True)
class Broken:
    """From the worker: a model cannot be loaded, or failed its probe."""

    model: ModelId
    failure: Failure


@dataclass(frozen=True, slots=True)
class Probed:
    """From the worker: a broken model answered its probe."""

    model: ModelId


ToWorker: TypeAlias = LoadModel | ProbeModel
FromWorker: TypeAlias = Ready | BootFailed | Loaded | Broken | Probed

_CLASSES: dict[str, type[ToWorker | FromWorker]] = {
    cls.__name__: cls for cls in (LoadModel, ProbeModel, Ready, BootFailed, Loaded, Broken, Probed)
}


def pack_failure(failure: Failure) -> list[str]:
    """Turn a failure into what msgpack takes; a longer message than `TEXT_MAX` is cut."""
    return [failure.reason, failure.error[:TEXT_MAX], failure.message[:TEXT_MAX], failure.disposition.value]


def unpack_failure(fields: list[str]) -> Failure:
    """Read a failure back."""
    reason, error, message, disposition = fields
    return Failure(reason, error, message, Disposition(disposition))


def encode(control: ToWorker | FromWorker) -> bytes:
    """Encode a control; longer texts than `TEXT_MAX` characters are cut (model names never are)."""
    fields: list[object]
    if isinstance(control, Broken):
        fields = [control.model, pack_failure(control.failure)]
    elif isinstance(control, BootFailed):
        fields = [control.message[:TEXT_MAX]]
    else:
        fields = list(astuple(control))
    packed: bytes = msgpack.packb([type(control).__name__, *fields], unicode_errors="replace")
    return packed


def decode(packed: bytes | memoryview) -> ToWorker | FromWorker:
    """Decode a control.

    Raises:
        ValueError, TypeError, KeyError: These bytes are no control.
    """
    name, *fields = msgpack.unpackb(packed)
    if name == "Broken":
        return Broken(fields[0], unpack_failure(fields[1]))
    return _CLASSES[name](*fields)
