"""A worker that says what cannot be: whatever it sends, the supervisor meets one exception, no other, and goes on."""

import os
import socket
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.types import WorkerId
from consumer.transport.channel import Channel, ChannelBrokenError, ChannelOptions
from consumer.transport.controls import LoadModel, encode
from consumer.transport.memory import create_file
from consumer.transport.packets import ANSWER, AnswerPacket, Kind
from tests.transport.chunks import chunk, open_descriptors, run

OUTBOX = 1 << 16
VALID = AnswerPacket(
    kind=Kind.ANSWER,
    own_file=False,
    chunk=1,
    first=0,
    records=3,
    position=0,
    value_width=2,
    values_size=6,
    key_width=-2,
    keys_size=0,
    failures_size=0,
    rows=3,
    rows_enough=0,
    queue_s=0.0,
    infer_s=0.0,
)


def hear(packet: bytes, *fds: int) -> Channel:
    """Have a channel with a chunk of three records in flight receive a packet."""
    channel = Channel(WorkerId(1), ChannelOptions(inbox_bytes=OUTBOX, outbox_bytes=OUTBOX))
    try:
        channel.send_chunk(chunk(1, run([b"a", b"b", b"c"])), None)
        socket.send_fds(channel.ends.socket, [packet], fds)
        channel.receive()
    finally:
        channel.close_ends()
        channel.close()
    return channel


def test_the_packet_that_the_others_are_made_from_is_right() -> None:
    """An answer of three records passes."""
    hear(ANSWER.pack(*VALID))


@pytest.mark.parametrize(
    "changes",
    [
        {"chunk": 2},
        {"first": 1},
        {"records": 4},
        {"records": 2**32 - 1, "value_width": -1},
        {"position": OUTBOX - 4},
        {"value_width": 3},
        {"value_width": -1},
        {"value_width": -3},
        {"value_width": 2**62},
        {"values_size": OUTBOX + 1, "value_width": OUTBOX},
        {"key_width": -1},
        {"key_width": 1},
        {"failures_size": 1},
        {"failures_size": OUTBOX},
        {"own_file": True},
        {"own_file": True, "values_size": 2**63 + 1},
    ],
)
def test_an_answer_that_does_not_fit_its_chunk_or_memory(changes: dict[str, int]) -> None:
    """More records than are in flight, and columns outside the memory or of another size, are refused."""
    before = open_descriptors()
    with pytest.raises(ChannelBrokenError):
        hear(ANSWER.pack(*VALID._replace(**changes)))  # type: ignore[arg-type]
    assert open_descriptors() - before == set()


def test_an_answer_in_a_file_that_is_too_small() -> None:
    """A file smaller than announced would be SIGBUS when read: it is refused, and its descriptor closed."""
    before = open_descriptors()
    fd = create_file(4096)
    with pytest.raises(ChannelBrokenError):
        hear(ANSWER.pack(*VALID._replace(own_file=True, value_width=2000, values_size=6000)), fd)
    os.close(fd)
    assert open_descriptors() - before == set()


def test_an_answer_twice() -> None:
    """Records are answered once, though others of their chunk are still open."""
    channel = Channel(WorkerId(1), ChannelOptions(inbox_bytes=OUTBOX, outbox_bytes=OUTBOX))
    channel.send_chunk(chunk(1, run([b"a", b"b", b"c"])), None)
    once = ANSWER.pack(*VALID._replace(first=1, records=1, values_size=2))
    channel.ends.socket.send(once)
    assert len(channel.receive()) == 1
    channel.ends.socket.send(once)
    with pytest.raises(ChannelBrokenError):
        channel.receive()
    channel.close_ends()
    channel.close()


@pytest.mark.parametrize(
    "packet", [b"\x00", b"\xff" * 200, bytes([Kind.ANSWER]), bytes([Kind.CHUNK]), bytes([Kind.CONTROL]) + b"\xc1"]
)
def test_packets_of_no_kind(packet: bytes) -> None:
    """Unknown kinds and cut packets are refused."""
    with pytest.raises(ChannelBrokenError):
        hear(packet)


def test_what_only_the_supervisor_says() -> None:
    """A worker that asks the supervisor to load a model is refused."""
    with pytest.raises(ChannelBrokenError, match="LoadModel"):
        hear(bytes([Kind.CONTROL]) + encode(LoadModel("fraud")))


integers: Callable[[int], st.SearchStrategy[int]] = lambda bits: st.one_of(  # noqa: E731
    st.integers(0, 9), st.integers(OUTBOX - 2, OUTBOX + 2), st.integers(0, 2**bits - 1)
)
answers = st.builds(
    AnswerPacket,
    kind=st.just(Kind.ANSWER),
    own_file=st.booleans(),
    chunk=st.integers(0, 2),
    first=integers(32),
    records=integers(32),
    position=integers(64),
    value_width=st.integers(-3, 5) | st.integers(-(2**63), 2**63 - 1),
    values_size=integers(64),
    key_width=st.integers(-3, 5) | st.integers(-(2**63), 2**63 - 1),
    keys_size=integers(64),
    failures_size=integers(64),
    rows=integers(64),
    rows_enough=integers(64),
    queue_s=st.floats(),
    infer_s=st.floats(),
)


@given(
    st.binary(min_size=1, max_size=200)
    | st.binary(max_size=60).map(lambda some: bytes([Kind.CONTROL]) + some)
    | answers.map(lambda packet: ANSWER.pack(*packet))
)
def test_any_bytes_at_all(packet: bytes) -> None:
    """Whatever bytes a worker sends, they are understood or refused; nothing else is raised."""
    with suppress(ChannelBrokenError):
        hear(packet)
