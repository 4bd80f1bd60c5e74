"""Transactions as brokers see them, without brokers: a coordinator, a group and topics that fail to order.

Owns what was appended and whether it counts, and the clients' errors. Must not know the sink. The errors are those that
librdkafka 2.16 gives for the same answers (seen with its mock cluster, `tests/contract/test_transaction_errors.py`).
"""

import json
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from consumer.core.types import TopicPartition
from consumer.errors import BrokerError
from consumer.kafka.operations import Offsets

QUEUE_MAX = 6
"""Records that a client has room for."""


class Topic(Enum):
    """How a topic behaves."""

    OPEN = "open"
    DENIED = "denied"
    """It refuses records, and takes marks."""
    LOST = "lost"
    """It has no leader: it takes neither records nor the marks of a transaction's end."""


class Fault(Enum):
    """What becomes of one end of a transaction."""

    NONE = "none"
    ABORTABLE = "abortable"
    """The coordinator refuses it, and the client can go on after an abort."""
    FATAL_BEFORE = "fatal before"
    """The client breaks, and the coordinator has heard nothing."""
    FATAL_AFTER = "fatal after"
    """The client breaks, and the coordinator has done as it was told."""
    SILENT = "silent"
    """The coordinator does not answer this client any more."""


class Cell(NamedTuple):
    """An outcome's value: which input it is of, and nothing else."""

    partition: int
    offset: int

    def encode(self) -> bytes:
        """Write it down."""
        return json.dumps(self).encode()

    @classmethod
    def decode(cls, value: bytes) -> "Cell":
        """Read it."""
        return cls(*json.loads(value))


@dataclass(slots=True)
class Transaction:
    """What an id has begun and not ended."""

    records: list[tuple[str, Cell]] = field(default_factory=list)
    topics: set[str] = field(default_factory=set)
    """Whatever it wants to write to, and so what has to take its marks."""
    offsets: dict[TopicPartition, tuple[int, str]] = field(default_factory=dict)


class Message(NamedTuple):
    """What a delivery report is about."""

    key_bytes: bytes | None
    value_bytes: bytes

    def key(self) -> bytes | None:
        """Return its key."""
        return self.key_bytes

    def value(self) -> bytes:
        """Return its value."""
        return self.value_bytes


def declared(partition: TopicPartition, offsets: Offsets) -> set[int]:
    """Name the offsets that a commit says are done."""
    offset, metadata = offsets.get(partition, (0, ""))
    return {*range(offset), *json.loads(metadata or "[]")}


class Cluster:
    """Coordinator, group and topics."""

    def __init__(self, topics: Iterable[str]) -> None:
        self.topics = dict.fromkeys(topics, Topic.OPEN)
        self.epochs: Counter[str] = Counter()
        self.open: dict[str, Transaction] = {}
        self.ending: dict[str, set[str]] = {}
        """Which topics have yet to take the marks of an id's last transaction."""
        self.seen: Counter[tuple[str, Cell]] = Counter()
        self.committed: dict[TopicPartition, tuple[int, str]] = {}
        self.generation = 0
        self.faults: deque[Fault] = deque()
        """Of the next ends."""
        self.is_unstable = 0
        """How often the question for the offsets is not answered."""

    def make(self, transactional_id: str) -> Any:
        """Make a client."""
        return Client(self, transactional_id)

    def offsets(self, partitions: Iterable[TopicPartition]) -> Offsets:
        """Answer what the group has committed."""
        if self.is_unstable:
            self.is_unstable -= 1
            raise BrokerError("the offsets are not stable")
        return {each: self.committed[each] for each in partitions if each in self.committed}

    def is_at_work(self, transactional_id: str) -> bool:
        """Tell whether an id's last transaction has no end yet."""
        lost = {topic for topic in self.ending.get(transactional_id, ()) if self.topics[topic] is Topic.LOST}
        self.ending[transactional_id] = lost
        return bool(lost)

    def begin_id(self, transactional_id: str) -> int:
        """End what an id left open, and let a client begin with it."""
        self.end(transactional_id, is_commit=False)
        if self.is_at_work(transactional_id):
            raise KafkaException(error(KafkaError.CONCURRENT_TRANSACTIONS, retriable=True))
        self.epochs[transactional_id] += 1
        return self.epochs[transactional_id]

    def end(self, transactional_id: str, *, is_commit: bool) -> None:
        """End a transaction: what it held counts, or does not."""
        ended = self.open.pop(transactional_id, None)
        if ended is None:
            return
        self.ending[transactional_id] = set(ended.topics)
        if is_commit:
            self.seen.update(ended.records)
            self.committed.update(ended.offsets)
            self.check()

    def check(self) -> None:
        """See that results and offsets agree: an input has an outcome, and one only, where it is declared done."""
        assert set(self.seen.values()) <= {1}, f"doubled: {[each for each, n in self.seen.items() if n > 1]}"
        cells = {(TopicPartition("in", cell.partition), cell.offset) for _, cell in self.seen}
        said = {(each, offset) for each in self.committed for offset in declared(each, self.committed)}
        assert cells == said, f"outcomes without offsets {cells - said}, offsets without outcomes {said - cells}"


def error(code: int, *, fatal: bool = False, retriable: bool = False, abortable: bool = False) -> KafkaError:
    """Make an error as the client would."""
    return KafkaError(code, "to order", fatal, retriable, abortable)


