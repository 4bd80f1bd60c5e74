"""From what a model returns to named tensors.

Owns the rule: a tensor is `output`, a tuple `output_0`, `output_1` and so on, a dict, named tuple or dataclass its
keys; anything else is refused. A list of bytes stands for a tensor of BYTES. Must not know where the model came from.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch

from consumer.errors import ModelError
from consumer.worker.dtypes import DATATYPES

Value: TypeAlias = torch.Tensor | list[bytes]
"""A tensor as models see it; BYTES are a flat list in row-major order."""


def named(returned: object) -> dict[str, Value]:
    """Name what a model returned.

    Raises:
        ModelError: for anything that is not made of tensors in one of the known ways.
    """
    fields = _fields(returned)
    if not fields:
        raise ModelError("the model returns nothing")
    outputs: dict[str, Value] = {}
    for name, value in fields.items():
        if not isinstance(name, str) or not name:
            raise ModelError(f"the model returns a dict with the key {name!r}; keys are names")
        _check(name, value)
        outputs[name] = value  # type: ignore[assignment]  # _check has seen that it is one
    return outputs


def rename(keys: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Find which of a model's outputs each declared output is: the one of its name, else the one in its place.

    Returns:
        The model's own names, in the order of the declared ones.

    Raises:
        ModelError: where the numbers differ, or only some of the declared names are the model's own.
    """
    if len(keys) != len(names):
        raise ModelError(f"outputs: {len(names)} are declared, the model returns {len(keys)}: {', '.join(keys)}")
    if set(keys) == set(names):
        return tuple(names)
    both = set(keys) & set(names)
    if both:
        raise ModelError(
            f"outputs: {', '.join(names)} are declared, the model returns {', '.join(keys)}: "
            "use its names, or none of them to rename by position"
        )
    return tuple(keys)


def is_bytes_list(value: object) -> bool:
    """Tell whether a value stands for a tensor of BYTES."""
    return isinstance(value, list) and all(isinstance(element, bytes) for element in value)


def _fields(returned: object) -> Mapping[object, object]:
    """Take a returned structure apart, one level deep."""
    if isinstance(returned, torch.Tensor):
        return {"output": returned}
    if isinstance(returned, Mapping):
        return returned
    if isinstance(returned, tuple):
        names = getattr(returned, "_fields", None)
        if names is not None:
            return dict(zip(names, returned, strict=True))
        return {f"output_{at}": value for at, value in enumerate(returned)}
    if dataclasses.is_dataclass(returned) and not isinstance(returned, type):
        return {field.name: getattr(returned, field.name) for field in dataclasses.fields(returned)}
    return {"output": returned}


def _check(name: str, value: object) -> None:
    """Refuse what no record can carry."""
    if not isinstance(value, torch.Tensor):
        if is_bytes_list(value):
            return
        raise ModelError(
            f"{name} is a {type(value).__name__}; a model returns a tensor, or a tuple, dict, named tuple or dataclass "
            "of tensors (or of lists of bytes)"
        )
    if value.dtype not in DATATYPES or value.layout is not torch.strided:
        kind = str(value.dtype if value.layout is torch.strided else value.layout).removeprefix("torch.")
        raise ModelError(f"{name} is a tensor of {kind}, which a result cannot carry; convert it in the model")
