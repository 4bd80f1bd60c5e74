"""A seeded world around the dispatcher: a topic, a sink, workers and a clock, all fake, all able to fail.

Owns what is true: which records exist, what the broker has acknowledged and committed. After every step it checks the
promises against that. A schedule is replayed by its seed.
"""

import random
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter

from consumer.core import actions as do
from consumer.core import events as on
from consumer.core.activity import Overdue, Phase, Stretch
from consumer.core.breaker import BreakerOptions, CrashOptions
from consumer.core.commits import CommitOptions
from consumer.core.dispatcher import Dispatcher
from consumer.core.expiry import ModelExpiry
from consumer.core.flow import FlowOptions
from consumer.core.lifecycle import RestartOptions
from consumer.core.placement import ModelPlace
from consumer.core.policies import DispatcherOptions, ModelPolicy
from consumer.core.retry import RetryOptions
from consumer.core.scheduling import ModelShare, SchedulingOptions
from consumer.core.types import Chunk, Disposition, Failure, Run, Slice, Ticket, TopicPartition, WorkerId

MODELS = ("fast", "slow", "brittle")
DROPPING = "slow"
"""The model whose expired records get no outcome."""
OPTIONS = DispatcherOptions(
    flow=FlowOptions(records_max=200, bytes_max=20_000, span_max=400, fetch_records_max=50),
    scheduling=SchedulingOptions(chunk_records_max=24, worker_chunks_max=4, worker_bytes_max=8_000),
    commit=CommitOptions(interval_ms=50, records_max=60, retry_ms=20),
    restart=RestartOptions(backoff_s=0.05, backoff_s_max=0.5),
    retry=RetryOptions(attempts_max=3, backoff_ms=20, backoff_ms_max=200),
)
BREAKER = BreakerOptions(backoff_s=0.05, backoff_s_max=0.5)
CRASHES = CrashOptions(budget_s=0.3, window_s=1.5)
"""Little, so that models exceed it; only where faults are expected, for their records become dead letters then."""
LOG_RECORDS = 300
FETCH_MAX = 50


@dataclass(slots=True)
class Stored:
    """One record of the topic. `kind` says what a worker makes of it."""

    offset: int
    model: str | None
    value: bytes | None
    kind: str

    @property
    def is_dropped(self) -> bool:
        """Tell whether it gets no outcome: it expired, and its model wants nothing of that."""
        return self.kind == "stale" and self.model == DROPPING


@dataclass(slots=True)
class FakeWorker:
    """A worker process: chunks in its inbox, answers to come."""

    slot: int
    is_booted: bool = False
    loads: deque[str] = field(default_factory=deque)
    probes: deque[str] = field(default_factory=deque)
    inbox: deque[list[object]] = field(default_factory=deque)
    """Chunk, records of it that are answered."""


@dataclass(slots=True)
class HandedOver:
    """An outcome in the sink: which record it is for, and whether the broker will refuse it."""

    ticket: Ticket
    index: int
    partition: TopicPartition
    offset: int
    model: str | None
    """Whose result it is; None for a dead letter."""
    is_refused: bool


