"""Factories, hooks and weights."""

import hashlib
import sys
import types
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from consumer.models.signature import TensorSpec
from tests.worker import factories
from tests.worker.loading import HERE, loaded, refusal, tensors
from tests.worker.networks import BATCH, Classifier, export, script, weights

pytestmark = pytest.mark.usefixtures("weights_only")


def test_a_factory_gets_its_arguments() -> None:
    """`arguments` go to it as keywords."""
    model = loaded(factory=f"{HERE}:Classifier", arguments={"width": 7})
    assert tensors(model.call({"x": torch.zeros(1, 7)}))["output"].shape == (1, 3)


def test_modules_are_put_into_evaluation_mode(tmp_path: Path) -> None:
    """Dropout and batch norm are off, whatever made the module."""
    x = torch.randn(3, 4)
    options = [
        {"factory": f"{HERE}:Normalised"},
        {"path": script(tmp_path / "script", factories.Normalised().train())},
        {"path": weights(tmp_path / "weights", factories.Normalised()), "factory": f"{HERE}:Normalised"},
    ]
    for values in options:
        model = loaded(**values)
        torch.testing.assert_close(tensors(model.call({"x": x}))["output"], factories.Normalised().eval()(x).detach())


def test_any_callable_is_a_model_and_may_bring_hooks() -> None:
    """`preprocess` and `postprocess` are the object's own."""
    model = loaded(factory=f"{HERE}:Doubler", arguments={"factor": 3.0})
    assert model.preprocess is not None
    assert model.postprocess is not None
    assert model.preprocess({"text": [b"abc"]})["x"].tolist() == [3]  # type: ignore[union-attr]
    assert tensors(model.call({"x": torch.ones(2)}))["output"].tolist() == [3, 3]


def test_named_hooks_serve_every_format(tmp_path: Path) -> None:
    """A format without code of its own gets them by name."""
    file = export(tmp_path / "m", Classifier(), torch.zeros(2, 4), dynamic={"x": BATCH})
    model = loaded(path=file, preprocess=f"{HERE}:texts", postprocess=f"{HERE}:unchanged")
    assert model.preprocess is factories.texts
    assert model.postprocess is factories.unchanged


def test_texts_reach_a_python_model_as_lists_of_bytes() -> None:
    """BYTES in, BYTES out."""
    model = loaded(factory=f"{HERE}:Echo", inputs=(TensorSpec("text", "BYTES"),))
    model.warm_up()
    assert model.call({"text": [b"a", b"b"]}) == {"output": [b"A", b"B"]}


@pytest.mark.parametrize("kind", ["exported", "TorchScript"])
def test_other_formats_take_no_texts(tmp_path: Path, kind: str) -> None:
    """They need a preprocess, and the message says so."""
    save = script if kind == "TorchScript" else export
    example = () if kind == "TorchScript" else (torch.zeros(2, 4),)
    file = save(tmp_path / "m", Classifier(), *example)
    message = refusal(path=file, inputs=(TensorSpec("x", "BYTES", (4,)),))
    assert message == (
        "inputs: 'x' is BYTES, which only Python models take: declare what the model takes and let preprocess make it"
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
def test_a_factory_that_makes_nothing_is_refused(factory: str, message: str) -> None:
    """Each way to fail has its own line."""
    assert refusal(factory=factory).startswith(message)


def test_a_hook_that_is_not_there_is_refused() -> None:
    """The line names the option."""
    message = refusal(factory=f"{HERE}:Classifier", preprocess=f"{HERE}:nothing")
    assert message == "preprocess: the module tests.worker.factories has no nothing"


def test_code_is_found_where_python_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_code_without_a_source_file_has_no_version(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
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
