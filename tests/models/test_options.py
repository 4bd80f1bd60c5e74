"""The options of one model."""

import pickle
from typing import Any

import pytest

from consumer.models.options import ModelOptions
from consumer.models.signature import TensorSpec


def test_options_travel_to_a_worker() -> None:
    """They can be pickled, and compare equal afterwards."""
    options = ModelOptions(
        id="m", factory="acme.models:Intent", arguments={"width": 3}, inputs=(TensorSpec("x", "FP32", ("n",), 0.0),)
    )
    assert pickle.loads(pickle.dumps(options)) == options


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"id": "", "path": "m.pt2"}, "id: "),
        ({}, "path: give path, factory or both"),
        ({"path": "m.pt2", "arguments": {"a": 1}}, "arguments: go to factory"),
        ({"factory": "acme.models"}, "factory: 'acme.models' is not of the form package.module:name"),
        ({"factory": "acme models:x"}, "factory: "),
        ({"path": "m.pt2", "preprocess": ":x"}, "preprocess: "),
        ({"path": "m.pt2", "postprocess": "x:"}, "postprocess: "),
        ({"path": "m.pt2", "workers": ()}, "workers: name at least one"),
        ({"path": "m.pt2", "probe_backoff_s": 61.0}, "probe_backoff_s: 61.0 is above probe_backoff_s_max"),
        ({"path": "m.pt2", "crash_budget_s": 1800}, "crash_budget_s: 1800 is not below crash_window_s"),
        ({"path": "m.pt2", "inputs": ()}, "inputs: a model needs at least one"),
    ],
)
def test_contradictions_are_refused(values: dict[str, Any], message: str) -> None:
    """The message starts with the key at fault."""
    with pytest.raises(ValueError, match=f"^{message}"):
        ModelOptions(**{"id": "m", **values})


def test_a_factory_may_be_nested() -> None:
    """The name behind the colon may lead into a class."""
    assert ModelOptions(id="m", factory="acme.models:Intent.small").factory == "acme.models:Intent.small"
