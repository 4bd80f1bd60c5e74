"""From payloads to bound inputs: by templates where records are alike, else record by record through the codec.

Owns the choice between both ways, `preprocess`, and every refusal of a record before it reaches its model. Must not
know calls, outputs or torch.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from consumer.models.signature import Arguments, Signature
from consumer.worker.binding import Binder, Plan
from consumer.worker.failures import failure_of
from consumer.worker.spans import Columns, Indices, Octets, Sheet
from consumer.worker.template import ATTEMPTS_MAX, RECORDS_MIN, Block, Template, Templates
from schemas.codecs import MSGPACK, Codec, codec_for
from schemas.datatypes import BF16, BYTES
from schemas.errors import RecordError
from schemas.reasons import Reason
from schemas.tensors import Tensor, TensorData

Arrays: TypeAlias = Mapping[str, TensorData]
"""One record's tensors by name, as `preprocess` and `postprocess` see them."""

_BF16_EXPONENT = 0x7F80
"""All ones in NaN and infinity."""


Entry: TypeAlias = tuple[int, str | None, tuple[TensorData, ...], Plan]
"""A decoded record: its position in the chunk, its id, its elements in the model's order, and how it was bound."""


@dataclass(slots=True)
class Loose:
    """Records of one span, group and codec that were decoded one by one."""

    sheet: Sheet
    codec: Codec
    entries: list[Entry]
    """In the order of their positions."""
    rows: int = 0

    @property
    def plan(self) -> Plan:
        """One record's way to be bound; those of the others differ in rows, form and the lengths of padded axes."""
        return self.entries[0][3]

    @property
    def records(self) -> int:
        """Count the records."""
        return len(self.entries)

    @property
    def first_index(self) -> int:
        """The position of the first record in its chunk."""
        return self.entries[0][0]

    def part(self, first: int, stop: int) -> "Loose":
        """Cut out records."""
        entries = self.entries[first:stop]
        return Loose(self.sheet, self.codec, entries, sum(plan.rows for _, _, _, plan in entries))


Portion: TypeAlias = Block | Loose
"""Records of one span that may share a call."""

Groups: TypeAlias = dict[tuple[Any, ...], list[Portion]]
"""The portions of a batch, by what their records must have in common to share a call."""


