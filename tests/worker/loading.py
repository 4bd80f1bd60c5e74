"""Loading models in the tests' own process."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from consumer.errors import ModelError
from consumer.models.options import ModelOptions
from consumer.models.signature import TensorSpec
from consumer.worker.loaders import LoadedModel, Value, load
from tests.worker.networks import Embedder, export

X = TensorSpec("x", "FP32", (4,))
HERE = "tests.worker.factories"

PADDED = (
    TensorSpec("ids", "INT64", ("tokens",), pad=0, mask="mask"),
    TensorSpec("mask", "FP32", ("tokens",)),
)
CUT = (TensorSpec("whole", "FP32", (4,)), TensorSpec("each", "FP32", ("tokens",)))


def embedder(file: Path) -> str:
    """Export the embedder with a free, bounded axis."""
    tokens = torch.export.Dim("tokens", max=9)
    free = {0: torch.export.Dim.DYNAMIC, 1: tokens}
    example = torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3)
    return export(file, Embedder(), *example, dynamic={"ids": free, "mask": free})


def loaded(path: str | None = None, **options: Any) -> LoadedModel:
    """Load a model on the CPU."""
    return load(ModelOptions(id="m", path=path, **options), "cpu")


def refusal(**options: Any) -> str:
    """Load what must be refused, and return why in one line."""
    with pytest.raises(ModelError) as caught:
        loaded(**options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def refusal_when_asked(**options: Any) -> str:
    """Warm up a model that must be refused, and return why in one line."""
    model = loaded(**options)
    with pytest.raises(ModelError) as caught:
        model.warm_up()
    assert model.probe_inputs is None
    message = str(caught.value)
    assert "\n" not in message
    return message


def tensors(outputs: Mapping[str, Value]) -> dict[str, torch.Tensor]:
    """See that all outputs are tensors."""
    assert all(isinstance(value, torch.Tensor) for value in outputs.values())
    return dict(outputs)  # type: ignore[arg-type]
