"""The choice of a broker, and that none is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from consumer.demo import broker as broker_module
from consumer.demo import node as node_module
from consumer.demo.broker import Broker, BrokerError, Kind, UnavailableError, start
from consumer.demo.node import Node
from consumer.kafka.admin import wait_reachable
from tests.brokers import freeze


def starter(kind: Kind, refusal: str | None = None) -> broker_module.Starter:
    """Stand in for a kind of broker: there, or refused."""

    def begin(properties: Mapping[str, str]) -> Broker:
        if refusal is not None:
            raise UnavailableError(refusal)
        return Broker(kind, "localhost:1", f"the {kind} one")

    return begin


def test_the_first_kind_to_be_had_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds are tried in order, and the reason names those that were not to be had."""
    starters = {
        Kind.GIVEN: starter(Kind.GIVEN, "not given"),
        Kind.OWN: starter(Kind.OWN, "no Java"),
        Kind.EMBEDDED: starter(Kind.EMBEDDED),
        Kind.CONTAINER: starter(Kind.CONTAINER),
    }
    monkeypatch.setattr(broker_module, "STARTERS", starters)
    found = start()
    assert (found.kind, found.reason) == (Kind.EMBEDDED, "the embedded one (not given; no Java)")


def test_a_wanted_kind_is_taken_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind that was asked for is never replaced by another."""
    starters = {Kind.OWN: starter(Kind.OWN, "no Java"), Kind.EMBEDDED: starter(Kind.EMBEDDED)}
    monkeypatch.setattr(broker_module, "STARTERS", starters)
    assert start(Kind.EMBEDDED).kind is Kind.EMBEDDED
    with pytest.raises(BrokerError, match=r"^no broker: no Java$"):
        start(Kind.OWN)


def test_every_kind_has_its_place_in_the_order() -> None:
    """The order is that of the kinds: a running one, given jars, our own, a container, the embedded one."""
    assert list(broker_module.STARTERS) == list(Kind)


def test_a_given_broker_that_is_silent_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment names is used or refused, never passed over for another one."""
    monkeypatch.setattr(broker_module, "GIVEN_TIMEOUT_S", 0.2)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    with pytest.raises(BrokerError, match=r"127\.0\.0\.1:1 does not answer: start that broker, or unset the variable"):
        start()


def test_a_home_without_kafka_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """KAFKA_HOME that holds no Kafka is told, with what is missing there."""
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    with pytest.raises(BrokerError, match="holds no Apache Kafka: libs/ with its jars is missing there"):
        start()


@pytest.mark.parametrize(
    ("version", "is_enough"), [("17.0.15", True), ("21", True), ("11.0.2", False), ("1.8.0", False)]
)
def test_an_old_java_is_not_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, is_enough: bool
) -> None:
    """Java is found on PATH and must be 17 or newer."""
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2020-01-01' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    if is_enough:
        node_module.require_java()
    else:
        with pytest.raises(UnavailableError, match="is too old"):
            node_module.require_java()


def test_no_java_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without Java the project's own Kafka is not to be had, and that is said."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="Java is missing"):
        node_module.fetch()


def test_a_process_that_ends_at_once_tells_what_it_printed(tmp_path: Path) -> None:
    """A broker that does not start is an error with its last words, and leaves nothing behind."""
    directory = tmp_path / "node"
    directory.mkdir()
    node = Node(["/bin/sh", "-c", "echo port taken; exit 1"], directory, 1)
    with pytest.raises(BrokerError, match="the broker did not start: port taken"):
        node.start()
    assert not directory.exists()


OWNER = """
import sys
from pathlib import Path
from consumer.demo import node
node._listens = lambda port: True
node.admin.wait_reachable = lambda settings, timeout_s: True
made = node.Node(["sleep", "600"], Path(sys.argv[1]), 1)
made.start()
print(made.process.pid, flush=True)
if sys.argv[2] == "raise":
    raise ZeroDivisionError
sys.stdin.read()
"""


def is_alive(pid: int) -> bool:
    """Tell whether a process runs (a zombie does not)."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("end", ["kill", "raise", "leave"])
def test_nothing_outlives_its_owner(tmp_path: Path, end: str) -> None:
    """However the owner ends, by SIGKILL, an error or by itself, the broker and its directory go as well."""
    directory = tmp_path / "node"
    directory.mkdir()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(directory), end],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
    )
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    if end == "kill":
        os.kill(owner.pid, signal.SIGKILL)
    owner.communicate()
    deadline_s = time.monotonic() + 10
    while is_alive(pid) or directory.exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


@pytest.mark.broker
@pytest.mark.slow
def test_a_node_can_be_frozen_and_killed(broker: Broker) -> None:
    """A test may stop its own node in every way and start it again on the same port with what it held."""
    if broker.node is None or broker.lacks:
        pytest.skip("only a node started from Apache Kafka's jars keeps what it holds")
    with start(broker.kind) as own:
        assert own.node is not None
        freeze(own.node)
        assert not wait_reachable({"bootstrap.servers": own.bootstrap_servers}, 0.5)
        own.node.kill(signal.SIGCONT)
        assert wait_reachable({"bootstrap.servers": own.bootstrap_servers}, 10)
        own.node.kill()
        assert own.node.directory.exists()
        own.node.start()
    assert not own.node.directory.exists()
