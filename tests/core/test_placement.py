"""Where models are loaded, and what happens to a broken one."""

from consumer.core.actions import Load, Probe
from consumer.core.breaker import BreakerOptions, CrashOptions
from consumer.core.placement import ModelPlace, Placement, PlacementOptions
from consumer.core.types import Disposition, Failure, WorkerId

A, B = "a", "b"
ONE, TWO = WorkerId(1), WorkerId(2)
BROKEN = Failure("model-unavailable", "ModelError", "broken", Disposition.UNAVAILABLE)
BREAKER = BreakerOptions(backoff_s=1.0, backoff_s_max=4.0)


def placement(**places: ModelPlace) -> Placement:
    """Make a placement of model a, or of those that are given, with two workers in slots 0 and 1."""
    made = Placement(PlacementOptions(spread_work_ms_min=100), places or {A: ModelPlace(breaker=BREAKER)})
    preloads = [*made.add_worker(ONE, 0), *made.add_worker(TWO, 1)]
    assert preloads == [] or any(place.is_preloaded for place in places.values())
    return made


def wanted(made: Placement, now: float = 0.0, **waiting_s: float) -> list[Load | Probe]:
    """Ask what is loaded or probed now, worker 1 being the busier one."""
    return list(made.wanted(waiting_s, lambda worker: 1.0 if worker == ONE else 0.5, now))


def test_a_model_is_loaded_where_it_is_needed_and_nowhere_else() -> None:
    """Its first record has the least loaded worker load it, once; nothing is loaded for nobody."""
    made = placement()
    assert wanted(made) == []
    assert wanted(made, a=0.01) == [Load(TWO, A)]
    assert wanted(made, a=0.01) == []
    assert list(made.ready(A)) == []
    made.loaded(TWO, A)
    assert list(made.ready(A)) == [TWO]


def test_a_hot_model_spreads() -> None:
    """A second worker loads a model once more waits than the first gets done in time."""
    made = placement()
    wanted(made, a=0.01)
    made.loaded(TWO, A)
    assert wanted(made, a=0.05) == []
    assert wanted(made, a=0.2) == [Load(ONE, A)]
    assert wanted(made, a=0.2) == []


def test_a_preloaded_model_is_loaded_by_every_worker_that_may_serve_it() -> None:
    """`preload` loads at a worker's start, and pinning keeps it from the others."""
    made = Placement(PlacementOptions(), {A: ModelPlace(is_preloaded=True, slots=frozenset({1}))})
    assert list(made.add_worker(ONE, 0)) == []
    assert list(made.add_worker(TWO, 1)) == [Load(TWO, A)]


def test_a_pinned_model_never_leaves_its_slots() -> None:
    """However much waits, only the configured slots load it."""
    made = placement(a=ModelPlace(slots=frozenset({0}), breaker=BREAKER))
    assert wanted(made, a=100.0) == [Load(ONE, A)]
    made.loaded(ONE, A)
    assert wanted(made, a=100.0) == []


def test_a_model_that_fails_to_load_is_tried_again_with_backoff() -> None:
    """Its breaker opens, names the reason, and each attempt comes later than the one before."""
    made = placement()
    wanted(made, a=1.0)
    assert made.failed(TWO, A, BROKEN, 0.0)
    assert made.unavailable() == {A: BROKEN}
    assert wanted(made, 0.9, a=1.0) == []
    assert wanted(made, 1.0, a=1.0) == [Load(TWO, A)]
    assert not made.failed(TWO, A, BROKEN, 1.0)
    assert wanted(made, 2.9, a=1.0) == []
    assert wanted(made, 3.0, a=1.0) == [Load(TWO, A)]
    made.loaded(TWO, A)
    assert made.unavailable() == {}
    assert list(made.ready(A)) == [TWO]


def test_a_broken_model_is_probed_where_it_is_loaded() -> None:
    """A loaded model that broke takes nothing until its probe passes; it is not loaded elsewhere meanwhile."""
    made = placement()
    wanted(made, a=0.01)
    made.loaded(TWO, A)
    assert made.failed(TWO, A, BROKEN, 0.0)
    assert list(made.ready(A)) == []
    assert wanted(made, 1.0, a=100.0) == [Probe(TWO, A)]
    assert wanted(made, 1.1, a=100.0) == []
    made.probed(TWO, A)
    assert list(made.ready(A)) == [TWO]


def test_a_worker_that_dies_loading_breaks_the_model() -> None:
    """The model a worker died of is broken, one that was merely there is not."""
    made = placement(a=ModelPlace(breaker=BREAKER), b=ModelPlace(breaker=BREAKER))
    wanted(made, a=0.01)
    made.loaded(TWO, A)
    wanted(made, b=0.01)
    assert made.remove_worker(TWO, None, 0.0) == [B]
    assert made.unavailable().keys() == {B}
    assert wanted(made, a=0.01) == [Load(ONE, A)]