class World:
    """Everything outside the core, in one process and one thread."""

    def __init__(self, seed: int, *, has_faults: bool = True, exactly_once: bool = False) -> None:
        self.random = random.Random(seed)
        self.has_faults = has_faults
        self.options = replace(OPTIONS, exactly_once=exactly_once)
        self.now = 0.0
        self.logs = {TopicPartition("in", number): self._log() for number in range(3)}
        self.kinds = {(tp, stored.offset): stored.kind for tp, log in self.logs.items() for stored in log}
        self.committed: dict[TopicPartition, tuple[int, str]] = {}
        self.outcomes: dict[tuple[TopicPartition, int], list[str]] = defaultdict(list)
        self.kept = dict.fromkeys(self.logs, 0)
        """How many of a partition's records were seen to be committed and done; an outcome is never taken back."""
        self.faults = 0
        self.broken: set[str] = set()
        self.closed_topics: set[str] = set()
        """Models whose result topics take nothing; the broker's state, so it outlives the supervisor."""
        self.boot()

    # -- the supervisor's life

    def boot(self) -> None:
        """Start a new supervisor: what was in memory is gone, what the broker has stays."""
        policies = {
            model: ModelPolicy(
                share=ModelShare(rows_max=8),
                place=ModelPlace(breaker=BREAKER, crashes=CRASHES if self.has_faults else CrashOptions()),
                expiry=ModelExpiry(is_dropped=model == DROPPING),
                # Without faults nothing but its own fault costs a record its result: it waits for a broken model.
                is_dead_lettered_on_hold=self.has_faults,
            )
            for model in MODELS
        }
        self.core = Dispatcher(self.options, policies, 2, self.random.random, self.now)
        self.workers: dict[WorkerId, FakeWorker] = {}
        self.sink: deque[HandedOver] = deque()
        """Handed over, and not acknowledged."""
        self.transaction: list[HandedOver] = []
        """Acknowledged inside the open transaction: nobody sees it before the commit."""
        self.parked: list[HandedOver] = []
        """Handed over for a topic that takes nothing now."""
        self.behind_barrier: list[HandedOver] = []
        """Handed over after the barrier of the transaction that is being committed."""
        self.is_sealed = False
        self.is_flushing = False
        self.last_ticket = Ticket(0)
        self.owned: dict[TopicPartition, int] = {}
        self.paused: set[TopicPartition] = set()
        self.pending_commit: dict[TopicPartition, tuple[int, str]] | None = None
        self.is_stopped = False

    def step(self) -> None:
        """Let something happen, then one turn of the loop."""
        self.now += self.random.uniform(0.0005, 0.02)
        if self.has_faults and self.random.random() < 0.04:
            self._fault()
        elif not self.owned:
            self._assign(list(self.logs))
        self._fetch()
        self._work()
        self._deliver()
        if self.pending_commit is not None and self.random.random() < 0.6:
            self._answer_commit()
        self._tell(on.Tick())
        self._check()

    def settle(self, steps_max: int = 6000) -> None:
        """Stop the faults and turn until everything is committed."""
        self.has_faults = False
        self.broken.clear()
        for model in list(self.closed_topics):
            self._toggle_topic(model)
        for _ in range(steps_max):
            missing = [tp for tp in self.logs if tp not in self.owned]
            if missing:
                self._assign(missing)
            self.step()
            if all(self.is_done(tp) for tp in self.logs):
                self.step()
                partitions = self.core.partitions
                assert (partitions.records, partitions.size) == (0, 0), "P6: what is done with still counts"
                return
        raise AssertionError(f"not live: {self.committed}, in flight {self.core.partitions.records}")

    def drain(self) -> None:
        """Ask for a stop and turn until it comes."""
        self._tell(on.Drain())
        for _ in range(2000):
            self.step()
            if self.is_stopped:
                return
        raise AssertionError("the drain does not end")

    def is_done(self, tp: TopicPartition) -> bool:
        """Tell whether all of a partition is committed."""
        return self.committed.get(tp, (0, ""))[0] == self.logs[tp][-1].offset + 1

    # -- what goes wrong

    def _fault(self) -> None:
        self.faults += 1
        fault = self.random.choice(["kill", "revoke", "lose", "crash", "break", "grow", "park"])
        if fault == "kill" and self.workers:
            self._kill_from_outside(self.random.choice(list(self.workers)))
        elif fault == "revoke" and self.owned:
            self._revoke(self.random.sample(list(self.owned), self.random.randint(1, len(self.owned))))
        elif fault == "lose" and self.owned:
            self._lose(self.random.sample(list(self.owned), 1))
        elif fault == "crash" and self.random.random() < 0.3:
            self.boot()
        elif fault == "park" and not self.options.exactly_once:
            self._toggle_topic(self.random.choice(MODELS))
        elif fault == "break":
            self.broken ^= {self.random.choice(MODELS)}
        elif fault == "grow":
            missing = [tp for tp in self.logs if tp not in self.owned]
            if missing:
                self._assign([self.random.choice(missing)])

    def _toggle_topic(self, model: str) -> None:
        """Close a model's result topic, or open it again and deliver what was parked."""
        self.closed_topics ^= {model}
        if model not in self.closed_topics:
            self._tell(on.TopicResumed(f"results.{model}", model))
            ready = [handed for handed in self.parked if handed.model == model]
            self.parked = [handed for handed in self.parked if handed.model != model]
            for handed in ready:
                self.outcomes[handed.partition, handed.offset].append("result")
                self._tell(on.Unparked(handed.ticket, handed.index))

    def _kill(self, worker: WorkerId, running: Sequence[Stretch] | None = None, *, hangs: bool = False) -> None:
        """End a worker; what it ran may stay unknown, and what it was loading is known where that is."""
        fake = self.workers.pop(worker)
        if self.random.random() < 0.3:
            running = None
        loading = None if running is None else list(fake.loads)[:1]
        overdue = Overdue(Phase.INFER, None, 1.0) if hangs and running is not None else None
        busy_s = {model: self.random.uniform(0.0, 0.2) for model in MODELS}
        self._tell(on.WorkerExited(worker, -9, running=running, loading=loading, overdue=overdue, busy_s=busy_s))

    def _kill_from_outside(self, worker: WorkerId) -> None:
        """End a worker while it is idle, or in the middle of a batch."""
        inbox = self.workers[worker].inbox
        running: list[Stretch] = []
        if inbox and self.random.random() < 0.7:
            chunk, done = inbox[0]
            assert isinstance(chunk, Chunk)
            assert isinstance(done, int)
            running.append(Stretch(chunk.chunk, done, 1 if chunk.is_suspect else self.random.randint(1, 8)))
        self._kill(worker, running)

    def _assign(self, partitions: Sequence[TopicPartition]) -> None:
        for tp in partitions:
            self.owned[tp] = self.committed.get(tp, (0, ""))[0]
        self._tell(on.Assigned({tp: on.Position(*self.committed.get(tp, (None, ""))) for tp in partitions}))

    def _revoke(self, partitions: Sequence[TopicPartition]) -> None:
        """Take partitions away, with some time to finish."""
        if not self.options.exactly_once:
            self._forget_commit()
        self._tell(on.Revoking(partitions))
        for _ in range(self.random.randint(0, 40)):
            if self.core.is_quiet(partitions):
                break
            self.now += 0.002
            self._work()
            self._deliver()
            if self.pending_commit is not None:
                self._answer_commit()
            self._tell(on.Tick())
        self._lose(partitions)

    def _abort(self) -> None:
        """Drop what is not ours any more from everything that is not committed; the rest is produced again."""
        for name in ("sink", "behind_barrier"):
            setattr(self, name, type(getattr(self, name))(h for h in getattr(self, name) if h.partition in self.owned))
        self.transaction = [handed for handed in self.transaction if handed.partition in self.owned]
        if self.pending_commit is not None:
            told = {tp: offset for tp, (offset, _) in self.pending_commit.items()}
            self.pending_commit = None
            self._end_transaction(self.transaction)
            self._tell(on.Committed(told, "aborted"))

    def _forget_commit(self) -> None:
        """Lose the answer to a commit: nobody polls for it inside a revocation."""
        self.pending_commit = None

    def _lose(self, partitions: Sequence[TopicPartition]) -> None:
        for tp in partitions:
            del self.owned[tp]
            self.paused.discard(tp)
        self.parked = [handed for handed in self.parked if handed.partition in self.owned]
        if self.options.exactly_once:
            self._abort()
        self._tell(on.Revoked(partitions))

    # -- what goes on

    def _fetch(self) -> None:
        room = min(self.core.room, FETCH_MAX)
        slices = []
        for tp, position in self.owned.items():
            if tp in self.paused or room <= 0:
                continue
            first = bisect_left(self.logs[tp], position, key=attrgetter("offset"))
            found = self.logs[tp][first : first + self.random.randint(0, room)]
            room -= len(found)
            if found:
                slices.append(self._slice(tp, found))
                self.owned[tp] = found[-1].offset + 1
        if slices:
            self._tell(on.Fetched(slices))

    def _work(self) -> None:
        for worker, fake in list(self.workers.items()):
            if not fake.is_booted:
                if self.random.random() < 0.5:
                    fake.is_booted = True
                    self._tell(on.WorkerReady(worker, "cpu"))
                continue
            if fake.loads and self.random.random() < 0.4:
                self._load(worker, fake.loads.popleft())
            if fake.probes and self.random.random() < 0.4:
                model = fake.probes.popleft()
                news = (
                    on.ModelFailed(worker, model, _broken()) if model in self.broken else on.ModelProbed(worker, model)
                )
                self._tell(news)
            if fake.inbox and self.random.random() < 0.7:
                self._answer(worker, fake)

    def _load(self, worker: WorkerId, model: str) -> None:
        if model in self.broken:
            self._tell(on.ModelFailed(worker, model, _broken()))
        else:
            self._tell(on.ModelLoaded(worker, model, "1", 0.1))

    def _answer(self, worker: WorkerId, fake: FakeWorker) -> None:
        """Answer the next records of the oldest chunk, or die of them."""
        entry = fake.inbox[0]
        chunk, done = entry
        assert isinstance(chunk, Chunk)
        assert isinstance(done, int)
        count = 1 if chunk.is_suspect else self.random.randint(1, min(8, len(chunk) - done))
        records = [(run, i) for run in chunk.runs for i in range(len(run))][done : done + count]
        failures: dict[int, Failure] = {}
        for number, (run, i) in enumerate(records, done):
            kind = self.kinds[run.partition, run.offsets[i]]
            assert run.values[i] == f"{run.partition.partition}-{run.offsets[i]}".encode(), "another record's payload"
            if kind == "killer":
                self._kill(worker, [Stretch(chunk.chunk, done, count)], hangs=self.random.random() < 0.3)
                return
            if chunk.model in self.broken:
                failures[number] = _broken()
            elif kind == "poison":
                failures[number] = Failure("inference-failed", "RuntimeError", "no")
            elif kind == "passing" and self.random.random() < 0.5:
                failures[number] = Failure("out-of-memory", "MemoryError", "no", Disposition.TRANSIENT)
        if chunk.model in self.broken:
            self._tell(on.ModelFailed(worker, chunk.model, _broken()))
        entry[1] = done + count
        if done + count == len(chunk):
            fake.inbox.popleft()
        self._tell(
            on.Answered(
                worker=worker,
                chunk=chunk.chunk,
                first=done,
                count=count,
                values=(values := [b"" if done + i in failures else b"result" for i in range(count)]),
                size=sum(map(len, values)),
                keys=[b"key"] * count,
                failures=failures,
                rows=count,
                queue_s=0.0,
                infer_s={"fast": 1e-5, "slow": 5e-3}.get(chunk.model, 1e-3) * count,
            )
        )

    def _deliver(self) -> None:
        """Let the broker acknowledge some of what the sink has; pass a barrier that waits for nothing more."""
        for _ in range(self.random.randint(0, 60)):
            if not self.sink:
                break
            handed = self.sink.popleft()
            if handed.is_refused:
                failure = Failure("too-large", "KafkaError", "too large")
                self._tell(on.DeliveryFailed(handed.ticket, handed.index, failure))
            elif handed.model in self.closed_topics:
                if not any(each.model == handed.model for each in self.parked):
                    self._tell(on.TopicParked(f"results.{handed.model}", handed.model, _broken()))
                self.parked.append(handed)
                self._tell(on.Parked(handed.ticket, handed.index))
            elif self.options.exactly_once:
                self.transaction.append(handed)
            else:
                self._publish(handed)
        if self.is_flushing and not self.sink:
            self.is_flushing = False
            self._tell(on.Delivered(self.last_ticket))

    def _publish(self, handed: HandedOver) -> None:
        """Let every reader see an outcome."""
        self.outcomes[handed.partition, handed.offset].append("dead letter" if handed.model is None else "result")

    def _answer_commit(self) -> None:
        offsets = self.pending_commit
        assert offsets is not None
        self.pending_commit = None
        told = {tp: offset for tp, (offset, _) in offsets.items()}
        is_refused = self.has_faults and self.random.random() < 0.1
        if not is_refused:
            for tp, commit in offsets.items():
                if tp in self.owned:  # else its generation is over, and the broker refuses it
                    self.committed[tp] = commit
            for handed in self.transaction:
                self._publish(handed)
        if self.options.exactly_once:
            self._end_transaction(retained=self.transaction if is_refused else [])
        self._tell(on.Committed(told, "REBALANCE_IN_PROGRESS" if is_refused else None))

    def _end_transaction(self, retained: Sequence[HandedOver]) -> None:
        """Begin the next one, with what an abort left over for partitions that are still ours."""
        self.transaction = [handed for handed in retained if handed.partition in self.owned]
        self.sink.extend(self.behind_barrier)
        if self.behind_barrier:
            self.last_ticket = self.behind_barrier[-1].ticket
        self.behind_barrier, self.is_sealed = [], False

    # -- the core's wishes

    def _tell(self, event: on.Event) -> None:
        for action in self.core.step(event, self.now):
            self._perform(action)

    def _perform(self, action: do.Action) -> None:
        match action:
            case do.Spawn() | do.Load() | do.Probe() | do.Dispatch():
                self._perform_on_workers(action)
            case do.Produce(ticket, model, runs, values, keys):
                assert len(values) == len(keys) == sum(map(len, runs)), "columns of unequal length"
                self._hand_over(ticket, model, runs)
            case do.DeadLetter(ticket, run, failures):
                assert len(failures) == len(run) == len(run.values), "columns of unequal length"
                self._hand_over(ticket, None, [run])
            case do.Flush():
                self.is_flushing = True
                self.is_sealed = self.options.exactly_once
            case do.Commit(offsets):
                assert self.pending_commit is None, "two commits on their way"
                self.pending_commit = dict(offsets)
            case do.Pause(partitions):
                self.paused.update(partitions)
            case do.Resume(partitions):
                self.paused.difference_update(partitions)
            case do.Stop():
                self.is_stopped = True
            case _:
                pass

    def _perform_on_workers(self, action: do.Spawn | do.Load | do.Probe | do.Dispatch) -> None:
        match action:
            case do.Spawn(slot, worker):
                self.workers[worker] = FakeWorker(slot)
            case do.Load(worker, model) if worker in self.workers:
                self.workers[worker].loads.append(model)
            case do.Probe(worker, model) if worker in self.workers:
                self.workers[worker].probes.append(model)
            case do.Dispatch(worker, chunk) if worker in self.workers:
                self.workers[worker].inbox.append([chunk, 0])
            case _:
                pass

    def _hand_over(self, ticket: Ticket, model: str | None, runs: Sequence[Run]) -> None:
        index = 0
        for run in runs:
            for offset in run.offsets:
                assert run.partition in self.owned, "P2: an outcome for a partition that is not ours"
                is_refused = model is not None and self.kinds[run.partition, offset] == "bulky"
                handed = HandedOver(ticket, index, run.partition, offset, model, is_refused)
                (self.behind_barrier if self.is_sealed else self.sink).append(handed)
                index += 1
        if not self.is_sealed:
            self.last_ticket = ticket

    # -- what must hold

    def _check(self) -> None:
        for tp, (next_offset, metadata) in self.committed.items():
            log = self.logs[tp]
            while self.kept[tp] < len(log) and (stored := log[self.kept[tp]]).offset < next_offset:
                is_done = stored.is_dropped or self.outcomes[tp, stored.offset]
                assert is_done, f"P1: {tp} committed {next_offset}, but not {stored.offset}"
                self.kept[tp] += 1
            assert len(metadata) <= 4096
        # Each partition may use its share even while others hold what was theirs before it was assigned.
        records_max = 1.5 * self.options.flow.records_max + FETCH_MAX
        assert self.core.partitions.records <= records_max, "P6: too many records in flight"
        assert self.core.partitions.records >= 0
        assert self.core.partitions.size >= 0

    def _log(self) -> list[Stored]:
        offset, log = 0, []
        for _ in range(LOG_RECORDS):
            offset += 1 if self.random.random() < 0.95 else self.random.randint(2, 9)
            kind = self.random.choices(
                ["good", "poison", "passing", "bulky", "killer", "nobody", "tombstone", "stale"],
                [90, 3, 3, 1, 0.3, 1, 1, 1],
            )[0]
            model = {"nobody": self.random.choice([None, "unheard"])}.get(kind, self.random.choice(MODELS))
            log.append(Stored(offset, model, None, kind))
        return log

    def _slice(self, tp: TopicPartition, found: Sequence[Stored]) -> Slice:
        return Slice(
            partition=tp,
            offsets=[stored.offset for stored in found],
            models=[stored.model for stored in found],
            keys=[None if stored.model is None else stored.model.encode() for stored in found],
            values=[None if s.kind == "tombstone" else f"{tp.partition}-{s.offset}".encode() for s in found],
            headers=None,
            timestamps_ms=[-1] * len(found),
            deadlines_s=[0.0 if s.kind == "stale" else None for s in found],
        )


def _broken() -> Failure:
    return Failure("model-unavailable", "ModelError", "broken", Disposition.UNAVAILABLE)