class Decoder:
    """Decodes the records of one model."""

    def __init__(
        self,
        takes: Signature | Arguments,
        *,
        content_type: str,
        is_batched: bool = True,
        is_finite: bool = False,
        preprocess: Callable[[dict[str, TensorData]], Arrays] | None = None,
    ) -> None:
        """Remember what the model takes.

        Args:
            takes: The model's signature, or its arguments' names.
            content_type: What records are that do not say it themselves.
            is_batched: Whether axis 0 is rows; otherwise each record is a call of its own, and templates are of no use.
            is_finite: Whether NaN and infinity are refused.
            preprocess: Turns one record's tensors into the model's.
        """
        self._content_type = content_type
        self._binder = Binder(takes, is_batched=is_batched)
        self._is_finite = is_finite
        self._preprocess = preprocess
        specs = takes.inputs if isinstance(takes, Signature) else ()
        self._bf16 = frozenset(spec.name for spec in specs if spec.datatype == BF16)
        self._templates = Templates() if is_batched and preprocess is None else None

    def decode(self, sheet: Sheet, groups: Groups) -> None:
        """Decode a span's records into `groups`; those that are refused fail on the sheet."""
        columns, first, stop = sheet.span
        rest: Sequence[int] = range(first, stop)
        if self._templates is not None and self._is_msgpack(columns, first, stop):
            found = [
                block
                for indices, table in self._templates.candidates(columns, first, stop)
                for block in self._blocks(self._templates, sheet, indices, table)
            ]
            rest = _left(found, first, stop)
            for block in found:
                if (fit := self._finite(block)).records:
                    groups.setdefault(block.plan.group, []).append(fit)
        if rest:
            self._decode_singly(sheet, rest, groups)

    def _is_msgpack(self, columns: Columns, first: int, stop: int) -> bool:
        """Tell whether all of these records are msgpack."""
        types = columns.work.content_types
        if types is None and self._content_type == MSGPACK:
            return True
        try:
            names = {None} if types is None else set(types[first:stop])
            return {codec_for(name, self._content_type).content_type for name in names} == {MSGPACK}
        except RecordError:
            return False

    def _blocks(self, templates: Templates, sheet: Sheet, indices: Indices, table: Octets) -> Iterable[Block]:
        """Find the templates of records of one length; what has none is left out."""
        length = table.shape[1]
        known = iter(templates.known(length))
        for _ in range(ATTEMPTS_MAX):
            if len(indices) < RECORDS_MIN:
                return
            template = next(known, None)
            is_new = template is None
            if template is None:
                if not templates.may_learn(length):
                    return
                template = self._learn(sheet.columns, int(indices[0]))
                if template is None:
                    templates.in_vain(length)
                    return
            ids = template.ids(table)
            alike = template.matches(table, ids)
            block = Block(sheet, indices, template, table, ids)
            if alike is None:
                templates.used(template)
                yield block
                return
            count = int(np.count_nonzero(alike))
            if count >= RECORDS_MIN:
                templates.used(template)
                yield block.pick(alike)
                indices, table = indices[~alike], table[~alike]
            elif is_new:
                templates.in_vain(length)
                return

    def _learn(self, columns: Columns, index: int) -> Template | None:
        """Make a template of a record; None where that cannot be."""
        record = bytes(columns.payload(index))
        try:
            request = codec_for(MSGPACK).decode_request(record)
            return Template(record, request, self._binder.bind(request.inputs))
        except (RecordError, ValueError):
            return None

    def _decode_singly(self, sheet: Sheet, indices: Iterable[int], groups: Groups) -> None:
        """Decode records one by one."""
        columns, absent = sheet.columns, sheet.columns.work.absent
        starts, ends, buffer = columns.start_list, columns.end_list, columns.work.buffer
        types, default, bind = columns.work.content_types, self._content_type, self._binder.bind
        found: dict[tuple[Codec, tuple[Any, ...]], Loose] = {}
        for index in indices:
            if index in absent:
                sheet.fail(index, failure_of(RecordError(Reason.NO_VALUE, "the record has no value")))
                continue
            tensors: tuple[Tensor, ...] = ()
            try:
                codec = codec_for(default if types is None else types[index], default)
                identity, tensors, _ = codec.decode_request(buffer[starts[index] : ends[index]])
                if self._preprocess is not None:
                    tensors = self._prepared(tensors)
                plan = bind(tensors)
                if self._is_finite:
                    _check_finite(tensors)
            except RecordError as error:
                sheet.fail(index, failure_of(error))
                continue
            except _PreprocessError as error:
                sheet.fail(index, failure_of(error.cause, has_texts=has_texts(tensors)))
                continue
            loose = found.get((codec, plan.group))
            if loose is None:
                loose = found[codec, plan.group] = Loose(sheet, codec, [])
                groups.setdefault(plan.group, []).append(loose)
            loose.entries.append((index, identity, plan.pick(tensors), plan))
            loose.rows += plan.rows

    def _prepared(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Have `preprocess` make the model's tensors of a record's; it may write to what it gets."""
        assert self._preprocess is not None
        try:
            made = self._preprocess({name: data.copy() for name, _, _, data in tensors})
            return tuple(
                Tensor.of(name, content, BF16 if name in self._bf16 and _is_uint16(content) else None)
                for name, content in made.items()
            )
        except Exception as error:
            raise _PreprocessError(error) from error

    def _finite(self, block: Block) -> Block:
        """Refuse the records of a block that are not finite, and return the others."""
        if not self._is_finite:
            return block
        good = np.ones(block.records, np.bool_)
        for number, datatype in enumerate(block.plan.datatypes):
            if block.template.tensors[number] is not None:
                good &= finite(block.elements(number), datatype).reshape(block.records, -1).all(axis=1)
        if good.all():
            return block
        for index in block.indices[~good].tolist():
            block.sheet.fail(index, failure_of(_not_finite()))
        return block.pick(good)


class _PreprocessError(Exception):
    """What `preprocess` raised, or could not be made of what it returned."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause


def _left(blocks: Sequence[Block], first: int, stop: int) -> Sequence[int]:
    """List the records that no block has."""
    if any(block.records == stop - first for block in blocks):
        return ()
    left = np.ones(stop - first, np.bool_)
    for block in blocks:
        left[block.indices - first] = False
    found: list[int] = (np.flatnonzero(left) + first).tolist()
    return found


def finite(elements: npt.NDArray[Any], datatype: str) -> npt.NDArray[np.bool_]:
    """Tell which elements are neither NaN nor infinite."""
    if datatype == BF16:
        return np.asarray((elements & _BF16_EXPONENT) != _BF16_EXPONENT)
    if elements.dtype.kind != "f":
        return np.ones(elements.shape, np.bool_)
    return np.asarray(np.isfinite(elements))


def has_texts(tensors: Iterable[Tensor]) -> bool:
    """Tell whether a record holds BYTES."""
    return any(tensor.datatype == BYTES for tensor in tensors)


def _check_finite(tensors: Iterable[Tensor]) -> None:
    """Refuse NaN and infinity."""
    for tensor in tensors:
        if not isinstance(tensor.data, list) and not finite(tensor.data, tensor.datatype).all():
            raise _not_finite()


def _not_finite() -> RecordError:
    return RecordError(Reason.NOT_FINITE, "an input holds NaN or infinity, which the model forbids")


def _is_uint16(content: object) -> bool:
    return isinstance(content, np.ndarray) and content.dtype == np.uint16
