"""The partitions this member has: what was fetched of each, what is settled, what is resolved, what to commit.

Owns two ledgers per partition and the flow control over all. Must not know models, workers or the sink.

A record is *settled* when its outcome was handed to the sink: then it weighs on the budget of records and on the window
no more, and its outcome weighs on the budget of bytes in its place. It is *resolved* when the broker has acknowledged
the outcome: then that weighs no more, and the watermark may pass it. Both ledgers of a
partition are opened together, so that they agree in generations and positions.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from consumer.core import offset_map
from consumer.core.events import Position
from consumer.core.flow import Decision, Flow, FlowOptions
from consumer.core.ledger import Ledgers
from consumer.core.types import Amount, Generation, Run, Slice, TopicPartition


@dataclass(frozen=True, slots=True)
class Admitted:
    """A slice, and where its records stand in the ledger."""

    fetched: Slice
    """The slice, without records that were here already."""
    generation: Generation
    positions: range
    indices: list[int] | None
    """The records that have no outcome yet; None for all of them."""
    size: int
    """Payload bytes of the records that have no outcome yet."""
    has_tombstones: bool = True
    """Whether any of the records may have no value."""


class Partitions:
    """Every assigned partition."""

    def __init__(self, options: FlowOptions, uncommitted_max: int) -> None:
        """Start with none; `uncommitted_max` settled records of a partition may wait for a commit beside the window."""
        self._uncommitted_max = uncommitted_max
        self._committed_heads: dict[TopicPartition, int] = {}
        """The position that the last commit reached: what lies above would be inferred again after a crash."""
        self._flow = Flow(options)
        self._settled = Ledgers()
        self._resolved = Ledgers()
        self._committed: dict[TopicPartition, tuple[int, str]] = {}
        self._topic_ids: dict[TopicPartition, str] = {}
        self._mapless: set[TopicPartition] = set()
        """Partitions whose offset map the broker does not take."""

    def __contains__(self, partition: object) -> bool:
        """Tell whether a partition is assigned."""
        return partition in self._resolved

    def __len__(self) -> int:
        """Count the assigned partitions."""
        return len(self._resolved)

    def __iter__(self) -> Iterator[TopicPartition]:
        """Walk the assigned partitions."""
        return iter(self._resolved)

    @property
    def records(self) -> int:
        """Records fetched and not settled."""
        return self._flow.records

    @property
    def size(self) -> int:
        """Payload bytes that are held."""
        return self._flow.size

    def assign(self, positions: Mapping[TopicPartition, Position]) -> list[tuple[TopicPartition, str]]:
        """Open partitions where they were committed; list those whose commit metadata is not usable, and why."""
        refused = []
        for partition, position in positions.items():
            completed = b""
            if position.next_offset is not None:
                self._committed[partition] = (position.next_offset, position.metadata)
                read = offset_map.decode(position.metadata, position.next_offset, position.topic_id)
                if isinstance(read, bytes):
                    completed = read
                else:
                    refused.append((partition, read.value))
            self._topic_ids[partition] = position.topic_id
            self._open(partition, position.next_offset, completed)
        self._flow.assign(positions)
        return refused

    def revoke(self, partitions: Collection[TopicPartition]) -> None:
        """Fence and forget partitions."""
        self._settled.close(partitions)
        self._resolved.close(partitions)
        self._flow.revoke(partitions)
        for partition in partitions:
            self._committed.pop(partition, None)
            self._topic_ids.pop(partition, None)
            self._committed_heads.pop(partition, None)
            self._mapless.discard(partition)

    def admit(self, fetched: Slice) -> Admitted | None:
        """Take a slice into the ledgers; None if it is another member's now, or here already."""
        partition = fetched.partition
        if partition not in self._resolved:
            return None
        if not self._resolved[partition].accepts(fetched.offsets[0]):
            ledger = self._resolved[partition]
            if fetched.offsets[0] > (ledger.next_offset or 0):
                # Fetched twice, with open records below: a new generation would leave these out.
                fetched = fetched.rest(bisect_left(fetched.offsets, ledger.fetch_offset or 0))
                if not fetched.offsets:
                    return None
            else:
                # Offsets went back behind everything open: the topic was made anew, or is to be read again.
                self._flow.revoke([partition])
                self._flow.assign([partition])
                self._open(partition, None, b"")
        offsets = fetched.offsets
        resolved, settled = self._resolved[partition], self._settled[partition]
        had_completed = resolved.has_completed
        first = resolved.admit(offsets)
        settled.admit(offsets)
        positions = range(first, first + len(offsets))
        indices = None
        if had_completed:
            unresolved = resolved.unresolved(first, positions.stop)
            if len(unresolved) < len(positions):
                indices = [position - first for position in unresolved]
        values = fetched.values if indices is None else [fetched.values[i] for i in indices]
        size, has_tombstones = _measure(values)
        self._flow.admit(partition, len(values), size, self._span(partition))
        return Admitted(fetched, resolved.generation, positions, indices, size, has_tombstones)

    def hold(self, run: Run) -> None:
        """Take note that copies of the payloads of a run are held, beside those that it came with."""
        self._flow.admit(run.partition, 0, run.size, self._span(run.partition))

    def drop(self, runs: Iterable[Run]) -> None:
        """Take note that the payloads of runs are held no more."""
        for run in runs:
            if self.is_current(run):
                self._flow.resolve(run.partition, 0, run.size, self._span(run.partition))

    def is_current(self, run: Run) -> bool:
        """Tell whether a run's partition is still assigned, in the run's generation."""
        return self._resolved.current(run.partition, run.generation) is not None

    def settle(self, runs: Iterable[Run]) -> None:
        """Take note that the outcomes of these records, `size` bytes each run, were handed to the sink."""
        for run in runs:
            ledger = self._settled.current(run.partition, run.generation)
            assert ledger is not None, "outcomes of an earlier generation are dropped before they are settled"
            ledger.resolve(run.positions)
            span = self._span(run.partition)
            self._flow.resolve(run.partition, len(run), 0, span)
            self._flow.admit(run.partition, 0, run.size, span)

    def resolve(self, runs: Iterable[Run]) -> None:
        """Take note that the broker has acknowledged the outcomes of these records."""
        for run in runs:
            ledger = self._resolved.current(run.partition, run.generation)
            if ledger is not None:
                ledger.resolve(run.positions)
                self._flow.resolve(run.partition, 0, run.size, self._span(run.partition))

    def commits(self) -> dict[TopicPartition, tuple[int, str]]:
        """Say what to commit of each partition that has news: the next offset and the metadata."""
        news = {}
        for partition in self._resolved:
            ledger = self._resolved[partition]
            next_offset = ledger.next_offset
            if next_offset is None:
                continue
            metadata = ""
            if partition not in self._mapless:
                completed = ledger.completed(offset_map.SPAN_MAX)
                metadata = offset_map.encode(next_offset, completed, self._topic_ids[partition])
            commit = next_offset, metadata
            if commit != self._committed.get(partition):
                news[partition] = commit
        return news

    def heads(self) -> dict[TopicPartition, int]:
        """Say which position each partition's watermark stands at, for `committed` to be told again."""
        return {partition: self._resolved[partition].head for partition in self._resolved}

    def committed(self, offsets: Mapping[TopicPartition, tuple[int, str]], heads: Mapping[TopicPartition, int]) -> None:
        """Take note that the broker has taken a commit, which was made when the watermarks stood at `heads`."""
        for partition, commit in offsets.items():
            if partition in self._resolved:
                self._committed[partition] = commit
                self._committed_heads[partition] = heads[partition]
                self._flow.resolve(partition, 0, 0, self._span(partition))

    def leave_maps_out(self, partitions: Iterable[TopicPartition]) -> list[TopicPartition]:
        """Commit these partitions without their offset maps from now on; return those that had them until now."""
        had = [each for each in partitions if each in self._resolved and each not in self._mapless]
        self._mapless.update(had)
        return had

    def fits(self, run: Run) -> bool:
        """Tell whether the next commit can name all records of a run, should they be completed and others not."""
        next_offset = self._resolved[run.partition].next_offset
        return next_offset is None or run.offsets[-1] - next_offset < offset_map.SPAN_MAX

    def watermarks(self) -> dict[TopicPartition, int]:
        """Say the next offset of each partition where one is known."""
        marks = {partition: self._resolved[partition].next_offset for partition in self._resolved}
        return {partition: offset for partition, offset in marks.items() if offset is not None}

    def fetch_offsets(self) -> dict[TopicPartition, int]:
        """Say where each partition goes on, should what the client fetched last be lost."""
        marks = {partition: self._resolved[partition].fetch_offset for partition in self._resolved}
        return {partition: offset for partition, offset in marks.items() if offset is not None}

    def filled(self, partition: TopicPartition, records: int, size: int) -> float:
        """Say how much of what a partition may hold is taken up by these records; see `Flow.filled`."""
        return self._flow.filled(partition, records, size)

    def wait(self, waiting: Mapping[TopicPartition, Amount]) -> None:
        """Take note of the records that wait for models that take none now; see `Flow.wait`."""
        self._flow.wait(waiting)

    def decide(self, now: float) -> Decision:
        """Say how much to fetch and what to pause or resume; see `Flow.decide`."""
        return self._flow.decide(now)

    def _span(self, partition: TopicPartition) -> int:
        """Measure a partition's window: what is not settled, or what is not committed beyond what may wait for that."""
        uncommitted = self._resolved[partition].tail - self._committed_heads.get(partition, 0)
        return max(self._settled[partition].span, uncommitted - self._uncommitted_max)

    def _open(self, partition: TopicPartition, start: int | None, completed: bytes) -> None:
        """Begin a generation in both ledgers."""
        self._committed_heads.pop(partition, None)
        resolved = self._resolved.open(partition, start, completed)
        settled = self._settled.open(partition, start, completed)
        assert resolved.generation == settled.generation, "both ledgers are opened together"


def _measure(values: Sequence[bytes | None]) -> tuple[int, bool]:
    """Add up the bytes of values; tell whether any is missing, which costs an error then, and no look at the others."""
    try:
        return sum(map(len, cast("Sequence[bytes]", values))), False
    except TypeError:
        return sum(map(len, filter(None, values))), True
