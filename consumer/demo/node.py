"""A broker as a process on this machine: Apache Kafka's jars fetched, one node started, nothing of it left behind.

Owns the processes, their directories and ports. Must not know why this broker was chosen or what is sent through it.
"""

import atexit
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from consumer import errors
from consumer.kafka import admin

ROOT = Path(__file__).resolve().parents[2]
POM = ROOT / "tests" / "kafka" / "pom.xml"
FETCHED = ROOT / ".kafka"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
JAVA_MIN = 17

LOG4J = """\
status=warn
appender.console.type=Console
appender.console.name=STDERR
appender.console.target=SYSTEM_ERR
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d %p %m (%c)%n
rootLogger.level=warn
rootLogger.appenderRef.stderr.ref=STDERR
"""

SERVER_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "8",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "8",
    "group.initial.rebalance.delay.ms": "0",
    # A misspelt topic is to be an error here, not a new topic.
    "auto.create.topics.enable": "false",
}
"""One node, broker and controller in one process; listeners and directories are added at each start."""

GUARD = 'read -r _; kill -9 "$1"; rm -rf "$2"'
"""Ends a broker whose owner died without stopping it: `read` returns when the owner's end of the pipe is closed."""


class BrokerError(errors.BrokerError):
    """A broker that was asked for cannot be had; the message says why and what to do."""


class UnavailableError(BrokerError):
    """This kind of broker is not to be had on this machine; the next kind may be."""


@dataclass(slots=True)
class Node:
    """A broker process on this machine, its directory and the guard that ends both if we die first."""

    command: Sequence[str]
    directory: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    guard: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        """The address for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """What the process printed."""
        return self.directory / "server.log"

    def start(self) -> None:
        """Start the process and wait until it serves.

        Raises:
            BrokerError: it ended by itself, or does not answer; with the last lines that it printed.
        """
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C in a terminal is for the program, which then stops its broker last.
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
            )
        self.guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", str(self.process.pid), str(self.directory)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        atexit.register(self.stop)
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not _listens(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                self._fail("did not start")
            time.sleep(0.02)
        if not admin.wait_reachable({"bootstrap.servers": self.bootstrap_servers}, deadline_s - time.monotonic()):
            self._fail("listens but does not answer")

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        """Send the process a signal: kill, freeze (SIGSTOP) or go on (SIGCONT). Its directory stays."""
        assert self.process is not None
        self.process.send_signal(signal_number)
        if signal_number == signal.SIGKILL:
            self.process.wait()
            self._dismiss_guard()

    def stop(self) -> None:
        """End the process and remove its directory; a second call does nothing."""
        atexit.unregister(self.stop)
        if self.process is not None:
            self.process.terminate()
            self._dismiss_guard()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _dismiss_guard(self) -> None:
        if self.guard is not None:
            self.guard.kill()
            self.guard.communicate()
            self.guard = None

    def _fail(self, what: str) -> None:
        lines = self.log.read_text(errors="replace").strip().splitlines()[-5:]
        self.stop()
        message = f"the broker {what}: {' | '.join(lines) or 'it printed nothing'}"
        raise BrokerError(message)


def fetch() -> Path:
    """Copy the project's own Apache Kafka to its directory, unless it is there, and return its jars' directory.

    Raises:
        UnavailableError: Java or Maven is missing, this is no checkout, or Maven failed.
    """
    require_java()
    if not POM.is_file():
        message = f"no {POM.name} to fetch an Apache Kafka by: this is no checkout of the repository"
        raise UnavailableError(message)
    found = re.search(r"<kafka\.version>([^<]+)<", POM.read_text())
    assert found is not None, "pom.xml states kafka.version"
    target = FETCHED / found[1]
    if target.is_dir():
        return target / "libs"
    if shutil.which("mvn") is None:
        message = "Maven is missing, which fetches the project's own Apache Kafka"
        raise UnavailableError(message)
    FETCHED.mkdir(exist_ok=True)
    # Fetched aside and renamed: an interrupted copy is never taken for a whole one.
    part = Path(tempfile.mkdtemp(prefix="part-", dir=FETCHED))
    try:
        maven = ["mvn", "-B", "-q", "-f", str(POM), "dependency:copy-dependencies", "-DincludeScope=runtime"]
        done = subprocess.run(
            [*maven, f"-DoutputDirectory={part / 'libs'}"],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "JAVA_TOOL_OPTIONS": ""},
        )
        if done.returncode != 0:
            errors = [line for line in done.stdout.splitlines() if "ERROR" in line]
            message = f"Maven could not fetch the project's own Apache Kafka: {errors[0] if errors else done.stderr}"
            raise UnavailableError(message)
        with contextlib.suppress(OSError):  # another process was faster
            part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target / "libs"


def start_node(libs: Path, properties: Mapping[str, str], port: int | None = None) -> Node:
    """Format and start one KRaft node from Apache Kafka's jars in `libs`, on free ports and in a directory of its own.

    Args:
        libs: the jars.
        properties: the node's own settings, beside or instead of `SERVER_PROPERTIES`.
        port: where the node answers when it is up, for `properties` that say so; by default a free one.

    Raises:
        BrokerError: it does not start; with what it printed.
    """
    directory = Path(tempfile.mkdtemp(prefix="inference-consumer-kafka-"))
    free_port, controller_port = free_ports(2)
    port = port or free_port
    (directory / "log4j2.properties").write_text(LOG4J)
    settings = {
        **SERVER_PROPERTIES,
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "log.dirs": str(directory / "logs"),
        **properties,
    }
    (directory / "server.properties").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    java = ["java", *os.environ.get("KAFKA_HEAP_OPTS", "-Xmx512m").split(), "-XX:+UseSerialGC"]
    java += [f"-Dlog4j2.configurationFile={directory / 'log4j2.properties'}", "-cp", f"{libs}/*"]
    formatted = subprocess.run(
        [
            *java,
            "-XX:TieredStopAtLevel=1",
            "kafka.tools.StorageTool",
            "format",
            "-t",
            "aW5mZXJlbmNlLWNvbnN1bQ",
            "-c",
            "server.properties",
        ],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if formatted.returncode != 0:
        shutil.rmtree(directory)
        message = f"the node's storage could not be formatted: {(formatted.stderr or formatted.stdout).strip()[-500:]}"
        raise BrokerError(message)
    node = Node([*java, "kafka.Kafka", "server.properties"], directory, port)
    node.start()
    return node


def require_java() -> None:
    """Raise UnavailableError unless a Java that can run Apache Kafka is on PATH."""
    if shutil.which("java") is None:
        message = f"Java is missing (Apache Kafka needs {JAVA_MIN} or newer)"
        raise UnavailableError(message)
    answer = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    found = re.search(r'version "(\d+)', answer.stderr)
    if found is None or int(found[1]) < JAVA_MIN:
        message = f"Java {found[1] if found else '?'} is too old (Apache Kafka needs {JAVA_MIN} or newer)"
        raise UnavailableError(message)


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
