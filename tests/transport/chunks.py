"""Chunks, channels with a real process behind them, and what to look at in other processes."""

import gc
import multiprocessing
import os
import select
import socket
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import NamedTuple

from consumer.core.events import Answered, Event
from consumer.core.types import Chunk, ChunkId, Generation, Run, TopicPartition
from consumer.transport.channel import Channel, ChannelClosedError

SPAWN = multiprocessing.get_context("spawn")


def run(values: Sequence[bytes | None], *, partition: int = 0, offset: int = 0, fetched_s: float = 1.5) -> Run:
    """Make a run of records with consecutive offsets."""
    return Run(
        partition=TopicPartition("requests", partition),
        generation=Generation(1),
        model="fraud",
        positions=range(len(values)),
        offsets=list(range(offset, offset + len(values))),
        keys=[b"fraud"] * len(values),
        values=values,
        headers=None,
        timestamps_ms=[0] * len(values),
        size=sum(len(value) for value in values if value is not None),
        fetched_s=fetched_s,
    )


def chunk(number: int, *runs: Run) -> Chunk:
    """Make a chunk."""
    return Chunk(ChunkId(number), "fraud", runs)


@dataclass(slots=True)
class Pair:
    """A channel and the process behind it."""

    channel: Channel
    process: SpawnProcess

    def receive(self, timeout_s: float = 20.0) -> list[Event]:
        """Wait for events."""
        deadline_s = time.monotonic() + timeout_s
        while not (events := self.channel.receive()):
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, "the worker said nothing in time"
            wait([self.channel.connection], left_s)
        return events

    def receive_answers(self, count: int) -> list[Answered]:
        """Wait for so many answers; nothing else may come."""
        answers: list[Answered] = []
        while len(answers) < count:
            for event in self.receive():
                assert isinstance(event, Answered)
                answers.append(event)
        return answers

    def receive_until_closed(self) -> list[Event]:
        """Collect events until the worker's end is closed."""
        events: list[Event] = []
        while True:
            try:
                events += self.receive()
            except ChannelClosedError:
                return events


def has_ended(pid: int, timeout_s: float = 20.0) -> bool:
    """Wait for any process to end, a child or not."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], timeout_s)[0])
    finally:
        os.close(fd)


def wait_until_blocked(pid: int, timeout_s: float = 20.0) -> None:
    """Wait until a process sleeps and has used no time over ten looks in a row."""
    deadline_s = time.monotonic() + timeout_s
    looks: list[tuple[str, ...]] = []
    while len(looks) < 10 or len(set(looks[-10:])) > 1 or looks[-1][0] != "S":
        assert time.monotonic() < deadline_s, "the process does not come to rest"
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        looks.append((fields[0], fields[11], fields[12]))
        time.sleep(0.02)


class Descriptor(NamedTuple):
    """An open descriptor: what was closed meanwhile and opened again under the same number is another one."""

    number: int
    target: str
    inode: int


def open_descriptors() -> set[Descriptor]:
    """Return this process's descriptors, those apart that only wait for the garbage collector.

    Clients of earlier tests in the same process may still be ending: compare by `open_descriptors() - before`, which
    says what is new, whatever else was closed. Sockets of networks and the files of the resolver are theirs, and never
    of a channel or a pool: they are left out. So are, while there are clients, pipes with both ends here, by which they
    wake their threads.
    """
    gc.collect()
    found = [look for entry in Path("/proc/self/fd").iterdir() if (look := _look_at(int(entry.name))) is not None]
    ends = Counter(each.target for each in found if each.target.startswith("pipe:"))
    theirs = {pipe for pipe, count in ends.items() if count == 2} if _has_clients() else set()
    return {each for each in found if each.target not in theirs}


def _has_clients() -> bool:
    """Tell whether a Kafka client's threads run in this process."""
    names = (path.read_text(encoding="utf-8") for path in Path("/proc/self/task").glob("*/comm"))
    with suppress(OSError):  # a thread that ended meanwhile: then there was one
        return any(name.startswith("rdk:") for name in names)
    return True


def _look_at(number: int) -> Descriptor | None:
    """Return None for what is closed by now, like the directory that is being read, and for what clients open."""
    try:
        target = str(Path(f"/proc/self/fd/{number}").readlink())
        inode = os.fstat(number).st_ino
        is_network = target.startswith("socket:") and _family(number) != socket.AF_UNIX
    except OSError:
        return None
    return None if is_network or target.startswith("/etc/") else Descriptor(number, target, inode)


def _family(number: int) -> int:
    """Tell a socket's family, and leave the socket to whom it belongs."""
    looked_at = socket.socket(fileno=number)
    try:
        return looked_at.family
    finally:
        looked_at.detach()
