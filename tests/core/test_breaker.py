"""A model's breaker, against the story of its failures."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consumer.core.breaker import Breaker, BreakerOptions, BreakerState
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
        self.is_probing = False

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 3.0, 8.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    @rule()
    def fail(self) -> None:
        """Fail: a load, a probe, or a batch that was on its way."""
        self.breaker.fail(self.now)
        if self.opened_s is None or self.is_probing:
            self.failures += 1
            self.opened_s = self.now
            self.is_probing = False

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
            assert self.breaker.due_at_s == due_at_s
            assert self.breaker.is_due(self.now) == (self.now >= due_at_s)


TestBreaker = BreakerMachine.TestCase
TestBreaker.settings = settings(UNHURRIED, max_examples=100, stateful_step_count=40)
