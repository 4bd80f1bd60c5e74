"""Template batches: records of one producer are mostly equal in all bytes but their id's and their tensors'.

Owns the layout that such records share, the whole-batch comparison that finds them, and the cache of layouts. What is
found here is decoded by array operations in a fraction of the codec's time, and to the same tensors: whatever is not
proven equal byte for byte goes the codec's way. Must not know models, calls or results.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from consumer.worker.binding import Plan
from consumer.worker.layout import between, leaves
from consumer.worker.spans import Columns, Indices, Octets, Sheet
from schemas.datatypes import BYTES
from schemas.records import Request

RECORDS_MIN = 8
"""Fewer records of one length than this are decoded one by one, which is cheaper then."""

TEMPLATES_MAX = 16
"""Templates that are remembered for one model."""

ATTEMPTS_MAX = 4
"""Templates that are tried on, or made of, the records of one length in one batch."""

PAUSE_MAX = 64
"""Batches for which a length is left alone at most, once its records turned out to have little in common."""

_ASCII_MAX = 0x7F
_UNFIT = frozenset({BYTES, "BOOL"})
"""Datatypes whose bytes the codec looks at: they may differ in length, or hold what is refused."""


class Template:
    """Where the id and the tensors stand in records that are otherwise equal.

    Attributes:
        length: bytes of each record.
        plan: how the tensors become the model's inputs.
        id: the id's bytes; None where the records have none.
        tensors: the bytes of each of the model's inputs, None where it is made, not sent.
    """

    def __init__(self, record: bytes, request: Request, plan: Plan) -> None:
        """Take the layout of a record that the codec has decoded to `request`, bound by `plan`.

        Raises:
            ValueError: No template can be made of such a record.
        """
        found = leaves(record)
        self.length = len(record)
        self.plan = plan
        self.id: slice | None = None
        if request.id is not None:
            self.id = found[("id",)].content
        self.tensors: list[slice | None] = []
        for at in plan.picks:
            if at < 0:
                self.tensors.append(None)
                continue
            leaf = found.get(("inputs", at, "data"))
            if leaf is None or leaf.kind != "bin" or leaf.first == leaf.stop or request.inputs[at].datatype in _UNFIT:
                raise ValueError("a tensor that is not raw numbers")
            self.tensors.append(leaf.content)
        self._fixed = [(part, record[part]) for part in between([self.id, *self.tensors], self.length)]

    def ids(self, table: Octets) -> Octets | None:
        """Copy the bytes that are the ids of records, the rows of `table`, if the template fits them; None for none."""
        return None if self.id is None else np.ascontiguousarray(table[:, self.id])

    def matches(self, table: Octets, ids: Octets | None) -> npt.NDArray[np.bool_] | None:
        """Compare records, the rows of `table`, with the template.

        Returns:
            Which of them the codec would decode to the same but id and elements; None where that is all of them.
        """
        # What is not ASCII may be no UTF-8, which the codec would refuse.
        is_ascii = ids is None or ids.tobytes().isascii()
        if is_ascii and all(table[:, part].tobytes() == expected * len(table) for part, expected in self._fixed):
            return None
        alike = np.ones(len(table), np.bool_)
        for part, expected in self._fixed:
            alike &= (table[:, part] == np.frombuffer(expected, np.uint8)).all(axis=1)
        if ids is not None and not is_ascii:
            alike &= ids.max(axis=1) <= _ASCII_MAX
        return alike


class Block(NamedTuple):
    """Records of one span that share a template."""

    sheet: Sheet
    indices: Indices
    """Positions in the chunk, rising."""
    template: Template
    table: Octets
    """One record a row, in place where that is possible."""
    ids: Octets | None
    """The ids' bytes, one record a row; None where the records have none."""

    @property
    def plan(self) -> Plan:
        """How the tensors become the model's inputs."""
        return self.template.plan

    @property
    def records(self) -> int:
        """Count the records."""
        return len(self.indices)

    @property
    def rows(self) -> int:
        """Count the rows."""
        return len(self.indices) * self.template.plan.rows

    @property
    def first_index(self) -> int:
        """The position of the first record in its chunk."""
        return int(self.indices[0])

    def part(self, first: int, stop: int) -> "Block":
        """Cut out records."""
        ids = None if self.ids is None else self.ids[first:stop]
        return Block(self.sheet, self.indices[first:stop], self.template, self.table[first:stop], ids)

    def pick(self, chosen: npt.NDArray[np.bool_]) -> "Block":
        """Take some of the records."""
        ids = None if self.ids is None else self.ids[chosen]
        return Block(self.sheet, self.indices[chosen], self.template, self.table[chosen], ids)

    def octets(self, number: int) -> Octets:
        """Return the bytes of an input that is sent, one record a row, in place."""
        place = self.template.tensors[number]
        assert place is not None
        return self.table[:, place]

    def elements(self, number: int) -> npt.NDArray[Any]:
        """Copy the elements of an input that is sent, shape (rows, *example's shape)."""
        dtype, shape = self.plan.dtypes[number], self.plan.shapes[number]
        assert dtype is not None, "no template has a tensor of BYTES"
        return self.octets(number).copy().view(dtype).reshape(self.rows, *shape)


