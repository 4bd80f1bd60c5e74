"""Where models are loaded, and what happens to a broken one."""

from consumer.core.actions import Load, Probe
from consumer.core.breaker import BreakerOptions, CrashOptions
from consumer.core.placement import LOST_LOADING, OVERSPENT, ModelPlace, Placement, PlacementOptions
from consumer.core.types import Disposition, Failure, WorkerId

A, B = "a", "b"
ONE, TWO = WorkerId(1), WorkerId(2)
BROKEN = Failure("model-unavailable", "ModelError", "broken", Disposition.UNAVAILABLE)
BREAKER = BreakerOptions(backoff_s=1.0, backoff_s_max=4.0)


def placement(**places: ModelPlace) -> Placement:
    """Make a placement of model a, or of those that are given, with two workers in slots 0 and 1."""
    made = Placement(PlacementOptions(spread_work_ms_min=100), places or {A: ModelPlace(breaker=BREAKER)})
    preloads = [*made.add_worker(ONE, 0, 0.0), *made.add_worker(TWO, 1, 0.0)]
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
    assert list(made.add_worker(ONE, 0, 0.0)) == []
    assert list(made.add_worker(TWO, 1, 0.0)) == [Load(TWO, A)]


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
    assert made.remove_worker(TWO, None, 0.0) == {B: False}
    assert made.unavailable().keys() == {B}
    assert wanted(made, a=0.01) == [Load(ONE, A)]


def test_a_kill_from_outside_breaks_no_model() -> None:
    """A model that a worker was loading when somebody killed it is loaded elsewhere; a second kill breaks it."""
    made = placement()
    assert wanted(made, a=0.01) == [Load(TWO, A)]
    assert made.remove_worker(TWO, [A], 0.0, was_outside=True) == {A: False}
    assert not made.is_broken(A)
    assert made.unavailable() == {}
    assert wanted(made, a=0.01) == [Load(ONE, A)]
    assert made.remove_worker(ONE, [A], 0.0, was_outside=True) == {A: False}
    assert made.is_broken(A)
    assert made.unavailable() == {A: LOST_LOADING}


def test_a_load_between_two_kills_makes_the_second_a_first_one() -> None:
    """Kills while a model is loaded count in a row only."""
    made = placement()
    for _ in range(3):
        assert wanted(made, a=0.01) == [Load(TWO, A)]
        assert made.remove_worker(TWO, [A], 0.0, was_outside=True) == {A: False}
        assert not made.is_broken(A)
        list(made.add_worker(TWO, 1, 0.0))
        assert wanted(made, a=0.01) == [Load(TWO, A)]
        made.loaded(TWO, A)
        assert made.remove_worker(TWO, [], 0.0, was_outside=True) == {}
        list(made.add_worker(TWO, 1, 0.0))


def test_a_prober_that_is_killed_from_outside_is_replaced() -> None:
    """A model that every worker has broken, and whose prober is killed, is probed or loaded by another one."""
    made = placement()
    assert wanted(made, a=0.01) == [Load(TWO, A)]
    made.loaded(TWO, A)
    made.failed(TWO, A, BROKEN, 0.0)
    assert wanted(made, 1.0, a=0.01) == [Probe(TWO, A)]
    assert made.remove_worker(TWO, [A], 1.0, was_outside=True) == {A: False}
    assert made.is_broken(A), "it was broken before"
    assert wanted(made, 3.0, a=0.01) == [Load(ONE, A)]


def test_a_copy_that_ends_its_worker_does_not_break_the_one_that_works() -> None:
    """A model that one worker has ready stays in service when another dies while loading it."""
    made = placement()
    wanted(made, a=0.01)
    made.loaded(TWO, A)
    assert wanted(made, a=1.0) == [Load(ONE, A)]
    assert made.remove_worker(ONE, None, 0.0) == {A: True}
    assert list(made.ready(A)) == [TWO]


def test_a_worker_that_dies_probing_opens_the_breaker_again() -> None:
    """The attempt is over with its worker; the next one is made by loading elsewhere."""
    made = placement()
    wanted(made, a=0.01)
    made.loaded(TWO, A)
    made.failed(TWO, A, BROKEN, 0.0)
    assert wanted(made, 1.0, a=1.0) == [Probe(TWO, A)]
    assert made.remove_worker(TWO, None, 1.0) == {A: False}
    assert wanted(made, 2.9, a=1.0) == []
    assert wanted(made, 3.0, a=1.0) == [Load(ONE, A)]


def test_only_the_model_that_was_being_loaded_is_blamed() -> None:
    """Models that only waited for their turn to be loaded are loaded elsewhere at once."""
    made = placement(a=ModelPlace(breaker=BREAKER), b=ModelPlace(breaker=BREAKER))
    wanted(made, a=0.01, b=0.01)
    assert made.remove_worker(TWO, [A], 0.0) == {A: False}
    assert wanted(made, a=0.01, b=0.01) == [Load(ONE, B)]


def test_a_prober_that_leaves_is_replaced() -> None:
    """An attempt that ended with its worker, whoever is to blame, is made again."""
    made = placement()
    wanted(made, a=0.01)
    made.failed(TWO, A, BROKEN, 0.0)
    assert wanted(made, 1.0, a=0.01) == [Load(TWO, A)]
    assert made.remove_worker(TWO, [], 1.0) == {}
    assert wanted(made, 3.0, a=0.01) == [Load(ONE, A)]


