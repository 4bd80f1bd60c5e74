"""A worker's loop: takes work in, runs the batch that is due, answers.

Owns which models are loaded, loading or wanted, and the records that wait for either. Must not know Kafka, or how a
batch is run.

Theory of operation. One thread receives, decodes, encodes and answers; it waits for more records only while there is
nothing to do. Models are called by it, too, or by a thread beside it (`caller`). They are loaded by another one, so
that those that are there go on meanwhile; it hands them over by a queue that the loop looks into between two batches.
Each writes down what it begins, and how long it may take, on the board that the supervisor watches.
"""

import gc
import math
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from queue import Empty, SimpleQueue
from typing import Final, NamedTuple

from consumer.core.activity import Phase, Stretch
from consumer.core.batching import Batchers, BatchOptions
from consumer.core.types import Disposition, Failure, ModelId
from consumer.models.options import ModelOptions
from consumer.transport.controls import Broken, Loaded, LoadModel, Probed, ProbeModel
from consumer.transport.worker_end import Timing, Work, WorkerEnd
from consumer.worker import loaders
from consumer.worker.caller import Caller, Job, Overlapped, Straight
from consumer.worker.failures import failure_of, unavailable
from consumer.worker.runner import Passed, Runner
from consumer.worker.spans import Columns, Sheet, Span
from consumer.worker.waits import CoreWaits
from schemas.reasons import Reason

LOOK_INTERVAL_S: Final = 0.01
"""How often the loop looks whether a model is loaded, while one is being loaded and nothing else is to do."""

WAIT_MAX_S: Final = 1.0
"""How long the loop waits at once: it shows that it is alive as often."""

LOOP_TIMEOUT_S: Final = 30.0
"""How long the loop itself may take for anything, the model's part apart; only a process that is stopped, or a machine
that is out of memory, takes that long."""

MEMORY_INTERVAL_S: Final = 1.0
"""How often the loop looks how large the process has become."""


class OutgrownError(Exception):
    """The process has become too large: another one has to take its place."""


class _Made(NamedTuple):
    """What the loading thread hands over."""

    model: ModelId
    outcome: loaders.LoadedModel | Failure
    load_s: float


