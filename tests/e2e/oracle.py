"""The universal oracle: what became of every input, read from Kafka by clients of their own.

Owns what was seen in result and dead-letter topics, and the judgement on commits sampled meanwhile. Must not know the
program, nor what a test does to it: a broker that does not answer just gives nothing to see for a while.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from confluent_kafka import Consumer, KafkaException, Message, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, TopicDescription

from schemas.codecs import decode_result
from schemas.headers import content_type, parse_dead_letter

WAIT_S = 60.0
ASK_S_MAX = 2.0
"""How long one question about topics may take before it is asked anew."""
SAMPLE_S = 0.2
STABLE_S = 25.0
"""How long readers of committed records may lag behind a committed transaction: as long as one before it is open, such
as that of a member that was killed, which the broker gives up 10 s after its timeout of 10 s at the latest."""

Place = tuple[int, int]
"""Partition and offset of an input."""


class UnseenError(Exception):
    """The broker does not answer now, so nothing can be said."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A result or a dead letter, as a subscriber sees it."""

    kind: str
    """`result`, or the dead letter's reason."""
    topic: str
    outputs: tuple[float, ...] = ()
    """The different numbers in a result's one tensor."""
    id: str | None = None
    """A result's id."""
    at_s: float = 0.0
    """When it was produced, in seconds since the epoch."""


class Archive:
    """Every outcome that was ever seen, also of topics that are gone; safe to use from several threads."""

    def __init__(self, servers: str, prefix: str, requests: str, since_s: float = 0.0) -> None:
        """Begin with nothing.

        Args:
            servers: Where the broker answers readers.
            prefix: What the names of all topics of a test begin with.
            requests: The input topic, which is no output.
            since_s: Outcomes from before this time are passed over, in seconds since the epoch.
        """
        self._since_ms = since_s * 1000
        self._servers = servers
        self._prefix = prefix
        self._requests = requests
        self._lock = threading.Lock()
        self._positions: dict[tuple[str, int], int] = {}
        """Where to read on, by topic id and partition."""
        self._seen: dict[tuple[str, int, int], tuple[Place, Outcome]] = {}
        """By topic id, partition and offset."""
        self._again: set[tuple[str, int, int]] = set()
        """What the last reading from the beginning brought, and those that went on from there."""

    def read(
        self, timeout_s: float = WAIT_S, *, whole: bool = False, is_partial: bool = False
    ) -> dict[Place, list[Outcome]]:
        """Read on to the end of all outputs, or read them anew from their beginning; return all that was ever seen.

        Args:
            timeout_s: How long that may take.
            whole: Read from the beginning.
            is_partial: Be content with what could be read in that time.

        Raises:
            UnseenError: the broker does not answer in time.
        """
        with self._lock:
            if whole:
                self._positions.clear()
                self._again.clear()
            try:
                self._read_on(time.monotonic() + timeout_s)
            except (KafkaException, UnseenError) as error:
                if not is_partial:
                    raise UnseenError(str(error)) from None
            found: dict[Place, list[Outcome]] = defaultdict(list)
            for place, outcome in self._seen.values():
                found[place].append(outcome)
            return found

    def account(self, place: Place) -> str:
        """Tell where each outcome of an input lies, when it was produced, and whether it can still be read."""
        with self._lock:
            return ", ".join(
                f"{outcome.topic} [{key[1]}] {key[2]} of {outcome.at_s:.3f}{'' if key in self._again else ' (gone)'}"
                for key, (source, outcome) in sorted(self._seen.items())
                if source == place
            )

    def _read_on(self, deadline_s: float) -> None:
        ids, places = {}, []
        for name, described in self._topics(deadline_s).items():
            ids[name] = str(described.topic_id)
            for each in described.partitions:
                at = self._positions.get((ids[name], each.id), 0)
                places.append(TopicPartition(name, each.id, at))
        reader = Consumer(
            {
                "bootstrap.servers": self._servers,
                "group.id": f"{self._prefix}.reader",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "log_level": 0,
            }
        )
        try:
            reader.assign(places)
            open_ends = {(each.topic, each.partition) for each in places}
            while open_ends:
                if time.monotonic() > deadline_s:
                    raise UnseenError(f"no end of {sorted(open_ends)}")
                for message in reader.consume(1000, 0.1):
                    topic, partition = str(message.topic()), int(message.partition() or 0)
                    if message.error() is None:
                        offset = int(message.offset() or 0)
                        if message.timestamp()[1] >= self._since_ms:
                            self._seen[ids[topic], partition, offset] = self._outcome(message)
                            self._again.add((ids[topic], partition, offset))
                        self._positions[ids[topic], partition] = offset + 1
                    else:
                        open_ends.discard((topic, partition))
        finally:
            reader.close()

    def _topics(self, deadline_s: float) -> dict[str, TopicDescription]:
        """Describe all outputs there are. A node that was just killed may still be named as the one to ask."""
        admin = AdminClient({"bootstrap.servers": self._servers, "log_level": 0})
        while True:
            names = [name for name in admin.list_topics(timeout=10).topics if name.startswith(self._prefix)]
            names = [name for name in names if name != self._requests]
            if not names:
                return {}
            asked = admin.describe_topics(TopicCollection(names), request_timeout=ASK_S_MAX)
            try:
                return {name: future.result(ASK_S_MAX + 1) for name, future in asked.items()}
            except (KafkaException, TimeoutError) as error:
                if time.monotonic() > deadline_s:
                    raise UnseenError(f"no description of {names}: {error}") from None

    def _outcome(self, message: Message) -> tuple[Place, Outcome]:
        headers = cast("list[tuple[str, bytes | None]]", message.headers() or [])
        topic = message.topic() or ""
        at_s = message.timestamp()[1] / 1000
        if topic.endswith(".dead-letters"):
            letter = parse_dead_letter(headers)
            assert letter is not None, f"{topic} holds what is no dead letter"
            assert letter.source.topic == self._requests
            return (letter.source.partition, letter.source.offset), Outcome(str(letter.reason), topic, at_s=at_s)
        result = decode_result(message.value() or b"", content_type(headers))
        source = result.source
        assert source is not None, "a result tells its source"
        assert source.topic == self._requests
        (output,) = result.outputs
        numbers = tuple(float(each) for each in np.unique(np.asarray(output.data)))
        return (source.partition, source.offset), Outcome("result", topic, numbers, result.id, at_s)


