"""How what a model returns gets its names, and what is refused."""

from pathlib import Path

import pytest
import torch
from torch import nn

from consumer.errors import ModelError
from consumer.models.signature import TensorSpec
from tests.worker.loading import HERE, X, embedder, loaded, refusal, tensors
from tests.worker.networks import Embedder, Pair, script

pytestmark = pytest.mark.usefixtures("weights_only")


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("tensor", ["output"]),
        ("tuple", ["output_0", "output_1"]),
        ("dict", ["low", "high"]),
        ("named tuple", ["low", "high"]),
        ("dataclass", ["low", "high"]),
        ("bytes", ["output"]),
    ],
)
def test_structures_have_names(kind: str, names: list[str]) -> None:
    """A tensor is `output`, a tuple `output_0` and so on, everything else brings its own."""
    model = loaded(factory=f"{HERE}:returning", arguments={"kind": kind}, inputs=(X,))
    model.warm_up()
    assert list(model.call({"x": torch.zeros(2, 4)})) == names


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "list",
            "output is a list; a model returns a tensor, or a tuple, dict, named tuple or dataclass of tensors",
        ),
        ("none", "output is a NoneType; a model returns a tensor"),
        ("number", "output is a int; a model returns a tensor"),
        ("array", "output is a ndarray; a model returns a tensor"),
        ("nested", "low is a tuple; a model returns a tensor"),
        ("numbered", "the model returns a dict with the key 1; keys are names"),
        ("empty", "the model returns nothing"),
        ("complex", "output is a tensor of complex64, which a result cannot carry"),
        ("sparse", "output is a tensor of sparse_coo, which a result cannot carry"),
        ("scalar", "output 'output' has shape [] for 1 rows: axis 0 of every output is rows"),
        ("short bytes", "output 'output' has 3 elements for 2 rows"),
        ("short", "output 'output' has shape [1, 4] for 2 rows"),
    ],
)
def test_anything_else_is_refused_before_the_first_record(kind: str, message: str) -> None:
    """The warm-up finds what no result can carry."""
    model = loaded(factory=f"{HERE}:returning", arguments={"kind": kind}, inputs=(X,))
    with pytest.raises(ModelError, match=r"^warm-up: ") as caught:
        model.warm_up()
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", ["exported", "TorchScript"])
def test_formats_return_dicts_as_python_does(tmp_path: Path, kind: str) -> None:
    """A dict survives being saved."""
    file = embedder(tmp_path / "m") if kind == "exported" else script(tmp_path / "m", Embedder())
    model = loaded(path=file)
    for _ in range(2):
        answered = tensors(model.call({"ids": torch.zeros(2, 3, dtype=torch.int64), "mask": torch.ones(2, 3)}))
        assert {name: tuple(value.shape) for name, value in answered.items()} == {"whole": (2, 4), "each": (2, 3)}


def test_torchscript_tells_what_it_returns_at_once(tmp_path: Path) -> None:
    """It need not be asked: without declared inputs nobody would, before the first record."""

    class Listing(nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [x, x]

    class Nested(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, list[torch.Tensor]]:
            return {"x": [x]}

    class Numbered(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[int, torch.Tensor]:
            return {1: x}

    class Couple(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x + 1

    class Named(nn.Module):
        def forward(self, x: torch.Tensor) -> Pair:
            return Pair(x, x + 1)

    for network, kind in [
        (Listing(), "List[Tensor]"),
        (Nested(), "Dict[str, List[Tensor]]"),
        (Numbered(), "Dict[int, Tensor]"),
    ]:
        message = refusal(path=script(tmp_path / "m", network))
        assert message.startswith(f"forward returns {kind}; a model returns a tensor")
    x = {"x": torch.zeros(1, 2)}
    assert list(loaded(path=script(tmp_path / "m", Couple())).call(x)) == ["output_0", "output_1"]
    assert list(loaded(path=script(tmp_path / "m", Named())).call(x)) == ["low", "high"]


@pytest.mark.parametrize(
    ("kind", "declared", "picked"),
    [
        ("tensor", ["logits"], [0]),
        ("tuple", ["first", "second"], [0, 1]),
        ("dict", ["a", "b"], [0, 1]),
        ("dict", ["high", "low"], [1, 0]),
    ],
)
def test_declared_outputs_rename(kind: str, declared: list[str], picked: list[int]) -> None:
    """By position, unless they are the model's own names in another order."""
    specs = tuple(TensorSpec(name, "FP32", (4,)) for name in declared)
    model = loaded(factory=f"{HERE}:returning", arguments={"kind": kind}, inputs=(X,), outputs=specs)
    model.warm_up()
    answered = tensors(model.call({"x": torch.zeros(1, 4)}))
    assert list(answered) == declared
    assert [value[0, 0].item() for value in answered.values()] == picked


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (["a"], "outputs: 1 are declared, the model returns 2: low, high"),
        (["low", "b"], "use its names, or none of them to rename by position"),
    ],
)
def test_declared_outputs_that_do_not_fit_are_refused(declared: list[str], message: str) -> None:
    """Neither their number nor half of their names may differ."""
    specs = tuple(TensorSpec(name, "FP32", (4,)) for name in declared)
    model = loaded(factory=f"{HERE}:returning", arguments={"kind": "dict"}, inputs=(X,), outputs=specs)
    with pytest.raises(ModelError) as caught:
        model.warm_up()
    assert message in str(caught.value)


def test_a_declared_tensor_is_not_bytes() -> None:
    """Texts where numbers are promised are refused."""
    spec = TensorSpec("output", "FP32")
    model = loaded(factory=f"{HERE}:returning", arguments={"kind": "bytes"}, inputs=(X,), outputs=(spec,))
    with pytest.raises(ModelError, match="outputs: 'output' is declared as FP32, the model returns BYTES"):
        model.warm_up()


@pytest.mark.parametrize("spec", [TensorSpec("output", "FP64", (4,)), TensorSpec("output", "FP32", (5,))])
def test_declared_datatypes_and_shapes_are_checked(spec: TensorSpec) -> None:
    """What subscribers are promised is what the model returns."""
    model = loaded(factory=f"{HERE}:returning", arguments={"kind": "tensor"}, inputs=(X,), outputs=(spec,))
    with pytest.raises(ModelError, match=r"outputs: 'output' is declared as .* one example of the model's is FP32"):
        model.warm_up()
