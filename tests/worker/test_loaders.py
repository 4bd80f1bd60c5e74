"""Loading models of every format: binding by name, outputs, code, weights."""

import hashlib
import io
import sys
import types
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from consumer.errors import ModelError
from consumer.models.options import ModelOptions
from consumer.models.signature import Arguments, Signature, TensorSpec
from consumer.worker.dtypes import TORCH_DTYPES
from consumer.worker.loaders import LoadedModel, Value, load
from tests.worker import factories
from tests.worker.networks import BATCH, Classifier, Embedder, Pair, export, script, weights

X = TensorSpec("x", "FP32", (4,))
HERE = "tests.worker.factories"


class Opened:
    """Leaves a file behind when it is unpickled.

    Args:
        trace: The file.
    """

    def __init__(self, trace: str) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        """Name what unpickling calls."""
        return Path.touch, (Path(self._trace),)


@pytest.fixture(autouse=True)
def weights_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forbid pickles, as a worker's environment does."""
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")


def loaded(**options: Any) -> LoadedModel:
    """Load a model on the CPU."""
    return load(ModelOptions(id="m", **options), "cpu")


def refusal(**options: Any) -> str:
    """Load what must be refused, and return why in one line."""
    with pytest.raises(ModelError) as caught:
        loaded(**options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def tensors(outputs: Mapping[str, Value]) -> dict[str, torch.Tensor]:
    """See that all outputs are tensors."""
    assert all(isinstance(value, torch.Tensor) for value in outputs.values())
    return dict(outputs)  # type: ignore[arg-type]


class TestEveryFormat:
    """The same network, whatever it was saved as."""

    @pytest.fixture(params=["exported", "TorchScript", "weights", "Python"])
    def model(self, request: pytest.FixtureRequest, tmp_path: Path) -> LoadedModel:
        """Load the network."""
        if request.param == "exported":
            return loaded(path=export(tmp_path / "m", Classifier(), torch.zeros(2, 4), dynamic={"x": BATCH}))
        if request.param == "TorchScript":
            return loaded(path=script(tmp_path / "m", Classifier()), inputs=(X,))
        if request.param == "weights":
            return loaded(path=weights(tmp_path / "m", Classifier()), factory=f"{HERE}:Classifier", inputs=(X,))
        return loaded(factory=f"{HERE}:Classifier", inputs=(X,))

    @pytest.mark.parametrize("rows", [0, 1, 2, 7])
    def test_it_answers_as_the_network_does(self, model: LoadedModel, rows: int) -> None:
        """Any number of rows goes through, and the output has a name."""
        x = torch.randn(rows, 4)
        expected = Classifier()(x)
        for _ in range(2):  # an exported program takes another way the second time
            answered = tensors(model.call({"x": x}))
            assert list(answered) == ["output"]
            torch.testing.assert_close(answered["output"], expected.detach())

    def test_it_has_the_signature(self, model: LoadedModel) -> None:
        """Declared or read, it is the same."""
        assert model.signature == Signature((X,))
        assert (model.is_batched, model.rows_max, model.rows_fixed) == (True, 256, None)

    def test_it_warms_up(self, model: LoadedModel) -> None:
        """Zeros of the signature are asked, and are what the model is probed with."""
        model.warm_up()
        assert model.probe_inputs is not None
        assert list(model.probe_inputs) == ["x"]
        torch.testing.assert_close(model.probe_inputs["x"], torch.zeros(1, 4))
        assert model.notes == ()

    def test_no_gradients_are_kept(self, model: LoadedModel) -> None:
        """The call enters inference mode by itself, in whatever thread it is."""
        assert tensors(model.call({"x": torch.zeros(1, 4)}))["output"].is_inference()


class TestBinding:
    """Which inputs a model takes, by name."""

    def test_a_program_tells_names_datatypes_and_shapes(self, tmp_path: Path) -> None:
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

    def test_a_program_takes_nested_inputs_apart(self, tmp_path: Path) -> None:
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

    def test_a_program_keeps_the_constants_it_was_exported_with(self, tmp_path: Path) -> None:
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

    def test_a_program_that_needs_a_number_is_refused(self, tmp_path: Path) -> None:
        """A number that was left open cannot come from a record."""

        class Power(nn.Module):
            def forward(self, x: torch.Tensor, exponent: int) -> torch.Tensor:
                return x**exponent

        dynamic = {"x": BATCH, "exponent": torch.export.Dim.DYNAMIC}
        file = export(tmp_path / "m", Power(), torch.zeros(2, 3), 3, dynamic=dynamic)
        assert refusal(path=file) == "the program's input 'exponent' is no tensor; export it as a constant"

    def test_torchscript_has_argument_names_alone(self, tmp_path: Path) -> None:
        """Without declared inputs any shapes go, under the names of forward."""
        model = loaded(path=script(tmp_path / "m", Embedder()))
        assert model.takes == Arguments(("ids", "mask"))
        assert model.signature is None

    def test_arguments_with_defaults_are_optional(self) -> None:
        """A Python model's arguments: required, optional, by position or by name."""
        model = loaded(factory=f"{HERE}:of", arguments={"name": "positional"})
        assert model.takes == Arguments(("x", "y"), ("scale",))
        x, y = torch.full((1, 2), 5.0), torch.ones(1, 2)
        assert tensors(model.call({"y": y, "x": x}))["output"].tolist() == [[4, 4]]
        assert tensors(model.call({"y": y, "scale": y * 2, "x": x}))["output"].tolist() == [[8, 8]]

    def test_a_model_may_take_any_names(self) -> None:
        """Keyword arguments of any name make the model open."""
        model = loaded(factory=f"{HERE}:of", arguments={"name": "keywords"})
        assert model.takes == Arguments((), (), is_open=True)
        assert tensors(model.call({"a": torch.ones(1), "b": torch.ones(1) * 3}))["output"].tolist() == [2]

    def test_arguments_without_names_are_refused(self) -> None:
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
    def test_declared_inputs_must_be_the_models(self, inputs: tuple[TensorSpec, ...], message: str) -> None:
        """For models that know names alone, the names must agree."""
        assert refusal(factory=f"{HERE}:Classifier", inputs=inputs) == message

    def test_every_required_argument_must_be_declared(self) -> None:
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
    def test_a_declaration_must_agree_with_the_program(self, tmp_path: Path, spec: TensorSpec, message: str) -> None:
        """A program knows better: what contradicts it is refused."""
        file = export(tmp_path / "m", Classifier(), torch.zeros(2, 4), dynamic={"x": BATCH})
        assert refusal(path=file, inputs=(spec,)).startswith(message)

    def test_a_declaration_names_a_programs_free_axes(self, tmp_path: Path) -> None:
        """With names come pads, masks and cuts; the program's bounds hold for them."""
        model = loaded(path=embedder(tmp_path / "m"), inputs=PADDED, outputs=CUT)
        assert model.signature == Signature(PADDED, CUT, {"tokens": (0, 9)})

    def test_one_name_for_two_axes_of_a_program_is_refused(self, tmp_path: Path) -> None:
        """A free axis has one length in a record, so the program must say so too."""

        class Sum(nn.Module):
            def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
                return x.sum(1) + y.sum(1)

        free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
        file = export(tmp_path / "m", Sum(), torch.zeros(2, 3), torch.zeros(2, 4), dynamic={"x": free, "y": free})
        inputs = (TensorSpec("x", "FP32", ("n",)), TensorSpec("y", "FP32", ("n",)))
        assert refusal(path=file, inputs=inputs) == "inputs: 'n' names two axes whose lengths differ in the program"

    def test_other_arguments_than_tensors_are_refused(self, tmp_path: Path) -> None:
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


PADDED = (
    TensorSpec("ids", "INT64", ("tokens",), pad=0, mask="mask"),
    TensorSpec("mask", "FP32", ("tokens",)),
)
CUT = (TensorSpec("whole", "FP32", (4,)), TensorSpec("each", "FP32", ("tokens",)))


def embedder(file: Path) -> str:
    """Export the embedder with a free, bounded axis."""
    tokens = torch.export.Dim("tokens", max=9)
    free = {0: torch.export.Dim.DYNAMIC, 1: tokens}
    example = torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3)
    return export(file, Embedder(), *example, dynamic={"ids": free, "mask": free})


