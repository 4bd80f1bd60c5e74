"""The headers of dead letters and of results: what a record carried, and what became of it.

Owns how a failure is told in headers. Must not know the producer.
"""

from consumer.core.types import Failure, Headers, Run

PREFIX = "dead-letter-"
OMITTED = "dead-letter-omitted"
"""In place of a value too large for the dead-letter topic: how many bytes it has, at the source's coordinates."""


def letter_headers(run: Run, index: int, failure: Failure) -> list[tuple[str, bytes | None]]:
    """Return a dead letter's headers: the record's own in their order, then why and where it failed."""
    own = run.headers[index] if run.headers is not None else None
    return [*carried(own), *told(run, index, failure)]


def omitted_headers(run: Run, index: int, failure: Failure) -> list[tuple[str, bytes | None]]:
    """Return the headers of an envelope: a dead letter whose value its topic cannot take."""
    return [*told(run, index, failure), (OMITTED, str(len(run.values[index] or b"")).encode())]


def told(run: Run, index: int, failure: Failure) -> list[tuple[str, bytes | None]]:
    """Return the headers that tell why and where a record failed."""
    fields = {
        "reason": failure.reason,
        "error": failure.error,
        "message": " ".join(failure.message.split()),
        "attempts": run.attempts,
        "model": run.model,
        "source-topic": run.partition.topic,
        "source-partition": run.partition.partition,
        "source-offset": run.offsets[index],
        "source-timestamp": run.timestamps_ms[index],
    }
    return [(PREFIX + name, str(value).encode()) for name, value in fields.items() if value != ""]


def carried(headers: Headers | None) -> list[tuple[str, bytes | None]]:
    """Return a record's headers without those of an earlier failure, as a replayed dead letter has them."""
    return [(name, value) for name, value in headers or () if not name.startswith(PREFIX)]