class Loop:
    """Serves models on one device."""

    def __init__(
        self,
        end: WorkerEnd,
        models: Mapping[ModelId, ModelOptions],
        device: str,
        content_type: str,
        memory_bytes_max: int | None = None,
        *,
        has_spare_core: bool = False,
    ) -> None:
        """Serve nothing yet; `run` has to be called by the same thread.

        Args:
            end: The way to the supervisor.
            models: The options of every model that may be asked for.
            device: Where models are loaded, in torch's words.
            content_type: What records are that do not say it themselves.
            memory_bytes_max: Resident memory of this process after which it leaves; None for any.
            has_spare_core: Whether a second thread may call the models, while this one decodes and encodes.
        """
        self._end = end
        self._lane = end.board.loop
        self._memory_bytes_max = memory_bytes_max
        self._measure_at_s = 0.0
        self._models = models
        self._device = device
        self._content_type = content_type
        self._runners: dict[ModelId, Runner] = {}
        self._batchers: Batchers[Columns] = Batchers()
        self._waiting: dict[ModelId, list[Columns]] = {}
        """Records of models that are being loaded."""
        self._wanted: SimpleQueue[ModelId] = SimpleQueue()
        self._made: SimpleQueue[_Made] = SimpleQueue()
        self._to_probe: deque[ModelId] = deque()
        self._has_spare_core = has_spare_core
        self._caller: Caller = (
            Overlapped(end.board.caller, self, end.listen) if has_spare_core else Straight(self._lane, self)
        )
        self._waits = CoreWaits()
        self._began_s = self._began_waits_s = 0.0
        """When the last batch was begun, and what the thread had waited for a core by then."""
        self._outgrown: OutgrownError | None = None
        """The process is to end when no batch is under way."""
        self._loader = threading.Thread(target=self._load_wanted, name="loader", daemon=True)

    def run(self) -> None:
        """Serve until the supervisor is gone.

        Raises:
            EOFError: It is gone.
            DeviceLostError: Only a new process can use the device again.
            OutgrownError: The process is larger than it may be; every batch that was begun is answered.
        """
        self._lane.begin(Phase.IDLE, LOOP_TIMEOUT_S)
        self._loader.start()
        is_idle = True
        while True:
            self._adopt()
            self._caller.look()
            if self._caller.is_idle and (self._to_probe or self._outgrown is not None):
                self._pause()
            model = self._choose(is_idle=is_idle)
            if model is not None:
                self._run_batch(model)
                is_idle = False
            elif self._caller.is_idle and self._batchers.due_at_s is None:
                is_idle = True
            self._caller.tell()
            self._receive(self._wait_s() if model is None else 0.0)

    def _choose(self, *, is_idle: bool) -> ModelId | None:
        """Choose the model whose batch is begun now; `is_idle` says that the device had nothing to do before."""
        if self._caller.is_idle:
            return self._batchers.next_due(time.monotonic(), is_idle=is_idle)
        if not self._caller.has_room or self._to_probe or self._outgrown is not None:
            return None
        model = self._batchers.next_full()
        return None if model is None or _is_suspect(self._batchers[model].oldest) else model

    def _pause(self) -> None:
        """Do what must not be done during a batch.

        Raises:
            OutgrownError: The process is larger than it may be.
        """
        self._caller.tell()
        while self._to_probe:
            self._probe(self._to_probe.popleft())
        if self._outgrown is not None:
            self._lane.begin(Phase.LEAVE, LOOP_TIMEOUT_S)
            raise self._outgrown

    def _wait_s(self) -> float:
        """Say how long there is nothing to do but to wait for the supervisor, or for a batch to end."""
        due_at_s = self._batchers.due_at_s if self._caller.is_idle else None
        wait_s = WAIT_MAX_S if due_at_s is None else min(max(0.0, due_at_s - time.monotonic()), WAIT_MAX_S)
        return min(wait_s, LOOK_INTERVAL_S) if self._waiting else wait_s

    def _receive(self, timeout_s: float) -> None:
        """Take in everything that is there, waiting for the first of it."""
        self._lane.beat()
        received = self._end.receive(timeout_s)
        while received is not None:
            if isinstance(received, Work):
                self._take(Columns(received))
            elif isinstance(received, LoadModel):
                self._want(received.model)
            else:
                assert isinstance(received, ProbeModel)
                self._to_probe.append(received.model)
            received = self._end.receive(0.0)

    def _take(self, columns: Columns) -> None:
        """Let a chunk's records wait for their batch, or for their model."""
        model = columns.work.model
        if model in self._runners:
            batcher = self._batchers[model]
            # Records that each count for a whole batch are run one by one.
            rows = [batcher.rows_max] * len(columns) if columns.work.is_suspect else None
            batcher.add(columns, columns.length_list, time.monotonic(), rows)
        elif model in self._waiting:
            self._waiting[model].append(columns)
        else:
            self._decline([Span(columns, 0, len(columns))], _not_here(model))

    def _want(self, model: ModelId) -> None:
        """Have a model loaded."""
        assert model in self._models, "the supervisor asks for configured models only"
        assert model not in self._runners, "a model is loaded once"
        if model not in self._waiting:
            self._waiting[model] = []
            self._wanted.put(model)

    def _load_wanted(self) -> None:
        """Load models, one after the other, in a thread of their own."""
        lane = self._end.board.loader
        lane.begin(Phase.IDLE, math.inf)
        while True:
            model = self._wanted.get()
            began_s = time.monotonic()
            lane.begin(Phase.LOAD, self._models[model].load_timeout_s, model)
            outcome: loaders.LoadedModel | Failure
            try:
                outcome = loaders.load(self._models[model], self._device)
                outcome.warm_up()
            except (Exception, SystemExit) as error:  # noqa: BLE001 - loading runs the model's own code
                outcome = unavailable(failure_of(error))
            lane.begin(Phase.IDLE, math.inf)
            self._made.put(_Made(model, outcome, time.monotonic() - began_s))

    def _adopt(self) -> None:
        """Serve the models that have been loaded since."""
        while self._waiting:
            try:
                made = self._made.get_nowait()
            except Empty:
                return
            waiting = self._waiting.pop(made.model)
            if isinstance(made.outcome, Failure):
                self._end.send(Broken(made.model, made.outcome))
                self._decline([Span(columns, 0, len(columns)) for columns in waiting], made.outcome)
                continue
            self._open(made.model, made.outcome)
            # What a model consists of stays: no later collection has to walk it.
            gc.collect()
            gc.freeze()
            self._end.send(Loaded(made.model, made.outcome.version, made.load_s))
            for columns in waiting:
                self._take(columns)

    def _open(self, model: ModelId, loaded: loaders.LoadedModel) -> None:
        """Begin to batch a model's records."""
        options = self._models[model]
        self._runners[model] = Runner(loaded, options, self._content_type, self._caller.beat)
        # A batch is one call, where records have one row: a batch of many calls would keep other models waiting, and
        # its first results would wait for its last. But only among many records are some of like lengths.
        rows_max = loaded.rows_max * options.calls_gathered if loaded.is_batched else 1
        self._batchers.open(
            model, BatchOptions(rows_max=rows_max, bytes_max=options.bytes_max, delay_ms_max=options.delay_ms_max)
        )

    def _probe(self, model: ModelId) -> None:
        """Ask a broken model again."""
        runner = self._runners.get(model)
        self._lane.begin(Phase.PROBE, self._models[model].infer_timeout_s, model)
        failure = _not_here(model) if runner is None else runner.probe()
        self._lane.begin(Phase.IDLE, LOOP_TIMEOUT_S)
        self._end.send(Probed(model) if failure is None else Broken(model, failure))

    def _run_batch(self, model: ModelId) -> None:
        """Begin a model's next batch."""
        self._began_s, self._began_waits_s = time.monotonic(), self._waits.seconds()
        spans = self._batchers.take(model, self._began_s)
        running = [Stretch(span.item.work.chunk, span.first, span.stop - span.first) for span in spans]
        runner, timeout_s = self._runners[model], self._models[model].infer_timeout_s
        is_suspect = _is_suspect(spans[0].item)
        if is_suspect:
            self._caller.tell()
        self._lane.begin(Phase.INFER, timeout_s, model, running)
        batch = runner.decode(spans)
        self._caller.begin(Job(model, runner, batch, running, timeout_s, is_suspect))
        self._lane.begin(Phase.IDLE, LOOP_TIMEOUT_S)

    def passed(self, job: Job, passed: Passed) -> None:
        """Encode the results of a call."""
        if self._has_spare_core:
            self._lane.begin(Phase.INFER, job.timeout_s, job.model, job.running)
        job.runner.encode(passed)
        if self._has_spare_core:
            self._lane.begin(Phase.IDLE, LOOP_TIMEOUT_S)

    def ended(self, job: Job) -> None:
        """Answer a batch."""
        assert job.ended is not None, "the loop ends with what ends a call"
        failure, is_undivided = job.ended
        self._lane.begin(Phase.ANSWER, LOOP_TIMEOUT_S, job.model, job.running)
        if failure is not None:
            # Told first: records that come back must not be sent here again before the supervisor knows why they did.
            self._end.send(Broken(job.model, failure))
        for sheet in job.runner.close(job.batch, job.ended):
            self._answer(sheet)
        self._lane.begin(Phase.IDLE, LOOP_TIMEOUT_S)
        batcher = self._batchers[job.model]
        if is_undivided:
            batcher.observe(sum(stretch.count for stretch in job.running), self._took_s(job))
        while failure is not None and (spans := batcher.take()):
            self._decline(spans, failure)
        self._look_at_memory()

    def _took_s(self, job: Job) -> float:
        """Say how long a batch kept the device, or the thread, from others.

        Less what the thread waited for a core: on a busy machine that says nothing about the size of batches, and is
        many times what a small model takes.
        """
        if job.took_s is not None:
            return job.took_s
        return time.monotonic() - self._began_s - (self._waits.seconds() - self._began_waits_s)

    def _look_at_memory(self) -> None:
        """Leave, where a model that leaks has made the process too large."""
        now_s = time.monotonic()
        if self._memory_bytes_max is None or now_s < self._measure_at_s:
            return
        self._measure_at_s = now_s + MEMORY_INTERVAL_S
        resident = resident_bytes()
        if resident > self._memory_bytes_max:
            self._outgrown = OutgrownError(f"{resident} bytes are resident, {self._memory_bytes_max} are allowed")

    def _answer(self, sheet: Sheet) -> None:
        """Tell the outcomes of a span's records."""
        values, keys, failures = sheet.outcomes()
        work = sheet.columns.work
        timing = Timing(sheet.rows, self._rows_enough(work.model), sheet.queue_s, sheet.infer_s)
        self._end.answer(work.chunk, sheet.span.first, values, keys, failures, timing)

    def _rows_enough(self, model: ModelId) -> int:
        """Say how many rows are enough for a batch; 0 where among more of them more are of like lengths."""
        is_known = model in self._batchers and self._models[model].calls_gathered == 1
        return self._batchers[model].rows_enough if is_known else 0

    def _decline(self, spans: Iterable[Span], failure: Failure) -> None:
        """Give records back, untried: their model is not to be had."""
        now_s = time.monotonic()
        for span in spans:
            sheet = Sheet(span, now_s)
            sheet.fail_open(failure)
            self._answer(sheet)


def resident_bytes() -> int:
    """Measure the resident memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - several times as fast as Path
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _is_suspect(columns: Columns | None) -> bool:
    """Tell whether records are to be run alone."""
    return columns is not None and columns.work.is_suspect


def _not_here(model: ModelId) -> Failure:
    """Say that this worker does not have a model."""
    message = f"model {model!r} is not loaded here"
    return Failure(str(Reason.MODEL_UNAVAILABLE), "ModelError", message, Disposition.UNAVAILABLE)
