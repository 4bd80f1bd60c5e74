"""Programs saved by torch.export.save (.pt2).

Owns the way from a program's own call specification to a call by name, and what its shapes say about rows. Its graph is
run as it is, without the wrapper that torch makes of it: that one checks every call anew, for four times what a small
network takes. Here it runs once for every combination of shapes; shapes are all that its guards look at.
"""

import os
import pickle
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch.export.graph_signature import ConstantArgument, InputKind, InputSpec, OutputKind, TensorArgument
from torch.export.passes import move_to_device_pass
from torch.utils import _pytree as pytree

from consumer.errors import ModelError
from consumer.models.options import ModelOptions
from consumer.models.repository import Artifact
from consumer.models.signature import Signature, TensorSpec
from consumer.worker.dtypes import DATATYPES
from consumer.worker.loaders import code, declared
from consumer.worker.loaders.outputs import Value
from consumer.worker.loaders.program import Program, Rows

SHAPES_MAX = 4096
"""Combinations of shapes that are remembered as checked."""

_HABIT = 2

Shape: TypeAlias = tuple[int | torch.SymInt, ...]


def load(options: ModelOptions, artifact: Artifact, device: str) -> Program:
    """Load the program onto the device; its placeholders tell names, datatypes and shapes.

    Raises:
        ModelError: the file cannot be loaded or holds a pickle, the program takes something else than tensors with an
            axis of rows, or the declared inputs contradict it.
    """
    assert artifact.path is not None, "a program has a file"
    # Without it torch unpickles anything that it does not know. An assert would be gone with python -O.
    if os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD") != "1":
        raise AssertionError("TORCH_FORCE_WEIGHTS_ONLY_LOAD=1 is set before a worker starts")
    declared.refuse_bytes(options)
    try:
        with artifact.path.open("rb") as file:  # given a path, torch would insist on the suffix .pt2
            program = torch.export.load(file)
        if torch.device(device).type != "cpu":
            program = _moved(program, device)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{artifact.path} holds a pickle of something else than tensors, which is refused") from error
    except Exception as error:
        raise ModelError(f"{artifact.path} cannot be loaded as an exported program: {code.one_line(error)}") from error
    call = _Call(program)
    shapes: dict[str, Shape] = {name: tuple(_meta(program, name).shape) for name in call.names}
    rows, notes = _rows(program, shapes) if options.batch else (Rows(), ())
    own = _signature(program, shapes, front=1 if options.batch else 0)
    return Program(run=call, takes=declared.against_signature(options, own), rows=rows, notes=notes)


class _Call:
    """Calls a program with named tensors.

    Args:
        program: On its device.
    """

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self._held: list[Any] = []
        """What the graph takes before the inputs: weights, buffers, constants."""
        self._leaves: list[TensorArgument | ConstantArgument] = []
        """What the caller hands over, in the order of the call specification."""
        for spec in program.graph_signature.input_specs:
            if spec.kind is not InputKind.USER_INPUT:
                self._held.append(_held(program, spec))
            elif isinstance(spec.arg, TensorArgument | ConstantArgument):
                self._leaves.append(spec.arg)
            else:
                raise ModelError(f"the program's input {spec.arg.name!r} is no tensor; export it as a constant")
        self.names = [leaf.name for leaf in self._leaves if isinstance(leaf, TensorArgument)]
        if not self.names:
            raise ModelError("the program takes no tensors")
        # Not the module itself: what surrounds its code prints what fails, and takes as long as three operations.
        self._graph = program.graph_module.forward
        self._checking = program.module()
        self._specs = program.call_spec
        self._returns_one = program.call_spec.out_spec.is_leaf()
        kinds = [spec.kind for spec in program.graph_signature.output_specs]
        self._returned = [at for at, kind in enumerate(kinds) if kind is OutputKind.USER_OUTPUT]
        self._checked: set[tuple[torch.Size, ...]] = set()

    def __call__(self, inputs: Mapping[str, Value]) -> object:
        """Run the program; its own guards see each combination of shapes once."""
        tensors: list[Any] = [inputs[name] for name in self.names]
        given = iter(tensors)
        leaves = [next(given) if isinstance(leaf, TensorArgument) else leaf.value for leaf in self._leaves]
        shapes = tuple(tensor.shape for tensor in tensors)
        if shapes not in self._checked:
            args, kwargs = pytree.tree_unflatten(leaves, self._specs.in_spec)
            returned = self._checking(*args, **kwargs)
            if len(self._checked) >= SHAPES_MAX:
                self._checked.clear()
            self._checked.add(shapes)
            return returned
        flat = self._graph(*self._held, *leaves)
        if self._returns_one:
            return flat[self._returned[0]]
        return pytree.tree_unflatten([flat[at] for at in self._returned], self._specs.out_spec)


