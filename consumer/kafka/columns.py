"""From the client's message objects to slices: columns per partition.

Owns the only code that opens a message object; none leaves this module. Must not know assignments or offsets to
commit. What is done here is done for every record, so it is done by C code over whole columns.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias, TypeVar

from confluent_kafka import Message

from consumer.core.types import Headers, ModelId, Slice, TopicPartition
from schemas.errors import RecordError
from schemas.headers import expires_at_ms

T = TypeVar("T")

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


def slices(messages: Sequence[Message], model_rule: ModelRule, only_topic: str | None = None) -> list[Slice]:
    """Turn messages without errors into one slice per partition, offsets in the order in which they came.

    Args:
        messages: What the client handed out, at least one.
        model_rule: Which model each record is for.
        only_topic: The topic of all messages, where there can be no other.
    """
    return [
        _slice(TopicPartition(topic, partition), part, model_rule)
        for topic, partition, part in _partitions(messages, only_topic)
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


def _partitions(messages: Sequence[Message], only_topic: str | None) -> Iterator[tuple[str, int, Sequence[Message]]]:
    """Split by topic and partition. A fetch mostly brings long stretches of one partition."""
    numbers = list(map(_partition, messages))
    topic = only_topic
    if topic is None:
        topics = list(map(_topic, messages))
        topic = topics[0]
        if topics.count(topic) != len(topics):
            where: Sequence[tuple[str, int]] = list(zip(topics, numbers, strict=True))
            yield from ((each, number, part) for (each, number), part in _stretches(messages, where))
            return
    if numbers.count(numbers[0]) != len(numbers):
        yield from ((topic, number, part) for number, part in _stretches(messages, numbers))
    else:
        yield topic, numbers[0], messages


def _stretches(messages: Sequence[Message], where: Sequence[T]) -> Iterable[tuple[T, Sequence[Message]]]:
    """Gather the messages of each place, from its stretches of equal neighbours."""
    gathered: dict[T, list[Message]] = {}
    first = 0
    for place, stretch in groupby(where):
        stop = first + len(list(stretch))
        gathered.setdefault(place, []).extend(messages[first:stop])
        first = stop
    return gathered.items()


def _slice(partition: TopicPartition, messages: Sequence[Message], rule: ModelRule) -> Slice:
    keys: list[Any] = list(map(_key, messages))
    headers: list[Any] | None = list(map(Message.headers, messages))
    if headers is not None and not any(headers):
        headers = None
    epoch_s = time.monotonic() - time.time()
    return Slice(
        partition=partition,
        offsets=list(map(_offset, messages)),
        models=rule(partition.topic, keys, headers),
        keys=keys,
        values=list(map(_value, messages)),
        headers=headers,
        timestamps_ms=list(map(_second, map(Message.timestamp, messages))),
        deadlines_s=None if headers is None else _deadlines(headers, epoch_s),
        epoch_s=epoch_s,
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


def _deadlines(headers: Sequence[Headers | None], epoch_s: float) -> list[float | None] | None:
    """Turn `expires-at` into monotonic seconds. What is no time does not expire: its record is worth an answer."""
    deadlines: list[float | None] = []
    for each in headers:
        try:
            at_ms = expires_at_ms(each) if each else None
        except RecordError:
            at_ms = None
        deadlines.append(None if at_ms is None else epoch_s + at_ms / 1000)
    return deadlines if any(deadline is not None for deadline in deadlines) else None
