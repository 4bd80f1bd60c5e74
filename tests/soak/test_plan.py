from itertools import pairwise

from tests.soak.plan import LASTS_S, OVERLAP_EVERY, OVERLAP_S, Kind, plan

ALL = frozenset(Kind)


def test_equal_seeds_give_equal_plans() -> None:
    """A run is repeated by its seed; another seed is another run."""
    assert plan(7, 300, 8, ALL) == plan(7, 300, 8, ALL)
    assert plan(7, 300, 8, ALL) != plan(8, 300, 8, ALL)


def test_kinds_come_equally_often() -> None:
    """However faults fall, no kind is ahead of another by more than one."""
    faults = plan(3, 600, 5, ALL)
    counts = [sum(fault.kind is kind for fault in faults) for kind in Kind]
    assert min(counts) > 3
    assert max(counts) - min(counts) <= 1


def test_faults_come_in_time_and_within_their_limits() -> None:
    """All of them begin within the run, in order, and last as long as their kind may."""
    faults = plan(1, 300, 5, ALL - {Kind.JOIN})
    times = [fault.at_s for fault in faults]
    assert times == sorted(times)
    assert times[-1] < 300
    for fault in faults:
        low, high = LASTS_S[fault.kind]
        assert low <= fault.lasts_s <= high
        assert 0 <= fault.choice < 1
        assert fault.kind is not Kind.JOIN


def test_every_fifth_fault_overlaps_the_one_before() -> None:
    """Faults meet: each fifth comes right behind another."""
    times = [fault.at_s for fault in plan(5, 600, 5, ALL)]
    gaps = [after - before for before, after in pairwise(times)]
    overlapping = {number + 2 for number, gap in enumerate(gaps) if abs(gap - OVERLAP_S) < 1e-9}
    assert overlapping == set(range(OVERLAP_EVERY, len(times) + 1, OVERLAP_EVERY))
