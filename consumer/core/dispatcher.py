"""The supervisor's decisions: `step(event, now)` turns what happened into what is to be done.

Composes the parts of the core and owns the order between them. Must not know clocks, processes or Kafka.

Theory of operation. Events change what the parts know; decisions that look at everything at once (what is sent where,
what is paused, whether a commit is due) are made on `Tick`, which the shell sends once per turn, after everything that
happened in it. A chunk's memory is released by the first `Tick` after its last answer, so that the shell has handed
its outcomes on, and told of those that it could not, while the payloads can still be read.

    Fetched -> intake -> scheduling -> Dispatch .. Answered -> settlement -> Produce .. Delivered -> ledger -> Commit
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from consumer.core import actions as do
from consumer.core import events as on
from consumer.core.commits import CommitRhythm
from consumer.core.committing import Committing
from consumer.core.crew import Crew
from consumer.core.expiry import Expiry, split_expired
from consumer.core.intake import Intake
from consumer.core.leases import Lease, Leases
from consumer.core.lifecycle import SUPERVISOR, SupervisorEvent, SupervisorState, advance
from consumer.core.outcomes import Outcomes, Results
from consumer.core.partitions import Partitions
from consumer.core.placement import LOST_LOADING, OVERSPENT, Placement
from consumer.core.policies import DispatcherOptions, ModelPolicy
from consumer.core.recovery import blamed_models, blamed_records, culprits, recover, verdict_on, was_outside
from consumer.core.retry import Condemn, Hold, Retry, after_failure
from consumer.core.scheduling import Assignment, Scheduler
from consumer.core.settlement import settle
from consumer.core.types import Failure, ModelId, Run, TopicPartition
from consumer.core.waiting import Retries, Waiting
from consumer.errors import ExitCode

METADATA_TOO_LARGE = "OFFSET_METADATA_TOO_LARGE"
"""The broker's name of the error."""
MAP_REFUSED = "raise the brokers' offset.metadata.max.bytes to 4096; until then more is done again after a restart"
MAP_NEEDED = "exactly-once needs the brokers' offset.metadata.max.bytes to be 4096 at least"