class TestOutputs:
    """How what a model returns gets its names."""

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
    def test_structures_have_names(self, kind: str, names: list[str]) -> None:
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
    def test_anything_else_is_refused_before_the_first_record(self, kind: str, message: str) -> None:
        """The warm-up finds what no result can carry."""
        model = loaded(factory=f"{HERE}:returning", arguments={"kind": kind}, inputs=(X,))
        with pytest.raises(ModelError, match=r"^warm-up: ") as caught:
            model.warm_up()
        assert message in str(caught.value)

    @pytest.mark.parametrize("kind", ["exported", "TorchScript"])
    def test_formats_return_dicts_as_python_does(self, tmp_path: Path, kind: str) -> None:
        """A dict survives being saved."""
        file = embedder(tmp_path / "m") if kind == "exported" else script(tmp_path / "m", Embedder())
        model = loaded(path=file)
        for _ in range(2):
            answered = tensors(model.call({"ids": torch.zeros(2, 3, dtype=torch.int64), "mask": torch.ones(2, 3)}))
            assert {name: tuple(value.shape) for name, value in answered.items()} == {"whole": (2, 4), "each": (2, 3)}

    def test_torchscript_tells_what_it_returns_at_once(self, tmp_path: Path) -> None:
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
    def test_declared_outputs_rename(self, kind: str, declared: list[str], picked: list[int]) -> None:
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
    def test_declared_outputs_that_do_not_fit_are_refused(self, declared: list[str], message: str) -> None:
        """Neither their number nor half of their names may differ."""
        specs = tuple(TensorSpec(name, "FP32", (4,)) for name in declared)
        model = loaded(factory=f"{HERE}:returning", arguments={"kind": "dict"}, inputs=(X,), outputs=specs)
        with pytest.raises(ModelError) as caught:
            model.warm_up()
        assert message in str(caught.value)

    def test_a_declared_tensor_is_not_bytes(self) -> None:
        """Texts where numbers are promised are refused."""
        spec = TensorSpec("output", "FP32")
        model = loaded(factory=f"{HERE}:returning", arguments={"kind": "bytes"}, inputs=(X,), outputs=(spec,))
        with pytest.raises(ModelError, match="outputs: 'output' is declared as FP32, the model returns BYTES"):
            model.warm_up()

    @pytest.mark.parametrize("spec", [TensorSpec("output", "FP64", (4,)), TensorSpec("output", "FP32", (5,))])
    def test_declared_datatypes_and_shapes_are_checked(self, spec: TensorSpec) -> None:
        """What subscribers are promised is what the model returns."""
        model = loaded(factory=f"{HERE}:returning", arguments={"kind": "tensor"}, inputs=(X,), outputs=(spec,))
        with pytest.raises(ModelError, match=r"outputs: 'output' is declared as .* one example of the model's is FP32"):
            model.warm_up()


