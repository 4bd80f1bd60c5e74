from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks import growth
from benchmarks.growth import Course, line
from benchmarks.subjects import Run
from benchmarks.watch import StalledError, Usage


class Scripted:
    """A lab, its topics and the processes of a program, as a lap sees them."""

    def __init__(self, committed: Iterator[int], delivered: int) -> None:
        self._committed, self._delivered, self._looks = committed, delivered, 0
        self.filled: list[int] = []
        self.cleared: list[str] = []
        self.topics = self

    def fill(self, _topic: str, _workload: object, count: int) -> int:
        """Note how many records are sent."""
        self.filled.append(count)
        return count

    def committed(self, _group: str, _topic: str) -> int:
        """Take the next sum of committed offsets."""
        return next(self._committed)

    def end(self, _topic: str) -> int:
        """Count the results so far."""
        return self._delivered

    def clear(self, topic: str) -> None:
        """Note what was deleted."""
        self.cleared.append(topic)

    def look(self) -> Usage:
        """Have ten MB more at each look."""
        self._looks += 1
        return Usage(private={"supervisor": self._looks * 10_000_000})


def course(scripted: Scripted) -> Course:
    """Make a course of it."""
    run = Run(name="run", bootstrap="here:1", sources=("source",), directory=Path())
    return Course(lab=cast("Any", scripted), run=run, targets=("run.mlp",), processes=cast("Any", scripted))


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "time", SimpleNamespace(sleep=lambda _: None, monotonic=iter(range(10**6)).__next__))


def test_a_lap_lasts_until_its_records_are_committed() -> None:
    """It tells the mean of what was resident until then, and deletes what was read and written."""
    scripted = Scripted(iter([100, 150, 200]), delivered=200)
    assert course(scripted).lap(200, 100) == {"supervisor": 20.0}
    assert scripted.filled == [100]
    assert scripted.cleared == ["source", "run.mlp"]


def test_a_lap_without_all_results_is_told() -> None:
    """Committed without a result is a loss."""
    with pytest.raises(StalledError, match="199 results of 200 records"):
        course(Scripted(iter([200]), delivered=199)).lap(200, 100)


def test_a_lap_that_stops_is_told() -> None:
    """A program that commits nothing any more fails, with how far it came."""
    with pytest.raises(StalledError, match="150 of 200 records committed"):
        course(Scripted(iter([150] * 1000), delivered=150)).lap(200, 100)


def test_a_line_is_told_by_the_million() -> None:
    """Half a megabyte a lap of 500,000 records is one a million, and ten over ten million."""
    sizes = [100.0 + 0.5 * lap for lap in range(15)]
    assert line(sizes, 500_000).median == pytest.approx(1.0)
    assert line(sizes, 500_000, growth.RECORDS).median == pytest.approx(10.0)