def committed(servers: str, group: str, topic: str, partitions: int, timeout_s: float = WAIT_S) -> dict[int, int]:
    """Ask for a group's committed offsets; 0 where there is none.

    Raises:
        UnseenError: the broker does not answer in time.
    """
    consumer = Consumer({"bootstrap.servers": servers, "group.id": group, "log_level": 0})
    try:
        places = [TopicPartition(topic, number) for number in range(partitions)]
        deadline_s = time.monotonic() + timeout_s
        while True:
            # A fresh cluster still makes its offsets topic, and then elects its coordinators.
            try:
                found = consumer.committed(places, timeout=max(0.1, min(10.0, deadline_s - time.monotonic())))
                problem: Any = next((each.error for each in found if each.error is not None), None)
            except KafkaException as error:
                problem = error
            if problem is None:
                return {each.partition: max(each.offset, 0) for each in found}
            if time.monotonic() > deadline_s:
                raise UnseenError(str(problem))
            time.sleep(0.05)
    finally:
        consumer.close()


class Sampler(threading.Thread):
    """Reads committed offsets, then the outcomes: what was committed first must have its outcome by then.

    Also, what was committed once is never taken back.
    """

    def __init__(
        self,
        look: Callable[[], Mapping[int, int]],
        archive: Archive,
        sent: Mapping[Place, object],
        *,
        is_transactional: bool = False,
        may_go_back: bool = False,
    ) -> None:
        """Take what is needed; `start` begins.

        Args:
            look: Asks for the committed offsets; may raise UnseenError.
            archive: The outcomes.
            sent: What the broker has taken as input, by place; it grows meanwhile.
            is_transactional: Whether outcomes become visible some time after their offsets were committed.
            may_go_back: Whether the test itself takes commits back (a topic is made anew).
        """
        super().__init__(name="sampler", daemon=True)
        self._look = look
        self._archive = archive
        self._sent = sent
        self._patience_s = STABLE_S if is_transactional else 0.0
        self._may_go_back = may_go_back
        self._highest: dict[int, int] = {}
        self._stopping = threading.Event()
        self.violations: list[str] = []
        self.samples = 0

    def run(self) -> None:
        """Sample until told to stop."""
        while not self._stopping.wait(SAMPLE_S):
            try:
                self._sample()
            except UnseenError:
                continue

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self.join(WAIT_S)

    def _sample(self) -> None:
        marks = self._look()
        for partition, offset in marks.items():
            if offset < self._highest.get(partition, 0) and not self._may_go_back:
                self.violations.append(f"partition {partition}: {offset} after {self._highest[partition]}")
            self._highest[partition] = offset
        deadline_s = time.monotonic() + self._patience_s
        while missing := self._missing(marks, self._archive.read(5.0)):
            if time.monotonic() >= deadline_s:
                self.violations += [f"{place} is below {marks[place[0]]} and has no outcome" for place in missing[:5]]
                break
            time.sleep(SAMPLE_S)
        self.samples += 1

    def _missing(self, marks: Mapping[int, int], outcomes: Mapping[Place, object]) -> list[Place]:
        return [place for place in list(self._sent) if place[1] < marks[place[0]] and place not in outcomes]
