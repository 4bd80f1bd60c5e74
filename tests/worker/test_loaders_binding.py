"""Which inputs a loaded model takes, by name."""

from pathlib import Path

import pytest
import torch
from torch import nn

from consumer.models.signature import Arguments, Signature, TensorSpec
from tests.worker.loading import CUT, HERE, PADDED, X, embedder, loaded, refusal, tensors
from tests.worker.networks import BATCH, Classifier, Embedder, export, script

pytestmark = pytest.mark.usefixtures("weights_only")


def test_a_program_tells_names_datatypes_and_shapes(tmp_path: Path) -> None:
    """Placeholders of positional and of keyword arguments alike."""

    class Mixed(nn.Module):
        def forward(self, input: torch.Tensor, *, ids: torch.Tensor) -> torch.Tensor:  # noqa: A002
            return input.sum(1) + ids.sum((1, 2))

    example = torch.zeros(2, 4, dtype=torch.float16), torch.zeros(2, 5, 6, dtype=torch.int64)
    file = export(
        tmp_path / "m",
        Mixed(),
        example[0],
        keywords={"ids": example[1]},
        dynamic={"input": BATCH, "ids": {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim("length", max=40)}},
    )
    model = loaded(path=file)
    assert model.signature is not None
    first, second = model.signature.inputs
    assert first == TensorSpec("input", "FP16", (4,))
    assert (second.name, second.datatype, second.shape[1]) == ("ids", "INT64", 6)
    assert list(model.signature.bounds.values()) == [(0, 40)]
    ids = torch.arange(60).reshape(2, 5, 6)
    answered = tensors(model.call({"ids": ids, "input": example[0]}))["output"]
    assert answered.tolist() == ids.sum((1, 2)).tolist()


def test_a_program_takes_nested_inputs_apart(tmp_path: Path) -> None:
    """A dict's tensors are inputs of their own, by the names of their placeholders."""

    class Nested(nn.Module):
        def forward(self, pair: dict[str, torch.Tensor]) -> torch.Tensor:
            return pair["a"] - pair["b"]

    file = export(
        tmp_path / "m",
        Nested(),
        {"a": torch.zeros(2, 3), "b": torch.zeros(2, 3)},
        dynamic=({"a": BATCH, "b": BATCH},),
    )
    model = loaded(path=file)
    assert model.signature is not None
    assert [spec.name for spec in model.signature.inputs] == ["pair_a", "pair_b"]
    for _ in range(2):
        answered = tensors(model.call({"pair_a": torch.ones(1, 3), "pair_b": torch.zeros(1, 3)}))
        assert answered["output"].tolist() == [[1, 1, 1]]


def test_a_program_keeps_the_constants_it_was_exported_with(tmp_path: Path) -> None:
    """Numbers among the arguments are part of the program; buffers and constants are found."""

    class Scaled(nn.Module):
        shift: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("shift", torch.ones(3), persistent=False)
            self.table = torch.full((3,), 2.0)

        def forward(self, x: torch.Tensor, factor: int) -> torch.Tensor:
            return x * factor + self.shift * self.table

    program = torch.export.export(Scaled(), (torch.zeros(2, 3), 5), dynamic_shapes={"x": BATCH, "factor": None})
    torch.export.save(program, tmp_path / "m.pt2")
    model = loaded(path=str(tmp_path / "m.pt2"))
    for _ in range(2):
        assert tensors(model.call({"x": torch.ones(1, 3)}))["output"].tolist() == [[7, 7, 7]]


def test_a_program_that_needs_a_number_is_refused(tmp_path: Path) -> None:
    """A number that was left open cannot come from a record."""

    class Power(nn.Module):
        def forward(self, x: torch.Tensor, exponent: int) -> torch.Tensor:
            return x**exponent

    dynamic = {"x": BATCH, "exponent": torch.export.Dim.DYNAMIC}
    file = export(tmp_path / "m", Power(), torch.zeros(2, 3), 3, dynamic=dynamic)
    assert refusal(path=file) == "the program's input 'exponent' is no tensor; export it as a constant"


def test_torchscript_has_argument_names_alone(tmp_path: Path) -> None:
    """Without declared inputs any shapes go, under the names of forward."""
    model = loaded(path=script(tmp_path / "m", Embedder()))
    assert model.takes == Arguments(("ids", "mask"))
    assert model.signature is None


