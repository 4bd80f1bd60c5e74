"""Which partitions are this member's, where each stands, and what of a fetch belongs to them.

Owns the bookkeeping of one consumer's assignment. Must not know the client: it is told what the client's callbacks said
and what a fetch brought.

A partition is *unplaced* from its assignment until its committed position is known, then *owned* until it is taken.
Invariant: of an owned partition, what `admit` lets through starts where the partition was placed and misses nothing.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from consumer.core.types import Slice, TopicPartition


class Assignment:
    """The partitions of one member."""

    def __init__(self) -> None:
        """Start with none."""
        self.owned: set[TopicPartition] = set()
        self.unplaced: dict[TopicPartition, None] = {}
        """In the order in which they were assigned."""
        self.paused: set[TopicPartition] = set()
        self.next: dict[TopicPartition, int] = {}
        """The next offset to be handed on, where it is known."""
        self.committed: dict[TopicPartition, int] = {}
        self.heard_s: dict[TopicPartition, float] = {}
        """When each owned partition last brought something, monotonic seconds."""
        self.fresh: set[TopicPartition] = set()
        """Owned, brought nothing since they were placed, and not looked at for that yet."""
        self._stash: list[Slice] = []
        """Records that came before their partition was placed: those of one fetch at most, so that they are few."""
        self._churned: set[TopicPartition] = set()
        """Taken during the running fetch."""
        self._displaced: set[TopicPartition] = set()
        """Unplaced, and the client may be elsewhere than where they will be placed."""
        self._sought: set[TopicPartition] = set()
        """Placed during the running fetch with a seek: what this fetch brought of them is from elsewhere."""

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Take partitions whose position is not known yet."""
        self.unplaced.update(dict.fromkeys(partitions))

    def forget(self, partitions: Iterable[TopicPartition]) -> list[TopicPartition]:
        """Drop partitions with everything known of them; return those that were owned."""
        going = list(partitions)
        known = [each for each in going if each in self.owned]
        self._churned.update(going)
        self.owned.difference_update(going)
        self.paused.difference_update(going)
        self._displaced.difference_update(going)
        self.fresh.difference_update(going)
        for each in going:
            for table in (self.unplaced, self.next, self.committed, self.heard_s):
                table.pop(each, None)
        self._stash = [each for each in self._stash if each.partition not in self._churned]
        return known

    def place(self, partition: TopicPartition, next_offset: int | None, now_s: float) -> bool:
        """Take the position of an unplaced partition; tell whether the client must seek there.

        Args:
            partition: an unplaced one.
            next_offset: where it starts; None for its beginning, wherever that is.
            now_s: monotonic seconds.
        """
        del self.unplaced[partition]
        self.owned.add(partition)
        self.heard_s[partition] = now_s
        self.fresh.add(partition)
        if next_offset is not None:
            self.next[partition] = next_offset
        if partition not in self._displaced:
            return False
        self._displaced.discard(partition)
        self._sought.add(partition)
        return True

    def displace(self, partition: TopicPartition) -> None:
        """Note that the client may be elsewhere than where an unplaced partition will be placed."""
        assert partition in self.unplaced, "only what is not placed yet can be displaced"
        self._displaced.add(partition)
        self._stash = [each for each in self._stash if each.partition != partition]

    def sift(self, fetched: Iterable[Slice]) -> list[Slice]:
        """Drop records of partitions taken during the fetch: nobody can say if they came before or after.

        A partition that came back at once is displaced: what was dropped of it is to be fetched again.
        """
        churned, self._churned = self._churned, set()
        kept = []
        for part in fetched:
            if part.partition not in churned:
                kept.append(part)
            elif part.partition in self.unplaced:
                self.displace(part.partition)
        return kept

    def admit(self, sifted: Sequence[Slice], now_s: float) -> tuple[list[Slice], set[TopicPartition]]:
        """Sort what a fetch brought, and what waited for its partition's placing.

        While records wait, an unplaced partition that brings more is displaced: all of it is fetched again later.

        Returns:
            The records to hand on; and the owned partitions that went back behind their position (cut short, made
            anew, or fetched twice): their records are left out, and they are to be placed again.
        """
        stash, self._stash = self._stash, []
        for part in sifted if stash else ():
            if part.partition in self.unplaced:
                self._displaced.add(part.partition)
        candidates = [*stash, *sifted]
        sought, self._sought = self._sought, set()
        admitted: list[Slice] = []
        gone_back: set[TopicPartition] = set()
        for part in candidates:
            partition = part.partition
            if partition in self.unplaced:
                if partition not in self._displaced:
                    self._stash.append(part)
            elif partition in self.owned and partition not in sought | gone_back:
                if part.offsets[0] < self.next.get(partition, part.offsets[0]):
                    gone_back.add(partition)
                else:
                    self.heard_s[partition] = now_s
                    self.fresh.discard(partition)
                    admitted.append(part)
        return admitted, gone_back

    def advance(self, part: Slice) -> list[range]:
        """Move a partition's position behind admitted records; return the offsets that it passed without a record."""
        expected = self.next.get(part.partition, part.offsets[0])
        self.next[part.partition] = part.offsets[-1] + 1
        if part.offsets[-1] + 1 - expected == len(part.offsets):
            return []
        return [
            range(last + 1, offset) for last, offset in pairwise([expected - 1, *part.offsets]) if offset > last + 1
        ]

    def resume(self, partitions: Iterable[TopicPartition], now_s: float) -> None:
        """Note that partitions are fetched again: their silence counts from now."""
        for each in partitions:
            self.paused.discard(each)
            self.heard_s[each] = now_s

    def most_silent(self, before_s: float, fresh_before_s: float) -> TopicPartition | None:
        """Return the partition that is not paused and brought nothing for longest, if for long enough.

        Args:
            before_s: since when it must have brought nothing, monotonic seconds.
            fresh_before_s: the same for a fresh one.
        """
        silent = [
            each
            for each in self.owned - self.paused
            if self.heard_s[each] < (fresh_before_s if each in self.fresh else before_s)
        ]
        return min(silent, key=self.heard_s.__getitem__, default=None)
