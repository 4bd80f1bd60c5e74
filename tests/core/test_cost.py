"""What is learned about batch sizes, against models whose cost is known."""

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumer.core.cost import RENEWAL_BATCHES, START_SIZE, TOLERANCE, CostCurve, LearnedSize
from tests.strategies import UNHURRIED

Cost = Callable[[int], float]

BACKLOG = 10**9


def cost(fixed: float, linear: float, square: float, step_at: int = 10**9, step: float = 1.0) -> Cost:
    """Make a model's seconds by rows; beyond `step_at` each row takes `step` times as long."""
    return lambda rows: fixed + linear * rows * (step if rows > step_at else 1.0) + square * rows * rows


def best_rate(took: Cost, rows_max: int) -> float:
    """Find what a row costs in the best batch."""
    return min(took(rows) / rows for rows in range(1, rows_max + 1))


def teach(learned: LearnedSize, took: Cost, batches: int, noise: float = 0.0, pauses: float = 0.0) -> list[int]:
    """Run batches under a constant backlog; return their sizes."""
    chance = random.Random(1)
    sizes = []
    for _ in range(batches):
        sizes.append(learned.choose(BACKLOG))
        paused = 100.0 if chance.random() < pauses else 1.0
        learned.observe(sizes[-1], took(sizes[-1]) * math.exp(chance.gauss(0, noise)) * paused)
    return sizes


FIXED = st.one_of(st.just(0.0), st.floats(1e-5, 1e-1))
LINEAR = st.floats(1e-7, 1e-2)
SQUARE = st.one_of(st.just(0.0), st.floats(1e-9, 1e-4))
ROWS_MAX = st.sampled_from([1, 2, 7, 64, 256, 1024])


@given(fixed=FIXED, linear=LINEAR, square=SQUARE, rows_max=ROWS_MAX)
@UNHURRIED
def test_the_size_learned_is_nearly_the_best_one(fixed: float, linear: float, square: float, rows_max: int) -> None:
    """Under a constant backlog a row comes to cost at most 15 % more than at best, within the limits all along."""
    took = cost(fixed, linear, square)
    learned = LearnedSize(rows_max)
    sizes = teach(learned, took, 100)
    assert all(1 <= size <= rows_max for size in [*sizes, learned.size])
    assert took(learned.size) / learned.size <= 1.15 * best_rate(took, rows_max)


@given(fixed=FIXED, linear=LINEAR, square=SQUARE, step_at=st.integers(2, 600), step=st.floats(1.0, 3.0))
@UNHURRIED
@example(fixed=1e-5, linear=1e-7, square=0.0, step_at=43, step=2.0)
@example(fixed=1.0323686664377468e-4, linear=8.476167176986689e-7, square=0.0, step_at=56, step=1.9989529856993142)
def test_noise_pauses_and_steps_do_not_mislead(
    fixed: float, linear: float, square: float, step_at: int, step: float
) -> None:
    """Timings off by a tenth, pauses of a hundred times and a cache that is too small from some size on: within 2."""
    took = cost(fixed, linear, square, step_at, step)
    learned = LearnedSize(512)
    sizes = teach(learned, took, 400, noise=0.1, pauses=0.02)
    assert all(1 <= size <= 512 for size in sizes)
    assert took(learned.size) / learned.size <= 2 * best_rate(took, 512)


@given(fixed=FIXED, linear=LINEAR, square=SQUARE, rows_max=ROWS_MAX)
@UNHURRIED
def test_exploring_costs_little(fixed: float, linear: float, square: float, rows_max: int) -> None:
    """Once it has learned, of 64 batches one is of another size, and all of them take at most 4 % longer for it."""
    took = cost(fixed, linear, square)
    learned = LearnedSize(rows_max)
    teach(learned, took, 100)
    spent = usual = 0.0
    tried = 0
    for _ in range(8 * RENEWAL_BATCHES):
        size, before = learned.choose(BACKLOG), learned.size
        tried += size != before
        spent += took(size)
        usual += took(before) / before * size
        learned.observe(size, took(size))
    assert spent <= 1.04 * usual
    assert tried <= 2 * (8 + 2)


@given(
    sizes=st.lists(st.integers(1, 1000), min_size=3, max_size=60, unique=True).filter(
        lambda sizes: len({size.bit_length() for size in sizes}) >= 3
    ),
    fixed=st.floats(1e-4, 1e-2),
    linear=st.floats(1e-6, 1e-3),
)
@UNHURRIED
def test_a_curve_foretells_what_it_has_not_seen(sizes: list[int], fixed: float, linear: float) -> None:
    """From sizes of three octaves a curve of fixed and linear cost is known within their spread."""
    curve = CostCurve()
    for size in sizes:
        curve.observe(size, fixed + linear * size)
    for size in (min(sizes), sum(sizes) // len(sizes), max(sizes)):
        assert curve.seconds(size) == pytest.approx(fixed + linear * size, rel=0.25)


def test_the_smallest_size_that_is_enough_is_taken() -> None:
    """Where rows cost the same in all larger batches, the size is the one at which what is fixed has become small."""
    took = cost(1e-3, 1e-4, 0.0)
    learned = LearnedSize(1000)
    teach(learned, took, 50)
    enough = next(rows for rows in range(1, 1001) if took(rows) / rows <= (1 + TOLERANCE) * took(1000) / 1000)
    assert learned.size == pytest.approx(enough, rel=0.15)


def test_batches_that_take_no_time_are_not_made_smaller() -> None:
    """A size that is enough by its cost, but takes less than the time that nobody notices, becomes as large as that."""
    learned = LearnedSize(1000, seconds_min=0.02)
    teach(learned, cost(0.0, 1e-4, 0.0), 50)
    assert learned.size == pytest.approx(200, rel=0.05)
    best = LearnedSize(1000, seconds_min=10.0)
    teach(best, cost(1e-3, 0.0, 1e-5), 50)
    assert best.size == pytest.approx(10, abs=1), "but not beyond the best one"


def test_a_model_that_has_changed_is_learned_anew() -> None:
    """When rows begin to cost far more than calls, batches become small, and large again when that is over."""
    learned = LearnedSize(512)
    teach(learned, cost(1e-2, 1e-6, 0.0), 200)
    assert learned.size > 256
    teach(learned, cost(1e-2, 1e-2, 0.0), 50)
    assert learned.size < 64
    teach(learned, cost(1e-2, 1e-6, 0.0), 100)
    assert learned.size > 256


def test_nothing_is_tried_while_sizes_vary_by_themselves() -> None:
    """Where less waits than is enough, all of it is taken."""
    learned = LearnedSize(64)
    for waiting in [1, 5, 64, 3, 20, 40] * 100:
        assert learned.choose(waiting) >= min(waiting, learned.size)
        learned.observe(min(waiting, learned.size), 1e-2 + 1e-5 * waiting)


def test_nothing_is_learned_from_nothing() -> None:
    """Before anything was seen a small size is taken, and a call costs something; an empty batch changes nothing."""
    learned, curve = LearnedSize(100), CostCurve()
    assert not curve.observe(0, 1.0)
    learned.observe(0, 1.0)
    learned.observe(3, 0.0)
    assert (learned.size, learned.choose(BACKLOG)) == (START_SIZE, START_SIZE)
    assert (curve.best(5), curve.seconds(20) - curve.seconds(10), curve.rate(20)) == (5, 10.0, None)


def test_sizes_grow_fast_where_they_pay() -> None:
    """Where calls cost much and rows little the largest size is reached within a dozen batches."""
    learned = LearnedSize(512)
    assert max(teach(learned, cost(1e-2, 1e-6, 0.0), 12)) > 256
