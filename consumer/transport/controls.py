"""What supervisor and worker say to each other besides records.

Owns these small messages and their bytes. Must not know what a model is or what a worker does with it.
"""

from collections.abc import Mapping
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


def encode(control: ToWorker | FromWorker) -> bytes:
    """Encode a control. Texts are cut at `TEXT_MAX` characters, names of models never."""
    fields: list[object]
    if isinstance(control, Broken):
        fields = [control.model, _failure_fields(control.failure)]
    elif isinstance(control, BootFailed):
        fields = [control.message[:TEXT_MAX]]
    else:
        fields = list(astuple(control))
    return _pack([type(control).__name__, *fields])


def decode(packed: bytes) -> ToWorker | FromWorker:  # noqa: PLR0911  # one return for each kind
    """Decode a control.

    Raises:
        ValueError: These bytes are no control.
    """
    match msgpack.unpackb(packed):
        case ["LoadModel", str(model)]:
            return LoadModel(model)
        case ["ProbeModel", str(model)]:
            return ProbeModel(model)
        case ["Ready", str(device)]:
            return Ready(device)
        case ["BootFailed", str(message)]:
            return BootFailed(message)
        case ["Loaded", str(model), str(version), float(load_s)]:
            return Loaded(model, version, load_s)
        case ["Broken", str(model), list(fields)]:
            return Broken(model, _failure(fields))
        case ["Probed", str(model)]:
            return Probed(model)
    raise ValueError("no control")


def encode_failures(failures: Mapping[int, Failure]) -> bytes:
    """Encode failures by index, texts cut at `TEXT_MAX` characters; nothing at all where there are none."""
    return _pack({i: _failure_fields(failure) for i, failure in failures.items()}) if failures else b""


def decode_failures(packed: bytes) -> dict[int, Failure]:
    """Decode failures by index.

    Raises:
        ValueError: These bytes are no failures.
    """
    if not packed:
        return {}
    unpacked = msgpack.unpackb(packed, strict_map_key=False)
    if not isinstance(unpacked, dict) or not all(isinstance(i, int) for i in unpacked):
        raise ValueError("no failures by index")
    return {i: _failure(fields) for i, fields in unpacked.items()}


def _failure_fields(failure: Failure) -> list[str]:
    return [failure.reason, failure.error[:TEXT_MAX], failure.message[:TEXT_MAX], failure.disposition.value]


def _failure(fields: object) -> Failure:
    match fields:
        case [str(reason), str(error), str(message), str(disposition)]:
            return Failure(reason, error, message, Disposition(disposition))
    raise ValueError("no failure")


def _pack(content: object) -> bytes:
    """Pack; what UTF-8 cannot say (a lone surrogate in an exception's text) becomes a question mark."""
    packed: bytes = msgpack.packb(content, unicode_errors="replace")
    return packed