def _moved(program: torch.export.ExportedProgram, device: str) -> torch.export.ExportedProgram:
    """Move a program to a device, with all that it makes on its way."""
    program = move_to_device_pass(program, device)
    for graph in program.graph_module.modules():
        if isinstance(graph, torch.fx.GraphModule):
            graph.recompile()  # the pass changes nodes and leaves the code that was made of them
    return program


def _held(program: torch.export.ExportedProgram, spec: InputSpec) -> Any:
    """Find a weight, buffer or constant of a program."""
    for place in (program.state_dict, program.constants):
        if spec.target in place:
            return place[spec.target]
    raise ModelError(f"the program needs {spec.target or spec.arg.name!r} ({spec.kind.name}), which is not supported")


def _meta(program: torch.export.ExportedProgram, name: str) -> torch.Tensor:
    """Find what a program says of an input."""
    node = next(node for node in program.graph.nodes if node.op == "placeholder" and node.name == name)
    meta = node.meta["val"]
    assert isinstance(meta, torch.Tensor), "a tensor argument is a tensor"
    return meta


def _rows(program: torch.export.ExportedProgram, shapes: Mapping[str, Shape]) -> tuple[Rows, tuple[str, ...]]:
    """Find how many rows the program runs with, from axis 0 of its inputs.

    Raises:
        ModelError: an input has no such axis, or another one than the first.
    """
    scalar = next((name for name, shape in shapes.items() if not shape), None)
    if scalar is not None:
        raise ModelError(
            f"the program's input {scalar!r} has no axis for rows: export it with one, or say batch: false"
        )
    fronts = {name: str(shape[0]) for name, shape in shapes.items()}
    if len(set(fronts.values())) > 1:
        found = ", ".join(f"{name!r}: {front}" for name, front in fronts.items())
        raise ModelError(
            f"axis 0 is not the same in the program's inputs ({found}), so it is not rows: say batch: false"
        )
    front = next(iter(shapes.values()))[0]
    if isinstance(front, int):
        return Rows(least=front, most=front), (_fixed_note(front, list(shapes)),)
    if any(str(front) in map(str, shape[1:]) for shape in shapes.values()):
        raise ModelError("the program ties axis 0 to another axis, so it is not rows: say batch: false")
    least, most = _bounds(program, front)
    return Rows(least=least, most=most), ()


def _fixed_note(rows: int, names: Sequence[str]) -> str:
    """Say that a program runs with one number of rows, and what to do about it."""
    dynamic = ", ".join(f'"{name}": {{0: torch.export.Dim.DYNAMIC}}' for name in names)
    runs = "every row is a call of its own" if rows == 1 else f"batches are filled up to {rows} rows"
    return (
        f"exported with a fixed batch of {rows}: {runs}; to lift it, export from an example of at least 2 rows: "
        f"torch.export.export(model, example, dynamic_shapes={{{dynamic}}})"
    )


def _signature(program: torch.export.ExportedProgram, shapes: Mapping[str, Shape], *, front: int) -> Signature:
    """Read one example's signature from the shapes of a program, `front` axes left out.

    Raises:
        ModelError: a datatype that no record carries.
    """
    specs: list[TensorSpec] = []
    bounds: dict[str, tuple[int, int | None]] = {}
    for name, shape in shapes.items():
        dtype = _meta(program, name).dtype
        if dtype not in DATATYPES:
            raise ModelError(f"the program's input {name!r} is {str(dtype).removeprefix('torch.')}, which records lack")
        specs.append(
            TensorSpec(
                name, DATATYPES[dtype], tuple(size if isinstance(size, int) else str(size) for size in shape[front:])
            )
        )
        bounds |= {str(size): _bounds(program, size) for size in shape[front:] if not isinstance(size, int)}
    return Signature(tuple(specs), bounds=bounds)


def _bounds(program: torch.export.ExportedProgram, size: torch.SymInt) -> tuple[int, int | None]:
    """Read the limits of a free axis; the lower one of 2 is torch's habit, and holds for no program."""
    found = program.range_constraints.get(size.node.expr)
    if found is None:
        return 0, None
    least = int(found.lower)
    return 0 if least <= _HABIT else least, int(found.upper) if found.upper.is_Integer else None
