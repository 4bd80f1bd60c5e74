from collections.abc import Mapping

import pytest

from consumer.demo.service import MODELS
from tests.demo.conftest import Trained

ACCURACY_MIN = 0.9
pytestmark = pytest.mark.slow


def test_every_model_of_the_configuration_is_trained(trained: Trained) -> None:
    """The files are those that the demo's configuration names, readable by every user, and nothing else."""
    files = list(trained.directory.iterdir())
    assert {path.name for path in files} == {model["path"] for model in MODELS.values()}
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in files)


def test_every_model_tells_digits_that_it_never_saw(trained: Trained) -> None:
    """Each network is right about nine of ten unseen images or more."""
    accuracies: Mapping[str, float] = {
        line.split(": ")[0]: float(line.split(": ")[1].split("%")[0]) / 100 for line in trained.printed.splitlines()
    }
    assert len(accuracies) == len(MODELS)
    assert min(accuracies.values()) >= ACCURACY_MIN
