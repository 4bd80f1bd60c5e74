import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks import watch as watching
from benchmarks.watch import Mark, StalledError, Usage, Watched, resident, summary, watch


class Scripted:
    """Offsets that move with every question."""

    def __init__(self, ends: Iterator[int], committed: Iterator[int]) -> None:
        self._ends, self._committed = ends, committed

    def end(self, topic: str) -> int:
        """Take the next end."""
        assert topic == "target"
        return next(self._ends)

    def committed(self, group: str, topic: str) -> int:
        """Take the next sum of committed offsets."""
        assert (group, topic) == ("group", "source")
        return next(self._committed)


@pytest.fixture
def watched() -> Iterator[Watched]:
    """A process that waits for its end."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield Watched(
            pid=process.pid, role="loop", broker_pid=None, group="group", counts={"source": 100}, targets=("target",)
        )
        process.kill()


def test_a_run_ends_with_its_last_commit(watched: Watched) -> None:
    """Delivered is not done: the time runs until all offsets are committed, and the lag between them is told."""
    result = watch(Scripted(iter([0, 40, 60, 100]), iter([0, 50, 100])), watched)
    assert result.records == 100
    assert result.seconds >= 6 * watching.SAMPLE_S
    assert 3 * watching.SAMPLE_S <= result.commit_lag_s < result.seconds
    assert result.records_per_s == pytest.approx(100 / result.seconds)
    assert set(result.cpu_us) == set(result.peak_mb) == {"loop"}


def test_a_run_without_commits_ends_with_its_last_result(watched: Watched) -> None:
    """A subject that commits nothing is not waited for, and its group is not asked."""
    result = watch(Scripted(iter([0, 40, 100]), iter([])), replace(watched, commits=False))
    assert result.commit_lag_s == 0.0
    assert result.records_per_s == pytest.approx(100 / result.seconds)


def test_a_run_that_stops_is_told(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subject that delivers nothing any more fails, with how far it came."""
    monkeypatch.setattr(watching, "STALL_S", 0.2)
    with pytest.raises(StalledError, match="30 of 100 results and 0 committed"):
        watch(Scripted(iter([30] * 1000), iter([])), watched)


def test_a_process_that_dies_is_told(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subject that ends before its records do fails at once."""
    monkeypatch.setattr(watching, "CHILDREN_S", 0.0)
    subprocess.run(["kill", "-9", str(watched.pid)], check=True)
    with pytest.raises(StalledError, match="has ended"):
        watch(Scripted(iter([0] * 1000), iter([])), watched)


def test_the_second_half_is_the_warm_state() -> None:
    """Speed and CPU of the second half come from the records after the half alone."""
    marks = (
        Mark(0.0, 0, Usage({"loop": 1.0, "broker": 5.0}, {"loop": 2_000_000}, {"loop": 1_000_000})),
        Mark(8.0, 60, Usage({"loop": 4.0, "broker": 6.0}, {"loop": 2_000_000}, {"loop": 1_000_000})),
        Mark(10.0, 100, Usage({"loop": 5.0, "broker": 6.4}, {"loop": 2_000_000}, {"loop": 1_000_000})),
    )
    result = summary(100, marks, commit_lag_s=0.5)
    assert (result.records_per_s, result.warm_records_per_s) == (10.0, 20.0)
    assert result.cpu_us == pytest.approx({"loop": 40_000.0, "broker": 14_000.0})
    assert result.warm_cpu_us == pytest.approx({"loop": 25_000.0, "broker": 10_000.0})
    assert result.own_cpu_us() == pytest.approx(40_000.0)
    assert (result.peak_mb, result.peak_private_mb) == ({"loop": 2.0}, {"loop": 1.0})


def test_results_that_came_at_once_have_no_second_half() -> None:
    """Where the first look that saw half of the records saw them all, the wait for the commit is no warm state."""
    usage = Usage({"loop": 1.0}, {"loop": 1}, {"loop": 1})
    marks = (Mark(0.0, 0, usage), Mark(1.0, 100, usage), Mark(2.0, 100, usage))
    assert summary(100, marks, commit_lag_s=1.0).warm_records_per_s == 50.0


def test_shared_memory_is_told_apart() -> None:
    """What a process maps from a memory file counts as shared, and nothing is read of one that is gone."""
    code = "import os, mmap; f = os.memfd_create('m'); os.ftruncate(f, 1 << 26); m = mmap.mmap(f, 1 << 26)"
    code += "; m[:] = bytes(1 << 26); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        rss, shared = resident(process.pid)
        process.kill()
    assert shared >= 1 << 26
    assert rss > shared
    process.wait()
    assert resident(process.pid) == (0, 0)
