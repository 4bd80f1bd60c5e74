"""Which model's records go to which worker next.

Owns the admitted records that wait for a worker, and the load of each worker. Must not know where a model is loaded or
broken (placement's), nor what becomes of a chunk (leases').

Theory of operation. Every model has a queue, and the models that wait take turns (`core.turns`) in which they are given
chunks, charged with the device time that these are thought to take, and with the difference once that is measured. A
model whose limits (`core.limits`) let nothing through takes no part, as if no device were there for it.

A worker takes chunks ahead of its device, so that it never waits for the supervisor, but no more once it has a few
batches, of the size that it says is enough, and as much as it infers in `worker_work_ms_max`, whoever's that is: what
lies in a worker's inbox cannot be given to another worker. Only whose turn it is, who has nothing there and little to
send, may send it beyond that: models take turns in the worker, too (`core.batching`), so a record of a model that was
quiet waits for one batch of each model that has some there. While its device is busy anyway, records gather to whole
batches: few large chunks cost far less than many small ones.

Suspects, records that were leased to a worker when it died, are kept apart: they travel one chunk at a time, alone, to
a worker that was emptied for them.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Annotated

from annotated_types import Ge, Gt

from consumer.core.limits import Allowance, ModelLimits
from consumer.core.queues import ModelQueue
from consumer.core.turns import Turns
from consumer.core.types import Amount, ModelId, Run, TopicPartition, WorkerId

CHUNKS_AHEAD = 2
"""Chunks that keep a worker's device busy: with so many there, more of the same model gather to a whole batch first."""
BATCHES_AHEAD = 3
"""Batches that may always lie with a worker: the one that its device runs, and the next, which may be tried at twice
the size."""
BATCH_S_MIN = 0.01
"""Seconds that such a batch takes at least, if it may have so many records: nobody waits long for so little. What takes
no longer may always be sent by whose turn it is."""
BATCH_S_MAX = 0.5
"""Seconds that such a batch takes at most, if a record does not."""
QUICK_S = 0.005
"""A batch that takes no longer is kept whole: what is told of each part of one costs the supervisor a part of that."""
ROUNDING = 1e-6
"""Less than this, in batches or seconds, is nothing: sums of small parts are not exact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingOptions:
    """How much is sent at once, and how far ahead of a worker's device."""

    chunk_records_max: Annotated[int, Ge(1)] = 1024
    """Records of one chunk at most."""
    chunk_bytes_max: Annotated[int, Ge(1)] = 4 * 1024 * 1024
    """Payload bytes of one chunk at most; a single larger record travels alone."""
    worker_chunks_max: Annotated[int, Ge(1)] = 16
    """Chunks that may be with one worker at a time."""
    worker_bytes_max: Annotated[int, Ge(1)] = 16 * 1024 * 1024
    """Payload bytes that may be with one worker at a time; a single larger record travels alone."""
    worker_work_ms_max: Annotated[float, Gt(0)] = 50.0
    """Inference time that may lie ahead of one worker's device; three batches, of up to 500 ms each, always may."""


@dataclass(frozen=True, slots=True)
class ModelShare:
    """What the configuration says of a model's share."""

    weight: float = 1.0
    priority: int = 0
    """Models of a higher one go first, see `core.turns`."""
    rows_max: int = 512
    """Records of one batch at most."""
    limits: ModelLimits = field(default_factory=ModelLimits)


