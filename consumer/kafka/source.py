"""Records in: one consumer of the group, its assignment, its positions and its commits.

Owns the client, and which partitions are this member's now. Must not know models, workers or which offsets are
settled. A callback only notes what happened: one that raises would destroy the fetched batch while the client's
position moves on.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, TypeAlias

from confluent_kafka import OFFSET_BEGINNING, OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as ClientPartition

from consumer.core.events import Assigned, Committed, Event, Fetched, Position, Revoked
from consumer.core.types import Slice, TopicPartition
from consumer.errors import ClientError, Complaint
from consumer.kafka.assignment import Assignment
from consumer.kafka.columns import model_rule, slices
from consumer.kafka.commits import Commits
from consumer.kafka.contact import FORGOTTEN, Contact, part_with
from consumer.kafka.errors import Complaints
from consumer.kafka.fetchers import assign_anew, client_partitions, core_partitions
from consumer.kafka.group import POSITIONS_WAIT_S, UNREADABLE, Inquiry, has_joined, is_damaged, leave
from consumer.kafka.options import InputOptions
from consumer.kafka.settings import Value

WATERMARK_TIMEOUT_S = 1.0
LOOK_TIMEOUT_S = 0.2  # the partitions of all other brokers wait meanwhile
LOOK_INTERVAL_S = 1.0
"""How often a quiet source looks for a partition that has fallen silent."""
ASK_AGAIN_S = 0.5
"""After a question about new partitions that was refused."""
STALL_S = 30.0
"""How long a partition may bring nothing before the source asks whether there is something."""
START_S = 5.0
"""The same for a partition that was just placed."""
STALLED = "nothing came though there are records: the partition is fetched anew"

OnRevoke: TypeAlias = Callable[[Sequence[TopicPartition]], None]
"""Called while partitions are about to be taken: may finish what is in flight and call `Source.commit_now`."""


class Source:
    """The consumer of the group. Every method is the loop thread's alone."""

    def __init__(
        self,
        settings: Mapping[str, Value],
        options: InputOptions,
        on_revoke: OnRevoke,
        *,
        never: Iterable[str] = (),
        topic_id: Callable[[str], str] = lambda _: "",
        needs_map: bool = False,
    ) -> None:
        """Make the client and subscribe; partitions come with a later `fetch`.

        Args:
            settings: the consumer's settings (`settings.compose`).
            options: topics and the rule for model names.
            on_revoke: finishes and commits what is in flight of partitions before they go; not called for lost ones.
            never: topics, or regular expressions starting with `^`, that are never input: the outputs. They matter
                where `options.topics` has a regular expression.
            topic_id: tells a topic from another one of its name (`Admin.topic_id`); asked at each assignment, from a
                thread of its own.
            needs_map: whether the offset map in a commit's metadata is data (exactly-once): a partition whose map is
                damaged is not read then, and a complaint says so.

        Raises:
            ClientError: the client refuses its settings.
        """
        self._rule = model_rule(options.model)
        is_one = len(options.topics) == 1 and not options.topics[0].startswith("^")
        self._only_topic = options.topics[0] if is_one else None
        self._on_revoke = on_revoke
        self._topic_id = topic_id
        self._starts_at_end = str(settings.get("auto.offset.reset")) in ("latest", "end", "largest")
        self._needs_map = needs_map
        self._assignment = Assignment()
        self._events: list[Event] = []
        self._changes = 0
        """Assignments and revocations so far."""
        self._inquiry: Inquiry | None = None
        self._ask_at_s = 0.0
        self._stopped: set[TopicPartition] = set()
        """Assigned, and never to be placed: their offset map is damaged."""
        self._gone_back: set[TopicPartition] = set()
        """Partitions to be placed again because the client went back behind their position."""
        self._raised: BaseException | None = None
        self._look_for_stalls_at_s = 0.0
        self._is_closing = False
        self._complaints = Complaints()
        self.skipped: Counter[TopicPartition] = Counter()
        """Positions that retention removed before they were fetched, since the start."""
        self._settings = {**settings, **options.never_read(never, settings)}
        self._topics = list(options.topics)
        self._connect()

    def _connect(self) -> None:
        """Make the client and subscribe."""
        self._contact = Contact()
        self._commits = Commits(self._assignment, self._events)
        made: dict[str, Any] = {
            **self._settings,
            "on_commit": self._commits.note,
            "error_cb": self._complaints.note,
            "stats_cb": self._contact.note,
            "logger": logging.getLogger(__name__),
        }
        try:
            self._client = Consumer(made)
            self._client.subscribe(
                self._topics,
                on_assign=self._note_assigned,
                on_revoke=self._note_revoked,
                on_lost=self._note_lost,
            )
        except KafkaException as error:
            raise ClientError(f"the consumer cannot start: {error.args[0].str()}") from None

    def _connect_anew(self) -> None:
        """Make another client, as if this one had lost its partitions to somebody."""
        self._commits.end()
        self._forget([*self._assignment.owned, *self._assignment.unplaced])
        inquiry, self._inquiry = self._inquiry, None
        part_with(self._client, lambda: inquiry is None or inquiry.wait(None))
        self._complaints = Complaints()
        self._complaints.add("_ALL_BROKERS_DOWN", FORGOTTEN)
        self._connect()

    def fetch(self, records_max: int, timeout_s: float) -> list[Event]:
        """Return what happened: assignments, revocations, answers to commits and, as one `Fetched`, records.

        Waits up to `timeout_s` for the first record, then takes what is there. With `records_max` 0 the client is
        polled only while all partitions are paused: if there is no room for long, pause them, or the group takes this
        member for dead. `on_revoke` may be called meanwhile; `Revoked` comes after it.

        Raises:
            ClientError: the client met a fatal error.
        """
        may_poll = records_max > 0 or self._assignment.owned <= self._assignment.paused
        messages = self._consume(max(records_max, 1), timeout_s) if may_poll else []
        if self._raised is not None:
            raised, self._raised = self._raised, None
            self._seek_back()
            raise raised
        if self._complaints.fatal is not None:
            raise ClientError(f"the consumer is broken for good: {self._complaints.fatal}")
        if self._contact.is_lost:
            self._connect_anew()
        sifted = self._assignment.sift(slices(messages, self._rule, self._only_topic) if messages else ())
        if self._assignment.unplaced:
            self._place()
        now_s = time.monotonic()
        admitted, gone_back = self._assignment.admit(sifted, now_s)
        for part in admitted:
            self._advance(part)
        events = self._events.copy()
        self._events.clear()
        if admitted:
            events.append(Fetched(admitted))
        if may_poll and now_s >= self._look_for_stalls_at_s:
            self._look_for_stalls(now_s)
        if gone_back:
            self._place_again(gone_back)
        return events

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Stop fetching from partitions; what was fetched ahead of them is dropped and will be fetched again."""
        may_pause = self._assignment.owned - self._assignment.paused
        chosen = [each for each in partitions if each in may_pause]
        if chosen:
            self._client.pause(client_partitions(chosen))
            self._assignment.paused.update(chosen)

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """Fetch from paused partitions again; others are left alone (a resume too many fetches twice)."""
        chosen = [each for each in partitions if each in self._assignment.paused]
        if chosen:
            self._client.resume(client_partitions(chosen))
            self._assignment.resume(chosen, time.monotonic())
            # The client's threads that fetch (librdkafka 2.16) sleep on for up to a second: a seek wakes them.
            for each in self._assignment.next.keys() & chosen:
                self._seek(each)

    def commit(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> None:
        """Ask for a commit of next offsets with metadata; the answer is a `Committed` of a later fetch."""
        self._commits.ask(self._client, offsets)

    def commit_now(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> list[Committed]:
        """Commit and wait for the answer; also inside `on_revoke`, for partitions that are about to go."""
        return self._commits.ask_now(self._client, offsets)

    def group_metadata(self) -> bytes | None:
        """Return what a transaction's commit is to be fenced by; None unless this member has joined its group.

        The broker checks no commit of somebody who says that he is no member.
        """
        metadata = self._client.consumer_group_metadata()
        return metadata if metadata is not None and has_joined(metadata) else None

    def lag(self) -> dict[TopicPartition, int]:
        """Return, per partition of this member, how many offsets lie between the last commit and the known end."""
        lags = {}
        for each in self._assignment.owned:
            _, end = self._client.get_watermark_offsets(ClientPartition(*each), cached=True)
            base = self._assignment.committed.get(each, self._assignment.next.get(each))
            if end >= 0 and base is not None:
                lags[each] = max(0, end - base)
        return lags

    def complaints(self) -> list[Complaint]:
        """Return what the client complained about since the last call, each kind once."""
        return self._complaints.take()

    @property
    def partitions(self) -> Collection[TopicPartition]:
        """The partitions of this member that the core was told of."""
        return frozenset(self._assignment.owned)

    def close(self, timeout_s: float) -> bool:
        """Leave the group, after the last commit; tell whether the client came back in time.

        It does not after an exception in one of its calls, nor when the coordinator has fenced it: end the process.
        """
        self._is_closing = True
        closing = threading.Thread(target=self._close, name="source-close", daemon=True)
        closing.start()
        closing.join(timeout_s)
        return not closing.is_alive()

    def _close(self) -> None:
        if self._inquiry is not None:
            self._inquiry.wait(None)  # a client must not be closed under a call
        leave(self._client)

    # -- the client's calls ------------------------------------------------------------------------------------------

    def _consume(self, records_max: int, timeout_s: float) -> Sequence[Message]:
        try:
            # consume(n, t) waits for n records or the whole of t: take what is there, else wait for one.
            messages = self._client.consume(records_max, 0)
            if not messages and timeout_s > 0 and not self._events:
                first = self._client.poll(timeout_s)
                if first is not None:
                    messages = [first]
                    if records_max > 1 and first.error() is None:
                        messages += self._client.consume(records_max - 1, 0)
        except KafkaException as error:
            self._complaints.note(error.args[0])
            self._seek_back()
            return []
        except BaseException:
            self._seek_back()
            raise
        return self._complaints.sift(messages) if any(map(Message.error, messages)) else messages

    def _seek_back(self) -> None:
        """Return to the last handed-on position everywhere: a fetched batch is not going to be handed on."""
        for each in self._assignment.unplaced:
            self._assignment.displace(each)
        for each in self._assignment.owned:
            self._seek(each)

    def _seek(self, partition: TopicPartition) -> None:
        at = self._assignment.next.get(partition, OFFSET_BEGINNING)
        try:
            self._client.seek(ClientPartition(partition.topic, partition.partition, at))
        except KafkaException as error:
            self._complaints.note(error.args[0], partition.topic)

    # -- where partitions stand --------------------------------------------------------------------------------------

    def _place(self) -> None:
        """Ask for what new partitions need to be placed; without an answer they wait for a later fetch."""
        wait_s = 0.0
        if self._inquiry is None:
            asked = [each for each in self._assignment.unplaced if each not in self._stopped]
            if not asked or time.monotonic() < self._ask_at_s:
                return
            self._inquiry = Inquiry(self._client, self._topic_id, asked, self._changes)
            wait_s = POSITIONS_WAIT_S
        if not self._inquiry.wait(wait_s):
            return
        inquiry, self._inquiry = self._inquiry, None
        if inquiry.refused is not None:
            self._complaints.add(inquiry.refused.name, inquiry.refused.message, inquiry.refused.topic)
            self._ask_at_s = time.monotonic() + ASK_AGAIN_S
            return
        if inquiry.changes != self._changes:
            return  # another member may have had them since
        positions = {}
        for each in inquiry.found:
            partition = TopicPartition(each.topic, each.partition)
            topic_id = inquiry.topic_ids[each.topic]
            if each.error is not None:
                self._complaints.note(each.error, each.topic)
            elif self._needs_map and each.offset >= 0 and is_damaged(each, topic_id):
                self._stopped.add(partition)
                self._assignment.displace(partition)
                self._client.pause([each])
                self._complaints.add("CORRUPT_METADATA", UNREADABLE.format(partition), each.topic)
            else:
                positions[partition] = self._position(partition, each, topic_id)
        if positions:
            self._events.append(Assigned(positions))

    def _position(self, partition: TopicPartition, found: ClientPartition, topic_id: str) -> Position:
        """Decide where a partition starts, and bring the client there if it is elsewhere."""
        next_offset = found.offset if found.offset >= 0 else None
        end = self._watermarks(partition)[1] if next_offset is None or partition in self._gone_back else None
        if next_offset is not None and end is not None and 0 <= end < next_offset:
            next_offset = None  # what was committed is no longer there: the topic was cut short or made anew
        self._gone_back.discard(partition)
        begin = next_offset
        if next_offset is None and self._starts_at_end:
            # The client looks for the end on its own, later or earlier: start where the core is told we do.
            begin = end
            self._assignment.displace(partition)
        if self._assignment.place(partition, begin, time.monotonic()):
            self._seek(partition)
        if next_offset is None:
            return Position(None, topic_id=topic_id)
        self._assignment.committed[partition] = next_offset
        return Position(next_offset, found.metadata or "", topic_id)

    def _place_again(self, gone_back: AbstractSet[TopicPartition]) -> None:
        """Start partitions anew whose offsets went back, as if they had been lost and assigned."""
        self._gone_back |= gone_back
        self._events.append(Revoked(self._assignment.forget(gone_back)))
        self._assignment.assign(gone_back)
        for each in gone_back:
            self._assignment.displace(each)

    def _advance(self, part: Slice) -> None:
        """Move the partition's position on, and count what retention removed in between."""
        gaps = self._assignment.advance(part)
        if gaps:
            # A gap is mostly a transaction's marker or compaction. Only what lies below the first offset that the
            # partition still has was removed unread; the client learns that offset with every fetch.
            low, _ = self._client.get_watermark_offsets(ClientPartition(*part.partition), cached=True)
            skipped = sum(max(0, min(gap.stop, low) - gap.start) for gap in gaps)
            if skipped:
                self.skipped[part.partition] += skipped

    def _watermarks(self, partition: TopicPartition, timeout_s: float = WATERMARK_TIMEOUT_S) -> tuple[int, int]:
        """Ask for a partition's first offset and its end; negative where the broker does not say."""
        try:
            found = self._client.get_watermark_offsets(ClientPartition(*partition), timeout=timeout_s)
        except KafkaException as error:
            self._complaints.note(error.args[0], partition.topic)
            found = None
        return found or (OFFSET_INVALID, OFFSET_INVALID)

    def _look_for_stalls(self, now_s: float) -> None:
        """Fetch the most silent partition anew if it has something: one at a time, as a broker may be slow to say."""
        self._look_for_stalls_at_s = now_s + LOOK_INTERVAL_S
        silent = self._assignment.most_silent(now_s - STALL_S, now_s - START_S)
        if silent is None:
            return
        self._assignment.heard_s[silent] = now_s
        low, end = self._watermarks(silent, LOOK_TIMEOUT_S)
        if end >= 0:
            self._assignment.fresh.discard(silent)
        if end > self._assignment.next.get(silent, low):
            self._complaints.note(KafkaError(KafkaError._TIMED_OUT, STALLED), silent.topic)  # noqa: SLF001 - its name
            self._client.resume(client_partitions([silent]))
            held = self._assignment
            try:
                assign_anew(self._client, silent, [*held.owned, *held.unplaced], held.next)
            except KafkaException as error:
                self._complaints.note(error.args[0], silent.topic)

    # -- callbacks: they run inside the client's calls, on the same thread, and never raise ---------------------------

    def _note_assigned(self, client: Consumer, partitions: list[ClientPartition]) -> None:
        if client is not self._client:
            return
        self._changes += 1
        self._assignment.assign(core_partitions(partitions))

    def _note_revoked(self, client: Consumer, partitions: list[ClientPartition]) -> None:
        if self._is_closing or client is not self._client:
            return
        going = core_partitions(partitions)
        known = [each for each in going if each in self._assignment.owned]
        if known:
            try:
                self._on_revoke(known)
            except BaseException as error:  # noqa: BLE001 - kept, and raised when the client's call has returned
                self._raised = error
        self._forget(going)

    def _note_lost(self, client: Consumer, partitions: list[ClientPartition]) -> None:
        if client is self._client and not self._is_closing:
            self._forget(core_partitions(partitions))

    def _forget(self, going: Sequence[TopicPartition]) -> None:
        # A pause would outlive the assignment in this client, and the partition would come back paused.
        paused = [each for each in going if each in self._assignment.paused | self._stopped]
        if paused:
            try:
                self._client.resume(client_partitions(paused))
            except KafkaException as error:
                self._complaints.note(error.args[0])
        known = self._assignment.forget(going)
        self._changes += 1
        self._stopped.difference_update(going)
        self._gone_back.difference_update(going)
        if known:
            self._events.append(Revoked(known))
