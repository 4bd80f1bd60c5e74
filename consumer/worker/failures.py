"""What an exception in a worker means: the failure that a record gets, and whether a model is broken or poisoned.

Owns the way from an exception to a `Failure`, and the count of batches in which nothing passed. Must not know how
records are decoded, batched or answered.
"""

from collections.abc import Iterable
from dataclasses import replace

import torch

from consumer.core.types import Disposition, Failure
from schemas.errors import RecordError
from schemas.reasons import Reason

MESSAGE_LENGTH_MAX = 300
"""Characters of an exception's text that a failure keeps."""

_SECRET_LENGTH_MIN = 4
"""Shorter pieces of a payload are left in a message: they occur in every text."""

_OUT_OF_MEMORY_TEXTS = ("DefaultCPUAllocator", "CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""How torch says that memory is short where it raises a plain RuntimeError."""


class DeviceLostError(Exception):
    """The device does not answer any more; only a new process can use it again."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether less work at once might have passed."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY_TEXTS)


def is_device_lost(error: BaseException) -> bool:
    """Tell whether the process can go on at all: a CUDA error other than short memory spoils its context for good."""
    return isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)


def failure_of(error: BaseException, payload: Iterable[bytes | str] = ()) -> Failure:
    """Describe an exception as the failure of a record.

    Args:
        error: What decoding, binding, the model or encoding raised.
        payload: Texts of the record that the message must not repeat, wherever the exception quotes them.
    """
    if isinstance(error, RecordError):
        return Failure(str(error.reason), type(error).__name__, one_line(str(error), payload))
    reason = Reason.OUT_OF_MEMORY if is_out_of_memory(error) else Reason.INFERENCE_FAILED
    return Failure(str(reason), type(error).__name__, one_line(str(error), payload))


def unavailable(failure: Failure) -> Failure:
    """Say the same of the model instead of the record: the record waits, and nothing is charged to it."""
    return replace(failure, reason=str(Reason.MODEL_UNAVAILABLE), disposition=Disposition.UNAVAILABLE)


def one_line(text: str, payload: Iterable[bytes | str] = ()) -> str:
    """Make one printable line of an exception's text, without pieces of the payload.

    Only the first line is kept (torch puts a C++ stack below it), cut to `MESSAGE_LENGTH_MAX` characters.
    """
    for secret in payload:
        piece = secret.decode("utf-8", "replace") if isinstance(secret, bytes) else secret
        if len(piece) >= _SECRET_LENGTH_MIN:
            text = text.replace(piece, "…").replace(repr(piece)[1:-1], "…")
        if isinstance(secret, bytes) and len(secret) >= _SECRET_LENGTH_MIN:
            text = text.replace(repr(secret)[2:-1], "…")
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    line = "".join(character if character.isprintable() else " " for character in line)
    return line if len(line) <= MESSAGE_LENGTH_MAX else line[: MESSAGE_LENGTH_MAX - 1] + "…"


class Streak:
    """Counts the consecutive batches of one model in which every record failed.

    Args:
        failures_max: Batches after which the model itself is under suspicion, at least 1.
    """

    def __init__(self, failures_max: int) -> None:
        assert failures_max >= 1
        self._failures_max = failures_max
        self._failed = 0

    @property
    def is_suspect(self) -> bool:
        """Tell whether the model has to be asked before another batch is called poisoned, until a record passes."""
        return self._failed >= self._failures_max - 1

    def settle(self, tried: int, failed: int) -> None:
        """Count a batch.

        Args:
            tried: Records that reached the model; a batch in which none did says nothing about it.
            failed: Those of them that the model failed.
        """
        if tried:
            self._failed = self._failed + 1 if failed == tried else 0
