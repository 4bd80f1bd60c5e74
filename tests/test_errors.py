"""The error hierarchy."""

import re

import pytest

from consumer import errors


def classes() -> list[type[errors.ConsumerError]]:
    """List every error of the hierarchy."""
    return [
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.ConsumerError)
    ]


def test_every_error_has_a_reason_of_its_own() -> None:
    """Reasons are slugs, fit for a metric label, and tell the classes apart."""
    reasons = [error.reason for error in classes()]
    assert len(set(reasons)) == len(reasons) == 6
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", reason) for reason in reasons)


def test_the_table_of_the_docstring_is_true() -> None:
    """The module's docstring names every class with its reason and its exit code, and no other."""
    assert errors.__doc__
    rows = re.findall(r"^ +(\w+Error) +([a-z-]+) +(\d+)  ", errors.__doc__, re.MULTILINE)
    assert sorted(rows) == sorted((error.__name__, error.reason, str(int(error.exit_code))) for error in classes())


def test_a_configuration_error_tells_every_problem() -> None:
    """All problems are there, one line each, in their order."""
    error = errors.ConfigError("kafka.acks: is owned", "models: name at least one")
    assert error.problems == ("kafka.acks: is owned", "models: name at least one")
    assert str(error) == "kafka.acks: is owned\nmodels: name at least one"
    with pytest.raises(AssertionError):
        errors.ConfigError()


def test_signals_keep_the_shells_exit_codes() -> None:
    """A program that a signal ended says 128 and the signal's number, as shells do."""
    assert (errors.ExitCode.INTERRUPTED, errors.ExitCode.TERMINATED) == (128 + 2, 128 + 15)
