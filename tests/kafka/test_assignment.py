"""The bookkeeping of an assignment, against a client that fetches, loses and gets back partitions at will."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consumer.core.types import Slice, TopicPartition
from consumer.kafka.assignment import Assignment
from tests.strategies import UNHURRIED

PARTITIONS = [TopicPartition("t", p) for p in range(3)]
ONE = st.sampled_from(PARTITIONS[:2])


def part_of(partition: TopicPartition, offsets: list[int]) -> Slice:
    """Make a slice of which only the offsets matter."""
    count = len(offsets)
    nothing: list[bytes | None] = [None] * count
    return Slice(partition, offsets, "m", nothing, nothing, None, [0] * count)


class Client(RuleBasedStateMachine):
    """A client as the source sees it: callbacks and records in any order, and a position that a seek moves."""

    def __init__(self) -> None:
        """Start with no partition."""
        super().__init__()
        self.assignment = Assignment()
        self.position: dict[TopicPartition, int] = {}
        self.committed = dict.fromkeys(PARTITIONS, 0)
        self.handed: dict[TopicPartition, list[int]] = {}
        self.brought: list[Slice] = []
        self.now_s = 0.0
        self.largest = 0
        """Records of the largest fetch so far."""

    # -- what happens inside one fetch

    @rule(partition=ONE, count=st.integers(1, 3))
    def bring(self, partition: TopicPartition, count: int) -> None:
        """Put the next records of an assigned, unpaused partition into the batch."""
        if partition in self.position and partition not in self.assignment.paused:
            first = self.position[partition]
            self.position[partition] = first + count
            self.brought.append(part_of(partition, list(range(first, first + count))))

    @rule(partition=ONE)
    def take(self, partition: TopicPartition) -> None:
        """Revoke a partition, in the middle of a batch."""
        if partition in self.position:
            del self.position[partition]
            known = self.assignment.forget([partition])
            assert known == ([partition] if partition in self.handed else [])
            if known:
                self.committed[partition] = next_after(self.handed.pop(partition), self.committed[partition])

    @rule(partition=ONE)
    def give(self, partition: TopicPartition) -> None:
        """Assign a partition, which the client begins to fetch from its committed offset."""
        if partition not in self.position:
            self.position[partition] = self.committed[partition]
            self.assignment.assign([partition])

    @rule(partition=ONE)
    def lose_batch(self, partition: TopicPartition) -> None:
        """Destroy the batch, as an exception in the client does, and seek back."""
        self.brought.clear()
        for each in self.assignment.unplaced:
            self.assignment.displace(each)
        for each in self.assignment.owned:
            self.position[each] = self.assignment.next.get(each, 0)

    # -- what the source does then

    @rule(is_told=st.booleans())
    def end_fetch(self, is_told: bool) -> None:
        """Sort what was brought; positions of new partitions may or may not be known by now."""
        self.now_s += 1
        self.largest = max(self.largest, sum(len(part.offsets) for part in self.brought))
        sifted = self.assignment.sift(self.brought)
        self.brought = []
        if is_told:
            for each in list(self.assignment.unplaced):
                if self.assignment.place(each, self.committed[each], self.now_s):
                    self.position[each] = self.committed[each]
                self.handed[each] = []
        admitted, gone_back = self.assignment.admit(sifted, self.now_s)
        assert gone_back == set()
        for part in admitted:
            assert self.assignment.advance(part) == []
            self.handed[part.partition] += part.offsets

    @precondition(lambda self: not self.brought)
    @rule(partition=ONE)
    def pause(self, partition: TopicPartition) -> None:
        """Pause an owned partition, or resume it."""
        if partition in self.assignment.paused:
            self.assignment.resume([partition], self.now_s)
        elif partition in self.assignment.owned:
            self.assignment.paused.add(partition)

    # -- what must hold

    @invariant()
    def nothing_is_missed_or_doubled(self) -> None:
        """What was handed on of an assignment starts at its position and is without gaps."""
        for partition, offsets in self.handed.items():
            begin = self.committed[partition]
            assert offsets == list(range(begin, begin + len(offsets)))

    @invariant()
    def what_waits_is_bounded(self) -> None:
        """However long positions are in coming, no more than one fetch waits for them."""
        assert sum(len(part.offsets) for part in self.assignment._stash) <= self.largest

    @invariant()
    def states_exclude_one_another(self) -> None:
        """A partition is owned or unplaced or neither, and only an owned one is paused."""
        assert self.assignment.owned == self.handed.keys()
        assert not self.assignment.owned & self.assignment.unplaced.keys()
        assert self.assignment.paused <= self.assignment.owned
        assert self.assignment.owned | self.assignment.unplaced.keys() == self.position.keys()


def next_after(offsets: list[int], begin: int) -> int:
    """Return the offset to commit after some were handed on."""
    return offsets[-1] + 1 if offsets else begin


TestClient = Client.TestCase
TestClient.settings = settings(UNHURRIED, max_examples=200, stateful_step_count=40)


def test_a_stash_goes_with_its_partition() -> None:
    """Records that waited for a position are of no use to a later assignment, which fetches them again."""
    assignment, (a, *_) = Assignment(), PARTITIONS
    assignment.assign([a])
    assert assignment.admit([part_of(a, [5])], 0.0) == ([], set())
    assignment.forget([a])
    assignment.sift([])
    assignment.assign([a])
    assignment.place(a, 5, 0.0)
    assert assignment.admit([], 0.0) == ([], set())


def test_no_more_than_one_fetch_waits() -> None:
    """What comes while records wait already is dropped with them, and the client is sent back for all of it, once."""
    assignment, (a, b, _) = Assignment(), PARTITIONS
    assignment.assign([a, b])
    assert assignment.admit([part_of(a, [5]), part_of(b, [1])], 0.0) == ([], set())
    assert assignment.admit([part_of(a, [6])], 0.0) == ([], set())
    assert [assignment.place(a, 5, 0.0), assignment.place(b, 1, 0.0)] == [True, False]
    (part,), _ = assignment.admit([part_of(a, [7])], 0.0)
    assert (part.partition, part.offsets) == (b, [1])
    (part,), _ = assignment.admit([part_of(a, [5])], 0.0)
    assert (part.partition, part.offsets) == (a, [5])


def test_a_partition_that_comes_back_at_once_is_fetched_from_its_position() -> None:
    """Records around a revocation in one fetch are dropped, and the client is sent back for them, once."""
    assignment, (a, *_) = Assignment(), PARTITIONS
    assignment.assign([a])
    assignment.place(a, 5, 0.0)
    assignment.forget([a])
    assignment.assign([a])
    assert assignment.sift([part_of(a, [5, 6])]) == []
    assert assignment.place(a, 5, 0.0) is True
    assert assignment.admit([part_of(a, [7])], 0.0) == ([], set())
    (part,), gone_back = assignment.admit([part_of(a, [5])], 0.0)
    assert (part.offsets, gone_back) == ([5], set())


def test_a_taken_partition_is_not_sought_when_it_comes_again() -> None:
    """That the client was elsewhere is forgotten with the assignment."""
    assignment, (a, *_) = Assignment(), PARTITIONS
    assignment.assign([a])
    assignment.displace(a)
    assignment.forget([a])
    assignment.assign([a])
    assert assignment.place(a, 5, 0.0) is False


def test_records_behind_the_position_are_not_handed_on() -> None:
    """A client that goes back is told of, and nothing of that partition passes until it is placed again."""
    assignment, (a, b, _) = Assignment(), PARTITIONS
    assignment.assign([a, b])
    assignment.place(a, 10, 0.0)
    assignment.place(b, None, 0.0)
    parts = [part_of(a, [8, 9]), part_of(b, [3]), part_of(a, [10, 11])]
    admitted, gone_back = assignment.admit(parts, 1.0)
    assert [part.partition for part in admitted] == [b]
    assert gone_back == {a}


def test_gaps_are_told() -> None:
    """Offsets passed without a record are returned, before a slice and within it."""
    assignment, (a, *_) = Assignment(), PARTITIONS
    assignment.assign([a])
    assignment.place(a, 10, 0.0)
    assert assignment.advance(part_of(a, [10, 11])) == []
    assert assignment.advance(part_of(a, [15, 16, 19, 20, 30])) == [range(12, 15), range(17, 19), range(21, 30)]
    assert assignment.next[a] == 31
    assert assignment.advance(part_of(a, [31])) == []


def test_the_most_silent_partition_is_found() -> None:
    """Of those not paused, the one that has brought nothing for longest, if that is long enough."""
    assignment, (a, b, c) = Assignment(), PARTITIONS
    assignment.assign(PARTITIONS)
    for each, now_s in ((a, 5.0), (b, 3.0), (c, 1.0)):
        assignment.place(each, 0, now_s)
    assignment.paused.add(c)
    assert assignment.most_silent(3.0, 3.0) is None
    assert assignment.most_silent(0.0, 4.0) == b
    assignment.admit([part_of(b, [0])], 9.0)
    assert assignment.most_silent(0.0, 20.0) == a
    assert assignment.most_silent(20.0, 0.0) == b
    assignment.fresh.discard(a)
    assert assignment.most_silent(20.0, 0.0) == a
    assignment.resume([c], 10.0)
    assert assignment.most_silent(11.0, 0.0) == a
