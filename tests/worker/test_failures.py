"""What exceptions mean."""

import pytest
import torch

from consumer.core.types import Disposition
from consumer.worker.failures import (
    MESSAGE_LENGTH_MAX,
    Streak,
    failure_of,
    is_device_lost,
    is_out_of_memory,
    one_line,
    unavailable,
)
from schemas.errors import RecordError
from schemas.reasons import Reason


def test_a_refusal_keeps_its_reason_and_message() -> None:
    """What decoding or binding refused is reported as it was said."""
    failure = failure_of(RecordError(Reason.WRONG_SHAPE, "input 'x' has shape [2]"))
    assert (failure.reason, failure.error, failure.message) == (
        "wrong-shape",
        "RecordError",
        "input 'x' has shape [2]",
    )
    assert failure.disposition is Disposition.POISON


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("no"), "inference-failed"),
        (MemoryError(), "out-of-memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "out-of-memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out-of-memory"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), "inference-failed"),
    ],
)
def test_what_a_model_raises_is_told_apart(error: Exception, reason: str) -> None:
    """Short memory has its own reason, in all the ways that torch says it."""
    failure = failure_of(error)
    assert failure.reason == reason
    assert failure.error == type(error).__name__
    assert is_out_of_memory(error) == (reason == "out-of-memory")


def test_a_real_allocation_that_is_too_large_is_short_memory() -> None:
    """What torch raises for a tensor that no machine holds is recognised."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_only_a_spoilt_device_is_lost() -> None:
    """Other CUDA errors than short memory mean that the process has to end."""
    assert is_device_lost(torch.AcceleratorError("CUDA error: device-side assert triggered"))
    assert not is_device_lost(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_device_lost(RuntimeError("anything"))


def test_a_message_is_one_printable_line() -> None:
    """The first line that says something is kept, and cut."""
    assert one_line("\n  first \x1b[31m line\nC++ stack\n") == "first  [31m line"
    assert len(one_line("x" * 10_000)) == MESSAGE_LENGTH_MAX
    assert one_line("") == ""


def test_a_message_that_may_quote_the_record_is_withheld() -> None:
    """With texts of a record at hand an exception tells where it was raised, not what it says."""
    with pytest.raises(ValueError, match="4lll") as caught:
        float("4lll llll llll llll")
    failure = failure_of(caught.value, has_texts=True)
    assert "4lll" in failure_of(caught.value).message
    assert failure.error == "ValueError"
    assert "4lll" not in failure.message
    assert failure.message.startswith("raised at test_failures.py:")
    assert failure_of(ValueError("never raised"), has_texts=True).message.startswith("raised somewhere")
    refusal = RecordError(Reason.WRONG_SHAPE, "our own words")
    assert failure_of(refusal, has_texts=True).message == "our own words"


def test_a_failure_of_the_model_is_not_charged_to_the_record() -> None:
    """Said of the model, the same failure is UNAVAILABLE."""
    failure = unavailable(failure_of(ValueError("weights are gone")))
    assert failure.disposition is Disposition.UNAVAILABLE
    assert (failure.reason, failure.message) == ("model-unavailable", "weights are gone")


def test_a_model_is_suspect_after_batches_in_which_nothing_passed() -> None:
    """It becomes suspect before the last batch that is allowed to fail, and stays so until a record passes."""
    streak = Streak(3)
    seen = []
    for tried, failed in ((8, 8), (0, 0), (1, 1), (5, 5), (5, 4), (5, 5)):
        streak.settle(tried, failed)
        seen.append(streak.is_suspect)
    assert seen == [False, False, True, True, False, False]
    assert Streak(1).is_suspect
