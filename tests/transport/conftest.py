"""Channels with a real spawned process at the other end."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess

import pytest

from consumer.core.events import Event, WorkerReady
from consumer.core.types import WorkerId
from consumer.transport.channel import Channel, ChannelClosedError, ChannelOptions
from consumer.transport.ends import WorkerEnds

SPAWN = multiprocessing.get_context("spawn")


@dataclass(slots=True)
class Pair:
    """A channel and the process behind it."""

    channel: Channel
    process: SpawnProcess

    def receive(self, timeout_s: float = 10.0) -> list[Event]:
        """Wait for events."""
        deadline_s = time.monotonic() + timeout_s
        while not (events := self.channel.receive()):
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, "the worker said nothing in time"
            wait([self.channel.connection], left_s)
        return events

    def receive_until_closed(self, timeout_s: float = 10.0) -> list[Event]:
        """Collect events until the worker's end is closed."""
        events: list[Event] = []
        try:
            while True:
                events += self.receive(timeout_s)
        except ChannelClosedError:
            return events


Connect = Callable[..., Pair]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Start a child with a channel to it; the child is gone when the test is over."""
    with ExitStack() as stack:

        def start(child: Callable[[WorkerEnds], None], *, is_ready: bool = True, **options: int) -> Pair:
            channel = Channel(WorkerId(1), ChannelOptions(**options))
            process = SPAWN.Process(target=child, args=(channel.ends,))
            process.start()
            channel.close_ends()
            stack.callback(process.join, 10)
            stack.callback(process.kill)
            stack.callback(channel.close)
            pair = Pair(channel, process)
            if is_ready:
                assert pair.receive() == [WorkerReady(WorkerId(1), "cpu")]
            return pair

        yield start
