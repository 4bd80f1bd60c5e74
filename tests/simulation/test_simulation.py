"""Thousands of seeded schedules of the dispatcher in a world that fails at every step."""

import os

import pytest

from consumer.core.types import TopicPartition
from tests.simulation.world import LOG_RECORDS, Stored, World

SCHEDULES = int(os.environ.get("SIMULATION_SCHEDULES", "400"))
FIRST_SEED = int(os.environ.get("SIMULATION_SEED", "0"))
BLOCKS = 8


@pytest.mark.parametrize("block", range(BLOCKS))
def test_promises_hold_in_every_schedule(block: int) -> None:
    """P1, P2, P4 and P6 hold after every step of a faulty schedule, and once faults stop everything is committed."""
    for seed in range(FIRST_SEED + block, FIRST_SEED + SCHEDULES, BLOCKS):
        run_schedule(World(seed), seed, outcomes_max=LOG_RECORDS)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_exactly_once_holds_in_every_schedule(block: int) -> None:
    """P4: where outcomes and offsets are committed together, every record has one outcome, through any crash."""
    for seed in range(FIRST_SEED + block, FIRST_SEED + SCHEDULES, BLOCKS):
        run_schedule(World(seed, exactly_once=True), seed, outcomes_max=1)


def run_schedule(world: World, seed: int, outcomes_max: int) -> None:
    """Let faults happen, then let it settle, and look at every record."""
    try:
        for _ in range(250):
            world.step()
        world.settle()
        for tp, log in world.logs.items():
            for stored in log:
                outcomes = world.outcomes[tp, stored.offset]
                if stored.is_dropped:
                    assert outcomes == [], f"{tp} {stored.offset} was to be dropped, and has {outcomes}"
                    continue
                assert 1 <= len(outcomes) <= outcomes_max, f"P4: {tp} {stored.offset} has the outcomes {outcomes}"
    except AssertionError as error:
        raise AssertionError(f"SIMULATION_SEED={seed} SIMULATION_SCHEDULES=1: {error}") from error


def test_without_faults_every_record_has_exactly_one_outcome() -> None:
    """Nothing is doubled where nothing fails; poison, tombstones and records for nobody become dead letters."""
    world = World(7, has_faults=False)
    world.settle()
    expected = {"good": "result"} | dict.fromkeys(["poison", "nobody", "tombstone", "stale"], "dead letter")
    for tp, log in world.logs.items():
        for stored in log:
            outcomes = world.outcomes[tp, stored.offset]
            assert len(outcomes) == (0 if stored.is_dropped else 1), (tp, stored, outcomes)
            assert all(outcome == expected.get(stored.kind, outcome) for outcome in outcomes)


def test_killers_are_found_and_their_neighbours_served() -> None:
    """A record that kills its worker becomes a dead letter; every good record has a result."""
    world = World(11, has_faults=False)
    world.settle()
    kinds = {key: kind for key, kind in world.kinds.items() if kind in {"killer", "good"}}
    assert "killer" in kinds.values()
    for key, kind in kinds.items():
        assert world.outcomes[key] == ["dead letter" if kind == "killer" else "result"]


def test_a_drain_ends_and_commits_what_is_settled() -> None:
    """After a drain nothing is in flight: what has an outcome below the first open record is committed."""
    world = World(3)
    for _ in range(120):
        world.step()
    world.has_faults = False
    world.broken.clear()
    world.drain()
    for tp in world.owned:
        log = world.logs[tp]
        is_open = [not (stored.is_dropped or world.outcomes[tp, stored.offset]) for stored in log]
        first_open = next((stored.offset for stored, is_it in zip(log, is_open, strict=True) if is_it), None)
        next_offset = world.committed.get(tp, (log[0].offset, ""))[0]
        assert first_open is None or next_offset <= first_open
        assert not any(world.outcomes[tp, s.offset] for s in log if next_offset <= s.offset < (first_open or 10**9))


@pytest.mark.parametrize("kind", ["killer", "unloadable"])
def test_a_model_that_crashes_or_never_loads_leaves_another_its_speed(kind: str) -> None:
    """P7: beside a flood for such a model in another partition, a healthy one is served about as fast as alone."""
    alone, beside = turns_of_healthy(None), turns_of_healthy(kind)
    assert beside <= 1.5 * alone


def turns_of_healthy(beside: str | None) -> int:
    """Count the turns until a healthy model's partition is committed, beside a flood for another."""
    world = World(5, has_faults=False)
    healthy, other = TopicPartition("in", 0), TopicPartition("in", 1)
    world.logs = {healthy: [Stored(offset, "fast", None, "good") for offset in range(1_000)]}
    if beside is not None:
        world.logs[other] = [Stored(offset, "brittle", None, beside) for offset in range(1_500)]
    if beside == "unloadable":
        world.broken.add("brittle")
    world.kinds = {(tp, stored.offset): stored.kind for tp, log in world.logs.items() for stored in log}
    world.boot()
    for turn in range(20_000):
        world.step()
        if world.is_done(healthy):
            return turn
    raise AssertionError("the healthy model does not get on")