class Templates:
    """The templates that one model's records were found to have."""

    def __init__(self) -> None:
        """Know none yet."""
        self._known: OrderedDict[Template, None] = OrderedDict()
        self._pauses: dict[int, tuple[int, int]] = {}
        """By length: batches to go, and how many it was left alone for last time."""

    def candidates(self, columns: Columns, first: int, stop: int) -> Iterator[tuple[Indices, Octets]]:
        """Find records of equal length among `first` to `stop`: their positions, and their bytes as a table."""
        if stop - first < RECORDS_MIN:
            return
        if columns.width is not None:
            if columns.width:
                part = columns.octets[columns.width * first : columns.width * stop]
                yield np.arange(first, stop), part.reshape(stop - first, columns.width)
            return
        lengths = columns.work.lengths[first:stop]
        starts = columns.starts[first:stop]
        length = int(lengths[0])
        if bool((lengths == length).all()):
            if length:
                at = int(starts[0])
                table = columns.octets[at : at + length * (stop - first)].reshape(stop - first, length)
                yield np.arange(first, stop), table
            return
        found, inverse, counts = np.unique(lengths, return_inverse=True, return_counts=True)
        for number, length in enumerate(found.tolist()):
            if counts[number] >= RECORDS_MIN and length:
                chosen = np.flatnonzero(inverse == number)
                shape = (len(columns.octets) - length + 1, length)
                windows: Octets = np.ndarray(shape, np.uint8, columns.octets, strides=(1, 1))
                yield chosen + first, windows[starts[chosen]]

    def known(self, length: int) -> list[Template]:
        """List the templates of a length, the one last used first, and so few that an attempt is left for another."""
        return [template for template in reversed(self._known) if template.length == length][: ATTEMPTS_MAX - 1]

    def used(self, template: Template) -> None:
        """Remember a template, and that it was of use."""
        self._known[template] = None
        self._known.move_to_end(template)
        self._pauses.pop(template.length, None)
        if len(self._known) > TEMPLATES_MAX:
            self._known.popitem(last=False)

    def may_learn(self, length: int) -> bool:
        """Tell whether it is time to make a template of a record of this length."""
        left, last = self._pauses.get(length, (0, 0))
        if left:
            self._pauses[length] = (left - 1, last)
        return left == 0

    def in_vain(self, length: int) -> None:
        """Leave a length alone for a while: its records have little in common."""
        _, last = self._pauses.get(length, (0, 0))
        pause = min(2 * last or 1, PAUSE_MAX)
        if len(self._pauses) >= TEMPLATES_MAX * PAUSE_MAX:
            self._pauses.clear()
        self._pauses[length] = (pause, pause)
