"""Which worker has which model, and whether the model can be used.

Owns the state of every model on every worker, one breaker per model, and what each may cost the others. Must not know
about records or queues: it is told how much waits for a model, never what.

Theory of operation. A model is loaded where it is needed: first on the least loaded worker that may serve it, then on
further ones while more waits than the workers that have it get done in `spread_work_ms_min`. A model that fails to
load anywhere, or that fails its own probe input, is broken: its breaker opens, nothing is sent to it, and with backoff
it is tried again, by the probe where it is loaded, else by loading it. A worker that is killed while it loads a model
may have been killed from outside, so that is held against the model only if the next one ends there, too.

A worker that a model ended is *lost* to that model until another one fills its slot, and models have a budget for that:
beyond it the breaker opens, though the model may well answer a probe. Where only a further copy of a model ends its
worker, the model stays in service where it works, and further copies wait.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge

from consumer.core.actions import Load, Probe
from consumer.core.breaker import Breaker, BreakerOptions, BreakerState, CrashOptions, Losses, Pause
from consumer.core.lifecycle import MODEL, ModelEvent, ModelState, advance
from consumer.core.types import Failure, ModelId, WorkerId

LOADING_KILLS_MAX = 2
"""Workers killed in a row while they load a model, by whom is not known: they break it."""
LOST_LOADING = Failure("model-unavailable", "WorkerCrashedError", "its worker died while it was loaded or probed")
OVERSPENT = Failure("model-unavailable", "WorkerCrashedError", "workers were lost to it for longer than its budget")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementOptions:
    """When a model is loaded on one more worker."""

    spread_work_ms_min: Annotated[float, Ge(0)] = 100.0
    """Inference time that must wait for a model before one more worker loads it."""


@dataclass(frozen=True, slots=True)
class ModelPlace:
    """What the configuration says of where a model lives."""

    slots: frozenset[int] | None = None
    """Worker slots that may serve it; None means any."""
    is_preloaded: bool = False
    breaker: BreakerOptions = field(default_factory=BreakerOptions)
    crashes: CrashOptions = field(default_factory=CrashOptions)


@dataclass(slots=True)
class ModelWhereabouts:
    """One model on all workers."""

    place: ModelPlace
    breaker: Breaker
    copies: Pause
    """Before one more worker loads it while another has it."""
    losses: Losses
    kills: int = 0
    """Workers killed in a row while they loaded it, where it was nowhere in service."""
    states: dict[WorkerId, ModelState] = field(default_factory=dict)
    """Its state where it is not absent."""
    unfit: set[WorkerId] = field(default_factory=set)
    """Workers that failed to load it while another had it: not asked again as long as that one lives."""
    prober: WorkerId | None = None
    """The worker that was asked to try a broken model again."""
    failure: Failure | None = None
    """Why the breaker is open."""
    is_grounded: bool = False
    """Its breaker is open since workers died of its batches: that it can be loaded somewhere proves nothing."""
    parked: Failure | None = None
    """Why its output topic takes nothing."""

    @property
    def is_loading(self) -> bool:
        """Tell whether any worker is loading it."""
        return ModelState.LOADING in self.states.values()

    @property
    def is_ready(self) -> bool:
        """Tell whether any worker has it ready."""
        return ModelState.READY in self.states.values()

    def follow(self, worker: WorkerId, happened: ModelEvent) -> None:
        """Move on in the model's life on one worker."""
        state = advance(MODEL, self.states.get(worker, ModelState.ABSENT), happened)
        if state is ModelState.ABSENT:
            self.states.pop(worker, None)
        else:
            self.states[worker] = state


