"""A model that fails now and then by chance, as if memory were short: copied beside the soak's configuration."""

import random

import torch

FAILS = 0.03
"""Part of the calls that fail."""


class Flaky(torch.nn.Module):
    """Doubles its input, mostly; its warm-up always passes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Double rows, or fail."""
        self.calls += 1
        if self.calls > 20 and random.random() < FAILS:
            raise MemoryError("no memory left, this time")
        return 2 * x
