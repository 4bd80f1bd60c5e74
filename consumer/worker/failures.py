"""What an exception in a worker means: the failure that a record gets, and whether a model is broken or poisoned.

Owns the way from an exception to a `Failure`, and the count of batches in which nothing passed. Must not know how
records are decoded, batched or answered.
"""

import traceback
from dataclasses import replace
from pathlib import Path

import torch

from consumer.core.types import Disposition, Failure
from schemas.errors import RecordError
from schemas.reasons import Reason

MESSAGE_LENGTH_MAX = 300
"""Characters of an exception's text that a failure keeps."""

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


def failure_of(error: BaseException, *, has_texts: bool = False) -> Failure:
    """Describe an exception as the failure of a record.

    Args:
        error: What decoding, binding, the model or encoding raised.
        has_texts: Whether the code that raised it had texts of the record in its hands. Exceptions like to quote what
            they choke on, so then it is told where it was raised instead of what it says.
    """
    if isinstance(error, RecordError):
        return Failure(str(error.reason), type(error).__name__, one_line(str(error)))
    reason = Reason.OUT_OF_MEMORY if is_out_of_memory(error) else Reason.INFERENCE_FAILED
    message = f"raised {_place(error)}; what it says may quote the record" if has_texts else one_line(str(error))
    return Failure(str(reason), type(error).__name__, message)


def unavailable(failure: Failure) -> Failure:
    """Say the same of the model instead of the record: the record waits, and nothing is charged to it."""
    return replace(failure, reason=str(Reason.MODEL_UNAVAILABLE), disposition=Disposition.UNAVAILABLE)


def one_line(text: str) -> str:
    """Make one printable line of an exception's text: its first (torch puts a C++ stack below), cut if too long."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    line = "".join(character if character.isprintable() else " " for character in line)
    return line if len(line) <= MESSAGE_LENGTH_MAX else line[: MESSAGE_LENGTH_MAX - 1] + "…"


def _place(error: BaseException) -> str:
    """Say where an exception was raised: file, line and function."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "somewhere"
    return f"at {Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}"


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