@dataclass(slots=True)
class WorkerLoad:
    """What is with one worker."""

    chunks: int = 0
    size: int = 0
    records: dict[ModelId, int] = field(default_factory=dict)
    is_alone: bool = False
    """A suspect chunk is with it, or it is being emptied for one: nothing else is sent there."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """One decision: these runs, as one chunk, to this worker."""

    worker: WorkerId
    model: ModelId
    runs: Sequence[Run]
    is_suspect: bool = False


class Scheduler:
    """The queues, the workers' loads and what goes between them."""

    def __init__(self, options: SchedulingOptions, shares: Mapping[ModelId, ModelShare]) -> None:
        """Start with one empty queue per configured model and no worker."""
        self._options = options
        self._shares = shares
        self._queues = {model: ModelQueue() for model in shares}
        self._turns = Turns(
            {model: share.weight for model, share in shares.items()},
            {model: share.priority for model, share in shares.items()},
        )
        self._allowances = {
            model: Allowance(share.limits, share.rows_max) for model, share in shares.items() if share.limits.are_set
        }
        self._limited: set[ModelId] = set()
        self._active: dict[ModelId, None] = {}
        """The models whose queues hold something, in the order in which they came to."""
        self._suspects: deque[Sequence[Run]] = deque()
        self._loads: dict[WorkerId, WorkerLoad] = {}
        self._emptied_for_suspects: WorkerId | None = None

    # -- what waits

    def enqueue(self, run: Run) -> None:
        """Queue admitted records."""
        self._active[run.model] = None
        self._queues[run.model].append(run)

    def requeue(self, run: Run) -> None:
        """Queue records that come back, in front of those that have not been tried."""
        self._active[run.model] = None
        self._queues[run.model].prepend(run)

    def suspect(self, runs: Sequence[Run]) -> None:
        """Queue records of one model as one chunk that travels alone."""
        self._suspects.append(runs)

    def drop(self, partitions: Collection[TopicPartition]) -> list[Run]:
        """Give up what waits of partitions that are being taken away."""
        dropped = [run for model in self._queues for run in self.take(model, lambda run: run.partition in partitions)]
        suspects, self._suspects = self._suspects, deque()
        for runs in suspects:
            dropped.extend(run for run in runs if run.partition in partitions)
            if kept := [run for run in runs if run.partition not in partitions]:
                self._suspects.append(kept)
        return dropped

    def rows_max(self, model: ModelId) -> int:
        """Say how many records a batch of a model has at most."""
        return self._shares[model].rows_max

    def waiting_s(self, model: ModelId) -> float:
        """Estimate the device seconds of the records that wait for nothing but a worker."""
        queue, allowance = self._queues[model], self._allowances.get(model)
        records = queue.records if allowance is None else allowance.usable(queue.records, self._with_workers(model))
        return records * queue.record_cost_s

    def waiting_models(self) -> list[ModelId]:
        """Name the models for which records wait, suspects included."""
        names = {runs[0].model for runs in self._suspects}
        names.update(model for model, queue in self._queues.items() if queue.records)
        return [model for model in self._queues if model in names]

    def waiting_records(self) -> dict[ModelId, int]:
        """Count the records of every model that wait, suspects included."""
        counts = {model: queue.records for model, queue in self._queues.items()}
        for runs in self._suspects:
            counts[runs[0].model] += sum(map(len, runs))
        return counts

    def limited_models(self) -> Collection[ModelId]:
        """Name the models whose records wait since their limits let nothing through."""
        return self._limited

    def waiting_amounts(self, model: ModelId) -> Mapping[TopicPartition, Amount]:
        """Say how much of each partition waits for a model, suspects apart."""
        return self._queues[model].amounts

    def waiting_runs(self, model: ModelId) -> Sequence[Run]:
        """Show the runs that wait, oldest first."""
        suspects = [run for runs in self._suspects if runs[0].model == model for run in runs]
        return [*suspects, *self._queues[model].runs] if suspects else self._queues[model].runs

    def take(self, model: ModelId, is_meant: Callable[[Run], bool]) -> list[Run]:
        """Take some of a model's runs, suspects apart, not to be sent anywhere."""
        return self._queues[model].drop(is_meant)

    def take_oldest(self, model: ModelId, partition: TopicPartition) -> Run | None:
        """Take the run of a partition that has waited longest, not to be sent anywhere."""
        for number, runs in enumerate(self._suspects):
            found = next((run for run in runs if run.model == model and run.partition == partition), None)
            if found is not None:
                self._suspects[number] = [run for run in runs if run is not found]
                if len(runs) == 1:
                    del self._suspects[number]
                return found
        return self._queues[model].take_oldest(partition)

    def shrink(self, worker: WorkerId, model: ModelId, records: int, size: int) -> None:
        """Take note that records of an assignment were not sent after all."""
        load = self._loads[worker]
        load.records[model] -= records
        load.size -= size
        if model in self._allowances:
            self._allowances[model].refund(records)

    # -- who works

    def add_worker(self, worker: WorkerId) -> None:
        """Let a worker take chunks."""
        self._loads[worker] = WorkerLoad()

    def remove_worker(self, worker: WorkerId) -> None:
        """Forget a worker and what is with it."""
        self._loads.pop(worker, None)
        if self._emptied_for_suspects == worker:
            self._emptied_for_suspects = None

    def load_s(self, worker: WorkerId) -> float:
        """Estimate the device seconds of what is with a worker."""
        queues = self._queues
        return sum(count * queues[model].record_cost_s for model, count in self._loads[worker].records.items())

    def settle(self, worker: WorkerId, model: ModelId, count: int, infer_s: float, rows_enough: int = 0) -> None:
        """Take note that `count` records of a chunk came back after `infer_s` seconds of inference.

        `rows_enough` is the size beyond which the worker thinks that a batch gains little; 0 where it does not know.
        """
        queue = self._queues[model]
        queue.rows_enough = rows_enough or queue.rows_enough
        if count and infer_s > 0:
            self._turns.correct(model, infer_s - count * queue.record_cost_s)
            queue.learn(count, infer_s)
        load = self._loads.get(worker)
        if load is not None:
            load.records[model] -= count

    def release(self, worker: WorkerId, size: int) -> None:
        """Take note that a chunk of `size` bytes came back whole."""
        load = self._loads.get(worker)
        if load is not None:
            load.chunks -= 1
            load.size -= size
            if load.is_alone and not load.chunks and self._emptied_for_suspects != worker:
                load.is_alone = False

    def is_saturated(self) -> bool:
        """Tell whether every worker has its device busy, so that the shell may wait a little for records to gather."""
        return bool(self._loads) and all(load.chunks >= CHUNKS_AHEAD for load in self._loads.values())

    def busy_s(self) -> float:
        """Estimate for how many seconds every worker is busy with what it has; 0 without workers."""
        return min(map(self.load_s, self._loads), default=0.0)

    # -- the round

    def assign(self, loaded: Callable[[ModelId], Collection[WorkerId]], now: float) -> Iterator[Assignment]:
        """Hand out what waits to the workers that have its model, until queues, devices or limits are used up.

        `loaded` names the workers that can take a model now (ready, model loaded, not broken).
        """
        self._limited.clear()
        claimed: set[WorkerId] = set()
        yield from self._assign_suspects(loaded)
        self._active = {model: None for model in self._active if self._queues[model].records}
        self._turns.begin(self._active)
        is_next = True  # nobody whose turn came earlier was sent, or found no room
        while (model := self._turns.next()) is not None:
            queue = self._queues[model]
            workers = [each for each in loaded(model) if each not in claimed]
            worker = self._choose(model, workers, is_next=is_next)
            if worker is None:
                is_next = is_next and not workers
                continue
            if not (allowed := self._allowed(model, now)):
                continue
            assignment = self._send(worker, model, min(allowed, self._room(worker, model, is_next=is_next)))
            is_next = False
            if assignment is None:
                # Its next record is too large for what is free there: smaller ones of others must not keep that taken.
                claimed.add(worker)
                continue
            self._turns.serve(model, sum(map(len, assignment.runs)) * queue.record_cost_s)
            yield assignment
            if queue.records:
                self._turns.stay(model)

    def _allowed(self, model: ModelId, now: float) -> int:
        """Count the records that a model's limits let through; suspects, which come first, take up their part."""
        queue, allowance = self._queues[model], self._allowances.get(model)
        if allowance is None:
            return queue.records
        has_suspects = any(runs[0].model == model for runs in self._suspects)
        allowed = 0 if has_suspects else allowance.records(queue.records, self._with_workers(model), now)
        if not allowed:
            self._limited.add(model)
        return allowed

    def _with_workers(self, model: ModelId) -> int:
        """Count a model's records that are with workers."""
        return sum(load.records.get(model, 0) for load in self._loads.values())

    def _assign_suspects(self, loaded: Callable[[ModelId], Collection[WorkerId]]) -> Iterator[Assignment]:
        """Empty one worker for the next suspect chunk, and send it there once nothing else is with it."""
        if any(
            load.is_alone and load.chunks
            for worker, load in self._loads.items()
            if worker != self._emptied_for_suspects
        ):
            return  # one hunt at a time: the other workers are for healthy traffic
        runs = next((runs for runs in self._suspects if loaded(runs[0].model) and self._has_place(runs)), None)
        if runs is None:
            self._empty(None)
            return
        model = runs[0].model
        workers = loaded(model)
        if self._emptied_for_suspects not in workers:
            self._empty(min(workers, key=self.load_s))
        worker = self._emptied_for_suspects
        if worker is not None and not self._loads[worker].chunks:
            self._emptied_for_suspects = None
            self._suspects.remove(runs)
            self._lend(worker, runs)
            yield Assignment(worker, model, runs, is_suspect=True)

    def _has_place(self, runs: Sequence[Run]) -> bool:
        """Tell whether a suspect chunk may go beside what workers have of its model. Its rate they have had."""
        records_max = self._shares[runs[0].model].limits.in_flight_records_max
        return records_max is None or self._with_workers(runs[0].model) + sum(map(len, runs)) <= records_max

    def _empty(self, worker: WorkerId | None) -> None:
        """Keep chunks from a worker until a suspect chunk can go there; None: let it have chunks again."""
        before = self._emptied_for_suspects
        if before is not None:
            self._loads[before].is_alone = False
        if worker is not None:
            self._loads[worker].is_alone = True
        self._emptied_for_suspects = worker

    def _choose(self, model: ModelId, workers: Collection[WorkerId], *, is_next: bool) -> WorkerId | None:
        """Take the least loaded of the workers that have room for records of the model."""
        free = [worker for worker in workers if self._room(worker, model, is_next=is_next)]
        return min(free, key=self.load_s, default=None)

    def _room(self, worker: WorkerId, model: ModelId, *, is_next: bool) -> int:
        """Count the records of a model that may be sent to a worker; `is_next` says that it is the model's turn."""
        options, queue, load = self._options, self._queues[model], self._loads.get(worker)
        if load is None or load.is_alone:
            return 0
        if load.chunks >= options.worker_chunks_max or (load.chunks and load.size >= options.worker_bytes_max):
            return 0
        rows = min(self._batch(model), options.chunk_records_max)
        whole = min(rows * queue.size / max(1, queue.records), options.chunk_bytes_max)
        is_crowded = options.worker_bytes_max - load.size < whole and self._is_quick(model)
        is_gathering = queue.records < rows or is_crowded
        if is_gathering and load.chunks >= CHUNKS_AHEAD and load.records.get(model):
            return 0
        ahead_s = batches = 0.0
        for other, count in load.records.items():
            ahead_s += count * self._queues[other].record_cost_s
            batches += count / self._batch(other)
        left_s, left_batches = options.worker_work_ms_max / 1000 - ahead_s, BATCHES_AHEAD - batches
        if left_s < ROUNDING and left_batches < ROUNDING:
            is_little = queue.records * queue.record_cost_s <= BATCH_S_MIN
            return queue.records if is_next and is_little and not load.records.get(model) else 0
        # A whole batch at least, whoever's turn it is: else those whose records cost less would take every bit of room
        # that becomes free, and batches would be cut to its measure.
        batch = self._batch(model)
        by_time = int(left_s / queue.record_cost_s) if queue.is_cost_known else 0
        return max(by_time, ceil(left_batches * batch), batch)

    def _batch(self, model: ModelId) -> int:
        """Count the records of a model's batch: what is enough or little, as far as they do not take too long."""
        queue, rows_max = self._queues[model], self._shares[model].rows_max
        enough = max(queue.rows_enough, int(BATCH_S_MIN / queue.record_cost_s)) if queue.rows_enough else rows_max
        return min(rows_max, enough, max(1, int(BATCH_S_MAX / queue.record_cost_s)))

    def _is_quick(self, model: ModelId) -> bool:
        """Tell whether a model's batches take so little that they are to be kept whole."""
        queue = self._queues[model]
        return queue.is_cost_known and self._batch(model) * queue.record_cost_s <= QUICK_S

    def _send(self, worker: WorkerId, model: ModelId, records_max: int) -> Assignment | None:
        """Take a chunk off a queue for a worker that has room; None where the next record is too large for now."""
        options, load = self._options, self._loads[worker]
        queue = self._queues[model]
        bytes_max = min(options.chunk_bytes_max, options.worker_bytes_max - load.size)
        records_max = min(options.chunk_records_max, records_max, queue.records)
        fitting = min(records_max, int(bytes_max * queue.records / max(1, queue.size)))
        cut = fitting % self._batch(model)
        if cut < fitting and load.chunks + 1 >= CHUNKS_AHEAD and self._is_quick(model):
            records_max = fitting - cut  # part of a batch: it gathers to a whole one while the device is busy
        runs = queue.take(records_max, bytes_max, at_least_one=not load.chunks)
        if not runs:
            return None
        self._lend(worker, runs)
        if model in self._allowances:
            self._allowances[model].spend(sum(map(len, runs)))
        return Assignment(worker, model, runs)

    def _lend(self, worker: WorkerId, runs: Sequence[Run]) -> None:
        """Add a chunk to a worker's load."""
        load = self._loads[worker]
        load.chunks += 1
        for run in runs:
            load.size += run.size
            load.records[run.model] = load.records.get(run.model, 0) + len(run)
