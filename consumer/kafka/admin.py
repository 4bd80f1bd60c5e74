"""Questions and orders to the cluster that are no part of the record path: is it there, which topics are, make one.

Owns the administrative client. Must not know models, workers or offsets in flight.
"""

import logging
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import AdminClient, ConfigResource
from confluent_kafka.cimpl import NewTopic

from consumer.core.types import TopicPartition
from consumer.errors import BrokerError
from consumer.kafka.errors import Complaints, described
from consumer.kafka.options import OutputOptions
from consumer.kafka.outlet import UNHEARD
from consumer.kafka.settings import Value

POLL_S = 0.05
"""Between two questions for something that is not there yet."""
REQUEST_TIMEOUT_S = 10.0
TOPIC_ID_TIMEOUT_S = 2.0
"""New partitions wait for it, and it is asked again."""
BROKERS_CHOICE = -1
"""As many partitions or replicas as the broker's settings say."""

T = TypeVar("T")


def wait_reachable(settings: Mapping[str, Value], timeout_s: float) -> bool:
    """Ask for the cluster's metadata until it answers; tell whether it did within `timeout_s`."""
    # Refused connections are expected while a node starts: the client is to keep quiet about them.
    admin = AdminClient({**settings, "log_level": 0, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100})
    deadline_s = time.monotonic() + timeout_s
    while (left_s := deadline_s - time.monotonic()) > 0:
        try:
            if admin.list_topics(timeout=min(1.0, left_s)).brokers:
                return True
        except KafkaException:
            time.sleep(POLL_S)
    return False


class Admin:
    """The administrative client. Each call waits for its answer, so none belongs in the record path."""

    def __init__(self, settings: Mapping[str, Value]) -> None:
        """Make the client; it connects with the first call.

        Args:
            settings: `ClientSettings.admin`.
        """
        self._settings = settings
        self._complaints = Complaints()
        self._client = self._connect()

    def _connect(self) -> AdminClient:
        made: dict[str, Any] = {"error_cb": self._complaints.note, "logger": logging.getLogger(__name__)}
        return AdminClient({**self._settings, **made})

    def _unanswered(self, error: KafkaError) -> None:
        """Ask through another client from now on where none of the brokers answered: it may know none (`contact`)."""
        if error.code() < 0:  # the client's own errors are negative
            self._client = self._connect()

    def topics(self, timeout_s: float = REQUEST_TIMEOUT_S) -> dict[str, int]:
        """Return the topics that this user may see, and how many partitions each has.

        Raises:
            BrokerError: no broker answers in time, with what the client complained about meanwhile.
        """
        try:
            found = self._client.list_topics(timeout=timeout_s).topics
        except KafkaException as error:
            self._client.poll(0)
            # "Timed out" alone says nothing; a refused login or an unknown host was complained of before.
            reasons = [each.message for each in self._complaints.take() if each.name != "_ALL_BROKERS_DOWN"]
            self._unanswered(error.args[0])
            raise BrokerError(f"no answer from Kafka: {reasons[0] if reasons else described(error.args[0])}") from None
        return {name: len(topic.partitions) for name, topic in found.items() if topic.error is None}

    def ensure(self, names: Collection[str], options: OutputOptions) -> list[str]:
        """See that output topics exist, creating those that are missing, and return the ones created.

        Returns only when clients can see them: a record produced before that would be refused, and creating a topic
        inside a transaction would stall it.

        Raises:
            BrokerError: topics are missing and may not be created, or the broker refuses to.
        """
        missing = sorted(set(names) - self.topics().keys())
        if not missing:
            return []
        if not options.create:
            raise BrokerError(
                f"missing topics: {', '.join(missing)}; create them, or set output.create: true to have that done"
            )
        topics = [
            NewTopic(
                name,
                options.partitions or BROKERS_CHOICE,
                options.replication_factor or BROKERS_CHOICE,
                config=dict(options.settings),
            )
            for name in missing
        ]
        for name, future in self._client.create_topics(topics, request_timeout=REQUEST_TIMEOUT_S).items():
            try:
                future.result(REQUEST_TIMEOUT_S)
            except KafkaException as error:
                # Another copy of the program may have been faster.
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise BrokerError(f"topic {name} cannot be created: {described(error.args[0])}") from None
        self._wait_visible(missing)
        return missing

    def bytes_max(self, names: Iterable[str]) -> dict[str, int]:
        """Return the `max.message.bytes` of topics; those whose settings the user may not read are left out."""
        wanted = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
        if not wanted:
            return {}
        found = {}
        for resource, future in self._client.describe_configs(wanted, request_timeout=REQUEST_TIMEOUT_S).items():
            settings = _answer(future)
            entry = settings.get("max.message.bytes") if settings is not None else None
            if entry is not None and entry.value is not None:
                found[str(resource.name)] = int(entry.value)
        return found

    def committed(self, group: str, partitions: Collection[TopicPartition]) -> dict[TopicPartition, tuple[int, str]]:
        """Return what a group has committed of partitions, with its metadata; open transactions are waited for.

        Raises:
            BrokerError: the coordinator does not tell.
        """
        # A consumer that joins nothing: while brokers were away, a process was ended by an assertion of librdkafka 2.16
        # (enq_once), and the administrative client's question for a group is what is suspected of it.
        reading = {"group.id": group, "isolation.level": "read_committed", "enable.auto.commit": False}
        client = Consumer({**self._settings, **reading, **UNHEARD})
        try:
            asked = [ClientPartition(*each) for each in partitions]
            found = client.committed(asked, timeout=REQUEST_TIMEOUT_S)
        except KafkaException as error:
            raise BrokerError(f"the committed offsets of group {group} are not known: {error}") from None
        finally:
            client.close()
        if refused := [str(each.error) for each in found if each.error is not None]:
            raise BrokerError(f"the committed offsets of group {group} are not known: {refused[0]}")
        return {
            TopicPartition(each.topic, each.partition): (each.offset, each.metadata or "")
            for each in found
            if each.offset >= 0
        }

    def topic_id(self, name: str) -> str:
        """Return what tells a topic from another one of its name; "" where the brokers have nothing of the kind.

        Raises:
            KafkaException: it is not told now.
        """
        futures = self._client.describe_topics(TopicCollection([name]), request_timeout=TOPIC_ID_TIMEOUT_S)
        try:
            return str(futures[name].result(REQUEST_TIMEOUT_S).topic_id)
        except KafkaException as error:
            if error.args[0].code() == KafkaError._UNSUPPORTED_FEATURE:  # noqa: SLF001 - its name
                return ""
            self._unanswered(error.args[0])
            raise
        except TimeoutError:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from None  # noqa: SLF001 - its name

    def _wait_visible(self, names: Collection[str]) -> None:
        deadline_s = time.monotonic() + REQUEST_TIMEOUT_S
        while unseen := set(names) - {name for name, partitions in self.topics().items() if partitions > 0}:
            if time.monotonic() > deadline_s:
                raise BrokerError(f"topics were created but cannot be seen: {', '.join(sorted(unseen))}")
            time.sleep(POLL_S)


def _answer(future: "Future[T]") -> T | None:
    """Return a future's result, or None where the broker refused: what was asked for is of use but not needed."""
    try:
        return future.result(REQUEST_TIMEOUT_S)
    except (KafkaException, TimeoutError):
        return None
