"""When records are to be sent in an open loop, whatever becomes of those before; and what their latencies say. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]
Nanoseconds = NDArray[np.int64]

PERCENTILES = {"p50 ms": 50.0, "p90 ms": 90.0, "p99 ms": 99.0, "p99.9 ms": 99.9}
WARM_SHARE = 0.25
"""The part of a trial that does not count for its percentiles."""
WINDOW_S = 0.5


def poisson(stretches: Iterable[tuple[float, float]], seed: int = 0) -> Seconds:
    """Draw send times by Poisson processes one after the other.

    Args:
        stretches: records a second, and for how many seconds.
        seed: of the draw.
    """
    random, start_s, drawn = np.random.default_rng(seed), 0.0, []
    for rate, seconds in stretches:
        times = np.sort(random.random(random.poisson(rate * seconds))) * seconds
        drawn.append(start_s + times)
        start_s += seconds
    return np.concatenate(drawn) if drawn else np.empty(0)


def at_once(count: int) -> Seconds:
    """Send everything as fast as it goes."""
    return np.zeros(count)


def due_ns(times: Seconds, start_ns: int) -> Nanoseconds:
    """Turn send times into moments of the clock, each later than the one before, so that it names its record."""
    moments = start_ns + np.round(times * 1e9).astype(np.int64)
    steps = np.arange(len(moments))
    return np.maximum.accumulate(moments - steps) + steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """The results of one trial; a record's first one, where it has several."""

    due_ns: Nanoseconds
    received_ns: Nanoseconds
    sent: int
    duplicates: int
    infer_ms: float
    """Median time of a batch in the model, by a sample of the results; 0 where they do not tell."""
    sent_ns: int
    """When the last record was sent."""
    late_ms: float
    """The 99th percentile of what the generator itself sent too late; part of the latencies."""
    struck: tuple[int, int] | None = None
    """When a fault began and ended, where there was one, in ns of the clock."""

    @property
    def latency_ms(self) -> Seconds:
        """From the scheduled send time to the receipt of the result."""
        return (self.received_ns - self.due_ns) / 1e6

    @property
    def lost(self) -> int:
        """Records without a result."""
        return self.sent - len(self.due_ns)

    def held(self) -> int:
        """Count the records that were due in the first half of a fault and had no result at its end."""
        if self.struck is None:
            return 0
        began_ns, ended_ns = self.struck
        is_due = (self.due_ns >= began_ns) & (self.due_ns < (began_ns + ended_ns) // 2)
        return int((is_due & (self.received_ns > ended_ns)).sum())

    def percentiles(self) -> dict[str, float]:
        """Return the percentiles of the warm part, the rates, and how long the results came after the last record."""
        start_ns, end_ns = int(self.due_ns.min()), int(self.due_ns.max())
        warm = self.latency_ms[self.due_ns >= start_ns + WARM_SHARE * (end_ns - start_ns)]
        values = {name: float(np.percentile(warm, each)) for name, each in PERCENTILES.items()}
        drain_s = max(int(self.received_ns.max()) - end_ns, 0) / 1e9
        rate = self.sent / max((end_ns - start_ns) / 1e9, 1e-9)
        return {"records/s": rate, **values, "drained s": drain_s, "sent late p99 ms": self.late_ms}

    def capacity(self) -> float:
        """Return the results a second while the generator was still sending, the first quarter of the time left out."""
        start_ns, end_ns = int(self.received_ns.min()), max(self.sent_ns, int(np.median(self.received_ns)))
        warm_ns = start_ns + WARM_SHARE * (end_ns - start_ns)
        count = int(((self.received_ns >= warm_ns) & (self.received_ns <= end_ns)).sum())
        return count / ((end_ns - warm_ns) / 1e9)

    def recovery_s(self, disturbed: tuple[float, float], factor: float = 2.0) -> float:
        """Return how long after a disturbance latencies were back, as the records of half a second have them.

        Args:
            disturbed: its first and last second, from the first record on.
            factor: how far above the p99 before the disturbance counts as back.

        Returns:
            Seconds from the end of the disturbance to the end of the last window whose p99 is still above; infinity
            if that is the last window of all.
        """
        seconds = (self.due_ns - self.due_ns.min()) / 1e9
        first_s, last_s = disturbed
        before = self.latency_ms[(seconds >= first_s * WARM_SHARE) & (seconds < first_s)]
        limit_ms = factor * float(np.percentile(before, 99))
        back_s, end_s = last_s, last_s
        while end_s < float(seconds.max()):
            window = self.latency_ms[(seconds >= end_s) & (seconds < end_s + WINDOW_S)]
            end_s += WINDOW_S
            if len(window) and float(np.percentile(window, 99)) > limit_ms:
                back_s = end_s
        return float("inf") if back_s >= end_s > last_s else back_s - last_s
