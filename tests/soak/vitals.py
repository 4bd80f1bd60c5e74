"""Memory, descriptors and threads of the program's processes over time, and whether they only grow.

Owns the samples and the judgement on them. Must not know what the processes are for.

A process that was just started grows until it has met everything once, so the first part of its life does not count.
Of the rest a straight line is fitted: its slope is called a leak where it is above zero beyond doubt (twice its
standard error) and comes to more than a stated amount. Descriptors and threads come and go with workers and
connections, so it is their lowest count that must not rise from the first third of the time to the last.
"""

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import psutil

SAMPLE_S = 2.0
WARM_UP_S = 60.0
"""Part of a process's life that does not count."""
JUDGED_S_MIN = 120.0
"""Shorter observations say nothing."""
GROWTH_MIB_MAX = 8.0
GROWTH_PART_MAX = 0.03
"""Growth over the observed time that is put down to noise: this many MiB, or this part of the size."""
COUNT_GROWTH_MAX = 5
"""Descriptors or threads that may be more at the end."""

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a process."""

    at_s: float
    """Seconds of its life."""
    own_mib: float
    """Memory that it shares with nobody."""
    descriptors: int
    threads: int


@dataclass(frozen=True, slots=True)
class Trend:
    """What the samples of one process say."""

    name: str
    observed_s: float
    first_mib: float
    last_mib: float
    slope_mib_h: float
    error_mib_h: float
    """The slope's standard error."""
    descriptors: tuple[int, int]
    """Lowest count in the first and in the last third."""
    threads: tuple[int, int]

    def violations(self) -> list[str]:
        """Say what only grows."""
        found = []
        grown_mib = self.slope_mib_h * self.observed_s / 3600
        is_sure = self.slope_mib_h > 2 * self.error_mib_h
        if is_sure and grown_mib > max(GROWTH_MIB_MAX, GROWTH_PART_MAX * self.first_mib):
            found.append(f"{self.name}: memory grew by {grown_mib:.1f} MiB in {self.observed_s:.0f} s")
        for what, (before, after) in (("descriptors", self.descriptors), ("threads", self.threads)):
            if after - before > COUNT_GROWTH_MAX:
                found.append(f"{self.name}: {what} rose from {before} to {after}")
        return found


def trend(name: str, samples: Sequence[Sample]) -> Trend | None:
    """Fit a line through what counts of a process's samples; None where that is too little to say anything."""
    judged = [sample for sample in samples if sample.at_s >= WARM_UP_S]
    if len(judged) < 10 or judged[-1].at_s - judged[0].at_s < JUDGED_S_MIN:
        return None
    times = [sample.at_s for sample in judged]
    sizes = [sample.own_mib for sample in judged]
    slope, intercept = statistics.linear_regression(times, sizes)
    middle = statistics.fmean(times)
    spread = sum((at - middle) ** 2 for at in times)
    rest = sum((size - intercept - slope * at) ** 2 for at, size in zip(times, sizes, strict=True))
    error = (rest / (len(judged) - 2) / spread) ** 0.5
    third = max(1, len(judged) // 3)
    first, last = judged[:third], judged[-third:]
    return Trend(
        name=name,
        observed_s=times[-1] - times[0],
        first_mib=statistics.fmean(sample.own_mib for sample in first),
        last_mib=statistics.fmean(sample.own_mib for sample in last),
        slope_mib_h=3600 * slope,
        error_mib_h=3600 * error,
        descriptors=(min(s.descriptors for s in first), min(s.descriptors for s in last)),
        threads=(min(s.threads for s in first), min(s.threads for s in last)),
    )


@dataclass(slots=True)
class _Watched:
    name: str
    process: psutil.Process
    samples: list[Sample] = field(default_factory=list)


class Vitals(threading.Thread):
    """Looks at processes until told to stop."""

    def __init__(self, present: Callable[[], Mapping[int, str]]) -> None:
        """Take who is there: asked at each look for the names of processes by their id."""
        super().__init__(name="vitals", daemon=True)
        self._present = present
        self._watched: dict[int, _Watched] = {}
        self._ended: list[_Watched] = []
        self._stopping = threading.Event()

    def run(self) -> None:
        """Look at everybody now and then."""
        while not self._stopping.wait(SAMPLE_S):
            present = self._present()
            for pid in [pid for pid in self._watched if pid not in present]:
                self._ended.append(self._watched.pop(pid))
            for pid, name in present.items():
                self._look(pid, name)

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self.join(30)

    def trends(self) -> list[Trend]:
        """Judge every process that was there for long enough."""
        found = (trend(each.name, each.samples) for each in [*self._ended, *self._watched.values()])
        return [each for each in found if each is not None]

    def _look(self, pid: int, name: str) -> None:
        try:
            watched = self._watched.get(pid)
            if watched is None:
                watched = self._watched[pid] = _Watched(name, psutil.Process(pid))
            process = watched.process
            sample = Sample(
                at_s=time.time() - process.create_time(),
                own_mib=process.memory_full_info().uss / _MIB,
                descriptors=process.num_fds(),
                threads=process.num_threads(),
            )
        except psutil.Error:
            return  # it has just ended
        watched.samples.append(sample)
