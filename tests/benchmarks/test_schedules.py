from dataclasses import replace

import numpy as np
import pytest

from benchmarks.generator import names
from benchmarks.receiver import Arrivals
from benchmarks.records import ID
from benchmarks.schedules import Received, Seconds, at_once, due_ns, poisson
from schemas.codecs import MSGPACK, encode_result
from schemas.records import Result
from schemas.tensors import Tensor


def received(times: Seconds, latency_ms: Seconds, sent: int | None = None) -> Received:
    """Make a trial's results."""
    moments = due_ns(times, 10**12)
    return Received(
        due_ns=moments,
        received_ns=moments + (latency_ms * 1e6).astype(np.int64),
        sent=len(times) if sent is None else sent,
        duplicates=0,
        infer_ms=0.0,
        sent_ns=int(moments.max()),
        late_ms=0.0,
    )


def test_a_poisson_schedule_has_its_rates() -> None:
    """Each stretch has its rate, the times rise, and gaps are exponential: as wide a spread as their mean."""
    times = poisson([(1_000.0, 20.0), (3_000.0, 10.0)])
    assert np.all(np.diff(times) >= 0)
    first, second = times[times < 20.0], times[times >= 20.0]
    assert len(first) == pytest.approx(20_000, rel=0.03)
    assert len(second) == pytest.approx(30_000, rel=0.03)
    assert times.max() < 30.0
    gaps = np.diff(first)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)


def test_schedules_repeat_by_seed() -> None:
    """A seed gives one schedule, another seed another."""
    assert np.array_equal(poisson([(100.0, 5.0)], 1), poisson([(100.0, 5.0)], 1))
    assert not np.array_equal(poisson([(100.0, 5.0)], 1)[:50], poisson([(100.0, 5.0)], 2)[:50])


def test_every_moment_names_one_record() -> None:
    """Moments rise strictly even where times are equal, and their names are ids in order."""
    moments = due_ns(at_once(1_000), 5)
    assert np.all(np.diff(moments) == 1)
    found = list(names(moments))
    assert len(set(found)) == 1_000
    assert all(ID.fullmatch(name) for name in found)
    assert [int(name) for name in found] == moments.tolist()


def test_latency_counts_from_the_schedule() -> None:
    """Percentiles are of the time since the scheduled moment, of the warm part alone."""
    times = np.arange(1_000) / 100.0
    trial = received(times, np.where(times < 2.0, 500.0, 3.0))
    found = trial.percentiles()
    assert found["p50 ms"] == found["p99.9 ms"] == pytest.approx(3.0)
    assert found["records/s"] == pytest.approx(100.0, rel=0.01)
    assert trial.lost == 0
    assert received(times, np.full(1_000, 3.0), sent=1_010).lost == 10


def test_recovery_is_the_end_of_the_last_bad_window() -> None:
    """It ends with the last half second whose p99 is above twice the one before; never, if that is the last one."""
    times = np.arange(10_000) / 500.0
    calm = np.full(10_000, 2.0)
    assert received(times, calm).recovery_s((8.0, 9.0)) == 0.0
    slow = np.where((times >= 8.0) & (times < 11.2), 50.0, 2.0)
    assert received(times, slow).recovery_s((8.0, 9.0)) == pytest.approx(2.5)
    assert received(times, np.where(times >= 8.0, 50.0, 2.0)).recovery_s((8.0, 9.0)) == float("inf")


def test_a_fault_held_what_was_due_and_not_answered() -> None:
    """Records due in its first half without a result at its end count, and no others."""
    times = np.arange(100) / 10.0
    trial = received(times, np.where((times >= 4.0) & (times < 8.0), 5_000.0, 1.0))
    start_ns = int(trial.due_ns[0])
    assert replace(trial, struck=(start_ns + 4 * 10**9, start_ns + 6 * 10**9)).held() == 10
    assert replace(trial, struck=(start_ns + 1 * 10**9, start_ns + 3 * 10**9)).held() == 0
    assert trial.held() == 0


def test_capacity_is_the_rate_while_records_are_sent() -> None:
    """Results that come after the generator's end, with the machine to themselves, do not count."""
    arrivals = np.concatenate([np.linspace(0.0, 10.0, 1_000), np.linspace(10.0, 10.1, 500)])
    trial = Received(
        due_ns=due_ns(at_once(1_500), 0),
        received_ns=(arrivals * 1e9).astype(np.int64),
        sent=1_500,
        duplicates=0,
        infer_ms=0.0,
        sent_ns=10 * 10**9,
        late_ms=0.0,
    )
    assert trial.capacity() == pytest.approx(100.0, rel=0.01)


def test_the_receiver_counts_a_record_once() -> None:
    """The first result of a record counts, others are duplicates, and records of the warm-up are none."""
    arrivals, scores = Arrivals(MSGPACK), Tensor.of("scores", np.zeros(10, np.float32))
    for identity, now_ns in (("0" * 31 + "7", 20), ("0" * 31 + "7", 30), ("f" * 32, 40), ("0" * 31 + "9", 50)):
        value = encode_result(Result(identity, "m", "1", (scores,), {"infer_ms": 1.5}), MSGPACK)
        arrivals.add(value, now_ns)
    assert arrivals.received == {7: 20, 9: 50}
    assert arrivals.duplicates == 1
    assert arrivals.infer_ms == [1.5]
