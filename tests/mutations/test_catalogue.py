import ast

import pytest

from tests.mutations.catalogue import MUTANTS, ROOT, Mutant

PROMISES = {f"P{number}" for number in range(1, 8)}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_still_applies(mutant: Mutant) -> None:
    """The text that a bug replaces is in the source once, the result is another program, and its tests are there."""
    source = (ROOT / mutant.path).read_text()
    mutated = mutant.applied(source)
    assert ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(source))
    for test in mutant.tests:
        path, _, name = test.partition("::")
        assert (ROOT / path).exists(), test
        assert not name or f"def {name}(" in (ROOT / path).read_text(), test


def test_every_promise_that_a_bug_can_break_is_tried() -> None:
    """The catalogue reaches every promise, and no two bugs share a name."""
    assert {mutant.promise for mutant in MUTANTS} == PROMISES
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_a_mutant_that_does_not_apply_says_so() -> None:
    """A source that moved on is an error that names the bug, never a mutant that changes nothing."""
    with pytest.raises(ValueError, match=f"{MUTANTS[0].name}: the text to replace is 0 times"):
        MUTANTS[0].applied("another = program\n")
