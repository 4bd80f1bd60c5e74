"""What a model answers before it gets records: to one row alone, beside others, and twice.

Owns the comparison of the answers. It finds models that were left in train mode, that mix rows, or whose outputs no
result can carry. Must not know formats, files or records.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch

from consumer.errors import ModelError
from consumer.models.options import ModelOptions
from consumer.models.signature import Arguments, Signature
from consumer.worker.dtypes import DATATYPES
from consumer.worker.loaders import questions
from consumer.worker.loaders.code import one_line
from consumer.worker.loaders.outputs import Value
from consumer.worker.loaders.questions import Question, Row
from schemas.datatypes import BYTES

Call: TypeAlias = Callable[[Mapping[str, Value]], dict[str, Value]]

_TOLERANCES = {torch.float16: 2e-2, torch.bfloat16: 5e-2, torch.float32: 1e-3, torch.float64: 1e-6}
"""By dtype, relative to an output's largest element: batches of other sizes take other kernels, which round apart."""
_SCALE_MIN = 1e-2


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """Asks one model.

    Args:
        call: The model, named tensors in and out.
        takes: What it takes.
        options: What the configuration promises of it.
        device: Where it is.
        rows_max: Most rows that it takes at once.
    """

    call: Call
    takes: Signature | Arguments
    options: ModelOptions
    device: str
    rows_max: int

    def run(self, question: Question) -> dict[str, Value]:
        """Ask, compare, and return the row that was answered alone.

        Raises:
            ModelError: the model raised, or its answers are not what its options promise.
        """
        first = question.rows[:1]
        inputs = self._batch(first)
        alone = self._ask(inputs, "one row" if self.options.batch else "one record")
        self._check_outputs(alone, first[0])
        if self.options.batch and self.rows_max > 1:
            self._ask_beside(question, alone)
        elif self.options.reproducible:
            self._check_twice(alone, self._ask(inputs, "the same again"))
        return inputs

    def _ask_beside(self, question: Question, alone: dict[str, Value]) -> None:
        """Ask the first row beside others, and all of them twice."""
        rows = question.rows[: self.rows_max]
        beside = None
        if question.is_invented:
            try:
                beside = self.call(self._batch(rows))
            except Exception:  # noqa: BLE001  # a made-up row may be anything to a sound model: ask without it
                rows = (rows[0], rows[0])
        if beside is None:
            beside = self._ask(self._batch(rows), f"{len(rows)} rows")
        if not self.options.reproducible:
            return
        self._check_twice(beside, self._ask(self._batch(rows), "the same again"))
        cut = {name: self._cut(name, value[: len(value) // len(rows)], rows[0]) for name, value in beside.items()}
        for name, value in self._different(alone, cut):
            raise ModelError(
                f"warm-up: output {name!r} of a row changes {value} when other rows are beside it. Either the model "
                "was left in train mode (batch norm): call eval() before it is exported; or its rows depend on one "
                "another (or on padding): say batch: false"
            )

    def _check_twice(self, first: dict[str, Value], again: dict[str, Value]) -> None:
        """See that the same question got the same answer."""
        for name, value in self._different(first, again):
            raise ModelError(
                f"warm-up: output {name!r} changes {value} when the same is asked twice. Either the model was left in "
                "train mode (dropout): call eval() before it is exported; or it is random or keeps state: say "
                "reproducible: false"
            )

    def _check_outputs(self, outputs: dict[str, Value], row: Row) -> None:
        """See that outputs have the datatypes and shapes that the configuration declares."""
        for spec in self.options.outputs or ():
            value = outputs[spec.name]
            if not isinstance(value, torch.Tensor):
                if spec.datatype != BYTES:
                    raise ModelError(f"outputs: {spec.name!r} is declared as {spec.datatype}, the model returns BYTES")
                continue
            shape = tuple(value.shape[1:] if self.options.batch else value.shape)
            wanted = tuple(row.lengths.get(size, -1) if isinstance(size, str) else size for size in spec.shape)
            fits = len(wanted) == len(shape) and all(w in {-1, n} for w, n in zip(wanted, shape, strict=True))
            if DATATYPES[value.dtype] != spec.datatype or not fits:
                raise ModelError(
                    f"outputs: {spec.name!r} is declared as {spec.datatype} [{', '.join(map(str, spec.shape))}], "
                    f"one example of the model's is {DATATYPES[value.dtype]} {list(shape)}"
                )

    def _batch(self, rows: tuple[Row, ...]) -> dict[str, Value]:
        return questions.batch(rows, self.takes, is_batched=self.options.batch, device=self.device)

    def _ask(self, inputs: Mapping[str, Value], what: str) -> dict[str, Value]:
        """Call the model; what it raises is its refusal."""
        try:
            return self.call(inputs)
        except ModelError as error:
            raise ModelError(f"warm-up: {error}") from error
        except Exception as error:
            raise ModelError(f"warm-up: asked for {what} the model raised {one_line(error)}") from error

    def _cut(self, name: str, value: Value, row: Row) -> Value:
        """Cut an output of one row to the row's own lengths."""
        cuts = self.takes.cuts.get(name, ()) if isinstance(self.takes, Signature) else ()
        for axis, length in cuts:
            assert isinstance(value, torch.Tensor)
            value = value.narrow(1 + axis, 0, row.lengths[length])
        return value

    def _different(self, first: dict[str, Value], other: dict[str, Value]) -> Iterator[tuple[str, str]]:
        """Name the outputs that differ beyond tolerance, and say how much."""
        for name, value in other.items():
            before = first[name]
            if not isinstance(value, torch.Tensor) or not isinstance(before, torch.Tensor):
                if value != before:
                    yield name, "its bytes"
            elif value.shape != before.shape:
                yield name, f"its shape from {list(before.shape)} to {list(value.shape)}"
            elif (gap := _gap(before, value)) is not None:
                yield name, f"by up to {gap:.3g}"


def _gap(first: torch.Tensor, other: torch.Tensor) -> float | None:
    """Measure by how much two tensors differ; None where it is within tolerance."""
    tolerance = _TOLERANCES.get(first.dtype)
    if tolerance is None:
        return None if torch.equal(first, other) else float((first.double() - other.double()).abs().max())
    a, b = first.double(), other.double()
    scale = float(a.nan_to_num(0, 0, 0).abs().max()) if a.numel() else 0.0
    if torch.allclose(a, b, rtol=0.0, atol=tolerance * max(scale, _SCALE_MIN), equal_nan=True):
        return None
    return float((a - b).nan_to_num(torch.inf).abs().max())