class Client:
    """A transactional client."""

    def __init__(self, cluster: Cluster, transactional_id: str) -> None:
        self.cluster, self.id = cluster, transactional_id
        self.epoch = 0
        self.queue: list[tuple[str, Message, Any]] = []
        self.failed: KafkaError | None = None
        """Why the open transaction cannot be committed."""
        self.broken: KafkaError | None = None
        self.is_deaf = False
        self.is_in_transaction = False

    def __len__(self) -> int:
        """Count the records that it has not heard of."""
        return len(self.queue)

    def init_transactions(self, _timeout_s: float) -> None:
        """Begin with the id."""
        self.epoch = self.cluster.begin_id(self.id)

    def begin_transaction(self) -> None:
        """Open a transaction, here only."""
        self._may_go_on()
        if self.failed is not None:
            raise KafkaException(self.failed)
        assert not self.is_in_transaction
        self.is_in_transaction = True

    def produce(self, topic: str, value: bytes, key: bytes | None, _partition: int, report: Any, *_more: Any) -> None:
        """Take a record."""
        assert self.is_in_transaction, "a record outside a transaction"
        if len(self.queue) >= QUEUE_MAX:
            raise BufferError
        if self.failed is not None or self.broken is not None:
            raise KafkaException(error(KafkaError._STATE))
        self.queue.append((topic, Message(key, value), report))

    def poll(self, _timeout_s: float) -> int:
        """Serve."""
        return self.flush(0)

    def flush(self, _timeout_s: float) -> int:
        """Send what topics take; return how much is left."""
        is_heard = not self.is_deaf and self.broken is None and self.failed is None
        if is_heard and self.queue and not self.cluster.is_at_work(self.id):
            if self._is_fenced():
                self._break(KafkaError._FENCED)
                return len(self.queue)
            left = []
            for topic, message, report in self.queue:
                state = self.cluster.topics[topic]
                transaction = self.cluster.open.setdefault(self.id, Transaction())
                if state is Topic.DENIED or self.failed is not None:
                    code = KafkaError.TOPIC_AUTHORIZATION_FAILED if state is Topic.DENIED else KafkaError._PURGE_QUEUE
                    self.failed = self.failed or error(code, abortable=True)
                    report(error(code), message)
                    continue
                transaction.topics.add(topic)
                if state is Topic.OPEN:
                    transaction.records.append((topic, Cell.decode(message.value())))
                else:
                    left.append((topic, message, report))
            self.queue = left
        return len(self.queue)

    def send_offsets_to_transaction(self, positions: list[ClientPartition], metadata: bytes, _timeout_s: float) -> None:
        """Add offsets to the transaction."""
        self._may_go_on()
        self._is_answered()
        if self.failed is not None:
            raise KafkaException(self.failed)
        if int(metadata) != self.cluster.generation:
            self.failed = error(KafkaError.ILLEGAL_GENERATION, abortable=True)
            raise KafkaException(self.failed)
        transaction = self.cluster.open.setdefault(self.id, Transaction())
        for each in positions:
            transaction.offsets[TopicPartition(each.topic, each.partition)] = each.offset, each.metadata or ""

    def commit_transaction(self, _timeout_s: float) -> None:
        """Have it counted."""
        self._may_go_on()
        if self.failed is not None:
            raise KafkaException(self.failed)
        if self.flush(0):
            raise KafkaException(error(KafkaError._TIMED_OUT, retriable=True))
        self._end(is_commit=True)

    def abort_transaction(self, _timeout_s: float) -> None:
        """Have it forgotten."""
        self._may_go_on()
        queue, self.queue = self.queue, []
        for _, message, report in queue:
            report(error(KafkaError._PURGE_QUEUE), message)
        self._end(is_commit=False)

    def purge(self, **_which: bool) -> None:
        """Give back what is queued."""
        queue, self.queue = self.queue, []
        for _, message, report in queue:
            report(error(KafkaError._PURGE_INFLIGHT), message)

    def _end(self, *, is_commit: bool) -> None:
        self._is_answered()
        fault = self.cluster.faults.popleft() if self.cluster.faults else Fault.NONE
        if fault is Fault.ABORTABLE and is_commit:
            self.failed = error(KafkaError.INVALID_TXN_STATE, abortable=True)
            raise KafkaException(self.failed)
        if fault is Fault.SILENT:
            self.is_deaf = True
            self._is_answered()
        if fault is not Fault.FATAL_BEFORE:
            self.cluster.end(self.id, is_commit=is_commit)
        if fault in {Fault.FATAL_BEFORE, Fault.FATAL_AFTER}:
            self._break(KafkaError._FATAL)
            self._may_go_on()
        self.is_in_transaction, self.failed = False, None

    def _break(self, code: int) -> None:
        self.broken = self.broken or error(code, fatal=True)

    def _may_go_on(self) -> None:
        if self.epoch and self._is_fenced():
            self._break(KafkaError._FENCED)
        if self.broken is not None:
            raise KafkaException(self.broken)

    def _is_answered(self) -> None:
        if self.is_deaf or self.cluster.is_at_work(self.id):
            raise KafkaException(error(KafkaError._TIMED_OUT, retriable=True))

    def _is_fenced(self) -> bool:
        return self.epoch != self.cluster.epochs[self.id]


def metadata_of(done: Mapping[int, bool], watermark: int) -> str:
    """Write down what is done beyond a watermark."""
    beyond = [offset for offset, is_done in done.items() if is_done and offset >= watermark]
    return json.dumps(beyond) if beyond else ""
