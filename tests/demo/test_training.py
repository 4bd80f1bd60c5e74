import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from consumer.demo.service import MODELS

ACCURACY_MIN = 0.9
pytestmark = pytest.mark.slow


@pytest.fixture(name="trained", scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Train once; the directory and what was printed."""
    directory = tmp_path_factory.mktemp("models")
    printed = subprocess.run(
        [sys.executable, "-m", "consumer.demo.training", str(directory)], capture_output=True, text=True, check=True
    )
    return directory, printed.stdout


def test_every_model_of_the_configuration_is_trained(trained: tuple[Path, str]) -> None:
    """The files are those that the demo's configuration names, readable by every user, and nothing else."""
    directory, _ = trained
    assert {path.name for path in directory.iterdir()} == {model["path"] for model in MODELS.values()}
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in directory.iterdir())


def test_every_model_tells_digits_that_it_never_saw(trained: tuple[Path, str]) -> None:
    """Each network is right about nine of ten unseen images or more."""
    _, printed = trained
    accuracies: Mapping[str, float] = {
        line.split(": ")[0]: float(line.split(": ")[1].split("%")[0]) / 100 for line in printed.splitlines()
    }
    assert len(accuracies) == len(MODELS)
    assert min(accuracies.values()) >= ACCURACY_MIN
