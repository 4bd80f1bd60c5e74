"""The division of records into calls, against all divisions that there are."""

from collections.abc import Iterator, Sequence

from hypothesis import given
from hypothesis import strategies as st

from consumer.core.buckets import STEPS_MAX, Lengths, Limits, divide, padded_size
from tests.strategies import UNHURRIED

RECORDS = st.tuples(st.integers(0, 3), st.tuples(st.integers(0, 40)))
PAIRS = st.tuples(st.integers(0, 3), st.tuples(st.integers(0, 40), st.integers(0, 9)))
COSTS = st.tuples(st.floats(0, 100), st.floats(0.01, 2))
LIMITS = st.builds(Limits, st.integers(1, 8), st.integers(1, 200))


def size_of(call: Sequence[int], rows: Sequence[int], lengths: Sequence[Lengths]) -> tuple[int, int]:
    """Return the rows and the padded size of a call."""
    count = sum(rows[record] for record in call)
    return count, padded_size(count, tuple(max(axis) for axis in zip(*(lengths[one] for one in call), strict=True)))


def divisions(records: Sequence[int]) -> Iterator[list[list[int]]]:
    """Divide records in every way."""
    if not records:
        yield []
        return
    first, *others = records
    for division in divisions(others):
        yield [[first], *division]
        for at, call in enumerate(division):
            yield [*division[:at], [first, *call], *division[at + 1 :]]


@given(lengths=st.lists(st.tuples(st.integers(0, 40)), max_size=6), each=st.integers(1, 3), terms=COSTS, limits=LIMITS)
@UNHURRIED
def test_no_other_division_costs_less(
    lengths: list[Lengths], each: int, terms: tuple[float, float], limits: Limits
) -> None:
    """Of all divisions of records of as many rows into calls within the limits none is predicted to take less."""
    rows = [each] * len(lengths)

    def total(division: list[list[int]]) -> float:
        return sum(terms[0] + terms[1] * size_of(call, rows, lengths)[1] for call in division)

    allowed = (
        division
        for division in divisions(range(len(lengths)))
        if all(len(call) == 1 or limits.allow(*size_of(call, rows, lengths)) for call in division)
    )
    made = divide(rows, lengths, limits, lambda size: terms[0] + terms[1] * size)
    assert total(made) <= min(map(total, allowed)) + 1e-6


@given(records=st.lists(st.one_of(RECORDS, PAIRS), max_size=300), terms=COSTS, limits=LIMITS, is_pair=st.booleans())
@UNHURRIED
def test_every_record_is_in_one_call_within_the_limits(
    records: list[tuple[int, Lengths]], terms: tuple[float, float], limits: Limits, *, is_pair: bool
) -> None:
    """No record is lost or doubled; only a record that is too large by itself exceeds a limit, and alone."""
    rows = [rows for rows, _ in records]
    lengths = [(*length, 0)[:2] if is_pair else length[:1] for _, length in records]
    made = divide(rows, lengths, limits, lambda size: terms[0] + terms[1] * size)
    assert sorted(record for call in made for record in call) == list(range(len(records)))
    assert all(len(call) == 1 or limits.allow(*size_of(call, rows, lengths)) for call in made)


def test_many_records_are_divided_in_steps() -> None:
    """A thousand lengths are no more places to cut at than there are steps, and little is padded for it."""
    lengths = [(1 + i * 37 % 1000,) for i in range(1000)]
    asked = []

    def cost(size: float) -> float:
        asked.append(size)
        return 2000 + size

    made = divide([1] * 1000, lengths, Limits(256, 10**6), cost)
    assert len(asked) <= (STEPS_MAX + 2) ** 2 / 2
    padded = sum(size_of(call, [1] * 1000, lengths)[1] for call in made)
    assert padded <= 1.1 * sum(length for (length,) in lengths)
    assert len(made) <= STEPS_MAX
