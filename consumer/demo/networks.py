"""The demo's three networks: they tell an 8 x 8 image of a handwritten digit.

Owns the modules alone, so that `factory: consumer.demo.networks:Cnn` imports nothing but torch. Must not know how they
are trained or served.
"""

import torch
from torch import nn

SIDE = 8
CLASSES = 10


class Linear(nn.Module):
    """One linear layer over the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.Linear(SIDE * SIDE, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Score images: FP32 (rows, 8, 8), pixels from 0 to 1 -> FP32 (rows, 10)."""
        scores: torch.Tensor = self.classify(image.flatten(1))
        return scores


class Mlp(nn.Module):
    """Two layers with a ReLU between them."""

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Score images: FP32 (rows, 8, 8), pixels from 0 to 1 -> FP32 (rows, 10)."""
        scores: torch.Tensor = self.layers(image)
        return scores


class Cnn(nn.Module):
    """Two convolutions, pooled, and a linear layer."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, 2 * channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classify = nn.Linear(2 * channels * (SIDE // 2) ** 2, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Score images: FP32 (rows, 8, 8), pixels from 0 to 1 -> FP32 (rows, 10)."""
        scores: torch.Tensor = self.classify(self.features(image.unsqueeze(1)).flatten(1))
        return scores
