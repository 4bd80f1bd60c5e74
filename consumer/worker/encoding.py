"""From the outputs of a call to result payloads and record keys.

Owns `postprocess`, the results' provenance, and the three ways of writing results: record by record through the codec;
as msgpack, all results of equal length as one table, from a single one that the codec wrote; as JSON, in the frame of a
single one, with the numbers of all written at once. All give the same bytes. Must not know models or how calls come
about.
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
from consumer.worker.spans import Indices, Octets, Sheet
from consumer.worker.split import Output, Outputs
from consumer.worker.stencil import POWERS, WIDTHS, Origin, Stencil
from schemas.codecs import JSON, MSGPACK, Codec, codec_for
from schemas.datatypes import BF16, BYTES
from schemas.errors import RecordError
from schemas.json_frame import JsonFrame, texts
from schemas.records import Result, provenance
from schemas.tensors import Tensor, TensorData

TABLE_RECORDS_MIN = 8
"""Fewer results than this are written one by one, which is cheaper then."""

FRAME_RECORDS_MIN = 4
"""The same for JSON."""

STENCILS_MAX = 512
"""Looks of results that are remembered for one model."""

STENCIL_BYTES_MAX = 8192
"""Larger results are not remembered: that would take memory, and to write one anew little of the time of all."""

Postprocess: TypeAlias = Callable[[dict[str, TensorData]], Arrays]

Look: TypeAlias = tuple[Any, ...]
"""What results have in common that have one length and differ only where a stencil writes."""


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
    starts: range | Indices
    """The first row of each record in the call."""
    plan: Plan
    ids: Octets | None
    """The ids' bytes, one record a row; None where the records have none."""
    runs: Sequence[tuple[int, int]]
    """By their entry of `work.sources`: its number, and how many records in a row are of it."""
    offsets: npt.NDArray[np.int64]

    @classmethod
    def of(cls, sheet: Sheet, indices: Indices, starts: range | Indices, plan: Plan, ids: Octets | None) -> "_Cohort":
        """Look up where records come from."""
        columns, first, last = sheet.columns, int(indices[0]), int(indices[-1])
        if last - first == len(indices) - 1:
            return cls(
                sheet, indices, starts, plan, ids, columns.runs(first, last + 1), columns.offsets[first : last + 1]
            )
        found, counts = np.unique(columns.sources[indices], return_counts=True)
        runs = list(zip(found.tolist(), counts.tolist(), strict=True))
        return cls(sheet, indices, starts, plan, ids, runs, columns.offsets[indices])

    def pick(self, chosen: npt.NDArray[np.bool_]) -> "_Cohort":
        """Take some of the records."""
        ids = None if self.ids is None else self.ids[chosen]
        return _Cohort.of(self.sheet, self.indices[chosen], np.asarray(self.starts)[chosen], self.plan, ids)

    def identity(self, at: int) -> str | None:
        """Return one record's own id."""
        return None if self.ids is None else self.ids[at].tobytes().decode()

    def origins(self) -> list[Origin]:
        """Tell what the results of each run have in common."""
        sources, queue_ms = self.sheet.columns.work.sources, self.sheet.queue_ms
        return [Origin(count, sources[number][1], queue_ms(number)) for number, count in self.runs]


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
        self._msgpack, self._json = codec_for(MSGPACK), codec_for(JSON)
        self._stencils: dict[Look, tuple[Stencil, Plan]] = {}
        """By what results have in common; with the plan, so that no other gets its identity."""

    def encode(self, call: Call, outputs: Outputs, batch: Batch) -> None:
        """Write the results of a call's records on their sheets; those that cannot be written fail there."""
        at = 0
        has_tables = self._postprocess is None and all(output.datatype != BYTES for output in outputs)
        for portion in call:
            if isinstance(portion, Loose) and not (
                has_tables and portion.codec is self._msgpack and portion.records >= TABLE_RECORDS_MIN
            ):
                is_alike = has_tables and portion.codec is self._json and portion.records >= FRAME_RECORDS_MIN
                if not (is_alike and self._write_framed(portion, outputs, at, batch)):
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

    def _write_framed(self, loose: Loose, outputs: Outputs, at: int, batch: Batch) -> bool:
        """Write the results of JSON records at once; tell whether that can be done for all of them."""
        alike: dict[int, list[tuple[int, int, str | None, Plan]]] = {}
        for index, identity, _, plan in loose.entries:
            alike.setdefault(id(plan), []).append((index, at, identity, plan))
            at += plan.rows
        try:
            written = [
                each for members in alike.values() for each in self._framed(loose.sheet, members, outputs, batch)
            ]
        except (RecordError, ValueError, TypeError):
            return False  # one by one, each meets what stands in its way
        for index, identity, value in written:
            loose.sheet.put(index, value, identity.encode())
        return True

    def _framed(
        self, sheet: Sheet, members: Sequence[tuple[int, int, str | None, Plan]], outputs: Outputs, batch: Batch
    ) -> Iterator[tuple[int, str, bytes]]:
        """Write the results of records that share a plan: index, id and value of each."""
        indices, starts, identities, plans = zip(*members, strict=True)
        plan, columns, chosen = plans[0], sheet.columns, np.array(indices)
        numbers, offsets = columns.sources[chosen].tolist(), columns.offsets[chosen].tolist()
        elements = zip(*[_texts_of(output, np.array(starts), plan) for output in outputs], strict=True)
        frames: dict[int, JsonFrame] = {}
        for index, start, identity, number, offset, written in zip(
            indices, starts, identities, numbers, offsets, elements, strict=True
        ):
            frame = frames.get(number)
            if frame is None:
                tensors = tuple([output.tensor(start, plan) for output in outputs])
                frame = frames[number] = JsonFrame(self._result(sheet, index, identity, tensors, batch))
            own = columns.source(index).record_id if identity is None else identity
            yield index, own, frame.write(own, written, b"%d" % offset)

    def _write_cohort(self, cohort: _Cohort, outputs: Outputs, batch: Batch) -> None:
        """Write the results of a cohort one by one."""
        for at, (index, start) in enumerate(zip(cohort.indices.tolist(), cohort.starts, strict=True)):
            tensors = tuple([output.tensor(int(start), cohort.plan) for output in outputs])
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
        queue_ms = sheet.queue_ms(sheet.columns.source_number(index))
        parameters = provenance(source, batch.rows, queue_ms, batch.infer_ms, sha256)
        return Result(source.record_id if identity is None else identity, name, version, tensors, parameters)

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
        """Write the results of a cohort: all as one that the codec wrote, then what differs over it."""
        stencil = self._stencil(cohort, outputs, batch)
        origins, ids = cohort.origins(), cohort.ids
        values = stencil.table(origins, batch.rows, batch.infer_ms)
        stencil.write_offsets(values, cohort.offsets)
        for place, output in zip(stencil.outputs, outputs, strict=True):
            values[:, place] = output.table(cohort.starts, cohort.plan)
        if ids is None:
            ids = stencil.write_sources(values, origins, cohort.offsets)
        else:
            values[:, stencil.id] = ids
        cohort.sheet.put_table(cohort.indices, values, ids)

    def _stencil(self, cohort: _Cohort, outputs: Outputs, batch: Batch) -> Stencil:
        """Find a result that has all in common with a cohort's that a stencil does not write; else make the first."""
        plan, (number, _) = cohort.plan, cohort.runs[0]
        topic, partition, _ = cohort.sheet.columns.work.sources[number]
        numbers = (partition, int(cohort.offsets[0]))
        look: Look = (
            id(plan),
            topic,
            -1 if cohort.ids is None else cohort.ids.shape[1],
            *([bisect_right(POWERS, each) for each in numbers] if cohort.ids is None else ()),
            *[bisect_right(WIDTHS, each) for each in (*numbers, batch.rows)],
            *[output.look for output in outputs],
        )
        known = self._stencils.get(look)
        if known is not None:
            return known[0]
        tensors = tuple([output.tensor(int(cohort.starts[0]), plan) for output in outputs])
        first = self._result(cohort.sheet, int(cohort.indices[0]), cohort.identity(0), tensors, batch)
        encoded = self._msgpack.encode_result(first)
        stencil = Stencil(encoded, len(outputs))
        if len(encoded) <= STENCIL_BYTES_MAX:
            if len(self._stencils) >= STENCILS_MAX:
                self._stencils.clear()
            self._stencils[look] = stencil, plan
        return stencil


