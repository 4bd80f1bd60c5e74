"""Which model's records go to which worker next.

Owns the queues of admitted records that wait for a worker, one per model, and the load of each worker. Must not know
where a model is loaded or broken (placement's), nor what becomes of a chunk (leases').

Theory of operation. Every model has a queue; a deficit round robin over the models that wait hands out device time:
in each round a model is given a quantum times its weight, in seconds of measured inference, and spends it on chunks.
So a model with slow records gets fewer of them through than one with fast records, and a flood for one model delays
another by no more than lies ahead of a device (M. Shreedhar, G. Varghese, "Efficient Fair Queuing Using Deficit Round
Robin", 1995).

A worker takes chunks ahead of its device, so that it never waits for the supervisor, but only as much as it infers in
`worker_work_ms_max`: what lies in a worker's inbox can neither be reordered nor given to another worker. While its
device is busy anyway, records gather to whole batches: few large chunks cost far less than many small ones.

Suspects, records that were leased to a worker when it died, are kept apart: they travel one chunk at a time, alone, to
a worker that was emptied for them.
"""

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Gt

from consumer.core.types import ModelId, Run, TopicPartition, WorkerId

COST_UNKNOWN_S = 1e-4
"""What a record is taken to cost until its model has answered once."""
CHUNKS_AHEAD = 2
"""Chunks that keep a worker's device busy: with so many there, more of the same model gather to a whole batch first."""
BATCH_S_MAX = 0.5
"""Seconds that each of the two batches that may always be with a worker takes at most, if a record does not."""
COST_SMOOTHING = 0.2
"""Weight of the newest batch in a model's cost per record."""


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
    """Inference time that may lie ahead of one worker's device; two batches of a model, of up to 500 ms each, always
    may."""
    quantum_ms: Annotated[float, Gt(0)] = 10.0
    """Device time that a model of weight 1 is given in one round."""


@dataclass(frozen=True, slots=True)
class ModelShare:
    """What the configuration says of a model's share."""

    weight: float = 1.0
    rows_max: int = 512
    """Records of one batch at most: twice as many may be with a worker, unless they take too long."""


@dataclass(slots=True)
class ModelQueue:
    """Records of one model that wait for a worker, oldest first."""

    share: ModelShare
    runs: deque[Run] = field(default_factory=deque)
    records: int = 0
    deficit_s: float = 0.0
    record_cost_s: float = COST_UNKNOWN_S

    def append(self, run: Run) -> None:
        """Queue a run behind all others."""
        self.runs.append(run)
        self.records += len(run)

    def prepend(self, run: Run) -> None:
        """Queue a run in front of all others."""
        self.runs.appendleft(run)
        self.records += len(run)

    def take(self, records_max: int, bytes_max: int, *, at_least_one: bool) -> list[Run]:
        """Take runs from the front, cutting the last one to fit; one record even if it is too large, when asked."""
        taken: list[Run] = []
        while self.runs and records_max > 0:
            run = self.runs[0]
            if len(run) <= records_max and run.size <= bytes_max:
                taken.append(self.runs.popleft())
                records_max -= len(run)
                bytes_max -= run.size
                continue
            fitting = _fitting(run, records_max, bytes_max, at_least_one=at_least_one and not taken)
            if fitting:
                head = run.part(0, fitting)
                if fitting == len(run):
                    self.runs.popleft()
                else:
                    self.runs[0] = run.part(fitting, len(run))
                taken.append(head)
            break
        self.records -= sum(map(len, taken))
        return taken

    def drop(self, is_meant: Callable[[Run], bool]) -> list[Run]:
        """Give up some of the runs."""
        dropped = [run for run in self.runs if is_meant(run)]
        if dropped:
            self.runs = deque(run for run in self.runs if not is_meant(run))
            self.records -= sum(map(len, dropped))
        return dropped


