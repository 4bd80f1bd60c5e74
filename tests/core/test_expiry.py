"""Deadlines, against a look at each record by itself."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from consumer.core.expiry import Expiry, ModelExpiry, split_expired
from tests.strategies import UNHURRIED, make_run

EPOCH_S = -1_000.0
TIMES_S = st.integers(-50, 50).map(float)
RECORDS = st.lists(st.tuples(st.none() | TIMES_S, st.none() | TIMES_S), min_size=1, max_size=12)
"""Of each record: when it expires by itself, and when it was written; both in monotonic seconds."""


@UNHURRIED
@given(RECORDS, st.none() | st.integers(1, 40).map(float), TIMES_S)
def test_a_record_is_worth_inferring_until_the_earlier_of_its_two_ends(
    records: list[tuple[float | None, float | None]], age_s_max: float | None, now: float
) -> None:
    """Its own deadline, and its age where that counts; each record ends up in one part, in order, with its payload."""
    run = replace(
        make_run(range(len(records))),
        deadlines_s=[own_s for own_s, _ in records] if any(own_s is not None for own_s, _ in records) else None,
        timestamps_ms=[-1 if at_s is None else int((at_s - EPOCH_S) * 1000) for _, at_s in records],
    )
    Expiry({"digits": ModelExpiry(age_s_max=age_s_max)}).limit(run, EPOCH_S)
    fresh, expired = split_expired(run, now)
    late = [
        offset
        for offset, (own_s, at_s) in enumerate(records)
        if (own_s is not None and own_s <= now)
        or (age_s_max is not None and at_s is not None and at_s + age_s_max <= now)
    ]
    in_time = [offset for offset in range(len(records)) if offset not in late]
    for part, offsets in ((fresh, in_time), (expired, late)):
        assert (list(part.offsets) if part else []) == offsets
        if part is not None:
            whole = make_run(offsets)
            assert (list(part.values), list(part.positions), part.size) == (whole.values, whole.positions, whole.size)


def test_another_models_age_does_not_count() -> None:
    """Nothing is written down for a run whose model has no limit, so nothing is looked at when it is sent."""
    run = replace(make_run([0, 1]), timestamps_ms=[1, 1])
    expiry = Expiry({"other": ModelExpiry(age_s_max=1.0, is_dropped=True)})
    expiry.limit(run, 0.0)
    assert run.deadlines_s is None
    assert split_expired(run, 1e9) == (run, None)
    assert (expiry.is_dropped("other"), expiry.is_dropped("digits")) == (True, False)