class Placement:
    """Models on workers."""

    def __init__(self, options: PlacementOptions, places: Mapping[ModelId, ModelPlace]) -> None:
        """Start with no worker and every breaker closed."""
        self._options = options
        self._models = {
            model: ModelWhereabouts(place, Breaker(place.breaker), Pause(place.breaker), Losses(place.crashes))
            for model, place in places.items()
        }
        self._slots: dict[WorkerId, int] = {}
        self._outages: dict[int, tuple[float, Mapping[ModelId, bool]]] = {}
        """Slots whose worker was ended: when, and by which models; True where that was a further copy."""

    def add_worker(self, worker: WorkerId, slot: int, now: float) -> Iterator[Load]:
        """Let a worker serve models, and have it load those that are to be there from the start."""
        self._slots[worker] = slot
        for model, state in self._models.items():
            is_held = state.breaker.is_open or now < state.copies.over_at_s
            if state.place.is_preloaded and self._may_serve(worker, state) and not is_held:
                state.follow(worker, ModelEvent.REQUESTED)
                yield Load(worker, model)

    def remove_worker(
        self, worker: WorkerId, blamed: Collection[ModelId] | None, now: float, *, was_outside: bool = False
    ) -> dict[ModelId, bool]:
        """Forget a worker that is gone; name the models whose loading or probing ended it.

        Args:
            worker: Which.
            blamed: The models whose loading may have ended it; None: all of those that it was asked to load.
            now: Monotonic seconds.
            was_outside: It may have been killed from outside.

        Returns:
            For each such model, whether it is in service elsewhere: that was one copy more.
        """
        self._slots.pop(worker, None)
        ended = {}
        for model, state in self._models.items():
            state.unfit.discard(worker)
            was_loading = state.states.get(worker) is ModelState.LOADING
            state.follow(worker, ModelEvent.WORKER_LOST)
            is_elsewhere = state.is_ready and not state.breaker.is_open
            was_tried = was_loading or state.prober == worker
            if was_tried and (blamed is None or model in blamed):
                ended[model] = is_elsewhere
            if model in ended and is_elsewhere:
                state.copies.fail(now)
            elif model in ended or state.prober == worker:
                state.kills += was_outside
                state.prober = None
                if not was_outside or state.breaker.is_open or state.kills >= LOADING_KILLS_MAX:
                    self._open(state, LOST_LOADING, now)
        return ended

    def lost(
        self, slot: int, models: Mapping[ModelId, bool], busy_s: Mapping[ModelId, float], now: float
    ) -> list[ModelId]:
        """Take note of who ended the worker of a slot; name the models whose breakers open for the time that it cost.

        Args:
            slot: Which; the time until it is filled again counts, too.
            models: Which did, if any; True where a further copy did, which keeps only such copies from being made.
            busy_s: How long the worker was busy with each before its end.
            now: Monotonic seconds.
        """
        if models:  # else it is still the fault of whoever ended the one before
            self._outages[slot] = now, models
        return [model for model in models if self._charge(model, busy_s.get(model, 0.0), now, is_copy=models[model])]

    def filled(self, slot: int, now: float) -> list[ModelId]:
        """Take note that a slot has a worker again; name the models whose breakers open for the time without one."""
        since_s, models = self._outages.pop(slot, (now, {}))
        return [model for model in models if self._charge(model, now - since_s, now, is_copy=models[model])]

    def loaded(self, worker: WorkerId, model: ModelId) -> bool:
        """Take note that a worker has a model ready; tell whether that closed the breaker."""
        if worker not in self._slots:
            return False
        state = self._models[model]
        if state.is_ready:
            state.copies.succeed()
        state.kills = 0
        state.follow(worker, ModelEvent.LOADED)
        return (not state.is_grounded or state.prober == worker) and self._close(state)

    def probed(self, worker: WorkerId, model: ModelId) -> bool:
        """Take note that a broken model answers again; tell whether that closed the breaker."""
        if worker not in self._slots:
            return False
        state = self._models[model]
        state.follow(worker, ModelEvent.RECOVERED)
        return self._close(state)

    def failed(self, worker: WorkerId, model: ModelId, failure: Failure, now: float) -> bool:
        """Take note that a load or a probe failed; tell whether the breaker opened just now."""
        if worker not in self._slots:
            return False
        state = self._models[model]
        was = state.states.get(worker)
        state.follow(worker, ModelEvent.LOAD_FAILED if was is ModelState.LOADING else ModelEvent.BROKE)
        was_open = state.breaker.is_open
        if was is not ModelState.READY and not was_open and state.is_ready:
            state.unfit.add(worker)
            state.prober = None
            return False
        self._open(state, failure, now)
        return not was_open

    def ready(self, model: ModelId) -> Collection[WorkerId]:
        """Name the workers that can take records of a model now."""
        state = self._models[model]
        if state.breaker.is_open or state.parked is not None:
            return ()
        return [worker for worker, life in state.states.items() if life is ModelState.READY]

    def unavailable(self) -> dict[ModelId, Failure]:
        """Name the models that take no records, since they are broken or their output topic is parked, and why."""
        reasons = {
            model: state.failure if state.breaker.is_open else state.parked for model, state in self._models.items()
        }
        return {model: failure for model, failure in reasons.items() if failure is not None}

    def is_broken(self, model: ModelId) -> bool:
        """Tell whether a model takes no records since it is at fault."""
        return self._models[model].breaker.is_open

    def park(self, model: ModelId, failure: Failure) -> None:
        """Take note that a model's results find no topic."""
        self._models[model].parked = failure

    def resume(self, model: ModelId) -> None:
        """Take note that a model's results find their topic again."""
        self._models[model].parked = None

    def wanted(
        self, waiting_s: Mapping[ModelId, float], load_s: Callable[[WorkerId], float], now: float
    ) -> Iterator[Load | Probe]:
        """Decide what is loaded or probed now.

        `waiting_s` names the models for which records wait, with the inference seconds of those; `load_s` estimates
        the inference seconds that lie ahead of a worker.
        """
        for model, state in self._models.items():
            if state.breaker.is_open:
                if state.breaker.is_due(now):
                    yield from self._try_again(model, state, load_s, now)
            elif model in waiting_s and not state.is_loading and state.prober is None:
                ready = sum(life is ModelState.READY for life in state.states.values())
                if not ready:
                    yield from self._revive(model, state, load_s)
                elif self._is_hot(waiting_s[model], ready) and now >= state.copies.over_at_s:
                    yield from self._load(model, state, load_s)

    def _try_again(
        self, model: ModelId, state: ModelWhereabouts, load_s: Callable[[WorkerId], float], now: float
    ) -> Iterator[Load | Probe]:
        """Make the attempt that a broken model is due; one that workers died of is probed where it is ready."""
        ready = [worker for worker, life in state.states.items() if life is ModelState.READY]
        is_there = state.is_grounded and bool(ready)
        for action in [Probe(ready[0], model)] if is_there else self._revive(model, state, load_s):
            state.breaker.attempt(now)
            state.prober = action.worker
            yield action

    def _revive(
        self, model: ModelId, state: ModelWhereabouts, load_s: Callable[[WorkerId], float]
    ) -> Iterator[Load | Probe]:
        """Probe a model that no worker has ready where it is loaded and broke, else load it."""
        broken = next((worker for worker, life in state.states.items() if life is ModelState.BROKEN), None)
        if broken is not None:
            state.prober = broken
            yield Probe(broken, model)
        elif not state.is_loading:
            yield from self._load(model, state, load_s)

    def _load(self, model: ModelId, state: ModelWhereabouts, load_s: Callable[[WorkerId], float]) -> Iterator[Load]:
        """Have the least loaded worker that may serve a model and lacks it load it."""
        if not state.states:
            state.unfit.clear()
        taken = state.states.keys() | state.unfit
        workers = [worker for worker in self._slots if worker not in taken and self._may_serve(worker, state)]
        if workers:
            worker = min(workers, key=load_s)
            state.follow(worker, ModelEvent.REQUESTED)
            yield Load(worker, model)

    def _charge(self, model: ModelId, lost_s: float, now: float, *, is_copy: bool) -> bool:
        """Count lost time against a model's budget; tell whether its breaker opens for it."""
        state = self._models[model]
        state.losses.add(now, lost_s)
        free_at_s = state.losses.free_at_s(now)
        if free_at_s <= now or state.breaker.state is BreakerState.PROBING:
            return False  # within its budget, or being tried: the attempt decides
        if is_copy:
            state.copies.fail(now, free_at_s)
            return False
        if state.breaker.is_open:
            state.breaker.fail(now, free_at_s)
            return False
        self._open(state, OVERSPENT, now, free_at_s)
        state.is_grounded = True
        return True

    def _is_hot(self, waiting_s: float, ready: int) -> bool:
        """Tell whether more waits for a model than so many workers get done in time."""
        return waiting_s * 1000 > self._options.spread_work_ms_min * ready

    def _may_serve(self, worker: WorkerId, state: ModelWhereabouts) -> bool:
        """Tell whether the configuration lets a worker serve a model."""
        return state.place.slots is None or self._slots[worker] in state.place.slots

    @staticmethod
    def _open(state: ModelWhereabouts, failure: Failure, now: float, not_before_s: float = 0.0) -> None:
        state.failure = failure
        state.prober = None
        state.breaker.fail(now, not_before_s)

    @staticmethod
    def _close(state: ModelWhereabouts) -> bool:
        was_open = state.breaker.is_open
        state.failure = None
        state.prober = None
        state.is_grounded = False
        state.unfit.clear()
        state.breaker.succeed()
        return was_open
