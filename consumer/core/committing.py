"""Barriers and commits, from the moment that one is due to the broker's answer.

Owns the commit that is on its way. Must not know workers, models or where outcomes go.
"""

from collections.abc import Iterator

from consumer.core.actions import Commit, Flush
from consumer.core.commits import CommitRhythm
from consumer.core.events import Committed
from consumer.core.partitions import Partitions
from consumer.core.types import TopicPartition


class Committing:
    """Asks for barriers and commits, and takes note of what became of them."""

    def __init__(self, rhythm: CommitRhythm, partitions: Partitions) -> None:
        """Start with nothing on its way."""
        self.rhythm = rhythm
        self._partitions = partitions
        self._pending: dict[TopicPartition, tuple[int, str]] = {}
        self._heads: dict[TopicPartition, int] = {}

    def due(self, undelivered: int, size: int, now: float) -> Iterator[Flush | Commit]:
        """Ask for the barrier or the commit that is due, `undelivered` outcomes of `size` bytes being on their way."""
        rhythm = self.rhythm
        if rhythm.flush_is_due(undelivered, size, self._has_news, now):
            rhythm.is_flushing = True
            yield Flush()
        elif rhythm.commit_is_due(undelivered, now, is_idle=not self._partitions.records):
            self._pending, self._heads = self._partitions.commits(), self._partitions.heads()
            # A transaction that passed its barrier has to end, even if it brought no offset further.
            if self._pending or rhythm.is_transactional:
                rhythm.committing()
                yield Commit(self._pending)
            else:
                rhythm.idle(now)

    def answered(self, event: Committed, now: float) -> None:
        """Take note of the broker's answer, which may be a late one to an earlier commit."""
        taken = {
            partition: commit
            for partition, commit in self._pending.items()
            if event.offsets.get(partition) == commit[0]
        }
        if event.error is None:
            self._partitions.committed(taken, self._heads)
        self._pending = {}
        self.rhythm.committed(now, is_refused=event.error is not None)

    def _has_news(self) -> bool:
        return bool(self._partitions.commits())
