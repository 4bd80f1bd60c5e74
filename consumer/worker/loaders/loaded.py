"""A loaded model, the same whatever its format.

Owns the call: rows filled up for programs that want a certain number of them and cut again, outputs named, renamed and
checked. Must not know records, encodings or how batches are made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from consumer.errors import ModelError
from consumer.models.options import ModelOptions
from consumer.models.repository import Artifact
from consumer.models.signature import Arguments, Bound, Signature
from consumer.worker.loaders import outputs, questions
from consumer.worker.loaders.outputs import Value
from consumer.worker.loaders.program import Hook, Program
from consumer.worker.loaders.warmup import Examination
from schemas.tensors import Tensor


@dataclass(slots=True, kw_only=True)
class LoadedModel:
    """A model on its device, to be called from one thread at a time."""

    options: ModelOptions
    artifact: Artifact
    program: Program
    device: str
    probe_inputs: dict[str, Value] | None = None
    """One row on the device that the model is known to answer; None until `warm_up` has found one."""
    notes: tuple[str, ...] = ()
    """What the model's owner may want to know, one line each."""
    _order: tuple[tuple[str, ...], tuple[str, ...]] | None = field(default=None, init=False)
    """The model's own output names as last seen, and which of them the declared ones are."""

    @property
    def takes(self) -> Signature | Arguments:
        """What the model takes: its signature, else the names of its arguments."""
        return self.program.takes

    @property
    def signature(self) -> Signature | None:
        """The signature, where it is declared or the format carries one."""
        return self.takes if isinstance(self.takes, Signature) else None

    @property
    def version(self) -> str:
        """The version that results carry."""
        return self.artifact.version or self.program.version or "0"

    @property
    def sha256(self) -> str | None:
        """The file's digest in hex; None for a model without a file."""
        return self.artifact.sha256

    @property
    def is_batched(self) -> bool:
        """Whether axis 0 of every tensor is rows; otherwise a call takes one record's tensors as sent."""
        return self.options.batch

    @property
    def rows_max(self) -> int:
        """Most rows of a call."""
        most = self.program.rows.most
        return self.options.rows_max if most is None else max(1, min(self.options.rows_max, most))

    @property
    def rows_fixed(self) -> int | None:
        """The one number of rows that the program runs with; `call` fills up to it and cuts."""
        return self.program.rows.fixed

    @property
    def preprocess(self) -> Hook | None:
        """Makes the model's inputs of one record's."""
        return self.program.preprocess

    @property
    def postprocess(self) -> Hook | None:
        """Makes the result's outputs of one record's."""
        return self.program.postprocess

    def bind(self, inputs: tuple[Tensor, ...]) -> Bound:
        """Check a record's (preprocessed) inputs and put them in the model's order; see `Signature.bind`."""
        return self.takes.bind(inputs, is_batched=self.is_batched)

    def warm_up(self) -> None:
        """Ask the model what its warm-up file, or zeros of its signature, say, and refuse it where it answers wrongly.

        Raises:
            ModelError: it raised; its outputs are no result; or a row's answer depends on the rows beside it, or is not
                the same twice, and the options do not say so.
        """
        question = questions.find(self.options, self.takes, self.preprocess)
        if question is None:
            note = "not warmed up: declare inputs, or give a warmup file"
            self.notes = (*self.notes, note)
            return
        examination = Examination(
            call=self.call, takes=self.takes, options=self.options, device=self.device, rows_max=self.rows_max
        )
        self.probe_inputs = examination.run(question)

    def call(self, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Run the model.

        Args:
            inputs: Tensors on the device by name, with 0 to `rows_max` rows where the model is batched; BYTES as a flat
                list in row-major order.

        Returns:
            The outputs by name, in the declared order, wherever the model puts them. With as many rows as the inputs.

        Raises:
            ModelError: the model returned something that is no result.
            Exception: whatever the model raises.
        """
        rows = self._rows(inputs) if self.is_batched else None
        least = self.program.rows.least
        with torch.inference_mode():
            if rows is None or rows >= least:
                return self._named(self.program.run(inputs), rows)
            filled = self._named(
                self.program.run({name: _filled(value, least) for name, value in inputs.items()}), least
            )
            return {name: value[:rows] for name, value in filled.items()}

    def _rows(self, inputs: Mapping[str, Value]) -> int | None:
        """Count the rows of a batch; None where only BYTES are in it, and how many make a row is not known."""
        for value in inputs.values():
            if isinstance(value, torch.Tensor):
                return value.shape[0]
        for spec in self.signature.inputs if self.signature is not None else ():
            if spec.shape == ():
                return len(inputs[spec.name])
        return None

    def _named(self, returned: object, rows: int | None) -> dict[str, Value]:
        """Name what the model returned, and see that it has the rows of the inputs."""
        named = outputs.named(returned)
        if self.options.outputs is not None:
            keys = tuple(named)
            if self._order is None or self._order[0] != keys:
                self._order = keys, outputs.rename(keys, [spec.name for spec in self.options.outputs])
            pairs = zip(self.options.outputs, self._order[1], strict=True)
            named = {spec.name: named[own] for spec, own in pairs}
        if rows is not None:
            for name, value in named.items():
                _check_rows(name, value, rows)
        return named


def _filled(value: Value, rows: int) -> Value:
    """Fill a tensor up to a number of rows, with its first row or, where it has none, with zeros."""
    assert isinstance(value, torch.Tensor), "only programs want a certain number of rows, and they take no BYTES"
    missing = rows - value.shape[0]
    filling = value[:1].expand(missing, *value.shape[1:]) if len(value) else value.new_zeros(missing, *value.shape[1:])
    return torch.cat([value, filling])


def _check_rows(name: str, value: Value, rows: int) -> None:
    """See that an output has a row for every row of the inputs."""
    if isinstance(value, torch.Tensor):
        found = f"shape {list(value.shape)}" if value.shape[:1] != (rows,) else None
    else:
        found = f"{len(value)} elements" if len(value) % max(rows, 1) or bool(value) > bool(rows) else None
    if found is not None:
        raise ModelError(
            f"output {name!r} has {found} for {rows} rows: axis 0 of every output is rows, unless the model says "
            "batch: false"
        )
