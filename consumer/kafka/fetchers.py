"""Partitions in the client's words, and how the client is brought to fetch one again.

Owns what it takes where a pause's end or a seek is not enough. Must not know which partitions are to be fetched.
"""

import contextlib
from collections.abc import Collection, Iterable, Mapping

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from consumer.core.types import TopicPartition


def assign_anew(
    client: Consumer, partition: TopicPartition, held: Collection[TopicPartition], at: Mapping[TopicPartition, int]
) -> None:
    """Have the client drop a partition and take it again.

    A seek would not do: where the client's own question for committed offsets fails after an assignment (librdkafka
    2.16: by NOT_COORDINATOR), it never starts to fetch, and it refuses to seek in what it does not fetch.

    Args:
        client: the consumer.
        partition: the one to be taken again.
        held: all partitions that the client is to have.
        at: where they go on; one that is not in it begins as the client decides.

    Raises:
        KafkaException: the client does not take it.
    """

    def standing(partitions: Iterable[TopicPartition]) -> list[ClientPartition]:
        return [ClientPartition(*each, at.get(each, OFFSET_INVALID)) for each in partitions]

    with contextlib.suppress(KafkaException):  # it does not have it at all
        client.incremental_unassign(standing([partition]))
    try:
        client.incremental_assign(standing([partition]))
    except KafkaException:  # the group's protocol is eager: all or nothing
        client.assign(standing(held))


def core_partitions(partitions: Iterable[ClientPartition]) -> list[TopicPartition]:
    """Name partitions as the core does."""
    return [TopicPartition(each.topic, each.partition) for each in partitions]


def client_partitions(partitions: Iterable[TopicPartition]) -> list[ClientPartition]:
    """Name partitions as the client does."""
    return [ClientPartition(*each) for each in partitions]