class TestCode:
    """Factories, hooks and weights."""

    def test_a_factory_gets_its_arguments(self) -> None:
        """`arguments` go to it as keywords."""
        model = loaded(factory=f"{HERE}:Classifier", arguments={"width": 7})
        assert tensors(model.call({"x": torch.zeros(1, 7)}))["output"].shape == (1, 3)

    def test_modules_are_put_into_evaluation_mode(self, tmp_path: Path) -> None:
        """Dropout and batch norm are off, whatever made the module."""
        x = torch.randn(3, 4)
        options = [
            {"factory": f"{HERE}:Normalised"},
            {"path": script(tmp_path / "script", factories.Normalised().train())},
            {"path": weights(tmp_path / "weights", factories.Normalised()), "factory": f"{HERE}:Normalised"},
        ]
        for values in options:
            model = loaded(**values)
            torch.testing.assert_close(
                tensors(model.call({"x": x}))["output"], factories.Normalised().eval()(x).detach()
            )

    def test_any_callable_is_a_model_and_may_bring_hooks(self) -> None:
        """`preprocess` and `postprocess` are the object's own."""
        model = loaded(factory=f"{HERE}:Doubler", arguments={"factor": 3.0})
        assert model.preprocess is not None
        assert model.postprocess is not None
        assert model.preprocess({"text": [b"abc"]})["x"].tolist() == [3]  # type: ignore[union-attr]
        assert tensors(model.call({"x": torch.ones(2)}))["output"].tolist() == [3, 3]

    def test_named_hooks_serve_every_format(self, tmp_path: Path) -> None:
        """A format without code of its own gets them by name."""
        file = export(tmp_path / "m", Classifier(), torch.zeros(2, 4), dynamic={"x": BATCH})
        model = loaded(path=file, preprocess=f"{HERE}:texts", postprocess=f"{HERE}:unchanged")
        assert model.preprocess is factories.texts
        assert model.postprocess is factories.unchanged

    def test_texts_reach_a_python_model_as_lists_of_bytes(self) -> None:
        """BYTES in, BYTES out."""
        model = loaded(factory=f"{HERE}:Echo", inputs=(TensorSpec("text", "BYTES"),))
        model.warm_up()
        assert model.call({"text": [b"a", b"b"]}) == {"output": [b"A", b"B"]}

    @pytest.mark.parametrize("kind", ["exported", "TorchScript"])
    def test_other_formats_take_no_texts(self, tmp_path: Path, kind: str) -> None:
        """They need a preprocess, and the message says so."""
        save = script if kind == "TorchScript" else export
        example = () if kind == "TorchScript" else (torch.zeros(2, 4),)
        file = save(tmp_path / "m", Classifier(), *example)
        message = refusal(path=file, inputs=(TensorSpec("x", "BYTES", (4,)),))
        assert message == (
            "inputs: 'x' is BYTES, which only Python models take: declare what the model takes and let preprocess make "
            "it"
        )

    @pytest.mark.parametrize(
        ("factory", "message"),
        [
            (
                "tests.worker.nowhere:x",
                "factory: tests.worker.nowhere:x cannot be imported (see python_path): ModuleNotF",
            ),
            (f"{HERE}:nothing", "factory: the module tests.worker.factories has no nothing"),
            (f"{HERE}:Doubler.nothing", "factory: the module tests.worker.factories has no Doubler.nothing"),
            (f"{HERE}:NUMBER", "factory: tests.worker.factories:NUMBER is a int, which cannot be called"),
            (
                f"{HERE}:nothing_made",
                "factory: tests.worker.factories:nothing_made returns a NoneType, which cannot be",
            ),
            (f"{HERE}:builtin", "the model's arguments cannot be read: ValueError: no signature found"),
            (f"{HERE}:failing", "factory: tests.worker.factories:failing raised RuntimeError: no licence"),
        ],
    )
    def test_a_factory_that_makes_nothing_is_refused(self, factory: str, message: str) -> None:
        """Each way to fail has its own line."""
        assert refusal(factory=factory).startswith(message)

    def test_a_hook_that_is_not_there_is_refused(self) -> None:
        """The line names the option."""
        message = refusal(factory=f"{HERE}:Classifier", preprocess=f"{HERE}:nothing")
        assert message == "preprocess: the module tests.worker.factories has no nothing"

    def test_code_is_found_where_python_looks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A module beside the configuration is imported by its name; its source's digest is its version."""
        source = tmp_path / "beside_the_configuration.py"
        source.write_text("def model():\n    return lambda x: x\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        model = loaded(factory="beside_the_configuration:model")
        assert model.version == hashlib.sha256(source.read_bytes()).hexdigest()[:12]
        assert model.sha256 is None
        assert loaded(factory="beside_the_configuration:model", version="7").version == "7"
        del sys.modules["beside_the_configuration"]

    @pytest.mark.parametrize("name", ["function", "Class"])
    def test_code_without_a_source_file_has_no_version(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        """Then only the configuration can give one."""
        module = types.ModuleType("made_by_hand")
        exec(
            "def function():\n    return lambda x: x\nclass Class:\n    def __call__(self, x):\n        return x\n",
            module.__dict__,
        )
        monkeypatch.setitem(sys.modules, "made_by_hand", module)
        assert loaded(factory=f"made_by_hand:{name}").version == "0"


class TestWeights:
    """Weights are loaded strictly."""

    def test_the_files_weights_are_used(self, tmp_path: Path) -> None:
        """Not those that the factory happens to make."""
        saved = Classifier()
        nn.init.ones_(saved.linear.weight)
        nn.init.zeros_(saved.linear.bias)
        model = loaded(path=weights(tmp_path / "m", saved), factory=f"{HERE}:Classifier")
        assert tensors(model.call({"x": torch.ones(1, 4)}))["output"].tolist() == [[4, 4, 4]]
        assert model.sha256 == hashlib.sha256((tmp_path / "m").read_bytes()).hexdigest()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"linear.bias": None}, "Missing key(s) in state_dict"),
            ({"other": torch.zeros(1)}, "Unexpected key(s) in state_dict"),
            ({"linear.bias": torch.zeros(4)}, "size mismatch for linear.bias"),
            ({"linear.bias": torch.zeros(3, dtype=torch.float16)}, "linear.bias is float16 in the file and float32 in"),
        ],
    )
    def test_misfits_are_refused(self, tmp_path: Path, change: dict[str, torch.Tensor | None], message: str) -> None:
        """Missing, surplus, of another shape, or such as torch would cast without a word."""
        state = {**Classifier().state_dict(), **change}
        file = tmp_path / "m"
        safetensors.torch.save_file({name: value for name, value in state.items() if value is not None}, file)
        assert message in refusal(path=str(file), factory=f"{HERE}:Classifier")

    def test_weights_need_a_module(self, tmp_path: Path) -> None:
        """A plain callable has nowhere to put them."""
        message = refusal(path=weights(tmp_path / "m", Classifier()), factory=f"{HERE}:Doubler")
        assert message == f"factory: {HERE}:Doubler returns a Doubler, weights need a torch.nn.Module"


