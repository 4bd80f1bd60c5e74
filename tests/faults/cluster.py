"""A real Kafka that may be mistreated: one node, a proxy in front of the program, and a way round it for the oracle.

Owns the node, its listeners and its users. The program's clients come in through the proxy as the user `program`, whom
tests may forbid things; everybody else comes directly and may do everything.
"""

import contextlib
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)
from confluent_kafka.cimpl import NewTopic

from consumer.demo.broker import Broker, Kind
from consumer.demo.node import Node, fetch, free_ports, start_node
from tests.brokers import freeze
from tests.faults.proxy import Proxy

USER = "program"
PASSWORD = "secret"
SESSION_TIMEOUT_S = 4.0
"""After so long the group goes on without a member that is gone."""

PROPERTIES = {
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:SASL_PLAINTEXT,TLS:SSL,CONTROLLER:PLAINTEXT",
    "listener.name.proxied.sasl.enabled.mechanisms": "PLAIN",
    "listener.name.proxied.plain.sasl.jaas.config": (
        f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
    ),
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
    "super.users": "User:ANONYMOUS",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": str(int(SESSION_TIMEOUT_S * 1000)),
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "500",
    # A node that is gone is missed soon.
    "broker.session.timeout.ms": "6000",
    "broker.heartbeat.interval.ms": "1000",
    # Dead transactions and old segments are looked for often.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    "log.retention.check.interval.ms": "500",
    "log.cleaner.backoff.ms": "200",
    "log.initial.task.delay.ms": "500",
}


@dataclass(slots=True)
class Cluster:
    """The node and what stands before it."""

    node: Node
    proxy: Proxy
    broker: Broker
    """The way round the proxy."""
    libs: Path
    voters: str
    tls_port: int
    """Where it talks TLS, without the proxy."""
    certificates: Path
    """A directory with `node.pem`, by which the node is known, and `other.pem`, by which nobody is."""

    @property
    def client_settings(self) -> dict[str, Any]:
        """What the program needs under `kafka:`."""
        return {
            "bootstrap.servers": f"127.0.0.1:{self.proxy.port}",
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": USER,
            "sasl.password": PASSWORD,
            "consumer": {"session.timeout.ms": int(SESSION_TIMEOUT_S * 1000), "heartbeat.interval.ms": 500},
        }

    def admin(self) -> AdminClient:
        """Make a client that may do everything."""
        return AdminClient({"bootstrap.servers": self.broker.bootstrap_servers, "log_level": 0})

    def end_node(self, how: signal.Signals) -> None:
        """End the node's process and keep its directory."""
        assert self.node.process is not None
        if how is not signal.SIGKILL:
            self.node.process.send_signal(how)
            self.node.process.wait(30)
        self.node.kill()

    def fill_disk(self) -> None:
        """Let no file of the node grow any more, as on a full disk, and wait until it has given up."""
        assert self.node.process is not None
        resource.prlimit(self.node.process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        self.node.process.wait(30)
        self.node.kill()

    def restart(self) -> None:
        """Start the node again after it was killed, and wait until it answers."""
        self.node.start()

    @contextlib.contextmanager
    def second_node(self) -> Iterator[Node]:
        """Add a broker, with the number 2, for a block; the program reaches it without the proxy."""
        direct, behind = free_ports(2)
        listeners = f"PLAINTEXT://127.0.0.1:{direct},PROXIED://127.0.0.1:{behind}"
        properties = {
            **PROPERTIES,
            "process.roles": "broker",
            "node.id": "2",
            "listeners": listeners,
            "advertised.listeners": listeners,
            "controller.quorum.voters": self.voters,
        }
        node = start_node(self.libs, properties, port=direct)
        try:
            yield node
        finally:
            node.stop()

    def create(self, topic: str, replicas: Sequence[Sequence[int]], settings: Mapping[str, str] | None = None) -> None:
        """Create a topic whose partitions are on these nodes, the first one of each leading."""
        admin = self.admin()
        made = NewTopic(
            topic, len(replicas), replica_assignment=[list(each) for each in replicas], config=dict(settings or {})
        )
        admin.create_topics([made])[topic].result(10)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the node's process for a block, without ending it."""
        freeze(self.node)
        try:
            yield
        finally:
            self.node.kill(signal.SIGCONT)

    @contextlib.contextmanager
    def denied(
        self, name: str, operation: AclOperation = AclOperation.WRITE, kind: ResourceType = ResourceType.TOPIC
    ) -> Iterator[None]:
        """Forbid the program something about a topic, or another resource, for a block."""

        def rule(user: str, what: AclOperation, permission: AclPermissionType) -> AclBinding:
            return AclBinding(kind, name, ResourcePatternType.LITERAL, f"User:{user}", "*", what, permission)

        rules = [
            rule("*", AclOperation.ALL, AclPermissionType.ALLOW),
            rule(USER, operation, AclPermissionType.DENY),
        ]
        admin = self.admin()
        for future in admin.create_acls(rules).values():
            future.result(10)
        try:
            yield
        finally:
            anyone: Any = None
            everything = AclBindingFilter(
                kind, name, ResourcePatternType.LITERAL, anyone, anyone, AclOperation.ANY, AclPermissionType.ANY
            )
            for future in admin.delete_acls([everything]).values():
                future.result(10)

    def configure(self, topic: str, settings: Mapping[str, str]) -> None:
        """Change a topic's settings, and wait until the node goes by them."""
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in settings.items()
        ]
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
        admin = self.admin()
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(10)
        deadline_s = time.monotonic() + 10
        while not _has(admin, ConfigResource(ConfigResource.Type.TOPIC, topic), settings):
            assert time.monotonic() < deadline_s
            time.sleep(0.05)

    def delete_records(self, topic: str, lows: Mapping[int, int]) -> None:
        """Delete what lies below an offset of each partition, as retention does."""
        admin = self.admin()
        places = [TopicPartition(topic, partition, low) for partition, low in lows.items()]
        for future in admin.delete_records(places).values():
            future.result(10)

    def delete(self, topic: str) -> None:
        """Delete a topic, and wait until it is gone."""
        admin = self.admin()
        admin.delete_topics([topic])[topic].result(10)
        deadline_s = time.monotonic() + 10
        while topic in admin.list_topics(timeout=10).topics:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)


