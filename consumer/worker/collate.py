"""From the records of one call to the tensors that the model gets.

Owns stacking, padding and masks, and the division of a batch into calls. Must not know where elements come from or what
the model makes of them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from consumer.models.signature import Arguments, Form, Signature
from consumer.worker.binding import Plan
from consumer.worker.decoding import Loose, Portion
from consumer.worker.spans import Octets
from consumer.worker.template import Block
from schemas.datatypes import BF16, BYTES

Call: TypeAlias = list[Portion]
"""Portions whose records the model gets at once."""

Inputs: TypeAlias = dict[str, torch.Tensor | list[bytes]]
"""What the model gets, by name: tensors of `rows` rows, or the elements of a BYTES tensor."""


@dataclass(frozen=True, slots=True)
class _Fill:
    """How one input is padded."""

    axes: tuple[tuple[int, str], ...]
    """Position in the example's shape, and name, of every axis that is padded."""
    pad: float


class Collator:
    """Makes one model's tensors of its records."""

    def __init__(self, takes: Signature | Arguments) -> None:
        """Remember how the model's inputs are padded."""
        self._fills: Mapping[str, _Fill] = {}
        if isinstance(takes, Signature):
            self._fills = {
                spec.name: _Fill(axes, spec.pad)
                for spec in takes.inputs
                if spec.pad is not None
                and (
                    axes := tuple(
                        (at, size)
                        for at, size in enumerate(spec.shape)
                        if isinstance(size, str) and size in takes.padded_axes
                    )
                )
            }

    def collate(self, call: Call) -> Inputs:
        """Put the inputs of a call's records together; every tensor is a copy that the model may write to.

        Raises:
            MemoryError: The tensors do not fit into memory.
        """
        rows = rows_of(call)
        plan = call[0].plan
        lengths = self._longest(call)
        return {
            name: _texts(call, number)
            if plan.datatypes[number] == BYTES
            else self._tensor(call, number, (rows, *self._shape(plan, number, lengths)))
            for number, name in enumerate(plan.names)
        }

    def _longest(self, call: Call) -> Mapping[str, int]:
        """Find the longest of each free axis among the records."""
        longest = dict(call[0].plan.lengths)
        if self._fills:
            for portion in call:
                plans = {id(entry[3]): entry[3] for entry in portion.entries} if isinstance(portion, Loose) else {}
                for plan in plans.values() or (portion.plan,):
                    for axis, length in plan.lengths.items():
                        longest[axis] = max(longest[axis], length)
        return longest

    def _shape(self, plan: Plan, number: int, lengths: Mapping[str, int]) -> tuple[int, ...]:
        """Return an example's shape, padded axes at their longest."""
        shape = list(plan.shapes[number])
        fill = self._fills.get(plan.names[number])
        if fill is not None:
            for at, axis in fill.axes:
                shape[at] = lengths[axis]
        return tuple(shape)

    def _tensor(self, call: Call, number: int, shape: tuple[int, ...]) -> torch.Tensor:
        """Put one input together."""
        plan = call[0].plan
        dtype = plan.dtypes[number]
        assert dtype is not None, "BYTES are no tensor"
        if plan.form is Form.WHOLE:
            assert len(call) == 1
            assert isinstance(call[0], Loose)
            return as_tensor(np.array(call[0].entries[0][2][number], dtype), plan.datatypes[number])
        fill = self._fills.get(plan.names[number])
        if fill is None:
            joined = _joined(call, number, math.prod(shape) * dtype.itemsize)
            return as_tensor(joined.view(dtype).reshape(shape), plan.datatypes[number])
        padded = np.full(shape, _bits(fill.pad) if plan.datatypes[number] == BF16 else fill.pad, dtype)
        at = 0
        for portion in call:
            target = padded[at : at + portion.rows]
            if isinstance(portion, Block):
                _place_block(portion, number, target)
            else:
                _place_loose(portion, number, target)
            at += portion.rows
        return as_tensor(padded, plan.datatypes[number])


def rows_of(call: Sequence[Portion]) -> int:
    """Count the rows of a call."""
    return sum(portion.rows for portion in call)


def records_of(call: Sequence[Portion]) -> int:
    """Count the records of a call."""
    return sum(portion.records for portion in call)


