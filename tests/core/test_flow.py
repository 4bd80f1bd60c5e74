"""Flow control against a model that looks at every partition every time."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from consumer.core.flow import DWELL_S, PAYLOAD_UNKNOWN, QUANTUM_PARTS, RATE_S, Decision, Flow, FlowOptions
from consumer.core.types import Amount, TopicPartition
from tests.strategies import PARTITIONS, UNHURRIED


class FlowMachine(RuleBasedStateMachine):
    """A consumer that does what it is told, with partitions whose heads may be stuck."""

    @initialize(
        records_max=st.sampled_from([2, 40, 1000]),
        span_max=st.sampled_from([2, 60, 1500]),
        bytes_max=st.sampled_from([2_000, 1 << 30]),
        fetch=st.integers(1, 100),
    )
    def begin(self, records_max: int, span_max: int, bytes_max: int, fetch: int) -> None:
        """Start without partitions."""
        fetch = min(fetch, records_max // 2, span_max // 2)
        self.options = FlowOptions(
            records_max=records_max, span_max=span_max, bytes_max=bytes_max, fetch_records_max=fetch
        )
        self.flow = Flow(self.options)
        self.now = 0.0
        self.payload = float(PAYLOAD_UNKNOWN)
        self.in_flight: dict[TopicPartition, list[int | None]] = {}  # sizes by position; None: resolved
        self.waiting: dict[TopicPartition, Amount] = {}
        self.paused: dict[TopicPartition, float] = {}  # until when at least
        self.since_s: float | None = None
        self.resolved = 0
        self.rate: float | None = None
        self.short_since_s: float | None = None
        self.bytes_allowed = self.records_allowed = 0.0

    def records(self, partition: TopicPartition) -> int:
        """Count what a partition has in flight."""
        return sum(size is not None for size in self.in_flight[partition])

    def size(self, partition: TopicPartition) -> int:
        """Sum up what a partition has in flight."""
        return sum(size for size in self.in_flight[partition] if size is not None)

    def left(self, partition: TopicPartition) -> tuple[float, float]:
        """Say how many records and bytes a partition may still use, from the definition of budgets and shares."""
        result = []
        for limit, used in ((self.options.records_max, self.records), (self.options.bytes_max, self.size)):
            share = limit / 2 / len(self.in_flight)
            beyond = sum(max(0.0, used(other) - share) for other in self.in_flight)
            result.append(max(0.0, limit / 2 - beyond) + max(0.0, share - used(partition)))
        return result[0], result[1]

    def is_short(self, partition: TopicPartition) -> bool:
        """Tell whether less is left to a partition than a fetch is worth."""
        limits = (self.options.records_max, self.options.bytes_max)
        return any(
            left < min(limit / QUANTUM_PARTS, limit / 4 / len(self.in_flight))
            for left, limit in zip(self.left(partition), limits, strict=True)
        )

    def waiting_part(self, partition: TopicPartition) -> float:
        """Say how much of a partition's share and of half of what is common its waiting records take up."""
        amount, parts = self.waiting.get(partition, Amount()), len(self.in_flight)
        part = 0.5 / parts + 0.25 if parts > 1 else 1.0
        return max(amount.records / self.options.records_max, amount.size / self.options.bytes_max) / part

    def is_wide(self, partition: TopicPartition) -> bool:
        """Tell whether a fetch would not fit into a partition's window, or too much of it waits."""
        return (
            self.waiting_part(partition) >= 1
            or len(self.in_flight[partition]) + self.options.fetch_records_max > self.options.span_max
        )

    def may_resume(self, partition: TopicPartition) -> bool:
        """Tell whether a partition has come down to half of what it may use."""
        if self.now < self.paused[partition] or 2 * len(self.in_flight[partition]) > self.options.span_max:
            return False
        if self.waiting_part(partition) > 1 / 2:
            return False
        limits = (self.options.records_max, self.options.bytes_max)
        totals = (sum(map(self.records, self.in_flight)), sum(map(self.size, self.in_flight)))
        amounts = (self.records(partition), self.size(partition))
        return all(
            amount <= limit / 4 / len(self.in_flight) or (total <= limit / 2 and amount <= left)
            for amount, limit, total, left in zip(amounts, limits, totals, self.left(partition), strict=True)
        )

    def measure(self) -> None:
        """Measure how many records are resolved in a second, while much is in flight."""
        records, size = sum(map(self.records, self.in_flight)), sum(map(self.size, self.in_flight))
        if records < self.options.records_max / QUANTUM_PARTS and size < self.options.bytes_max / QUANTUM_PARTS:
            self.since_s = self.rate = None
        elif self.since_s is None or self.now - self.since_s >= RATE_S:
            self.rate = self.rate if self.since_s is None else self.resolved / (self.now - self.since_s)
            self.since_s, self.resolved = self.now, 0

    def is_slow(self) -> bool:
        """Tell whether more is in flight than is resolved in a dwell."""
        return self.rate is not None and sum(map(self.records, self.in_flight)) > DWELL_S * self.rate

    def is_light(self, partition: TopicPartition) -> bool:
        """Tell whether a partition uses no more than half of its shares."""
        parts = 4 * len(self.in_flight)
        by_records, by_size = self.options.records_max / parts, self.options.bytes_max / parts
        return self.records(partition) <= by_records and self.size(partition) <= by_size

    def expected(self) -> Decision:
        """Decide by the definition."""
        fetch = self.options.fetch_records_max
        self.measure()
        active = [partition for partition in self.in_flight if partition not in self.paused]
        wide = [partition for partition in active if self.is_wide(partition)]
        short = [partition for partition in active if partition not in wide and self.is_short(partition)]
        slow: list[TopicPartition] = []
        if self.is_slow() and any(self.is_light(each) for each in active if each not in [*wide, *short]):
            slow, short = short, []
        self.slow = slow
        resume = [partition for partition in self.paused if self.may_resume(partition)]
        if short and self.short_since_s is None:
            self.short_since_s = self.now
        is_stalled = bool(short) and self.short_since_s is not None and self.now - self.short_since_s >= DWELL_S
        if not short or is_stalled:
            self.short_since_s = None
        pause = slow + wide + (short if is_stalled else [])
        active = [partition for partition in [*active, *resume] if partition not in pause]
        room = fetch
        if short and not is_stalled:
            room = 0
        elif active:
            lefts = [self.left(partition) for partition in active]
            by_size = min(size for _, size in lefts) / max(1.0, self.payload)
            room = max(1, int(min(fetch, by_size, *(records for records, _ in lefts))))
        elif self.in_flight:
            room = max(1, self.options.records_max // (2 * QUANTUM_PARTS * len(self.in_flight)))
        return Decision(room, pause, resume)

    @rule(partition=st.sampled_from(PARTITIONS))
    def assign(self, partition: TopicPartition) -> None:
        """Get a partition."""
        if partition not in self.in_flight:
            self.flow.assign([partition])
            self.in_flight[partition] = []

    @rule(partition=st.sampled_from(PARTITIONS))
    def revoke(self, partition: TopicPartition) -> None:
        """Lose a partition, if it is there."""
        self.flow.revoke([partition])
        self.in_flight.pop(partition, None)
        self.paused.pop(partition, None)

    @rule(parts=st.dictionaries(st.sampled_from(PARTITIONS), st.floats(0, 1), max_size=3))
    def wait(self, parts: dict[TopicPartition, float]) -> None:
        """Have some of a partition's records wait for a model that takes none."""
        self.waiting = {
            partition: Amount(int(part * self.records(partition)), int(part * self.size(partition)))
            for partition, part in parts.items()
            if partition in self.in_flight
        }
        self.flow.wait(self.waiting)

    @rule(
        source=st.randoms(use_true_random=False),
        size=st.sampled_from([0, 1, 20, 300]),
        skew=st.sampled_from([0, 3]),
        seconds=st.sampled_from([0.0, 0.01, 0.2, DWELL_S]),
    )
    def turn(self, source: random.Random, size: int, skew: int, seconds: float) -> None:
        """Do what is decided: pause, resume, and fetch as much as there is room for."""
        self.now += seconds
        expected, decision = self.expected(), self.flow.decide(self.now)
        assert decision == expected
        for partition in decision.resume:
            assert self.now >= self.paused.pop(partition)
        for partition in decision.pause:
            assert partition not in self.paused
            self.paused[partition] = self.now if partition in self.slow else self.now + DWELL_S
        active = [partition for partition in self.in_flight if partition not in self.paused]
        if not active:
            return
        favoured = active[: 1 if skew else None]
        fetched = [source.choice(favoured) for _ in range(decision.room)]
        for partition in active:
            count = fetched.count(partition)
            if count:
                self.in_flight[partition] += [size] * count
                self.flow.admit(partition, count, count * size, len(self.in_flight[partition]))
                self.payload = max(float(size), self.payload + (size - self.payload) / 8)

    @precondition(lambda self: any(self.in_flight.values()))
    @rule(source=st.randoms(use_true_random=False), part=st.floats(0, 1), is_head_stuck=st.booleans())
    def resolve(self, source: random.Random, part: float, *, is_head_stuck: bool) -> None:
        """Resolve records of one partition, its first one perhaps not."""
        partition = source.choice([partition for partition, sizes in self.in_flight.items() if sizes])
        sizes = self.in_flight[partition]
        places = [place for place, size in enumerate(sizes) if size is not None and not (is_head_stuck and place == 0)]
        chosen = source.sample(places, int(part * len(places)))
        size = sum(sizes[place] or 0 for place in chosen)
        for place in chosen:
            sizes[place] = None
        while sizes and sizes[0] is None:
            del sizes[0]
        self.flow.resolve(partition, len(chosen), size, len(sizes))
        self.resolved += len(chosen)

    @invariant()
    def limits_hold(self) -> None:
        """Sums are right; no window is exceeded; records exceed their budget only by shares of new partitions."""
        records, size = sum(map(self.records, self.in_flight)), sum(map(self.size, self.in_flight))
        assert (self.flow.records, self.flow.size) == (records, size)
        assert all(len(sizes) <= self.options.span_max for sizes in self.in_flight.values())
        assert records <= 1.5 * self.options.records_max + len(PARTITIONS)

    def teardown(self) -> None:
        """Once everything is resolved, every partition is fetched from again."""
        for partition, sizes in self.in_flight.items():
            self.flow.resolve(partition, self.records(partition), self.size(partition), 0)
            sizes.clear()
        self.flow.wait({})
        self.now += DWELL_S
        self.flow.decide(self.now)
        assert self.flow.decide(self.now) == Decision(self.flow.decide(self.now).room)
        assert self.flow.decide(self.now).room > 0


TestFlow = FlowMachine.TestCase
TestFlow.settings = settings(UNHURRIED, max_examples=100, stateful_step_count=50)


def flow_of(partitions: int, **limits: int) -> Flow:
    """Make a flow with some partitions, which has seen small records."""
    flow = Flow(FlowOptions(**({"fetch_records_max": 1000} | limits)))
    flow.assign(PARTITIONS[:partitions])
    for _ in range(200):
        flow.admit(PARTITIONS[0], 1, 1, 1)
        flow.resolve(PARTITIONS[0], 1, 1, 0)
    return flow


@given(partitions=st.integers(1, 4), sizes=st.lists(st.integers(0, 3), max_size=200))
@UNHURRIED
def test_records_never_exceed_their_budget_while_the_assignment_lasts(partitions: int, sizes: list[int]) -> None:
    """However the records are spread, fetching what there is room for stays within the budget."""
    flow = flow_of(partitions, records_max=100, fetch_records_max=30)
    spread = iter(sizes)
    paused: set[TopicPartition] = set()
    for turn in range(60):
        decision = flow.decide(turn * 0.1)
        paused = (paused | set(decision.pause)) - set(decision.resume)
        active = [partition for partition in PARTITIONS[:partitions] if partition not in paused]
        for _ in range(decision.room if active else 0):
            flow.admit(active[next(spread, 0) % len(active)], 1, 10, 1)
        assert flow.records <= 100


def test_a_partition_that_is_stuck_leaves_the_others_their_shares() -> None:
    """When one partition's records do not come back, it takes what is common, is paused, and the others go on."""
    flow = flow_of(4, records_max=10_000, bytes_max=1 << 40)
    stuck, *others = PARTITIONS
    now, fetched = 0.0, dict.fromkeys(PARTITIONS, 0)
    paused: set[TopicPartition] = set()
    for turn in range(4000):
        now += 0.001
        decision = flow.decide(now)
        paused = (paused | set(decision.pause)) - set(decision.resume)
        active = [partition for partition in PARTITIONS if partition not in paused]
        for partition in active:
            count = decision.room // len(active)
            flow.admit(partition, count, count, 0)
            fetched[partition] += count
            if partition != stuck:
                flow.resolve(partition, count, count, 0)
        if turn > 1000:
            assert paused == {stuck}
            assert decision.room >= 10_000 // 8 - 313 or decision.room == 1000
    assert fetched[stuck] == pytest.approx(10_000 / 2 + 10_000 / 8, rel=0.06)
    assert all(fetched[partition] > 100_000 for partition in others)


def test_shares_of_many_partitions_are_small_but_used() -> None:
    """Where the shares are smaller than a fetch is worth, a stuck partition still leaves the others theirs."""
    flow = Flow(FlowOptions())
    partitions = [TopicPartition("requests", number) for number in range(20)]
    flow.assign(partitions)
    flow.admit(partitions[0], 5_250, 5_250, 5_250)
    flow.decide(0.0)
    decision = flow.decide(DWELL_S)
    assert decision == Decision(250, [partitions[0]], [])


def test_a_partition_that_comes_back_begins_anew() -> None:
    """Nothing of an earlier assignment weighs on a later one: no pause, no window, no records."""
    flow = flow_of(1)
    flow.admit(PARTITIONS[0], 6_000, 6_000, 16_000)
    assert flow.decide(0.0).pause == [PARTITIONS[0]]
    flow.revoke(PARTITIONS)
    assert (flow.records, flow.size) == (0, 0)
    assert flow.decide(0.1) == Decision(1000)
    flow.assign(PARTITIONS[:1])
    assert flow.decide(0.2) == Decision(1000)


def test_a_short_lack_of_room_pauses_nothing() -> None:
    """A budget that is used up for less than the dwell stops fetching, and no more."""
    flow = flow_of(1)
    flow.admit(PARTITIONS[0], 9_999, 9_999, 9_999)
    assert flow.decide(1.0) == Decision(0)
    assert flow.decide(1.2) == Decision(0)
    flow.resolve(PARTITIONS[0], 8_000, 8_000, 1_999)
    assert flow.decide(1.24) == Decision(1000)
    flow.admit(PARTITIONS[0], 8_000, 8_000, 9_999)
    assert flow.decide(1.26) == Decision(0)
    assert flow.decide(1.26 + DWELL_S).pause == [PARTITIONS[0]]


def test_a_flood_that_is_resolved_slowly_keeps_out_of_the_way() -> None:
    """With more in flight than is resolved in a dwell, who has nothing left is paused, not fetched bit by bit."""
    flow = flow_of(4)
    flood, also, quiet = PARTITIONS[:3]
    flow.admit(flood, 4_250, 4_250, 4_250)
    flow.admit(also, 3_250, 3_250, 3_250)
    assert flow.decide(0.0) == Decision(0)
    flow.resolve(flood, 1_400, 1_400, 2_850)
    assert flow.decide(RATE_S).pause == []
    flow.admit(flood, 1_400, 1_400, 4_250)
    assert flow.decide(RATE_S) == Decision(1000, [flood, also], [])
    flow.admit(quiet, 10, 10, 10)
    flow.resolve(also, 2_300, 2_300, 950)
    assert flow.decide(RATE_S).resume == []
    flow.resolve(flood, 210, 210, 4_040)
    assert flow.decide(RATE_S).resume == [also]
    flow.resolve(flood, 1_500, 1_500, 2_540)
    assert flow.decide(RATE_S).resume == [flood], "half is left, to go on with"


@pytest.mark.parametrize("resolved", [3_500, 7_499])
def test_a_flood_that_is_resolved_fast_is_not_paused(resolved: int) -> None:
    """What is in flight is gone before a fetch would be back: the flood is fetched from bit by bit."""
    flow = flow_of(2)
    flow.admit(PARTITIONS[0], 7_500, 7_500, 7_500)
    for turn in range(8):
        assert flow.decide(1.1 * turn * RATE_S).pause == []
        flow.resolve(PARTITIONS[0], resolved, resolved, 0)
        assert flow.decide(1.1 * (turn + 0.5) * RATE_S).room > 0
        flow.admit(PARTITIONS[0], resolved, resolved, 0)


@pytest.mark.parametrize(("records", "is_paused"), [(1_250, True), (1_251, False)])
def test_a_flood_is_paused_for_the_sake_of_those_that_use_little(records: int, *, is_paused: bool) -> None:
    """Beside a partition that uses more than half of its share there is nobody to make way for."""
    flow = flow_of(2)
    flow.admit(PARTITIONS[0], 7_400, 7_400, 7_400)
    flow.admit(PARTITIONS[1], records, records, records)
    assert flow.decide(0.0).pause == []
    assert flow.decide(RATE_S).pause == ([PARTITIONS[0]] if is_paused else [])


def test_a_burst_after_a_quiet_time_is_not_taken_for_slow() -> None:
    """How fast records were resolved while there were few says nothing about many."""
    flow = flow_of(2)
    for turn in range(10):
        flow.admit(PARTITIONS[0], 10, 10, 10)
        flow.decide(turn * RATE_S)
        flow.resolve(PARTITIONS[0], 10, 10, 0)
    flow.admit(PARTITIONS[0], 7_500, 7_500, 7_500)
    assert flow.decide(1.0) == Decision(0)
    assert flow.decide(1.05) == Decision(0)


def test_floods_alone_are_not_paused_for_being_slow() -> None:
    """Where nothing is left to anybody, a pause would only throw away what was prefetched."""
    flow = flow_of(2)
    for partition in PARTITIONS[:2]:
        flow.admit(partition, 5_000, 5_000, 5_000)
    assert flow.decide(0.0) == Decision(0)
    for turn in range(1, 8):
        for partition in PARTITIONS[:2]:
            flow.resolve(partition, 500, 500, 5_000)
        assert flow.decide((turn - 0.5) * DWELL_S).pause == []
        for partition in PARTITIONS[:2]:
            flow.admit(partition, 500, 500, 5_000)
        assert flow.decide(turn * DWELL_S).pause == []


def test_a_pause_lasts_until_half_is_free() -> None:
    """A paused partition is resumed at half of what it may use, and not before the dwell is over."""
    flow = flow_of(1)
    flow.admit(PARTITIONS[0], 10_000, 10_000, 10_000)
    flow.decide(0.0)
    assert flow.decide(DWELL_S).pause == [PARTITIONS[0]]
    flow.resolve(PARTITIONS[0], 4_999, 4_999, 5_001)
    assert flow.decide(10.0).resume == []
    flow.resolve(PARTITIONS[0], 1, 1, 5_000)
    assert flow.decide(10.0) == Decision(1000, [], [PARTITIONS[0]])
    assert flow.decide(10.0) == Decision(1000)


def test_many_partitions_resume_together_at_half() -> None:
    """Partitions that use up the budget together are paused together, and resumed when half of it is free."""
    flow = flow_of(4, records_max=1000, fetch_records_max=100)
    for partition in PARTITIONS:
        flow.admit(partition, 250, 250, 250)
    flow.decide(0.0)
    assert flow.decide(DWELL_S).pause == list(PARTITIONS)
    for partition in PARTITIONS:
        flow.resolve(partition, 100, 100, 150)
    assert flow.decide(10.0).resume == []
    for partition in PARTITIONS:
        flow.resolve(partition, 25, 25, 125)
    assert flow.decide(10.0).resume == list(PARTITIONS)


def test_a_partition_that_comes_down_to_half_its_share_is_resumed_whatever_the_others_use() -> None:
    """A paused partition does not wait for those that are stuck, once it uses no more than half of its own share."""
    flow = flow_of(2, records_max=1000, fetch_records_max=100)
    stuck, other = PARTITIONS[:2]
    flow.admit(stuck, 700, 700, 700)
    flow.admit(other, 300, 300, 300)
    flow.decide(0.0)
    assert flow.decide(DWELL_S).pause == [stuck, other]
    flow.resolve(other, 174, 174, 126)
    assert flow.decide(10.0).resume == []
    flow.resolve(other, 1, 1, 125)
    assert flow.decide(10.0).resume == [other]


def test_a_full_window_pauses_at_once_and_alone() -> None:
    """A partition whose next fetch would not fit into its window is paused without delay; the others go on."""
    flow = flow_of(2)
    flow.admit(PARTITIONS[0], 1, 100, 15_385)
    assert flow.decide(0.0) == Decision(1000, [PARTITIONS[0]], [])
    flow.resolve(PARTITIONS[0], 0, 0, 8_193)
    assert flow.decide(1.0).resume == []
    flow.resolve(PARTITIONS[0], 0, 0, 8_192)
    assert flow.decide(1.0).resume == [PARTITIONS[0]]


def test_partitions_assigned_while_throttled_are_throttled() -> None:
    """A new partition gets no more than its share while the others use up the rest."""
    flow = flow_of(1, records_max=1000, fetch_records_max=500)
    flow.admit(PARTITIONS[0], 1000, 1000, 1000)
    flow.decide(0.0)
    assert flow.decide(DWELL_S).pause == [PARTITIONS[0]]
    flow.assign([PARTITIONS[1]])
    assert flow.decide(DWELL_S) == Decision(250)
    flow.admit(PARTITIONS[1], 250, 250, 250)
    assert flow.decide(DWELL_S) == Decision(0)
    assert flow.decide(2 * DWELL_S).pause == [PARTITIONS[1]]


def test_a_poll_with_everything_paused_brings_little() -> None:
    """While all partitions are paused the client is still polled, for few records, as one may be assigned by it."""
    flow = flow_of(1)
    flow.admit(PARTITIONS[0], 10_000, 10_000, 10_000)
    flow.decide(0.0)
    assert flow.decide(DWELL_S).room == 10_000 // 64
    assert flow.decide(5.0).room == 10_000 // 64


def test_large_records_are_fetched_in_small_numbers() -> None:
    """The room follows the size of the latest records, upwards at once; a record is always let through."""
    flow = Flow(FlowOptions(bytes_max=1_000_000, fetch_records_max=1000))
    flow.assign(PARTITIONS[:1])
    assert flow.decide(0.0).room == 1_000_000 // PAYLOAD_UNKNOWN
    flow.admit(PARTITIONS[0], 2, 600_000, 2)
    assert flow.decide(0.0).room == 1
    flow.resolve(PARTITIONS[0], 2, 600_000, 0)
    assert flow.decide(0.0).room == 3
    flow.admit(PARTITIONS[0], 1, 5_000_000, 1)
    flow.resolve(PARTITIONS[0], 1, 5_000_000, 0)
    assert flow.decide(0.0).room == 1
    for _ in range(200):
        flow.admit(PARTITIONS[0], 1, 100, 1)
        flow.resolve(PARTITIONS[0], 1, 100, 0)
    assert flow.decide(0.0).room == 1000


@pytest.mark.parametrize(
    ("records", "size", "span", "filled"),
    [(0, 0, 0, 0.0), (5_000, 0, 0, 0.5), (1, 32 << 20, 0, 0.5), (1, 1, 8_192, 0.5), (10_000, 1, 0, 1.0)],
)
def test_filled_is_the_scarcest_of_the_three(records: int, size: int, span: int, filled: float) -> None:
    """What takes up most of records, bytes or window decides how full a partition is."""
    flow = flow_of(1)
    flow.admit(PARTITIONS[0], records, size, span)
    assert flow.filled(PARTITIONS[0], records, size) == pytest.approx(filled)


def test_no_partition_has_all_while_there_are_others() -> None:
    """Of a partition may wait its share and half of what is common, as far as the others leave it."""
    flow = flow_of(2)
    assert flow.filled(PARTITIONS[0], 5_000, 0) == pytest.approx(1.0)
    flow.admit(PARTITIONS[1], 6_000, 0, 0)
    assert flow.filled(PARTITIONS[0], 4_000, 0) == pytest.approx(1.0)


@pytest.mark.parametrize(("records", "size"), [(3_750, 3_750), (3_000, 24 << 20)])
def test_records_that_wait_for_a_model_leave_half_of_what_is_common(records: int, size: int) -> None:
    """Their partition is paused at once when they take up their part, and fetched from again at half of it."""
    flow = flow_of(4)
    flow.admit(PARTITIONS[0], records, size, records)
    assert flow.decide(0.0).pause == []
    flow.wait({PARTITIONS[0]: Amount(records, size)})
    decision = flow.decide(0.0)
    assert decision.pause == [PARTITIONS[0]]
    assert decision.room == 1000
    assert flow.decide(DWELL_S).resume == []
    flow.resolve(PARTITIONS[0], records // 2 + 1, size // 2 + 1, records // 2)
    flow.wait({PARTITIONS[0]: Amount(records // 2 - 1, size // 2 - 1)})
    assert flow.decide(DWELL_S).resume == [PARTITIONS[0]]


@pytest.mark.parametrize("name", ["records_max", "span_max"])
def test_a_fetch_fits_into_the_limits(name: str) -> None:
    """A fetch of more than half of a limit is refused, with the key, the value and what is allowed."""
    with pytest.raises(ValueError, match=rf"^fetch_records_max: 51 .*{name} \(100\); at most 50"):
        FlowOptions(**{name: 100}, fetch_records_max=51)
    assert FlowOptions(**{name: 102}, fetch_records_max=51).fetch_records_max == 51


def test_what_was_not_admitted_is_not_resolved() -> None:
    """Resolving more than was admitted, or assigning a partition twice, is a programmer's error."""
    flow = flow_of(1)
    flow.admit(PARTITIONS[0], 2, 10, 2)
    with pytest.raises(AssertionError, match="more records"):
        flow.resolve(PARTITIONS[0], 3, 10, 0)
    with pytest.raises(AssertionError, match="more bytes"):
        flow.resolve(PARTITIONS[0], 2, 11, 0)
    with pytest.raises(AssertionError, match="twice"):
        flow.assign([PARTITIONS[0]])