def test_a_copy_that_ends_its_worker_does_not_break_the_one_that_works() -> None:
    """A model that one worker has ready stays in service when another dies while loading it."""
    made = placement()
    wanted(made, a=0.01)
    made.loaded(TWO, A)
    assert wanted(made, a=1.0) == [Load(ONE, A)]
    assert made.remove_worker(ONE, None, 0.0) == []
    assert list(made.ready(A)) == [TWO]


def test_a_worker_that_dies_probing_opens_the_breaker_again() -> None:
    """The attempt is over with its worker; the next one is made by loading elsewhere."""
    made = placement()
    wanted(made, a=0.01)
    made.loaded(TWO, A)
    made.failed(TWO, A, BROKEN, 0.0)
    assert wanted(made, 1.0, a=1.0) == [Probe(TWO, A)]
    assert made.remove_worker(TWO, None, 1.0) == [A]
    assert wanted(made, 2.9, a=1.0) == []
    assert wanted(made, 3.0, a=1.0) == [Load(ONE, A)]


def test_only_the_model_that_was_being_loaded_is_blamed() -> None:
    """Models that only waited for their turn to be loaded are loaded elsewhere at once."""
    made = placement(a=ModelPlace(breaker=BREAKER), b=ModelPlace(breaker=BREAKER))
    wanted(made, a=0.01, b=0.01)
    assert made.remove_worker(TWO, [A], 0.0) == [A]
    assert wanted(made, a=0.01, b=0.01) == [Load(ONE, B)]


def test_a_prober_that_leaves_is_replaced() -> None:
    """An attempt that ended with its worker, whoever is to blame, is made again."""
    made = placement()
    wanted(made, a=0.01)
    made.failed(TWO, A, BROKEN, 0.0)
    assert wanted(made, 1.0, a=0.01) == [Load(TWO, A)]
    made.remove_worker(TWO, [], 1.0)
    assert wanted(made, 3.0, a=0.01) == [Load(ONE, A)]


def test_a_model_that_keeps_ending_workers_is_grounded_for_longer_and_longer() -> None:
    """Beyond its budget each death opens the breaker; it is probed where it is ready, and no other load closes it."""
    crashes = CrashOptions(deaths_max=2, window_s=100.0)
    made = placement(a=ModelPlace(breaker=BREAKER, crashes=crashes))
    wanted(made, a=0.01)
    made.loaded(TWO, A)
    wanted(made, a=100.0)  # the other worker loads it as well
    assert [made.crashed(A, 3, 0.0) for _ in range(4)] == [None] * 4
    assert made.crashed(A, 3, 0.0) is not None
    assert made.unavailable().keys() == {A}
    assert made.crashed(A, 3, 0.0) is None, "it is told once"
    made.loaded(ONE, A)
    assert list(made.ready(A)) == []
    assert wanted(made, 0.9, a=1.0) == []
    assert wanted(made, 1.0, a=1.0) == [Probe(TWO, A)]
    made.probed(TWO, A)
    assert [*made.ready(A)] == [TWO, ONE]
    assert made.crashed(A, 3, 1.0) is not None
    assert wanted(made, 4.9, a=1.0) == []
    assert wanted(made, 5.0, a=1.0) == [Probe(TWO, A)]
    made.probed(TWO, A)
    assert made.crashed(A, 3, 200.0) is None, "old deaths are forgiven"


def test_a_grounded_model_that_nobody_has_is_loaded_again() -> None:
    """Where every worker died of it, loading it is the attempt, and its success lets records through."""
    made = placement(a=ModelPlace(breaker=BREAKER, crashes=CrashOptions(deaths_max=1)))
    wanted(made, a=0.01)
    made.loaded(TWO, A)
    made.remove_worker(TWO, [], 0.0)
    assert made.crashed(A, 0, 0.0) is not None
    assert wanted(made, 1.0, a=1.0) == [Load(ONE, A)]
    made.loaded(ONE, A)
    assert list(made.ready(A)) == [ONE]


def test_one_unfit_worker_does_not_break_a_model_that_another_has() -> None:
    """Where a second worker cannot load it, the first goes on, and the second is not asked over and over."""
    made = placement()
    wanted(made, a=0.01)
    made.loaded(TWO, A)
    wanted(made, a=1.0)
    assert not made.failed(ONE, A, BROKEN, 0.0)
    assert list(made.ready(A)) == [TWO]
    assert wanted(made, 100.0, a=1.0) == []
    made.remove_worker(TWO, None, 101.0)
    assert wanted(made, 101.0, a=1.0) == [Load(ONE, A)]


def test_news_of_a_dead_worker_changes_nothing() -> None:
    """What a worker said before it died is too late."""
    made = placement()
    wanted(made, a=0.01)
    made.remove_worker(TWO, None, 0.0)
    made.loaded(TWO, A)
    made.probed(TWO, A)
    assert not made.failed(TWO, A, BROKEN, 0.0)
    assert list(made.ready(A)) == []
