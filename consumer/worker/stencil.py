"""Results of equal length as one table: one of them as the codec wrote it, and what differs in the others.

Owns where the parts of an encoded result stand, and how numbers are written there as the codec would. Must not know
what the numbers mean to a model, or which results have one length.
"""

from bisect import bisect_right
from collections.abc import Sequence
from struct import Struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from consumer.worker.layout import leaves
from consumer.worker.spans import Octets
from schemas.records import BATCH_ROWS, INFER_MS, QUEUE_MS, SOURCE_OFFSET, SOURCE_PARTITION

RUN_RECORDS_MIN = 16
"""Where runs have fewer records on average than this, what they share is written by columns, not run by run."""

POWERS = [10**digits for digits in range(1, 19)]
"""The smallest numbers of 2, 3, ... digits."""

WIDTHS = [1 << 7, 1 << 8, 1 << 16, 1 << 32]
"""The smallest numbers for which msgpack takes another number of bytes."""

_DOUBLE = Struct(">d")


class Origin(NamedTuple):
    """Results in a row whose records came from one partition, at one time."""

    records: int
    partition: int
    queue_ms: float


class Stencil:
    """One result that the msgpack codec wrote, and where the parts stand in which others of its look may differ."""

    def __init__(self, encoded: bytes, outputs: int) -> None:
        """Take the layout of a result with so many outputs."""
        found = leaves(encoded)
        self.id = found[("id",)].content
        self.outputs = [found["outputs", number, "data"].content for number in range(outputs)]
        self._encoded = encoded
        self._partition, self._offset, self._rows, self._queue_ms, self._infer_ms = (
            found["parameters", name].content
            for name in (SOURCE_PARTITION, SOURCE_OFFSET, BATCH_ROWS, QUEUE_MS, INFER_MS)
        )

    def table(self, origins: Sequence[Origin], rows: int, infer_ms: float) -> Octets:
        """Make one result a row; ids, outputs and offsets are still to be written."""
        values = np.empty((sum([origin.records for origin in origins]), len(self._encoded)), np.uint8)
        stamp = bytearray(self._encoded)
        _put_number(stamp, self._rows, rows)
        _DOUBLE.pack_into(stamp, self._infer_ms.start, infer_ms)
        if len(origins) * RUN_RECORDS_MIN > len(values):
            counts, partitions, queues_ms = zip(*origins, strict=True)
            values[...] = np.frombuffer(stamp, np.uint8)
            _write_numbers(values, self._partition, np.repeat(partitions, counts), "u")
            _write_numbers(values, self._queue_ms, np.repeat(queues_ms, counts), "f")
            return values
        at = 0
        for count, partition, queue_ms in origins:
            _put_number(stamp, self._partition, partition)
            _DOUBLE.pack_into(stamp, self._queue_ms.start, queue_ms)
            values[at : at + count] = np.frombuffer(stamp, np.uint8)
            at += count
        return values

    def write_offsets(self, values: Octets, offsets: npt.NDArray[np.int64]) -> None:
        """Write the source offsets of a table's results."""
        _write_numbers(values, self._offset, offsets, "u")

    def write_sources(self, values: Octets, origins: Sequence[Origin], offsets: npt.NDArray[np.int64]) -> Octets:
        """Write ids that are made of where records come from, and return them, one a row."""
        partitions = np.repeat([each.partition for each in origins], [each.records for each in origins])
        _write_digits(values, self.id.stop, offsets)
        _write_digits(values, self.id.stop - _digits(offsets) - 1, partitions)
        return np.ascontiguousarray(values[:, self.id])


def _put_number(stamp: bytearray, place: slice, number: int) -> None:
    """Write a number as msgpack does, in as many bytes as the one there took."""
    stamp[place] = number.to_bytes(place.stop - place.start, "big")


def _write_numbers(values: Octets, place: slice, numbers: npt.NDArray[np.int64 | np.float64], kind: str) -> None:
    """Write numbers as msgpack does, in as many bytes as the first one's took."""
    size = place.stop - place.start
    dtype = np.dtype(f">{kind}{size}")
    column: npt.NDArray[Any] = np.ndarray((len(values),), dtype, values, place.start, (values.shape[1],))
    column[...] = numbers


def _digits(numbers: npt.NDArray[np.int64]) -> int:
    """Count the decimal digits of numbers that have equally many of them."""
    return bisect_right(POWERS, int(numbers[0])) + 1


def _write_digits(values: Octets, stop: int, numbers: npt.NDArray[np.int64]) -> None:
    """Write numbers of equally many digits in decimal, so that they end before column `stop`."""
    count = _digits(numbers)
    powers = 10 ** np.arange(count - 1, -1, -1, dtype=np.int64)
    values[:, stop - count : stop] = numbers[:, None] // powers % 10 + ord("0")
