"""A failed record as a dead letter: its own headers, then why and where it failed.

Owns the way from the core's failure to the schema's dead letter. Must not know the producer.
"""

from consumer.core.types import Failure, Run
from schemas.headers import DeadLetter, dead_letter_headers, without_dead_letter
from schemas.reasons import Reason
from schemas.records import Source


def letter_headers(run: Run, index: int, failure: Failure) -> list[tuple[str, bytes | None]]:
    """Return the headers of a dead letter that carries the record's key and value."""
    own = run.headers[index] if run.headers is not None else None
    # A replayed record that fails again tells of its new failure only.
    return [*without_dead_letter(own), *dead_letter_headers(_told(run, index, failure, None))]


def envelope_headers(run: Run, index: int, failure: Failure) -> list[tuple[str, bytes | None]]:
    """Return the headers of a dead letter that its topic cannot take: it carries nothing but the source's place."""
    return [*dead_letter_headers(_told(run, index, failure, len(run.values[index] or b"")))]


def _told(run: Run, index: int, failure: Failure, omitted_size: int | None) -> DeadLetter:
    return DeadLetter(
        reason=Reason(failure.reason),
        error=failure.error,
        message=failure.message,
        attempts=run.attempts,
        source=Source(run.partition.topic, run.partition.partition, run.offsets[index]),
        timestamp_ms=run.timestamps_ms[index],
        model=run.model or None,
        omitted_size=omitted_size,
    )