def _cohorts(portion: Portion, at: int) -> Iterator[_Cohort]:
    """Divide the records of a portion, which begins at row `at`, by the length that their results have."""
    columns = portion.sheet.columns
    for cohort in _alike(portion, at):
        offsets = cohort.offsets
        bounds = (WIDTHS,) if cohort.ids is not None else (WIDTHS, POWERS)
        used = [columns.work.sources[number] for number, _ in cohort.runs]
        partitions = [partition for _, partition, _ in used]
        extremes = ((min(partitions), max(partitions)), (int(offsets.min()), int(offsets.max())))
        if len({topic for topic, _, _ in used}) == 1 and all(
            bisect_right(bound, low) == bisect_right(bound, high) for bound in bounds for low, high in extremes
        ):
            yield cohort
            continue
        sources = columns.sources[cohort.indices]
        kinds = columns.topics[sources]
        for bound in bounds:
            for numbers in (columns.partitions[sources], offsets):
                kinds = kinds * (len(bound) + 1) + np.searchsorted(bound, numbers, "right")
        for kind in np.unique(kinds):
            yield cohort.pick(kinds == kind)


def _alike(portion: Portion, at: int) -> Iterator[_Cohort]:
    """Divide the records of a portion by the lengths of their ids and the shapes of their outputs."""
    if not isinstance(portion, Loose):
        assert portion.rows, "what has no elements has no template"
        starts = range(at, at + portion.rows, portion.plan.rows)
        yield _Cohort.of(portion.sheet, portion.indices, starts, portion.plan, portion.ids)
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
        yield _Cohort.of(portion.sheet, np.array(indices), np.array(firsts), plans[0], ids)


def _texts_of(output: Output, starts: Indices, plan: Plan) -> list[bytes]:
    """Write the elements of an output of records that share a plan as JSON has them.

    Raises:
        ValueError: JSON cannot carry one of them.
    """
    assert not isinstance(output.elements, list), "BYTES have no table"
    written = texts(output.table(starts, plan).view(output.elements.dtype))
    if written is None:
        raise ValueError("NaN or infinity")
    return written


def _table_of(cells: Sequence[bytes], width: int) -> Octets:
    """Make a table of cells of one width."""
    return np.frombuffer(b"".join(cells), np.uint8).reshape(len(cells), width)
