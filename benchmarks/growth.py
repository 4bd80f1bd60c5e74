"""Whether the program's memory grows over many records: laps of one topic, whose records are deleted behind it.

Owns the laps and the line through what was resident. Shared memory is left out, as in `benchmarks.memory`.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks import subjects
from benchmarks.intervals import Interval, slope
from benchmarks.plans import Outcome, Plan
from benchmarks.runner import Lab
from benchmarks.subjects import Run
from benchmarks.watch import STALL_S, Processes, StalledError, Watched
from benchmarks.workloads import W1

RECORDS = 10_000_000
LAPS, WARM_LAPS = 20, 5
"""Laps in all, and how many at the start do not count: pools and caches fill."""
LOOK_S = 0.25
Sizes = dict[str, float]
"""MB by role."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """A program that goes on from lap to lap."""

    lab: Lab
    run: Run
    targets: tuple[str, ...]
    processes: Processes

    def lap(self, until: int, records: int) -> Sizes:
        """Send records, look until all are committed, delete them; the mean of what was resident.

        Raises:
            StalledError: they were not answered and committed, or the program has ended.
        """
        (source,) = self.run.sources
        looks: list[Sizes] = []
        committed, moved_s = 0, time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            filling = pool.submit(self.lab.fill, source, W1, records)
            while committed < until:
                time.sleep(LOOK_S)
                looks.append({role: size / 1e6 for role, size in self.processes.look().private.items()})
                now = self.lab.topics.committed(self.run.name, source)
                if now > committed:
                    committed, moved_s = now, time.monotonic()
                if time.monotonic() - moved_s > STALL_S:
                    raise StalledError(f"{committed:,} of {until:,} records committed, then none for {STALL_S:.0f} s")
            filling.result()
        delivered = sum(self.lab.topics.end(target) for target in self.targets)
        if delivered != until:
            raise StalledError(f"{delivered:,} results of {until:,} records")
        for topic in (source, *self.targets):
            self.lab.topics.clear(topic)
        return {role: sum(look[role] for look in looks if role in look) / len(looks) for role in looks[-1]}


def growth(lab: Lab, plan: Plan, outcome: Outcome) -> None:
    """W1 in laps by one program; lines through the memory of its supervisor, of its worker, and of both."""
    lab.write_networks(W1)
    records = max(plan.share(RECORDS) // LAPS, 64)
    subject, source, laps = subjects.programs(W1, plan.workers)[0], "bench-growth", list[Sizes]()
    lab.topics.create(source)
    try:
        with lab.run(W1, subject, (source,)) as (run, targets, pid):
            watched = Watched(pid=pid, role=subject.role, broker_pid=None, group=run.name, counts={}, targets=targets)
            course = Course(lab=lab, run=run, targets=targets, processes=Processes(watched))
            for number in range(1, LAPS + 1):
                laps.append(course.lap(number * records, records))
                told = ", ".join(f"{role} {size:,.1f} MB" for role, size in laps[-1].items())
                lab.console.print(f"growth, {number * records:,} records: {told}")
    finally:
        lab.topics.delete(source)
    lines = {role: line([lap[role] for lap in laps[WARM_LAPS:]], records) for role in laps[0]}
    outcome.resident_mb = {role: [lap[role] for lap in laps] for role in laps[0]}
    outcome.measured["growth_mb"] = line([sum(lap.values()) for lap in laps[WARM_LAPS:]], records, RECORDS)
    for role, each in lines.items():
        outcome.ceilings[f"growth of {role}, MB a million records"] = {
            "line": each.median,
            "low": each.low,
            "high": each.high,
        }
        verdict = "within" if each.low <= 0.0 <= each.high else "not within"
        told = f"{each.median:+.3f} MB a million records ({each.low:+.3f} to {each.high:+.3f})"
        lab.console.print(f"growth of {role}: {told}; zero is {verdict} the error")


def line(sizes: list[float], records: int, over: int = 1_000_000) -> Interval:
    """Fit a line to laps of so many records; its slope over a number of records."""
    found = slope(sizes)
    return Interval(*(each * over / records for each in (found.median, found.low, found.high)))
