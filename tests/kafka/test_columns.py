"""Messages to columns, against the plain way of doing it."""

import time
from typing import Any

import pytest
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.types import TopicPartition
from consumer.kafka.columns import model_rule, slices

NAMES = st.none() | st.sampled_from([b"fraud", b"intent", b"", b"\xff", "ü".encode()])
HEADERS = st.none() | st.lists(st.tuples(st.sampled_from(["model", "x"]), NAMES), min_size=1, max_size=3)
PLACES = st.tuples(st.sampled_from(["a", "b.c"]), st.integers(0, 2))
ROWS = st.lists(st.tuples(PLACES, NAMES, st.none() | st.binary(max_size=4), HEADERS), min_size=1, max_size=30)


def message(topic: str = "a", partition: int = 0, offset: int = 0, **more: Any) -> Message:
    """Make what the client would hand out."""
    return Message(topic=topic, partition=partition, offset=offset, timestamp=(1, 1_000 + offset), **more)


def text(name: bytes | None) -> str | None:
    """Decode a name the plain way."""
    try:
        return name.decode() or None if name is not None else None
    except UnicodeDecodeError:
        return None


def column(models: Any, count: int) -> list[str | None]:
    """Write one name for all as a column."""
    return [models] * count if models is None or isinstance(models, str) else list(models)


@given(ROWS)
def test_columns_hold_what_the_messages_held(rows: list[tuple[tuple[str, int], Any, Any, Any]]) -> None:
    """Every record is in its partition's slice once, with all its fields, in the order of its offsets."""
    messages = [
        message(topic, partition, i, key=key, value=value, headers=headers)
        for i, ((topic, partition), key, value, headers) in enumerate(rows)
    ]
    found = slices(messages, model_rule("key"))
    assert len({part.partition for part in found}) == len(found)
    seen = {}
    for part in found:
        assert list(part.offsets) == sorted(part.offsets)
        models = column(part.models, len(part.offsets))
        for i, offset in enumerate(part.offsets):
            headers = part.headers[i] if part.headers is not None else None
            row = (part.partition, part.keys[i], part.values[i], headers, models[i], part.timestamps_ms[i])
            seen[offset] = row
    assert seen == {
        i: (TopicPartition(*place), key, value, headers, text(key), 1_000 + i)
        for i, (place, key, value, headers) in enumerate(rows)
    }


@given(ROWS)
def test_models_from_a_header(rows: list[tuple[tuple[str, int], Any, Any, Any]]) -> None:
    """The last header of the name counts; a record without it names no model."""
    messages = [message("a", 0, i, headers=headers) for i, (_, _, _, headers) in enumerate(rows)]
    (part,) = slices(messages, model_rule("header:model"))
    wanted = [
        text(next((value for name, value in reversed(headers or []) if name == "model"), None))
        for _, _, _, headers in rows
    ]
    assert column(part.models, len(rows)) == wanted


@pytest.mark.parametrize(
    ("topic", "model"),
    [("requests.fraud", "fraud"), ("requests.", None), ("other.fraud", None), ("x.requests.a", None)],
)
def test_models_from_the_topic(topic: str, model: str | None) -> None:
    """The first group of the expression, matched from the start, names the model of a whole topic."""
    (part,) = slices([message(topic, key=b"k"), message(topic, offset=1)], model_rule(r"topic:requests\.(.*)"))
    assert part.models == model


def test_equal_keys_give_one_name() -> None:
    """A slice of one model has one name for all its records, not a column."""
    (part,) = slices([message(offset=i, key=b"fraud") for i in range(5)], model_rule("key"))
    assert part.models == "fraud"


def test_no_headers_give_no_column() -> None:
    """A slice without headers says so once; with one, it has a column."""
    (bare,) = slices([message(), message(offset=1)], model_rule("key"))
    (mixed,) = slices([message(), message(offset=1, headers=[("a", b"1")])], model_rule("key"))
    assert bare.headers is None
    assert bare.deadlines_s is None
    assert mixed.headers == [None, [("a", b"1")]]


def test_expiry_becomes_monotonic_seconds() -> None:
    """`expires-at` is wall-clock milliseconds; what is none does not expire."""
    ahead_ms = int(time.time() * 1000) + 5_000
    values = [str(ahead_ms).encode(), b"soon", None, b"-1", b"9" * 30]
    messages = [message(offset=i, headers=[("expires-at", value)]) for i, value in enumerate(values)]
    (part,) = slices(messages, model_rule("key"))
    assert part.deadlines_s is not None
    assert part.deadlines_s[0] == pytest.approx(time.monotonic() + 5, abs=0.5)
    assert list(part.deadlines_s[1:]) == [None] * 4


def test_a_slice_says_how_its_timestamps_relate_to_the_clock() -> None:
    """A timestamp of now, on the clock of deadlines, is now."""
    (part,) = slices([message()], model_rule("key"))
    assert part.epoch_s + time.time() == pytest.approx(time.monotonic(), abs=0.5)
    assert part.rest(1).epoch_s == part.epoch_s


def test_one_topic_need_not_be_read() -> None:
    """Where only one topic is subscribed, each partition's slice is as if every record's topic had been looked at."""
    messages = [message(partition=number, offset=offset) for number, offset in ((0, 1), (0, 2), (1, 7), (0, 3))]
    found = slices(messages, model_rule("key"), "requests")
    assert [(part.partition, part.offsets) for part in found] == [
        (TopicPartition("requests", 0), [1, 2, 3]),
        (TopicPartition("requests", 1), [7]),
    ]
