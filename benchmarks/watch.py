"""What a run did, seen from outside: results in their topics, committed offsets, CPU and memory of each process.

Owns the measurement and nothing of what is measured: the same for every subject, from the first result to the last
one delivered and committed, so that the start of an interpreter or a group join counts for none of them.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import psutil

SAMPLE_S = 0.04
"""Between two looks. Each costs the broker some requests, which count for every subject alike."""
CHILDREN_S = 0.5
"""Between two searches for child processes, which read the whole process table."""
STALL_S = 60.0


class StalledError(Exception):
    """Nothing moved for so long that the run failed."""


class Offsets(Protocol):
    """Where the offsets of topics and groups are asked."""

    def end(self, topic: str) -> int:
        """Count a topic's records by its end offsets."""

    def committed(self, group: str, topic: str) -> int:
        """Sum a group's committed offsets."""


@dataclass(slots=True)
class Usage:
    """CPU seconds so far of each role's processes together, and the resident set (bytes) of the largest of them."""

    cpu_s: dict[str, float] = field(default_factory=dict)
    peak_rss: dict[str, int] = field(default_factory=dict)
    peak_private: dict[str, int] = field(default_factory=dict)
    """The resident set without memory shared with other processes."""
    private: dict[str, int] = field(default_factory=dict)
    """The same at this moment."""

    def since(self, before: "Usage", records: int) -> dict[str, float]:
        """Return the CPU microseconds per record of each role since an earlier look."""
        return {role: 1e6 * (used - before.cpu_s.get(role, 0.0)) / records for role, used in self.cpu_s.items()}


@dataclass(slots=True)
class Measurement:
    """One run."""

    records: int
    seconds: float
    """From the first result to the last one delivered and committed."""
    records_per_s: float
    cpu_us: dict[str, float]
    """CPU microseconds per record, user and system, by role; the broker's is `broker`."""
    warm_records_per_s: float
    """The second half of the records."""
    warm_cpu_us: dict[str, float]
    peak_mb: dict[str, float]
    """Resident, of the largest process of each role."""
    peak_private_mb: dict[str, float]
    """Without the memory that is shared with other processes."""
    commit_lag_s: float
    """From the last result delivered to the last offset committed."""

    def own_cpu_us(self) -> float:
        """CPU microseconds per record of all processes but the broker."""
        return sum(used for role, used in self.cpu_us.items() if role != "broker")


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What is watched."""

    pid: int
    role: str
    """What to call its main process."""
    broker_pid: int | None
    group: str
    counts: Mapping[str, int]
    """Records by their source topic."""
    targets: tuple[str, ...]
    commits: bool = True

    @property
    def count(self) -> int:
        """All records."""
        return sum(self.counts.values())

    @property
    def commits_due(self) -> int:
        """The offsets to be committed in the end."""
        return self.count if self.commits else 0


def resident(pid: int) -> tuple[int, int]:
    """Read a process's resident set and the part of it that is shared memory, in bytes; 0 once it is gone."""
    try:
        with open(f"/proc/{pid}/status") as status:  # noqa: PTH123 - read many times a second
            fields = dict(line.split(":", 1) for line in status)
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    kilobytes = [int(fields.get(name, "0 kB").split()[0]) for name in ("VmRSS", "RssShmem")]
    return kilobytes[0] * 1024, kilobytes[1] * 1024


class Processes:
    """A run's processes, by their roles."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._roles: dict[psutil.Process, str] = {}
        self._found_at_s = float("-inf")
        self._usage = Usage()

    def look(self) -> Usage:
        """Sample them all; the peaks are those of all looks so far.

        Raises:
            StalledError: the main process has ended.
        """
        now_s = time.monotonic()
        if now_s - self._found_at_s >= CHILDREN_S:
            self._find()
            self._found_at_s = now_s
        usage = Usage(peak_rss=self._usage.peak_rss, peak_private=self._usage.peak_private)
        sizes: dict[str, tuple[int, int]] = {}
        for process, role in self._roles.items():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            rss, shared = resident(process.pid)
            usage.cpu_s[role] = usage.cpu_s.get(role, 0.0) + times.user + times.system
            largest, largest_private = sizes.get(role, (0, 0))
            sizes[role] = (max(largest, rss), max(largest_private, rss - shared))
        for role, (rss, private) in sizes.items():
            usage.peak_rss[role] = max(usage.peak_rss.get(role, 0), rss)
            usage.peak_private[role] = max(usage.peak_private.get(role, 0), private)
            usage.private[role] = private
        self._usage = usage
        return usage

    def _find(self) -> None:
        try:
            root = psutil.Process(self._watched.pid)
            if root.status() == psutil.STATUS_ZOMBIE:
                raise StalledError("the process has ended")
            children = root.children(recursive=True)
        except psutil.NoSuchProcess:
            raise StalledError("the process has ended") from None
        self._roles = {root: self._watched.role} | dict.fromkeys(children, "workers")
        if self._watched.broker_pid is not None:
            self._roles[psutil.Process(self._watched.broker_pid)] = "broker"


@dataclass(slots=True)
class Mark:
    """A moment of a run."""

    at_s: float
    delivered: int
    usage: Usage


def watch(offsets: Offsets, watched: Watched) -> Measurement:
    """Follow a run from the last moment without a result until all are delivered and committed.

    Raises:
        StalledError: nothing moved for a minute, or the process is gone.
    """
    processes = Processes(watched)
    first = last = Mark(time.monotonic(), 0, processes.look())
    half: Mark | None = None
    committed, moved_at_s, delivered_at_s = 0, last.at_s, last.at_s
    while last.delivered < watched.count or committed < watched.commits_due:
        time.sleep(SAMPLE_S)
        if last.delivered < watched.count:
            seen = sum(offsets.end(target) for target in watched.targets)
        else:
            seen = last.delivered
            now_committed = sum(offsets.committed(watched.group, source) for source in watched.counts)
            if now_committed > committed:
                committed, moved_at_s = now_committed, time.monotonic()
        now = Mark(time.monotonic(), seen, processes.look())
        if not seen:
            first = now
        if seen > last.delivered:
            moved_at_s = now.at_s
            if half is None and seen * 2 >= watched.count:
                half = now
            if seen >= watched.count:
                delivered_at_s = now.at_s
        last = now
        if now.at_s - moved_at_s > STALL_S:
            raise StalledError(
                f"{seen} of {watched.count} results and {committed} committed offsets, then none for {STALL_S:.0f} s"
            )
    assert half is not None
    return summary(watched.count, (first, half, last), last.at_s - delivered_at_s)


def summary(count: int, marks: tuple[Mark, Mark, Mark], commit_lag_s: float) -> Measurement:
    """Work a measurement out from its first moment, the half of it, and the last."""
    first, half, last = marks
    seconds, rest = last.at_s - first.at_s, max(count - half.delivered, 1)
    warm_s = last.at_s - half.at_s
    return Measurement(
        records=count,
        seconds=seconds,
        records_per_s=count / seconds,
        cpu_us=last.usage.since(first.usage, count),
        # A run whose second half fell between two looks has no warm state of its own.
        warm_records_per_s=rest / warm_s if half.delivered < count and warm_s > 0 else count / seconds,
        warm_cpu_us=last.usage.since(half.usage, rest),
        peak_mb={role: size / 1e6 for role, size in last.usage.peak_rss.items()},
        peak_private_mb={role: size / 1e6 for role, size in last.usage.peak_private.items()},
        commit_lag_s=commit_lag_s,
    )
