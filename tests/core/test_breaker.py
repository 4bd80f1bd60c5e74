"""A model's breaker, against the story of its failures; and what a model may cost, against its whole history."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consumer.core.breaker import Breaker, BreakerOptions, BreakerState, CrashOptions, Losses, Pause
from tests.strategies import UNHURRIED

OPTIONS = BreakerOptions(backoff_s=1.0, backoff_s_max=8.0)


class BreakerMachine(RuleBasedStateMachine):
    """Failures, successes and attempts in any order that can be."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(OPTIONS)
        self.now = 0.0
        self.pauses_s = [1.0, 2.0, 4.0, 8.0, 8.0]
        self.failures = 0
        self.opened_s: float | None = None
        self.not_before_s = 0.0
        self.is_probing = False

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 3.0, 8.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    @rule(barred_s=st.sampled_from([None, None, 0.5, 20.0]))
    def fail(self, barred_s: float | None) -> None:
        """Fail: a load, a probe, or a batch that was on its way; a budget may bar it for longer."""
        not_before_s = 0.0 if barred_s is None else self.now + barred_s
        self.breaker.fail(self.now, not_before_s)
        if self.opened_s is None or self.is_probing:
            self.failures += 1
            self.opened_s = self.now
            self.not_before_s = 0.0
            self.is_probing = False
        self.not_before_s = max(self.not_before_s, not_before_s)

    @rule()
    def succeed(self) -> None:
        """Answer."""
        self.breaker.succeed()
        self.failures = 0
        self.opened_s = None
        self.is_probing = False

    @precondition(lambda self: self.breaker.is_due(self.now))
    @rule()
    def attempt(self) -> None:
        """Try again when it is time."""
        self.breaker.attempt(self.now)
        self.is_probing = True

    @precondition(lambda self: not self.breaker.is_due(self.now))
    @rule()
    def attempt_too_early(self) -> None:
        """Try again before it is time, or while that is being done: a programmer's error."""
        with pytest.raises(AssertionError, match="before its time"):
            self.breaker.attempt(self.now)

    @invariant()
    def is_like_the_model(self) -> None:
        """State and due time follow from when it failed, and how often in a row."""
        assert self.breaker.is_open == (self.opened_s is not None)
        if self.opened_s is None:
            assert self.breaker.state is BreakerState.CLOSED
            assert self.breaker.due_at_s is None
        elif self.is_probing:
            assert self.breaker.state is BreakerState.PROBING
            assert not self.breaker.is_due(self.now)
        else:
            due_at_s = self.opened_s + self.pauses_s[min(self.failures, len(self.pauses_s)) - 1]
            assert self.breaker.state is BreakerState.OPEN
            due_at_s = max(due_at_s, self.not_before_s)
            assert self.breaker.due_at_s == due_at_s
            assert self.breaker.is_due(self.now) == (self.now >= due_at_s)


TestBreaker = BreakerMachine.TestCase
TestBreaker.settings = settings(UNHURRIED, max_examples=100, stateful_step_count=40)


CRASHES = CrashOptions(budget_s=10.0, window_s=60.0)
QUARTERS_S = st.integers(0, 100).map(lambda quarters: quarters / 4)
"""Sums of these are exact."""


@UNHURRIED
@given(st.lists(st.tuples(QUARTERS_S, QUARTERS_S), max_size=40))
def test_a_model_costs_no_more_than_its_budget_and_one_death(deaths: list[tuple[float, float]]) -> None:
    """In any window, however often it is tried as soon as it may be; and it never waits longer than a window."""
    losses = Losses(CRASHES)
    history: list[tuple[float, float]] = []
    now = 0.0
    for idle_s, lost_s in deaths:
        now = max(now + idle_s, losses.free_at_s(now)) + lost_s
        losses.add(now, lost_s)
        history.append((now, lost_s))
        assert now <= losses.free_at_s(now) <= now + CRASHES.window_s
        within = [each_s for at_s, each_s in history if at_s > now - CRASHES.window_s]
        assert sum(within) <= CRASHES.budget_s + max(within)
        assert (losses.free_at_s(now) > now) == (sum(within) > CRASHES.budget_s)


def test_a_pause_grows_with_failures_in_a_row() -> None:
    """A failure while it lasts is the same one, and a success begins anew."""
    pause = Pause(OPTIONS)
    pause.fail(10.0)
    assert pause.over_at_s == 11.0
    pause.fail(10.5)
    assert pause.over_at_s == 11.0
    pause.fail(10.5, 30.0)
    assert pause.over_at_s == 30.0
    pause.fail(30.0)
    assert pause.over_at_s == 32.0
    pause.succeed()
    assert pause.over_at_s == 0.0
    pause.fail(40.0)
    assert pause.over_at_s == 41.0
