"""How many records may be fetched now, and which partitions are paused.

Owns the budgets of records and payload bytes in flight, and each partition's window. Must not know offsets, models, or
how a client fetches and pauses.

Theory of operation. What is fetched is *in flight* until it is resolved. There are four limits to it.

1. The budgets: `records_max` and `bytes_max` over all partitions.
2. The shares: half of a budget is anybody's, first come; the other half is divided equally among the assigned
   partitions. A partition whose records do not come back (their model is slow, or waits) can take the common half and
   its own share; the others go on with theirs. So what is *left* to a partition is what is left of the common half, and
   what is left of its share.
3. The window: `span_max` positions from a partition's first unresolved record to its last, resolved or not. It bounds
   what a commit has to remember (`core.offset_map`).

4. The part of those that wait: records whose model takes none now (it is being loaded, broken, or at its limits) may
   take up their partition's share and half of the common half, `WAITING_PART`, where there are other partitions. So one
   such model leaves the others half of what is anybody's.

A client cannot fetch from some partitions and not from others unless these are paused, and a pause throws away what it
has prefetched. So a budget that is used up for a moment just stops fetching: room is 0. Only when that has lasted for
`DWELL_S` are the partitions that have nothing left paused, the others are fetched from again, and the client is polled
in any case. A pause lasts at least `DWELL_S`, and until the partition uses half of what it may. Records that wait pause
their partition as soon as they take up their part: they are not about to come back. So does the window, while one whole
fetch still fits in, so that it is never exceeded. Nor is the budget of records; only when partitions are added while
others use more than the new shares leave, it is, by those shares. Bytes are known only once they are here: a fetch is
limited by the size of the latest records, and one with larger ones may exceed.

A lack is known to last where more is in flight than is resolved in a dwell: a flood for a slow model. Those that have
nothing left are then paused at once, if there is one that uses little: the client has one queue for what it prefetched,
and there its records would stand behind a flood that is taken off bit by bit. The flood is resumed at half of what it
may use, whenever that is reached: so much lasts while it is fetched from again.

Invariants, while the assignment lasts: records in flight <= records_max; span <= span_max. Always: a partition with
nothing in flight is not paused for longer than `DWELL_S`.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge

from consumer.core.types import Amount, TopicPartition

DWELL_S = 0.25
"""Seconds that a lack of room lasts before partitions are paused, and that a pause lasts at least."""

QUANTUM_PARTS = 32
"""Part of a budget below which fetching waits for more: many small fetches cost more than a few large ones."""

WAITING_PART = 0.5
"""Part of a common half that records of one partition may take up while their model takes none."""

RATE_S = 0.1
"""Seconds over which it is measured how fast records are resolved."""

PAYLOAD_UNKNOWN = 64 * 1024
"""Bytes that a record is taken to have before the first one was seen."""

PAYLOAD_MEMORY = 8
"""Slices over which the estimate of a record's size follows records that become smaller; larger ones count at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowOptions:
    """How much may be in flight."""

    records_max: Annotated[int, Ge(2)] = 10_000
    """Records in flight over all partitions."""
    bytes_max: Annotated[int, Ge(1)] = 64 * 1024 * 1024
    """Payload bytes in flight over all partitions."""
    span_max: Annotated[int, Ge(2)] = 16_384
    """Records from a partition's first unresolved one to its newest; the commit metadata has room for 16,384."""
    fetch_records_max: Annotated[int, Ge(1)] = 2_000
    """Records of one fetch; at most half of `records_max` and of `span_max`, which lower the default if need be."""

    def __post_init__(self) -> None:
        """Refuse limits that contradict each other."""
        for name, limit in (("records_max", self.records_max), ("span_max", self.span_max)):
            if 2 * self.fetch_records_max > limit:
                raise ValueError(
                    f"fetch_records_max: {self.fetch_records_max} is more than half of {name} ({limit}); "
                    f"at most {limit // 2} is allowed"
                )


@dataclass(frozen=True, slots=True)
class Decision:
    """What the source does next: pause and resume, then fetch up to `room` records; at room 0 it does not poll."""

    room: int
    pause: list[TopicPartition] = field(default_factory=list)
    resume: list[TopicPartition] = field(default_factory=list)


@dataclass(slots=True)
class _Usage:
    """What one partition has in flight."""

    records: int = 0
    size: int = 0
    span: int = 0