class Dispatcher:
    """The core as one state machine."""

    def __init__(
        self,
        options: DispatcherOptions,
        models: Mapping[ModelId, ModelPolicy],
        slots: int,
        jitter: Callable[[], float],
        now: float,
    ) -> None:
        """Start with no partitions and no workers; the first `Tick` starts these.

        Args:
            options: Every limit.
            models: The configured models.
            slots: How many workers there are to be.
            jitter: Draws a number from 0 (inclusive) to 1 (exclusive).
            now: Monotonic seconds.
        """
        self._options = options
        self._jitter = jitter
        self._intake = Intake(models)
        self._expiry = Expiry({m: policy.expiry for m, policy in models.items()})
        self._partitions = Partitions(options.flow, 0 if options.exactly_once else options.commit.records_max)
        self._scheduler = Scheduler(options.scheduling, {m: policy.share for m, policy in models.items()})
        self._placement = Placement(options.placement, {m: policy.place for m, policy in models.items()})
        self._crew = Crew(options.restart, slots)
        self._leases = Leases()
        self._outcomes = Outcomes(self._partitions, must_fit=options.exactly_once)
        self._retries = Retries()
        on_hold = {m for m, policy in models.items() if policy.is_dead_lettered_on_hold}
        self._waiting = Waiting(on_hold, self._expiry, self._scheduler, self._partitions, self._outcomes)
        self._rhythm = CommitRhythm(options.commit, now, is_transactional=options.exactly_once)
        self._committing = Committing(self._rhythm, self._partitions)
        self._revoking: set[TopicPartition] = set()
        self._answered: list[Lease] = []
        self._actions: list[do.Action] = []
        self._state = SupervisorState.STARTING
        self.room = 0
        """Records that the shell may fetch now."""

    # -- what the shell may ask

    @property
    def is_working(self) -> bool:
        """Tell whether a worker has a chunk, so that an answer is to be expected."""
        return bool(self._leases)

    @property
    def scheduler(self) -> Scheduler:
        """What waits for workers and what is with them, to look at."""
        return self._scheduler

    @property
    def is_draining(self) -> bool:
        """Tell whether nothing new is begun any more."""
        return self._state in {SupervisorState.DRAINING, SupervisorState.STOPPED}

    @property
    def partitions(self) -> Partitions:
        """The assigned partitions, to look at."""
        return self._partitions

    def unavailable(self) -> Mapping[ModelId, Failure]:
        """Name the models that cannot be used now, and why."""
        return self._placement.unavailable()

    def is_quiet(self, partitions: Collection[TopicPartition]) -> bool:
        """Tell whether nothing of these partitions is with a worker, on its way to the broker, or uncommitted."""
        if self._leases.touch(partitions) or self._outcomes.touch(partitions) or self._rhythm.is_committing:
            return False
        return self._partitions.commits().keys().isdisjoint(partitions)

    # -- the step

    def step(self, event: on.Event, now: float) -> list[do.Action]:
        """Take note of an event; return what is to be done, in order."""
        match event:
            case on.Fetched():
                self._fetched(event, now)
            case on.Answered():
                self._settle(event, now)
            case on.Tick():
                self._tick(now)
            case on.Committed():
                self._committed(event, now)
            case on.Delivered() | on.DeliveryFailed() | on.Parked() | on.Unparked():
                self._delivery_news(event)
            case on.TopicParked() | on.TopicResumed():
                self._topic_news(event)
            case on.Assigned() | on.Revoking() | on.Revoked() | on.Drain():
                self._partition_news(event)
            case _:
                self._worker_news(event, now)
        actions, self._actions = self._actions, []
        return actions

    def _delivery_news(self, event: on.Delivered | on.DeliveryFailed | on.Parked | on.Unparked) -> None:
        """Take note of what became of outcomes."""
        match event:
            case on.Delivered(ticket):
                self._rhythm.delivered(self._outcomes.deliver(ticket))
            case on.DeliveryFailed(ticket, index, failure):
                self._actions.extend(self._outcomes.give_up(ticket, index, failure, self._answered))
            case on.Parked(ticket, index):
                self._outcomes.park(ticket, index)
            case on.Unparked(ticket, index):
                self._outcomes.unpark(ticket, index)

    def _committed(self, event: on.Committed, now: float) -> None:
        """Take note of a commit's answer."""
        self._committing.answered(event, now)
        if event.error != METADATA_TOO_LARGE:
            return
        if self._options.exactly_once:
            self._stop(SupervisorEvent.FAILED, ExitCode.BROKER, MAP_NEEDED)
        for partition in self._partitions.leave_maps_out(event.offsets):
            self._note("offset_map.refused", topic=partition.topic, partition=partition.partition, message=MAP_REFUSED)

    def _topic_news(self, event: on.TopicParked | on.TopicResumed) -> None:
        """Take note that an output topic takes nothing, or something again."""
        match event:
            case on.TopicParked(topic, model, failure):
                self._note("topic.parked", topic=topic, model=model, error=failure.error, message=failure.message)
                if model is not None:
                    self._placement.park(model, failure)
            case on.TopicResumed(topic, model):
                self._note("topic.resumed", topic=topic, model=model)
                if model is not None:
                    self._placement.resume(model)

    def _partition_news(self, event: on.Assigned | on.Revoking | on.Revoked | on.Drain) -> None:
        """Take note of partitions that come and go."""
        match event:
            case on.Assigned(positions):
                for partition, reason in self._partitions.assign(positions):
                    self._note(
                        "offset_map.ignored", topic=partition.topic, partition=partition.partition, reason=reason
                    )
            case on.Revoking(partitions):
                self._let_go(partitions)
                self._rhythm.is_urgent = True
                if not self._options.exactly_once:
                    self._rhythm.forget()
            case on.Revoked(partitions):
                self._let_go(partitions)
                self._partitions.revoke(partitions)
                self._outcomes.forget()
                self._revoking.difference_update(partitions)
                self._rhythm.is_urgent = self.is_draining
            case on.Drain():
                self._drain()

    def _worker_news(self, event: on.Event, now: float) -> None:
        """Take note of what happened to a worker or to a model on it."""
        match event:
            case on.WorkerReady(worker):
                slot = self._crew.ready(worker, now)
                if self._state is SupervisorState.STARTING:
                    self._follow(SupervisorEvent.SERVED)
                self._scheduler.add_worker(worker)
                self._note_broken(self._placement.filled(slot, now), OVERSPENT)
                self._actions.extend(self._placement.add_worker(worker, slot, now))
            case on.WorkerExited():
                self._exited(event, now)
            case on.ModelLoaded(worker, model) | on.ModelProbed(worker, model):
                works = self._placement.loaded if isinstance(event, on.ModelLoaded) else self._placement.probed
                if works(worker, model):
                    self._note("model.recovered", model=model)
            case on.ModelFailed(worker, model, failure):
                if self._placement.failed(worker, model, failure, now):
                    self._note("model.broken", model=model, worker=worker, error=failure.error, message=failure.message)
            case _:
                raise AssertionError(f"an event that nobody handles: {type(event).__name__}")

    # -- records come

    def _fetched(self, event: on.Fetched, now: float) -> None:
        for fetched in event.slices:
            if self.is_draining or fetched.partition in self._revoking:
                continue  # not in the ledger, so not passed by a commit: the next owner's
            admitted = self._partitions.admit(fetched)
            if admitted is None:
                continue
            runs, failed = self._intake.split(admitted, now)
            for run, failure in failed:
                self._dead_letter(run, [failure] * len(run))
                self._partitions.drop([run])
            for run in runs:
                self._expiry.limit(run, fetched.epoch_s)
                self._scheduler.enqueue(run)

    # -- answers come

    def _settle(self, event: on.Answered, now: float) -> None:
        lease = self._leases.answer(event.worker, event.chunk, event.first, event.count)
        if lease is None:
            return
        model = lease.chunk.model
        self._scheduler.settle(event.worker, model, event.count, event.infer_s, event.rows_enough)
        settlement = settle(lease, event, self._partitions.is_current)
        if settlement.runs:
            results = Results(model, settlement.runs, settlement.values, settlement.keys, settlement.size)
            self._actions.extend(self._outcomes.results(results, lease.chunk.chunk))
        for run, failures in settlement.failed:
            self._fail(run, failures, now)
        if settlement.stale:
            self._note("records.dropped", model=model, records=settlement.stale, reason="stale generation")
        if lease.is_answered:
            self._scheduler.release(lease.worker, lease.size)
            self._answered.append(lease)

    def _fail(self, run: Run, failures: Sequence[Failure], now: float) -> None:
        """Decide on records that a worker gave no result, with copies of their payloads in `run`."""
        verdicts = [after_failure(failure, run.attempts, self._options.retry, self._jitter()) for failure in failures]
        for i, verdict in enumerate(verdicts):
            if isinstance(verdict, Retry):
                single = run.part(i, i + 1)
                single.attempts = verdict.attempts
                self._partitions.hold(single)
                self._retries.put(single, now + verdict.delay_s)
        if held := [i for i, verdict in enumerate(verdicts) if isinstance(verdict, Hold)]:
            self._again(run.pick(held))
        if condemned := [i for i, verdict in enumerate(verdicts) if isinstance(verdict, Condemn)]:
            letter = run.pick(condemned)
            letter.attempts += 1
            self._dead_letter(letter, [failures[i] for i in condemned])

    def _again(self, run: Run) -> None:
        """Queue copies of records that came back through no fault of theirs."""
        if self._is_wanted(run):
            self._partitions.hold(run)
            self._scheduler.requeue(run)

    def _dead_letter(self, run: Run, failures: Sequence[Failure]) -> None:
        self._actions.extend(self._outcomes.letters(run, failures))

    # -- workers die

    def _exited(self, event: on.WorkerExited, now: float) -> None:
        lost = self._leases.lost(event.worker)
        running = blamed_records(event, lost, self._scheduler.rows_max)
        charged = culprits(event, lost, running)
        ended = self._placement.remove_worker(event.worker, blamed_models(event), now, was_outside=was_outside(event))
        guilty = ended | dict.fromkeys(charged, False)
        is_explained = bool(guilty) or any(lease.is_suspect for lease in lost)
        slot = self._crew.exited(event.worker, now, can_boot=event.boot_failure is None, is_explained=is_explained)
        if event.boot_failure is not None and not self.is_draining:
            self._stop(SupervisorEvent.FAILED, ExitCode.WORKER_BOOT, event.boot_failure)
            return
        self._scheduler.remove_worker(event.worker)
        self._note_broken([model for model in ended if self._placement.is_broken(model)], LOST_LOADING)
        self._note_broken(self._placement.lost(slot, guilty, event.busy_s, now), OVERSPENT)
        for lease in lost:
            self._partitions.drop(lease.chunk.runs)
        if self.is_draining:
            return
        recovery = recover(lost, running, self._is_wanted)
        for run in recovery.innocent:
            self._again(run)
        for runs in recovery.suspects:
            for run in runs:
                self._partitions.hold(run)
            self._scheduler.suspect(runs)
        for run in recovery.condemned:
            self._dead_letter(run, [verdict_on(event)])

    def _note_broken(self, models: Collection[ModelId], failure: Failure) -> None:
        """Tell of the models that workers were lost to: those that were being loaded, and those beyond their budget."""
        for model in models:
            self._note("model.broken", model=model, error=failure.error, message=failure.message)

    def _is_wanted(self, run: Run) -> bool:
        """Tell whether records that come back from a worker are still for this member to infer."""
        return self._partitions.is_current(run) and run.partition not in self._revoking

    # -- partitions go, the program ends

    def _let_go(self, partitions: Collection[TopicPartition]) -> None:
        """Dispatch no more of these partitions: what nobody has begun is the next owner's."""
        self._revoking.update(partitions)
        self._partitions.drop(self._scheduler.drop(partitions))
        self._partitions.drop(self._retries.drop(partitions))

    def _drain(self) -> None:
        self._follow(SupervisorEvent.DRAIN_ASKED)
        self._rhythm.is_urgent = True
        everything = list(self._partitions)
        self._let_go(everything)
        self._actions.append(do.Pause(everything))

    def _stop(self, happened: SupervisorEvent, exit_code: ExitCode, reason: str) -> None:
        if self._state is not SupervisorState.STOPPED:
            self._follow(happened)
            self._actions.append(do.Stop(exit_code, reason))

    def _follow(self, happened: SupervisorEvent) -> None:
        self._state = advance(SUPERVISOR, self._state, happened)

    # -- decisions

    def _tick(self, now: float) -> None:
        for lease in self._answered:
            self._partitions.drop(lease.chunk.runs)
            self._leases.release(lease.chunk.chunk)
            self._actions.append(do.Release(lease.worker, lease.chunk.chunk))
        self._answered.clear()
        self._actions.extend(self._outcomes.release())
        if not self.is_draining:
            self._actions.extend(self._crew.due(now))
            for run in self._retries.due(now):
                self._scheduler.requeue(run)
            self._place(now)
            for assignment in self._scheduler.assign(self._placement.ready, now):
                self._dispatch(assignment, now)
        self._pace(now)
        self._actions.extend(self._committing.due(self._outcomes.undelivered, self._outcomes.size, now))
        if self.is_draining and self.is_quiet(list(self._partitions)) and not self._outcomes.undelivered:
            self._stop(SupervisorEvent.SETTLED, ExitCode.OK, "drained")

    def _place(self, now: float) -> None:
        """Have models loaded and probed, and make room where records of a broken one fill a partition."""
        waiting_s = {model: self._scheduler.waiting_s(model) for model in self._scheduler.waiting_models()}
        self._actions.extend(self._placement.wanted(waiting_s, self._scheduler.load_s, now))
        self._actions.extend(self._waiting.relieve(self._placement.unavailable(), now))
        self._waiting.weigh(model for model in waiting_s if not self._placement.ready(model))

    def _dispatch(self, assignment: Assignment, now: float) -> None:
        """Lend a chunk to a worker, without the records that are not worth it any more."""
        runs: list[Run] = []
        for run in assignment.runs:
            fresh, expired = split_expired(run, now)
            if expired is not None:
                self._scheduler.shrink(assignment.worker, assignment.model, len(expired), expired.size)
                self._actions.extend(self._waiting.expire(expired))
            if fresh is not None:
                runs.append(fresh)
        if not runs:
            self._scheduler.release(assignment.worker, 0)
            return
        lease = self._leases.lend(assignment.worker, assignment.model, runs, is_suspect=assignment.is_suspect)
        self._actions.append(do.Dispatch(assignment.worker, lease.chunk))

    def _pace(self, now: float) -> None:
        """Decide what is fetched."""
        if self.is_draining:
            self.room = 1  # everything is paused, but the client must be polled
            return
        decision = self._partitions.decide(now)
        self.room = decision.room
        if decision.pause:
            self._actions.append(do.Pause(decision.pause))
        if decision.resume:
            self._actions.append(do.Resume(decision.resume))

    def _note(self, name: str, **fields: object) -> None:
        self._actions.append(do.Note(name, fields))
