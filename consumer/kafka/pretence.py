"""Brokers that say yes to every step of a transaction, and do nothing of it: found out before anything is consumed.

Owns the question that tells them. Must not know outcomes.

Theory of operation. While offsets are pending in an open transaction, whoever asks for stable ones has to wait. Brokers
that answer at once have not taken them down. The group of the question is nobody's, and the transaction is aborted, so
that nothing is left of it. Brokers that refuse a step, for want of a permission, say, do not pretend.
"""

import logging
import time
from collections.abc import Mapping
from functools import partial

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from consumer.errors import BrokerError
from consumer.kafka.operations import Ending, Operation, end
from consumer.kafka.settings import Value

COORDINATOR_TIMEOUT_S = 5.0
PENDING_S = 0.5
"""An answer that takes so long is not coming while the offsets are pending."""
PRETENDED = (
    "delivery: exactly-once needs transactions, and these brokers only pretend to have them: use Apache Kafka or "
    "another complete broker, or set delivery: at-least-once"
)


def examine(settings: Mapping[str, Value], group: str, topic: str, client: Producer, operation: Operation) -> Ending:
    """See that an open transaction's offsets are pending; in a thread, with a client that has begun none.

    Args:
        settings: `ClientSettings.admin`.
        group: a group that nobody is in.
        topic: an existing topic.
        client: the transactional client.
        operation: the thread that this is in.

    Raises:
        BrokerError: the brokers do not keep what they acknowledge in a transaction.
    """
    made = {**settings, "group.id": group, "isolation.level": "read_committed", "enable.auto.commit": False}
    asking = Consumer({**made, "logger": logging.getLogger(__name__)})
    pretends = False
    try:
        place = TopicPartition(topic, 0, 0)
        asking.committed(
            [place], COORDINATOR_TIMEOUT_S
        )  # a coordinator that is known: the next call may not wait for it
        client.begin_transaction()
        send = partial(client.send_offsets_to_transaction, [place], asking.consumer_group_metadata())
        operation.repeat(send, time.monotonic() + COORDINATOR_TIMEOUT_S)
        (answer,) = asking.committed([place], PENDING_S)
        pretends = answer.error is None
    except KafkaException:
        pass  # it made us wait, or refused
    finally:
        asking.close()
    if pretends:
        raise BrokerError(PRETENDED)
    return end(client, None, operation)
