import numpy as np
import pytest

from benchmarks.goals import GOALS, Goal, figures
from benchmarks.intervals import Interval, interval, paired, slope
from benchmarks.orders import interleaved


def test_turns_alternate() -> None:
    """Each round runs every subject once, in an order that turns: A B, B A, A B."""
    assert list(interleaved(["a", "b", "c"], 3)) == [["a", "b", "c"], ["c", "b", "a"], ["a", "b", "c"]]


def test_positions_are_fair() -> None:
    """Over an even number of rounds every subject stands equally late."""
    turns = list(interleaved([*"abcd"], 6))
    assert len({sum(turn.index(subject) for turn in turns) for subject in "abcd"}) == 1


def test_an_interval_holds_its_median() -> None:
    """The interval lies within the values, about the median, and is the same each time."""
    values = [1.0, 2.0, 3.0, 4.0, 100.0]
    found = interval(values)
    assert found == interval(values)
    assert 1.0 <= found.low <= found.median == 3.0 <= found.high <= 100.0
    assert found.low < found.high


def test_one_value_is_its_own_interval() -> None:
    """A single run gives no spread, and says so by an interval without width."""
    assert interval([2.0]) == Interval(2.0, 2.0, 2.0)


def test_drift_cancels_in_pairs() -> None:
    """A machine that slows down over the rounds leaves the paired ratio alone."""
    assert paired([200.0, 100.0, 50.0], [100.0, 50.0, 25.0]) == Interval(2.0, 2.0, 2.0)


def test_unequal_rounds_are_refused() -> None:
    """A ratio needs both sides of each round, and at least one."""
    with pytest.raises(ValueError, match="shorter"):
        paired([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="needs a value"):
        paired([], [])


def test_a_line_has_a_slope_and_an_error() -> None:
    """What rises has its slope within a narrow interval; what only wavers has zero within its own."""
    waver = np.random.default_rng(0).normal(0.0, 1.0, 40)
    rising, flat = slope((3.0 * np.arange(40) + waver).tolist()), slope((500.0 + waver).tolist())
    assert 2.9 < rising.low < rising.median < rising.high < 3.1
    assert flat.low < 0.0 < flat.high
    with pytest.raises(ValueError, match="three values"):
        slope([1.0, 2.0])


@pytest.mark.parametrize(
    ("direction", "reached"), [("at least", [False, True, True]), ("at most", [True, True, False])]
)
def test_goals_have_a_direction(direction: str, reached: list[bool]) -> None:
    """A floor is reached from above, a ceiling from below, both by their own value."""
    goal = Goal("name", "title", 1.5, direction)  # type: ignore[arg-type]  # parametrised
    assert [goal.is_reached_by(value) for value in (1.4, 1.5, 1.6)] == reached


def test_every_figure_is_reported() -> None:
    """Each goal is in the report: with its value and whether it is reached, or with why it was not measured."""
    measured = {"w1_tuned_ratio": Interval(1.8, 1.6, 1.9), "w1_cpu_ratio": Interval(0.7, 0.6, 0.8)}
    reported = {each.name: each for each in figures(measured, {"w1_java_ratio": "no Java"})}
    assert list(reported) == [goal.name for goal in GOALS]
    assert (reported["w1_tuned_ratio"].value, reported["w1_tuned_ratio"].is_reached) == (1.8, True)
    assert (reported["w1_cpu_ratio"].low, reported["w1_cpu_ratio"].is_reached) == (0.6, False)
    assert (reported["w1_java_ratio"].is_reached, reported["w1_java_ratio"].reason) == (None, "no Java")
    assert reported["w2_torch_ratio"].reason == "not part of this run"


def test_names_of_figures_are_unique() -> None:
    """No two goals share a name."""
    assert len({goal.name for goal in GOALS}) == len(GOALS)
