"""From the outputs of a call to result payloads and record keys.

Owns `postprocess`, the results' provenance, and the two ways of writing results: record by record through the codec, or
a whole block as a table, from one result that the codec wrote. Both give the same bytes. Must not know models or calls.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from consumer.worker.collate import Call
from consumer.worker.decoding import Arrays, Loose, texts
from consumer.worker.failures import failure_of
from consumer.worker.layout import Leaf, Path, leaves
from consumer.worker.spans import Indices, Octets, Sheet
from consumer.worker.split import Outputs
from consumer.worker.template import Block
from schemas.codecs import MSGPACK, Codec, codec_for
from schemas.datatypes import BF16, BYTES
from schemas.records import QUEUE_MS, SOURCE_OFFSET, SOURCE_PARTITION, Result, provenance
from schemas.tensors import Tensor, TensorData

Postprocess: TypeAlias = Callable[[dict[str, TensorData]], Arrays]

_POWERS: npt.NDArray[np.int64] = 10 ** np.arange(1, 19, dtype=np.int64)
"""The smallest numbers of 2, 3, ... digits."""


class Identity(NamedTuple):
    """What results say of their model."""

    name: str
    version: str | None
    sha256: str | None


class Batch(NamedTuple):
    """What results say of the call that they were part of."""

    rows: int
    infer_ms: float


class Encoder:
    """Writes the results of one model."""

    def __init__(self, identity: Identity, content_type: str, postprocess: Postprocess | None = None) -> None:
        """Remember what every result says.

        Args:
            identity: Of the model.
            content_type: What records are, and so their results, that do not say it themselves.
            postprocess: Turns one record's outputs into its result's.
        """
        self._identity = identity
        self._content_type = content_type
        self._postprocess = postprocess

    def encode(self, call: Call, outputs: Outputs, batch: Batch) -> None:
        """Write the results of a call's records on their sheets; those that cannot be written fail there."""
        at = 0
        has_table = all(output.datatype != BYTES for output in outputs)
        for portion in call:
            if isinstance(portion, Loose):
                self._write_singly(portion, outputs, at, batch)
            elif has_table:
                self._write_tables(portion, outputs, at, batch)
            else:
                self._write_singly(_loosened(portion), outputs, at, batch)
            at += portion.rows

    def _result(self, sheet: Sheet, index: int, identity: str | None, batch: Batch) -> tuple[str, Result]:
        """Make a result without outputs, and the id that it has."""
        source = sheet.columns.source(index)
        identity = source.record_id if identity is None else identity
        queue_ms = sheet.queue_ms[index - sheet.span.first].item()
        name, version, sha256 = self._identity
        parameters = provenance(source, batch.rows, queue_ms, batch.infer_ms, sha256)
        return identity, Result(identity, name, version, (), parameters)

    def _write_singly(self, loose: Loose, outputs: Outputs, at: int, batch: Batch) -> None:
        """Write results one by one."""
        sheet, types = loose.sheet, loose.sheet.columns.work.content_types
        for index, given, plan in zip(loose.indices, loose.ids, loose.plans, strict=True):
            tensors = tuple([output.tensor(at, plan) for output in outputs])
            at += plan.rows
            try:
                if self._postprocess is not None:
                    tensors = self._finished(tensors)
                identity, result = self._result(sheet, index, given, batch)
                codec: Codec = codec_for(None if types is None else types[index], self._content_type)
                value = codec.encode_result(result._replace(outputs=tensors))
            except Exception as error:  # noqa: BLE001 - postprocess is the user's code, and fails for its record alone
                sheet.fail(index, failure_of(error, texts(tensors)))
                continue
            sheet.put(index, value, identity.encode())

    def _finished(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Have `postprocess` make a result's outputs of a record's; it may write to what it gets."""
        assert self._postprocess is not None
        bf16 = {tensor.name for tensor in tensors if tensor.datatype == BF16}
        made = self._postprocess({name: data.copy() for name, _, _, data in tensors})
        return tuple(
            Tensor.of(name, content, BF16 if name in bf16 and getattr(content, "dtype", None) == np.uint16 else None)
            for name, content in made.items()
        )

    def _write_tables(self, block: Block, outputs: Outputs, at: int, batch: Batch) -> None:
        """Write the results of a block: one table for all results of equal length."""
        tables = [output.table(at, block.records, block.plan) for output in outputs]
        for chosen in _cohorts(block):
            part = block if len(chosen) == block.records else _chosen(block, chosen)
            bytes_of = tables if len(chosen) == block.records else [table[chosen] for table in tables]
            given = None if part.template.id is None else bytes(part.table[0, part.template.id]).decode()
            index = int(part.indices[0])
            _, result = self._result(part.sheet, index, given, batch)
            first = tuple([output.tensor(at + int(chosen[0]) * block.plan.rows, block.plan) for output in outputs])
            encoded = codec_for(MSGPACK).encode_result(result._replace(outputs=first))
            part.sheet.put_table(part.indices, *_table(part, encoded, bytes_of))


def _table(block: Block, encoded: bytes, outputs: list[Octets]) -> tuple[Octets, Octets]:
    """Write the results of records whose ids have one length, from the result of the first one.

    Args:
        block: The records.
        encoded: The first record's result.
        outputs: The bytes of each output, one record a row.

    Returns:
        The payloads and the keys, one record a row.
    """
    found, sheet = leaves(encoded), block.sheet
    columns = sheet.columns
    values = np.empty((block.records, len(encoded)), np.uint8)
    values[:] = np.frombuffer(encoded, np.uint8)
    for number, octets in enumerate(outputs):
        values[:, found["outputs", number, "data"].content] = octets
    offsets = columns.offsets[block.indices]
    partitions = columns.partitions[columns.sources[block.indices]]
    queue_ms = sheet.queue_ms[block.indices - sheet.span.first]
    for name, numbers, dtype in (
        (SOURCE_PARTITION, partitions, ">u8"),
        (SOURCE_OFFSET, offsets, ">u8"),
        (QUEUE_MS, queue_ms, ">f8"),
    ):
        place = _eight_bytes(found, ("parameters", name))
        values[:, place] = numbers.astype(dtype).view(np.uint8).reshape(block.records, 8)
    place = found[("id",)].content
    if block.template.id is not None:
        values[:, place] = block.table[:, block.template.id]
    else:
        _write_digits(values, place.stop, offsets)
        _write_digits(values, place.stop - _digits(offsets[:1])[0] - 1, partitions)
    return values, np.ascontiguousarray(values[:, place])


def _eight_bytes(found: Mapping[Path, Leaf], path: Path) -> slice:
    """Find the content of a number that the codec writes at full width."""
    place = found[path].content
    assert place.stop - place.start == 8, "the codec writes numbers of a result's parameters at full width"  # noqa: PLR2004
    return place


def _cohorts(block: Block) -> list[Indices]:
    """Divide a block into records whose results have the same length and the same source topic."""
    columns = block.sheet.columns
    sources = columns.sources[block.indices]
    kinds = columns.topics[sources]
    if block.template.id is None:  # the id that they get is of topic, partition and offset
        digits = _digits(columns.offsets[block.indices])
        kinds = (kinds * 20 + _digits(columns.partitions[sources])) * 20 + digits
    if bool((kinds == kinds[0]).all()):
        return [np.arange(block.records)]
    return [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]


def _chosen(block: Block, chosen: Indices) -> Block:
    """Take some records of a block."""
    return block._replace(indices=block.indices[chosen], table=block.table[chosen])


def _loosened(block: Block) -> Loose:
    """Make single records of a block that was decoded as a whole."""
    place = block.template.id
    ids = [None if place is None else bytes(row[place]).decode() for row in block.table]
    plans = [block.plan] * block.records
    return Loose(block.sheet, block.indices.tolist(), ids, [()] * block.records, plans, block.rows)


def _digits(numbers: npt.NDArray[np.int64]) -> Indices:
    """Count the decimal digits of non-negative numbers."""
    return np.searchsorted(_POWERS, numbers, "right") + 1


def _write_digits(values: Octets, stop: int, numbers: npt.NDArray[np.int64]) -> None:
    """Write numbers of equally many digits in decimal, so that they end before column `stop`."""
    count = int(_digits(numbers[:1])[0])
    powers = 10 ** np.arange(count - 1, -1, -1, dtype=np.int64)
    values[:, stop - count : stop] = numbers[:, None] // powers % 10 + ord("0")
