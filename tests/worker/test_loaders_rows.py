"""The axis of rows: bounds, fixed batches, models that are not batched."""

from pathlib import Path

import pytest
import torch
from torch import nn

from consumer.errors import ModelError
from consumer.models.signature import Form, Signature, TensorSpec
from consumer.worker.loaders import LoadedModel, exported
from schemas.tensors import Tensor
from tests.worker.loading import X, loaded
from tests.worker.networks import BATCH, Classifier, export

pytestmark = pytest.mark.usefixtures("weights_only")


def answer(model: LoadedModel, x: torch.Tensor) -> torch.Tensor:
    """Call a model that has one output."""
    (output,) = model.call({"x": x}).values()
    assert isinstance(output, torch.Tensor)
    return output


def as_classifier(model: LoadedModel, rows: int) -> None:
    """See that a model answers as the network that it was made of."""
    x = torch.randn(rows, 4)
    for _ in range(2):
        torch.testing.assert_close(answer(model, x), Classifier()(x).detach())


def test_a_program_from_a_batch_of_two_runs_with_any_number_of_rows(tmp_path: Path) -> None:
    """The lower bound of 2 that torch records is not enforced."""
    model = loaded(export(tmp_path / "m", Classifier(), torch.zeros(2, 4), dynamic={"x": BATCH}), rows_max=100_000)
    assert (model.rows_max, model.rows_fixed, model.signature) == (100_000, None, Signature((X,)))
    assert model.program.rows.least == 0
    for rows in (0, 1, 2, 3, 100_000):
        as_classifier(model, rows)


def test_the_upper_bound_of_a_program_caps_the_rows(tmp_path: Path) -> None:
    """What it was exported with is the most that a batch may have."""
    dynamic = {"x": {0: torch.export.Dim("batch", min=2, max=64)}}
    file = export(tmp_path / "m", Classifier(), torch.zeros(2, 4), dynamic=dynamic)
    assert loaded(file).rows_max == 64
    assert loaded(file, rows_max=8).rows_max == 8
    for rows in (0, 1, 64):
        as_classifier(loaded(file), rows)


def test_a_lower_bound_is_filled_up(tmp_path: Path) -> None:
    """One above torch's habitual 2 is meant: missing rows are added and cut away."""
    dynamic = {"x": {0: torch.export.Dim("batch", min=4, max=64)}}
    model = loaded(export(tmp_path / "m", Classifier(), torch.zeros(8, 4), dynamic=dynamic))
    model.warm_up()
    for rows in (0, 1, 3, 4, 64):
        as_classifier(model, rows)


def test_a_fixed_batch_of_one_runs_row_by_row(tmp_path: Path) -> None:
    """And the note names it, and the call that lifts it."""
    model = loaded(export(tmp_path / "m", Classifier(), torch.zeros(1, 4)))
    model.warm_up()
    assert (model.rows_max, model.rows_fixed, model.signature) == (1, 1, Signature((X,)))
    as_classifier(model, 1)
    as_classifier(model, 0)
    (note,) = model.notes
    assert note == (
        "exported with a fixed batch of 1: every row is a call of its own; to lift it, export from an example of at "
        'least 2 rows: torch.export.export(model, example, dynamic_shapes={"x": {0: torch.export.Dim.DYNAMIC}})'
    )


def test_the_export_call_in_the_note_lifts_a_fixed_batch(tmp_path: Path) -> None:
    """Whoever does as it says gets a program for any number of rows."""
    note = loaded(export(tmp_path / "m", Classifier(), torch.zeros(1, 4))).notes[0]
    program = eval(
        note.partition("rows: ")[2], {"torch": torch, "model": Classifier(), "example": (torch.zeros(2, 4),)}
    )
    torch.export.save(program, tmp_path / "lifted.pt2")
    assert loaded(str(tmp_path / "lifted.pt2")).rows_fixed is None


def test_a_batch_axis_that_torch_fixed_quietly_is_seen(tmp_path: Path) -> None:
    """From an example of one row, Dim.AUTO gives a fixed batch of 1."""
    file = export(tmp_path / "m", Classifier(), torch.zeros(1, 4), dynamic={"x": {0: torch.export.Dim.AUTO}})
    assert loaded(file).rows_fixed == 1


