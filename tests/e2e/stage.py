"""One end-to-end run: a broker, topics of its own, the program as users start it, and the universal oracle.

Owns what the test sends and what comes out, seen by independent clients. Must not know the program's insides: it is
started by its command line and judged by Kafka alone.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import yaml
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from consumer.demo.broker import Broker
from schemas.codecs import decode_result, encode_request
from schemas.headers import content_type, parse_dead_letter
from schemas.records import Request
from schemas.tensors import Tensor
from tests.brokers import new_topic

WAIT_S = 60.0
MODELS_FILE = Path(__file__).with_name("models_for_tests.py")
EXPECTED_ENDS = (None, 0, -signal.SIGKILL, 128 + signal.SIGTERM)
"""Running, drained, killed by the test, or asked twice."""
INPUTS = [{"name": "x", "datatype": "FP32", "shape": [4]}]


def double(**arguments: object) -> dict[str, Any]:
    """Configure a model that doubles its input."""
    return {"factory": "models_for_tests:Double", "arguments": arguments, "inputs": INPUTS}


@dataclass(slots=True)
class Outcome:
    """A result or a dead letter, as a subscriber sees it."""

    kind: str
    """`result`, or the dead letter's reason."""
    topic: str
    outputs: list[float] | None = None


@dataclass
class Stage:
    """One test's world."""

    broker: Broker
    directory: Path
    models: Mapping[str, Mapping[str, Any]]
    partitions: int = 4
    settings: dict[str, Any] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the input topic and place the models' code."""
        self.name = f"e2e-{uuid.uuid4().hex[:10]}"
        self.requests = new_topic(self.broker, self.partitions, name=f"{self.name}.requests")
        self.group = f"{self.name}.group"
        shutil.copy(MODELS_FILE, self.directory)
        self.sent: dict[tuple[int, int], str] = {}
        """Partition and offset of every record that the broker has, with its id."""
        self._sampler: Sampler | None = None

    def __enter__(self) -> Self:
        """Use it for a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """End what still runs."""
        if self._sampler is not None:
            self._sampler.stop()
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    # -- the program

    def start(self, workers: int | list[dict[str, Any]] = 2, **settings: Any) -> "Program":
        """Start the program as a user does."""
        port = _free_port()
        configuration: dict[str, Any] = {
            "kafka": {
                "bootstrap.servers": self.broker.bootstrap_servers,
                "group.id": self.group,
                # A member that was killed is missed soon.
                "consumer": {"session.timeout.ms": 6000, **self.broker.consumer_settings},
            },
            "input": {"topics": [self.requests]},
            "output": {"result_topic": f"{self.name}.results.{{model}}"},
            "models": {name: dict(model) for name, model in self.models.items()},
            "workers": [{"device": "cpu", "count": workers, "threads": 1}] if isinstance(workers, int) else workers,
            "commit": {"interval_ms": 100},
            "http": {"port": port},
        }
        for key, value in {**self.settings, **settings}.items():
            section = configuration.get(key)
            is_merged = isinstance(section, dict) and isinstance(value, dict)
            configuration[key] = {**cast("dict[str, Any]", section), **value} if is_merged else value
        number = len(self.processes)
        path = self.directory / f"consumer-{number}.yaml"
        path.write_text(yaml.safe_dump(configuration))
        log = self.directory / f"consumer-{number}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "consumer", "run", "--config", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        self.processes.append(process)
        return Program(process, port, log)

    # -- upstream

    def send(
        self,
        model: str,
        rows: Iterable[float],
        *,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> list[str]:
        """Send one record a number, spread over the partitions; returns their ids."""
        values = []
        for number in rows:
            uid = uuid.uuid4().hex
            tensor = Tensor.of("x", np.full(4, number, np.float32))
            values.append((uid, encode_request(Request(uid, (tensor,), {}))))
        self.send_values(model.encode(), values, partition=partition, headers=headers)
        return [uid for uid, _ in values]

    def send_values(
        self,
        key: bytes | None,
        values: Iterable[tuple[str, bytes | None]],
        *,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Send values under a key, remembering where the broker put them."""

        def note(uid: str) -> Callable[[Any, Message], None]:
            def delivered(error: Any, message: Message) -> None:
                assert error is None, error
                self.sent[int(message.partition() or 0), int(message.offset() or 0)] = uid

            return delivered

        producer = Producer({"bootstrap.servers": self.broker.bootstrap_servers, "enable.idempotence": True})
        for number, (uid, value) in enumerate(values):
            place = number % self.partitions if partition is None else partition
            producer.produce(self.requests, value, key, place, on_delivery=note(uid), headers=list(headers))
            producer.poll(0)
        assert producer.flush(30) == 0

    # -- downstream

    def outcomes(self) -> dict[tuple[int, int], list[Outcome]]:
        """Read every result and dead letter that there is, by its source partition and offset."""
        found: dict[tuple[int, int], list[Outcome]] = defaultdict(list)
        for message in self._read_outputs():
            headers = cast("list[tuple[str, bytes | None]]", message.headers() or [])
            topic = message.topic() or ""
            if topic.endswith(".dead-letters"):
                letter = parse_dead_letter(headers)
                assert letter is not None
                assert letter.source.topic == self.requests
                found[letter.source.partition, letter.source.offset].append(Outcome(str(letter.reason), topic))
            else:
                result = decode_result(message.value() or b"", content_type(headers))
                source = result.source
                assert source is not None
                assert source.topic == self.requests
                (output,) = result.outputs
                outputs = [float(each) for each in np.asarray(output.data).ravel()]
                found[source.partition, source.offset].append(Outcome("result", topic, outputs))
        return found

    def committed(self) -> dict[int, int]:
        """Ask for the group's committed offsets."""
        consumer = Consumer({"bootstrap.servers": self.broker.bootstrap_servers, "group.id": self.group})
        try:
            places = [TopicPartition(self.requests, number) for number in range(self.partitions)]
            deadline_s = time.monotonic() + WAIT_S
            while True:
                try:
                    return {each.partition: max(each.offset, 0) for each in consumer.committed(places, timeout=10)}
                except KafkaException:
                    # A fresh cluster still makes its offsets topic, and then elects its coordinators.
                    if time.monotonic() > deadline_s:
                        raise
        finally:
            consumer.close()

    def ends(self) -> dict[int, int]:
        """Say where each partition ends, by what was sent."""
        ends = dict.fromkeys(range(self.partitions), 0)
        for partition, offset in self.sent:
            ends[partition] = max(ends[partition], offset + 1)
        return ends

    def wait_settled(self, timeout_s: float = WAIT_S) -> None:
        """Wait until everything that was sent is committed."""
        deadline_s = time.monotonic() + timeout_s
        while (committed := self.committed()) != (ends := self.ends()):
            assert time.monotonic() < deadline_s, f"committed {committed} of {ends} after {timeout_s} s{self.logs()}"
            for process in self.processes:
                assert process.poll() in EXPECTED_ENDS, f"the program ended{self.logs()}"
            time.sleep(0.1)

    def sample(self) -> None:
        """Watch commits from outside from now on: nothing may be committed that has no outcome."""
        self._sampler = Sampler(self)
        self._sampler.start()

    def check(self, *, doubled_max: int = 0) -> dict[tuple[int, int], Outcome]:
        """Apply the universal oracle: every input has its outcome, few have two, commits reach the end and no further.

        Returns:
            The outcome of each input.
        """
        if self._sampler is not None:
            self._sampler.stop()
            assert self._sampler.violations == [], self._sampler.violations
            assert self._sampler.samples > 0, "the sampler never looked"
        outcomes = self.outcomes()
        lost = [place for place in self.sent if place not in outcomes]
        assert not lost, f"{len(lost)} of {len(self.sent)} records are lost, such as {lost[:5]}{self.logs()}"
        strangers = [place for place in outcomes if place not in self.sent]
        assert not strangers, f"outcomes of records that nobody sent: {strangers[:5]}"
        doubled = sum(len(found) - 1 for found in outcomes.values())
        assert doubled <= doubled_max, f"{doubled} outcomes too many, {doubled_max} allowed{self.logs()}"
        assert self.committed() == self.ends()
        return {place: found[0] for place, found in outcomes.items()}

    def kinds(self, outcomes: Mapping[tuple[int, int], Outcome]) -> Counter[str]:
        """Count outcomes by kind."""
        return Counter(outcome.kind for outcome in outcomes.values())

    def logs(self) -> str:
        """Quote the ends of the programs' logs."""
        lines = [
            f"\n  {path.name}| {line}"
            for path in sorted(self.directory.glob("*.log"))
            for line in path.read_text(errors="replace").splitlines()[-15:]
        ]
        return "".join(lines)

    def _read_outputs(self) -> list[Message]:
        admin = AdminClient({"bootstrap.servers": self.broker.bootstrap_servers})
        topics = admin.list_topics(timeout=10).topics
        names = [name for name in topics if name.startswith(self.name) and name != self.requests]
        reader = Consumer(
            {
                "bootstrap.servers": self.broker.bootstrap_servers,
                "group.id": f"{self.name}.reader",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
            }
        )
        try:
            places = [TopicPartition(name, number, 0) for name in names for number in topics[name].partitions]
            reader.assign(places)
            found, open_ends = [], {(each.topic, each.partition) for each in places}
            deadline_s = time.monotonic() + WAIT_S
            while open_ends:
                assert time.monotonic() < deadline_s, f"no end of {sorted(open_ends)}"
                for message in reader.consume(1000, 0.2):
                    if message.error() is None:
                        found.append(message)
                    else:
                        open_ends.discard((message.topic(), message.partition()))
            return found
        finally:
            reader.close()


