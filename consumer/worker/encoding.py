"""From the outputs of a call to result payloads and record keys.

Owns `postprocess`, the results' provenance, and the two ways of writing results: record by record through the codec, or
all results of equal length as one table, from a single one that the codec wrote. Both give the same bytes. Must not
know models or how calls come about.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from consumer.worker.binding import Plan
from consumer.worker.collate import Call
from consumer.worker.decoding import Arrays, Loose, Portion, has_texts
from consumer.worker.failures import failure_of
from consumer.worker.layout import between, leaves
from consumer.worker.spans import Indices, Octets, Sheet
from consumer.worker.split import Outputs
from schemas.codecs import MSGPACK, Codec, codec_for
from schemas.datatypes import BF16, BYTES
from schemas.records import BATCH_ROWS, INFER_MS, QUEUE_MS, SOURCE_OFFSET, SOURCE_PARTITION, Result, provenance
from schemas.tensors import Tensor, TensorData

TABLE_RECORDS_MIN = 8
"""Fewer results than this are written one by one, which is cheaper then."""

LAYOUTS_MAX = 64
"""Lengths of results whose layouts are remembered for one model."""

Postprocess: TypeAlias = Callable[[dict[str, TensorData]], Arrays]

_POWERS = [10**digits for digits in range(1, 19)]
"""The smallest numbers of 2, 3, ... digits."""

_WIDTHS = [1 << 7, 1 << 8, 1 << 16, 1 << 32]
"""The smallest numbers for which msgpack takes another number of bytes."""


class Identity(NamedTuple):
    """What results say of their model."""

    name: str
    version: str | None
    sha256: str | None


class Batch(NamedTuple):
    """What results say of the call that they were part of."""

    rows: int
    infer_ms: float


class _Cohort(NamedTuple):
    """Records of one portion whose results have the same length."""

    sheet: Sheet
    indices: Indices
    starts: Indices
    """The first row of each record in the call."""
    plan: Plan
    ids: Octets | None
    """The ids' bytes, one record a row; None where the records have none."""

    def pick(self, chosen: npt.NDArray[np.bool_]) -> "_Cohort":
        """Take some of the records."""
        ids = None if self.ids is None else self.ids[chosen]
        return self._replace(indices=self.indices[chosen], starts=self.starts[chosen], ids=ids)

    def identity(self, at: int) -> str | None:
        """Return one record's own id."""
        return None if self.ids is None else self.ids[at].tobytes().decode()


class _ResultLayout:
    """Where the parts of a result stand that differ between results of one cohort."""

    def __init__(self, encoded: bytes, outputs: int) -> None:
        """Take the layout of a result that the msgpack codec wrote."""
        found = leaves(encoded)
        self.id = found[("id",)].content
        self.outputs = [found["outputs", number, "data"].content for number in range(outputs)]
        self.partition, self.offset, self.queue_ms = (
            found["parameters", name].content for name in (SOURCE_PARTITION, SOURCE_OFFSET, QUEUE_MS)
        )
        same = (found["parameters", name].content for name in (BATCH_ROWS, INFER_MS))  # in a cohort, not in the next
        places = (self.id, *self.outputs, self.partition, self.offset, self.queue_ms, *same)
        self._fixed = [(place, encoded[place]) for place in between(places, len(encoded))]

    def fits(self, encoded: bytes) -> bool:
        """Tell whether another result of the same length has the same layout (and the same fixed parts)."""
        return all(encoded[place] == fixed for place, fixed in self._fixed)


