"""A model's queue against a plain list of its records."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from consumer.core.queues import ModelQueue
from consumer.core.types import Run, TopicPartition
from tests.strategies import PARTITIONS, UNHURRIED, make_run

ONE = st.sampled_from(PARTITIONS[:2])
SIZE = 10
"""Payload bytes of each record."""


class Queue(RuleBasedStateMachine):
    """Runs come and go in every way that there is; each record has an offset of its own."""

    def __init__(self) -> None:
        """Start with nothing."""
        super().__init__()
        self.queue = ModelQueue()
        self.waiting: list[int] = []
        self.partition_of: dict[int, TopicPartition] = {}

    def fresh(self, partition: TopicPartition, count: int) -> Run:
        """Make a run of records that were not there before."""
        first = len(self.partition_of)
        offsets = range(first, first + count)
        self.partition_of |= dict.fromkeys(offsets, partition)
        return make_run(offsets, SIZE, partition)

    @rule(partition=ONE, count=st.integers(1, 6))
    def append(self, partition: TopicPartition, count: int) -> None:
        """Queue records behind all others."""
        run = self.fresh(partition, count)
        self.queue.append(run)
        self.waiting += run.offsets

    @rule(partition=ONE, count=st.integers(1, 6))
    def prepend(self, partition: TopicPartition, count: int) -> None:
        """Queue records in front of all others."""
        run = self.fresh(partition, count)
        self.queue.prepend(run)
        self.waiting[:0] = run.offsets

    @rule(records_max=st.integers(1, 8), fitting=st.integers(0, 8), at_least_one=st.booleans())
    def take(self, records_max: int, fitting: int, *, at_least_one: bool) -> None:
        """Take what fits of the front, in order, and all of it that fits."""
        taken = self.queue.take(records_max, fitting * SIZE, at_least_one=at_least_one)
        count = min(records_max, max(fitting, int(at_least_one)), len(self.waiting))
        assert [offset for run in taken for offset in run.offsets] == self.waiting[:count]
        assert all(run.size == SIZE * len(run) for run in taken)
        del self.waiting[:count]

    @rule(partition=ONE)
    def take_oldest(self, partition: TopicPartition) -> None:
        """Take the records of a partition that have waited longest."""
        run = self.queue.take_oldest(partition)
        own = [offset for offset in self.waiting if self.partition_of[offset] == partition]
        assert (run is None) == (not own)
        if run is not None:
            assert list(run.offsets) == own[: len(run)]
            self.waiting = [offset for offset in self.waiting if offset not in run.offsets]

    @rule(partition=ONE)
    def drop(self, partition: TopicPartition) -> None:
        """Give up all records of a partition."""
        dropped = self.queue.drop(lambda run: run.partition == partition)
        own = [offset for offset in self.waiting if self.partition_of[offset] == partition]
        assert [offset for run in dropped for offset in run.offsets] == own
        self.waiting = [offset for offset in self.waiting if offset not in own]

    @rule()
    def look(self) -> None:
        """Look at all that waits."""
        assert [offset for run in self.queue.runs for offset in run.offsets] == self.waiting

    @invariant()
    def it_is_counted(self) -> None:
        """Records and bytes are those that wait, in all and by partition."""
        assert (self.queue.records, self.queue.size) == (len(self.waiting), SIZE * len(self.waiting))
        counts = {partition: amount.records for partition, amount in self.queue.amounts.items()}
        partitions = [self.partition_of[offset] for offset in self.waiting]
        assert counts == {partition: partitions.count(partition) for partition in set(partitions)}


TestQueue = Queue.TestCase
TestQueue.settings = settings(UNHURRIED, max_examples=200, stateful_step_count=30)