class Sampler(threading.Thread):
    """Reads committed offsets, then the outcomes: what was committed first must have its outcome by then."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(name="sampler", daemon=True)
        self._stage = stage
        self._stopping = threading.Event()
        self.violations: list[str] = []
        self.samples = 0

    def run(self) -> None:
        """Sample until told to stop."""
        while not self._stopping.wait(0.3):
            committed = self._stage.committed()
            outcomes = self._stage.outcomes()
            self.samples += 1
            self.violations += [
                f"{place} is below the committed {committed[place[0]]} and has no outcome"
                for place in list(self._stage.sent)
                if place[1] < committed[place[0]] and place not in outcomes
            ]

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self.join(WAIT_S)


@dataclass(frozen=True)
class Program:
    """The program's process, seen from outside."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def wait_ready(self, timeout_s: float = WAIT_S) -> None:
        """Wait until `/readyz` says so."""
        deadline_s = time.monotonic() + timeout_s
        while not self.is_ready():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline_s, self.log.read_text()[-3000:]
            time.sleep(0.05)

    def is_ready(self) -> bool:
        """Ask `/readyz`."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2):
                return True
        except (OSError, urllib.error.URLError):
            return False

    def status(self) -> dict[str, Any]:
        """Ask `/status`."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/status", timeout=2) as response:
            found: dict[str, Any] = json.load(response)
            return found

    def workers(self) -> list[int]:
        """Find the worker processes: the children that multiprocessing spawned."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]

    def stop(self, timeout_s: float = 40.0) -> int:
        """Ask it to end; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """End it without warning."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
