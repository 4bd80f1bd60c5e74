"""The headers of records: what they are called, what stands in them, and those that make a record a dead letter."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from schemas.errors import RecordError
from schemas.reasons import Reason
from schemas.records import Source

CONTENT_TYPE: Final = "content-type"
"""Picks the codec of the value."""
EXPIRES_AT: Final = "expires-at"
"""Epoch milliseconds in decimal digits, after which the record is not worth inferring."""
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

DEAD_LETTER_PREFIX: Final = "dead-letter-"
DEAD_LETTER_REASON: Final = "dead-letter-reason"
DEAD_LETTER_ERROR: Final = "dead-letter-error"
DEAD_LETTER_MESSAGE: Final = "dead-letter-message"
DEAD_LETTER_ATTEMPTS: Final = "dead-letter-attempts"
DEAD_LETTER_MODEL: Final = "dead-letter-model"
DEAD_LETTER_MODEL_VERSION: Final = "dead-letter-model-version"
DEAD_LETTER_SOURCE_TOPIC: Final = "dead-letter-source-topic"
DEAD_LETTER_SOURCE_PARTITION: Final = "dead-letter-source-partition"
DEAD_LETTER_SOURCE_OFFSET: Final = "dead-letter-source-offset"
DEAD_LETTER_SOURCE_TIMESTAMP: Final = "dead-letter-source-timestamp"
DEAD_LETTER_OMITTED_SIZE: Final = "dead-letter-omitted-size"

MESSAGE_LENGTH_MAX: Final = 1000
"""Characters of a dead letter's message; what is longer is cut."""

_TIMESTAMP_DIGITS_MAX: Final = 19

Headers: TypeAlias = Iterable[tuple[str, bytes | None]]
"""Headers in their order; a name may occur more than once, and then the last one counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """What a dead letter says beside the key, value and headers of the record that it carries."""

    reason: Reason
    error: str
    """Class name of the error."""
    message: str
    """One line, without payload."""
    attempts: int
    """How often the record was tried."""
    source: Source
    """Where the record stood."""
    timestamp_ms: int
    """The record's timestamp, epoch milliseconds; -1 where it had none."""
    model: str | None = None
    """The model that the record named; None where it named none."""
    model_version: str | None = None
    """The version that failed; None where none was loaded."""
    omitted_size: int | None = None
    """Bytes of the value that were left out because the topic does not take them; None where it is all there."""


def content_type(headers: Headers | None) -> str | None:
    """Give a record's content type; None where it names none.

    Raises:
        RecordError: the header is not text.
    """
    raw = _last(headers, CONTENT_TYPE)
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise RecordError(Reason.UNSUPPORTED_CONTENT_TYPE, f"header {CONTENT_TYPE} is not UTF-8") from None


def expires_at_ms(headers: Headers | None) -> int | None:
    """Give the epoch milliseconds after which a record is stale; None where it never is.

    Raises:
        RecordError: the header is not a number of milliseconds.
    """
    raw = _last(headers, EXPIRES_AT)
    if raw is None:
        return None
    if not raw.isdigit() or len(raw) > _TIMESTAMP_DIGITS_MAX:
        raise RecordError(Reason.UNREADABLE, f"header {EXPIRES_AT} is not epoch milliseconds in decimal digits")
    return int(raw)


def dead_letter_headers(dead_letter: DeadLetter) -> list[tuple[str, bytes]]:
    """Give the headers that are added to those of the record."""
    source = dead_letter.source
    fields: list[tuple[str, str | int | None]] = [
        (DEAD_LETTER_REASON, dead_letter.reason),
        (DEAD_LETTER_ERROR, dead_letter.error),
        (DEAD_LETTER_MESSAGE, " ".join(dead_letter.message.split())[:MESSAGE_LENGTH_MAX]),
        (DEAD_LETTER_ATTEMPTS, dead_letter.attempts),
        (DEAD_LETTER_MODEL, dead_letter.model),
        (DEAD_LETTER_MODEL_VERSION, dead_letter.model_version),
        (DEAD_LETTER_SOURCE_TOPIC, source.topic),
        (DEAD_LETTER_SOURCE_PARTITION, source.partition),
        (DEAD_LETTER_SOURCE_OFFSET, source.offset),
        (DEAD_LETTER_SOURCE_TIMESTAMP, dead_letter.timestamp_ms),
        (DEAD_LETTER_OMITTED_SIZE, dead_letter.omitted_size),
    ]
    return [(name, str(field).encode(errors="replace")) for name, field in fields if field is not None]


def parse_dead_letter(headers: Headers | None) -> DeadLetter | None:
    """Read what a dead letter says; None where the record is none.

    Raises:
        RecordError: its headers are incomplete or malformed.
    """
    found = {name: raw for name, raw in headers or () if name.startswith(DEAD_LETTER_PREFIX)}
    if not found:
        return None
    try:
        texts = {name: raw.decode() for name, raw in found.items() if raw is not None}
        omitted_size = texts.get(DEAD_LETTER_OMITTED_SIZE)
        return DeadLetter(
            reason=Reason(texts[DEAD_LETTER_REASON]),
            error=texts[DEAD_LETTER_ERROR],
            message=texts[DEAD_LETTER_MESSAGE],
            attempts=int(texts[DEAD_LETTER_ATTEMPTS]),
            source=Source(
                texts[DEAD_LETTER_SOURCE_TOPIC],
                int(texts[DEAD_LETTER_SOURCE_PARTITION]),
                int(texts[DEAD_LETTER_SOURCE_OFFSET]),
            ),
            timestamp_ms=int(texts[DEAD_LETTER_SOURCE_TIMESTAMP]),
            model=texts.get(DEAD_LETTER_MODEL),
            model_version=texts.get(DEAD_LETTER_MODEL_VERSION),
            omitted_size=None if omitted_size is None else int(omitted_size),
        )
    except KeyError as error:
        raise RecordError(Reason.UNREADABLE, f"a dead letter without its header {error.args[0]}") from None
    except ValueError:
        raise RecordError(Reason.UNREADABLE, "a dead letter with a header that is malformed") from None


def without_dead_letter(headers: Headers | None) -> list[tuple[str, bytes | None]]:
    """Give the headers that the record had before it became a dead letter, for its replay."""
    return [(name, raw) for name, raw in headers or () if not name.startswith(DEAD_LETTER_PREFIX)]


def _last(headers: Headers | None, wanted: str) -> bytes | None:
    """Give the last header of a name."""
    found = None
    for name, raw in headers or ():
        if name == wanted:
            found = raw
    return found