class _Level:
    """One budget as it stands: its shares, and what is left of its common half."""

    __slots__ = ("_common_left", "_is_half_free", "_quantum", "_share", "waiting_max")

    def __init__(self, limit: int, used: Collection[int]) -> None:
        self._share = share = limit / 2 / len(used)
        self._common_left = max(0.0, limit / 2 - sum(amount - share for amount in used if amount > share))
        self.waiting_max = share + (WAITING_PART if len(used) > 1 else 1.0) * limit / 2
        """What of a partition may wait for models that take none."""
        self._is_half_free = sum(used) <= limit / 2
        self._quantum = min(limit / QUANTUM_PARTS, share / 2)

    def left(self, amount: int) -> float:
        """Say how much more a partition that uses this amount may use."""
        return self._common_left + max(0.0, self._share - amount)

    def is_short(self, amount: int) -> bool:
        """Tell whether too little is left to a partition for a fetch to be worth it."""
        return self.left(amount) < self._quantum

    def is_light(self, amount: int) -> bool:
        """Tell whether a partition uses no more than half of its own share."""
        return amount <= self._share / 2

    def is_relaxed(self, amount: int) -> bool:
        """Tell whether a partition has come down far enough to be fetched from again."""
        return self.is_light(amount) or (self._is_half_free and amount <= self.left(amount))


