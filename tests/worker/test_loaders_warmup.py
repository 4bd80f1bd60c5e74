"""What a model is asked before it gets records, and which answers are refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from consumer.models.signature import Signature, TensorSpec
from consumer.worker.loaders import questions
from schemas.codecs import encode_request
from schemas.records import Request
from schemas.tensors import Tensor
from tests.worker.loading import CUT, HERE, PADDED, X, loaded, refusal_when_asked
from tests.worker.networks import BATCH, Dropping, Embedder, Normalised, export, script

pytestmark = pytest.mark.usefixtures("weights_only")


def in_train_mode(path: Path, model: nn.Module) -> str:
    """Export a network that nobody called eval() on."""
    return export(path, model.train(), torch.zeros(2, 4), dynamic={"x": BATCH})


class TestTrainMode:
    """Programs that were exported in train mode, where eval() cannot be called any more."""

    def test_batch_norm_is_refused(self, tmp_path: Path) -> None:
        """Rows beside a row change its answer, and the message says what to do."""
        message = refusal_when_asked(path=in_train_mode(tmp_path / "m", Normalised()))
        assert message.startswith("warm-up: output 'output' of a row changes by up to ")
        assert "left in train mode (batch norm): call eval() before it is exported" in message
        assert "say batch: false" in message

    def test_dropout_is_refused(self, tmp_path: Path) -> None:
        """The same question gets another answer, and the message says what to do."""
        message = refusal_when_asked(path=in_train_mode(tmp_path / "m", Dropping()))
        assert message.startswith("warm-up: output 'output' changes by up to ")
        assert "when the same is asked twice" in message
        assert "left in train mode (dropout): call eval() before it is exported" in message
        assert "say reproducible: false" in message

    @pytest.mark.parametrize("network", [Normalised, Dropping])
    def test_evaluation_mode_is_fine(self, tmp_path: Path, network: type[nn.Module]) -> None:
        """The same networks, exported as they should be."""
        loaded(path=export(tmp_path / "m", network().eval(), torch.zeros(2, 4), dynamic={"x": BATCH})).warm_up()

    def test_what_the_options_admit_passes(self, tmp_path: Path) -> None:
        """`batch: false` for rows that depend on one another, `reproducible: false` for chance."""
        normalised = in_train_mode(tmp_path / "normalised", Normalised())
        loaded(path=normalised, batch=False, inputs=(TensorSpec("x", "FP32", ("n", 4)),)).warm_up()
        loaded(path=in_train_mode(tmp_path / "dropping", Dropping()), reproducible=False).warm_up()


class TestAnswers:
    """What else the comparison finds."""

    @pytest.mark.parametrize("name", ["noisy", "centred"])
    def test_chance_and_mixed_rows_are_refused_in_every_format(self, name: str) -> None:
        """Python models are examined as well."""
        reason = {"noisy": "asked twice", "centred": "other rows are beside it"}[name]
        assert reason in refusal_when_asked(factory=f"{HERE}:of", arguments={"name": name}, inputs=(X,))

    def test_texts_are_compared_as_well(self) -> None:
        """BYTES that change are refused."""
        message = refusal_when_asked(factory=f"{HERE}:of", arguments={"name": "moody"}, inputs=(X,))
        assert "output 'output' changes its bytes when the same is asked twice" in message

    def test_state_is_refused(self) -> None:
        """Models keep no state between calls."""
        assert "keeps state" in refusal_when_asked(factory=f"{HERE}:Counter", inputs=(X,))

    def test_a_model_that_is_not_batched_is_asked_twice_too(self) -> None:
        """Chance is found without rows."""
        message = refusal_when_asked(factory=f"{HERE}:of", arguments={"name": "noisy"}, inputs=(X,), batch=False)
        assert "asked twice" in message

    def test_a_model_that_takes_one_row_only_is_refused(self) -> None:
        """What it raises with two rows is in the message."""
        message = refusal_when_asked(factory=f"{HERE}:of", arguments={"name": "single"}, inputs=(X,))
        assert message == "warm-up: asked for 2 rows the model raised ValueError: one row, please"

    def test_a_model_that_refuses_made_up_rows_is_fine(self) -> None:
        """Ones may be out of a model's range: then the first row keeps itself company."""
        loaded(factory=f"{HERE}:of", arguments={"name": "picky"}, inputs=(X,)).warm_up()

    def test_a_model_that_raises_is_refused(self, tmp_path: Path) -> None:
        """Its first line is in the message."""
        message = refusal_when_asked(
            path=script(tmp_path / "m", nn.Linear(4, 3)), inputs=(TensorSpec("input", "FP64", (4,)),)
        )
        assert message.startswith("warm-up: asked for one row the model raised RuntimeError: ")

    def test_rounding_is_within_tolerance(self) -> None:
        """Batches of other sizes take other kernels: that much may differ."""
        model = loaded(factory=f"{HERE}:of", arguments={"name": "rounded"}, inputs=(X,))
        model.warm_up()

    def test_nan_equals_nan(self) -> None:
        """Zeros may well give NaN; the same every time is no difference."""
        loaded(factory=f"{HERE}:of", arguments={"name": "undefined"}, inputs=(X,)).warm_up()


