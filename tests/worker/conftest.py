"""Fixtures of the worker's tests."""

import pytest


@pytest.fixture
def weights_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forbid pickles in this process, as a worker's environment does in its own."""
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