def test_a_fixed_batch_of_several_is_filled_up_and_cut(tmp_path: Path) -> None:
    """Fewer rows than it wants are no obstacle, no rows neither."""
    model = loaded(export(tmp_path / "m", Classifier(), torch.zeros(8, 4)))
    model.warm_up()
    assert (model.rows_max, model.rows_fixed) == (8, 8)
    assert "batches are filled up to 8 rows" in model.notes[0]
    for rows in (0, 1, 7, 8):
        as_classifier(model, rows)


def test_what_a_program_took_for_granted_is_checked(tmp_path: Path) -> None:
    """Where its code branched on a size, another size is refused each time, and never computed by the wrong branch."""

    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if x.shape[1] > 4 else x

    dynamic = {"x": {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}}
    model = loaded(export(tmp_path / "m", Branching(), torch.zeros(4, 6), dynamic=dynamic))
    for _ in range(2):
        assert answer(model, torch.ones(1, 5)).tolist() == [[2, 2, 2, 2, 2]]
        with pytest.raises((AssertionError, RuntimeError)):
            model.call({"x": torch.ones(1, 3)})


def test_remembered_shapes_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lengths records have, they fill no memory."""
    monkeypatch.setattr(exported, "SHAPES_MAX", 2)
    model = loaded(export(tmp_path / "m", Classifier(), torch.zeros(2, 4), dynamic={"x": BATCH}))
    for rows in (1, 2, 3, 1, 2, 3):
        as_classifier(model, rows)
    assert len(model.program.run._checked) <= 2  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch's own, where it decomposes
def test_a_program_keeps_no_state_between_calls(tmp_path: Path) -> None:
    """One that does is told by the warm-up."""

    class Counting(nn.Module):
        calls: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls.add_(1)
            return x + self.calls

    for name, program in {
        "in place": torch.export.export(Counting(), (torch.zeros(2, 4),), dynamic_shapes={"x": BATCH}),
        "functional": torch.export.export(
            Counting(), (torch.zeros(2, 4),), dynamic_shapes={"x": BATCH}
        ).run_decompositions(),
    }.items():
        torch.export.save(program, tmp_path / f"{name}.pt2")
        with pytest.raises(ModelError, match="changes by up to 1 when the same is asked twice"):
            loaded(str(tmp_path / f"{name}.pt2")).warm_up()


class TestNotBatched:
    """`batch: false`."""

    def test_tensors_go_as_sent(self, tmp_path: Path) -> None:
        """Its signature is the whole tensor, and any output shape is right."""

        class Total(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x.sum()

        model = loaded(export(tmp_path / "m", Total(), torch.zeros(3, 4)), batch=False)
        model.warm_up()
        assert model.signature == Signature((TensorSpec("x", "FP32", (3, 4)),))
        assert (model.is_batched, model.rows_fixed, model.notes) == (False, None, ())
        bound = model.bind((Tensor.of("x", torch.zeros(3, 4).numpy()),))
        assert bound.form is Form.WHOLE
        assert answer(model, torch.ones(3, 4)).item() == 12

    def test_a_scalar_input_needs_it(self, tmp_path: Path) -> None:
        """Without an axis there are no rows."""

        class Plus(nn.Module):
            def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
                return x + y

        file = export(tmp_path / "m", Plus(), torch.zeros(2, 4), torch.zeros(()))
        with pytest.raises(ModelError, match="input 'y' has no axis for rows: export it with one, or say batch: false"):
            loaded(file)
        assert loaded(file, batch=False).signature is not None

    def test_inputs_that_disagree_on_axis_0_need_it(self, tmp_path: Path) -> None:
        """An axis that differs from input to input is no axis of rows."""

        class Product(nn.Module):
            def forward(self, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
                return x @ table

        file = export(
            tmp_path / "m", Product(), torch.zeros(2, 4), torch.zeros(4, 3), dynamic={"x": BATCH, "table": None}
        )
        with pytest.raises(
            ModelError, match=r"axis 0 is not the same .*'table': 4\), so it is not rows: say batch: false"
        ):
            loaded(file)

    def test_an_axis_tied_to_axis_0_needs_it(self, tmp_path: Path) -> None:
        """A square of rows cannot be put together from records."""

        class Trace(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x.diagonal() + x.T.sum(0)

        size = torch.export.Dim("size")
        file = export(tmp_path / "m", Trace(), torch.zeros(3, 3), dynamic={"x": {0: size, 1: size}})
        with pytest.raises(ModelError, match="ties axis 0 to another axis"):
            loaded(file)
