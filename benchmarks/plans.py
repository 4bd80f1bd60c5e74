"""How much is measured, and what came of it: what every experiment is given and gives back."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.intervals import Interval, paired
from benchmarks.runner import Lab


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured."""

    records: int
    """Of W1 binary; the other workloads follow it."""
    rounds: int
    workers: int
    experiments: tuple[str, ...]
    only: tuple[str, ...] = ()
    """The subjects of W1 to run; all of them if empty."""
    is_quick: bool = False

    def share(self, count: int) -> int:
        """Scale a number of records that suits 600,000 of W1."""
        return max(round(count * self.records / 600_000), 64)

    def seconds(self, longest: float) -> float:
        """Scale what a ceiling is measured for, likewise; never longer."""
        return min(max(longest * self.records / 600_000, 1.0), longest)


@dataclass(slots=True)
class Outcome:
    """What came of the experiments."""

    measured: dict[str, Interval] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    ceilings: dict[str, dict[str, float]] = field(default_factory=dict)
    """Ceilings and references by name, each with its values."""
    semantics: dict[str, str] = field(default_factory=dict)
    resident_mb: dict[str, list[float]] = field(default_factory=dict)
    """Of supervisor and worker, by lap."""
    profiles: dict[str, dict[str, float]] = field(default_factory=dict)
    """By workload: the CPU microseconds of one record, by process, thread and function."""
    has_failed: bool = False

    def fail(self, failures: Sequence[str]) -> None:
        """Keep what went wrong."""
        self.notes.extend(failures)
        self.has_failed = self.has_failed or bool(failures)

    def compare(self, name: str, own: Sequence[float], other: Sequence[float]) -> None:
        """Work a ratio out, if both sides ran in every round."""
        if own and len(own) == len(other):
            self.measured[name] = paired(own, other)


def speeds(lab: Lab, name: str) -> list[float]:
    """Return a subject's records a second, by round."""
    return [each.records_per_s for each in lab.runs.get(name, ())]
