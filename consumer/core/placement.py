"""Which worker has which model, and whether the model can be used.

Owns the state of every model on every worker and one breaker per model. Must not know about records or queues: it is
told how much waits for a model, never what.

Theory of operation. A model is loaded where it is needed: first on the least loaded worker that may serve it, then on
further ones while more waits than the workers that have it get done in `spread_work_ms_min`. A model that fails to
load anywhere, or that fails its own probe input, is broken: its breaker opens, nothing is sent to it, and with backoff
it is tried again, by the probe where it is loaded, else by loading it.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge

from consumer.core.actions import Load, Probe
from consumer.core.breaker import Breaker, BreakerOptions
from consumer.core.lifecycle import MODEL, ModelEvent, ModelState, advance
from consumer.core.types import Failure, ModelId, WorkerId


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


@dataclass(slots=True)
class ModelWhereabouts:
    """One model on all workers."""

    place: ModelPlace
    breaker: Breaker
    states: dict[WorkerId, ModelState] = field(default_factory=dict)
    """Its state where it is not absent."""
    unfit: set[WorkerId] = field(default_factory=set)
    """Workers that failed to load it while another had it: not asked again as long as that one lives."""
    prober: WorkerId | None = None
    """The worker that was asked to try a broken model again."""
    failure: Failure | None = None
    """Why the breaker is open."""

    @property
    def is_loading(self) -> bool:
        """Tell whether any worker is loading it."""
        return ModelState.LOADING in self.states.values()

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
        self._models = {model: ModelWhereabouts(place, Breaker(place.breaker)) for model, place in places.items()}
        self._slots: dict[WorkerId, int] = {}

    def add_worker(self, worker: WorkerId, slot: int) -> Iterator[Load]:
        """Let a worker serve models, and have it load those that are to be there from the start."""
        self._slots[worker] = slot
        for model, state in self._models.items():
            if state.place.is_preloaded and self._may_serve(worker, state) and not state.breaker.is_open:
                state.follow(worker, ModelEvent.REQUESTED)
                yield Load(worker, model)

    def remove_worker(self, worker: WorkerId, now: float) -> list[ModelId]:
        """Forget a worker that died; name the models it was loading, whose breakers open."""
        self._slots.pop(worker, None)
        suspects = []
        for model, state in self._models.items():
            state.unfit.discard(worker)
            was_loading = state.states.get(worker) is ModelState.LOADING
            state.follow(worker, ModelEvent.WORKER_LOST)
            if was_loading or state.prober == worker:
                suspects.append(model)
                failure = Failure(
                    "model-unavailable", "WorkerCrashedError", "its worker died while it was loaded or probed"
                )
                self._open(state, failure, now)
        return suspects

    def loaded(self, worker: WorkerId, model: ModelId) -> None:
        """Take note that a worker has a model ready."""
        if worker in self._slots:
            state = self._models[model]
            state.follow(worker, ModelEvent.LOADED)
            self._close(state)

    def probed(self, worker: WorkerId, model: ModelId) -> None:
        """Take note that a broken model answers again."""
        if worker in self._slots:
            state = self._models[model]
            state.follow(worker, ModelEvent.RECOVERED)
            self._close(state)

    def failed(self, worker: WorkerId, model: ModelId, failure: Failure, now: float) -> bool:
        """Take note that a load or a probe failed; tell whether the breaker opened just now."""
        if worker not in self._slots:
            return False
        state = self._models[model]
        was_loading = state.states.get(worker) is ModelState.LOADING
        state.follow(worker, ModelEvent.LOAD_FAILED if was_loading else ModelEvent.BROKE)
        was_open = state.breaker.is_open
        if was_loading and not was_open and ModelState.READY in state.states.values():
            state.unfit.add(worker)
            return False
        self._open(state, failure, now)
        return not was_open

    def ready(self, model: ModelId) -> Collection[WorkerId]:
        """Name the workers that can take records of a model now."""
        state = self._models[model]
        if state.breaker.is_open:
            return ()
        return [worker for worker, life in state.states.items() if life is ModelState.READY]

    def broken(self) -> dict[ModelId, Failure]:
        """Name the models whose breakers are open, with the reason."""
        return {
            model: state.failure
            for model, state in self._models.items()
            if state.breaker.is_open and state.failure is not None
        }

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
            elif model in waiting_s and not state.is_loading:
                is_first = not state.states
                has_enough = waiting_s[model] * 1000 <= self._options.spread_work_ms_min * len(state.states)
                if is_first or not has_enough:
                    yield from self._load(model, state, load_s)

    def _try_again(
        self, model: ModelId, state: ModelWhereabouts, load_s: Callable[[WorkerId], float], now: float
    ) -> Iterator[Load | Probe]:
        """Probe a broken model where it is loaded, else load it."""
        broken = next((worker for worker, life in state.states.items() if life is ModelState.BROKEN), None)
        if broken is not None:
            state.breaker.attempt(now)
            state.prober = broken
            yield Probe(broken, model)
        elif not state.is_loading:
            for action in self._load(model, state, load_s):
                state.breaker.attempt(now)
                state.prober = action.worker
                yield action

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

    def _may_serve(self, worker: WorkerId, state: ModelWhereabouts) -> bool:
        """Tell whether the configuration lets a worker serve a model."""
        return state.place.slots is None or self._slots[worker] in state.place.slots

    @staticmethod
    def _open(state: ModelWhereabouts, failure: Failure, now: float) -> None:
        state.failure = failure
        state.prober = None
        state.breaker.fail(now)

    @staticmethod
    def _close(state: ModelWhereabouts) -> None:
        state.failure = None
        state.prober = None
        state.unfit.clear()
        state.breaker.succeed()
