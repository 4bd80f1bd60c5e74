"""A model server behind a bridge by hand: consumes, asks Mosec over HTTP, produces; in an environment of its own.

python mosec_bridge.py BOOTSTRAP GROUP SOURCE TARGET MODEL at-least-once DIRECTORY

A request a record, many at once, so that the server batches and the bridge knows nothing of tensors. Every half second
it waits for what is open, flushes and commits: at least once. A request that fails ends it.
"""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp  # type: ignore[import-not-found,unused-ignore]  # of the peer's environment
import uvloop  # type: ignore[import-not-found,unused-ignore]  # likewise
from confluent_kafka import Consumer, Message, Producer

LANES = 256
"""Requests at once."""
COMMIT_INTERVAL_S = 0.5
READY_TIMEOUT_S = 60.0
CONSUMER = {
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
    "fetch.queue.backoff.ms": 5,
    "queued.max.messages.kbytes": 262_144,
}
PRODUCER = {"enable.idempotence": True, "acks": "all", "linger.ms": 5, "queue.buffering.max.messages": 1_000_000}


class Bridge:
    """Between the topics and the server."""

    def __init__(self, consumer: Consumer, producer: Producer, target: str, url: str) -> None:
        self._consumer, self._producer, self._target, self._url = consumer, producer, target, url
        self.is_stopping = False

    async def run(self) -> None:
        """Answer stretch after stretch, until it is stopped."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=LANES)) as session:
            await self._ready(session)
            while not self.is_stopping:
                stretch = self._records()
                if sum(await asyncio.gather(*(self._lane(session, stretch) for _ in range(LANES)))):
                    self._producer.flush()
                    self._consumer.commit(asynchronous=False)
                else:
                    await asyncio.sleep(0.01)

    def _records(self) -> Iterator[Message]:
        """Yield what is there, for one stretch between two commits."""
        ends_s = time.monotonic() + COMMIT_INTERVAL_S
        while time.monotonic() < ends_s and (messages := self._consumer.consume(LANES, timeout=0.001)):
            yield from messages

    async def _lane(self, session: aiohttp.ClientSession, records: Iterator[Message]) -> int:
        """Ask for one record after the other; their number."""
        count = 0
        for record in records:
            async with session.post(self._url, data=record.value()) as response:
                response.raise_for_status()
                self._producer.produce(self._target, await response.read())
            self._producer.poll(0)
            count += 1
        return count

    async def _ready(self, session: aiohttp.ClientSession) -> None:
        """Wait until the server answers."""
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while True:
            try:
                async with session.get(self._url.rsplit("/", 1)[0] + "/") as response:
                    if response.ok:
                        return
            except aiohttp.ClientConnectionError:
                pass
            if time.monotonic() > deadline_s:
                raise TimeoutError("the server does not answer")
            await asyncio.sleep(0.1)


def free_port() -> int:
    """Find a port for the server."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


async def serve(bridge: Bridge) -> None:
    """Run the bridge until SIGTERM."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, setattr, bridge, "is_stopping", True)
    await bridge.run()


def main(*given: str) -> None:
    """Start the server, then run the bridge."""
    bootstrap, group, source, target, model, _guarantee, _directory = given
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("mosec_server.py")), "--address", "127.0.0.1"]
    command += ["--port", str(port), "--timeout", "60000", "--capacity", str(2 * LANES), "--log-level", "warning"]
    # A directory of its own for its sockets, whose paths have to be short.
    sockets = tempfile.mkdtemp(prefix="mosec-")
    server = subprocess.Popen([*command, "--path", sockets], env={**os.environ, "MODEL": model})
    consumer = Consumer(CONSUMER | {"bootstrap.servers": bootstrap, "group.id": group})
    producer = Producer(PRODUCER | {"bootstrap.servers": bootstrap})
    consumer.subscribe([source])
    try:
        uvloop.run(serve(Bridge(consumer, producer, target, f"http://127.0.0.1:{port}/inference")))
        producer.flush()
        consumer.close()
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(sockets, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