class TestFiles:
    """Files that are not what they look like."""

    def test_suffixes_mean_nothing(self, tmp_path: Path) -> None:
        """A program under any name is loaded as what it is."""
        true = export(tmp_path / "m.pt2", Classifier(), torch.zeros(2, 4), dynamic={"x": BATCH})
        file = tmp_path / "m.safetensors"
        file.write_bytes(Path(true).read_bytes())
        assert tensors(loaded(path=str(file)).call({"x": torch.zeros(1, 4)}))["output"].shape == (1, 3)

    @pytest.mark.parametrize("kind", ["exported", "TorchScript", "weights"])
    def test_damaged_files_are_refused_in_one_line(self, tmp_path: Path, kind: str) -> None:
        """Bytes are missing in the middle: it has the archive's directory still, or the header."""
        file = tmp_path / "m"
        if kind == "weights":
            weights(file, Classifier())
            file.write_bytes(file.read_bytes()[:-8])
            assert "does not fit" in refusal(path=str(file), factory=f"{HERE}:Classifier")
            return
        export(file, Classifier(), torch.zeros(2, 4)) if kind == "exported" else script(file, Classifier())
        content = file.read_bytes()
        file.write_bytes(content.replace(b"linear", b"lineal"))
        assert str(file) in refusal(path=str(file))

    def test_a_pickle_planted_in_a_program_is_refused(self, tmp_path: Path) -> None:
        """It does not run, and the message says what is wrong with the file."""
        honest, file = tmp_path / "m.pt2", tmp_path / "planted.pt2"
        export(honest, Classifier(), torch.zeros(2, 4), dynamic={"x": BATCH})
        planted = io.BytesIO()
        torch.save(Opened(str(tmp_path / "ran")), planted)
        with zipfile.ZipFile(honest) as old, zipfile.ZipFile(file, "w") as new:
            for name in old.namelist():
                new.writestr(name, planted.getvalue() if name.endswith("sample_inputs/model.pt") else old.read(name))
        assert refusal(path=str(file)) == f"{file} holds a pickle of something else than tensors, which is refused"
        assert not (tmp_path / "ran").exists()

    def test_a_program_that_torch_refuses_is_refused_in_one_line(self, tmp_path: Path) -> None:
        """Its JSON is sound, but an operator is not to be found."""
        honest, file = tmp_path / "m.pt2", tmp_path / "foreign.pt2"
        export(honest, Classifier(), torch.zeros(2, 4), dynamic={"x": BATCH})
        with zipfile.ZipFile(honest) as old, zipfile.ZipFile(file, "w") as new:
            for name in old.namelist():
                new.writestr(name, old.read(name).replace(b"torch.ops.aten.linear", b"torch.ops.acme.linear"))
        assert refusal(path=str(file)).startswith(f"{file} cannot be loaded as an exported program: ")

    @pytest.mark.parametrize(
        ("network", "example", "message"),
        [
            (
                nn.Identity(),
                torch.zeros(2, 4, dtype=torch.complex64),
                "the program's input 'input' is complex64, which",
            ),
            (factories.Constant(), 3, "the program takes no tensors"),
        ],
    )
    def test_programs_that_no_record_can_feed_are_refused(
        self, tmp_path: Path, network: nn.Module, example: object, message: str
    ) -> None:
        """Their inputs are of no datatype, or no tensors at all."""
        assert refusal(path=export(tmp_path / "m", network, example)).startswith(message)

    def test_torchscripts_deprecation_is_silenced_by_its_loader_alone(self, tmp_path: Path) -> None:
        """Warnings are errors in these tests, and are so again afterwards."""
        file = script(tmp_path / "m", Classifier())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded(path=file)
            with pytest.raises(DeprecationWarning):
                torch.jit.load(file)

    def test_a_worker_without_the_guard_loads_no_program(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Forgetting the variable is a programmer's error, found at the first program."""
        file = export(tmp_path / "m", Classifier(), torch.zeros(2, 4))
        monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
        with pytest.raises(AssertionError, match="TORCH_FORCE_WEIGHTS_ONLY_LOAD"):
            loaded(path=file)


@pytest.mark.parametrize("kind", ["exported", "weights", "Python"])
def test_models_go_to_their_device(tmp_path: Path, kind: str) -> None:
    """Weights, and what a program makes on its way, are where the tensors are (here on the device without memory)."""

    class Shifted(Classifier):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + torch.arange(3.0)

    options: dict[str, Any] = {"factory": f"{HERE}:Classifier"}
    if kind == "exported":
        options = {"path": export(tmp_path / "m", Shifted(), torch.zeros(2, 4), dynamic={"x": BATCH})}
    elif kind == "weights":
        options["path"] = weights(tmp_path / "m", Classifier())
    model = load(ModelOptions(id="m", **options), "meta")
    for _ in range(2):
        assert tensors(model.call({"x": torch.zeros(5, 4, device="meta")}))["output"].device.type == "meta"
    assert model.device == "meta"


def test_bf16_and_every_other_datatype_go_through() -> None:
    """Whatever a record can carry, a model can take and return."""
    for datatype, dtype in TORCH_DTYPES.items():
        spec = TensorSpec("x", datatype, (2,))
        model = loaded(factory=f"{HERE}:returning", arguments={"kind": "tensor"}, inputs=(spec,))
        model.warm_up()
        assert tensors(model.call({"x": torch.ones(1, 2, dtype=dtype)}))["output"].dtype is dtype
