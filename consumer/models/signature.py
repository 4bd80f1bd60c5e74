"""What a model takes and gives, and how a record is bound to it.

Owns names, datatypes, shapes, named free axes, and the rule by which rank tells one example from rows. Shapes are one
example's, without the axis of rows (of a model that is not batched: the tensor's own). Must not know torch, files or
how tensors are collated. Nothing is ever cast: what does not fit is a RecordError that says what was expected, and
quotes nothing of the record but datatypes, shapes and counts.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np

from schemas.datatypes import BF16, BYTES, DATATYPES, dtype_of
from schemas.errors import RecordError
from schemas.reasons import Reason
from schemas.tensors import Tensor


class Form(Enum):
    """How a record's tensors stand to the batch; its result takes the same form."""

    EXAMPLE = "example"
    """One row, without an axis for it."""
    ROWS = "rows"
    """Axis 0 of every tensor counts rows."""
    WHOLE = "whole"
    """The tensors go to the model as sent, one record a call."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model: name, datatype and the shape of one example."""

    name: str
    """The input's or output's name."""
    datatype: str
    """A datatype of the Open Inference Protocol V2, or BF16."""
    shape: tuple[int | str, ...] = ()
    """One example's shape; a string names a free axis, which has one length throughout a record."""
    pad: float | None = None
    """The value that fills up the free axes, so that records of different lengths share a batch."""
    mask: str | None = None
    """The input that gets ones where this one is real and zeros where it is padded, unless the record sends it."""

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if not self.name:
            raise ValueError("name: a tensor needs a name of at least one character")
        if self.datatype not in DATATYPES:
            raise ValueError(f"datatype: {self.datatype!r} is none of {', '.join(DATATYPES)}")
        for size in self.shape:
            if isinstance(size, str) and not size:
                raise ValueError("shape: the name of a free axis needs at least one character")
            if isinstance(size, int) and size < 0:
                raise ValueError(f"shape: {size} is negative; a free axis is written as a name, such as [tokens]")
        if self.pad is not None and (not self.axes or self.datatype == BYTES):
            raise ValueError(f"pad: {self.name!r} has no free axis of numbers that could be padded")
        if self.mask is not None and self.pad is None:
            raise ValueError(f"mask: {self.name!r} states no pad, so there is nothing to mask")

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the free axes, in their order."""
        return tuple(size for size in self.shape if isinstance(size, str))


@dataclass(frozen=True, slots=True)
class Bound:
    """A record's tensors, found fit for the model and put in its order."""

    inputs: tuple[Tensor, ...]
    """In the order of the signature; a mask that was not sent is here, all ones."""
    rows: int
    form: Form
    lengths: Mapping[str, int]
    """The length of each free axis in this record."""
    group: tuple[Any, ...]
    """What records of one model must have in common to share a batch: the lengths of axes that are not padded; for a
    model without a signature names, datatypes and shapes."""


