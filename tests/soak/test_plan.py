from itertools import islice, pairwise

from tests.soak.plan import LASTS_S, OVERLAP_EVERY, OVERLAP_S, Fault, Kind, plan

ALL = frozenset(Kind)


def drawn(seed: int, count: int, kinds: frozenset[Kind] = ALL) -> list[Fault]:
    """Draw so many faults."""
    return list(islice(plan(seed, 5, kinds), count))


def test_equal_seeds_give_equal_plans() -> None:
    """A run is repeated by its seed; another seed is another run."""
    assert drawn(7, 50) == drawn(7, 50)
    assert drawn(7, 50) != drawn(8, 50)


def test_kinds_come_equally_often() -> None:
    """However faults fall, no kind is ahead of another by more than one."""
    faults = drawn(3, 100)
    counts = [sum(fault.kind is kind for fault in faults) for kind in Kind]
    assert min(counts) > 3
    assert max(counts) - min(counts) <= 1


def test_faults_come_in_order_and_within_their_limits() -> None:
    """One after the other, each lasts as long as its kind may, and none is of a kind that cannot be done."""
    faults = drawn(1, 100, ALL - {Kind.JOIN})
    times = [fault.at_s for fault in faults]
    assert times == sorted(times)
    assert times[-1] > 100 * 2
    for fault in faults:
        low, high = LASTS_S[fault.kind]
        assert low <= fault.lasts_s <= high
        assert 0 <= fault.choice < 1
        assert fault.kind is not Kind.JOIN


def test_every_fifth_fault_overlaps_the_one_before() -> None:
    """Faults meet: each fifth comes right behind another."""
    times = [fault.at_s for fault in drawn(5, 100)]
    gaps = [after - before for before, after in pairwise(times)]
    overlapping = {number + 2 for number, gap in enumerate(gaps) if abs(gap - OVERLAP_S) < 1e-9}
    assert overlapping == set(range(OVERLAP_EVERY, len(times) + 1, OVERLAP_EVERY))