def _fitting(run: Run, records_max: int, bytes_max: int, *, at_least_one: bool) -> int:
    """Count the records at the front of a run that fit."""
    fitting = 0
    for value in run.values[: min(records_max, len(run))]:
        bytes_max -= len(value) if value is not None else 0
        if bytes_max < 0:
            break
        fitting += 1
    return max(fitting, 1) if at_least_one else fitting


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
    """The queues, the workers' loads and the round between them."""

    def __init__(self, options: SchedulingOptions, shares: Mapping[ModelId, ModelShare]) -> None:
        """Start with one empty queue per configured model and no worker."""
        self._options = options
        self._queues = {model: ModelQueue(share) for model, share in shares.items()}
        self._round: deque[ModelId] = deque()
        self._suspects: deque[Sequence[Run]] = deque()
        self._loads: dict[WorkerId, WorkerLoad] = {}
        self._emptied_for_suspects: WorkerId | None = None

    # -- what waits

    def enqueue(self, run: Run) -> None:
        """Queue admitted records."""
        self._activate(run.model)
        self._queues[run.model].append(run)

    def requeue(self, run: Run) -> None:
        """Queue records that come back, in front of those that have not been tried."""
        self._activate(run.model)
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
        return self._queues[model].share.rows_max

    def waiting_s(self, model: ModelId) -> float:
        """Estimate the device seconds of the records that wait."""
        queue = self._queues[model]
        return queue.records * queue.record_cost_s

    def waiting_models(self) -> list[ModelId]:
        """Name the models for which records wait, suspects included."""
        names = {runs[0].model for runs in self._suspects}
        names.update(model for model, queue in self._queues.items() if queue.runs)
        return [model for model in self._queues if model in names]

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
        queue = self._queues[model]
        for i, run in enumerate(queue.runs):
            if run.partition == partition:
                del queue.runs[i]
                queue.records -= len(run)
                return run
        return None

    def shrink(self, worker: WorkerId, model: ModelId, records: int, size: int) -> None:
        """Take note that records of an assignment were not sent after all."""
        load = self._loads[worker]
        load.records[model] -= records
        load.size -= size

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

    def settle(self, worker: WorkerId, model: ModelId, count: int, infer_s: float) -> None:
        """Take note that `count` records of a chunk came back after `infer_s` seconds of inference."""
        if count and infer_s > 0:
            queue = self._queues[model]
            known = queue.record_cost_s if queue.record_cost_s != COST_UNKNOWN_S else infer_s / count
            queue.record_cost_s = (1 - COST_SMOOTHING) * known + COST_SMOOTHING * infer_s / count
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
        """Tell whether every worker has its device busy, so that what comes now may as well come a little later."""
        return bool(self._loads) and all(load.chunks >= CHUNKS_AHEAD for load in self._loads.values())

    # -- the round

    def assign(self, loaded: Callable[[ModelId], Collection[WorkerId]]) -> Iterator[Assignment]:
        """Hand out what waits to the workers that have its model, until queues, devices or deficits are used up.

        `loaded` names the workers that can take a model now (ready, model loaded, not broken).
        """
        yield from self._assign_suspects(loaded)
        blocked = 0
        while self._round and blocked < len(self._round):
            model = self._round[0]
            queue = self._queues[model]
            if not queue.runs:
                self._round.popleft()
                queue.deficit_s = 0.0
                continue
            before_s = queue.deficit_s
            queue.deficit_s += self._options.quantum_ms / 1000 * queue.share.weight
            had_device = yield from self._spend(model, queue, loaded)
            if had_device:
                blocked = 0
            else:
                # Not served for want of a device: what it may spend must not grow meanwhile.
                queue.deficit_s = min(before_s, queue.deficit_s)
                blocked += 1
            self._round.rotate(-1)

    def _spend(
        self, model: ModelId, queue: ModelQueue, loaded: Callable[[ModelId], Collection[WorkerId]]
    ) -> Generator[Assignment, None, bool]:
        """Send chunks of one model while it can pay for them; tell whether a device could have taken any."""
        had_device = False
        while queue.runs:
            worker = self._choose(model, loaded(model))
            if worker is None:
                return had_device
            if queue.deficit_s <= 0 and len(self._round) > 1:
                return True
            assignment = self._send(worker, model, self._affordable(queue))
            if assignment is None:
                return had_device
            had_device = True
            queue.deficit_s -= sum(map(len, assignment.runs)) * queue.record_cost_s
            yield assignment
        return True

    def _affordable(self, queue: ModelQueue) -> int:
        """Count the records that a model with something left to spend may send at once.

        It may overdraw by what lies ahead of a device at most, and pays that back in later rounds: a quantum that cut
        every chunk to its measure would have many small ones sent.
        """
        at_once_s = max(queue.deficit_s, self._options.worker_work_ms_max / 1000)
        return max(1, int(at_once_s / queue.record_cost_s))

    def _assign_suspects(self, loaded: Callable[[ModelId], Collection[WorkerId]]) -> Iterator[Assignment]:
        """Empty one worker for the next suspect chunk, and send it there once nothing else is with it."""
        if any(
            load.is_alone and load.chunks
            for worker, load in self._loads.items()
            if worker != self._emptied_for_suspects
        ):
            return  # one hunt at a time: the other workers are for healthy traffic
        runs = next((runs for runs in self._suspects if loaded(runs[0].model)), None)
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

    def _empty(self, worker: WorkerId | None) -> None:
        """Keep chunks from a worker until a suspect chunk can go there; None: let it have chunks again."""
        before = self._emptied_for_suspects
        if before is not None:
            self._loads[before].is_alone = False
        if worker is not None:
            self._loads[worker].is_alone = True
        self._emptied_for_suspects = worker

    def _choose(self, model: ModelId, workers: Collection[WorkerId]) -> WorkerId | None:
        """Take the least loaded of the workers that have room for records of the model."""
        loads = ((worker, self._loads.get(worker)) for worker in workers)
        free = [worker for worker, load in loads if load and not load.is_alone and self._room(load, model)]
        return min(free, key=self.load_s, default=None)

    def _room(self, load: WorkerLoad, model: ModelId) -> int:
        """Count the records of a model that may be sent to a worker with this load."""
        options, queue = self._options, self._queues[model]
        if load.chunks >= options.worker_chunks_max or (load.chunks and load.size >= options.worker_bytes_max):
            return 0
        is_gathering = queue.records < min(queue.share.rows_max, options.chunk_records_max)
        if is_gathering and load.chunks >= CHUNKS_AHEAD and load.records.get(model):
            return 0
        ahead_s = sum(count * self._queues[other].record_cost_s for other, count in load.records.items())
        by_time = int((options.worker_work_ms_max / 1000 - ahead_s) / queue.record_cost_s)
        batch = min(queue.share.rows_max, max(1, int(BATCH_S_MAX / queue.record_cost_s)))
        by_batch = 2 * batch - load.records.get(model, 0)
        return max(by_time, by_batch, 0)

    def _send(self, worker: WorkerId, model: ModelId, affordable: int) -> Assignment | None:
        """Take a chunk off a queue for a worker that has room; None where the next record is too large for now."""
        options, load = self._options, self._loads[worker]
        records_max = min(options.chunk_records_max, affordable, self._room(load, model))
        bytes_max = min(options.chunk_bytes_max, options.worker_bytes_max - load.size)
        runs = self._queues[model].take(records_max, bytes_max, at_least_one=not load.chunks)
        if not runs:
            return None
        self._lend(worker, runs)
        return Assignment(worker, model, runs)

    def _lend(self, worker: WorkerId, runs: Sequence[Run]) -> None:
        """Add a chunk to a worker's load."""
        load = self._loads[worker]
        load.chunks += 1
        for run in runs:
            load.size += run.size
            load.records[run.model] = load.records.get(run.model, 0) + len(run)

    def _activate(self, model: ModelId) -> None:
        """Let a model take part in the rounds from now on."""
        if not self._queues[model].runs and model not in self._round:
            self._round.append(model)
