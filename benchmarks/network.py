"""The network of the benchmarks, 784-32-10, as files: a .pt2 for the program, weights for the loops.

A program of its own, since it imports torch: `python -m benchmarks.network DIRECTORY`.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from benchmarks import EXPORTED, PIXELS, WEIGHTS

HIDDEN, CLASSES = 32, 10


class Network(nn.Module):
    """Two layers: so small that what stands around it is what is measured."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Score images: FP32 (rows, 784) -> FP32 (rows, 10)."""
        scores: torch.Tensor = self.layers(image)
        return scores


def load(directory: Path) -> Network:
    """Read the network back from its weights, ready for inference on one thread."""
    torch.set_num_threads(1)
    network = Network().eval()
    network.load_state_dict(load_file(directory / WEIGHTS))
    return network


def save(directory: Path) -> None:
    """Write both files."""
    torch.manual_seed(0)
    network = Network().eval()
    save_file(network.state_dict(), directory / WEIGHTS)
    example = (torch.zeros(2, PIXELS),)
    program = torch.export.export(network, example, dynamic_shapes=({0: torch.export.Dim("rows")},))
    torch.export.save(program, directory / EXPORTED)


if __name__ == "__main__":
    save(Path(sys.argv[1]))
