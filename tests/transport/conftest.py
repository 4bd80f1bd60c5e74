"""Channels with a real spawned process at the other end."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from consumer.core.events import WorkerReady
from consumer.core.types import WorkerId
from consumer.transport.channel import Channel, ChannelOptions
from consumer.transport.ends import WorkerEnds
from tests.transport.chunks import SPAWN, Pair

Connect = Callable[..., Pair]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Start a child with a channel to it; the child is gone when the test is over."""
    with ExitStack() as stack:

        def start(child: Callable[[WorkerEnds], None], **options: int) -> Pair:
            channel = Channel(WorkerId(1), ChannelOptions(**options))
            stack.callback(channel.close)
            process = SPAWN.Process(target=child, args=(channel.ends,))
            process.start()
            channel.close_ends()
            stack.callback(process.close)
            stack.callback(process.join, 20)
            stack.callback(process.kill)
            pair = Pair(channel, process)
            assert pair.receive() == [WorkerReady(WorkerId(1), "cpu")]
            return pair

        yield start
