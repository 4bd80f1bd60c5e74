"""Loading models of every format."""

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from consumer.models.options import ModelOptions
from consumer.models.signature import Signature, TensorSpec
from consumer.worker.dtypes import TORCH_DTYPES
from consumer.worker.loaders import LoadedModel, load
from tests.worker import factories
from tests.worker.loading import HERE, X, loaded, refusal, tensors
from tests.worker.networks import BATCH, Classifier, export, script, weights

pytestmark = pytest.mark.usefixtures("weights_only")


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
        assert (model.is_batched, model.rows_max, model.rows_fixed) == (True, 512, None)

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