def test_arguments_with_defaults_are_optional() -> None:
    """A Python model's arguments: required, optional, by position or by name."""
    model = loaded(factory=f"{HERE}:of", arguments={"name": "positional"})
    assert model.takes == Arguments(("x", "y"), ("scale",))
    x, y = torch.full((1, 2), 5.0), torch.ones(1, 2)
    assert tensors(model.call({"y": y, "x": x}))["output"].tolist() == [[4, 4]]
    assert tensors(model.call({"y": y, "scale": y * 2, "x": x}))["output"].tolist() == [[8, 8]]


def test_a_model_may_take_any_names() -> None:
    """Keyword arguments of any name make the model open."""
    model = loaded(factory=f"{HERE}:of", arguments={"name": "keywords"})
    assert model.takes == Arguments((), (), is_open=True)
    assert tensors(model.call({"a": torch.ones(1), "b": torch.ones(1) * 3}))["output"].tolist() == [2]


def test_arguments_without_names_are_refused() -> None:
    """Nothing could be bound to them."""
    message = refusal(factory=f"{HERE}:of", arguments={"name": "nameless"})
    assert message == "the model takes no arguments with names, to which inputs could be bound"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((X, TensorSpec("y", "FP32")), "inputs: 'y' is none of the model's arguments, which are x"),
        ((TensorSpec("y", "FP32"),), "inputs: 'y' is none of the model's arguments, which are x"),
    ],
)
def test_declared_inputs_must_be_the_models(inputs: tuple[TensorSpec, ...], message: str) -> None:
    """For models that know names alone, the names must agree."""
    assert refusal(factory=f"{HERE}:Classifier", inputs=inputs) == message


def test_every_required_argument_must_be_declared() -> None:
    """A declaration is the whole signature."""
    message = refusal(factory=f"{HERE}:Embedder", inputs=(TensorSpec("ids", "INT64", ("n",)),))
    assert message == "inputs: the model's argument 'mask' is not declared"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (TensorSpec("y", "FP32", (4,)), "inputs: y are declared, the program takes x"),
        (
            TensorSpec("x", "FP64", (4,)),
            "inputs: 'x' is declared as FP64 [4], one example of the program's is FP32",
        ),
        (
            TensorSpec("x", "FP32", (5,)),
            "inputs: 'x' is declared as FP32 [5], one example of the program's is FP32",
        ),
        (TensorSpec("x", "FP32", ("n",)), "inputs: 'x' is declared as FP32 [n], one example of the program's is"),
        (TensorSpec("x", "FP32", (2, 4)), "inputs: 'x' is declared as FP32 [2, 4], one example of the program's"),
    ],
)
def test_a_declaration_must_agree_with_the_program(tmp_path: Path, spec: TensorSpec, message: str) -> None:
    """A program knows better: what contradicts it is refused."""
    file = export(tmp_path / "m", Classifier(), torch.zeros(2, 4), dynamic={"x": BATCH})
    assert refusal(path=file, inputs=(spec,)).startswith(message)


def test_a_declaration_names_a_programs_free_axes(tmp_path: Path) -> None:
    """With names come pads, masks and cuts; the program's bounds hold for them."""
    model = loaded(path=embedder(tmp_path / "m"), inputs=PADDED, outputs=CUT)
    assert model.signature == Signature(PADDED, CUT, {"tokens": (0, 9)})


def test_one_name_for_two_axes_of_a_program_is_refused(tmp_path: Path) -> None:
    """A free axis has one length in a record, so the program must say so too."""

    class Sum(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x.sum(1) + y.sum(1)

    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    file = export(tmp_path / "m", Sum(), torch.zeros(2, 3), torch.zeros(2, 4), dynamic={"x": free, "y": free})
    inputs = (TensorSpec("x", "FP32", ("n",)), TensorSpec("y", "FP32", ("n",)))
    assert refusal(path=file, inputs=inputs) == "inputs: 'n' names two axes whose lengths differ in the program"


def test_other_arguments_than_tensors_are_refused(tmp_path: Path) -> None:
    """TorchScript that needs a number cannot be called by a record."""

    class Power(nn.Module):
        def forward(self, x: torch.Tensor, exponent: int) -> torch.Tensor:
            return x**exponent

    class Root(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor | None = None, exponent: int = 2) -> torch.Tensor:
            return x**exponent if y is None else x + y

    message = refusal(path=script(tmp_path / "m", Power()))
    assert message == "the argument 'exponent' of forward is int; records carry tensors"
    assert loaded(path=script(tmp_path / "m", Root())).takes == Arguments(("x",), ("y",))