def test_a_model_may_cost_its_budget_of_the_workers_time() -> None:
    """What its batches cost until the slot is filled again; then it is out of service until enough of that is past."""
    made = placement(a=ModelPlace(breaker=BREAKER, crashes=CrashOptions(budget_s=10.0, window_s=100.0)))
    wanted(made, a=0.01)
    made.loaded(TWO, A)
    assert made.lost(0, {A: False}, {A: 4.0}, 10.0) == []
    assert made.filled(0, 12.0) == []
    assert made.filled(0, 13.0) == [], "once"
    assert made.lost(0, {A: False}, {A: 3.0, B: 50.0}, 20.0) == []
    assert made.lost(0, {}, {}, 21.0) == [], "the next one does not even start"
    assert list(made.ready(A)) == [TWO]
    assert made.filled(0, 22.0) == [A]
    assert made.unavailable() == {A: OVERSPENT}
    assert wanted(made, 109.9, a=1.0) == []
    assert wanted(made, 110.0, a=1.0) == [Probe(TWO, A)], "the first four seconds are past"
    made.probed(TWO, A)
    assert list(made.ready(A)) == [TWO]
    assert made.lost(1, {A: False}, {A: 10.1}, 110.0) == [A], "it answered its probe, and does it again"
    assert wanted(made, 209.9, a=1.0) == []


def test_a_model_that_is_out_of_service_anyway_waits_for_its_budget_too() -> None:
    """Loading that ends workers is charged like a batch; it is told once that the model is broken."""
    made = placement(a=ModelPlace(breaker=BREAKER, crashes=CrashOptions(budget_s=10.0, window_s=100.0)))
    wanted(made, a=0.01)
    assert made.remove_worker(TWO, [A], 5.0) == {A: False}
    assert made.lost(1, {A: False}, {A: 5.0}, 5.0) == []
    assert made.filled(1, 15.0) == []
    assert made.unavailable() == {A: LOST_LOADING}
    assert wanted(made, 104.9, a=1.0) == []
    assert wanted(made, 105.0, a=1.0) == [Load(ONE, A)]
    assert made.lost(1, {A: False}, {A: 50.0}, 105.0) == [], "the attempt decides"
    made.loaded(ONE, A)
    assert list(made.ready(A)) == [ONE]


def test_a_grounded_model_that_nobody_has_is_loaded_again() -> None:
    """Where every worker died of it, loading it is the attempt, and its success lets records through."""
    made = placement(a=ModelPlace(breaker=BREAKER, crashes=CrashOptions(budget_s=1.0, window_s=2.0)))
    wanted(made, a=0.01)
    made.loaded(TWO, A)
    made.remove_worker(TWO, [], 0.0)
    assert made.lost(1, {A: False}, {A: 1.5}, 0.0) == [A]
    assert wanted(made, 2.0, a=1.0) == [Load(ONE, A)]
    made.loaded(ONE, A)
    assert list(made.ready(A)) == [ONE]


def test_only_the_attempt_brings_a_grounded_model_back() -> None:
    """That another worker had it loaded meanwhile says nothing about its batches."""
    made = placement(a=ModelPlace(breaker=BREAKER, crashes=CrashOptions(budget_s=1.0, window_s=2.0)))
    wanted(made, a=0.01)
    made.loaded(TWO, A)
    assert wanted(made, a=100.0) == [Load(ONE, A)]
    assert made.lost(1, {A: False}, {A: 1.5}, 0.0) == [A]
    made.loaded(ONE, A)
    assert list(made.ready(A)) == []


def test_copies_that_end_their_workers_are_made_less_and_less_often() -> None:
    """Where the model works it stays in service; a copy that is loaded after all begins anew."""
    made = placement()
    wanted(made, a=0.01)
    made.loaded(TWO, A)
    now = 0.0
    for pause_s in (1.0, 2.0, 4.0, 4.0):
        assert wanted(made, now, a=1.0) == [Load(ONE, A)]
        assert made.remove_worker(ONE, [A], now) == {A: True}
        assert made.lost(0, {A: True}, {A: 0.5}, now) == []
        assert list(made.ready(A)) == [TWO]
        assert made.filled(0, now) == []
        assert list(made.add_worker(ONE, 0, now)) == []
        assert wanted(made, now + pause_s - 0.1, a=1.0) == []
        now += pause_s
    assert wanted(made, now, a=1.0) == [Load(ONE, A)]
    made.loaded(ONE, A)
    made.remove_worker(ONE, [], now)
    list(made.add_worker(ONE, 0, now))
    assert wanted(made, now, a=1.0) == [Load(ONE, A)]


def test_copies_beyond_the_budget_wait_and_the_model_does_not() -> None:
    """Also where workers would preload it."""
    crashes = CrashOptions(budget_s=10.0, window_s=100.0)
    made = placement(a=ModelPlace(breaker=BREAKER, crashes=crashes, is_preloaded=True))
    made.loaded(TWO, A)
    assert made.remove_worker(ONE, [A], 0.0) == {A: True}
    assert made.lost(0, {A: True}, {A: 9.0}, 0.0) == []
    assert made.filled(0, 20.0) == []
    assert list(made.add_worker(ONE, 0, 20.0)) == []
    assert wanted(made, 99.9, a=1.0) == []
    assert list(made.ready(A)) == [TWO]
    assert wanted(made, 120.0, a=1.0) == [Load(ONE, A)]


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