def _has(admin: AdminClient, resource: ConfigResource, settings: Mapping[str, str]) -> bool:
    (described,) = admin.describe_configs([resource]).values()
    found = described.result(10)
    return all(found[name].value == value for name, value in settings.items())


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a node from Apache Kafka's jars, for a block.

    Raises:
        BrokerError: they are not to be had, or the node does not start.
    """
    home = os.environ.get("KAFKA_HOME")
    libs = Path(home) / "libs" if home else fetch()
    direct, behind, tls, controller = free_ports(4)
    voters = f"1@127.0.0.1:{controller}"
    with Proxy(behind) as proxy, tempfile.TemporaryDirectory(prefix="inference-consumer-certificates-") as scratch:
        certificates = Path(scratch)
        listeners = f"PLAINTEXT://127.0.0.1:{direct},PROXIED://127.0.0.1:{behind},TLS://127.0.0.1:{tls}"
        properties = {
            **PROPERTIES,
            "listener.name.tls.ssl.keystore.location": str(_certify(certificates, "node")),
            "listener.name.tls.ssl.keystore.type": "PKCS12",
            "listener.name.tls.ssl.keystore.password": PASSWORD,
            "listener.name.tls.ssl.key.password": PASSWORD,
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": listeners.replace(str(behind), str(proxy.port)),
            "controller.quorum.voters": voters,
        }
        node = start_node(libs, properties, port=direct)
        try:
            broker = Broker(Kind.OWN, node.bootstrap_servers, "a node that may be mistreated", node=node)
            _certify(certificates, "other")
            yield Cluster(node, proxy, broker, libs, voters, tls, certificates)
        finally:
            node.stop()


def _certify(directory: Path, name: str) -> Path:
    """Make a key with a certificate of its own, written to `{name}.pem` as well; return the key's store."""
    store = directory / f"{name}.p12"
    common = ["keytool", "-alias", name, "-keystore", str(store), "-storetype", "PKCS12", "-storepass", PASSWORD]
    made = ["-genkeypair", "-keyalg", "EC", "-dname", f"CN={name}", "-ext", "san=ip:127.0.0.1", "-ext", "bc:c"]
    shown = ["-exportcert", "-rfc", "-file", str(directory / f"{name}.pem")]
    for what in (made, shown):
        subprocess.run([*common, *what], check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return store
