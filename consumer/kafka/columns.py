"""From the client's message objects to slices: columns per partition.

Owns the only code that opens a message object; none leaves this module. Must not know assignments or offsets to
commit. What is done here is done for every record, so it is done by C code over whole columns.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias

from confluent_kafka import Message

from consumer.core.types import Headers, ModelId, Slice, TopicPartition

EXPIRES_AT = "expires-at"
"""The header with the time, in epoch milliseconds, after which a record is not worth inferring."""

Keys: TypeAlias = Sequence[bytes | None]
HeaderColumn: TypeAlias = Sequence[Headers | None] | None
Models: TypeAlias = ModelId | Sequence[ModelId | None] | None
ModelRule: TypeAlias = Callable[[str, Keys, HeaderColumn], Models]
"""From a slice's topic, keys and headers to the column of model names."""

# The client's type stubs say that each may be None; that is so for errors only, which do not come here.
_value: Callable[[Message], bytes | None] = Message.value
_key: Callable[[Message], bytes | None] = Message.key
_offset: Callable[[Message], int] = Message.offset  # type: ignore[assignment]
_partition: Callable[[Message], int] = Message.partition  # type: ignore[assignment]
_topic: Callable[[Message], str] = Message.topic  # type: ignore[assignment]
_second = itemgetter(1)


def slices(messages: Sequence[Message], model_rule: ModelRule) -> list[Slice]:
    """Turn messages without errors into one slice per partition, offsets in the order in which they came."""
    return [
        _slice(TopicPartition(topic, partition), part, model_rule) for topic, partition, part in _partitions(messages)
    ]


def model_rule(choice: str) -> ModelRule:
    """Return the rule for `key`, `header:NAME` or `topic:REGEX`, as `InputOptions.model` has checked it."""
    kind, _, rest = choice.partition(":")
    if kind == "header":
        return lambda _topic, _keys, headers: _decoded(
            None if headers is None else [_header(each, rest) for each in headers]
        )
    if kind == "topic":
        pattern = re.compile(rest)

        def from_topic(topic: str, _keys: Keys, _headers: HeaderColumn) -> Models:
            found = pattern.match(topic)
            return (found[1] or None) if found else None

        return from_topic
    return lambda _topic, keys, _headers: _decoded(keys)


def _partitions(messages: Sequence[Message]) -> Iterator[tuple[str, int, Sequence[Message]]]:
    """Split by topic and partition. A fetch mostly brings long stretches of one partition."""
    numbers, topics = list(map(_partition, messages)), list(map(_topic, messages))
    if numbers.count(numbers[0]) == len(numbers) and topics.count(topics[0]) == len(topics):
        yield topics[0], numbers[0], messages
        return
    stretches: dict[tuple[str, int], list[Message]] = {}
    first = 0
    for where, stretch in groupby(zip(topics, numbers, strict=True)):
        stop = first + sum(1 for _ in stretch)
        stretches.setdefault(where, []).extend(messages[first:stop])
        first = stop
    for (topic, partition), part in stretches.items():
        yield topic, partition, part


def _slice(partition: TopicPartition, messages: Sequence[Message], rule: ModelRule) -> Slice:
    keys: list[Any] = list(map(_key, messages))
    headers: list[Any] | None = list(map(Message.headers, messages))
    if headers is not None and not any(headers):
        headers = None
    return Slice(
        partition=partition,
        offsets=list(map(_offset, messages)),
        models=rule(partition.topic, keys, headers),
        keys=keys,
        values=list(map(_value, messages)),
        headers=headers,
        timestamps_ms=list(map(_second, map(Message.timestamp, messages))),
        deadlines_s=None if headers is None else _deadlines(headers),
    )


def _decoded(names: Sequence[bytes | None] | None) -> Models:
    """Decode a column of names, each distinct one once; None for those that are no UTF-8 text, or empty."""
    if names is None:
        return None
    if names.count(names[0]) == len(names):
        return _text(names[0])
    decoded = {name: _text(name) for name in set(names)}
    return list(map(decoded.__getitem__, names))


def _text(name: bytes | None) -> str | None:
    try:
        return name.decode() or None if name is not None else None
    except UnicodeDecodeError:
        return None


def _header(headers: Headers | None, name: str) -> bytes | None:
    """Return the last value of a header, which is the one that counts where a name occurs twice."""
    return next((value for each, value in reversed(headers or ()) if each == name), None)


def _deadlines(headers: Sequence[Headers | None]) -> list[float | None] | None:
    """Turn `expires-at` into monotonic seconds. What is no number does not expire: its record is worth an answer."""
    deadlines: list[float | None] = [None] * len(headers)
    ahead_s = time.monotonic() - time.time()
    for i, each in enumerate(headers):
        value = _header(each, EXPIRES_AT) if each else None
        if value is not None and len(value) < 20 and value.isdigit():  # noqa: PLR2004 - digits of 2**63, or fewer
            deadlines[i] = int(value) / 1000 + ahead_s
    return deadlines if any(deadline is not None for deadline in deadlines) else None
