"""From what a model returns to the outputs of single records.

Owns the way off the device, the check that rows match, and cutting padded axes to each record's length. Must not know
how results are written.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from consumer.models.signature import Arguments, Form, Signature
from consumer.worker.binding import Plan
from consumer.worker.dtypes import DATATYPES
from schemas.datatypes import BF16, BYTES
from schemas.tensors import Tensor


class OutputError(Exception):
    """A model returned something else than one row for each that it got."""


class Output(NamedTuple):
    """One output of a call, off the device."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """One row's; the whole output's where there are no rows."""
    elements: npt.NDArray[Any] | list[bytes]
    """Shape (rows, *shape), C-contiguous; for BYTES the elements of all rows."""
    cuts: tuple[tuple[int, str], ...] = ()
    """Axis of `shape`, and name, of every axis that is cut to the record's length."""

    @property
    def look(self) -> tuple[str, str, tuple[int, ...]]:
        """What says, with a record's plan, how its part looks: name, datatype, and the shape but for axes to be cut."""
        if not self.cuts:
            return self.name, self.datatype, self.shape
        cut = {axis for axis, _ in self.cuts}
        return self.name, self.datatype, tuple([-1 if at in cut else size for at, size in enumerate(self.shape)])

    def tensor(self, at: int, plan: Plan) -> Tensor:
        """Return one record's part, which begins at row `at`."""
        if plan.form is Form.WHOLE:
            return Tensor(self.name, self.datatype, self.shape, self.elements)
        front = (plan.rows,) if plan.form is Form.ROWS else ()
        if isinstance(self.elements, list):
            width = math.prod(self.shape)
            found = self.elements[at * width : (at + plan.rows) * width]
            return Tensor(self.name, self.datatype, (*front, *self.shape), found)
        part = self.elements[at : at + plan.rows] if front else self.elements[at, ...]
        if self.cuts:
            part = self._cut(part, plan.lengths)
        return Tensor(self.name, self.datatype, part.shape, part)

    def table(self, starts: range | npt.NDArray[np.intp], plan: Plan) -> npt.NDArray[np.uint8]:
        """Return the bytes of the parts of records that share a plan, one record a row from `starts` on."""
        assert not isinstance(self.elements, list), "BYTES have no table"
        records, rows = len(starts), len(starts) * plan.rows
        first = int(starts[0])
        if int(starts[-1]) - first == rows - plan.rows:
            part = self.elements[first : first + rows]
        elif plan.rows == 1:
            part = self.elements[np.asarray(starts)]
        else:
            part = self.elements[(np.asarray(starts)[:, None] + np.arange(plan.rows)).reshape(-1)]
        if self.cuts:
            part = self._cut(part, plan.lengths)
        return part.reshape(records, plan.rows * math.prod(part.shape[1:])).view(np.uint8)

    def _cut(self, part: npt.NDArray[Any], lengths: Mapping[str, int]) -> npt.NDArray[Any]:
        """Cut padded axes."""
        place = [slice(None)] * part.ndim
        for axis, name in self.cuts:
            place[axis - len(self.shape)] = slice(lengths[name])
        return np.ascontiguousarray(part[tuple(place)])


Outputs = list[Output]
"""All outputs of a call."""


class Splitter:
    """Takes one model's outputs apart."""

    def __init__(self, takes: Signature | Arguments) -> None:
        """Remember which axes are cut, and how many texts a row has."""
        specs = takes.outputs or () if isinstance(takes, Signature) else ()
        self._cuts = takes.cuts if isinstance(takes, Signature) else {}
        self._shapes = {spec.name: spec.shape for spec in specs}

    def take(self, returned: Mapping[str, torch.Tensor | list[bytes]], rows: int | None) -> Outputs:
        """Copy outputs off the device, which waits until they are computed.

        Args:
            returned: Named outputs of a call.
            rows: The rows that the model got; None where its tensors have no rows.

        Raises:
            OutputError: An output has another number of rows.
        """
        return [
            self._take_texts(name, value, rows) if isinstance(value, list) else self._take_tensor(name, value, rows)
            for name, value in returned.items()
        ]

    def _take_tensor(self, name: str, value: torch.Tensor, rows: int | None) -> Output:
        datatype = DATATYPES[value.dtype]
        if rows is not None and (value.ndim == 0 or value.shape[0] != rows):
            raise OutputError(f"output {name!r} has shape {list(value.shape)} where the model got {rows} rows")
        bits = value.detach().cpu().contiguous()
        elements = bits.view(torch.uint16).numpy() if datatype == BF16 else bits.numpy()
        shape = elements.shape if rows is None else elements.shape[1:]
        return Output(name, datatype, shape, elements, self._cuts.get(name, ()))

    def _take_texts(self, name: str, value: list[bytes], rows: int | None) -> Output:
        if rows is None:
            return Output(name, BYTES, (len(value),), value)
        if rows == 0 or len(value) == rows:
            return Output(name, BYTES, (), value)
        if len(value) % rows:
            raise OutputError(f"output {name!r} has {len(value)} elements where the model got {rows} rows")
        width = len(value) // rows
        declared = self._shapes.get(name, ())
        sizes = tuple(size for size in declared if isinstance(size, int))
        fits = len(sizes) == len(declared) and math.prod(sizes) == width
        return Output(name, BYTES, sizes if fits else (width,), value)


def joined(parts: Sequence[Outputs]) -> Outputs:
    """Put the outputs of several calls together again, rows in order.

    Raises:
        OutputError: The calls returned different outputs.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    whole: Outputs = []
    for number, output in enumerate(first):
        same = [part[number] if number < len(part) else None for part in parts]
        for other in same:
            if other is None or (other.name, other.datatype, other.shape) != (
                output.name,
                output.datatype,
                output.shape,
            ):
                raise OutputError(
                    f"output {output.name!r} differs in shape between the calls that a record was cut into"
                )
        found = [other.elements for other in same if other is not None]
        elements: Any = (
            [text for texts in found for text in texts] if isinstance(output.elements, list) else np.concatenate(found)
        )
        whole.append(output._replace(elements=elements))
    return whole