class Flow:
    """The records in flight of all assigned partitions."""

    def __init__(self, options: FlowOptions) -> None:
        self._options = options
        self._usages: dict[TopicPartition, _Usage] = {}
        self._wide: set[TopicPartition] = set()
        self._waiting: Mapping[TopicPartition, Amount] = {}
        self._paused_until_s: dict[TopicPartition, float] = {}
        self._short_since_s: float | None = None
        self._busy_s: float | None = None
        """Since when it is measured how fast records are resolved; None while little is in flight."""
        self._resolved = 0
        """Records that were resolved since."""
        self._rate: float | None = None
        """Records that were resolved in a second, as it was measured last; None since little was in flight."""
        self._payload = float(PAYLOAD_UNKNOWN)
        self.records = 0
        """Records in flight."""
        self.size = 0
        """Payload bytes in flight."""

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Begin with partitions that were given to this member: not paused, nothing in flight."""
        for partition in partitions:
            assert partition not in self._usages, "a partition was assigned twice"
            self._usages[partition] = _Usage()

    def revoke(self, partitions: Iterable[TopicPartition]) -> None:
        """Forget partitions that were taken away, with what they have in flight."""
        for partition in partitions:
            usage = self._usages.pop(partition, None)
            if usage is not None:
                self.records -= usage.records
                self.size -= usage.size
                self._paused_until_s.pop(partition, None)
                self._wide.discard(partition)

    def admit(self, partition: TopicPartition, records: int, size: int, span: int) -> None:
        """Take note of fetched records.

        Args:
            partition: Where they are from.
            records: How many are in flight now that were not before.
            size: Their payload bytes.
            span: The partition's span, these included.
        """
        usage = self._usages[partition]
        usage.records += records
        usage.size += size
        self.records += records
        self.size += size
        self._set_span(partition, span)
        if records:
            mean = size / records
            self._payload = max(mean, self._payload + (mean - self._payload) / PAYLOAD_MEMORY)

    def resolve(self, partition: TopicPartition, records: int, size: int, span: int) -> None:
        """Take note of resolved records; the arguments are those of `admit`."""
        usage = self._usages[partition]
        assert usage.records >= records, "more records were resolved than admitted"
        assert usage.size >= size, "more bytes were resolved than admitted"
        usage.records -= records
        usage.size -= size
        self._resolved += records
        self.records -= records
        self.size -= size
        self._set_span(partition, span)

    def wait(self, waiting: Mapping[TopicPartition, Amount]) -> None:
        """Take note of the records, by partition, that wait for models that take none now; the others have none."""
        self._waiting = waiting

    def decide(self, now: float) -> Decision:
        """Say what to fetch and what to pause or resume; a partition that is named counts as such from now on."""
        self._measure(now)
        if self._is_easy():
            return Decision(self._options.fetch_records_max)
        records, size = self._levels()
        wide, slow, short = self._scarce(records, size)
        resume = [
            partition
            for partition, until_s in self._paused_until_s.items()
            if now >= until_s
            and self._may_resume(self._usages[partition], records, size)
            and self._waiting_part(partition, records, size) <= 1 / 2
        ]
        is_stalled = self._is_stalled(now, is_short=bool(short))
        dwelling = [*wide, *short] if is_stalled else wide
        for partition in resume:
            del self._paused_until_s[partition]
        self._paused_until_s.update(dict.fromkeys(slow, now))
        self._paused_until_s.update(dict.fromkeys(dwelling, now + DWELL_S))
        return Decision(0 if short and not is_stalled else self._room(records, size), [*slow, *dwelling], resume)

    def filled(self, partition: TopicPartition, records: int, size: int) -> float:
        """Say how much of what a partition may hold is taken up: 1.0 is all of it.

        Args:
            partition: The partition.
            records: Those of its records in flight that are meant (a waiting model's, for example).
            size: Their payload bytes.
        """
        usage = self._usages[partition]
        by_records, by_size = self._levels()
        return max(
            usage.span / self._options.span_max,
            records / min(by_records.waiting_max, usage.records + by_records.left(usage.records)),
            size / min(by_size.waiting_max, usage.size + by_size.left(usage.size)),
        )

    def _is_easy(self) -> bool:
        """Tell, without a look at each partition, that no limit is near: a whole fetch fits into the common halves."""
        options, fetch = self._options, self._options.fetch_records_max
        is_roomy = (
            self.records + fetch <= options.records_max / 2
            and self.size + fetch * self._payload <= options.bytes_max / 2
        )
        is_easy = not self._usages or (is_roomy and not self._paused_until_s and not self._wide and not self._waiting)
        if is_easy:
            self._short_since_s = None
        return is_easy

    def _set_span(self, partition: TopicPartition, span: int) -> None:
        """Take note of a partition's span, and of whether a whole fetch still fits into its window."""
        self._usages[partition].span = span
        if span + self._options.fetch_records_max > self._options.span_max:
            self._wide.add(partition)
        else:
            self._wide.discard(partition)

    def _levels(self) -> tuple[_Level, _Level]:
        """Measure both budgets."""
        usages = self._usages.values()
        return (
            _Level(self._options.records_max, [usage.records for usage in usages]),
            _Level(self._options.bytes_max, [usage.size for usage in usages]),
        )

    def _measure(self, now: float) -> None:
        """Measure how fast records are resolved, from time to time, while there is much in flight."""
        options = self._options
        if self.records * QUANTUM_PARTS < options.records_max and self.size * QUANTUM_PARTS < options.bytes_max:
            self._busy_s = self._rate = None
            return
        if self._busy_s is not None:
            if now - self._busy_s < RATE_S:
                return
            self._rate = self._resolved / (now - self._busy_s)
        self._busy_s, self._resolved = now, 0

    def _scarce(
        self, records: _Level, size: _Level
    ) -> tuple[list[TopicPartition], list[TopicPartition], list[TopicPartition]]:
        """Name, of those fetched from, which may not be any more, and which have nothing left, be they slow or not."""
        wide, short, is_any_light = [], [], False
        for partition, usage in self._usages.items():
            if partition in self._paused_until_s:
                continue
            if partition in self._wide or self._waiting_part(partition, records, size) >= 1.0:
                wide.append(partition)
            elif records.is_short(usage.records) or size.is_short(usage.size):
                short.append(partition)
            elif records.is_light(usage.records) and size.is_light(usage.size):
                is_any_light = True
        is_slow = self._rate is not None and self.records > DWELL_S * self._rate
        return (wide, short, []) if is_any_light and is_slow else (wide, [], short)

    def _may_resume(self, usage: _Usage, records: _Level, size: _Level) -> bool:
        """Tell whether a paused partition has come down to half of what it may use."""
        is_narrow = usage.span <= self._options.span_max / 2
        return is_narrow and records.is_relaxed(usage.records) and size.is_relaxed(usage.size)

    def _waiting_part(self, partition: TopicPartition, records: _Level, size: _Level) -> float:
        """Say how much of what may wait of a partition does: 1.0 is all of it."""
        amount = self._waiting.get(partition)
        return 0.0 if amount is None else max(amount.records / records.waiting_max, amount.size / size.waiting_max)

    def _is_stalled(self, now: float, *, is_short: bool) -> bool:
        """Tell whether partitions that are fetched from have had nothing left for too long."""
        if not is_short:
            self._short_since_s = None
            return False
        if self._short_since_s is None:
            self._short_since_s = now
        if now - self._short_since_s < DWELL_S:
            return False
        self._short_since_s = None
        return True

    def _room(self, records: _Level, size: _Level) -> int:
        """Count the records that the next fetch may bring, even if all of them come from one partition."""
        options = self._options
        active = [usage for partition, usage in self._usages.items() if partition not in self._paused_until_s]
        if not active:
            # Nothing comes from paused partitions; one that is assigned during this very poll has a share.
            return max(1, options.records_max // (2 * QUANTUM_PARTS * len(self._usages)))
        by_records = min(records.left(usage.records) for usage in active)
        by_size = min(size.left(usage.size) for usage in active) / max(1.0, self._payload)
        return max(1, int(min(options.fetch_records_max, by_records, by_size)))
