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
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import yaml
from confluent_kafka import Message, Producer

from consumer.demo.broker import Broker
from schemas.codecs import encode_request
from schemas.records import Request
from schemas.tensors import Tensor
from tests.brokers import new_topic
from tests.e2e.models_for_tests import ASLEEP
from tests.e2e.oracle import WAIT_S, Archive, Outcome, Place, Sampler, committed

MODELS_FILE = Path(__file__).with_name("models_for_tests.py")
INPUTS = [{"name": "x", "datatype": "FP32", "shape": [4]}]


def double(**arguments: object) -> dict[str, Any]:
    """Configure a model that doubles its input."""
    return {"factory": "models_for_tests:Double", "arguments": arguments, "inputs": INPUTS}


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay settings over others, section by section."""
    made = dict(below)
    for key, value in above.items():
        section = made.get(key)
        is_section = isinstance(section, Mapping) and isinstance(value, Mapping)
        made[key] = merged(cast("Mapping[str, Any]", section), value) if is_section else value
    return made


def pruned(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is None, which is how a test takes a setting away."""
    return {
        key: pruned(value) if isinstance(value, Mapping) else value
        for key, value in settings.items()
        if value is not None
    }


TOLD = 5
"""Doubled outcomes that are told, of the first and of the last."""


@dataclass
class Stage:
    """One test's world."""

    broker: Broker
    directory: Path
    models: Mapping[str, Mapping[str, Any]]
    partitions: int = 4
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of the programs beside the test's own."""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the input topic and place the models' code."""
        self.name = f"e2e-{uuid.uuid4().hex[:10]}"
        self.requests = new_topic(self.broker, self.partitions, name=f"{self.name}.requests")
        self.group = f"{self.name}.group"
        shutil.copy(MODELS_FILE, self.directory)
        self.ends_expected = {None, 0, -signal.SIGKILL, 128 + signal.SIGTERM}
        """Exit codes that are no surprise: running, drained, killed by the test, or asked twice."""
        self.sent: dict[Place, str] = {}
        """Partition and offset of every record that the broker has, with its id."""
        self._rows: dict[str, float] = {}
        """The number that each record is full of."""
        self.archive = Archive(self.broker.bootstrap_servers, self.name, self.requests)
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
        configuration = pruned(merged(merged(configuration, self.settings), settings))
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
                env={**os.environ, **self.environment},
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
        timestamp_ms: int = 0,
    ) -> list[str]:
        """Send one record a number, spread over the partitions; returns their ids. Time 0 is now."""
        values = []
        for number in rows:
            uid = uuid.uuid4().hex
            tensor = Tensor.of("x", np.full(4, number, np.float32))
            self._rows[uid] = number
            values.append((uid, encode_request(Request(uid, (tensor,), {}))))
        self.send_values(model.encode(), values, partition=partition, headers=headers, timestamp_ms=timestamp_ms)
        return [uid for uid, _ in values]

    def send_values(
        self,
        key: bytes | None,
        values: Iterable[tuple[str, bytes | None]],
        *,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp_ms: int = 0,
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
            producer.produce(
                self.requests,
                value,
                key,
                place,
                on_delivery=note(uid),
                headers=list(headers),
                timestamp=timestamp_ms,
            )
            producer.poll(0)
        assert producer.flush(30) == 0

    # -- downstream

    def outcomes(self) -> dict[Place, list[Outcome]]:
        """Read every result and dead letter that there is, by its source partition and offset."""
        return self.archive.read()

    def committed(self, timeout_s: float = WAIT_S) -> dict[int, int]:
        """Ask for the group's committed offsets."""
        return committed(self.broker.bootstrap_servers, self.group, self.requests, self.partitions, timeout_s)

    def ends(self) -> dict[int, int]:
        """Say where each partition ends, by what was sent."""
        ends = dict.fromkeys(range(self.partitions), 0)
        for partition, offset in self.sent:
            ends[partition] = max(ends[partition], offset + 1)
        return ends

    def wait_settled(self, timeout_s: float = WAIT_S) -> float:
        """Wait until everything that was sent is committed; return the seconds that it took."""
        began_s = time.monotonic()
        deadline_s = began_s + timeout_s
        while (committed := self.committed()) != (ends := self.ends()):
            assert time.monotonic() < deadline_s, f"committed {committed} of {ends} after {timeout_s} s{self.logs()}"
            for process in self.processes:
                assert process.poll() in self.ends_expected, f"the program ended{self.logs()}"
            time.sleep(0.1)
        return time.monotonic() - began_s

    def wait_asleep(self, batches: int = 1, timeout_s: float = WAIT_S) -> None:
        """Wait until so many batches are held up by a record that does that: they are in the worker's hands."""
        diary = self.directory / ASLEEP
        deadline_s = time.monotonic() + timeout_s
        while not diary.exists() or diary.read_text().count("\n") < batches:
            assert time.monotonic() < deadline_s, self.logs()
            time.sleep(0.02)

    def expect_only(self, is_expected: Callable[[Place], bool]) -> None:
        """Expect no outcome of some records: the test saw to it that the program never reads them."""
        for place in [place for place in self.sent if not is_expected(place)]:
            del self.sent[place]

    def renew(self) -> None:
        """Forget what was sent and what came of it, since the test made the input topic anew; commits go back then."""
        self.sent.clear()
        self.archive = Archive(self.broker.bootstrap_servers, self.name, self.requests, since_s=time.time())
        self.sample(may_go_back=True)

    @property
    def is_transactional(self) -> bool:
        """Whether delivery is exactly-once."""
        return self.settings.get("delivery") == "exactly-once"

    def sample(self, *, may_go_back: bool = False) -> None:
        """Watch commits from outside from now on: nothing may be committed that has no outcome, nor be taken back."""
        if self._sampler is not None:
            self._sampler.stop()
        self._sampler = Sampler(
            lambda: self.committed(1.0),
            self.archive,
            self.sent,
            is_transactional=self.is_transactional,
            may_go_back=may_go_back,
        )
        self._sampler.start()

    def check(self, *, doubled_max: int = 0) -> dict[Place, Outcome]:
        """Apply the universal oracle: every input has its outcome, few have two, commits reach the end and no further.

        In exactly-once none has two, whatever a test would allow.

        Returns:
            The outcome of each input.
        """
        if self._sampler is not None:
            self._sampler.stop()
            assert self._sampler.violations == [], f"{self._sampler.violations[:5]}{self.logs()}"
            assert self._sampler.samples > 0, "the sampler never looked"
        outcomes = self.archive.read(whole=True)
        lost = [place for place in self.sent if place not in outcomes]
        assert not lost, f"{len(lost)} of {len(self.sent)} records are lost, such as {lost[:5]}{self.logs()}"
        strangers = [place for place in outcomes if place not in self.sent]
        assert not strangers, f"outcomes of records that nobody sent: {strangers[:5]}"
        corrupt = [place for place, found in outcomes.items() for each in found if not self._is_right(place, each)]
        assert not corrupt, f"{len(corrupt)} wrong results, such as {corrupt[0]}: {outcomes[corrupt[0]]}"
        doubled = sum(len(found) - 1 for found in outcomes.values())
        allowed = 0 if self.is_transactional else doubled_max
        twice = [f"\n  {place}: {self.archive.account(place)}" for place, found in outcomes.items() if len(found) > 1]
        told = "".join([*twice[:TOLD], *twice[-TOLD:]])
        assert doubled <= allowed, f"{doubled} outcomes too many, {allowed} allowed{told}{self.logs()}"
        assert self.committed() == self.ends()
        return {place: found[0] for place, found in outcomes.items()}

    def _is_right(self, place: Place, outcome: Outcome) -> bool:
        """Tell whether a result is that of its record: all models of the tests double."""
        uid = self.sent[place]
        return outcome.kind != "result" or (outcome.id == uid and outcome.outputs == (2 * self._rows[uid],))

    def kinds(self, outcomes: Mapping[Place, Outcome]) -> Counter[str]:
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


@dataclass(frozen=True)
class Program:
    """The program's process, seen from outside."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def wait_ready(self, timeout_s: float = 1.5 * WAIT_S) -> None:
        """Wait until `/readyz` says so."""
        deadline_s = time.monotonic() + timeout_s
        while not self.is_ready():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline_s, self.log.read_text()[-3000:]
            time.sleep(0.05)

    def wait_complained(self, of: str, timeout_s: float = 40.0) -> None:
        """Wait until the log names something in a warning or an error; the program lives on."""
        deadline_s = time.monotonic() + timeout_s
        while not any(
            of in line and ('"level":"warning"' in line or '"level":"error"' in line)
            for line in self.log.read_text().splitlines()
        ):
            assert time.monotonic() < deadline_s, self.log.read_text()[-3000:]
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            time.sleep(0.1)

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

    def metrics(self) -> str:
        """Ask `/metrics`."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=2) as response:
            return str(response.read(), "utf-8")

    def workers(self) -> list[int]:
        """Find the worker processes: the children that multiprocessing spawned."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]

    def threads(self) -> int:
        """Count the supervisor's threads."""
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))

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
