"""TorchScript files."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch

from consumer.errors import ModelError
from consumer.models.options import ModelOptions
from consumer.models.repository import Artifact
from consumer.models.signature import Arguments
from consumer.worker.loaders import code, declared
from consumer.worker.loaders.outputs import Value
from consumer.worker.loaders.program import Program

_TENSORS = ("Tensor", "Optional[Tensor]")


def load(options: ModelOptions, artifact: Artifact, device: str) -> Program:
    """Load the file onto the device, in evaluation mode; its arguments have names, and no shapes.

    Raises:
        ModelError: the file cannot be loaded, `forward` takes or returns something else than tensors, or the declared
            inputs are not the model's.
    """
    assert artifact.path is not None, "TorchScript has a file"
    declared.refuse_bytes(options)
    with warnings.catch_warnings():
        # torch deprecates TorchScript; its users know, and hear it from torch when they make the file.
        warnings.filterwarnings("ignore", message=r".*torch\.jit", category=DeprecationWarning)
        try:
            module = torch.jit.load(str(artifact.path), map_location=torch.device(device))
        except (RuntimeError, ValueError, OSError) as error:
            raise ModelError(f"{artifact.path} cannot be loaded as TorchScript: {code.one_line(error)}") from error
        module.eval()

    def run(inputs: Mapping[str, Value]) -> object:
        return module(**inputs)

    schema: Any = module.forward.schema
    _check_returned(schema.returns[0].type)
    return Program(run=run, takes=declared.against_arguments(options, _arguments(schema)))


def _check_returned(kind: Any) -> None:
    """See that what `forward` says to return can be named; without a signature no warm-up would tell."""
    parts = [kind]
    if kind.kind() == "TupleType":
        parts = kind.elements()
    elif kind.kind() == "DictType" and kind.getKeyType().kind() == "StringType":
        parts = [kind.getValueType()]
    if any(part.kind() != "TensorType" for part in parts):
        raise ModelError(
            f"forward returns {kind}; a model returns a tensor, or a tuple, dict or named tuple of tensors"
        )


def _arguments(schema: Any) -> Arguments:
    """Read the arguments of `forward` that are tensors."""
    required: list[str] = []
    optional: list[str] = []
    for argument in schema.arguments[1:]:  # the first one is self
        is_tensor = str(argument.type) in _TENSORS
        if argument.has_default_value():
            optional += [argument.name] * is_tensor
        elif is_tensor:
            required.append(argument.name)
        else:
            raise ModelError(f"the argument {argument.name!r} of forward is {argument.type}; records carry tensors")
    return Arguments(tuple(required), tuple(optional))