class TestPadding:
    """Free axes with a pad value."""

    def test_a_model_that_heeds_its_mask_passes(self) -> None:
        """A longer row beside it changes nothing, once its outputs are cut."""
        model = loaded(factory=f"{HERE}:Embedder", inputs=PADDED, outputs=CUT)
        model.warm_up()
        assert model.probe_inputs is not None
        assert {name: tuple(value.shape) for name, value in model.probe_inputs.items()} == {  # type: ignore[union-attr]
            "ids": (1, 2),
            "mask": (1, 2),
        }
        assert torch.equal(model.probe_inputs["mask"], torch.ones(1, 2))  # type: ignore[arg-type]

    def test_outputs_that_are_not_cut_are_refused(self) -> None:
        """Without `outputs` nobody knows that the axis is a padded one."""
        message = refusal_when_asked(factory=f"{HERE}:Embedder", inputs=PADDED)
        assert "output 'each' of a row changes its shape from [1, 2] to [1, 3]" in message

    def test_a_model_that_sees_its_padding_is_refused(self) -> None:
        """Padding that leaks into results would make them depend on their neighbours."""
        inputs = (TensorSpec("x", "FP32", ("n",), pad=5),)
        message = refusal_when_asked(factory=f"{HERE}:of", arguments={"name": "average"}, inputs=inputs)
        assert "or its rows depend on one another (or on padding)" in message

    def test_zeros_stay_within_a_programs_bounds(self, tmp_path: Path) -> None:
        """A program that takes seven tokens or more is asked with seven and eight."""
        free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim("tokens", min=7, max=8)}
        example = torch.zeros(2, 7, dtype=torch.int64), torch.ones(2, 7)
        file = export(tmp_path / "m", Embedder(), *example, dynamic={"ids": free, "mask": free})
        loaded(path=file, inputs=PADDED, outputs=CUT).warm_up()


