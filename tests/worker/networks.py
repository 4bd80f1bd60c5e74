"""Small models for the tests, saved in every format."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import nn

BATCH = {0: torch.export.Dim.DYNAMIC}


class Classifier(nn.Module):
    """Three logits of four numbers."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the logits."""
        return self.linear(x)  # type: ignore[no-any-return]


class Normalised(nn.Module):
    """A network whose rows depend on one another as long as it is in train mode."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the logits."""
        return self.layers(x)  # type: ignore[no-any-return]


class Dropping(nn.Module):
    """A network that is random as long as it is in train mode."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the logits."""
        return self.layers(x)  # type: ignore[no-any-return]


class Embedder(nn.Module):
    """The mean of token embeddings that a mask lets through, and one number for every token."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(11, 4)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Embed."""
        rows = self.table(ids) * mask.unsqueeze(-1)
        return {"whole": rows.sum(1) / mask.sum(1, keepdim=True).clamp(min=1), "each": rows.sum(-1)}


class Pair(NamedTuple):
    """Two outputs."""

    low: torch.Tensor
    high: torch.Tensor


@dataclass
class Record:
    """Two outputs."""

    low: torch.Tensor
    high: torch.Tensor


def export(
    path: Path, model: nn.Module, *example: Any, dynamic: Any = None, keywords: Mapping[str, Any] | None = None
) -> str:
    """Save an exported program; `dynamic` is torch's `dynamic_shapes`."""
    program = torch.export.export(model, example, dict(keywords or {}), dynamic_shapes=dynamic)
    torch.export.save(program, path)
    return str(path)


def script(path: Path, model: nn.Module) -> str:
    """Save a model as TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(model), str(path))
    return str(path)


def weights(path: Path, model: nn.Module) -> str:
    """Save a model's weights alone."""
    safetensors.torch.save_model(model, str(path))
    return str(path)
