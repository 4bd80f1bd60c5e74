from collections.abc import Iterable

import pytest

from tests.mutations.__main__ import _judge_all
from tests.mutations.catalogue import MUTANTS, Mutant
from tests.mutations.gate import Finding, Run, Verdict, verdict

CHOSEN = MUTANTS[:3]
GREEN = Run(0, 12, [], "12 passed")


class FakeTree:
    """A copy of the tree in which everything has been run before."""

    def __init__(self, untouched: Run, *runs: Run) -> None:
        self._untouched = untouched
        self._runs = list(runs)
        self.tested: list[str] = []

    def test(self, tests: Iterable[str], *, is_first_enough: bool) -> Run:
        """Return the run without any bug."""
        self.tested = list(tests)
        return self._untouched

    def judge(self, mutant: Mutant) -> Finding:
        """Judge the next run."""
        return verdict(self._runs.pop(0))


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (Run(1, 3, [("test_a::test_b", "AssertionError: no")], ""), Verdict.CAUGHT),
        (Run(None, 0, [], ""), Verdict.CAUGHT),
        (Run(1, 0, [], "+++ Timeout +++"), Verdict.CAUGHT),
        (GREEN, Verdict.SURVIVED),
        (Run(0, 0, [], "5 skipped"), Verdict.UNPROVEN),
        (Run(5, 0, [], "no tests ran"), Verdict.UNPROVEN),
        (Run(2, 0, [], "1 error during collection"), Verdict.UNPROVEN),
        (Run(1, 2, [], "1 error at setup"), Verdict.UNPROVEN),
    ],
)
def test_only_a_test_that_fails_catches_a_bug(run: Run, expected: Verdict) -> None:
    """A failed test or an endless one catches it; a copy that cannot be imported, or skips, proves nothing."""
    assert verdict(run).verdict is expected


def test_all_caught_is_success(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0, and a line for each bug that names the test."""
    failed = Run(1, 0, [("test_a::test_b", "AssertionError: no")], "")
    tree = FakeTree(GREEN, failed, failed, failed)
    assert _judge_all(tree, CHOSEN) == 0
    said = capsys.readouterr().out
    for mutant in CHOSEN:
        assert f"caught    {mutant.name}" in said
        assert set(mutant.tests) <= set(tree.tested)
    assert "3 of 3 bugs caught" in said


@pytest.mark.parametrize("bad", [GREEN, Run(2, 0, [], "1 error during collection")])
def test_one_that_is_not_caught_is_a_failure(bad: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """A bug that survives, and one of which nothing can be said, are named and end the gate with 1."""
    failed = Run(1, 0, [("test_a::test_b", "AssertionError: no")], "")
    assert _judge_all(FakeTree(GREEN, failed, bad, failed), CHOSEN) == 1
    said = capsys.readouterr().out
    assert f"not caught: {CHOSEN[1].name}" in said
    assert "2 of 3 bugs caught" in said


@pytest.mark.parametrize("untouched", [Run(1, 11, [("test_a::test_b", "no")], "1 failed"), Run(0, 0, [], "12 skipped")])
def test_without_green_tests_nothing_is_said(untouched: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Tests that fail, or do not run, without any bug would catch everything: the gate ends with 2."""
    assert _judge_all(FakeTree(untouched), CHOSEN) == 2
    assert "nothing can be said" in capsys.readouterr().out
