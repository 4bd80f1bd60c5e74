"""Fixtures of the demo's tests: its models, trained once."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest


class Trained(NamedTuple):
    """A directory with the three models, and what the training printed."""

    directory: Path
    printed: str


@pytest.fixture(name="trained", scope="session")
def train(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Train the demo's models."""
    directory = tmp_path_factory.mktemp("demo") / "models"
    command = [sys.executable, "-m", "consumer.demo.training", str(directory)]
    return Trained(directory, subprocess.run(command, capture_output=True, text=True, check=True).stdout)
