"""The tables of life cycles, and the wait before a restart."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.lifecycle import (
    MODEL,
    SUPERVISOR,
    WORKER,
    ModelEvent,
    ModelState,
    RestartOptions,
    Restarts,
    SupervisorEvent,
    SupervisorState,
    TransitionError,
    WorkerEvent,
    WorkerState,
    advance,
)
from tests.strategies import UNHURRIED

Table = Mapping[Any, Mapping[Any, Any]]

TABLES = [(WORKER, WorkerEvent), (MODEL, ModelEvent), (SUPERVISOR, SupervisorEvent)]
IDS = ["worker", "model", "supervisor"]


@pytest.mark.parametrize(("table", "events"), TABLES, ids=IDS)
def test_every_event_leads_somewhere_or_is_an_error(table: Table, events: type[Enum]) -> None:
    """Each state follows each event by the table, or refuses it by name."""
    for state in table:
        for event in events:
            if event in table[state]:
                assert advance(table, state, event) is table[state][event]
            else:
                with pytest.raises(TransitionError, match=f"{type(state).__name__} {state.name} .* {event.name}$"):
                    advance(table, state, event)


@pytest.mark.parametrize(("table", "events"), TABLES, ids=IDS)
def test_every_state_is_reached_and_every_event_used(table: Table, events: type[Enum]) -> None:
    """A table has all states of its kind, leads to each of them from the first, and has a place for every event."""
    first = next(iter(table))
    states: type[Enum] = type(first)
    assert set(table) == set(states)
    reached, fresh = {first}, [first]
    while fresh:
        fresh = [state for state in table[fresh.pop()].values() if state not in reached] + fresh
        reached.update(fresh)
    assert reached == set(table)
    assert {event for row in table.values() for event in row} == set(events)


def test_the_ends_are_final() -> None:
    """A worker that cannot boot is not started again, and a stopped program does nothing."""
    assert not WORKER[WorkerState.UNBOOTABLE]
    assert not SUPERVISOR[SupervisorState.STOPPED]


def test_a_lost_worker_takes_its_models_with_it() -> None:
    """Whatever state a model had on a worker, it is absent once the worker is lost."""
    assert all(row[ModelEvent.WORKER_LOST] is ModelState.ABSENT for row in MODEL.values())


@given(lives=st.lists(st.none() | st.floats(0, 200), max_size=20))
@UNHURRIED
def test_the_wait_grows_with_deaths_in_a_row(lives: list[float | None]) -> None:
    """Waits double up to the cap; a worker that lived long enough begins anew; one that never booted did not live."""
    restarts = Restarts(RestartOptions(backoff_s=0.1, backoff_s_max=30.0, stable_s=60.0))
    now, expected_s = 0.0, 0.1
    for life_s in lives:
        if life_s is not None:
            restarts.booted(now)
            booted_s, now = now, now + life_s
            if now - booted_s >= 60.0:  # as it is measured, rounding included
                expected_s = 0.1
        else:
            now += 1000.0
        assert restarts.died(now) - now == pytest.approx(expected_s)
        now += expected_s
        expected_s = min(30.0, 2 * expected_s)
