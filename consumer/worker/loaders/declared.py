"""What the configuration declares of a model's inputs, set against what the model itself says."""

from dataclasses import replace

from consumer.errors import ModelError
from consumer.models.options import ModelOptions
from consumer.models.signature import Arguments, Signature, TensorSpec
from schemas.datatypes import BYTES


def against_arguments(options: ModelOptions, arguments: Arguments) -> Signature | Arguments:
    """Take the declared inputs, if there are any, for a model that knows only the names of its arguments.

    Raises:
        ModelError: a declared input is none of the arguments, or an argument is not declared.
    """
    if options.inputs is None:
        return arguments
    names = {spec.name for spec in options.inputs}
    known = (*arguments.required, *arguments.optional)
    foreign = [spec.name for spec in options.inputs if spec.name not in known]
    if foreign and not arguments.is_open:
        raise ModelError(f"inputs: {foreign[0]!r} is none of the model's arguments, which are {', '.join(known)}")
    missing = [name for name in arguments.required if name not in names]
    if missing:
        raise ModelError(f"inputs: the model's argument {missing[0]!r} is not declared")
    return Signature(options.inputs, options.outputs)


def against_signature(options: ModelOptions, own: Signature) -> Signature:
    """Take the declared inputs for a model that carries a signature: they must agree, and name its free axes.

    Raises:
        ModelError: names, datatypes or shapes contradict each other.
    """
    if options.inputs is None:
        return replace(own, outputs=options.outputs)
    specs = {spec.name: spec for spec in own.inputs}
    if set(specs) != {spec.name for spec in options.inputs}:
        declared = ", ".join(spec.name for spec in options.inputs)
        raise ModelError(f"inputs: {declared} are declared, the program takes {', '.join(specs)}")
    names: dict[str, str] = {}
    bounds = {}
    for spec in options.inputs:
        for axis, own_axis in _free(spec, specs[spec.name]):
            if names.setdefault(axis, own_axis) != own_axis:
                raise ModelError(f"inputs: {axis!r} names two axes whose lengths differ in the program")
            bounds[axis] = own.bounds.get(own_axis, (0, None))
    return Signature(options.inputs, options.outputs, bounds)


def refuse_bytes(options: ModelOptions) -> None:
    """Refuse BYTES for a model that computes with tensors alone.

    Raises:
        ModelError: an input is BYTES.
    """
    for spec in options.inputs or ():
        if spec.datatype == BYTES:
            raise ModelError(
                f"inputs: {spec.name!r} is BYTES, which only Python models take: declare what the model takes and let "
                "preprocess make it"
            )


def _free(declared: TensorSpec, own: TensorSpec) -> list[tuple[str, str]]:
    """Pair the declared names of free axes with the program's own, refusing what differs."""
    pairs: list[tuple[str, str]] = []
    fits = declared.datatype == own.datatype and len(declared.shape) == len(own.shape)
    for size, own_size in zip(declared.shape, own.shape, strict=False):
        if isinstance(size, str) and isinstance(own_size, str):
            pairs.append((size, own_size))
        elif isinstance(own_size, int):
            fits = fits and size == own_size
    if not fits:
        raise ModelError(
            f"inputs: {declared.name!r} is declared as {declared.datatype} {_shape(declared)}, one example of the "
            f"program's is {own.datatype} {_shape(own)} (without the axis of rows, unless batch is false)"
        )
    return pairs


def _shape(spec: TensorSpec) -> str:
    """Write a shape as the configuration does."""
    return f"[{', '.join(map(str, spec.shape))}]"
