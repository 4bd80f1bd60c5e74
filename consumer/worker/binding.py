"""How the tensors of a record become the inputs of a model, decided once for all records that look alike.

Owns the cache of these decisions. Must not know encodings, batches or torch.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from consumer.models.signature import Arguments, Bound, Form, Signature
from schemas.datatypes import DTYPES
from schemas.tensors import Tensor, TensorData

PLANS_MAX = 1024
"""Ways to look that are remembered for one model; hostile records must not fill the memory."""

Look: TypeAlias = tuple[tuple[Any, ...], ...]
"""Name, datatype and shape of each of a record's tensors."""


class Plan(NamedTuple):
    """What records of one look have in common once they are bound to the model."""

    names: tuple[str, ...]
    """Of the inputs, in the model's order."""
    datatypes: tuple[str, ...]
    dtypes: tuple[np.dtype[Any] | None, ...]
    """What carries the elements; None for BYTES."""
    shapes: tuple[tuple[int, ...], ...]
    """One example's shape of each input; for a whole record the tensor's own."""
    picks: tuple[int, ...]
    """For each input its index among the record's tensors; -1 where it is made, not sent."""
    made: tuple[TensorData | None, ...]
    """The masks that the record does not bring, by input."""
    rows: int
    form: Form
    lengths: Mapping[str, int]
    """The length of each free axis."""
    group: tuple[Any, ...]
    """Records with equal groups may share a call."""

    def pick(self, tensors: tuple[Tensor, ...]) -> tuple[TensorData, ...]:
        """Return the elements of a record of this look in the model's order."""
        if self.picks == (0,):
            return (tensors[0].data,)
        return tuple(
            [
                tensors[at].data if at >= 0 else made  # type: ignore[misc]  # made where it is not sent
                for at, made in zip(self.picks, self.made, strict=True)
            ]
        )


class Binder:
    """Binds records to one model."""

    def __init__(self, takes: Signature | Arguments, *, is_batched: bool) -> None:
        """Remember what the model takes, and whether axis 0 is rows."""
        self._takes = takes
        self._is_batched = is_batched
        self._plans: dict[Look, Plan] = {}

    def bind(self, tensors: tuple[Tensor, ...]) -> Plan:
        """Find how a record's tensors become the model's inputs.

        Raises:
            RecordError: They do not fit the model: wrong-input, wrong-datatype or wrong-shape.
        """
        look: Look = (tensors[0][:3],) if len(tensors) == 1 else tuple([tensor[:3] for tensor in tensors])
        plan = self._plans.get(look)
        if plan is None:
            plan = _plan(tensors, self._takes.bind(tensors, is_batched=self._is_batched))
            if len(self._plans) >= PLANS_MAX:
                self._plans.clear()
            self._plans[look] = plan
        return plan


def _plan(tensors: tuple[Tensor, ...], bound: Bound) -> Plan:
    """Turn one record's binding into what holds for all that look like it."""
    if len(tensors) == 1 and not tensors[0].name:
        picks: tuple[int, ...] = tuple(0 if tensor.data is tensors[0].data else -1 for tensor in bound.inputs)
    else:
        places = {tensor.name: at for at, tensor in enumerate(tensors)}
        picks = tuple(places.get(tensor.name, -1) for tensor in bound.inputs)
    return Plan(
        names=tuple(tensor.name for tensor in bound.inputs),
        datatypes=tuple(tensor.datatype for tensor in bound.inputs),
        dtypes=tuple(DTYPES.get(tensor.datatype) for tensor in bound.inputs),
        shapes=tuple(tensor.shape[1:] if bound.form is Form.ROWS else tensor.shape for tensor in bound.inputs),
        picks=picks,
        made=tuple(None if at >= 0 else tensor.data for at, tensor in zip(picks, bound.inputs, strict=True)),
        rows=bound.rows,
        form=bound.form,
        lengths=bound.lengths,
        group=bound.group,
    )
