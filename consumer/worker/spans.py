"""Which records a batch consists of, and the outcomes it collects for them.

Owns positions, columns and the sheet that outcomes are written on. Must not know what a payload holds or a model does.
"""

from bisect import bisect_right
from collections.abc import Mapping
from functools import cached_property
from itertools import accumulate
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from consumer.core.batching import Part
from consumer.core.types import Failure
from consumer.transport.worker_end import Cells, Work
from schemas.records import Source

Octets: TypeAlias = npt.NDArray[np.uint8]
"""Bytes as an array."""

Indices: TypeAlias = npt.NDArray[np.intp]
"""Positions of records in their chunk."""


class Columns:
    """What is known about every record of a chunk before it is decoded, as columns; most are made when asked for."""

    def __init__(self, work: Work) -> None:
        """Read the columns of `work`; its memory has to stay valid as long as they are used."""
        self.work = work
        self.octets: Octets = np.frombuffer(work.buffer, np.uint8)
        """All payloads, joined."""
        self.offsets = work.offsets
        self.bounds = list(accumulate([count for _, _, count in work.sources], initial=0))
        """Where the records of each entry of `work.sources` begin, and where the last ones end."""

    def __len__(self) -> int:
        """Count the records."""
        return len(self.work)

    @cached_property
    def width(self) -> int | None:
        """The bytes of each payload; None where they differ."""
        lengths = self.length_list
        return lengths[0] if lengths.count(lengths[0]) == len(lengths) else None

    @cached_property
    def ends(self) -> npt.NDArray[np.int64]:
        """Where each payload ends in `octets`."""
        return np.cumsum(self.work.lengths, dtype=np.int64)

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """Where each payload begins in `octets`."""
        return self.ends - self.work.lengths

    @cached_property
    def length_list(self) -> list[int]:
        """The bytes of each payload, for one record at a time."""
        found: list[int] = self.work.lengths.tolist()
        return found

    @cached_property
    def end_list(self) -> list[int]:
        """`ends`, for one record at a time; counted without the array, which takes longer for a few records."""
        return list(accumulate(self.length_list))

    @cached_property
    def start_list(self) -> list[int]:
        """`starts`, for one record at a time."""
        return [0, *self.end_list[:-1]]

    @cached_property
    def sources(self) -> Indices:
        """For each record, the index of its topic and partition in `work.sources`."""
        return np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds))

    @cached_property
    def partitions(self) -> npt.NDArray[np.int64]:
        """The source partition of each entry of `work.sources`."""
        return np.array([partition for _, partition, _ in self.work.sources], np.int64)

    @cached_property
    def topics(self) -> Indices:
        """A number for the topic of each entry of `work.sources`."""
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(topic, len(numbers)) for topic, _, _ in self.work.sources], np.intp)

    def payload(self, index: int) -> memoryview:
        """Return a record's payload, where it lies."""
        return self.work.buffer[self.starts[index] : self.ends[index]]

    def source(self, index: int) -> Source:
        """Tell where a record comes from."""
        topic, partition, _ = self.work.sources[self.source_number(index)]
        return Source(topic, partition, int(self.offsets[index]))

    def source_number(self, index: int) -> int:
        """Return one entry of `sources`."""
        return bisect_right(self.bounds, index) - 1

    def runs(self, first: int, stop: int) -> list[tuple[int, int]]:
        """Divide the records `first` up to `stop` (exclusive) by their entry of `work.sources`: its number, a count."""
        found: list[tuple[int, int]] = []
        number = self.source_number(first)
        while first < stop:
            end = min(self.bounds[number + 1], stop)
            if first < end:
                found.append((number, end - first))
            first = end
            number += 1
        return found


Span: TypeAlias = Part[Columns]
"""Consecutive records of a chunk: `first` up to `stop`, exclusive."""


class Sheet:
    """The outcomes of a span's records: each gets a result or a failure, once."""

    def __init__(self, span: Span, started_s: float) -> None:
        """Begin a batch at `started_s` (monotonic seconds)."""
        self.span = span
        self.rows = 0
        """Rows of the largest call that one of the records was part of."""
        self.infer_s = 0.0
        """Their part of the seconds of all calls that they were in."""
        self._started_s = started_s
        self.failures: dict[int, Failure] = {}
        self._tables: list[tuple[Indices, Octets, Octets]] = []
        self._values: dict[int, bytes] = {}
        self._keys: dict[int, bytes] = {}

    @property
    def columns(self) -> Columns:
        """The chunk."""
        return self.span.item

    @property
    def queue_s(self) -> float:
        """From the fetch of the oldest record to the batch's start."""
        runs = self.columns.runs(self.span.first, self.span.stop)
        return max(self.queue_ms(number) for number, _ in runs) / 1e3

    def queue_ms(self, number: int) -> float:
        """Return how long the records of an entry of `work.sources` waited, from their fetch to the batch's start."""
        waited_ms = 1e3 * (self._started_s - self.columns.work.fetched_s[number])
        return round(1e3 * waited_ms) / 1e3  # in microseconds, for much less than rounding to a number of digits takes

    def put(self, index: int, value: bytes, key: bytes) -> None:
        """Write down one record's result."""
        self._values[index] = value
        self._keys[index] = key

    def put_table(self, indices: Indices, values: Octets, keys: Octets) -> None:
        """Write down results of equal length: one row of `values` and of `keys` for each of `indices`."""
        self._tables.append((indices, values, keys))

    def fail(self, index: int, failure: Failure) -> None:
        """Write down that one record has no result."""
        self.failures[index] = failure

    def fail_open(self, failure: Failure) -> None:
        """Write down the same failure for every record that has no outcome yet."""
        done = set(self._values).union(self.failures, *(indices.tolist() for indices, _, _ in self._tables))
        for index in range(self.span.first, self.span.stop):
            if index not in done:
                self.failures[index] = failure

    def outcomes(self) -> tuple[Cells, Cells, Mapping[int, Failure]]:
        """Return the columns of result payloads and keys, and the failures by index in the chunk."""
        first, stop = self.span.first, self.span.stop
        if not self._values and not self.failures and len(self._tables) == 1:
            _, values, keys = self._tables[0]
            assert len(values) == stop - first, "every record has an outcome"
            return values, keys, self.failures
        for indices, value_table, key_table in self._tables:
            order = indices.tolist()
            self._values.update(zip(order, _rows(value_table), strict=True))
            self._keys.update(zip(order, _rows(key_table), strict=True))
        assert len(self._values) + len(self.failures) == stop - first, "every record has one outcome"
        return (
            [self._values.get(index, b"") for index in range(first, stop)],
            [self._keys.get(index, b"") for index in range(first, stop)],
            self.failures,
        )


def _rows(table: Octets) -> list[bytes]:
    """Cut a table into its rows."""
    _, width = table.shape
    whole = table.tobytes()
    return [whole[at : at + width] for at in range(0, len(whole), width)] if width else [b""] * len(table)
