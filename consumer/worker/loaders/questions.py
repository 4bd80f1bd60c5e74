"""What a model is asked before it gets records: the record in its warm-up file, else zeros of its signature.

Owns rows of examples and how they become a batch. Must not know the answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from consumer.errors import ModelError
from consumer.models.options import ModelOptions
from consumer.models.signature import Arguments, Bound, Form, Signature, TensorSpec
from consumer.worker.loaders.outputs import Value
from consumer.worker.loaders.program import Hook
from schemas.codecs import JSON, MSGPACK, decode_request
from schemas.datatypes import BF16, BYTES, dtype_of
from schemas.errors import RecordError
from schemas.tensors import Tensor

_FREE_LENGTH = 2
"""Length of a free axis in zeros, where the model takes it."""
_BF16_ONE = 0x3F80
_FLOATS = ("FP16", "FP32", "FP64")


@dataclass(frozen=True, slots=True)
class Row:
    """One example's tensors; of a model that is not batched, one record's as sent."""

    tensors: tuple[Tensor, ...]
    lengths: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Question:
    """Rows for a model; the first is asked alone as well."""

    rows: tuple[Row, ...]
    is_invented: bool
    """Whether the rows beside the first are made up, so that a sound model may refuse them."""


def find(options: ModelOptions, takes: Signature | Arguments, preprocess: Hook | None) -> Question | None:
    """Find what to ask a model; None where there is neither a file nor a signature.

    Raises:
        ModelError: the file cannot be read, or holds no record for this model.
    """
    if options.warmup is None:
        if not isinstance(takes, Signature):
            return None
        return Question((_example(takes, value=0), _example(takes, value=1, more=1)), is_invented=True)
    rows = _from_file(options.warmup, takes, preprocess, is_batched=options.batch)
    if len(rows) == 1 and options.batch:
        return Question((rows[0], _other(rows[0])), is_invented=True)
    return Question(rows, is_invented=False)


def batch(rows: Sequence[Row], takes: Signature | Arguments, *, is_batched: bool, device: str) -> dict[str, Value]:
    """Put rows on top of one another, padded to the longest, on a device."""
    made: dict[str, Value] = {}
    pads = {spec.name: spec.pad for spec in takes.inputs} if isinstance(takes, Signature) else {}
    for column in zip(*(row.tensors for row in rows), strict=True):
        name, datatype = column[0].name, column[0].datatype
        if datatype == BYTES:
            made[name] = [element for tensor in column for element in tensor.data]
            continue
        arrays = [tensor.data for tensor in column if isinstance(tensor.data, np.ndarray)]
        array = _padded(arrays, pads.get(name) or 0, datatype) if is_batched else arrays[0].copy()
        tensor = torch.from_numpy(array)
        made[name] = (tensor.view(torch.bfloat16) if datatype == BF16 else tensor).to(device)
    return made


def _from_file(
    file: str, takes: Signature | Arguments, preprocess: Hook | None, *, is_batched: bool
) -> tuple[Row, ...]:
    """Read the rows of a record, msgpack or JSON."""
    try:
        value = Path(file).read_bytes()
        inputs = decode_request(value, JSON if value.lstrip()[:1] == b"{" else MSGPACK).inputs
        if preprocess is not None:
            inputs = _preprocessed(inputs, takes, preprocess)
        rows = _split(takes.bind(inputs, is_batched=is_batched))
    except OSError as error:
        raise ModelError(f"warmup: {file}: {error.strerror or error}") from error
    except RecordError as error:
        raise ModelError(f"warmup: {file}: {error}") from error
    if not rows:
        raise ModelError(f"warmup: {file} has no rows")
    return rows


def _preprocessed(inputs: Sequence[Tensor], takes: Signature | Arguments, preprocess: Hook) -> tuple[Tensor, ...]:
    """Have `preprocess` make the model's tensors of a record's."""
    specs = takes.inputs if isinstance(takes, Signature) else ()
    halves = {spec.name for spec in specs if spec.datatype == BF16}
    try:
        made = preprocess({tensor.name: tensor.data.copy() for tensor in inputs})
        return tuple(Tensor.of(name, data, BF16 if name in halves else None) for name, data in made.items())
    except Exception as error:
        raise ModelError(f"warmup: preprocess raised {type(error).__name__}: {error}") from error


def _split(bound: Bound) -> tuple[Row, ...]:
    """Cut a record into its rows."""
    if bound.form is not Form.ROWS:
        return (Row(bound.inputs, bound.lengths),)
    rows = []
    for at in range(bound.rows):
        tensors = []
        for name, datatype, shape, data in bound.inputs:
            size = prod(shape[1:])
            part = data[at * size : (at + 1) * size] if isinstance(data, list) else np.asarray(data[at])
            tensors.append(Tensor(name, datatype, shape[1:], part))
        rows.append(Row(tuple(tensors), bound.lengths))
    return tuple(rows)


def _example(signature: Signature, *, value: int, more: int = 0) -> Row:
    """Make an example of one value, its masks of ones, its padded axes longer by `more` where that is allowed."""
    lengths: dict[str, int] = {}
    for axis in {axis for spec in signature.inputs for axis in spec.axes}:
        low, high = signature.bounds.get(axis, (0, None))
        length = max(low, _FREE_LENGTH) + (more if axis in signature.padded_axes else 0)
        lengths[axis] = length if high is None else min(length, high)
    sent = [spec for spec in signature.inputs if spec.name not in signature.masks]
    bound = signature.bind([_filled(spec, lengths, value) for spec in sent], is_batched=False)
    return Row(bound.inputs, bound.lengths)


def _filled(spec: TensorSpec, lengths: Mapping[str, int], value: int) -> Tensor:
    """Make an example's tensor of one value."""
    shape = tuple(lengths[size] if isinstance(size, str) else size for size in spec.shape)
    if spec.datatype == BYTES:
        return Tensor(spec.name, BYTES, shape, [b""] * prod(shape))
    bits = _BF16_ONE * value if spec.datatype == BF16 else value
    return Tensor(spec.name, spec.datatype, shape, np.full(shape, bits, dtype_of(spec.datatype)))


def _other(row: Row) -> Row:
    """Make a row that differs from another one in its floats; other elements have meanings, and stay."""
    tensors = [
        tensor._replace(data=np.asarray(tensor.data + tensor.data.dtype.type(1)))
        if isinstance(tensor.data, np.ndarray) and tensor.datatype in _FLOATS
        else tensor
        for tensor in row.tensors
    ]
    return Row(tuple(tensors), row.lengths)


def _padded(arrays: Sequence[NDArray[Any]], pad: float, datatype: str) -> NDArray[Any]:
    """Stack examples, padded to the longest along every axis."""
    shape = tuple(max(sizes) for sizes in zip(*(array.shape for array in arrays), strict=True))
    # numpy has no bfloat16: the bits of a float32 without its lower half are one.
    value = int(np.float32(pad).view(np.uint32)) >> 16 if datatype == BF16 else pad
    stacked = np.full((len(arrays), *shape), value, arrays[0].dtype)
    for at, array in enumerate(arrays):
        place: tuple[int | slice, ...] = (at, *map(slice, array.shape))
        stacked[place] = array
    return stacked
