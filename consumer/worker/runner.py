"""Runs the batches of one model: decode, collate, infer, split, encode.

Owns the isolation of what fails: a batch that raises is divided until the culprits are alone, one that needs too much
memory until it fits, and a model that fails everything is asked whether it still answers at all. Must not know where
records come from, when a batch is due, who is told, or which thread does what.

Theory of operation. A batch is divided into groups of records that may share a call, and these into calls of at most
`rows_max` rows; where records are padded, those of like lengths share a call. A record that has more rows than that
alone is a call that the model gets in slices, one after the other, and whose outputs are put together again. Every
record ends on its span's sheet, with a result or a failure.

A batch is decoded, then inferred, and each call that passed is encoded; different threads may do the three, each by one
at a time. A probe calls the model, too, so it must not come during a batch.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple, TypeAlias

import torch

from consumer.core.buckets import Limits
from consumer.core.types import Failure
from consumer.models.options import ModelOptions
from consumer.models.signature import Form, Signature
from consumer.worker.buckets import Buckets
from consumer.worker.collate import Call, Collator, Inputs, calls, halves, records_of, rows_of
from consumer.worker.cuda import staged
from consumer.worker.decoding import Decoder, Groups, Portion
from consumer.worker.encoding import Batch, Encoder, Identity
from consumer.worker.failures import DeviceLostError, Streak, failure_of, is_device_lost, is_out_of_memory, one_line
from consumer.worker.failures import unavailable as said_of_the_model
from consumer.worker.loaders import LoadedModel, Value
from consumer.worker.spans import Sheet, Span
from consumer.worker.split import Outputs, Splitter, joined
from schemas.datatypes import BYTES

CALLS_BEFORE_GROWTH = 256
"""Calls that have to pass before rows that once were too many for the memory are tried again."""


class Passed(NamedTuple):
    """A call that the model answered, and what it answered."""

    call: Call
    outputs: Outputs
    batch: Batch


@dataclass(slots=True)
class Decoded:
    """A batch that is ready for its model."""

    sheets: list[Sheet]
    calls: Iterator[Call]
    ahead: Inputs | None = None
    """The tensors of the first call, where they are made already."""


class Ended(NamedTuple):
    """How the calls of a batch ended."""

    failure: Failure | None = None
    """Why the model was found broken, where it was."""
    is_undivided: bool = True
    """Whether every call passed: the search for culprits says nothing about what batches take."""


Report: TypeAlias = Callable[[Passed], None]
"""Takes calls that passed, each before the next one is made."""


class _ModelBrokenError(Exception):
    """The model failed its probe, too."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Runner:
    """Runs one model's batches."""

    def __init__(
        self,
        model: LoadedModel,
        options: ModelOptions,
        content_type: str,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """Take a model that is loaded and warmed up.

        Args:
            model: The model.
            options: Its options.
            content_type: What records are that do not say it themselves.
            beat: Called before each call of the model: a batch may need many, and goes on.
        """
        self._model = model
        self._beat = beat
        self._on_host = torch.device(model.device).type == "cpu"
        self._decoder = Decoder(
            model.takes,
            content_type=content_type,
            is_batched=model.is_batched,
            is_finite=options.finite,
            preprocess=model.preprocess,
        )
        self._collator = Collator(model.takes)
        self._splitter = Splitter(model.takes)
        self._staging = None if self._on_host else staged(model)
        identity = Identity(options.id, model.version, model.sha256)
        self._encoder = Encoder(identity, model.postprocess)
        self._streak = Streak(options.failures_max)
        takes = model.takes
        self._buckets: Buckets | None = None
        if isinstance(takes, Signature) and model.is_batched and takes.padded_axes:
            self._buckets = Buckets(takes)
        self._limits = self._limits_max = Limits(model.rows_max, options.padded_max)
        self._passed = 0
        """Calls since the last one that needed too much memory."""
        self._answered: Inputs | None = None
        """A record that the model answered, kept where nothing else could be asked."""
        self._tried = self._failed = 0
        self._is_asked = False
        """Whether the model has passed its probe during this batch."""
        self._is_undivided = True
        self._ahead: Inputs | None = None
        """The tensors of the next call, where they are made already."""

    def decode(self, spans: Sequence[Span]) -> Decoded:
        """Decode a batch; records that are refused fail on their sheets, of which each span gets one."""
        started_s = time.monotonic()
        sheets = [Sheet(span, started_s) for span in spans]
        groups: Groups = {}
        for sheet in sheets:
            self._decoder.decode(sheet, groups)
        batch = Decoded(sheets, chain.from_iterable(map(self._calls, groups.values())))
        first = next(batch.calls, None) if self._buckets is None else None
        if first is not None:
            batch.calls = chain([first], batch.calls)
            with suppress(Exception):  # what there is too little memory for is divided when it is inferred
                batch.ahead = self._collator.collate(first)
        return batch

    def infer(self, batch: Decoded, report: Report) -> Ended:
        """Have the model called with a batch's records; those at fault fail on their sheets.

        Raises:
            DeviceLostError: The process cannot go on.
        """
        self._tried = self._failed = 0
        self._is_asked = False
        self._is_undivided = True
        self._ahead, batch.ahead = batch.ahead, None
        try:
            for call in batch.calls:
                self._tried += records_of(call)
                self._attempt(call, self._limits.rows, report)
        except _ModelBrokenError as error:
            return Ended(error.failure, self._is_undivided)
        self._streak.settle(self._tried, self._failed)
        return Ended(None, self._is_undivided)

    def encode(self, passed: Passed) -> None:
        """Write the results of a call's records on their sheets."""
        self._encoder.encode(*passed)

    @staticmethod
    def close(batch: Decoded, ended: Ended) -> Sequence[Sheet]:
        """Return the outcomes of a batch of which every call that passed is encoded, those of each span on its sheet.

        Where the model was found broken, records without a result are UNAVAILABLE: they are not at fault.
        """
        if ended.failure is not None:
            for sheet in batch.sheets:
                sheet.fail_open(ended.failure)
        return batch.sheets

    def _calls(self, portions: Sequence[Portion]) -> Iterator[Call]:
        """Divide records that may share a call into calls."""
        if self._buckets is None:
            return calls(portions, self._limits.rows)
        return self._buckets.calls(portions, self._limits)

    def probe(self) -> Failure | None:
        """Ask the model for its warm-up input, else for the last record that it answered; return why it fails.

        Nothing is known against a model that has neither, so it passes.

        Raises:
            DeviceLostError: The process cannot go on.
        """
        inputs: Mapping[str, Value] | None = self._model.probe_inputs or self._answered
        if inputs is None:
            return None
        self._beat()
        try:
            returned = self._model.call({name: _copied(value) for name, value in inputs.items()})
            self._splitter.take(returned, None)
        except Exception as error:  # noqa: BLE001 - a model raises what it likes
            _refuse_lost_device(error)
            return said_of_the_model(failure_of(error))
        return None

    def _attempt(self, call: Call, rows_max: int, report: Report) -> bool:
        """Run a call, and where it fails, its parts; tell of every record what became of it, and whether all passed."""
        try:
            passed = self._infer(call, rows_max)
        except Exception as error:  # noqa: BLE001 - a model raises what it likes
            _refuse_lost_device(error)
            failure = failure_of(error, has_texts=BYTES in call[0].plan.datatypes)
            is_short = is_out_of_memory(error)
        else:
            report(passed)
            return True
        # Out of the handler: the exception, and with it the tensors of the failed call, are gone by now.
        self._is_undivided = False
        if self._streak.is_suspect and not self._is_asked:
            broken = self.probe()
            if broken is not None:
                raise _ModelBrokenError(broken)
            self._is_asked = True
        if is_short:
            return self._attempt_smaller(call, rows_max, report, failure)
        if records_of(call) > 1:
            return self._attempt_halves(call, rows_max, report)
        return self._give_up(call, failure)

    def _attempt_halves(self, call: Call, rows_max: int, report: Report) -> bool:
        """Run both halves of a call's records; tell whether all passed."""
        passed = [self._attempt(half, rows_max, report) for half in halves(call)]
        return all(passed)

    def _attempt_smaller(self, call: Call, rows_max: int, report: Report, failure: Failure) -> bool:
        """Run a call that needed too much memory in parts, and stay with their size where all of them pass."""
        if self._staging is not None:
            self._staging.drop_graphs()
            torch.cuda.empty_cache()
        rows = min(rows_of(call), rows_max)
        fewer = max(1, rows // 2)
        if records_of(call) > 1:
            has_passed = self._attempt_halves(call, rows_max, report)
        elif fewer < rows:
            has_passed = self._attempt(call, fewer, report)
        else:
            return self._give_up(call, failure)
        if has_passed:
            self._passed = 0
            if self._buckets is not None and records_of(call) > 1:
                padded = max(1, self._buckets.padded(call) // 2)
                self._limits = replace(self._limits, padded=min(self._limits.padded, padded))
            else:
                self._limits = replace(self._limits, rows=min(self._limits.rows, fewer))
        return has_passed

    def _give_up(self, call: Call, failure: Failure) -> bool:
        """Write down that a record cannot be inferred."""
        self._failed += 1
        call[0].sheet.fail(call[0].first_index, failure)
        return False

    def _infer(self, call: Call, rows_max: int) -> Passed:
        """Run the model on a call's records, at most `rows_max` rows at once."""
        started_s = time.perf_counter()
        rows = rows_of(call)
        ahead, self._ahead = self._ahead, None
        inputs = self._collator.collate(call) if ahead is None else ahead
        began_s = time.perf_counter()
        if call[0].plan.form is Form.WHOLE:
            outputs = self._splitter.take(self._ask(inputs, None), None)
        elif rows <= rows_max:
            outputs = self._splitter.take(self._ask(inputs, rows), rows)
        else:
            outputs = self._infer_sliced(inputs, rows, rows_max)
        done_s = time.perf_counter()
        infer_s = done_s - began_s
        if self._buckets is not None and rows <= rows_max:
            self._buckets.observe(call, done_s - started_s)
        for portion in call:
            portion.sheet.rows = max(portion.sheet.rows, rows)
            portion.sheet.infer_s += infer_s * portion.records / records_of(call)
        self._remember(call, rows)
        return Passed(call, outputs, Batch(rows, round(1e3 * infer_s, 3)))

    def _infer_sliced(self, inputs: Inputs, rows: int, rows_max: int) -> Outputs:
        """Run the model on more rows than it takes at once."""
        parts: list[Outputs] = []
        for first in range(0, rows, rows_max):
            stop = min(first + rows_max, rows)
            part = {name: _sliced(value, first, stop, rows) for name, value in inputs.items()}
            parts.append(self._splitter.take(self._ask(part, stop - first), stop - first))
        return joined(parts)

    def _ask(self, inputs: Inputs, rows: int | None) -> Mapping[str, Value]:
        """Call the model; where it is on a device, the results are on the host by then."""
        self._beat()
        if self._staging is not None:
            return self._staging.ask(inputs, rows)
        return self._model.call(inputs)

    def _on_device(self, inputs: Inputs) -> Mapping[str, Value]:
        """Copy tensors to the device."""
        if self._on_host:
            return inputs
        return {
            name: value if isinstance(value, list) else value.to(self._model.device) for name, value in inputs.items()
        }

    def _remember(self, call: Call, rows: int) -> None:
        """Take note of a call that passed."""
        self._passed += 1
        if self._limits != self._limits_max and self._passed >= CALLS_BEFORE_GROWTH:
            now, most = self._limits, self._limits_max
            self._limits, self._passed = Limits(min(2 * now.rows, most.rows), min(2 * now.padded, most.padded)), 0
        if self._model.probe_inputs is None and rows > 0:
            first = call[0].part(0, 1)
            if first.rows <= self._limits.rows:
                self._answered = dict(self._on_device(self._collator.collate([first])))


def _refuse_lost_device(error: Exception) -> None:
    """Give up where only a new process can go on."""
    if is_device_lost(error):
        raise DeviceLostError(one_line(str(error))) from error


def _sliced(value: Value, first: int, stop: int, rows: int) -> Value:
    """Cut rows out of an input; a BYTES input has the same number of elements in each."""
    if isinstance(value, torch.Tensor):
        return value[first:stop]
    width = len(value) // rows
    return value[first * width : stop * width]


def _copied(value: Value) -> Value:
    """Copy an input, so that a model that writes to it does not spoil it."""
    return value.clone() if isinstance(value, torch.Tensor) else list(value)
