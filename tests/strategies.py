"""Hypothesis strategies, and plain values, that tests of several parts share."""

from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st

from consumer.core.types import Generation, Run, TopicPartition

UNHURRIED = settings(deadline=None, print_blob=True)
"""For properties: how long an example takes says nothing on a shared machine."""

PARTITIONS = tuple(TopicPartition("requests", number) for number in range(4))


def gaps(size_max: int = 40) -> st.SearchStrategy[list[int]]:
    """How many offsets are left out before each of some records: mostly none, as in a real log."""
    gap = st.one_of(st.just(0), st.just(0), st.just(0), st.just(1), st.integers(0, 5), st.integers(0, 100_000))
    plain = st.integers(0, size_max).map(lambda size: [0] * size)
    return st.one_of(plain, st.lists(gap, max_size=size_max))


def flags(size_max: int = 200) -> st.SearchStrategy[bytes]:
    """One byte per offset, 1 where it is completed: noise, or long stretches."""
    noise = st.lists(st.booleans(), max_size=size_max).map(bytes)
    stretch = st.tuples(st.booleans(), st.integers(0, size_max)).map(lambda pair: bytes([pair[0]]) * pair[1])
    return st.one_of(noise, st.lists(stretch, max_size=8).map(b"".join))


def make_run(offsets: Sequence[int], size: int = 1, partition: TopicPartition = PARTITIONS[0]) -> Run:
    """Make a run of records whose values, of `size` bytes each, are all there is to them."""
    values = [offset.to_bytes(8, "big")[-size:].rjust(size, b".") for offset in offsets]
    return Run(
        partition=partition,
        generation=Generation(1),
        model="digits",
        positions=list(offsets),
        offsets=list(offsets),
        keys=[None] * len(offsets),
        values=values,
        headers=None,
        timestamps_ms=[-1] * len(offsets),
        size=size * len(offsets),
        fetched_s=0.0,
    )