class Encoder:
    """Writes the results of one model."""

    def __init__(self, identity: Identity, postprocess: Postprocess | None = None) -> None:
        """Remember what every result says.

        Args:
            identity: Of the model.
            postprocess: Turns one record's outputs into its result's.
        """
        self._identity = identity
        self._postprocess = postprocess
        self._msgpack = codec_for(MSGPACK)
        self._layouts: dict[int, _ResultLayout] = {}
        """By length, what results last looked like."""

    def encode(self, call: Call, outputs: Outputs, batch: Batch) -> None:
        """Write the results of a call's records on their sheets; those that cannot be written fail there."""
        at = 0
        has_tables = self._postprocess is None and all(output.datatype != BYTES for output in outputs)
        for portion in call:
            if isinstance(portion, Loose) and not (
                has_tables and portion.codec is self._msgpack and portion.records >= TABLE_RECORDS_MIN
            ):
                self._write_loose(portion, outputs, at, batch)
            else:
                for cohort in _cohorts(portion, at):
                    if has_tables and len(cohort.indices) >= TABLE_RECORDS_MIN:
                        self._write_table(cohort, outputs, batch)
                    else:
                        self._write_cohort(cohort, outputs, batch)
            at += portion.rows

    def _write_loose(self, loose: Loose, outputs: Outputs, at: int, batch: Batch) -> None:
        """Write the results of single records one by one."""
        for index, identity, _, plan in loose.entries:
            tensors = tuple([output.tensor(at, plan) for output in outputs])
            self._write(loose.sheet, index, loose.codec, identity, tensors, batch)
            at += plan.rows

    def _write_cohort(self, cohort: _Cohort, outputs: Outputs, batch: Batch) -> None:
        """Write the results of a cohort one by one."""
        for at, (index, start) in enumerate(zip(cohort.indices.tolist(), cohort.starts.tolist(), strict=True)):
            tensors = tuple([output.tensor(start, cohort.plan) for output in outputs])
            self._write(cohort.sheet, index, self._msgpack, cohort.identity(at), tensors, batch)

    def _write(
        self, sheet: Sheet, index: int, codec: Codec, identity: str | None, tensors: tuple[Tensor, ...], batch: Batch
    ) -> None:
        """Write one result."""
        try:
            if self._postprocess is not None:
                tensors = self._finished(self._postprocess, tensors)
            result = self._result(sheet, index, identity, tensors, batch)
            value = codec.encode_result(result)
        except Exception as error:  # noqa: BLE001 - postprocess is the user's code, and fails for its record alone
            sheet.fail(index, failure_of(error, has_texts=has_texts(tensors)))
        else:
            assert result.id is not None
            sheet.put(index, value, result.id.encode())

    def _result(
        self, sheet: Sheet, index: int, identity: str | None, tensors: tuple[Tensor, ...], batch: Batch
    ) -> Result:
        """Make one result; without an id of its own it gets that of its source."""
        source = sheet.columns.source(index)
        name, version, sha256 = self._identity
        parameters = provenance(source, batch.rows, sheet.queue_ms_of(index), batch.infer_ms, sha256)
        return Result(source.record_id if identity is None else identity, name, version, tensors, parameters)

    def _remember(self, layout: _ResultLayout, length: int) -> _ResultLayout:
        """Keep the layout of results of a length."""
        if len(self._layouts) >= LAYOUTS_MAX:
            self._layouts.clear()
        self._layouts[length] = layout
        return layout

    @staticmethod
    def _finished(postprocess: Postprocess, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Have `postprocess` make a result's outputs of a record's; it may write to what it gets."""
        bf16 = {tensor.name for tensor in tensors if tensor.datatype == BF16}
        made = postprocess({name: data.copy() for name, _, _, data in tensors})
        return tuple(
            Tensor.of(name, content, BF16 if name in bf16 and getattr(content, "dtype", None) == np.uint16 else None)
            for name, content in made.items()
        )

    def _write_table(self, cohort: _Cohort, outputs: Outputs, batch: Batch) -> None:
        """Write the results of a cohort: the first by the codec, and all of them from its bytes."""
        sheet, indices, starts, plan, ids = cohort
        columns, count = sheet.columns, len(indices)
        tensors = tuple([output.tensor(int(starts[0]), plan) for output in outputs])
        first = self._result(sheet, int(indices[0]), cohort.identity(0), tensors, batch)
        encoded = self._msgpack.encode_result(first)
        layout = self._layouts.get(len(encoded))
        if layout is None or not layout.fits(encoded):
            layout = self._remember(_ResultLayout(encoded, len(outputs)), len(encoded))
        values = np.frombuffer(bytearray(encoded) * count, np.uint8).reshape(count, -1)
        for place, output in zip(layout.outputs, outputs, strict=True):
            values[:, place] = output.table(starts, plan)
        offsets, partitions = columns.offsets[indices], columns.partitions[columns.sources[indices]]
        _write_numbers(values, layout.partition, partitions, "u")
        _write_numbers(values, layout.offset, offsets, "u")
        _write_numbers(values, layout.queue_ms, sheet.queue_ms[indices - sheet.span.first], "f")
        if ids is not None:
            values[:, layout.id] = ids
        else:
            _write_digits(values, layout.id.stop, offsets)
            _write_digits(values, layout.id.stop - _digits(offsets) - 1, partitions)
        sheet.put_table(indices, values, np.ascontiguousarray(values[:, layout.id]))


def _cohorts(portion: Portion, at: int) -> Iterator[_Cohort]:
    """Divide the records of a portion, which begins at row `at`, by the length that their results have."""
    columns = portion.sheet.columns
    for cohort in _alike(portion, at):
        offsets, sources = columns.offsets[cohort.indices], columns.sources[cohort.indices]
        bounds = (_WIDTHS,) if cohort.ids is not None else (_WIDTHS, _POWERS)
        used = columns.work.sources[sources[0] : sources[-1] + 1]
        partitions = [partition for _, partition, _ in used]
        extremes = ((min(partitions), max(partitions)), (int(offsets.min()), int(offsets.max())))
        if len({topic for topic, _, _ in used}) == 1 and all(
            bisect_right(bound, low) == bisect_right(bound, high) for bound in bounds for low, high in extremes
        ):
            yield cohort
            continue
        kinds = columns.topics[sources]
        for bound in bounds:
            for numbers in (columns.partitions[sources], offsets):
                kinds = kinds * (len(bound) + 1) + np.searchsorted(bound, numbers, "right")
        for kind in np.unique(kinds):
            yield cohort.pick(kinds == kind)


def _alike(portion: Portion, at: int) -> Iterator[_Cohort]:
    """Divide the records of a portion by the lengths of their ids and the shapes of their outputs."""
    if not isinstance(portion, Loose):
        place, plan = portion.template.id, portion.plan
        starts = at + plan.rows * np.arange(portion.records)
        ids = None if place is None else portion.table[:, place]
        yield _Cohort(portion.sheet, portion.indices, starts, plan, ids)
        return
    found: dict[tuple[int, int], list[tuple[int, int, bytes, Plan]]] = {}
    for index, identity, _, plan in portion.entries:
        key = b"" if identity is None else identity.encode()
        look = id(plan), -1 if identity is None else len(key)
        found.setdefault(look, []).append((index, at, key, plan))
        at += plan.rows
    for (_, width), members in found.items():
        indices, firsts, keys, plans = zip(*members, strict=True)
        ids = None if width < 0 else _table_of(keys, width)
        yield _Cohort(portion.sheet, np.array(indices), np.array(firsts), plans[0], ids)


def _table_of(cells: Sequence[bytes], width: int) -> Octets:
    """Make a table of cells of one width."""
    return np.frombuffer(b"".join(cells), np.uint8).reshape(len(cells), width)


def _write_numbers(values: Octets, place: slice, numbers: npt.NDArray[np.int64 | np.float64], kind: str) -> None:
    """Write numbers as msgpack does, in as many bytes as the first one's took."""
    size = place.stop - place.start
    dtype = np.dtype(f">{kind}{size}")
    column: npt.NDArray[Any] = np.ndarray((len(values),), dtype, values, place.start, (values.shape[1],))
    column[...] = numbers


def _digits(numbers: npt.NDArray[np.int64]) -> int:
    """Count the decimal digits of numbers that have equally many of them."""
    return bisect_right(_POWERS, int(numbers[0])) + 1


def _write_digits(values: Octets, stop: int, numbers: npt.NDArray[np.int64]) -> None:
    """Write numbers of equally many digits in decimal, so that they end before column `stop`."""
    count = _digits(numbers)
    powers = 10 ** np.arange(count - 1, -1, -1, dtype=np.int64)
    values[:, stop - count : stop] = numbers[:, None] // powers % 10 + ord("0")
