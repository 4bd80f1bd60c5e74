"""What the group's coordinator knows: where partitions were committed, and who this member is.

Owns the question for all that new partitions wait for, the reading of the answers, and the way out of the group. Must
not know the assignment.
"""

import contextlib
import sys
import threading
from collections.abc import Callable, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from consumer.core import offset_map
from consumer.core.types import TopicPartition
from consumer.errors import Complaint
from consumer.kafka.errors import described

POSITIONS_TIMEOUT_S = 2.0
"""How long the coordinator may take to tell committed offsets, before it is asked again."""
POSITIONS_WAIT_S = 0.1
"""How long the fetch that asks for them waits."""
NOT_TOLD = (
    "the committed offsets are not told: the group's coordinator does not answer, or an earlier member died within a "
    "transaction, which ends by its transaction.timeout.ms; the new partitions wait"
)
UNIDENTIFIED = "which topic of its name it is, is not told, and so what was done of it: {}; its new partitions wait"
UNREADABLE = (
    "partition {0.partition} is not read: the metadata of its commit names what was done beyond the offset, and is "
    "damaged; reset the group's offset there, which may double what lies beyond"
)
METADATA_MAGIC = b"CGMDv2:"
DROPPED_MAX = 10_000
"""How many records that nobody wants any more are taken at once."""


class Inquiry:
    """What new partitions wait for, asked in a thread of its own: the answers can be long in coming.

    A partition needs its committed offset, and its topic's identity: without that, what the commit's metadata says was
    done beyond the offset would be taken for another topic's, and be done twice.
    """

    def __init__(
        self, client: Consumer, topic_id: Callable[[str], str], asked: Sequence[TopicPartition], changes: int
    ) -> None:
        """Ask; `changes` says at which state of the assignment."""
        self.asked = asked
        self.changes = changes
        self.found: Sequence[ClientPartition] = ()
        self.topic_ids: dict[str, str] = {}
        self.refused: Complaint | None = None
        """Why there is no answer."""
        self._client = client
        self._topic_id = topic_id
        self._thread = threading.Thread(target=self._ask, name="source-positions", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float | None) -> bool:
        """Wait for the answer; tell whether it has come."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _ask(self) -> None:
        try:
            found = self._client.committed([ClientPartition(*each) for each in self.asked], timeout=POSITIONS_TIMEOUT_S)
        except KafkaException as error:
            reason = error.args[0]
            is_late = reason.code() == KafkaError._TIMED_OUT  # noqa: SLF001 - its name
            self.refused = Complaint(reason.name(), NOT_TOLD if is_late else described(reason), None)
            return
        for topic in sorted({each.topic for each in self.asked}):
            try:
                self.topic_ids[topic] = self._topic_id(topic)
            except KafkaException as error:
                reason = error.args[0]
                self.refused = Complaint(reason.name(), UNIDENTIFIED.format(described(reason)), topic)
                return
        self.found = found


def is_damaged(found: ClientPartition, topic_id: str) -> bool:
    """Tell whether a commit has an offset map of ours that cannot be read."""
    return offset_map.decode(found.metadata or "", found.offset, topic_id) is offset_map.Refusal.CORRUPT


def has_joined(metadata: bytes) -> bool:
    """Read the client's form of group metadata: magic, generation, group, NUL, member, NUL, instance."""
    if not metadata.startswith(METADATA_MAGIC):
        return False
    rest = metadata[len(METADATA_MAGIC) :]
    generation = int.from_bytes(rest[:4], sys.byteorder, signed=True)
    member = rest[4:].split(b"\0")[1:2]
    return generation >= 0 and member not in ([], [b""])


def leave(client: Consumer) -> None:
    """Leave the group, where the member is not a static one, and close the client.

    Two changes of the assignment that both meet the client's end can hang it: the answer to the first one ends the
    group's part of the client, and what answers the second one waits for ever, with the interpreter's lock held
    (librdkafka 2.16, `rd_kafka_cgrp_op_serve`). So whatever waits to be heard is heard just before.
    """
    with contextlib.suppress(KafkaException, RuntimeError):  # one that broke or is closed has nothing to say
        client.pause(client.assignment())
        while client.consume(DROPPED_MAX, 0):
            pass
    client.close()