@dataclass(frozen=True)
class Signature:
    """The tensors that one example, and one example's result, consist of."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...] | None = None
    bounds: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)
    """Smallest and largest length of free axes, both inclusive; None: no upper bound."""

    def __post_init__(self) -> None:
        """Refuse what contradicts itself, and pad masks with zero."""
        if not self.inputs:
            raise ValueError("inputs: a model needs at least one input")
        for key, specs in (("inputs", self.inputs), ("outputs", self.outputs or ())):
            names = [spec.name for spec in specs]
            if len(set(names)) < len(names):
                raise ValueError(f"{key}: {', '.join(names)}: a name may occur only once")
        for spec in self.inputs:
            if spec.mask is not None:
                self._check_mask(spec)
        padded = tuple(replace(spec, pad=0) if spec.name in self.masks else spec for spec in self.inputs)
        object.__setattr__(self, "inputs", padded)
        for spec in self.inputs:
            if spec.pad is None and not self.padded_axes.isdisjoint(spec.axes):
                raise ValueError(f"pad: another input pads an axis of {spec.name!r}, so it must state a pad too")
        self._check_outputs()

    def _check_outputs(self) -> None:
        """See that outputs say only what outputs can say."""
        for spec in self.outputs or ():
            if spec.pad is not None or spec.mask is not None:
                raise ValueError(f"outputs: pad and mask belong to inputs, not to {spec.name!r}")
            if spec.datatype == BYTES and not self.padded_axes.isdisjoint(spec.axes):
                raise ValueError(f"outputs: {spec.name!r} is BYTES, which cannot be cut along a padded axis")

    def _check_mask(self, spec: TensorSpec) -> None:
        """See that the mask of an input is another input, of numbers over free axes of the first."""
        mask = next((other for other in self.inputs if other.name == spec.mask and other is not spec), None)
        if mask is None:
            raise ValueError(f"mask: {spec.name!r} names {spec.mask!r}, which is no other input of the model")
        if mask.datatype == BYTES or not mask.shape or not set(mask.shape) <= set(spec.axes):
            raise ValueError(f"mask: {mask.name!r} may have free axes of {spec.name!r} only, and numbers for elements")

    @cached_property
    def masks(self) -> frozenset[str]:
        """The inputs that are made when a record does not send them."""
        return frozenset(spec.mask for spec in self.inputs if spec.mask is not None)

    @cached_property
    def padded_axes(self) -> frozenset[str]:
        """The free axes along which records of different lengths share a batch."""
        return frozenset(axis for spec in self.inputs if spec.pad is not None for axis in spec.axes)

    @cached_property
    def _closed_axes(self) -> tuple[str, ...]:
        """The free axes along which the records of a batch must agree."""
        return tuple(sorted({axis for spec in self.inputs for axis in spec.axes} - self.padded_axes))

    @cached_property
    def cuts(self) -> Mapping[str, tuple[tuple[int, str], ...]]:
        """By output: the axes (of one example) that are cut to the record's length, each with its free axis' name."""
        found: dict[str, tuple[tuple[int, str], ...]] = {}
        for spec in self.outputs or ():
            axes = tuple((at, size) for at, size in enumerate(spec.shape) if isinstance(size, str))
            found[spec.name] = tuple((at, axis) for at, axis in axes if axis in self.padded_axes)
        return {name: axes for name, axes in found.items() if axes}

    def bind(self, inputs: Sequence[Tensor], *, is_batched: bool = True) -> Bound:
        """Check a record's inputs and put them in the signature's order.

        Args:
            inputs: The record's tensors; a single one without a name is the model's single input.
            is_batched: Whether one axis more in front is rows; otherwise shapes must match as they are.

        Raises:
            RecordError: with reason wrong-input, wrong-datatype or wrong-shape.
        """
        names = [spec.name for spec in self.inputs]
        given = _by_name(inputs, names, optional=self.masks)
        lead: tuple[int, ...] | None = None
        lengths: dict[str, int] = {}
        for spec in self.inputs:
            tensor = given.get(spec.name)
            if tensor is None:
                continue
            front = self._fit(spec, tensor, lengths, is_batched=is_batched)
            if lead is None:
                lead = front
            elif front != lead:
                raise RecordError(Reason.WRONG_SHAPE, _uneven(repr(spec.name), lead, front))
        assert lead is not None, "an input is required, because a mask never masks itself"
        bound = tuple(
            given[spec.name] if spec.name in given else _ones(spec, (*lead, *(lengths[axis] for axis in spec.axes)))
            for spec in self.inputs
        )
        form = Form.WHOLE if not is_batched else Form.ROWS if lead else Form.EXAMPLE
        group = tuple(lengths[axis] for axis in self._closed_axes)
        return Bound(bound, lead[0] if lead else 1, form, lengths, group)

    def _fit(self, spec: TensorSpec, tensor: Tensor, lengths: dict[str, int], *, is_batched: bool) -> tuple[int, ...]:
        """Compare a tensor with its specification, note free lengths, return what stands in front of the example."""
        if tensor.datatype != spec.datatype:
            raise RecordError(
                Reason.WRONG_DATATYPE, f"input {spec.name!r} is {tensor.datatype}, the model takes {spec.datatype}"
            )
        front = len(tensor.shape) - len(spec.shape)
        if front != 0 and not (front == 1 and is_batched):
            raise RecordError(Reason.WRONG_SHAPE, _expected(spec, tensor.shape, is_batched=is_batched))
        for want, size in zip(spec.shape, tensor.shape[front:], strict=True):
            if isinstance(want, str):
                if lengths.setdefault(want, size) != size:
                    raise RecordError(
                        Reason.WRONG_SHAPE,
                        f"axis {want!r} is {size} long in input {spec.name!r} and {lengths[want]} in another one",
                    )
                low, high = self.bounds.get(want, (0, None))
                if size < low or (high is not None and size > high):
                    limits = f"at least {low}" if high is None else f"{low} to {high}"
                    raise RecordError(
                        Reason.WRONG_SHAPE, f"axis {want!r} of input {spec.name!r} is {size} long, allowed is {limits}"
                    )
            elif want != size:
                raise RecordError(Reason.WRONG_SHAPE, _expected(spec, tensor.shape, is_batched=is_batched))
        return tensor.shape[:front]


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a model without a signature takes: names, and nothing about their tensors."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    is_open: bool = False
    """Whether further names are taken as well."""

    def bind(self, inputs: Sequence[Tensor], *, is_batched: bool = True) -> Bound:
        """Put a record's inputs in the arguments' order; axis 0 of every tensor counts rows.

        Raises:
            RecordError: with reason wrong-input or wrong-shape.
        """
        given = _by_name(inputs, self.required, optional=self.optional, is_open=self.is_open)
        names = [name for name in (*self.required, *self.optional) if name in given]
        ordered = tuple(given[name] for name in (*names, *sorted(given.keys() - set(names))))
        if not ordered:
            raise RecordError(Reason.WRONG_INPUT, "the record has no inputs")
        lead = ordered[0].shape[:1] if is_batched else ()
        for at, tensor in enumerate(ordered, start=1):
            if is_batched and (not tensor.shape or tensor.shape[:1] != lead):
                raise RecordError(Reason.WRONG_SHAPE, _uneven(f"number {at}", lead, tensor.shape[:1]))
        group = tuple((tensor.name, tensor.datatype, tensor.shape[len(lead) :]) for tensor in ordered)
        return Bound(ordered, lead[0] if lead else 1, Form.ROWS if is_batched else Form.WHOLE, {}, group)


def _by_name(
    inputs: Sequence[Tensor], required: Sequence[str], *, optional: Collection[str], is_open: bool = False
) -> dict[str, Tensor]:
    """Sort a record's inputs by name, refusing unknown, repeated and missing ones.

    `required` may hold names that `optional` holds too; these may be missing.
    """
    takes = list(dict.fromkeys((*required, *optional)))
    must = [name for name in required if name not in optional]
    if len(inputs) == 1 and not inputs[0].name and len(must or takes) == 1:
        (name,) = must or takes
        return {name: inputs[0]._replace(name=name)}
    given: dict[str, Tensor] = {}
    for at, tensor in enumerate(inputs, start=1):
        if not tensor.name or (tensor.name not in takes and not is_open):
            fault = "a name that the model does not know" if tensor.name else "no name"
            raise RecordError(Reason.WRONG_INPUT, f"input number {at} has {fault}; {_takes(takes)}")
        if tensor.name in given:
            raise RecordError(Reason.WRONG_INPUT, f"input number {at} has the name of an earlier one; {_takes(takes)}")
        given[tensor.name] = tensor
    missing = [name for name in must if name not in given]
    if missing:
        raise RecordError(Reason.WRONG_INPUT, f"input {missing[0]!r} is missing; {_takes(takes)}")
    return given


def _ones(spec: TensorSpec, shape: tuple[int, ...]) -> Tensor:
    """Make the mask of a record of which nothing is padded yet."""
    ones = np.ones(shape, dtype_of(spec.datatype))
    if spec.datatype == BF16:
        ones[...] = 0x3F80  # the 16 bits of 1.0
    return Tensor(spec.name, spec.datatype, shape, ones)


def _takes(names: Iterable[str]) -> str:
    """Say which inputs a model takes."""
    return f"the model takes {', '.join(map(repr, names))}"


def _expected(spec: TensorSpec, shape: tuple[int, ...], *, is_batched: bool) -> str:
    """Say which shapes an input may have."""
    example = ", ".join(map(str, spec.shape))
    rows = f" or [{', '.join(map(str, ('rows', *spec.shape)))}]" if is_batched else ""
    return f"input {spec.name!r} has shape {list(shape)}, the model takes [{example}]{rows}"


def _uneven(name: str, first: tuple[int, ...], other: tuple[int, ...]) -> str:
    """Say in what the rows of two inputs differ."""
    kinds = [f"{lead[0]} rows" if lead else "no axis of rows" for lead in (other, first)]
    return f"input {name} has {kinds[0]}, the first one has {kinds[1]}"
