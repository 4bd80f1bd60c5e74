"""A TCP proxy that stands between the program and its broker, and knows enough of Kafka's framing to be cruel on time.

Owns connections and the rules about them. Knows of a frame only its length, its API key and its correlation number;
what is inside passes unread.

Theory of operation. Every connection has two threads, one per direction, which move whole frames. Before a frame is
moved, the rules are asked: the first one that fits says what becomes of it. Answers come in the order of their
requests, so an answer's API is that of the oldest request that has none.
"""

import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Self

RETRY_S = 0.05
"""How often a frozen direction looks whether it may go on."""


class Api(IntEnum):
    """Kinds of requests, by their API key."""

    PRODUCE = 0
    FETCH = 1
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28
    CONSUMER_GROUP_HEARTBEAT = 68


GROUP = frozenset(
    {
        Api.OFFSET_COMMIT,
        Api.OFFSET_FETCH,
        Api.FIND_COORDINATOR,
        Api.JOIN_GROUP,
        Api.HEARTBEAT,
        Api.LEAVE_GROUP,
        Api.SYNC_GROUP,
        Api.ADD_OFFSETS_TO_TXN,
        Api.END_TXN,
        Api.TXN_OFFSET_COMMIT,
        Api.INIT_PRODUCER_ID,
        Api.CONSUMER_GROUP_HEARTBEAT,
    }
)
"""What coordinators of groups and transactions are asked: stopped alone, data goes on."""


class Verdict(Enum):
    """What becomes of a frame."""

    PASS = "pass"
    CUT = "cut"
    """Close the connection instead of moving the frame."""
    TEAR = "tear"
    """Move half of the frame, then close the connection."""
    SWALLOW = "swallow"
    """Move nothing on this connection any more, and keep it open until the proxy heals: the peer is gone for good."""


@dataclass(eq=False, slots=True)
class Rule:
    """What to do with some frames."""

    apis: Collection[int]
    verdict: Verdict
    is_answer: bool = False
    skip: int = 0
    """Fitting frames to let pass first."""
    times: int | None = 1
    """How many frames it is applied to; None for all."""
    then: Callable[[], None] = lambda: None
    """Called just before the verdict is carried out, in a thread of the proxy."""
    applied: threading.Event = field(default_factory=threading.Event)


class Proxy:
    """Listens on a port of its own and connects every client to the broker's."""

    def __init__(self, upstream: int) -> None:
        """Listen.

        Args:
            upstream: The broker's port on the loopback interface.
        """
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.delay_s = 0.0
        """Added to every frame, each way."""
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._links: set[_Link] = set()
        self._is_refusing = False
        self._is_open = threading.Event()
        self._is_open.set()
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def __enter__(self) -> Self:
        """Use it for a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close everything."""
        self._listener.close()
        self.heal()
        self.cut()

    # -- what a test may do

    def add(self, rule: Rule) -> Rule:
        """Apply a rule from now on."""
        with self._lock:
            self._rules.append(rule)
        return rule

    def cut(self) -> None:
        """Close every connection; new ones are welcome."""
        with self._lock:
            links, self._links = self._links, set()
        for link in links:
            link.close()

    def refuse(self) -> None:
        """Close every connection, and close new ones at once."""
        self._is_refusing = True
        self.cut()

    def freeze(self) -> None:
        """Move nothing any more, but keep connections, and take new ones: the network is parted."""
        self._is_open.clear()

    def heal(self) -> None:
        """Forget rules, delays, refusals and the freeze; connections that swallowed something are closed."""
        with self._lock:
            self._rules.clear()
            spoilt = [link for link in self._links if link.is_spoilt]
        self.delay_s = 0.0
        self._is_refusing = False
        self._is_open.set()
        for link in spoilt:
            link.close()

    @property
    def connections(self) -> int:
        """Count the open connections."""
        with self._lock:
            return len(self._links)

    # -- for the links

    def judge(self, api: int, *, is_answer: bool) -> Verdict:
        """Say what becomes of a frame."""
        with self._lock:
            rule = next((each for each in self._rules if each.is_answer == is_answer and api in each.apis), None)
            if rule is None:
                return Verdict.PASS
            if rule.skip > 0:
                rule.skip -= 1
                return Verdict.PASS
            if rule.times is not None:
                rule.times -= 1
                if rule.times <= 0:
                    self._rules.remove(rule)
        rule.then()
        rule.applied.set()
        return rule.verdict

    def wait_open(self, link: "_Link") -> None:
        """Wait while the network is parted."""
        while not self._is_open.wait(RETRY_S) and not link.is_closed:
            pass

    def forget(self, link: "_Link") -> None:
        """Take note that a connection is closed."""
        with self._lock:
            self._links.discard(link)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            if self._is_refusing:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._upstream), timeout=5)
            except OSError:
                client.close()  # the broker is down: so are we
                continue
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = _Link(self, client, server)
            with self._lock:
                self._links.add(link)
            link.start()


class _Link:
    """One client's connection and its continuation to the broker."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._asked: deque[int] = deque()
        """The APIs of requests that have no answer yet, oldest first."""
        self._pause = threading.Event()
        self.is_spoilt = False
        self.is_closed = False

    def start(self) -> None:
        """Move frames both ways."""
        for is_answer in (False, True):
            threading.Thread(target=self._pump, args=(is_answer,), name="proxy-link", daemon=True).start()

    def close(self) -> None:
        """Close both ends; the threads notice."""
        self.is_closed = True
        self._pause.set()
        self._proxy.forget(self)
        for end in (self._client, self._server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _pump(self, is_answer: bool) -> None:
        source, target = (self._server, self._client) if is_answer else (self._client, self._server)
        try:
            while (frame := _read_frame(source)) is not None:
                if not self._move(frame, target, is_answer=is_answer):
                    break
        except OSError:
            pass  # closed by a peer or by us
        self.close()

    def _move(self, frame: bytes, target: socket.socket, *, is_answer: bool) -> bool:
        """Move a frame as the rules say; tell whether to go on."""
        api: int = self._asked.popleft() if is_answer else struct.unpack_from(">h", frame, 4)[0]
        verdict = self._proxy.judge(api, is_answer=is_answer)
        if self._proxy.delay_s:
            self._pause.wait(self._proxy.delay_s)
        self._proxy.wait_open(self)
        if verdict is Verdict.SWALLOW:
            self.is_spoilt = True
        if self.is_spoilt:
            return True
        if verdict is Verdict.CUT:
            return False
        if verdict is Verdict.TEAR:
            target.sendall(frame[: len(frame) // 2])
            return False
        if not is_answer:  # every request gets an answer: nobody here produces with acks=0
            self._asked.append(api)
        target.sendall(frame)
        return True


def _read_frame(source: socket.socket) -> bytes | None:
    """Read one frame with its length; None at the end of the stream."""
    head = _read(source, 4)
    if head is None:
        return None
    body = _read(source, struct.unpack(">i", head)[0])
    return None if body is None else head + body


def _read(source: socket.socket, size: int) -> bytes | None:
    parts = []
    while size:
        part = source.recv(min(size, 1 << 16))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