def calls(portions: Sequence[Portion], rows_max: int) -> Iterator[Call]:
    """Divide portions of one group into calls of at most that many rows, or of a single record that has more.

    A record whose tensors go to the model as sent is always a call of its own.
    """
    if portions[0].plan.form is Form.WHOLE:
        rows_max = 1
    call: Call = []
    rows = 0
    for portion in portions:
        first = 0
        while first < portion.records:
            stop = _fitting(portion, first, rows_max - rows)
            if stop > first:
                part = portion if stop - first == portion.records else portion.part(first, stop)
                call.append(part)
                rows += part.rows
                first = stop
            if first < portion.records:
                if not call:  # more rows than a call takes: the runner divides it
                    call, first = [portion.part(first, first + 1)], first + 1
                yield call
                call, rows = [], 0
    if call:
        yield call


def halves(call: Call) -> tuple[Call, Call]:
    """Divide the records of a call in two."""
    left = records_of(call) // 2
    front: Call = []
    for at, portion in enumerate(call):
        if portion.records > left:
            cut = [portion.part(0, left)] if left else []
            return [*front, *cut], [portion.part(left, portion.records), *call[at + 1 :]]
        front.append(portion)
        left -= portion.records
    raise AssertionError("a call of one record cannot be divided")


def as_tensor(array: npt.NDArray[Any], datatype: str) -> torch.Tensor:
    """View an array as the tensor of its datatype."""
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if datatype == BF16 else tensor


def _fitting(portion: Portion, first: int, rows_max: int) -> int:
    """Find up to where a portion's records, from `first` on, have at most `rows_max` rows."""
    if isinstance(portion, Block):
        return min(portion.records, first + rows_max // portion.plan.rows)
    if first == 0 and portion.rows <= rows_max:
        return portion.records
    stop = first
    while stop < portion.records and (rows := portion.entries[stop][3].rows) <= rows_max:
        rows_max -= rows
        stop += 1
    return stop


def _texts(call: Call, number: int) -> list[bytes]:
    """Put the elements of a BYTES input together."""
    found: list[bytes] = []
    for portion in call:
        assert isinstance(portion, Loose), "no template has a tensor of BYTES"
        for _, _, inputs, _ in portion.entries:
            elements = inputs[number]
            assert isinstance(elements, list)
            found += elements
    return found


def _joined(call: Call, number: int, size: int) -> Octets:
    """Copy the elements of one input of all records, `size` bytes in all, one after the other."""
    if all(isinstance(portion, Loose) for portion in call):
        # Much cheaper than stacking arrays: a single allocation, and one memcpy a record.
        return np.frombuffer(bytearray().join(_pieces(call, number)), np.uint8) if size else np.empty(0, np.uint8)
    joined = np.empty(size, np.uint8)
    at = 0
    for portion in call:
        if isinstance(portion, Block):
            octets = portion.octets(number)
            joined[at : at + octets.size].reshape(octets.shape)[...] = octets
            at += octets.size
        else:
            pieces = b"".join(_pieces([portion], number))
            joined[at : at + len(pieces)] = np.frombuffer(pieces, np.uint8)
            at += len(pieces)
    assert at == size, "records that share a call have examples of one shape"
    return joined


def _pieces(call: Call, number: int) -> list[Any]:
    """List the elements of one input of records that were decoded one by one."""
    return [entry[2][number] for portion in call if isinstance(portion, Loose) for entry in portion.entries]


def _place_block(block: Block, number: int, target: npt.NDArray[Any]) -> None:
    """Copy the elements of records of one template to their rows."""
    plan = block.plan
    by_record = target.reshape(block.records, plan.rows, *target.shape[1:])
    place = by_record[(slice(None), slice(None), *map(slice, plan.shapes[number]))]
    if block.template.tensors[number] is None:
        place[...] = plan.made[number]
    else:
        place[...] = block.elements(number).reshape(place.shape)


def _place_loose(loose: Loose, number: int, target: npt.NDArray[Any]) -> None:
    """Copy the elements of single records to their rows; an example without an axis for rows fits as one."""
    at = 0
    for _, _, inputs, plan in loose.entries:
        target[at : at + plan.rows][(slice(None), *map(slice, plan.shapes[number]))] = inputs[number]
        at += plan.rows


def _bits(value: float) -> int:
    """Return the 16 bits of a number as BF16."""
    return int(torch.tensor(value, dtype=torch.bfloat16).view(torch.int16)) & 0xFFFF
