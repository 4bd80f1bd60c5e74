import os
import random
import time

from tests.soak.vitals import JUDGED_S_MIN, WARM_UP_S, Sample, Vitals, trend


def life(*, slope_mib_s: float = 0.0, noise_mib: float = 0.5, descriptors_s: float = 0.0) -> list[Sample]:
    """Make the samples of a process that first grows by 100 MiB, as all do, and then as it is told."""
    drawn = random.Random(1)
    return [
        Sample(
            at_s=at_s,
            own_mib=100 + min(at_s, WARM_UP_S) * 100 / WARM_UP_S + slope_mib_s * at_s + drawn.gauss(0, noise_mib),
            descriptors=40 + int(descriptors_s * at_s) + drawn.randint(0, 5),
            threads=12,
        )
        for at_s in range(0, 600, 2)
    ]


def test_a_process_that_only_warms_up_does_not_leak() -> None:
    """Growth at the start, noise, and connections that come and go are no violation."""
    found = trend("steady", life(noise_mib=3.0))
    assert found is not None
    assert found.violations() == []
    assert abs(found.slope_mib_h) < 3 * found.error_mib_h


def test_a_leak_is_found() -> None:
    """Steady growth after the start is one, and the line says how much it was."""
    found = trend("leaky", life(slope_mib_s=0.05, noise_mib=3.0))
    assert found is not None
    (violation,) = found.violations()
    assert violation.startswith("leaky: memory grew by 2")
    assert 160 < found.slope_mib_h < 200


def test_descriptors_that_only_rise_are_found() -> None:
    """One left open now and then shows in the lowest count."""
    found = trend("holder", life(descriptors_s=0.03))
    assert found is not None
    assert any("descriptors rose from 4" in violation for violation in found.violations())


def test_a_short_life_says_nothing() -> None:
    """Too little after the start is no verdict, rather than a good one."""
    assert trend("young", [each for each in life() if each.at_s < WARM_UP_S + JUDGED_S_MIN - 2]) is None


def test_processes_are_looked_at_until_they_end() -> None:
    """The sampler sees this very process, and takes one that is gone for gone."""
    vitals = Vitals(lambda: {os.getpid(): "this one", 2**22 + 1: "nobody"})
    vitals._look(os.getpid(), "this one")
    vitals._look(2**22 + 1, "nobody")
    (sample,) = vitals._watched[os.getpid()].samples
    assert sample.own_mib > 1
    assert sample.threads >= 1
    assert sample.descriptors >= 3
    assert 0 <= sample.at_s <= time.time()
    assert 2**22 + 1 not in vitals._watched
