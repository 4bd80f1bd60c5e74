"""Who holds which records: the chunks that are with workers.

Owns every record between its dispatch and its answer, so that a worker's death loses none. Must not know which worker
comes next, nor what an answer says.

Invariant: a record of a chunk is answered at most once; what a dead worker had not answered is exactly what the leases
that `lost` returns tell.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from consumer.core.types import Chunk, ChunkId, ModelId, Run, TopicPartition, WorkerId


@dataclass(slots=True)
class Lease:
    """One chunk with one worker."""

    worker: WorkerId
    chunk: Chunk
    unanswered: bytearray
    """One byte a record, 1 until its answer."""
    size: int
    """Payload bytes when the chunk was lent."""

    @property
    def is_suspect(self) -> bool:
        """Tell whether its records are searched for the one that ended a worker."""
        return self.chunk.is_suspect

    @property
    def is_answered(self) -> bool:
        """Tell whether every record has its answer."""
        return 1 not in self.unanswered

    def segments(self, first: int, stop: int) -> Iterator[tuple[Run, int, int, int]]:
        """Walk the runs that the records `first` to `stop` of the chunk lie in.

        Yields the run, the first and the end of its records that are meant, and the number in the chunk of the run's
        record 0.
        """
        base = 0
        for run in self.chunk.runs:
            begin, end = max(first - base, 0), min(stop - base, len(run))
            if begin < end:
                yield run, begin, end, base
            base += len(run)

    def unanswered_runs(self, first: int, stop: int) -> Iterator[Run]:
        """Cut the records without an answer out of the records `first` to `stop`, payloads copied."""
        for run, begin, end, base in self.segments(first, stop):
            marks = self.unanswered[base + begin : base + end]
            if all(marks):
                yield run.part(begin, end)
            elif any(marks):
                yield run.pick([begin + i for i, mark in enumerate(marks) if mark])


class Leases:
    """Every chunk that is with a worker, by its id."""

    def __init__(self) -> None:
        """Start with none."""
        self._leases: dict[ChunkId, Lease] = {}
        self._last = 0

    def __len__(self) -> int:
        """Count the chunks that are lent."""
        return len(self._leases)

    def lend(self, worker: WorkerId, model: ModelId, runs: Sequence[Run], *, is_suspect: bool) -> Lease:
        """Give records to a worker as one chunk, under a number never used before."""
        self._last += 1
        chunk = Chunk(ChunkId(self._last), model, runs, is_suspect)
        lease = Lease(worker, chunk, bytearray(b"\1") * len(chunk), chunk.size)
        self._leases[chunk.chunk] = lease
        return lease

    def answer(self, worker: WorkerId, chunk: ChunkId, first: int, count: int) -> Lease | None:
        """Take note of an answer; None if the chunk is not (or no longer) with that worker."""
        lease = self._leases.get(chunk)
        if lease is None or lease.worker != worker:
            return None
        answered = lease.unanswered[first : first + count]
        assert len(answered) == count, "an answer for records that are not in the chunk"
        assert 0 not in answered, "a record was answered twice"
        lease.unanswered[first : first + count] = bytes(count)
        return lease

    def release(self, chunk: ChunkId) -> None:
        """Forget a chunk whose every record is answered and read."""
        del self._leases[chunk]

    def lost(self, worker: WorkerId) -> list[Lease]:
        """Take back what a dead worker had, oldest first."""
        taken = [lease for lease in self._leases.values() if lease.worker == worker]
        for lease in taken:
            del self._leases[lease.chunk.chunk]
        return taken

    def touch(self, partitions: Collection[TopicPartition]) -> bool:
        """Tell whether records of any of these partitions are with a worker and unanswered."""
        return any(
            run.partition in partitions and 1 in lease.unanswered[base + begin : base + end]
            for lease in self._leases.values()
            for run, begin, end, base in lease.segments(0, len(lease.unanswered))
        )
