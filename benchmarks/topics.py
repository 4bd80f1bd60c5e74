"""Topics and offsets as the benchmarks see them: clients that are kept, questions that cost the broker little."""

import time

from confluent_kafka import OFFSET_END, Consumer, ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

PARTITIONS = 4
TIMEOUT_S = 30.0


class Topics:
    """A cluster's topics; every topic here has as many partitions as the next."""

    def __init__(self, bootstrap: str) -> None:
        # Level 0 keeps them quiet when the broker is stopped before they are gone.
        quiet: dict[str, str | int | float | bool] = {"bootstrap.servers": bootstrap, "log_level": 0}
        self._admin = AdminClient(quiet)
        self._consumer = Consumer(quiet | {"group.id": "unused"})

    def create(self, topic: str) -> None:
        """Create a topic, and wait until its partitions are led."""
        for created in self._admin.create_topics([NewTopic(topic, PARTITIONS, 1)]).values():
            created.result(TIMEOUT_S)
        deadline_s = time.monotonic() + TIMEOUT_S
        while not self._is_led(topic):
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"nobody leads topic {topic}")
            time.sleep(0.05)

    def delete(self, topic: str) -> None:
        """Delete a topic: the disk holds one run's results at a time."""
        for deleted in self._admin.delete_topics([topic]).values():
            deleted.result(TIMEOUT_S)

    def clear(self, topic: str) -> None:
        """Delete the records that a topic holds; its offsets go on."""
        ends = [TopicPartition(topic, number, OFFSET_END) for number in range(PARTITIONS)]
        for cleared in self._admin.delete_records(ends).values():
            cleared.result(TIMEOUT_S)

    def end(self, topic: str) -> int:
        """Count a new topic's records by its end offsets."""
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        return sum(self._consumer.get_watermark_offsets(each, timeout=TIMEOUT_S)[1] for each in partitions)

    def committed(self, group: str, topic: str) -> int:
        """Sum a group's committed offsets."""
        asked = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        answers = self._admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group, asked)])
        (answer,) = answers.values()
        return sum(max(each.offset, 0) for each in answer.result(TIMEOUT_S).topic_partitions)

    def _is_led(self, topic: str) -> bool:
        # A client that asks for a topic before it is in the metadata believes for half a minute that there is none;
        # and a leader that stands in the metadata may still be about to become one.
        found = self._admin.list_topics(timeout=TIMEOUT_S).topics.get(topic)
        if found is None or [each.leader >= 0 for each in found.partitions.values()] != [True] * PARTITIONS:
            return False
        try:
            self.end(topic)
        except KafkaException:
            return False
        return True
