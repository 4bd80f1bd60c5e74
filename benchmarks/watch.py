"""What a run did, seen from outside: results in their topic, committed offsets, CPU and memory of each process.

Owns the measurement and nothing of what is measured: the same for the loops and for the program, from the first result
to the last, so that the start of an interpreter or a group join counts for none of them.
"""

import time
from dataclasses import dataclass, field

import psutil

from benchmarks.topics import Topics

SAMPLE_S = 0.02
STALL_S = 60.0


class StalledError(Exception):
    """Nothing moved for so long that the run failed."""


@dataclass(slots=True)
class Usage:
    """CPU seconds so far and the largest resident set (bytes) of each process, by its role."""

    cpu_s: dict[str, float] = field(default_factory=dict)
    peak_rss: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Measurement:
    """One run."""

    records: int
    seconds: float
    cpu_us: dict[str, float]
    """CPU microseconds per record, user and system, by role; the broker's is `broker`."""
    peak_mb: dict[str, float]
    commit_lag_s: float
    """From the last result delivered to the last offset committed."""

    @property
    def records_per_s(self) -> float:
        """Results delivered a second."""
        return self.records / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is watched."""

    pid: int
    role: str
    """What to call its main process."""
    broker_pid: int | None
    group: str
    source: str
    target: str
    count: int


def use(subject: Subject, usage: Usage) -> Usage:
    """Sample a run's processes; `usage` carries the peaks on.

    Raises:
        StalledError: the main process has ended.
    """
    root = psutil.Process(subject.pid)
    if root.status() == psutil.STATUS_ZOMBIE:
        raise StalledError("the process has ended")
    roles = {subject.pid: subject.role} | {child.pid: "workers" for child in root.children(recursive=True)}
    if subject.broker_pid is not None:
        roles[subject.broker_pid] = "broker"
    sampled = Usage(peak_rss=usage.peak_rss)
    resident: dict[str, int] = {}
    for each, role in roles.items():
        try:
            process = psutil.Process(each)
            times, memory = process.cpu_times(), process.memory_info()
        except psutil.NoSuchProcess:
            continue
        sampled.cpu_s[role] = sampled.cpu_s.get(role, 0.0) + times.user + times.system
        resident[role] = resident.get(role, 0) + memory.rss
    for role, size in resident.items():
        sampled.peak_rss[role] = max(sampled.peak_rss.get(role, 0), size)
    return sampled


def watch(topics: Topics, subject: Subject) -> Measurement:
    """Follow a run from the last moment without a result until all are delivered and committed.

    Raises:
        StalledError: nothing was delivered for a minute, or the process is gone.
    """
    usage = before = use(subject, Usage())
    delivered, first_at_s = 0, time.monotonic()
    moved_at_s = first_at_s
    while delivered < subject.count:
        time.sleep(SAMPLE_S)
        seen, now_s = topics.end(subject.target), time.monotonic()
        usage = use(subject, usage)
        if not seen:
            first_at_s, before = now_s, usage
        if seen > delivered:
            moved_at_s, delivered = now_s, seen
        if now_s - moved_at_s > STALL_S:
            raise StalledError(f"{delivered} of {subject.count} results, then none for {STALL_S:.0f} s")
    last_at_s = time.monotonic()
    while topics.committed(subject.group, subject.source) < subject.count:
        if time.monotonic() - last_at_s > STALL_S:
            message = f"all {subject.count} results are delivered, but the offsets are not committed"
            raise StalledError(message)
        time.sleep(SAMPLE_S)
    return Measurement(
        records=delivered,
        seconds=moved_at_s - first_at_s,
        cpu_us={role: 1e6 * (used - before.cpu_s.get(role, 0.0)) / delivered for role, used in usage.cpu_s.items()},
        peak_mb={role: size / 1e6 for role, size in usage.peak_rss.items()},
        commit_lag_s=time.monotonic() - last_at_s,
    )
