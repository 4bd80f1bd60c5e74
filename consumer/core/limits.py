"""How many records of a model may be sent now, where the configuration bounds it.

Owns one model's allowance: the records that may be with workers at a time, and the rate at which they may go there.
Must not know queues, workers or clocks.

Theory of operation. The rate is kept by a bucket of tokens, one a record, filled at the rate up to what it gains in
`BURST_S` and one more: no longer a rest makes a larger burst. Records are not sent token by token, for a batch would
never have more than a few: they wait until a batch, or half of the bucket, can go at once. Half a bucket lasts longer
than the longest turn of the loop that has nothing to do, so that no token is lost and nobody has to be woken.

Invariants: with workers <= in_flight_records_max; sent in any t seconds <= 1 + rate_per_s_max * (BURST_S + t).
"""

from dataclasses import dataclass

BURST_S = 0.2
"""Seconds at the full rate that a rest may be made up for at once."""
ROUNDING = 1e-9
"""Part of a token that may be missing: sums of many small times are not exact."""


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What the configuration allows a model; None: any number."""

    in_flight_records_max: int | None = None
    """Records that may be with workers at a time."""
    rate_per_s_max: float | None = None
    """Records that may be sent to workers in a second."""

    @property
    def are_set(self) -> bool:
        """Tell whether there is any."""
        return self.in_flight_records_max is not None or self.rate_per_s_max is not None


class Allowance:
    """What one model may send."""

    def __init__(self, limits: ModelLimits, rows_max: int) -> None:
        """Start with a full bucket; `rows_max` records make a batch."""
        self._limits = limits
        self._rows_max = rows_max
        rate = limits.rate_per_s_max
        self._capacity = 0.0 if rate is None else 1.0 + rate * BURST_S
        self._tokens = self._capacity
        self._filled_at_s: float | None = None

    def records(self, waiting: int, with_workers: int, now: float) -> int:
        """Count the records that may be sent now, of those that wait."""
        self._fill(now)
        least = min(waiting, self._rows_max, max(1.0, self._capacity / 2))
        if self._limits.rate_per_s_max is not None and self._tokens + ROUNDING < least:
            return 0
        return self.usable(waiting, with_workers)

    def usable(self, waiting: int, with_workers: int) -> int:
        """Count the records that more workers could be given at once."""
        if self._limits.in_flight_records_max is not None:
            waiting = min(waiting, self._limits.in_flight_records_max - with_workers)
        if self._limits.rate_per_s_max is not None:
            waiting = min(waiting, int(self._tokens + ROUNDING))
        return max(waiting, 0)

    def spend(self, records: int) -> None:
        """Take note that records are sent."""
        self._tokens -= records

    def refund(self, records: int) -> None:
        """Take note that records were not sent after all."""
        self._tokens = min(self._capacity, self._tokens + records)

    def _fill(self, now: float) -> None:
        if self._limits.rate_per_s_max is not None:
            passed_s = 0.0 if self._filled_at_s is None else now - self._filled_at_s
            self._tokens = min(self._capacity, self._tokens + passed_s * self._limits.rate_per_s_max)
            self._filled_at_s = now