class TestFile:
    """`warmup:` names a file with a record."""

    ROWS = np.arange(12, dtype="f4").reshape(3, 4)

    @pytest.mark.parametrize("kind", ["msgpack", "JSON"])
    def test_its_record_is_asked(self, tmp_path: Path, kind: str) -> None:
        """Msgpack or JSON, told by content; the first row is the probe."""
        file = tmp_path / "record"
        request = Request("1", (Tensor.of("x", self.ROWS),))
        file.write_bytes(encode_request(request, None if kind == "msgpack" else "application/json"))
        model = loaded(factory=f"{HERE}:Classifier", warmup=str(file))
        model.warm_up()
        assert model.probe_inputs is not None
        assert model.probe_inputs["x"].tolist() == [[0, 1, 2, 3]]  # type: ignore[union-attr]

    def test_a_single_row_gets_company(self, tmp_path: Path) -> None:
        """Batch norm in train mode is found with one row in the file as well."""
        file = tmp_path / "record"
        file.write_bytes(encode_request(Request("1", (Tensor.of("x", self.ROWS[1]),))))
        program = in_train_mode(tmp_path / "m", Normalised())
        assert "batch norm" in refusal_when_asked(path=program, warmup=str(file))

    def test_texts_have_rows_too(self, tmp_path: Path) -> None:
        """BYTES are cut into rows by their shape."""
        file = tmp_path / "record"
        file.write_bytes(encode_request(Request("1", (Tensor.of("text", [b"a", b"b"]),))))
        model = loaded(factory=f"{HERE}:Echo", warmup=str(file))
        model.warm_up()
        assert model.probe_inputs == {"text": [b"a"]}

    @pytest.mark.parametrize("texts", [[b"a", b"bcd"], [b"a"]])
    def test_preprocess_sees_it(self, tmp_path: Path, texts: list[bytes]) -> None:
        """It is a record as producers send it."""
        file = tmp_path / "record"
        file.write_bytes(encode_request(Request("1", (Tensor.of("text", texts),))))
        model = loaded(factory=f"{HERE}:Doubler", warmup=str(file))
        model.warm_up()
        assert model.probe_inputs is not None
        assert model.probe_inputs["x"].tolist() == [1]  # type: ignore[union-attr]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, ": No such file or directory"),
            (b"\xc1", ": "),
            (b'{"inputs": 1}', ": "),
            (
                encode_request(Request("1", (Tensor.of("y", ROWS),))),
                "input number 1 has a name that the model does not",
            ),
            (encode_request(Request("1", (Tensor.of("x", ROWS[:0]),))), " has no rows"),
        ],
        ids=["missing", "no msgpack", "no record", "another model's", "empty"],
    )
    def test_what_cannot_be_asked_is_refused(self, tmp_path: Path, content: bytes | None, message: str) -> None:
        """The message starts with the option and the file."""
        file = tmp_path / "record"
        if content is not None:
            file.write_bytes(content)
        refused = refusal_when_asked(factory=f"{HERE}:Classifier", inputs=(X,), warmup=str(file))
        assert refused.startswith(f"warmup: {file}")
        assert message in refused

    def test_a_preprocess_that_raises_is_reported(self, tmp_path: Path) -> None:
        """Its error is in the message."""
        file = tmp_path / "record"
        file.write_bytes(encode_request(Request("1", (Tensor.of("x", self.ROWS),)), "application/json"))
        message = refusal_when_asked(factory=f"{HERE}:Doubler", warmup=str(file))
        assert message == "warmup: preprocess raised KeyError: 'text'"


def test_with_neither_a_file_nor_a_signature_it_is_not_warmed_up(tmp_path: Path) -> None:
    """A note says so and what to do; the model is served."""
    model = loaded(path=script(tmp_path / "m", Normalised()))
    model.warm_up()
    assert model.probe_inputs is None
    assert model.notes == ("not warmed up: declare inputs, or give a warmup file",)


def test_pads_of_bf16_are_written_as_its_bits() -> None:
    """A row of ones beside a longer one is filled up with 2."""
    signature = Signature((TensorSpec("x", "BF16", ("n",), pad=2.0),))
    rows = [
        questions.Row((Tensor("x", "BF16", (length,), np.full(length, 0x3F80, "u2")),), {"n": length})
        for length in (1, 2)
    ]
    made = questions.batch(rows, signature, is_batched=True, device="cpu")["x"]
    assert isinstance(made, torch.Tensor)
    assert (made.dtype, made.tolist()) == (torch.bfloat16, [[1, 2], [1, 1]])
