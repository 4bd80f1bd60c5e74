"""A configuration of its own for each test of a command."""

from collections.abc import Callable
from pathlib import Path

import pytest

from consumer.cli import program

Call = Callable[..., int]


@pytest.fixture
def call() -> Call:
    """Give a function that calls the program in this process and returns its exit code."""

    def _call(*arguments: str | Path) -> int:
        with pytest.raises(SystemExit) as ended:
            program.main([str(argument) for argument in arguments])
        assert isinstance(ended.value.code, int)
        return ended.value.code

    return _call
