"""The demo's own clients: what an upstream and a downstream of the consumer would be.

Owns topics, sender, reader and the questions about offsets. Must not know what an outcome means: it tells the tally.
"""

import threading
import time
from collections.abc import Sequence
from typing import cast

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from consumer.demo.broker import Broker
from consumer.demo.records import ID_HEADER, MODELS, Sending
from consumer.demo.service import Names
from consumer.demo.tally import Tally
from schemas.codecs import decode_result
from schemas.headers import content_type, parse_dead_letter
from schemas.records import BATCH_ROWS

PARTITIONS = 4
TIMEOUT_S = 30.0


def create_requests(broker: Broker, names: Names) -> None:
    """Create the input topic; the consumer creates the others."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    for created in admin.create_topics([NewTopic(names.requests, PARTITIONS, 1)]).values():
        created.result(TIMEOUT_S)


def delete_topics(broker: Broker, names: Names) -> None:
    """Delete the demo's topics, and wait for it."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    topics = [names.requests, names.dead_letters, *map(names.results, MODELS)]
    for deleted in admin.delete_topics(topics).values():
        deleted.exception(TIMEOUT_S)


class Sender(threading.Thread):
    """Produces the records at a steady rate.

    Args:
        broker: Where to.
        topic: The input topic.
        sendings: The records, in their order.
        rate: Records a second; 0 means as fast as it goes.
        tally: Told the time of each.
    """

    def __init__(self, broker: Broker, topic: str, sendings: Sequence[Sending], rate: float, tally: Tally) -> None:
        super().__init__(name="sender", daemon=True)
        self._producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "enable.idempotence": True})
        self._topic = topic
        self._sendings = sendings
        self._rate = rate
        self._tally = tally
        self.ends = [0] * PARTITIONS
        """The end of each partition, as acknowledged: the embedded broker tells it wrong when it is asked."""
        self.delivered = 0
        """Records that the broker took; complete once the thread has ended."""

    def run(self) -> None:
        """Send everything."""
        start_s = time.monotonic()
        for number, sending in enumerate(self._sendings):
            if self._rate and (ahead_s := start_s + number / self._rate - time.monotonic()) > 0:
                self._producer.poll(ahead_s)
            self._tally.send(sending.id, time.monotonic())
            self._producer.produce(
                self._topic,
                sending.value,
                key=sending.key,
                # Without it, three keys would fill at most three partitions.
                partition=number % PARTITIONS,
                headers=list(sending.headers),
                on_delivery=self._note,
            )
            self._producer.poll(0)
        self._producer.flush(TIMEOUT_S)

    def _note(self, error: KafkaError | None, message: Message) -> None:
        partition, offset = message.partition(), message.offset()
        if error is None and partition is not None and offset is not None:
            self.ends[partition] = max(self.ends[partition], offset + 1)
            self.delivered += 1


class Reader:
    """Reads results and dead letters, as services downstream do."""

    def __init__(self, broker: Broker, names: Names, tally: Tally) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": broker.bootstrap_servers,
                # Partitions are assigned below: no group is joined, and nothing is committed.
                "group.id": f"{names.group}-reader",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 20,
            }
        )
        self._dead_letters = names.dead_letters
        self._tally = tally
        topics = [names.dead_letters, *map(names.results, MODELS)]
        self._consumer.assign(
            [
                TopicPartition(topic, partition, OFFSET_BEGINNING)
                for topic in topics
                for partition in self._consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic].partitions
            ]
        )

    def read(self, timeout_s: float) -> int:
        """Read what is there, waiting for it up to `timeout_s`; returns how many outcomes came."""
        first = self._consumer.poll(timeout_s)
        if first is None:
            return 0
        messages = [each for each in (first, *self._consumer.consume(1000, timeout=0)) if each.error() is None]
        now_s = time.monotonic()
        for message in messages:
            if message.topic() == self._dead_letters:
                self._dead_letter(message)
            else:
                self._result(message, now_s)
        return len(messages)

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()

    def _result(self, message: Message, now_s: float) -> None:
        result = decode_result(message.value() or b"", content_type(_headers(message)))
        (scores,) = result.outputs
        assert result.id is not None, "a result carries its request's id"
        digit = int(np.argmax(scores.data))
        self._tally.result(result.id, digit, int(result.parameters[BATCH_ROWS]), now_s)

    def _dead_letter(self, message: Message) -> None:
        headers = _headers(message)
        letter = parse_dead_letter(headers)
        assert letter is not None, "a dead letter says so in its headers"
        self._tally.dead_letter(dict(headers)[ID_HEADER].decode(), letter.reason, letter.message)


def _headers(message: Message) -> list[tuple[str, bytes]]:
    """Take the headers that have a value."""
    headers = cast("list[tuple[str, bytes | None]]", message.headers() or [])
    return [(name, value) for name, value in headers if value is not None]


def committed(broker: Broker, names: Names) -> list[int]:
    """Ask for the committed offset of each partition of the input topic; 0 where nothing is committed."""
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": names.group})
    try:
        asked = [TopicPartition(names.requests, number) for number in range(PARTITIONS)]
        return [max(each.offset, 0) for each in consumer.committed(asked, timeout=TIMEOUT_S)]
    finally:
        consumer.close()
